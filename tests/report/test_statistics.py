"""Statistics against scipy where scipy has it, against brute force where not, and their properties."""

import itertools
import json
import math
import subprocess
import sys
import types

import hypothesis
import hypothesis.extra.numpy
import hypothesis.strategies as st
import numpy as np
import pytest
from scipy import stats

from research import catalogue
from research.report import sign_flips, statistics, times

# Accuracies on 360 images, so that ties and zeros are common, or any number.
COUNTS = hypothesis.extra.numpy.arrays(np.float64, st.integers(6, 9), elements=st.integers(-4, 4)).map(lambda d: d / 360)
REALS = hypothesis.extra.numpy.arrays(np.float64, st.integers(6, 9), elements=st.floats(-10, 10, width=16))
DIFFERENCES = COUNTS | REALS


def scipy_p(d, alternative='two-sided'):
    return stats.permutation_test(
        (d,), np.mean, permutation_type='samples', n_resamples=np.inf, alternative=alternative, vectorized=True
    ).pvalue


def rejected_by_scipy(d, theta, alpha):
    return scipy_p(d - theta) <= alpha


@pytest.mark.parametrize('n', [6, 7, 10, 13])
@pytest.mark.parametrize('effect', [0.0, 0.5, -1.0])
def test_p_value_is_scipys(n, effect):
    d = np.random.default_rng(n).normal(effect, 1, n)
    assert statistics.compare_differences(d).p_value == scipy_p(d)


@pytest.mark.parametrize('seed', range(5))
def test_p_value_with_ties_is_counted_in_whole_numbers(seed):
    """Against integer arithmetic, which has no rounding; accuracies then come as quotients."""
    rng = np.random.default_rng(seed)
    baseline, variant = rng.integers(345, 353, 10), rng.integers(346, 355, 10)
    d = variant - baseline
    sums = [abs(np.dot(signs, d)) for signs in itertools.product((-1, 1), repeat=10)]
    assert statistics.compare(baseline / 360, variant / 360).p_value == np.mean(np.array(sums) >= abs(d.sum()))


@pytest.mark.parametrize('alpha', [0.05, 0.01, 0.32])
@pytest.mark.parametrize('seed', range(3))
def test_interval_holds_what_scipys_test_does_not_reject(seed, alpha):
    d = np.random.default_rng(seed).gamma(1.0, size=9) - 0.5
    low, high = statistics.compare_differences(d, alpha=alpha).interval
    for bound, outwards in ((low, -1), (high, 1)):
        assert rejected_by_scipy(d, bound + outwards * 1e-6, alpha)
        assert not rejected_by_scipy(d, bound - outwards * 1e-6, alpha)


def test_interval_of_six_seeds_is_their_range():
    d = np.array([0.3, -0.1, 0.7, 0.2, 0.9, 0.4])
    assert statistics.compare_differences(d).interval == (-0.1, 0.9)


@hypothesis.settings(max_examples=300, deadline=None)
@hypothesis.given(DIFFERENCES, st.sampled_from([0.05, 0.1, 2 / 2**6, 0.32]))
def test_interval_leaves_out_zero_exactly_when_p_is_small(d, alpha):
    result = statistics.compare_differences(d, alpha=alpha)
    low, high = result.interval
    assert low <= result.difference <= high
    assert (low > 0 or high < 0) == (result.p_value <= alpha)
    assert (result.verdict in ('better', 'worse')) == (result.p_value <= alpha)


@hypothesis.settings(max_examples=100, deadline=None)
@hypothesis.given(DIFFERENCES, st.floats(-5, 5), st.sampled_from([1e-4, 3.0, 1e6]))
def test_shift_moves_the_interval_and_scale_stretches_it(d, shift, scale):
    """Bounds are shifted as they are; p is the same whatever the unit, and mirrored differences mirror everything."""
    plain, tolerance = statistics.compare_differences(d), 1e-8 * (1 + np.abs(d).max())
    shifted = statistics.compare_differences(d + shift)
    np.testing.assert_allclose(shifted.interval, np.array(plain.interval) + shift, atol=tolerance)
    stretched = statistics.compare_differences(d * scale)
    np.testing.assert_allclose(stretched.interval, np.array(plain.interval) * scale, atol=tolerance * scale)
    mirrored = statistics.compare_differences(-d)
    np.testing.assert_allclose(mirrored.interval, (-plain.interval[1], -plain.interval[0]), atol=tolerance)
    assert mirrored.p_value == plain.p_value == stretched.p_value


