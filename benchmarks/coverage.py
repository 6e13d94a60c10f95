"""Does the interval over seeds and test examples hold what it says, and is what "could have detected" prints detected?

    python benchmarks/coverage.py    # four minutes of one core; exits with 1 when a bound is missed

Both on differences of correctness, -1, 0 or 1 an example, over (3, 6, 10 seeds) x (360, 10,000 examples) x (small, large
spread over seeds). Accuracies and disagreements are like those of this repository's studies: 98 % on 360 digits, 92.5 % on
10,000 images, two runs disagreeing on 2 to 7 % of the examples.

Coverage: a run gets an example right if its difficulty, what the variant makes of it, the seed's luck and noise sum to more
than 0, all normal, so that the mean difference over all seeds and all examples is known. Power: see `power`. Before them stands
the interval over seeds alone, and how often a difference as large as the margin is called equivalent.
"""

import itertools
import math
import sys

import numpy as np
from scipy import stats

from research.report import sign_flips, statistics

ALPHA = 0.05
SEEDS, EXAMPLES, SPREADS = (3, 6, 10), (360, 10_000), ('small', 'large')
STUDIES = {360: 4_000, 10_000: 1_500}  # of coverage; the standard error is 0.35 and 0.56 points
POWER_STUDIES = OVER_SEEDS = 10_000
COVERAGE_BOUNDS, POWER_BOUNDS = (0.93, 0.98), (0.75, 0.85)
# Standard deviations on the probit scale, where noise has 1: of an example's difficulty, of what a variant changes about it.
DIFFICULTY, CHANGE = 2.0, 0.5
ACCURACY = {360: (0.98, 0.976), 10_000: (0.925, 0.935)}  # of baseline and variant
LUCK = {'small': 0.02, 'large': 0.25}  # of a seed, drawn for either run
# For power: the share of the examples on which two runs disagree, and the standard deviation of a seed's expected difference.
DISAGREEMENT = {
    (360, 'tiny'): 0.003,
    (360, 'small'): 0.02,
    (360, 'large'): 0.02,
    (10_000, 'small'): 0.05,
    (10_000, 'large'): 0.05,
}
WANDER = {'tiny': 0.0, 'small': 0.0, 'large': 0.01}


MARGIN = 1.5
# Differences of a seed, centred, in units of about one standard deviation.
DRAWS = {
    'normal': lambda rng, size: rng.normal(size=size),
    'heavy tails (t with 3 degrees)': lambda rng, size: rng.standard_t(3, size),
    'skewed (exponential)': lambda rng, size: rng.exponential(size=size) - 1,
}


def over_seeds(seeds: int, draw: str) -> dict[str, float]:
    """Shares of the intervals over seeds that hold the true mean, and of true means at the margin called within it."""
    rng = np.random.default_rng((seeds, list(DRAWS).index(draw), 2))
    found = []
    for d in DRAWS[draw](rng, (OVER_SEEDS, seeds)):
        low, high = statistics.compare_differences(d, alpha=ALPHA).interval
        found.append([low <= 0 <= high, statistics.compare_differences(d + MARGIN, MARGIN, alpha=ALPHA).within_margin])
    held, within = np.mean(found, 0)
    return {'held': held, 'within': within}


def correctness(rng: np.random.Generator, seeds: int, examples: int, luck: float) -> np.ndarray:
    """Differences of one study, float64 [seeds, examples]; their expectation is that of ACCURACY."""
    difficulty, change = rng.normal(0, DIFFICULTY, examples), rng.normal(0, CHANGE, examples)
    hits = []
    for accuracy, own in zip(ACCURACY[examples], (0.0, CHANGE), strict=True):
        scale = math.sqrt(1 + DIFFICULTY**2 + own**2 + luck**2)
        level = scale * stats.norm.ppf(accuracy) + difficulty + (change if own else 0) + rng.normal(0, luck, (seeds, 1))
        hits.append(level.astype(np.float32) + rng.standard_normal((seeds, examples), np.float32) > 0)
    return hits[1].astype(np.float64) - hits[0]


