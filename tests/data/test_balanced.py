"""Balanced samplers: exact parts of an epoch, no example twice before its whole class, whoever asks for which part."""

import dataclasses
import pickle
import time

import numpy as np
import pytest
import synthetic
from hypothesis import given
from hypothesis import strategies as st

from research import data
from research.catalogue import ConfigError
from research.data import balanced, order, sampling

SIZES = st.lists(st.integers(1, 40), min_size=1, max_size=6)
POWERS = st.sampled_from([0.0, 0.5, 1.0])
SEEDS = st.integers(0, 2**40)


def sampler(sizes, power):
    """Class k of the rows 1000 * k + i."""
    return balanced.Balanced(
        tuple(1000 * k + np.arange(size) for k, size in enumerate(sizes)),
        tuple(balanced.quotas(np.array(sizes), power).tolist()),
    )


@given(sizes=SIZES, power=st.floats(0, 1))
def test_quotas_are_whole_parts_of_an_epoch(sizes, power):
    counts = np.array(sizes)
    found = balanced.quotas(counts, power)
    assert found.sum() == counts.sum() and found.min() >= 1
    assert (np.abs(found - counts.sum() * counts**power / (counts**power).sum()) < 1).all()
    if power == 0:
        assert found.max() - found.min() <= 1


@given(sizes=SIZES, power=POWERS, seed=SEEDS, first=st.integers(0, 5))
def test_every_epoch_has_its_quotas_and_no_example_comes_twice_before_all_of_its_class(sizes, power, seed, first):
    drawn, n = sampler(sizes, power), sum(sizes)
    rows = drawn(seed, 0, (first + 3) * n)
    epochs = rows.reshape(-1, n) // 1000
    assert all(np.bincount(epoch, minlength=len(sizes)).tolist() == list(drawn.quotas) for epoch in epochs)
    for k, size in enumerate(sizes):
        own = rows[rows // 1000 == k] - 1000 * k
        # Inside an epoch places are shuffled, so rounds are whole where an epoch ends with one.
        seen = np.bincount(own, minlength=size)
        assert seen.max() - seen.min() <= 1
        for epoch in range(1, first + 3):
            seen = np.bincount(own[: epoch * drawn.quotas[k]], minlength=size)
            assert seen.max() - seen.min() <= 1


@given(sizes=SIZES, power=POWERS, seed=SEEDS, cuts=st.lists(st.integers(0, 400), min_size=2, max_size=6))
def test_any_part_is_that_of_the_whole_also_in_another_process(sizes, power, seed, cuts):
    drawn = pickle.loads(pickle.dumps(sampler(sizes, power)))
    whole = sampler(sizes, power)(seed, 0, 400)
    ends = sorted(cuts)
    parts = [drawn(seed, start, stop) for start, stop in zip(ends, ends[1:], strict=False)]
    np.testing.assert_array_equal(np.concatenate(parts), whole[ends[0] : ends[-1]])
    assert whole.dtype == np.int64


@given(seed=SEEDS, start=st.integers(0, 300), steps=st.integers(0, 5), size=st.integers(1, 9))
def test_hosts_side_by_side_are_one_host(seed, start, steps, size):
    drawn = sampler([30, 7, 1], 0.0)
    whole = sampling.batches(drawn, seed, start, steps, size * 2)
    parts = [sampling.batches(drawn, seed, start, steps, size * 2, host, 2) for host in range(2)]
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), whole)


@given(seed=SEEDS, n=st.integers(1, 50), start=st.integers(0, 10**6), more=st.integers(0, 200), stream=st.integers(0, 9))
def test_rounds_are_whole_and_streams_differ(seed, n, start, more, stream):
    found = order.rounds(seed, start, start + more, n, stream)
    before = start // n * n
    whole = order.rounds(seed, before, before + 12 * n, n, stream)
    np.testing.assert_array_equal(found[: before + 12 * n - start], whole[start - before :][:more])
    assert (np.sort(whole.reshape(12, n), axis=1) == np.arange(n)).all()
    if n > 20:
        assert not np.array_equal(whole, order.rounds(seed, before, before + 12 * n, n, stream + 1))
        assert len({row.tobytes() for row in whole.reshape(12, n)}) == 12


def test_the_samplers_by_name():
    dataset = data.load({**synthetic.BASE, 'name': 'digits', 'imbalance': {'name': 'long_tail', 'ratio': 20.0}})
    labels, n = dataset.arrays['label'][:], len(dataset.splits['train'])
    for name, power in (('class_balanced', 0.0), ('square_root', 0.5)):
        drawn = sampling.create({'sampling': {'name': name}, 'repeats': 1}, dataset, 8)
        rows = drawn(3, 0, n)
        assert np.isin(rows, dataset.splits['train']).all()
        expected = balanced.quotas(np.array(dataset.facts['counts']), power)
        np.testing.assert_array_equal(np.bincount(labels[rows]), expected)
    with pytest.raises(ConfigError, match="by the field 'group'.*has the fields image, label"):
        sampling.create({'sampling': {'name': 'group_balanced'}, 'repeats': 1}, dataset, 8)


def test_several_rows_a_position_are_refused_as_such():
    dataset = data.load({**synthetic.BASE, 'name': 'digits'})
    pairs = dataclasses.replace(dataset, splits={'train': dataset.splits['train'][:100].reshape(50, 2)})
    with pytest.raises(ConfigError, match=r"field 'label' of one row a position, and data 'digits' has 2 rows at each\."):
        balanced.class_balanced(pairs, 8)


def test_a_sampler_takes_well_below_a_microsecond_an_example():
    drawn = sampler((5000 * 0.01 ** (np.arange(10) / 9)).astype(int).tolist(), 0.0)
    seconds = []
    for seed in range(3):
        start = time.perf_counter()
        drawn(seed, 0, 50_000)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 50_000 * 1e-6
