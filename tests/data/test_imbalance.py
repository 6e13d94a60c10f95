"""Which training examples are left out, and nothing else of the data with them."""

import numpy as np
import pytest
import synthetic
from hypothesis import given
from hypothesis import strategies as st

from research import data
from research.catalogue import ConfigError
from research.data import imbalance

LABELS = np.random.default_rng(0).permutation(np.repeat(np.arange(10), 500))
ROWS = np.arange(len(LABELS)) * 2 + 1


def thinned(ratio, name='long_tail', seed=0, labels=LABELS, **more):
    config = {'imbalance': {'name': name, 'ratio': ratio, **more}, 'split_seed': seed}
    return imbalance.thin(ROWS[: len(labels)], labels, config)


def counts(rows):
    return np.bincount(LABELS[rows // 2], minlength=10)


def test_a_long_tail_has_the_counts_of_the_paper():
    """Cui et al. 2019: 500 * mu ** k with mu = 0.01 ** (1 / 9)."""
    np.testing.assert_allclose(np.sort(counts(thinned(100.0)))[::-1], 500 * 0.01 ** (np.arange(10) / 9), atol=0.5)


def test_a_step_has_two_sizes():
    assert sorted(counts(thinned(10.0, 'step', share=0.3)).tolist()) == [50] * 3 + [500] * 7


@given(
    ratios=st.lists(st.floats(1, 1e6), min_size=2, max_size=2),
    name=st.sampled_from(['long_tail', 'step']),
    seed=st.integers(0, 9),
)
def test_a_larger_ratio_keeps_a_part_of_what_a_smaller_one_keeps(ratios, name, seed):
    more, fewer = (thinned(ratio, name, seed) for ratio in sorted(ratios))
    assert np.isin(fewer, more).all() and (np.diff(fewer) > 0).all()
    assert counts(fewer).min() >= 1 and counts(fewer).max() == 500


def test_a_ratio_of_1_keeps_all_and_a_small_class_loses_nothing():
    np.testing.assert_array_equal(thinned(1.0), ROWS)
    labels = np.repeat(np.arange(10), [500] + [3] * 9)
    found = np.searchsorted(ROWS, thinned(10.0, labels=labels))
    assert np.bincount(labels[found]).tolist()[1:] == [3] * 9


def test_the_split_seed_draws_classes_and_examples():
    one, other = thinned(100.0), thinned(100.0, seed=1)
    assert not np.array_equal(counts(one), counts(other))
    largest = [rows[LABELS[rows // 2] == np.argsort(counts(rows))[-2]] for rows in (one, other)]
    assert len(largest[0]) == len(largest[1]) and not np.array_equal(*largest)
    np.testing.assert_array_equal(one, thinned(100.0))


def test_a_class_without_examples_takes_no_rank():
    for name in ('long_tail', 'step'):
        np.testing.assert_array_equal(thinned(100.0, name, labels=LABELS * 3 + 2), thinned(100.0, name))


@pytest.mark.parametrize(('share', 'rare'), [(0.0, 0), (0.04, 0), (0.96, 10), (1.0, 10)])
def test_a_step_with_one_size_is_refused(share, rare):
    with pytest.raises(ConfigError, match=f'has 10 classes: {rare} would be rare, expected some but not all'):
        thinned(10.0, 'step', share=share)


def test_only_the_training_split_is_thinned_and_counts_follow():
    config = {**synthetic.BASE, 'name': 'digits', 'validation': 0.1, 'examples': 1000}
    plain = data.load(config)
    thin = data.load({**config, 'imbalance': {'name': 'step', 'ratio': 10.0}})
    for split in ('validation', 'test'):
        np.testing.assert_array_equal(thin.splits[split], plain.splits[split])
    assert set(thin.splits['train']) < set(plain.splits['train'])
    assert thin.facts['counts'] == tuple(np.bincount(thin.arrays['label'][thin.splits['train']]).tolist())
    assert sum(n <= 12 for n in thin.facts['counts']) == 5


def test_data_without_classes_are_refused():
    with pytest.raises(ConfigError, match='no classes that could be thinned'):
        imbalance.thin(ROWS, None, {'imbalance': {'name': 'step'}, 'split_seed': 0})
