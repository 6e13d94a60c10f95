"""Samplers: rows by position alone, whoever asks for which part."""

import pickle

import numpy as np
import pytest
import synthetic
from hypothesis import given
from hypothesis import strategies as st

from research import data
from research.catalogue import ConfigError
from research.data import order, repeated, sampling

SHUFFLED = {'sampling': {'name': 'shuffled'}, 'repeats': 1}
SEEDS = st.integers(0, 2**40)
ROWS = st.sampled_from([np.arange(97) * 3 + 1, np.arange(194).reshape(97, 2) - 1])


def test_a_run_reads_its_training_split_in_the_order_also_in_another_process():
    dataset = data.load({**synthetic.BASE, 'name': 'synthetic:load', 'validation': 6})
    sampler = pickle.loads(pickle.dumps(sampling.create(SHUFFLED, dataset, 8)))
    train = dataset.splits['train']
    rows = sampler(7, 40, 140)
    np.testing.assert_array_equal(rows, train[order.indices(7, 40, 140, len(train))])
    assert rows.dtype == np.int64


@given(rows=ROWS, seed=SEEDS, start=st.integers(0, 500), steps=st.integers(0, 9), size=st.integers(1, 9), data=st.data())
def test_hosts_side_by_side_are_one_host(rows, seed, start, steps, size, data):
    hosts = data.draw(st.sampled_from([1, 2, 4]))
    sampler = sampling.Shuffled(rows)
    whole = sampling.batches(sampler, seed, start, steps, size * hosts)
    parts = [sampling.batches(sampler, seed, start, steps, size * hosts, host, hosts) for host in range(hosts)]
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), whole)
    assert whole.shape == (steps, size * hosts, *rows.shape[1:])
    expected = rows[order.indices(seed, start, start + steps * size * hosts, 97)]
    np.testing.assert_array_equal(whole.reshape(expected.shape), expected)


@given(seed=SEEDS, sizes=st.lists(st.integers(1, 60), min_size=1, max_size=8))
def test_a_batch_size_changed_inside_an_epoch_leaves_the_order(seed, sizes):
    sampler, ends = sampling.Shuffled(np.arange(101)), np.cumsum(sizes)
    parts = [sampling.batches(sampler, seed, end - size, 1, size)[0] for end, size in zip(ends.tolist(), sizes, strict=True)]
    np.testing.assert_array_equal(np.concatenate(parts), order.indices(seed, 0, int(ends[-1]), 101))


def test_a_batch_that_hosts_cannot_share_is_refused():
    with pytest.raises(ConfigError, match='batch_size=10'):
        sampling.batches(sampling.Shuffled(np.arange(97)), 0, 0, 1, 10, host=0, hosts=4)


@given(distinct=st.integers(2, 12), repeats=st.integers(2, 5), seed=SEEDS, epochs=st.integers(1, 3))
def test_copies_share_a_batch_and_are_no_neighbours(distinct, repeats, seed, epochs):
    sampler = repeated.create(sampling.Shuffled(np.arange(101)), repeats, distinct * repeats)
    whole = sampler(seed, 0, distinct * repeats * 20 * epochs)
    batches = whole.reshape(-1, repeats, distinct)
    assert (batches == batches[:, :1]).all()
    np.testing.assert_array_equal(batches[:, 0].ravel(), order.indices(seed, 0, distinct * 20 * epochs, 101))
    np.testing.assert_array_equal(np.concatenate([sampler(seed, p, p + 1) for p in range(30)]), whole[:30])
    np.testing.assert_array_equal(sampler(seed, 7, 31), whole[7:31])
    assert not len(sampler(seed, 5, 5))


@pytest.mark.parametrize(('repeats', 'batch'), [(3, 64), (64, 64), (100, 64)])
def test_a_batch_that_holds_no_several_examples_as_often_is_refused(repeats, batch):
    with pytest.raises(ConfigError, match=f"'data.repeats' is {repeats}, and a batch has {batch} examples"):
        repeated.create(sampling.Shuffled(np.arange(101)), repeats, batch)
