"""Batch sizes that change during a run. The order counts examples, so changing the size neither skips nor repeats examples.

Idea: gradient noise helps to explore, less of it to converge. `grow` makes the batch larger when a schedule would make the rate
smaller (Smith et al. 2018, Don't decay the learning rate, increase the batch size); `shrink` makes it smaller when the
validation score has been below its best for `patience` evaluations in a row, down to a floor. A score equal to the best is not
below it, unless `min_delta` is above 0: then a score is below if it does not gain so much on the best.

Config: {'data.batch.name': 'grow', 'data.batch.factor': 5, 'data.batch.milestones': ('0.5run', '0.75run')}
        {'data.batch.name': 'shrink', 'data.batch.patience': 2, 'data.batch.floor': 16, 'data.batch.coupling': 'linear'}

Cost: each size is a separate program, compiled once. Claim: fewer steps at equal accuracy, for `grow`. The learning rate may
follow the size: 'linear' (Goyal et al. 2017) or 'sqrt' (Hoffer et al. 2017).

Clashes: batch normalization depends on the size; a size that micro-batches do not divide is refused if it would see padding.
"""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from research import catalogue

SIZES = {
    'constant': 'research.data.batch_sizes:constant',
    'grow': 'research.data.batch_sizes:grow',
    'shrink': 'research.data.batch_sizes:shrink',
}
GIVEN = ('batch_size', 'convert')


class BatchSizes(NamedTuple):
    """The sizes of a run.

    Attributes:
      at: (position, level of the watcher) -> examples per step.
      changes: positions at which the position alone changes the size, rising.
      rungs: every size that may occur.
    """

    at: Callable[[int, int], int]
    changes: tuple[int, ...]
    rungs: tuple[int, ...]


def create(config: Mapping[str, Any], convert: Callable[[str], int]) -> BatchSizes:
    """The batch sizes of the groups `data` and `data.batch`; `convert` turns durations into examples."""
    group = {k: v for k, v in config['batch'].items() if k != 'coupling'}
    return catalogue.build('batch size', group, SIZES, batch_size=config['batch_size'], convert=convert)


def patience(config: Mapping[str, Any]) -> tuple[int, float] | None:
    """(patience, min_delta) that shrink the batch; None unless `shrink` is chosen."""
    arguments = catalogue.arguments(shrink, config['batch'])
    return (arguments['patience'], arguments['min_delta']) if config['batch']['name'] == 'shrink' else None


def coupled(rate: Any, size: int, batch_size: int, coupling: str) -> Any:
    """The learning rate at `size`, from `rate` at the initial `batch_size`; any shape and dtype."""
    return rate * {'none': 1.0, 'linear': size / batch_size, 'sqrt': np.sqrt(size / batch_size)}[coupling]


def constant(batch_size: int, convert: Callable[[str], int]) -> BatchSizes:
    """The same size throughout."""
    del convert
    return BatchSizes(lambda position, level: batch_size, (), (batch_size,))


def shrink(
    batch_size: int,
    convert: Callable[[str], int],
    factor: float = 0.5,
    floor: int = 16,
    patience: int = 2,
    min_delta: float = 0.0,
) -> BatchSizes:
    """The size times `factor` per level, rounded, at least `floor` and at most the initial size."""
    del convert
    if not 0 < factor < 1 or floor < 1 or patience < 1 or not 0 <= min_delta < math.inf:
        raise catalogue.ConfigError(
            'data.batch: expected a factor in (0, 1), a floor and a patience from 1 and a finite min_delta of 0 or more, not '
            f'{factor}, {floor}, {patience} and {min_delta}.'
        )

    def at(position: int, level: int) -> int:
        del position
        return min(batch_size, max(floor, round(batch_size * factor**level)))

    lowest = min(batch_size, floor)
    falling = list(itertools.takewhile(lambda size: size > lowest, (at(0, level) for level in itertools.count())))
    return BatchSizes(at, (), tuple(dict.fromkeys([*falling, lowest])))


def grow(
    batch_size: int,
    convert: Callable[[str], int],
    factor: float = 2,
    milestones: Sequence[str] = ('0.5run', '0.75run'),
    ceiling: int = 0,
) -> BatchSizes:
    """The size times `factor` from each milestone on, rounded, at most `ceiling` (0: no limit)."""
    changes = tuple(convert(text) for text in milestones)
    if not 1 < factor < math.inf or list(changes) != sorted(set(changes)) or ceiling and ceiling < batch_size:
        raise catalogue.ConfigError(
            f'data.batch: expected a factor above 1, rising milestones and a ceiling above the batch size, not {factor}, '
            f'{tuple(milestones)} and {ceiling}.'
        )
    sizes = [round(batch_size * factor**k) for k in range(len(changes) + 1)]
    rungs = [min(size, ceiling) if ceiling else size for size in sizes]
    return BatchSizes(lambda position, level: rungs[sum(position >= c for c in changes)], changes, tuple(dict.fromkeys(rungs)))
