"""Averaged weights, and which parameters are evaluated.

Idea: evaluate a running average of the trained weights; it lies nearer to the bottom of a valley than any of them. Every kind
of average is a schedule of one number, the weight of the newest parameters, which is fed to the program as data. So all kinds
share one program.

Config: {'optimizer.average.name': 'ema', 'optimizer.average.decay': 0.999}
        {'optimizer.average.name': 'swa', 'optimizer.average.start': '0.75run', 'optimizer.average.every': '1ep'}

Sources: EMA Polyak and Juditsky 1992, with the warm-up of its decay that TensorFlow's ExponentialMovingAverage has
(`num_updates`); SWA Izmailov et al. 2018, algorithm 1; schedule-free Defazio et al. 2024 (an optimizer of optax.contrib).

Cost: one more copy of the weights, a pass over it per step, and new statistics of batch normalization for each evaluation (SWA
is poor without). Claim: 0.5 to 1 points on CIFAR for SWA with a high constant rate at the end.

Clashes: a rate that has decayed to 0 leaves little to average. Frozen layers are averaged as if their last updates continued.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib

from research import catalogue
from research.optim.clipping import found_in
from research.optim.schedules import Convert, converter

AVERAGES = {
    'ema': 'research.optim.averaging:ema',
    'none': 'research.optim.averaging:none',
    'swa': 'research.optim.averaging:swa',
}
GIVEN = ('position', 'updates', 'step', 'convert')


def average_weight(
    config: Mapping[str, Any], total: float, epoch: float | None = None, per_step: float | None = None
) -> Callable[..., np.ndarray] | None:
    """(position, updates done before it, size of the step there) -> weight of the newest parameters in the average, float64 of
    the position's shape; None if nothing is averaged.

    Args:
      config: the whole config; reads `optimizer.average {name, **kwargs}` and `data.batch_size`.
      total, epoch, per_step: as in `research.optim.schedule`.

    Raises:
      ConfigError: unknown name or argument, a bad duration.
    """
    group = config['optimizer']['average']
    if group['name'] == 'none':
        return None
    step = config['data']['batch_size'] if per_step is None else per_step
    convert = converter(config, total, epoch, per_step)
    weight = catalogue.bind('average', group, AVERAGES, GIVEN)
    weight(position=np.zeros(1), updates=np.zeros(1), step=step, convert=convert)  # raises for a bad duration

    def of(position: Any, updates: Any, size: float) -> np.ndarray:
        position, updates = np.asarray(position, np.float64), np.asarray(updates, np.float64)
        return weight(position=position, updates=updates, step=size, convert=convert)

    return of


def none(position: np.ndarray, updates: np.ndarray, step: float, convert: Convert) -> np.ndarray:
    """No average: weight 1, float64 of the position's shape."""
    return np.ones_like(position)


def ema(position: np.ndarray, updates: np.ndarray, step: float, convert: Convert, decay: float = 0.999) -> np.ndarray:
    """An exponential moving average: 1 - min(decay, (1 + n) / (10 + n)) behind n updates, to forget the start."""
    if not 0 <= decay < 1:
        raise catalogue.ConfigError(f'optimizer.average.decay is {decay}, expected 0 or more and less than 1.')
    return 1 - np.minimum(decay, (1 + updates) / (10 + updates))


def swa(
    position: np.ndarray, updates: np.ndarray, step: float, convert: Convert, start: str = '0.75run', every: str = '1ep'
) -> np.ndarray:
    """The plain mean of the weights at `start` and after each `every` from there; until then the weights themselves."""
    begin, length = convert(start), convert(every)
    if begin >= (end := convert('1run')):
        raise catalogue.ConfigError(
            f"optimizer.average.start '{start}' leaves nothing to average: it is {begin:g} in a run of {end:g}; expected for "
            "example '0.75run'."
        )
    if length < step:
        raise catalogue.ConfigError(
            f"optimizer.average.every '{every}' is shorter than a step ({length:g} against {step:g}; data.batch may make steps "
            "longer than the first ones are): expected for example '1ep'."
        )
    after = position + step - begin  # where the update that starts at `position` ends
    number = np.floor(np.maximum(after, 0) / length + 1e-9)
    taken = (after < 0) | (number > np.floor((after - step) / length + 1e-9)) | (after - step < 0)
    return np.where(taken, 1 / (1 + number), 0.0)


class AverageState(NamedTuple):
    """The averaged parameters, a tree like the parameters."""

    average: Any


def average(average_weight: Any) -> optax.GradientTransformation:
    """Keeps the average, last in a chain: average += average_weight * (new parameters - average), average_weight float32 []."""

    def init(params: Any) -> AverageState:
        return AverageState(jax.tree.map(jnp.copy, params))

    def update(updates: Any, state: AverageState, params: Any = None) -> tuple[Any, AverageState]:
        def move(mean: jax.Array, p: jax.Array, u: jax.Array) -> jax.Array:
            new = p + u
            # At weight 1 the average is the parameters, bit for bit.
            return jnp.where(average_weight == 1, new, mean + average_weight * (new - mean)).astype(mean.dtype)

        return updates, AverageState(jax.tree.map(move, state.average, params, updates))

    return optax.GradientTransformation(init, update)


def evaluation_params(params: Any, state: optax.OptState) -> Any:
    """The parameters that are scored, saved and exported: the averaged ones, or schedule-free's x, or else the trained ones."""
    if parts := found_in(state, _averages):
        part = parts[-1]
        return part.average if isinstance(part, AverageState) else optax.contrib.schedule_free_eval_params(part, params)
    return params


def averages(state: optax.OptState) -> bool:
    """Whether other parameters are scored than are trained."""
    return bool(found_in(state, _averages))


def _averages(part: Any) -> bool:
    return isinstance(part, AverageState | optax.contrib.ScheduleFreeState)
