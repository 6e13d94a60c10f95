"""What a run that went wrong says of it: the step, the layer, the norms before, and the state as it was."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from research.train import loop

BREAKS = {'model.name': 'test_divergence:Breaks', 'model.limit': 0.02}
LATER = {'optimizer.learning_rate': 0.0625, 'study.budget': '40st', 'train.checkpoint_every': '5st'}


class Breaks(nn.Module):
    """A network of which one layer gives infinity once its weights have moved far enough: forward, or backward alone."""

    num_classes: int
    way: str = 'forward'
    limit: float = 1.0

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.relu(nn.Dense(8, name='first')(x.reshape(len(x), -1)))
        x = Fragile(self.way, self.limit, name='fragile')(x)
        return nn.Dense(self.num_classes, name='head')(x)


class Fragile(nn.Module):
    way: str
    limit: float

    @nn.compact
    def __call__(self, x):
        moved = self.param('moved', nn.initializers.zeros, (1,))
        far = jnp.sum(jnp.abs(moved)) > self.limit
        if self.way == 'forward':
            x = jnp.where(far, jnp.inf, 1.0) * x
        else:  # the square root of 0 has an infinite slope
            x = x + jnp.sqrt(jnp.where(far, 0.0, 1.0) * jnp.abs(moved) + jnp.where(far, 0.0, 1.0))[None]
        return x + moved[None]


@pytest.mark.parametrize(
    ('way', 'layer'),
    [
        ('forward', "output of 'fragile'"),
        pytest.param('backward', "gradient of 'fragile/moved'", marks=pytest.mark.long),
    ],
)
def test_the_layer_where_it_first_appeared(session, tmp_path, way, layer):
    # The step that is done again takes its batch at once, of a size that no step of the run had.
    built = tiny.build(session, BREAKS, {'model.way': way, 'gradient.micro_batch': 16}, LATER)
    outcome = tiny.train(built, tmp_path)
    found = outcome.diverged
    assert outcome.status == 'diverged' and outcome.metrics == {} and outcome.correct is None
    assert found['layer'] == layer
    assert found['step'] > 0
    assert len(found['gradient_norms']) == min(found['step'] + 1, 10)
    assert all(np.isfinite(found['gradient_norms'][:-1]))
    assert layer in outcome.message and f'at step {found["step"]}' in outcome.message
    if found['step'] >= 1:
        assert found['checkpoint_step'] == (found['step'] // 5 * 5 or 1)
        assert f'last good checkpoint at step {found["checkpoint_step"]}' in outcome.message


@pytest.mark.long
@pytest.mark.parametrize(
    'changes',
    [{}, {'model.norm.name': 'virtual_batch'}],
    ids=['batch', 'virtual_batch'],
)
def test_the_layer_is_found_under_pmap(session, tmp_path, changes):
    pmap = {'train.engine': 'pmap', 'train.devices': 2, 'optimizer.learning_rate': 1e30, 'data.examples': 1280}
    outcome = tiny.train(tiny.build(session, changes, pmap), tmp_path)
    assert outcome.status == 'diverged'
    assert outcome.diverged['layer'].startswith(('output of', 'gradient of'))


def test_the_state_stays_what_it_was_before_the_step(session):
    """Over the rest of the chunk, and over chunks that were sent before anybody knew."""
    built = tiny.build(session, {'optimizer.learning_rate': 1e30})
    state, losses = tiny.steps(built, 10)
    step = int(state.step)
    assert 0 < step < 10
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.params))
    expected, _ = tiny.steps(built, step)
    tiny.assert_same_bits(state, expected)
    again, _ = tiny.steps(built, 4, 6)
    tiny.assert_same_bits(again, expected)


def test_a_run_that_never_learns_says_so(session, tmp_path):
    stalled = tiny.train(tiny.build(session, {'optimizer.learning_rate': 0.0}), tmp_path / 'stalled')
    assert stalled.status == 'finished'
    assert stalled.message.startswith('stalled: the training loss was ')
    assert tiny.train(tiny.build(session), tmp_path / 'learns').message is None


def test_norms_of_the_last_gradients_survive_a_stop(session, tmp_path, monkeypatch):
    changes = BREAKS, LATER, {'optimizer.learning_rate': 0.03125}
    whole = tiny.train(tiny.build(session, *changes), tmp_path / 'whole').diverged
    monkeypatch.setattr(loop, '_CHUNK_SECONDS', 0.0)
    with pytest.raises(loop.Stopped):
        tiny.train(tiny.build(session, *changes), tmp_path / 'stopped', stop_at=whole['step'] - 3)
    resumed = tiny.train(tiny.build(session, *changes), tmp_path / 'stopped').diverged
    assert resumed['gradient_norms'][:-1] == whole['gradient_norms'][:-1]
    assert (resumed['step'], resumed['layer']) == (whole['step'], whole['layer'])