def test_rounding_is_neither_an_effect_nor_a_broken_tie():
    """(0.1 + 0.2) - 0.3 is 6e-17; and thirds of 360 that cancel must count as zero."""
    scores = {'a': np.full(8, 0.1), 'b': np.full(8, 0.2), 'both': np.full(8, 0.3), 'none': np.zeros(8)}
    d = statistics.contrast(scores, {'both': 1, 'a': -1, 'b': -1, 'none': 1})
    result = statistics.compare_differences(d)
    assert result.p_value == 1 and result.interval == (0, 0) and result.verdict == 'no effect shown'


def test_no_difference_at_all():
    result = statistics.compare(np.full(10, 0.98), np.full(10, 0.98), margin=0.001)
    assert (result.difference, result.interval, result.p_value, result.detectable) == (0, (0, 0), 1, 0)
    assert result.verdict == 'equivalent' and result.equivalence == 2**-10


def test_twenty_seeds_are_exact():
    """Sums of whole numbers counted by convolution: another algorithm than the enumeration of all 2^20 patterns."""
    d = np.random.default_rng(0).integers(-9, 15, 20)
    ways = np.ones(1, np.int64)  # ways[k]: sign patterns in which the sum is k - (sum of sizes so far)
    for size in abs(d):
        ways = np.pad(ways, (0, 2 * size)) + np.pad(ways, (2 * size, 0))
    sums = np.arange(ways.size) - abs(d).sum()
    result = statistics.compare_differences(d / 360)
    assert result.exact and result.p_value == ways[abs(sums) >= abs(d.sum())].sum() / 2**20


def test_more_seeds_draw_patterns_and_say_so():
    d = np.random.default_rng(3).normal(0.35, 1, 40)
    result = statistics.compare_differences(d)
    assert not result.exact and result.p_value > 0
    assert result == statistics.compare_differences(d)
    assert result.p_value == pytest.approx(stats.ttest_1samp(d, 0).pvalue, abs=0.01)
    np.testing.assert_allclose(result.interval, stats.ttest_1samp(d, 0).confidence_interval(0.95), atol=0.05)
    assert (result.interval[0] > 0 or result.interval[1] < 0) == (result.p_value <= 0.05)


@pytest.mark.parametrize('n', [2, 3, 5])
def test_few_seeds_get_a_t_interval_and_no_test(n):
    baseline, variant = np.random.default_rng(n).normal(0, 1, (2, n))
    result = statistics.compare(baseline, variant + 100, margin=1000)
    assert (result.p_value, result.equivalence, result.detectable) == (None, None, None)
    assert result.descriptive and result.verdict == 'too few seeds' and '6 seeds' in result.note
    np.testing.assert_allclose(result.interval, stats.ttest_rel(variant + 100, baseline).confidence_interval(0.95))


def test_one_seed_has_a_difference_and_no_interval():
    result = statistics.compare([0.9], [0.95])
    assert result.difference == pytest.approx(0.05) and result.interval is None and result.verdict == 'too few seeds'