def coverage(seeds: int, examples: int, spread: str) -> dict[str, float]:
    """Shares of the intervals over seeds, and over seeds and examples, that hold the true mean; and how much wider."""
    rng = np.random.default_rng((seeds, examples, SPREADS.index(spread)))
    truth = ACCURACY[examples][1] - ACCURACY[examples][0]
    found = []
    for _ in range(STUDIES[examples]):
        d = correctness(rng, seeds, examples, LUCK[spread])
        pairs = statistics.compare_differences(d.mean(1), alpha=ALPHA).interval, statistics.crossed_interval(d, ALPHA)
        held = [low <= truth <= high for low, high in pairs]
        narrow, wide = (high - low for low, high in pairs)
        found.append([d.mean(1).std(ddof=1), *held, wide < narrow * (1 - 1e-9), narrow, wide])
    sd, over_seeds, crossed, narrower, narrow, wide = np.mean(found, 0)
    return {'spread': sd, 'seeds alone': over_seeds, 'crossed': crossed, 'narrower': narrower, 'width': wide / narrow}


def accuracies(rng: np.random.Generator, effects: np.ndarray, seeds: int, examples: int, spread: str) -> np.ndarray:
    """Differences of accuracy [studies, seeds] with true means `effects` [studies]: gained less lost, of those that differ."""
    means = effects[:, None] + rng.normal(0, WANDER[spread], (effects.size, seeds))
    share = np.clip(np.maximum(DISAGREEMENT[examples, spread], np.abs(means)), 0, 1)
    differ = rng.binomial(examples, share)
    return (2 * rng.binomial(differ, (1 + means / share) / 2) - differ) / examples


def power(seeds: int, examples: int, spread: str) -> dict[str, float]:
    """The share of studies that call an effect of the size that another study printed.

    The printing study has no effect, and its size comes from the spread that it saw; the other's true mean is that size. The
    share is averaged over printing studies, one study for each: a reader of one report has no better.
    """
    rng = np.random.default_rng((seeds, examples, list(WANDER).index(spread), 1))
    observed = accuracies(rng, np.zeros(POWER_STUDIES), seeds, examples, spread).std(-1, ddof=1)
    sizes = np.array([sign_flips.detectable_size(sd, seeds, ALPHA, 1 / examples) for sd in observed])
    called = 0
    for part in np.array_split(sizes, 50):
        d = accuracies(rng, part, seeds, examples, spread)
        sums, _ = sign_flips.subset_sums(d)
        ties = sign_flips.TIE * np.abs(d).max(-1, keepdims=True)
        called += np.sum((2 * np.mean(sums <= ties, -1) <= ALPHA) & (d.mean(-1) > 0))
    return {'spread': observed.mean(), 'printed': sizes.mean(), 'power': called / POWER_STUDIES}


def main() -> None:
    held = True
    print('| seeds | differences | interval over seeds holds the mean | called within the margin, at the margin |')
    print('|---|---|---|---|')
    for seeds, draw in ((n, d) for n in SEEDS for d in DRAWS):
        found = over_seeds(seeds, draw)
        within = f'{found["within"]:.3f}' if seeds >= sign_flips.seeds_needed(1, ALPHA) else '–'
        print(f'| {seeds} | {draw} | {found["held"]:.3f} | {within} |', flush=True)
    print()
    print('| seeds | examples | spread over seeds, points | over seeds alone | crossed | width, ratio | narrower | |')
    print('|---|---|---|---|---|---|---|---|')
    for seeds, examples, spread in itertools.product(SEEDS, EXAMPLES, SPREADS):
        c = coverage(seeds, examples, spread)
        ok = COVERAGE_BOUNDS[0] <= c['crossed'] <= COVERAGE_BOUNDS[1] and not c['narrower']
        held &= ok
        print(
            f'| {seeds} | {examples} | {spread}, {100 * c["spread"]:.2f} | {c["seeds alone"]:.3f} | {c["crossed"]:.3f} | '
            f'{c["width"]:.2f} | {c["narrower"]:.0%} | {"held" if ok else "MISSED"} |',
            flush=True,
        )
    print('\n| seeds | examples | spread over seeds, points | printed, points | true power | |\n|---|---|---|---|---|---|')
    testable = [n for n in SEEDS if n >= sign_flips.seeds_needed(1, ALPHA)]
    for seeds, (examples, spread) in itertools.product(testable, DISAGREEMENT):
        p = power(seeds, examples, spread)
        ok = POWER_BOUNDS[0] <= p['power'] <= POWER_BOUNDS[1]
        held &= ok or spread == 'tiny'
        print(
            f'| {seeds} | {examples} | {spread}, {100 * p["spread"]:.2f} | {100 * p["printed"]:.2f} | {p["power"]:.3f} | '
            f'{"held" if ok else "no bound" if spread == "tiny" else "MISSED"} |',
            flush=True,
        )
    sys.exit(0 if held else 1)


if __name__ == '__main__':
    main()
