"""Independent batches: every subset as likely, none of its examples twice, the same whoever asks for which part."""

import collections
import itertools
import pickle
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from research.data import order, sampling
from research.data.without_replacement import WithoutReplacement

SEEDS = st.integers(0, 2**64 - 1)
ROWS = np.arange(23) * 3 + 1


@given(seed=SEEDS, step=st.integers(0, 2**40), n=st.integers(1, 200), data=st.data())
def test_no_example_twice_in_a_step(seed, step, n, data):
    size = data.draw(st.sampled_from([0, 1, n // 2, n - 1, n]))
    drawn = order.subset(seed, step, size, n)
    assert drawn.dtype == np.int64 and len(set(drawn.tolist())) == len(drawn) == size
    assert not size or drawn.min() >= 0 and drawn.max() < n


@pytest.mark.parametrize('size', [1, 2, 5])
def test_every_ordered_subset_is_as_likely(size):
    """By chi-square, over steps of one seed and over seeds of one step."""
    possible = [*itertools.permutations(range(5), size)]
    count = 40 * len(possible)
    for draws in ([order.subset(3, s, size, 5) for s in range(count)], [order.subset(s, 3, size, 5) for s in range(count)]):
        seen = collections.Counter(tuple(draw.tolist()) for draw in draws)
        assert stats.chisquare([seen[one] for one in possible]).pvalue > 1e-3


def test_two_steps_have_as_many_examples_in_common_as_chance():
    """Hypergeometric: also of neighbouring steps, which an epoch would keep apart."""
    n, size, count = 20, 6, 3000
    draws = [set(order.subset(11, step, size, n).tolist()) for step in range(count + 1)]
    seen = np.bincount([len(a & b) for a, b in itertools.pairwise(draws)], minlength=size + 1)
    expected = count * stats.hypergeom(n, size, size).pmf(range(size + 1))
    common = slice(0, 5)  # more in common are too rare for the approximation
    merged = [*seen[common], seen[5:].sum()], [*expected[common], expected[5:].sum()]
    assert stats.chisquare(*merged).pvalue > 1e-3


def test_a_number_of_examples_that_64_bits_do_not_divide_is_fair():
    """64 bits are 2 2/3 times as many: by a plain remainder three quarters would come from the first two thirds."""
    n = 3 * 2**61
    drawn = np.concatenate([order.subset(0, step, 500, n) for step in range(4)])
    assert stats.binomtest(int((drawn < 2**62).sum()), len(drawn), 2 / 3).pvalue > 1e-3


@given(seed=st.integers(0, 2**40), start=st.integers(0, 200), length=st.integers(0, 90), size=st.integers(1, 23))
def test_any_part_is_the_same_part(seed, start, length, size):
    sampler = pickle.loads(pickle.dumps(WithoutReplacement(ROWS, size)))
    whole = sampler(seed, 0, start + length)
    np.testing.assert_array_equal(sampler(seed, start, start + length), whole[start:])
    assert whole.shape == (start + length,)
    for step in range(len(whole) // size):
        batch = whole[step * size :][:size]
        np.testing.assert_array_equal(batch, ROWS[order.subset(seed, step, size, 23)])


def test_hosts_side_by_side_are_one_host_and_entries_of_several_rows_stay_together():
    sampler = WithoutReplacement(np.arange(46).reshape(23, 2) - 1, 8)
    whole = sampling.batches(sampler, 5, 24, 3, 8)
    parts = [sampling.batches(sampler, 5, 24, 3, 8, host, 2) for host in range(2)]
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), whole)
    assert (whole[..., 1] == whole[..., 0] + 1).all()
    assert sampler(5, 7, 7).shape == (0, 2)


def test_more_than_there_are_is_refused():
    with pytest.raises(ValueError, match='size=24'):
        order.subset(0, 0, 24, 23)


def test_a_step_of_many_examples_takes_less_than_a_millisecond():
    seconds = []
    for step in range(50):
        start = time.perf_counter()
        order.subset(0, step, 256, 60_000)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 1e-3
