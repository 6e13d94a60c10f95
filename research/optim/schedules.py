"""Learning-rate schedules: position -> learning rate, computed on the host in float64.

The trainer feeds the rates to the compiled chunk as data, so every schedule shares one program. To add a schedule, write
a function `(position, total, convert, **kwargs) -> factor` and name it in `SCHEDULES`: position and total are counted
from the end of the warm-up, `convert` turns a duration text into the same unit, and the factor multiplies
`optimizer.learning_rate`.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from research import catalogue, durations

SCHEDULES = {
    'constant': 'research.optim.schedules:constant',
    'cosine': 'research.optim.schedules:cosine',
    'exponential': 'research.optim.schedules:exponential',
}

Convert = Callable[[str], float]
Schedule = Callable[[Any], np.ndarray]


def schedule(config: Mapping[str, Any], total: float, epoch: float | None = None, per_step: float | None = None) -> Schedule:
    """The learning rate as a function of the position in the run, linear warm-up from 0 in front.

    Args:
      config: the whole config; reads `schedule {name, warmup, **kwargs}`, `optimizer.learning_rate`, `data.batch_size`.
      total: length of the run. Position, total and epoch share one unit.
      epoch: length of an epoch; needed only where a duration counts epochs.
      per_step: how far a step moves the position. When left out positions count examples and a step moves
        `data.batch_size` of them; 1 says that positions count steps. Durations in `run` are the same either way.

    Returns:
      position (a number or an array) -> learning rate, float64 of the same shape. The rate at position p is that of the
      update that starts there, as in optax: the first update of a warmed-up run has rate 0. Past the end it stays.

    Raises:
      ConfigError: unknown name or argument, a bad duration, a warm-up that is longer than the run.
    """
    settings = {key: value for key, value in config['schedule'].items() if key not in ('name', 'warmup')}
    name, peak, batch_size = config['schedule']['name'], config['optimizer']['learning_rate'], config['data']['batch_size']
    unit = batch_size if per_step is None else per_step

    def convert(text: str) -> float:
        epoch_examples = None if epoch is None else epoch * batch_size / unit
        return durations.examples(text, batch_size, epoch_examples, total * batch_size / unit) * unit / batch_size

    shape = catalogue.resolve('schedule', name, SCHEDULES)
    catalogue.check('schedule', name, shape, settings, given=('position', 'total', 'convert'))
    warmup = convert(config['schedule']['warmup'])
    if warmup > total:
        raise catalogue.ConfigError(
            f"schedule.warmup '{config['schedule']['warmup']}' is longer than the run; "
            "give it as a fraction ('0.1run') or shorten it."
        )

    def rate(position: Any) -> np.ndarray:
        position = np.clip(np.asarray(position, np.float64), 0, total)
        factor = shape(np.maximum(position - warmup, 0), total - warmup, convert, **settings)
        return (peak * np.where(position < warmup, position / (warmup or 1), factor))[()]

    rate(0.0)  # a bad duration among the arguments is refused now, not at the first step
    return rate


def constant(position: np.ndarray, total: float, convert: Convert) -> np.ndarray:
    """The same rate throughout."""
    return np.ones_like(position)


def cosine(position: np.ndarray, total: float, convert: Convert, alpha: float = 0.0) -> np.ndarray:
    """Half a cosine from 1 down to `alpha` at the end of the run (Loshchilov and Hutter 2017, eq. 5, without restarts)."""
    return alpha + (1 - alpha) * (1 + np.cos(np.pi * _fraction(position, total))) / 2


def exponential(
    position: np.ndarray,
    total: float,
    convert: Convert,
    decay_rate: float = 0.1,
    transition: str = '0.5run',
    staircase: bool = False,
) -> np.ndarray:
    """`decay_rate ** (position / transition)`; with `staircase` the exponent is a whole number, and the rate falls in steps."""
    length = convert(transition)
    if not length:
        raise catalogue.ConfigError(
            f"schedule.transition '{transition}' lasts nothing; it is the time in which the rate is "
            f"multiplied by decay_rate ({decay_rate}), for example '0.5run'."
        )
    exponent = position / length
    return decay_rate ** (np.floor(exponent) if staircase else exponent)


def _fraction(position: np.ndarray, total: float) -> np.ndarray:
    return position / total if total else np.ones_like(position)
