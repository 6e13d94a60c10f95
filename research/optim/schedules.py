"""Learning-rate schedules: position -> learning rate, computed on the host in float64.

The trainer feeds the rates to the compiled chunk as data, so every schedule shares one program. To add a schedule, write
a function `(position, total, convert, **kwargs) -> factor` and name it in `SCHEDULES`. Position, float64 [N], and total count
from the end of the warm-up, `convert` turns a duration text into the same unit, and the factor, float64 [N], multiplies
`optimizer.learning_rate`.

Durations in the arguments start at the end of the warm-up, but '1run' is the whole run, including the warm-up.

Idea: large steps find a region, small ones its bottom; a warm-up keeps the first, largest gradients from diverging.

Config: {'schedule.name': 'cosine', 'schedule.warmup': '0.1run'}, and likewise for the others in `SCHEDULES`.

Sources: cosine and restarts Loshchilov and Hutter 2017 (SGDR, equation 5); warm-up Goyal et al. 2017 (section 2.2); one-cycle
Smith and Topin 2018 (Super-convergence); inverse square root Vaswani et al. 2017 (equation 3); plateau research.optim.plateau.

Cost: none. Claim: warm restarts 2 to 4 times fewer epochs to the same error (SGDR), one-cycle an order of magnitude fewer steps
(Super-convergence). Clashes: averages of weights need a rate that has not decayed; schedule-free optimizers need
'constant'; Prodigy and D-Adaptation need a first rate above 0.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from research import catalogue, durations

SCHEDULES = {
    'constant': 'research.optim.schedules:constant',
    'cosine': 'research.optim.schedules:cosine',
    'cosine_restarts': 'research.optim.schedules:cosine_restarts',
    'exponential': 'research.optim.schedules:exponential',
    'inverse_sqrt': 'research.optim.schedules:inverse_sqrt',
    'linear': 'research.optim.schedules:linear',
    'one_cycle': 'research.optim.schedules:one_cycle',
    'plateau': 'research.optim.plateau:plateau',
    'polynomial': 'research.optim.schedules:polynomial',
    'step': 'research.optim.schedules:step',
}

Convert = Callable[[str], float]
Schedule = Callable[[Any], np.ndarray]


def schedule(config: Mapping[str, Any], total: float, epoch: float | None = None, per_step: float | None = None) -> Schedule:
    """The learning rate as a function of the position in the run, with a linear warm-up from 0 to the start of the schedule.

    Args:
      config: the whole config; reads `schedule {name, warmup, **kwargs}`, `optimizer.learning_rate`, `data.batch_size`.
      total: length of the run. Position, total and epoch share one unit.
      epoch: length of an epoch; needed only if a duration counts epochs.
      per_step: how far a step moves the position. None: positions count examples, `data.batch_size` per step. 1: positions
        count steps. Durations in `run` are the same either way.

    Returns:
      position (a number or an array) -> learning rate, float64 of the same shape. The rate at position p is that of the
      update that starts there, as in optax: the first update of a warmed-up run has rate 0. Past the end it stays constant.

    Raises:
      ConfigError: unknown name or argument, a bad duration or number, a warm-up that is longer than the run.
    """
    settings = {key: value for key, value in config['schedule'].items() if key not in ('name', 'warmup')}
    name, peak = config['schedule']['name'], config['optimizer']['learning_rate']
    convert = converter(config, total, epoch, per_step)
    shape = catalogue.resolve('schedule', name, SCHEDULES)
    catalogue.check('schedule', name, shape, settings, given=('position', 'total', 'convert'))
    warmup = _duration('warmup', config['schedule']['warmup'], convert)
    if warmup > total:
        raise catalogue.ConfigError(
            f"schedule.warmup '{config['schedule']['warmup']}' is longer than the run; "
            "give it as a fraction ('0.1run') or shorten it."
        )

    def rate(position: Any) -> np.ndarray:
        asked = np.asarray(position, np.float64)
        position = np.clip(asked.reshape(-1), 0, total)  # a scalar's power may differ from an array's in the last bit
        factor = shape(np.maximum(position - warmup, 0), total - warmup, convert, **settings)
        return (peak * factor * np.minimum(1, position / warmup if warmup else 1)).reshape(asked.shape)[()]

    rate(0.0)  # raises for a bad argument now, not at the first step
    return rate


def begins_at_0(config: Mapping[str, Any]) -> bool:
    """Whether the first rate of a run is 0, however long the run is; `config` as of `schedule`."""
    total, epoch = 1e12, 1e6  # longer than any warm-up
    if _duration('warmup', config['schedule']['warmup'], converter(config, total, epoch, 1)):
        return True
    # Behind a warm-up as long as the run nothing follows but the first rate of the schedule.
    whole = {**config, 'schedule': {**config['schedule'], 'warmup': '1run'}}
    return not schedule(whole, total, epoch, 1)(total)


def converter(config: Mapping[str, Any], total: float, epoch: float | None, per_step: float | None) -> Convert:
    """Duration text -> its length in the unit of positions; arguments as of `schedule`."""
    unit = config['data']['batch_size'] if per_step is None else per_step
    batch_size = config['data']['batch_size'] or unit  # 0 is the whole training split, which the caller knows
    epoch_examples = None if epoch is None else epoch * batch_size / unit
    total_examples = total * batch_size / unit
    return lambda text: durations.examples(text, batch_size, epoch_examples, total_examples) * unit / batch_size


def constant(position: np.ndarray, total: float, convert: Convert) -> np.ndarray:
    """The same rate throughout."""
    return np.ones_like(position)


def step(
    position: np.ndarray, total: float, convert: Convert, milestones: Sequence[str] = ('0.5run', '0.75run'), factor: float = 0.1
) -> np.ndarray:
    """Multiplied by `factor` at each milestone (He et al. 2015, section 3.4, divide by 10).

    Milestones at equal distances are `exponential` with `staircase`.
    """
    _not_negative(factor=factor)
    at = [] if isinstance(milestones, str) else [_duration('milestones', text, convert) for text in milestones]
    if not at or at != sorted(set(at)):
        raise catalogue.ConfigError(
            f"schedule.milestones is {milestones!r}, expected durations that rise, such as ('0.5run', '0.75run')."
        )
    return factor ** np.searchsorted(at, position, side='right').astype(np.float64)


def linear(position: np.ndarray, total: float, convert: Convert, end: float = 0.0) -> np.ndarray:
    """A straight line from 1 to `end`."""
    return polynomial(position, total, convert, power=1.0, end=end)


def polynomial(position: np.ndarray, total: float, convert: Convert, power: float = 2.0, end: float = 0.0) -> np.ndarray:
    """`end + (1 - end) * (1 - position / total) ** power` (the 'poly' policy of Liu et al. 2015, ParseNet)."""
    _not_negative(power=power, end=end)
    return end + (1 - end) * (1 - _fraction(position, total)) ** power


def inverse_sqrt(position: np.ndarray, total: float, convert: Convert, timescale: str = '0.1run') -> np.ndarray:
    """1 for `timescale`, then the inverse square root of position / timescale.

    The decay of Vaswani et al. 2017, section 5.3, but counted from the end of the warm-up, not from its start.
    """
    return np.minimum(1, np.sqrt(_lasting('timescale', timescale, convert) / np.maximum(position, 1e-12)))


def cosine(position: np.ndarray, total: float, convert: Convert, alpha: float = 0.0) -> np.ndarray:
    """Half a cosine from 1 down to `alpha` at the end of the run (Loshchilov and Hutter 2017, eq. 5, without restarts)."""
    _not_negative(alpha=alpha)
    return alpha + (1 - alpha) * _half_cosine(_fraction(position, total))


def cosine_restarts(
    position: np.ndarray,
    total: float,
    convert: Convert,
    cycle: str = '0.25run',
    stretch: float = 1.0,
    peak_decay: float = 1.0,
    alpha: float = 0.0,
) -> np.ndarray:
    """Cosine annealing with warm restarts (Loshchilov and Hutter 2017, SGDR, eq. 5); peaks may decay exponentially.

    Args:
      cycle: length of the first cycle, fitted by up to 1 % so that the last one ends with the run.
      stretch: length of a cycle divided by that of the one before (T_mult of the paper), at least 1.
      peak_decay: a cycle's peak divided by the one before.
      alpha: end of a cycle as a share of its peak.
    """
    _not_negative(stretch=stretch, peak_decay=peak_decay, alpha=alpha)
    length = _lasting('cycle', cycle, convert)
    if stretch < 1:
        raise catalogue.ConfigError(f'schedule.stretch is {stretch}, expected at least 1: cycles do not shrink to nothing.')

    def cycles(done: Any) -> Any:
        return np.log1p(done * (stretch - 1)) / np.log(stretch) if stretch > 1 else done

    def first(number: Any) -> Any:
        return (stretch**number - 1) / (stretch - 1) if stretch > 1 else number

    count = max(1, np.round(cycles(total / length)))
    fitted = total / first(count)
    if total and abs(fitted / length - 1) > 0.01:
        raise catalogue.ConfigError(
            f"schedule.cycle '{cycle}' makes {cycles(total / length):.4g} cycles, and the run would end within one, at a high "
            f"rate: for {count:.0f} set it to '{fitted / convert('1run'):.6g}run'."
        )
    done = position / fitted if total else position
    number = np.minimum(np.floor(cycles(done) + 1e-12), count - 1)
    inside = (done - first(number)) / stretch**number
    return peak_decay**number * (alpha + (1 - alpha) * _half_cosine(np.clip(inside, 0, 1)))


def one_cycle(
    position: np.ndarray,
    total: float,
    convert: Convert,
    rise: float = 0.3,
    start: float = 0.04,
    end: float = 4e-6,
    anneal: Literal['cosine', 'linear'] = 'cosine',
) -> np.ndarray:
    """Up from `start` to 1 in the share `rise` of the run, then down to `end` (Smith 2018, 1cycle); a warm-up of its own.

    The paper also cycles the momentum; here it stays constant. PyTorch's OneCycleLR has these defaults as
    div_factor 25 and final_div_factor 1e4, and reaches the ends on its last step.

    Args:
      rise: share of the run after `schedule.warmup` in which the rate goes up.
      start, end: shares of the peak.
      anneal: 'cosine', half of one up and half of one down, or 'linear', which is the paper's.
    """
    _not_negative(rise=rise, start=start, end=end)
    if not 0 < rise < 1:
        raise catalogue.ConfigError(f'schedule.rise is {rise}, expected a share of the run between 0 and 1.')
    anneals = {'cosine': _half_cosine, 'linear': lambda fraction: 1 - fraction}
    if anneal not in anneals:
        raise catalogue.ConfigError(f"schedule.anneal is '{anneal}'.{catalogue.nearest(anneal, anneals)}")
    fall, done = anneals[anneal], _fraction(position, total)
    up, down = fall(np.clip(done / rise, 0, 1)), fall(np.clip((done - rise) / (1 - rise), 0, 1))
    return np.where(done < rise, 1 - (1 - start) * up, end + (1 - end) * down)


def exponential(
    position: np.ndarray,
    total: float,
    convert: Convert,
    decay_rate: float = 0.1,
    transition: str = '0.5run',
    staircase: bool = False,
) -> np.ndarray:
    """`decay_rate ** (position / transition)`; with `staircase` the exponent is rounded down, so the rate falls in steps."""
    _not_negative(decay_rate=decay_rate)
    exponent = position / _lasting('transition', transition, convert)
    return decay_rate ** (np.floor(exponent) if staircase else exponent)


def _not_negative(**numbers: float) -> None:
    for field, value in numbers.items():
        if not (isinstance(value, int | float) and 0 <= value < np.inf):
            raise catalogue.ConfigError(f'schedule.{field} is {value!r}, expected a finite number of 0 or more.')


def _duration(field: str, text: str, convert: Convert) -> float:
    try:
        return convert(text)
    except catalogue.ConfigError as error:
        raise catalogue.ConfigError(f'schedule.{field}: {error}') from None


def _lasting(field: str, text: str, convert: Convert) -> float:
    if not (length := _duration(field, text, convert)):
        raise catalogue.ConfigError(f"schedule.{field} '{text}' lasts nothing; give it some time, for example '0.25run'.")
    return length


def _half_cosine(fraction: np.ndarray) -> np.ndarray:
    """From 1 at 0 down to 0 at 1."""
    return (1 + np.cos(np.pi * fraction)) / 2


def _fraction(position: np.ndarray, total: float) -> np.ndarray:
    return position / total if total else np.zeros_like(position)
