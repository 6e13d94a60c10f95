"""Fisher's sign-flip test on paired differences: p-values, confidence bounds, and detectable effects.

Under the null hypothesis each seed's difference is as likely to have the other sign, so all 2^n sign patterns are counted.
"""

import functools
import math

import numpy as np
from scipy import optimize, stats

# Sums of flipped differences closer than this, relative to the largest difference, are ties: accuracies are multiples of
# 1 / examples, so ties are common, and rounding errors would break them at random.
TIE = 1e-9
EXACT_SEEDS = 20  # with more, a fixed sample of sign patterns is used
DRAWN_FLIPS = 2**16
POWER = 0.8
SIMULATED_SEEDS = 14  # with more, the power is that of a t-test within 2 %
SIMULATIONS = 2_000


def seeds_needed(contrasts: int, alpha: float = 0.05) -> int:
    """The fewest seeds with which a result can pass Holm's correction: the smallest n with 2 / 2^n <= alpha / contrasts."""
    n = 1
    while 2.0 ** (1 - n) > alpha / contrasts:
        n += 1
    return n


@functools.lru_cache
def detectable_effect(n: int, alpha: float) -> float | None:
    """The smallest true mean, in standard deviations of the difference, that this test detects with 80 % power.

    Assumes normal differences. Up to 14 seeds it is simulated: a true mean m is detected if the lower bound of the centred
    sample is above -m, so the answer is one quantile of simulated bounds (2,000 samples and their negatives). With more
    seeds Student's t is used. None if n seeds cannot reach alpha.
    """
    if n < seeds_needed(1, alpha):
        return None
    if n > SIMULATED_SEEDS:
        critical = stats.t.isf(alpha / 2, n - 1)
        return optimize.brentq(lambda m: stats.nct.sf(critical, n - 1, m * math.sqrt(n)) - POWER, 0, critical + 10)
    normal, bounds = np.random.default_rng(0).standard_normal((SIMULATIONS, n)), []
    for part in np.array_split(normal, max(1, SIMULATIONS * 2**n // 2**21)):
        sums, sizes = subset_sums(part)
        bounds += [lower_bound(sums, sizes, alpha), lower_bound(-sums, sizes, alpha)]
    return float(np.quantile(-np.concatenate(bounds), POWER))


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
