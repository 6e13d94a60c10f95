"""Paired scores, one per seed -> difference, interval, p-value, verdict.

The test is Fisher's sign flip (see `sign_flips`). The confidence interval contains exactly the effects that this test does
not reject (Hartigan 1969, "Using subsample values as typical values"), so it excludes 0 if and only if p <= alpha.

Claims are about training seeds on one test set; `crossed_interval` extends them to other test examples.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from research import catalogue
from research.report.sign_flips import EXACT_SEEDS, TIE, detectable_size, lower_bound, p_above, seeds_needed, subset_sums

# Verdicts on a contrast that is 0 bit for bit, see research.report.unchanged.
DID_NOTHING, OTHER_COST = 'did nothing', 'same numbers, other cost'


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The result for one contrast over paired seeds. Differences are in the unit of the score, variant minus baseline.

    Attributes:
      n: seeds, including those that failed.
      failed: seeds in which some variant of the contrast has no finite score. If there is one, there is no mean, and
        everything from `difference` to `detectable` is None.
      difference: mean over seeds.
      interval: confidence interval (low, high) at 1 - alpha, closed; None for a single seed.
      p_value: two-sided, before correction; None if `descriptive`.
      equivalence: the larger p of the two one-sided tests against -margin and +margin; None if the margin is 0.
      equivalence_interval: what these tests do not reject, (low, high) at 1 - 2 alpha; None if the margin is 0.
      spread: standard deviation over seeds (n - 1); None for a single seed.
      detectable: the true mean that this test detects with 80 % power, see `sign_flips.detectable_size`; None if nothing can
        be detected.
      descriptive: too few seeds for a test; `interval` is Student's t.
      exact: every sign pattern was counted; False above 20 seeds, where a fixed sample of 65,536 is used.
      margin, alpha, higher_is_better, step: as given.
      unchanged: 'did nothing' or 'same numbers, other cost' if the runs are known to be equal bit for bit, so that there is
        nothing to test: no p-value, no count in a correction; else ''.
      within_margin: the difference is shown to be smaller than the margin.
      verdict: 'failed (k of n diverged)', one of `unchanged`, 'too few seeds', 'better', 'better, within the margin', 'worse',
        'worse, within the margin', 'equivalent' or 'no effect shown'.
      p_corrected, equivalence_corrected: after Holm, by `corrected`; None before.
      note: what a reader must know in addition to the verdict, or ''.
    """

    n: int
    failed: int
    difference: float | None = None
    interval: tuple[float, float] | None = None
    p_value: float | None = None
    equivalence: float | None = None
    equivalence_interval: tuple[float, float] | None = None
    spread: float | None = None
    detectable: float | None = None
    descriptive: bool = False
    exact: bool = True
    margin: float = 0.0
    alpha: float = 0.05
    higher_is_better: bool = True
    step: float = 0.0
    unchanged: str = ''
    within_margin: bool = False
    verdict: str = ''
    p_corrected: float | None = None
    equivalence_corrected: float | None = None
    note: str = ''


def compare(
    baseline: ArrayLike, variant: ArrayLike, margin: float = 0.0, higher_is_better: bool = True, alpha: float = 0.05
) -> Comparison:
    """Compares paired per-seed scores, both [n]; the verdict is uncorrected. See `compare_differences`."""
    scores = {'baseline': baseline, 'variant': variant}
    return compare_differences(contrast(scores, {'variant': 1, 'baseline': -1}), margin, higher_is_better, alpha)


def contrast(scores: Mapping[str, ArrayLike], weights: Mapping[str, float]) -> np.ndarray:
    """Weighted sum over variants, seed by seed (and example by example): float64, in the shape of each score.

    Args:
      scores: variant -> float or bool [n] or [n, examples], the same seeds in the same order in each.
      weights: variant -> weight; they sum to 0.

    Raises:
      ConfigError: weights that do not sum to 0, or an unknown variant.
      ValueError: scores of different shapes.
    """
    if not weights or abs(sum(weights.values())) > TIE:
        raise catalogue.ConfigError(f'The weights of a contrast sum to 0, these to {sum(weights.values())}: {dict(weights)}.')
    for name in weights:
        if name not in scores:
            raise catalogue.ConfigError(f"A contrast weighs an unknown variant '{name}'.{catalogue.nearest(name, scores)}")
    parts = [weight * np.asarray(scores[name], np.float64) for name, weight in weights.items()]
    if len({part.shape for part in parts}) > 1:
        raise ValueError(f'Paired scores have one shape, these have {[part.shape for part in parts]}.')
    with np.errstate(invalid='ignore'):
        total, scale = sum(parts), sum(map(np.abs, parts))
        return np.where(np.abs(total) < 1e-12 * scale, 0.0, total)  # 0.3 - 0.1 - 0.1 - 0.1 is rounding, not an effect