@pytest.mark.parametrize('bad', [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize('n', [3, 10])
def test_a_diverged_seed_is_never_dropped(bad, n):
    baseline, variant = np.zeros(n), np.ones(n)
    variant[0], baseline[1], baseline[0] = bad, bad, bad
    result = statistics.compare(baseline, variant)
    assert result.verdict == f'failed (2 of {n} diverged)' and (result.n, result.failed) == (n, 2)
    assert result.difference is result.interval is result.p_value is result.detectable is None


def test_direction_turns_the_verdict_and_nothing_else():
    loss = np.random.default_rng(0).normal(1, 0.1, 10)
    up, down = (statistics.compare(loss, loss + 0.5, higher_is_better=h) for h in (True, False))
    assert (up.verdict, down.verdict) == ('better', 'worse')
    assert up.difference == down.difference == pytest.approx(0.5) and up.interval == down.interval


@pytest.mark.parametrize(
    ('shift', 'margin', 'expected'),
    [
        (0.0, 0.0, 'no effect shown'),
        (0.0, 0.1, 'no effect shown'),
        (0.0, 2.0, 'equivalent'),
        (3.0, 2.0, 'better'),
        (3.0, 0.0, 'better'),
        (1.0, 9.0, 'better, within the margin'),
        (-1.0, 9.0, 'worse, within the margin'),
    ],
)
def test_margin(shift, margin, expected):
    d = np.linspace(-1.0, 1.0, 10) + shift
    result = statistics.compare_differences(d, margin=margin)
    assert result.verdict == expected and result.within_margin == ('within' in expected or expected == 'equivalent')


@hypothesis.settings(max_examples=60, deadline=None)
@hypothesis.given(REALS, st.floats(0.01, 20))
def test_equivalence_is_two_one_sided_tests(d, margin):
    d = d + np.random.default_rng(0).normal(0, 1e-3, d.size)  # off the ties, which scipy judges by another tolerance
    expected = max(scipy_p(d + margin, 'greater'), scipy_p(d - margin, 'less'))
    result = statistics.compare_differences(d, margin=margin)
    assert result.equivalence == pytest.approx(expected)
    low, high = result.equivalence_interval
    assert (-margin < low and high < margin) == (result.equivalence <= 0.05) == result.within_margin


def test_holm_by_hand():
    raw = [0.01, 0.04, 0.03, 0.005]
    assert statistics.holm(raw) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert statistics.holm([0.01, None, 0.04]) == [0.02, None, 0.04]
    assert statistics.holm([]) == []
    with pytest.raises(ValueError, match='between 0 and 1'):
        statistics.holm([0.1, math.nan])


@hypothesis.given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_rejects_what_the_step_down_rejects(raw):
    """As Holm states it: compare the sorted p-values with alpha / m, alpha / (m - 1), ... and stop at the first that fails."""
    result = statistics.holm(raw)
    order = np.argsort(raw, kind='stable')
    assert all(r <= c <= 1 for r, c in zip(raw, result, strict=True))
    assert np.all(np.diff(np.array(result)[order]) >= 0)
    for alpha in (0.01, 0.05, 0.2):
        steps = [raw[i] * (len(raw) - rank) <= alpha for rank, i in enumerate(order)]
        passed = {i for rank, i in enumerate(order) if all(steps[: rank + 1])}
        assert {i for i, c in enumerate(result) if c <= alpha} == passed


def test_correction_takes_back_what_chance_would_give():
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 1, (6, 10))
    noise -= noise.mean(1, keepdims=True)
    shifts = [2.0, 0.75, 0.0, 0.0, 0.0, 0.0]
    raw = [statistics.compare_differences(n / n.std(ddof=1) + s, margin=50.0) for n, s in zip(noise, shifts, strict=True)]
    raw += [statistics.compare([0.0, np.nan], [0.0, 1.0]), statistics.compare_differences([1.0, 2.0])]
    result = statistics.corrected(raw)
    assert raw[1].p_value <= 0.05 < result[1].p_corrected
    assert result[0].verdict == 'better, within the margin' and result[1].verdict == 'equivalent'
    assert [r.note for r in result[:3]] == ['', 'not after correction', '']
    assert [r.p_corrected for r in result] == statistics.holm([r.p_value for r in raw])
    assert all(r.detectable > b.detectable for r, b in zip(result[:6], raw, strict=False))
    assert result[6:] == raw[6:]


def test_correction_that_nothing_can_pass_says_how_many_seeds_can():
    result = statistics.corrected([statistics.compare_differences(np.arange(1.0, 7.0))] * 7)
    assert {r.verdict for r in result} == {'no effect shown'} and result[0].detectable is None
    assert result[0].note == 'not after correction; with 7 contrasts, 9 seeds or more let one pass the correction'


@pytest.mark.parametrize(('contrasts', 'seeds'), [(1, 6), (6, 8), (7, 9), (12, 9), (13, 10), (25, 10), (26, 11), (100, 12)])
def test_seeds_needed(contrasts, seeds):
    assert statistics.seeds_needed(contrasts) == seeds
    best = [statistics.compare_differences(np.ones(n)).p_value * contrasts for n in (seeds - 1, seeds) if n >= 6]
    assert best[-1] <= 0.05 and all(p > 0.05 for p in best[:-1])


@pytest.mark.parametrize(('n', 'step'), [(6, 0.0), (6, 0.4), (10, 0.0), (10, 0.8)])
def test_a_difference_of_the_size_printed_is_called_four_times_in_five(n, step):
    """One study prints the size from its own spread, another has it as its true mean; 800 pairs, three errors of 4 points.

    A size as if the observed spread were the true one is called in 67 %, and in 62 % where a spread is 2.5 steps.
    """
    rng = np.random.default_rng(99)
    rounded = (lambda d: step * np.round(d / step)) if step else (lambda d: d)
    printing, tested = rng.normal(0, 1, (2, 800, n))
    sizes = [statistics.compare_differences(rounded(d), step=step).detectable for d in printing]
    called = [statistics.compare_differences(rounded(d + s)).verdict == 'better' for d, s in zip(tested, sizes, strict=True)]
    assert np.mean(called) == pytest.approx(0.8, abs=0.045)


def test_detectable_size_goes_on_smoothly_into_students():
    simulated = sign_flips.SIMULATED_SEEDS
    last, first = (sign_flips.detectable_size(1.0, n, 0.05) for n in (simulated, simulated + 1))
    assert 0.92 < first / last < 1
    assert sign_flips.detectable_size(0.0, 10, 0.05, 0.1) == sign_flips.detectable_size(0.1, 10, 0.05, 0.1) > 0.1
    assert sign_flips.detectable_size(1.0, 5, 0.05) is None and sign_flips.detectable_size(1.0, 30, 0.05) < first


def test_contrast_is_taken_seed_by_seed_and_checked():
    scores = {'both': [5.0, 7.0], 'a': [2.0, 1.0], 'baseline': [1.0, 0.0]}
    np.testing.assert_array_equal(statistics.contrast(scores, {'both': 1, 'a': -2, 'baseline': 1}), [2.0, 5.0])
    with pytest.raises(catalogue.ConfigError, match='sum to 0'):
        statistics.contrast(scores, {'both': 1, 'a': -2})
    with pytest.raises(catalogue.ConfigError, match="Did you mean 'both'"):
        statistics.contrast(scores, {'bothh': 1, 'a': -1})
    with pytest.raises(ValueError, match='one shape'):
        statistics.compare([1.0, 2.0], [1.0, 2.0, 3.0])


@pytest.mark.parametrize('kwargs', [{'margin': -1.0}, {'margin': math.nan}, {'alpha': 0.0}, {'alpha': 1.0}])
def test_bad_settings_are_refused(kwargs):
    with pytest.raises(ValueError, match='Expected margin'):
        statistics.compare_differences(np.ones(8), **kwargs)


@pytest.mark.parametrize('bad', [[], np.ones((2, 2)), 1.0])
def test_bad_shapes_are_refused(bad):
    with pytest.raises(ValueError, match='one a seed'):
        statistics.compare_differences(bad)


def test_crossed_interval_is_as_wide_as_its_parts():
    """Seeds, examples, both, and neither, against the variances from which they were drawn; noise counts once, as seeds."""
    rng = np.random.default_rng(0)
    by_seed, by_example = rng.normal(0, 1, (20, 1)), rng.normal(0, 1, (1, 200))
    for s, e, noise in ((1, 0, 0.1), (0, 1, 0.1), (3, 1, 0.1), (1, 5, 0.1), (0, 0, 3.0)):
        d = s * by_seed + e * by_example + noise * rng.normal(0, 1, (20, 200)) + 2.0
        low, high = statistics.crossed_interval(d)
        expected = np.sqrt(2.09**2 * d.mean(1).var(ddof=1) / 20 + 1.97**2 * e**2 * by_example.var() / 200)
        assert low < d.mean() < high and (high - low) / 2 == pytest.approx(expected, rel=0.1)


@hypothesis.settings(max_examples=60, deadline=None)
@hypothesis.given(st.integers(2, 9), st.integers(2, 40), st.floats(0, 3), st.floats(0, 3), st.integers(0, 99))
def test_crossed_interval_is_never_narrower_than_the_one_over_seeds(seeds, examples, of_seeds, of_examples, draw):
    rng = np.random.default_rng(draw)
    d = of_seeds * rng.normal(size=(seeds, 1)) + of_examples * rng.normal(size=examples) + rng.normal(size=(seeds, examples))
    over_seeds, (low, high) = statistics.compare_differences(d.mean(1)).interval, statistics.crossed_interval(d)
    assert low <= over_seeds[0] + 1e-12 and high >= over_seeds[1] - 1e-12


@pytest.mark.parametrize(('seeds', 'luck'), [(3, 1.0), (6, 0.1), (10, 0.1)])
def test_crossed_interval_covers_the_mean_over_seeds_and_examples(seeds, luck):
    """600 studies put three errors at 2.7 points. Over seeds alone it is 80 to 86 % where luck is small."""
    rng, covered = np.random.default_rng(seeds), 0
    for _ in range(600):
        of_examples, of_seeds = 1.5 * rng.normal(size=60) / np.sqrt(seeds), luck * rng.normal(size=(seeds, 1))
        low, high = statistics.crossed_interval(of_seeds + of_examples + rng.normal(size=(seeds, 60)))
        covered += low <= 0 <= high
    assert covered / 600 == pytest.approx(0.96, abs=0.03)


def test_crossed_interval_refuses_what_it_cannot_use():
    assert statistics.crossed_interval(np.zeros((3, 5))) == (0, 0)
    for bad in (np.zeros(5), np.zeros((1, 5)), np.full((3, 5), np.nan)):
        with pytest.raises(ValueError, match='at least 2'):
            statistics.crossed_interval(bad)


def test_target_is_reached_by_every_baseline_seed():
    curves = [np.stack([np.arange(4), q], 1) for q in ([0.1, 0.7, 0.5, 0.6], [0.2, 0.3, 0.4, 0.55], [0.1, 0.2, 0.3, 0.9])]
    goal = times.target(curves)
    assert goal == 0.55 and [times.time_to_quality(c, goal) for c in curves] == [1, 3, 3]
    assert times.time_to_quality([(0, 0.1), (1, np.nan)], goal) == math.inf
    losses = [np.stack([np.arange(4), 1 - c[:, 1]], 1) for c in curves]
    goal = times.target(losses, higher_is_better=False)
    assert [times.time_to_quality(c, goal, higher_is_better=False) for c in losses] == [1, 3, 3]
    diverged = times.target([*curves, [(0, np.nan)]])
    assert math.isnan(diverged) and times.time_to_quality(curves[0], diverged) == math.inf


def test_times_are_compared_by_signs_and_medians():
    inf = math.inf
    result = times.compare_times([5, 6, 7, 8, 9, inf, inf, 4], [1, 2, 3, 4, inf, inf, 5, 4])
    assert (result.baseline_reached, result.variant_reached, result.faster, result.slower) == (6, 6, 5, 1)
    assert (result.baseline_median, result.variant_median) == (7.5, 4)
    assert result.p_value == pytest.approx(2 * (1 + 6) / 2**6)
    assert times.compare_times([inf] * 6, [inf] * 6).p_value == 1
    assert times.compare_times([1, 2], [2, 3]).p_value is None
    assert times.compare_times([1, inf, inf], [1, 2, 3]).baseline_median == inf
    with pytest.raises(ValueError, match='without NaN'):
        times.compare_times([1.0, math.nan], [1.0, 2.0])


def test_module_needs_no_jax_and_its_results_are_plain():
    code = (
        'import dataclasses, json, sys; from research.study import statistics; '
        'assert "jax" not in sys.modules; '
        'print(json.dumps(dataclasses.asdict(statistics.compare([0.0] * 8, range(8), margin=1.0))))'
    )
    printed = subprocess.run([sys.executable, '-c', code], check=True, capture_output=True, text=True).stdout
    assert json.loads(printed)['verdict'] == 'better'


@pytest.mark.parametrize('read', [True, False])
def test_a_score_that_no_evaluation_reads_has_no_time(read):
    """It would be a miss of every run."""
    study = {'alpha': 0.05, 'higher_is_better': True, 'metric': 'test/chrf'}
    lines = [{'position': 8, 'train_seconds': 1.0, 'validation/loss': 1.0, **({'validation/chrf': 50.0} if read else {})}]
    runs = {name: {0: {'status': 'finished'}} for name in ('baseline', 'other')}
    found = times.Times(types.SimpleNamespace(study=study, results=runs), {name: {0: lines} for name in runs})
    assert bool(found.median('other')) == bool(found.compare({'other': 1.0, 'baseline': -1.0})) == read
