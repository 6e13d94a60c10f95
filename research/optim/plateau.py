"""Reduce on plateau: act when the validation score has stopped improving.

Idea: count the evaluations below the best; after `patience` of them in a row the level rises by one and the count starts
again. A score equal to the best is not below it, unless `min_delta` is above 0: then a score is below if it does not gain so
much on the best. Each level multiplies the learning rate by `factor`; a shrinking batch size (research.data.batch_sizes) uses
the same kind of watcher.

Source: PyTorch's ReduceLROnPlateau, which acts when its count exceeds its patience: its patience k is k + 1 here. There and in
Keras a tie always counts as a failure, and a gain up to 1e-4 too (in Keras a difference, in PyTorch a share of the best).

Config: {'schedule.name': 'plateau', 'schedule.factor': 0.1, 'schedule.patience': 5}

Claim: the rate falls once it brings no more progress, without knowing the length of the run. Cost: none. Clashes: comparisons
at equal schedules; it needs a validation split for the score.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from research import catalogue

# Initial levels of the watchers of the learning rate and of the batch size.
START = {'rate': 0, 'size': 0}


class Plateau(NamedTuple):
    """State of a watcher: the best score so far, evaluations since, and how often it has acted."""

    best: float | None = None
    waited: int = 0
    level: int = 0


def watch(plateau: Plateau, score: float, higher_is_better: bool, patience: int, min_delta: float = 0.0) -> Plateau:
    """The watcher after one more evaluation; a score of NaN always counts as below the best."""
    best = plateau.best
    gain = math.inf if best is None else score - best if higher_is_better else best - score
    if not math.isnan(score) and gain >= min_delta:
        return Plateau(score, 0, plateau.level)
    if plateau.waited + 1 < patience:
        return Plateau(best, plateau.waited + 1, plateau.level)
    return Plateau(best, 0, plateau.level + 1)


def plateau(
    position: np.ndarray,
    total: float,
    convert: Any,
    factor: float = 0.1,
    patience: int = 5,
    floor: float = 0.0,
    min_delta: float = 0.0,
) -> np.ndarray:
    """A factor of 1 at every position, float64 [N]: the trainer multiplies it by `reduced`.

    Args:
      factor: of the rate per level, in (0, 1).
      patience: evaluations in a row below the best score, at least 1.
      floor: lowest rate as a share of the peak.
      min_delta: what a score must gain on the best, in its own unit, not to count as below it; 0: an equal one does not count.
    """
    if patience < 1 or not 0 < factor < 1 or not 0 <= min_delta < math.inf:
        raise catalogue.ConfigError(
            'schedule: expected a patience of 1 or more, a factor in (0, 1) and a finite min_delta of 0 or more, not '
            f'{patience}, {factor} and {min_delta}.'
        )
    return np.ones_like(position)


def reduced(config: Mapping[str, Any], level: int) -> float:
    """The factor of the rate at a level: 1 at level 0, and for any other schedule. `config` is the group `schedule`."""
    if not level:
        return 1.0
    arguments = catalogue.arguments(plateau, config)
    return max(arguments['factor'] ** level, arguments['floor'])


def patience(config: Mapping[str, Any]) -> tuple[int, float] | None:
    """(patience, min_delta) of the group `schedule`; None unless it is this schedule."""
    arguments = catalogue.arguments(plateau, config)
    return (arguments['patience'], arguments['min_delta']) if config['name'] == 'plateau' else None
