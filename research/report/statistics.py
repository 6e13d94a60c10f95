"""Paired scores, one a seed -> difference, interval, p-value, verdict.

The test is Fisher's sign flip: were there no effect, each seed's difference could as well have had the other sign. All
2^n sign patterns are counted, and the interval holds exactly the effects that this test does not reject (Hartigan 1969,
"Using subsample values as typical values"), so that it leaves 0 out when and only when p <= alpha.

Claims are over training seeds, on one test set; `crossed_interval` widens them to other test examples.
"""

import dataclasses
import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize, stats

from research import catalogue

# Sums of flipped differences closer than this, relative to the largest difference, are ties: accuracies are multiples of
# 1 / examples, so ties are common, and rounding would break them at random.
TIE = 1e-9
EXACT_SEEDS = 20  # beyond these, a fixed draw of sign patterns stands for all of them
DRAWN_FLIPS = 2**16
POWER = 0.8
SIMULATED_SEEDS = 14  # beyond these the test is as strong as a t-test, within 2 %
SIMULATIONS = 2_000


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What paired seeds say about one contrast. Differences are in the unit of the score, variant minus baseline.

    Attributes:
      n: seeds, those that failed included.
      failed: seeds with a score that is not finite in any variant of the contrast. With one, there is no mean: everything
        from `difference` to `detectable` is None.
      difference: mean over seeds.
      interval: confidence interval (low, high) at 1 - alpha, closed; None for a single seed.
      p_value: two-sided, before correction; None where `descriptive`.
      equivalence: the larger p of the two one-sided tests against -margin and +margin; None when the margin is 0.
      spread: standard deviation over seeds (n - 1); None for a single seed.
      detectable: the smallest true mean that this test calls with 80 % power, were the differences normal with this spread;
        None where nothing can be called.
      descriptive: too few seeds for a test; `interval` is Student's t.
      exact: every sign pattern was counted; False above 20 seeds, where a fixed draw of 65,536 stands for them.
      margin, alpha, higher_is_better: as asked.
      within_margin: shown to be inside the margin, be it 0 or not.
      verdict: 'failed (k of n diverged)', 'too few seeds', 'better', 'better, within the margin', 'worse', 'worse, within
        the margin', 'equivalent' or 'no effect shown'.
      p_corrected, equivalence_corrected: after Holm, by `corrected`; None before.
      note: what a reader must know beside the verdict, or ''.
    """

    n: int
    failed: int
    difference: float | None = None
    interval: tuple[float, float] | None = None
    p_value: float | None = None
    equivalence: float | None = None
    spread: float | None = None
    detectable: float | None = None
    descriptive: bool = False
    exact: bool = True
    margin: float = 0.0
    alpha: float = 0.05
    higher_is_better: bool = True
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
      ConfigError: weights that do not sum to 0, or a variant that is not there.
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
    differences: ArrayLike, margin: float = 0.0, higher_is_better: bool = True, alpha: float = 0.05
) -> Comparison:
    """Tests whether the mean of per-seed differences is 0.

    Args:
      differences: float [n], one a seed; not finite where a run of that seed diverged.
      margin: the difference that nobody would mind, in the unit of the score; 0 when there is none.
      higher_is_better: the direction of the score.
      alpha: the share of false claims to allow.

    Raises:
      ValueError: no seeds, more than one axis, a negative margin, alpha outside (0, 1).
    """
    d = np.asarray(differences, np.float64)
    if d.ndim != 1 or not d.size:
        raise ValueError(f'Differences are [n], one a seed, n at least 1; these have shape {d.shape}.')
    if not margin >= 0 or not 0 < alpha < 1:
        raise ValueError(f'Expected margin >= 0 and 0 < alpha < 1, not {margin} and {alpha}.')
    result = Comparison(d.size, int(np.sum(~np.isfinite(d))), margin=margin, alpha=alpha, higher_is_better=higher_is_better)
    if not result.failed:
        measured = _described(d, alpha) if d.size < seeds_needed(1, alpha) else _tested(d, margin, alpha)
        result = dataclasses.replace(result, **measured)
    return _judged(result, result.p_value, result.equivalence)


def verdict(comparison: Comparison, p: float | None, equivalence: float | None = None) -> str:
    """The verdict at `comparison.alpha` from a p-value and an equivalence p, corrected or not; strings as in `Comparison`."""
    c = comparison
    if c.failed:
        return f'failed ({c.failed} of {c.n} diverged)'
    if p is None:
        return 'too few seeds'
    inside = equivalence is not None and equivalence <= c.alpha
    if p <= c.alpha:
        name = 'better' if (c.difference > 0) == c.higher_is_better else 'worse'
        return f'{name}, within the margin' if inside else name
    return 'equivalent' if inside else 'no effect shown'


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Corrected p-values (Holm 1979), in the order given; None, where no test was made, stays None and does not count.

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
    """The contrasts of one study after Holm over them: verdict, note, and what could have been detected.

    Claims of equivalence are a family of their own. `detectable` becomes what the first step of Holm lets through, at
    alpha over the number of contrasts; where nothing can get through, it is None and the note says how many seeds can.
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
    effect = detectable_effect(c.n, c.alpha / tests)
    c = dataclasses.replace(c, p_corrected=p, equivalence_corrected=equivalence, note='; '.join(note))
    return _judged(dataclasses.replace(c, detectable=None if effect is None else c.spread * effect), p, equivalence)


