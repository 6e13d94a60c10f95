"""Bits that must not depend on how a run is cut up or read: chunk lengths, streaming, positions beyond 2^32."""

import dataclasses
import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from research.data import Field
from research.layers.example import example_keys
from research.optim.plateau import START
from research.train import feed, parallel, phases, state
from research.train.chunks import train_chunk
from research.train.program import Session

STREAMING = {'data.streaming': True}
# Statistics of the batch, and those of a reference batch with its own pass.
NORMS = {'batch': {}, 'virtual': {'model.norm.name': 'virtual_batch'}}


@pytest.mark.parametrize('norm', NORMS.values(), ids=NORMS)
def test_chunk_length_leaves_no_trace(session, norm):
    built = tiny.build(session, norm)
    state, losses = tiny.steps(built, 20)
    for lengths in ((7, 7, 6), (1,) * 20):
        other_state, other_losses = tiny.steps(built, *lengths)
        np.testing.assert_array_equal(other_losses, losses)
        tiny.assert_same_bits(other_state, state)


def test_streamed_data_give_the_bits_of_resident_data(session):
    """Over an end of an epoch, too: 45 steps of 32 are more than the 1,293 examples of one."""
    streamed = tiny.build(session, STREAMING, {'data.workers': 3})
    resident = tiny.build(session)
    assert len(resident.dataset.splits['train']) < 45 * 32
    (state, losses), (expected_state, expected_losses) = tiny.steps(streamed, 20, 25), tiny.steps(resident, 45)
    np.testing.assert_array_equal(losses, expected_losses)
    tiny.assert_same_bits(state, expected_state)
    (sums, correct), (expected_sums, expected) = (tiny.evaluate(run, state, 'test') for run in (streamed, resident))
    assert sums == expected_sums
    np.testing.assert_array_equal(correct, expected)


def test_streamed_data_come_in_bounded_pieces(session, monkeypatch):
    monkeypatch.setattr(feed, '_STREAM_BYTES', 250 * 8 * 8)  # 250 digits: 7 batches of training, 2 of evaluation
    streamed, resident = tiny.build(Session(), STREAMING), tiny.build(session)
    assert feed.Feed(streamed).capacity(32) == 7
    blocks = feed.Feed(streamed).blocks(streamed.dataset.splits['test'])
    assert [(block.batches, block.first) for _, block in blocks] == [(2, 0), (2, 200)]
    (state, losses), (expected_state, expected_losses) = tiny.steps(streamed, 7, 7, 6), tiny.steps(resident, 20)
    np.testing.assert_array_equal(losses, expected_losses)
    tiny.assert_same_bits(state, expected_state)
    (sums, correct), (expected_sums, expected) = (tiny.evaluate(run, state, 'test') for run in (streamed, resident))
    assert sums['loss'] == pytest.approx(expected_sums['loss'], rel=1e-6)  # added up by block
    np.testing.assert_array_equal(correct, expected)


def test_a_stream_goes_on_anywhere(session):
    """A feed that was asked for other steps meanwhile finds its place again."""
    streamed, resident = tiny.build(session, STREAMING), tiny.build(session)
    reader = feed.Feed(streamed)
    for first in (0, 3, 50, 3):
        where = first, first * 32, 3, 32, START
        chunk, expected = reader.chunk(*where), feed.Feed(resident).chunk(*where)
        for name in ('image', 'label'):
            found, resident_ones = (c.data['examples'][name][c.rows[:3]] for c in (chunk, expected))
            np.testing.assert_array_equal(found, resident_ones)


def test_keys_fold_in_purpose_and_both_halves_of_the_position():
    rng = jax.random.key(7)
    positions = np.array([0, 1, 2**32 - 1, 2**32, 2**32 + 1, 5 * 2**32 + 3], np.uint64)
    halves = np.stack([positions >> np.uint64(32), positions & np.uint64(2**32 - 1)], -1).astype(np.uint32)
    keys = example_keys(rng, 'augment', halves)
    purpose = jax.random.fold_in(rng, 0xEB167A19)  # the CRC-32 of 'augment'
    for key, position in zip(keys, positions.tolist(), strict=True):
        expected = jax.random.fold_in(jax.random.fold_in(purpose, position >> 32), position % 2**32)
        np.testing.assert_array_equal(jax.random.key_data(key), jax.random.key_data(expected))
    drawn = np.concatenate([jax.random.key_data(keys), jax.random.key_data(example_keys(rng, 'dropout', halves))])
    assert len(np.unique(drawn, axis=0)) == 2 * len(positions)


def test_a_key_does_not_depend_on_the_batch():
    rng, halves = jax.random.key(7), np.stack([np.zeros(8), np.arange(8)], -1).astype(np.uint32)
    whole = jax.random.key_data(example_keys(rng, 'augment', halves))
    parts = [jax.random.key_data(example_keys(rng, 'augment', halves[i : i + 1])) for i in range(8)]
    np.testing.assert_array_equal(whole, np.concatenate(parts))


@pytest.mark.parametrize('start', [0, 2**32 - 3, 2**32, 2**33 - 1])
def test_positions_carry_over_2_to_the_32(start):
    """What a step is told of the 8 examples from `start` on."""

    def tell(phase, state, batch, reference, constants, controls):
        seen = {f'{i} {half}': batch['position'][i, half] for i in range(8) for half in range(2)}
        return state, {**seen, 'loss': jnp.zeros(()), 'gradient/norm': jnp.zeros(())}

    data = {'examples': {'label': jnp.zeros(1, jnp.int32)}, 'constants': {}}
    starts = np.array([divmod(start, 2**32)], np.uint32)
    step = types.SimpleNamespace(
        train=tell, reference=lambda *_: (), engine=parallel.Jit(jax.devices()[:1]), fields={'label': Field((), np.int32)}
    )
    before = state.State(jnp.int32(0), jnp.zeros(()), {}, {}, {}, {})
    chunk = state.Chunk(data, {}, np.zeros((1, 8), np.int32), starts, {}, 0, 1)
    _, seen = jax.jit(functools.partial(train_chunk, step, phases.Phase(8, 1, 0, ())))(before, chunk)
    assert [(int(seen[f'{i} 0'][0]) << 32) + int(seen[f'{i} 1'][0]) for i in range(8)] == list(range(start, start + 8))


def test_a_feed_far_into_a_run_says_where_it_is(session):
    built = tiny.build(session)
    first = 2**32 // 32 - 1
    chunk = feed.Feed(built).chunk(first, first * 32, 3, 32, START)
    starts = [(int(high) << 32) + int(low) for high, low in np.asarray(chunk.starts[:3])]
    assert starts == [(first + i) * 32 for i in range(3)]
    assert np.isin(np.asarray(chunk.rows[:3]), built.dataset.splits['train']).all()
    assert chunk.steps == 3 and chunk.first == first


def test_training_reads_its_split_alone(session):
    """All other examples are spoilt, and training does not notice."""
    built = tiny.build(session)
    outside = np.setdiff1d(np.arange(len(built.dataset.arrays['image'])), built.dataset.splits['train'])
    assert len(outside) > 400
    spoilt = {name: jnp.asarray(values) for name, values in built.data['examples'].items()}
    spoilt = {'label': spoilt['label'].at[outside].set(0), 'image': spoilt['image'].at[outside].set(255)}
    state, losses = tiny.steps(built, 45)
    other_state, other_losses = tiny.steps(dataclasses.replace(built, data={**built.data, 'examples': spoilt}), 45)
    np.testing.assert_array_equal(other_losses, losses)
    tiny.assert_same_bits(other_state, state)
