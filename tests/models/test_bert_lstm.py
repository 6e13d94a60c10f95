"""The recurrent network over a BERT: what its parts give one after the other, and a BERT that no gradient reaches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research import models
from research.catalogue import ConfigError

ENCODER = {'dim': 8, 'depth': 2, 'heads': 2, 'width': 12, 'max_length': 9}
OVER = {'width': 6, 'depth': 2}
TOKENS = np.random.default_rng(0).integers(0, 11, (3, 7))
SEGMENTS = (np.arange(7)[None] > 2).astype(int).repeat(3, 0)
MASK = np.arange(7) < np.array([7, 1, 4])[:, None]


def made(**kwargs):
    module = models.create('bert_lstm', 4, vocabulary_size=11, encoder=ENCODER, **OVER, **kwargs)
    variables, draw = jax.jit(module.init)(jax.random.key(0), TOKENS), np.random.default_rng(1)
    return module, jax.tree.map(lambda leaf: draw.normal(0, 0.5, leaf.shape).astype(np.float32), variables['params'])


@pytest.mark.parametrize(('head', 'cell'), [('none', 'lstm'), ('classification', 'gru'), ('tagging', 'lstm')])
def test_it_is_a_recurrent_network_of_berts_vectors(head, cell):
    """Each token of each text is a word of its own there, whose vector is BERT's."""
    module, params = made(head=head, cell=cell)
    encoder = models.create('bert', vocabulary_size=11, **ENCODER)
    vectors, _ = jax.jit(encoder.apply)({'params': params['encoder']}, TOKENS, SEGMENTS, MASK)
    table = {'token_embedding': {'embedding': vectors.reshape(-1, 8)}}
    others = {name: tree for name, tree in params.items() if name != 'encoder'}
    over = models.create(cell, 4, vocabulary_size=21, dim=8, head=head, **OVER)
    expected = jax.jit(over.apply)({'params': table | others}, np.arange(21).reshape(3, 7), mask=MASK)
    found = jax.jit(module.apply)({'params': params}, TOKENS, SEGMENTS, MASK)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-6), found, expected)


def test_no_gradient_reaches_the_encoder():
    module, params = made(head='classification')

    def loss(params):
        return jnp.sin(module.apply({'params': params}, TOKENS, SEGMENTS, MASK)).sum()

    gradient = jax.jit(jax.grad(loss))(params)
    assert all(not leaf.any() for leaf in jax.tree.leaves(gradient.pop('encoder')))
    assert all(leaf.any() for leaf in jax.tree.leaves(gradient))


def test_the_encoder_has_no_dropout():
    """What is drawn in training is the recurrent network's."""
    shapes = jax.eval_shape(made(dropout=0.2, head='tagging')[0].init, jax.random.key(0), TOKENS)
    assert set(shapes['example']) == {'dropout1', 'dropout2', 'head_dropout'}


@pytest.mark.parametrize(
    ('kwargs', 'tokens', 'message'),
    [
        ({'encoder': {'dept': 3}}, TOKENS, "model.encoder 'bert' takes no argument 'dept'. Did you mean 'depth'?"),
        ({'encoder': {'dropout': 0.1}}, TOKENS, "takes no argument 'dropout'"),
        ({'encoder': {'max_length': 6}}, TOKENS, '7 tokens, and there are learned positions for 6'),
        ({'head': 'taging'}, TOKENS, "Did you mean 'tagging'"),
        ({}, np.zeros((2, 8, 8, 3), np.float32), r'int \[B, T\], got float32 \[2, 8, 8, 3\]'),
    ],
)
def test_refuses_what_does_not_fit(kwargs, tokens, message):
    with pytest.raises(ConfigError, match=message):
        jax.eval_shape(models.create('bert_lstm', **kwargs).init, jax.random.key(0), tokens)