def seeds_needed(contrasts: int, alpha: float = 0.05) -> int:
    """Seeds before Holm over so many contrasts can let anything through: the smallest n with 2 / 2^n <= alpha / contrasts."""
    n = 1
    while 2.0 ** (1 - n) > alpha / contrasts:
        n += 1
    return n


@functools.lru_cache
def detectable_effect(n: int, alpha: float) -> float | None:
    """The smallest true mean, in standard deviations of the difference, that this test calls with 80 % power.

    Differences are normal. Up to 14 seeds by simulation: a true mean m is called when the lower bound without it is above
    -m, so one quantile of simulated bounds is the answer (2,000 samples, each turned over too). Beyond, by Student's t.
    None when n seeds cannot reach alpha.
    """
    if n < seeds_needed(1, alpha):
        return None
    if n > SIMULATED_SEEDS:
        critical = stats.t.isf(alpha / 2, n - 1)
        return optimize.brentq(lambda m: stats.nct.sf(critical, n - 1, m * math.sqrt(n)) - POWER, 0, critical + 10)
    normal, bounds = np.random.default_rng(0).standard_normal((SIMULATIONS, n)), []
    for part in np.array_split(normal, max(1, SIMULATIONS * 2**n // 2**21)):
        sums, sizes = _subsets(part)
        bounds += [_lower(sums, sizes, alpha), _lower(-sums, sizes, alpha)]
    return float(np.quantile(-np.concatenate(bounds), POWER))


def crossed_interval(differences: ArrayLike, alpha: float = 0.05, resamples: int = 1_000, seed: int = 0) -> tuple[float, float]:
    """Interval of the mean difference over training seeds and test examples: seeds and examples are both resampled.

    Args:
      differences: float [seeds, examples], correctness of the variant minus that of the baseline, or any `contrast`.
      alpha: the interval is at 1 - alpha.
      resamples: bootstrap samples; each draws seeds, and independently examples (Owen 2007, "The pigeonhole bootstrap").
      seed: of the draws.

    Returns:
      (low, high): the mean and, each way, a normal quantile of bootstrap standard errors, times sqrt(n / (n - 1)) because
      resampling few seeds understates their spread. Simulated coverage at 95 %: 0.92 to 1.0 from 3 seeds on, where
      percentiles fell to 0.84 and Student's t was up to twice as wide.

    Raises:
      ValueError: not two axes, fewer than 2 seeds or examples, or differences that are not finite.
    """
    d = np.asarray(differences, np.float64)
    if d.ndim != 2 or min(d.shape) < 2 or not np.isfinite(d).all():
        raise ValueError(f'Expected finite differences [seeds, examples], at least 2 of each, not shape {d.shape}.')
    seeds, examples = d.shape
    rng = np.random.default_rng(seed)
    by_seed = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=resamples)
    by_example = (np.bincount(rng.integers(examples, size=examples), minlength=examples) for _ in range(resamples))
    means = [s @ d @ e / d.size for s, e in zip(by_seed, by_example, strict=True)]
    half = stats.norm.isf(alpha / 2) * np.std(means) * math.sqrt(seeds / (seeds - 1))
    return float(d.mean() - half), float(d.mean() + half)


@dataclasses.dataclass(frozen=True)
class TimeToQuality:
    """Time until the target, in the unit of the curves' positions; a miss is infinite, and so may a median be.

    Attributes:
      n: pairs of seeds.
      baseline_median, variant_median: medians over seeds.
      baseline_reached, variant_reached: seeds that reached the target.
      faster, slower: seeds in which the variant came first, and last; the rest are ties.
      p_value: exact two-sided sign test over the pairs that are no tie; None under 6 seeds (at 5 %).
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
    """The lowest final quality among the baseline's seeds, so that each of them reaches it.

    Args:
      baseline_curves: one a seed, float [evaluations, 2]: position (examples, seconds, ...), validation quality.
      higher_is_better: the direction of the quality.

    Returns:
      The quality; NaN, which no curve reaches, when a baseline run diverged.
    """
    finals = [np.asarray(curve, np.float64)[-1, 1] for curve in baseline_curves]
    return float(np.min(finals) if higher_is_better else np.max(finals)) if np.isfinite(finals).all() else math.nan


def time_to_quality(curve: ArrayLike, target: float, higher_is_better: bool = True) -> float:
    """The first position at which a curve, float [evaluations, 2], is at least as good as the target; infinity for a miss."""
    position, quality = np.asarray(curve, np.float64).reshape(-1, 2).T
    reached = quality >= target if higher_is_better else quality <= target
    return float(position[reached].min(initial=math.inf))


def compare_times(baseline: ArrayLike, variant: ArrayLike, alpha: float = 0.05) -> TimeToQuality:
    """Compares paired times to quality, both float [n], infinite for a miss: medians and signs, never a mean.

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


def _subsets(d: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sums [..., F] and sizes [F] of the subsets of d [..., n] whose signs are flipped; each has its complement among them."""
    if d.shape[-1] > EXACT_SEEDS:
        flips = np.random.default_rng(0).random((DRAWN_FLIPS, d.shape[-1])) < 0.5
        flips[0] = False  # the pattern that was seen belongs to those counted
        flips = np.concatenate([flips, ~flips])
        return d @ flips.T.astype(np.float64), flips.sum(1)
    sums, sizes = np.zeros((*d.shape[:-1], 1)), np.zeros(1)
    for i in range(d.shape[-1]):
        sums = np.concatenate([sums, sums + d[..., i : i + 1]], axis=-1)
        sizes = np.concatenate([sizes, sizes + 1])
    return sums, sizes


def _p_above(d: np.ndarray, sums: np.ndarray, sizes: np.ndarray, mean: float) -> float:
    """One-sided p that the true mean is above `mean`: flipping a subset of d - mean keeps its sum up if its own is <= 0."""
    return float(np.mean(sums - mean * sizes <= TIE * (np.abs(d).max() + abs(mean))))


def _lower(sums: np.ndarray, sizes: np.ndarray, alpha: float) -> np.ndarray:
    """The lowest mean that the two-sided test does not reject, [...]: one of the sorted means of subsets."""
    rejected = int(alpha * sums.shape[-1] / 2)
    means = np.divide(sums, sizes, out=np.full(sums.shape, -np.inf), where=sizes > 0)
    return np.partition(means, rejected, axis=-1)[..., rejected]


def _described(d: np.ndarray, alpha: float) -> dict[str, Any]:
    """Fields of a `Comparison` of too few seeds."""
    note = f'{seeds_needed(1, alpha)} seeds or more allow a test'
    mean, spread, interval = float(d.mean()), None, None
    if d.size > 1:
        spread = float(d.std(ddof=1))
        half = float(stats.t.isf(alpha / 2, d.size - 1)) * spread / math.sqrt(d.size)
        interval = mean - half, mean + half
    return {'difference': mean, 'spread': spread, 'interval': interval, 'descriptive': True, 'note': note}


def _tested(d: np.ndarray, margin: float, alpha: float) -> dict[str, Any]:
    """Fields of a `Comparison` of enough seeds."""
    sums, sizes = _subsets(d)
    spread = float(d.std(ddof=1))
    p = min(1.0, 2 * min(_p_above(d, sums, sizes, 0.0), _p_above(-d, -sums, sizes, 0.0)))
    equivalence = max(_p_above(d, sums, sizes, -margin), _p_above(-d, -sums, sizes, -margin)) if margin else None
    sums = np.where(np.abs(sums) <= TIE * np.abs(d).max(), 0.0, sums)  # what is a tie for p is one for the interval
    low, high = float(_lower(sums, sizes, alpha)), float(-_lower(-sums, sizes, alpha)) + 0.0
    return {
        'difference': min(max(float(d.mean()), low), high),  # outside by rounding alone, when all seeds agree
        'interval': (low, high),
        'p_value': p,
        'equivalence': equivalence,
        'spread': spread,
        'detectable': spread * detectable_effect(d.size, alpha),
        'exact': d.size <= EXACT_SEEDS,
    }


def _judged(c: Comparison, p: float | None, equivalence: float | None) -> Comparison:
    inside = equivalence is not None and equivalence <= c.alpha
    return dataclasses.replace(c, within_margin=inside, verdict=verdict(c, p, equivalence))
