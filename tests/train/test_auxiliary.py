"""Auxiliary heads: their losses enter what is trained on, and neither what is reported nor an evaluation."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from research.train.clock import Clock


class TwoHeads(nn.Module):
    """A linear network with a second head."""

    num_classes: int
    auxiliary_weight: float = 0.3

    @nn.compact
    def __call__(self, x, train=False):
        x = x.reshape(len(x), -1)
        if train or self.is_initializing():
            logits = nn.Dense(self.num_classes, name='second')(x)
            if not self.is_initializing():
                self.sow('auxiliary', 'aux', logits, init_fn=lambda: None, reduce_fn=lambda _, new: new)
        return nn.Dense(self.num_classes, name='head')(x)


def trained(session, **changes):
    """(state, losses) after one step."""
    return tiny.steps(tiny.build(session, {'model.name': f'{__name__}:TwoHeads', **changes}), 1)


@pytest.fixture(scope='module')
def moves(session):
    """What one step does to the parameters, by the weight of the second head."""
    start = tiny.build(session, {'model.name': f'{__name__}:TwoHeads'})
    first = jax.tree.map(np.asarray, start.init(Clock()).params)

    def move(weight, **change):
        state, _ = trained(session, **{'model.auxiliary_weight': weight, **change})
        return jax.tree.map(np.subtract, state.params, first)

    return move, {weight: move(weight) for weight in (0.0, 0.3, 0.6)}


def test_both_heads_learn_in_proportion_to_their_weights(moves):
    _, by_weight = moves
    for weight in (0.3, 0.6):
        np.testing.assert_allclose(by_weight[weight]['head']['kernel'], by_weight[0.0]['head']['kernel'], rtol=0, atol=1e-7)
    assert np.abs(by_weight[0.0]['second']['kernel']).max() == 0
    twice, once = (by_weight[weight]['second']['kernel'] for weight in (0.6, 0.3))
    scale = np.abs(twice).max()
    assert scale > 0
    np.testing.assert_allclose(twice, 2 * once, rtol=0, atol=1e-4 * scale)


@pytest.mark.long
@pytest.mark.parametrize('change', [{'gradient.micro_batch': 8}, {'train.engine': 'pmap', 'train.devices': 2}], ids=str)
def test_they_learn_the_same_however_a_batch_is_shared(moves, change):
    move, by_weight = moves
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-6), move(0.6, **change), by_weight[0.6])


def test_what_is_reported_is_the_loss_of_the_outputs(session):
    without, with_it = (trained(session, **{'model.auxiliary_weight': weight})[1] for weight in (0.0, 0.6))
    np.testing.assert_allclose(without, with_it, rtol=1e-6)


def test_of_googlenet_they_are_auxiliary_logits(session):
    del session
    from research import models

    module = models.create('googlenet', 7, width=0.125, dropout=0.0, auxiliary_dropout=0.0)
    x = jnp.zeros((2, 32, 32, 1))
    variables = jax.eval_shape(module.init, jax.random.key(0), x)
    _, new = jax.eval_shape(lambda v: module.apply(v, x, train=True, mutable=['batch_stats', 'auxiliary']), variables)
    assert {name: a.shape for name, a in new['auxiliary'].items()} == {'aux1': (2, 7), 'aux2': (2, 7)}
