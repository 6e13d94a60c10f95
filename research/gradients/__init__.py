"""Stage 4: loss -> gradient. A base computes it in one piece or in micro-batches; a method may call the base more than once.

A gradient is that of the SUM of the losses; the step divides it once by the count of the whole batch. So micro-batches, devices
and padding never lead to averages of averages.

  loss_fn: (params, collections, batch) -> (sum of the losses, {'sums', 'collections', 'losses' [B]})
  gradient: (params, collections, batch) -> (gradient of the sum on this device, {'sums', 'collections', 'losses', 'count',
    'observed'}); 'count' is the divisor of the gradient, a sum over this device's rows. An optional tree 'noise', in the unit
    of the unscaled sum, is added once, after the sum over devices and micro-batches.
  keys: research.layers.example.StepKeys; keys(purpose) is a typed key [] of this step, keys.step the updates done.

A method is a factory of (base, loss_fn, engine, keys) -> gradient, where `base` is the gradient of the batch.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from research import catalogue
from research.gradients import accumulated, whole
from research.layers.example import StepKeys

GRADIENTS = {
    'dp_sgd': 'research.gradients.dp_sgd:create',
    'plain': 'research.gradients.plain:create',
    'sam': 'research.gradients.sam:create',
    'selective_backprop': 'research.gradients.selective_backprop:create',
}
OWN = ('micro_batch', 'noise_scale', 'freeze')

Gradient = Callable[..., Any]


def create(config: Mapping[str, Any], micro_batches: int) -> Callable[..., Gradient]:
    """(loss_fn, engine, keys) -> gradient, as the group `gradient` says.

    Args:
      config: {name, micro_batch, noise_scale, freeze, **kwargs}.
      micro_batches: n; from 2 on the arrays of a batch are [n, B / n, ...].

    Raises:
      ConfigError: a noise scale without micro-batches to compare.
    """
    if config['noise_scale'] and micro_batches < 2:
        raise catalogue.ConfigError(
            'gradient.noise_scale compares micro-batches: set gradient.micro_batch to half of data.batch_size or less.'
        )
    method = catalogue.build('gradient', {k: v for k, v in config.items() if k not in OWN}, GRADIENTS)
    if not callable(method) or not _takes_four(method):
        raise catalogue.ConfigError(
            f"gradient '{config['name']}' makes {method!r:.80}, expected a method (base, loss_fn, engine, keys) -> gradient."
        )

    def gradient(loss_fn: Callable[..., Any], engine: Any, keys: StepKeys) -> Gradient:
        base = whole.gradient(loss_fn) if micro_batches < 2 else accumulated.gradient(loss_fn, engine, config['noise_scale'])
        return method(base, loss_fn, engine, keys)

    return gradient


def _takes_four(method: Callable[..., Any]) -> bool:
    try:
        inspect.signature(method).bind(*'four')
    except TypeError:
        return False
    return True


def with_noise_scale(means: Mapping[str, float]) -> dict[str, float]:
    """Means over steps, plus the gradient noise scale 'noise/scale' in examples if its parts were measured.

    It is a ratio of two means (McCandlish et al. 2018, appendix A.1): each part is unbiased, their ratio in one step is not.
    It is omitted if the steps are too few for a signal, whose unbiased estimate is then 0 or below.
    """
    if 'noise/signal' not in means or means['noise/signal'] <= 0:
        return dict(means)
    return {**means, 'noise/scale': means['noise/trace'] / means['noise/signal']}