def compare_differences(
    differences: ArrayLike,
    margin: float = 0.0,
    higher_is_better: bool = True,
    alpha: float = 0.05,
    step: float = 0.0,
    unchanged: str = '',
) -> Comparison:
    """Tests whether the mean of per-seed differences is 0.

    Args:
      differences: float [n], one per seed; not finite if a run of that seed diverged.
      margin: the largest difference that does not matter, in the unit of the score; 0 for none.
      higher_is_better: the direction of the score.
      alpha: the accepted rate of false positives.
      step: distance between two possible differences, 1 / examples for an accuracy; 0 if they are continuous.
      unchanged: as in `Comparison`; the differences are 0 then, and not tested.

    Raises:
      ValueError: no seeds, more than one axis, a negative margin, alpha outside (0, 1).
    """
    d = np.asarray(differences, np.float64)
    if d.ndim != 1 or not d.size:
        raise ValueError(f'Differences are [n], one a seed, n at least 1; these have shape {d.shape}.')
    if not margin >= 0 or not 0 < alpha < 1:
        raise ValueError(f'Expected margin >= 0 and 0 < alpha < 1, not {margin} and {alpha}.')
    asked = {'margin': margin, 'alpha': alpha, 'higher_is_better': higher_is_better, 'step': step, 'unchanged': unchanged}
    result = Comparison(d.size, int(np.sum(~np.isfinite(d))), **asked)
    if unchanged:
        result = dataclasses.replace(result, difference=0.0, interval=(0.0, 0.0), spread=0.0)
    elif not result.failed:
        measured = _described(d, alpha) if d.size < seeds_needed(1, alpha) else _tested(d, margin, alpha, step)
        result = dataclasses.replace(result, **measured)
    return _judged(result, result.p_value, result.equivalence)


