"""Stage 4: loss -> gradient. A base takes it whole or in micro-batches; a method may ask the base for more than one.

A gradient is that of the SUM of the losses; the step divides it once by the count of the whole batch, so that micro-batches,
devices and padding cannot average averages.

  loss_fn: (params, collections, batch) -> (sum of the losses, {'sums', 'collections', 'losses' [B]})
  gradient: (params, collections, batch) -> (gradient of the sum on this device, {'sums', 'collections', 'losses', 'count',
    'observed'}); 'count' is what the gradient is to be divided by, a sum over this device's rows.
"""

from collections.abc import Callable, Mapping
from typing import Any

from research import catalogue
from research.gradients import accumulated, whole

GRADIENTS = {
    'plain': 'research.gradients.plain:create',
    'sam': 'research.gradients.sam:create',
    'selective_backprop': 'research.gradients.selective_backprop:create',
}
OWN = ('micro_batch', 'noise_scale', 'freeze')

Gradient = Callable[..., Any]


def create(config: Mapping[str, Any], micro_batches: int) -> Callable[[Callable[..., Any], Any], Gradient]:
    """(loss_fn, engine) -> gradient, as the group `gradient` says.

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

    def gradient(loss_fn: Callable[..., Any], engine: Any) -> Gradient:
        base = whole.gradient(loss_fn) if micro_batches < 2 else accumulated.gradient(loss_fn, engine, config['noise_scale'])
        return method(base, loss_fn, engine)

    return gradient


def with_noise_scale(means: Mapping[str, float]) -> dict[str, float]:
    """Means over steps, and with them the gradient noise scale in examples where its parts were measured.

    It is a ratio of two means (McCandlish et al. 2018, appendix A.1): each part is unbiased, their ratio in one step is not.
    It is left out where the steps were too few for a signal to show: its unbiased estimate is then 0 or below.
    """
    if 'noise/signal' not in means or means['noise/signal'] <= 0:
        return dict(means)
    return {**means, 'noise/scale': means['noise/trace'] / means['noise/signal']}
