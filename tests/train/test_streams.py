"""Networks of one's own that draw by `make_rng`, as flax.linen.Dropout does."""

import zlib

import flax.linen as nn
import jax
import numpy as np
import optax
import pytest
import tiny

from research.catalogue import ConfigError
from research.train import loop


class Telling(nn.Module):
    """Its logits are what it draws, where there is something to draw from."""

    num_classes: int

    @nn.compact
    def __call__(self, x, train=False):
        logits = nn.Dense(self.num_classes)(x.reshape(len(x), -1))
        if train and self.has_rng('noise'):
            logits = 0 * logits + jax.random.normal(self.make_rng('noise'), logits.shape)
        return logits


class Cell(nn.Module):
    """A layer that `nn.scan` repeats."""

    train: bool

    @nn.compact
    def __call__(self, x, _):
        return nn.Dropout(0.5, deterministic=not self.train)(nn.relu(nn.Dense(8)(x))), None


class Dropping(nn.Module):
    """Dropout within a transformation that hands on the streams that it names."""

    num_classes: int

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Dense(8)(x.reshape(len(x), -1))
        cells = nn.scan(Cell, variable_axes={'params': 0}, split_rngs={'params': True, 'dropout': True}, length=2)
        return nn.Dense(self.num_classes)(cells(train, name='cells')(x, None)[0])


class Always(nn.Module):
    """Dropout that is never switched off."""

    num_classes: int

    @nn.compact
    def __call__(self, x, train=False):
        del train
        return nn.Dense(self.num_classes)(nn.Dropout(0.5, deterministic=False)(x.reshape(len(x), -1)))


def network(of):
    return {'model.name': f'test_streams:{of.__name__}'}


@pytest.mark.parametrize(
    ('changes', 'parts'),
    [
        ({}, 1),
        ({'gradient.micro_batch': 16}, 2),
        ({'train.engine': 'pmap', 'train.devices': 2}, 2),
    ],
    ids=['whole', 'micro-batches', 'pmap'],
)
def test_a_key_is_of_the_seed_the_name_and_the_first_position(session, changes, parts):
    built = tiny.build(session, network(Telling), changes)
    chunk = tiny.chunk(built, 2)
    labels = built.program.engine.host(chunk.data['examples']['label'])[np.asarray(chunk.rows).reshape(-1, 32)[1]]
    losses, size = [], 32 // parts
    for first in range(0, 32, size):
        key = jax.random.key(0)
        for number in (zlib.crc32(b'stream noise'), 0, 32 + first):
            key = jax.random.fold_in(key, number)
        x = np.zeros((size, 8, 8, 1), np.float32)
        logits = Telling(10).apply(Telling(10).init(jax.random.key(0), x), x, train=True, rngs={'noise': key})
        losses.append(optax.softmax_cross_entropy_with_integer_labels(logits, labels[first : first + size]))
    assert tiny.steps(built, 2)[1][1] == pytest.approx(np.mean(losses), rel=1e-5)


def test_neither_chunks_nor_a_stop_leave_a_trace(session, tmp_path):
    built = tiny.build(session, network(Dropping), {'study.budget': '12st', 'train.eval_every': '6st'})
    (state, losses), (other_state, other_losses) = tiny.steps(built, 8), tiny.steps(built, 3, 5)
    np.testing.assert_array_equal(other_losses, losses)
    tiny.assert_same_bits(other_state, state)
    outcome = tiny.train(built, tmp_path / 'whole')
    with pytest.raises(loop.Stopped):
        tiny.train(built, tmp_path / 'stopped', stop_at=5)  # at the evaluation
    assert tiny.train(built, tmp_path / 'stopped').metrics == outcome.metrics
    tiny.assert_same_bits(*(tiny.scored(tmp_path / folder) for folder in ('whole', 'stopped')))


def test_who_draws_in_an_evaluation_is_refused(session):
    program = tiny.build(session, network(Always)).program
    with pytest.raises(ConfigError, match='Network Always draws with `train` False: .*"dropout".*deterministic=not train'):
        program.step.metric_names(program.shapes)
