"""Time to quality: how long a run takes until it first reaches the quality that every baseline run reaches.

Times are compared by medians and signs, never by means, because a run that misses the target takes infinitely long.
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from research.report.records import BASELINE, Records
from research.report.sign_flips import seeds_needed

# variant -> seed -> lines of metrics.jsonl
Evaluations = Mapping[str, Mapping[int, list[dict[str, float]]]]


@dataclasses.dataclass(frozen=True)
class TimeToQuality:
    """Time until the target, in the unit of the curves' positions. A miss is infinite, so a median can be infinite too.

    Attributes:
      n: pairs of seeds.
      baseline_median, variant_median: medians over seeds.
      baseline_reached, variant_reached: seeds that reached the target.
      faster, slower: seeds in which the variant was first, and last; the rest are ties.
      p_value: exact two-sided sign test over the untied pairs; None with fewer than 6 seeds (at 5 %).
    """

    n: int
    baseline_median: float
    variant_median: float
    baseline_reached: int
    variant_reached: int
    faster: int
    slower: int
    p_value: float | None


def target(baseline_curves: Iterable[ArrayLike], higher_is_better: bool = True) -> float:
    """The worst final quality among the baseline's seeds, so that each of them reaches it.

    Args:
      baseline_curves: one per seed, float [evaluations, 2]: position (examples, seconds, ...), validation quality.
      higher_is_better: the direction of the quality.

    Returns:
      The quality; NaN, which no curve reaches, if a baseline run diverged.
    """
    finals = [np.asarray(curve, np.float64)[-1, 1] for curve in baseline_curves]
    return float(np.min(finals) if higher_is_better else np.max(finals)) if np.isfinite(finals).all() else math.nan


def time_to_quality(curve: ArrayLike, target: float, higher_is_better: bool = True) -> float:
    """The first position at which a curve, float [evaluations, 2], reaches the target; infinity if it never does."""
    position, quality = np.asarray(curve, np.float64).reshape(-1, 2).T
    reached = quality >= target if higher_is_better else quality <= target
    return float(position[reached].min(initial=math.inf))


def compare_times(baseline: ArrayLike, variant: ArrayLike, alpha: float = 0.05) -> TimeToQuality:
    """Compares paired times to quality, both float [n], infinite for a miss, by medians and a sign test.

    Raises:
      ValueError: no seeds, unpaired seeds or a NaN.
    """
    b, v = np.asarray(baseline, np.float64), np.asarray(variant, np.float64)
    if b.shape != v.shape or b.ndim != 1 or not b.size or np.isnan(b).any() or np.isnan(v).any():
        raise ValueError(f'Expected paired times [n] without NaN, not shapes {b.shape} and {v.shape}.')
    faster, slower = int(np.sum(v < b)), int(np.sum(v > b))
    return TimeToQuality(
        n=b.size,
        baseline_median=float(np.median(b)),
        variant_median=float(np.median(v)),
        baseline_reached=int(np.isfinite(b).sum()),
        variant_reached=int(np.isfinite(v).sum()),
        faster=faster,
        slower=slower,
        p_value=_sign_p(faster, slower) if b.size >= seeds_needed(1, alpha) else None,
    )


def _sign_p(faster: int, slower: int) -> float:
    return float(stats.binomtest(faster, faster + slower).pvalue) if faster + slower else 1.0


class Times:
    """Time to quality on the validation split, in examples and in training seconds; an unfinished run is a miss."""

    def __init__(self, records: Records, curves: Evaluations):
        self.alpha, self.higher = records.study['alpha'], records.study['higher_is_better']
        self.metric = 'validation/' + records.study['metric'].split('/', 1)[-1]
        self.curves = {
            (unit, variant): [self._curve(lines, unit, records.results[variant][seed]) for seed, lines in runs.items()]
            for variant, runs in curves.items()
            for unit in ('position', 'train_seconds')
        }
        lines = [line for runs in curves.values() for of_run in runs.values() for line in of_run]
        # Scores of written texts may be read at the end alone.
        self.never_read = bool(lines) and not any(line.get(self.metric) is not None for line in lines)
        baseline = self.curves['position', BASELINE]
        self.target = target(baseline, self.higher) if baseline else math.nan

    def _curve(self, lines, unit, result):
        points = [(line[unit], line[self.metric]) for line in lines if unit in line and line.get(self.metric) is not None]
        return np.array(points if points and result['status'] == 'finished' else [(0, math.nan)], np.float64)

    def _reached(self, unit, variant):
        return np.array([time_to_quality(curve, self.target, self.higher) for curve in self.curves[unit, variant]])

    def median(self, variant: str) -> dict[str, Any]:
        """{metric, target, n, reached, examples, seconds, grid}; {} without seeds, or for a score that no evaluation reads.

        `examples` and `seconds` are medians over seeds; `grid` is the longest way from one evaluation to the next, in examples,
        which is how finely times are known; None for a single evaluation.
        """
        examples, seconds = self._reached('position', variant), self._reached('train_seconds', variant)
        if not examples.size or self.never_read:
            return {}
        gaps = [np.diff(curve[:, 0]).max() for curve in self.curves['position', variant] if len(curve) > 1]
        return {
            'metric': self.metric,
            'target': self.target,
            'n': examples.size,
            'reached': int(np.isfinite(examples).sum()),
            'examples': float(np.median(examples)),
            'seconds': float(np.median(seconds)),
            'grid': float(max(gaps)) if gaps else None,
        }

    def compare(self, weights: Mapping[str, float]) -> dict[str, Any]:
        """For one variant against another; {} for other contrasts, and where `median` is empty."""
        if sorted(weights.values()) != [-1, 1] or not self.curves['position', BASELINE] or self.never_read:
            return {}
        variant, reference = sorted(weights, key=weights.get, reverse=True)
        compared = {
            name: dataclasses.asdict(compare_times(self._reached(unit, reference), self._reached(unit, variant), self.alpha))
            for name, unit in (('examples', 'position'), ('seconds', 'train_seconds'))
        }
        return {'metric': self.metric, 'target': self.target, **compared}
