"""Order: every example once an epoch, wherever one starts, stops, or splits the reading."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from research.catalogue import ConfigError
from research.data import order

SEEDS = st.integers(0, 2**40)
SIZES = st.sampled_from([1, 2, 3, 7, 64, 97, 251])


@given(seed=SEEDS, n=SIZES, epoch=st.integers(0, 2**60))
def test_every_epoch_holds_every_example_once(seed, n, epoch):
    np.testing.assert_array_equal(np.sort(order.indices(seed, epoch * n, (epoch + 1) * n, n)), np.arange(n))


@given(seed=SEEDS, n=SIZES, start=st.integers(0, 2**62), first=st.integers(0, 300), second=st.integers(0, 300))
def test_a_restart_anywhere_goes_on_where_it_stopped(seed, n, start, first, second):
    whole = order.indices(seed, start, start + first + second, n)
    parts = [order.indices(seed, start, start + first, n), order.indices(seed, start + first, start + first + second, n)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    assert whole.dtype == np.int64
    assert whole.shape == (first + second,)


def test_seeds_epochs_and_redraws_differ():
    orders = [
        order.indices(0, 0, 97, 97),
        order.indices(0, 97, 194, 97),
        order.indices(1, 0, 97, 97),
        order.indices(order.redrawn(0, 1), 0, 97, 97),
        order.indices(order.redrawn(1, 1), 0, 97, 97),
    ]
    assert len({tuple(o) for o in orders}) == 5
    assert order.redrawn(3, 0) == 3


def test_an_order_is_uniform():
    """Chi-square of which example comes first: 24 degrees of freedom, 99.9 % quantile 51.2."""
    counts = np.bincount([order.indices(seed, 0, 1, 25)[0] for seed in range(2500)], minlength=25)
    assert ((counts - 100) ** 2 / 100).sum() < 51.2


@given(seed=SEEDS, n=st.integers(9, 60), start=st.integers(0, 200), count=st.integers(0, 100))
def test_blocks_are_shuffled_whole_and_inside(seed, n, start, count):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(order, 'BLOCK', 8)
        epoch = order.indices(seed, 5 * n, 6 * n, n)
        np.testing.assert_array_equal(np.sort(epoch), np.arange(n))
        changes = np.count_nonzero(np.diff(epoch // 8))
        assert changes == -(-n // 8) - 1, 'each block is read in one go'
        part = order.indices(seed, start, start + count, n)
        np.testing.assert_array_equal(part, order.indices(seed, 0, start + count, n)[start:])


def test_the_bits_are_frozen(monkeypatch):
    why = (
        'The order of examples has changed: no finished run can be reproduced or resumed. Change it back; if it has to '
        'change, raise the version of the rules of comparison and say so in the README.'
    )
    assert order.indices(0, 0, 10, 10).tolist() == [0, 2, 9, 1, 8, 5, 4, 3, 6, 7], why
    assert order.indices(7, 2**40, 2**40 + 5, 60000).tolist() == [11128, 46292, 50475, 57599, 59894], why
    assert order.indices(order.redrawn(7, 1), 0, 5, 1437).tolist() == [600, 1427, 1062, 962, 48], why
    train, validation = order.split(20, 4, 5, 0)
    assert (train.tolist(), validation.tolist()) == ([1, 3, 5, 9, 18], [0, 6, 10, 13]), why
    monkeypatch.setattr(order, 'BLOCK', 1024)
    assert order.indices(3, 12345, 12350, 5000).tolist() == [1931, 1282, 1689, 1698, 1213], why


@given(n=st.integers(2, 200), data=st.data(), seed=SEEDS)
def test_cuts_are_disjoint_and_subsets_nest(n, data, seed):
    count = data.draw(st.integers(0, n - 1))
    more = data.draw(st.integers(1, n - count))
    fewer = data.draw(st.integers(1, more))
    everything, validation = order.split(n, count, 0, seed)
    np.testing.assert_array_equal(np.sort(np.concatenate([everything, validation])), np.arange(n))
    assert len(validation) == count
    subsets = [order.split(n, count, examples, seed) for examples in (more, fewer)]
    for (train, cut), examples in zip(subsets, (more, fewer), strict=True):
        assert len(train) == examples
        np.testing.assert_array_equal(cut, validation)
        assert set(train) <= set(everything)
    assert set(subsets[1][0]) <= set(subsets[0][0])


def test_validation_is_a_fraction_or_a_count():
    assert len(order.split(200, 0.1, 0, 0)[1]) == 20
    assert len(order.split(200, 10, 0, 0)[1]) == len(order.split(200, 10.0, 0, 0)[1]) == 10


@pytest.mark.parametrize(
    'validation, examples, said',
    [
        (200, 0, 'leaves none'),
        (300, 0, 'leaves none'),
        (0.999, 0, 'leaves none'),
        (-0.1, 0, 'fraction'),
        (1.5, 0, 'fraction'),
        (50, 151, '0 (all) to 150'),
        (0, -1, '0 (all) to 200'),
    ],
)
def test_an_impossible_cut_is_refused(validation, examples, said):
    with pytest.raises(ConfigError) as caught:
        order.split(200, validation, examples, 0)
    assert said in str(caught.value)


@pytest.mark.parametrize('start, stop, n', [(-1, 3, 5), (3, 2, 5), (0, 1, 0)])
def test_positions_that_are_none_are_refused(start, stop, n):
    with pytest.raises(ValueError, match='Expected 0 <= start'):
        order.indices(0, start, stop, n)