def verdict(comparison: Comparison, p: float | None, equivalence: float | None = None) -> str:
    """The verdict at `comparison.alpha` from a p-value and an equivalence p, corrected or not; strings as in `Comparison`."""
    c = comparison
    if c.failed:
        return f'failed ({c.failed} of {c.n} diverged)'
    if c.unchanged:
        return c.unchanged
    if p is None:
        return 'too few seeds'
    inside = equivalence is not None and equivalence <= c.alpha
    if p <= c.alpha:
        name = 'better' if (c.difference > 0) == c.higher_is_better else 'worse'
        return f'{name}, within the margin' if inside else name
    return 'equivalent' if inside else 'no effect shown'


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's (1979) corrected p-values, in the order given. None (no test was made) stays None and is not counted.

    Raises:
      ValueError: a p-value outside [0, 1].
    """
    made = [i for i, p in enumerate(p_values) if p is not None]
    if not all(0 <= p_values[i] <= 1 for i in made):
        raise ValueError(f'p-values lie between 0 and 1: {list(p_values)}.')
    result, so_far = [None] * len(p_values), 0.0
    for rank, i in enumerate(sorted(made, key=lambda i: p_values[i])):
        so_far = max(so_far, min(1.0, float(p_values[i]) * (len(made) - rank)))
        result[i] = so_far
    return result


def corrected(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """The contrasts of one study after Holm's correction: verdict, note, and detectable effect.

    Equivalence claims are corrected as a separate family. `detectable` is computed at alpha divided by the number of
    contrasts, the first step of Holm; if nothing can pass, it is None and the note says how many seeds are needed.
    """
    tests = sum(c.p_value is not None for c in comparisons)
    ps, equivalences = holm([c.p_value for c in comparisons]), holm([c.equivalence for c in comparisons])
    return [_correct(c, p, equivalence, tests) for c, p, equivalence in zip(comparisons, ps, equivalences, strict=True)]


def _correct(c: Comparison, p: float | None, equivalence: float | None, tests: int) -> Comparison:
    if p is None:
        return c
    note = ['not after correction'] if p > c.alpha >= c.p_value else []
    if c.n < seeds_needed(tests, c.alpha):
        note += [f'with {tests} contrasts, {seeds_needed(tests, c.alpha)} seeds or more let one pass the correction']
    detectable = detectable_size(c.spread, c.n, c.alpha / tests, c.step)
    c = dataclasses.replace(c, p_corrected=p, equivalence_corrected=equivalence, note='; '.join(note), detectable=detectable)
    return _judged(c, p, equivalence)


def crossed_interval(differences: ArrayLike, alpha: float = 0.05) -> tuple[float, float]:
    """Interval of the mean difference over training seeds and test examples, both drawn at random.

    Each bound of the interval over seeds is moved outwards by what other examples would add: the squares of the two distances
    from the mean are summed (Howe 1974; Zou and Donner 2008), so it is never narrower than what it widens. The share of the
    examples comes from the mean squares of the two-way table, seeds by examples, less that of the interaction, which the
    spread over seeds holds already (Searle, Casella and McCulloch 1992, "Variance components"). Coverage at 95 %: 0.95 to
    0.97 in benchmarks/coverage.md.

    Args:
      differences: float [seeds, examples], correctness of the variant minus that of the baseline, or any `contrast`.
      alpha: the interval is at 1 - alpha.

    Raises:
      ValueError: not two axes, fewer than 2 seeds or examples, or differences that are not finite.
    """
    d = np.asarray(differences, np.float64)
    if d.ndim != 2 or min(d.shape) < 2 or not np.isfinite(d).all():
        raise ValueError(f'Expected finite differences [seeds, examples], at least 2 of each, not shape {d.shape}.')
    seeds, examples = d.shape
    by_seed, by_example = d.mean(1), d.mean(0)
    over_seeds = compare_differences(by_seed, alpha=alpha)
    mean, (low, high) = over_seeds.difference, over_seeds.interval
    residual = d - by_seed[:, None] - by_example + d.mean()
    interaction = np.sum(residual**2) / ((seeds - 1) * (examples - 1))
    of_examples = max(0.0, float(by_example.var(ddof=1) - interaction / seeds))
    reach = float(stats.t.isf(alpha / 2, examples - 1)) * math.sqrt(of_examples / examples)
    return mean - math.hypot(mean - low, reach), mean + math.hypot(high - mean, reach)


def _described(d: np.ndarray, alpha: float) -> dict[str, Any]:
    """Fields of a `Comparison` with too few seeds for a test."""
    note = f'{seeds_needed(1, alpha)} seeds or more allow a test'
    mean, spread, interval = float(d.mean()), None, None
    if d.size > 1:
        spread = float(d.std(ddof=1))
        half = float(stats.t.isf(alpha / 2, d.size - 1)) * spread / math.sqrt(d.size)
        interval = mean - half, mean + half
    return {'difference': mean, 'spread': spread, 'interval': interval, 'descriptive': True, 'note': note}


def _tested(d: np.ndarray, margin: float, alpha: float, step: float) -> dict[str, Any]:
    """Fields of a `Comparison` with enough seeds for a test."""
    sums, sizes = subset_sums(d)
    spread = float(d.std(ddof=1))
    p = min(1.0, 2 * min(p_above(d, sums, sizes, 0.0), p_above(-d, -sums, sizes, 0.0)))
    equivalence = max(p_above(d, sums, sizes, -margin), p_above(-d, -sums, sizes, -margin)) if margin else None
    sums = np.where(np.abs(sums) <= TIE * np.abs(d).max(), 0.0, sums)  # the same ties as for p
    low, high = _interval(sums, sizes, alpha)
    return {
        'difference': min(max(float(d.mean()), low), high),  # rounding alone puts it outside, if all seeds agree
        'interval': (low, high),
        'p_value': p,
        'equivalence': equivalence,
        'equivalence_interval': _interval(sums, sizes, 2 * alpha) if margin else None,
        'spread': spread,
        'detectable': detectable_size(spread, d.size, alpha, step),
        'exact': d.size <= EXACT_SEEDS,
    }


def _interval(sums: np.ndarray, sizes: np.ndarray, alpha: float) -> tuple[float, float]:
    return float(lower_bound(sums, sizes, alpha)), float(-lower_bound(-sums, sizes, alpha)) + 0.0


def _judged(c: Comparison, p: float | None, equivalence: float | None) -> Comparison:
    inside = equivalence is not None and equivalence <= c.alpha
    return dataclasses.replace(c, within_margin=inside, verdict=verdict(c, p, equivalence))
