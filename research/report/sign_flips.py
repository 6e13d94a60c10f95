"""Fisher's sign-flip test on paired differences: p-values, confidence bounds, and detectable effects.

Under the null hypothesis each seed's difference is as likely to have the other sign, so all 2^n sign patterns are counted.
"""

import functools
import math

import numpy as np
from scipy import stats

# Sums of flipped differences closer than this, relative to the largest difference, are ties: accuracies are multiples of
# 1 / examples, so ties are common, and rounding errors would break them at random.
TIE = 1e-9
EXACT_SEEDS = 20  # with more, a fixed sample of sign patterns is used
DRAWN_FLIPS = 2**16
POWER = 0.8
SIMULATED_SEEDS = 12  # with more, the power is that of a t-test within 2 points
SIMULATIONS = 2_000


def seeds_needed(contrasts: int, alpha: float = 0.05) -> int:
    """The fewest seeds with which a result can pass Holm's correction: the smallest n with 2 / 2^n <= alpha / contrasts."""
    n = 1
    while 2.0 ** (1 - n) > alpha / contrasts:
        n += 1
    return n


def detectable_size(spread: float, n: int, alpha: float, step: float = 0.0) -> float | None:
    """The true mean that a study printing this number detects in four of five, given what it can know.

    Power is the expected one: an independent study of n seeds prints the size from its own spread, another one has a true
    mean of that size, and the share of the second that calls it is 80 %, averaged over what the first prints. A size computed
    as if the observed spread were the true one is detected less often (67 to 73 %), since spreads of few seeds vary.

    Args:
      spread: standard deviation of the differences over seeds (n - 1); they are taken as normal.
      n, alpha: of the test.
      step: distance between two possible differences (1 / examples for an accuracy), 0 if they are continuous. Ties count
        against an effect, so that a test of accuracies loses about half a step in the smallest sums it looks at. A spread
        under one step is taken as one: an effect moves single examples, whose chance alone spreads accuracies as much.

    Returns:
      In the unit of the spread; None if n seeds cannot reach alpha.
    """
    if n < seeds_needed(1, alpha):
        return None
    of_spread, of_step = _simulated(n, alpha) if n <= SIMULATED_SEEDS else _students(n, alpha)
    return of_spread * max(spread, step) + of_step * step


@functools.lru_cache
def _simulated(n: int, alpha: float) -> tuple[float, float]:
    """Factors of spread and step in `detectable_size`, from 2,000 normal samples and their negatives.

    A true mean m is detected if the lower bound of the centred sample is above -m, so each factor is a quantile.
    """
    rng = np.random.default_rng(0)
    normal, bounds = rng.standard_normal((SIMULATIONS, n)), {0.0: [], 0.5: []}
    for part in np.array_split(normal, max(1, SIMULATIONS * 2**n // 2**21)):
        sums, sizes = subset_sums(part)
        for lost, found in bounds.items():  # half a step of one standard deviation, by which a sum must clear 0
            found += [-lower_bound(sums - lost, sizes, alpha), -lower_bound(-sums - lost, sizes, alpha)]
    continuous, stepped = map(np.concatenate, bounds.values())
    printed = rng.standard_normal((16, continuous.size, n)).std(-1, ddof=1)
    of_spread = float(np.quantile(continuous / printed, POWER))
    return of_spread, float(np.quantile(stepped, POWER) - np.quantile(continuous, POWER))


@functools.lru_cache
def _students(n: int, alpha: float) -> tuple[float, float]:
    """The same by Student's t, which the sign-flip test approaches; half the distance of two sums of flipped differences."""
    rng = np.random.default_rng(0)
    normal, (tested, printed) = rng.standard_normal(DRAWN_FLIPS), np.sqrt(rng.chisquare(n - 1, (2, DRAWN_FLIPS)) / (n - 1))
    detected = (stats.t.isf(alpha / 2, n - 1) * tested - normal) / (math.sqrt(n) * printed)
    return float(np.quantile(detected, POWER)), 1 / n


def subset_sums(d: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sums [..., F] and sizes [F] of the subsets of d [..., n] whose signs are flipped; complements are included."""
    if d.shape[-1] > EXACT_SEEDS:
        flips = np.random.default_rng(0).random((DRAWN_FLIPS, d.shape[-1])) < 0.5
        flips[0] = False  # the observed pattern is always counted
        flips = np.concatenate([flips, ~flips])
        return d @ flips.T.astype(np.float64), flips.sum(1)
    sums, sizes = np.zeros((*d.shape[:-1], 1)), np.zeros(1)
    for i in range(d.shape[-1]):
        sums = np.concatenate([sums, sums + d[..., i : i + 1]], axis=-1)
        sizes = np.concatenate([sizes, sizes + 1])
    return sums, sizes


def p_above(d: np.ndarray, sums: np.ndarray, sizes: np.ndarray, mean: float) -> float:
    """One-sided p-value for a true mean above `mean`: a flip counts if the subset of d - mean has a sum <= 0."""
    return float(np.mean(sums - mean * sizes <= TIE * (np.abs(d).max() + abs(mean))))


def lower_bound(sums: np.ndarray, sizes: np.ndarray, alpha: float) -> np.ndarray:
    """The lowest mean that the two-sided test does not reject, [...]: an order statistic of the subset means."""
    rejected = int(alpha * sums.shape[-1] / 2)
    means = np.divide(sums, sizes, out=np.full(sums.shape, -np.inf), where=sizes > 0)
    return np.partition(means, rejected, axis=-1)[..., rejected]
