"""Reduce on plateau: what happens when the validation score has not been better for a while.

Idea: count the evaluations without a new best; after `patience` of them in a row the level rises by one and the count begins
anew. The learning rate is multiplied by `factor` a level; the batch size that shrinks (research.data.batch_sizes) listens to
the same kind of watcher.

Source: PyTorch's ReduceLROnPlateau, which acts when its count exceeds its patience: its patience k is k + 1 here.

Config: {'schedule.name': 'plateau', 'schedule.factor': 0.1, 'schedule.patience': 5}

Claim: the rate falls when it has done what it could, without a length to be known before. Cost: none. Clashes: with comparing
at equal schedules; the score is read on the validation split, so there must be one.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from research import catalogue

# Levels of the watchers before one has acted: of the learning rate and of the batch size.
START = {'rate': 0, 'size': 0}


class Plateau(NamedTuple):
    """Where a watcher stands: the best score so far, evaluations since, and how often it has acted."""

    best: float | None = None
    waited: int = 0
    level: int = 0


def watch(plateau: Plateau, score: float, higher_is_better: bool, patience: int) -> Plateau:
    """The watcher after one more evaluation; a score that is not a number is no better, whatever came before."""
    best = plateau.best
    if not math.isnan(score) and (best is None or (score > best if higher_is_better else score < best)):
        return Plateau(score, 0, plateau.level)
    if plateau.waited + 1 < patience:
        return Plateau(best, plateau.waited + 1, plateau.level)
    return Plateau(best, 0, plateau.level + 1)


def constant(
    position: np.ndarray, total: float, convert: Any, factor: float = 0.1, patience: int = 5, floor: float = 0.0
) -> np.ndarray:
    """1 everywhere: the position has no say, the trainer multiplies by `reduced`.

    Args:
      factor: of the rate, a level.
      patience: evaluations without a better score, from 1.
      floor: share of the peak below which the rate does not fall.
    """
    if patience < 1 or not 0 < factor < 1:
        raise catalogue.ConfigError(
            f'schedule: expected a patience of 1 or more and a factor in (0, 1), not {patience} and {factor}.'
        )
    return np.ones_like(position)


def reduced(config: Mapping[str, Any], level: int) -> float:
    """What the group `schedule` makes of the rate at a level: 1 at level 0, and in any schedule but this."""
    if not level:
        return 1.0
    arguments = catalogue.arguments(constant, config)
    return max(arguments['factor'] ** level, arguments['floor'])


def patience(config: Mapping[str, Any]) -> int | None:
    """How many evaluations the group `schedule` waits; None where it does not watch."""
    return catalogue.arguments(constant, config)['patience'] if config['name'] == 'plateau' else None
