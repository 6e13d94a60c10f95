"""Recurrent networks and the text CNN, against torch with copied weights, and what padding may not change."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research import models
from research.catalogue import ConfigError

LENGTHS = [7, 1, 4]
TOKENS = np.random.default_rng(0).integers(0, 11, (3, 7))
MASK = np.arange(7) < np.array(LENGTHS)[:, None]
SMALL = {'vocabulary_size': 11, 'dim': 5}
PLAIN = ('text_cnn', 'word_average')
RECURRENT = {'width': 6, 'depth': 2, **SMALL}
HEADED = {
    **dict.fromkeys(('rnn', 'gru', 'lstm'), {**RECURRENT, 'head': 'classification'}),
    'bert_lstm': {'vocabulary_size': 11, 'encoder': {'dim': 8, 'depth': 1, 'width': 12}, 'width': 6, 'head': 'classification'},
    **dict.fromkeys(PLAIN, SMALL),
}


def made(name, **kwargs):
    module = models.create(name, 4, **kwargs)
    variables = jax.jit(module.init)(jax.random.key(0), TOKENS)
    draw = np.random.default_rng(1)
    return module, jax.tree.map(lambda leaf: draw.normal(0, 0.5, leaf.shape).astype(np.float32), variables)


@pytest.mark.parity
@pytest.mark.parametrize('bidirectional', [True, False])
@pytest.mark.parametrize(('name', 'kind'), [('rnn', 'RNN'), ('gru', 'GRU'), ('lstm', 'LSTM')])
def test_outputs_and_gradients_are_torchs(name, kind, bidirectional):
    """Over texts of unequal lengths, packed in torch."""
    import torch
    from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

    module, variables = made(name, bidirectional=bidirectional, **RECURRENT)
    params = variables['params']
    theirs = getattr(torch.nn, kind)(5, 6, 2, batch_first=True, bidirectional=bidirectional)
    with torch.no_grad():
        for layer in range(2):
            for way, suffix in (('forward', ''), ('backward', '_reverse'))[: 1 + bidirectional]:
                ours, end = params[f'{way}{layer + 1}'], f'l{layer}{suffix}'
                new = np.pad(ours.get('new_bias', np.zeros(0, np.float32)), (12, 0) if name == 'gru' else 0)
                bias = new if name == 'gru' else np.zeros_like(ours['input']['bias'])
                values = ours['input']['kernel'].T, ours['recurrent'].T, ours['input']['bias'], bias
                for part, value in zip(('weight_ih', 'weight_hh', 'bias_ih', 'bias_hh'), values, strict=True):
                    getattr(theirs, f'{part}_{end}').copy_(torch.tensor(np.array(value)))
    vectors = torch.tensor(params['token_embedding']['embedding'], requires_grad=True)
    packed = pack_padded_sequence(vectors[torch.tensor(TOKENS)], LENGTHS, batch_first=True, enforce_sorted=False)
    outputs, last = theirs(packed)
    outputs = pad_packed_sequence(outputs, batch_first=True)[0]
    hidden = (last[0] if name == 'lstm' else last)[-(1 + bidirectional) :].transpose(0, 1).reshape(3, -1)
    (torch.sin(outputs).sum() + torch.cos(hidden).sum()).backward()

    def loss(params):
        outputs, last = module.apply({'params': params}, TOKENS, mask=MASK)
        return (jnp.sin(outputs) * MASK[..., None]).sum() + jnp.cos(last).sum(), (outputs, last)

    gradient, (found, last) = jax.jit(jax.grad(loss, has_aux=True))(params)
    np.testing.assert_allclose(found * MASK[..., None], outputs.detach(), atol=1e-5)
    np.testing.assert_allclose(last, hidden.detach(), atol=1e-5)
    np.testing.assert_allclose(gradient['token_embedding']['embedding'], vectors.grad, atol=1e-4)
    np.testing.assert_allclose(gradient['forward1']['recurrent'].T, theirs.weight_hh_l0.grad, atol=1e-4)


@pytest.mark.parity
def test_the_text_cnn_is_torchs():
    import torch

    module, variables = made('text_cnn', widths=(2, 3), filters=8, **SMALL)
    params = variables['params']
    x = torch.tensor(params['token_embedding']['embedding'])[torch.tensor(TOKENS[:1])].transpose(1, 2)
    found = []
    for width in (2, 3):
        kernel, bias = (torch.tensor(np.array(params[f'conv{width}'][part])) for part in ('kernel', 'bias'))
        found.append(torch.relu(torch.nn.functional.conv1d(x, kernel.permute(2, 1, 0), bias)).amax(2))
    expected = torch.cat(found, 1) @ torch.tensor(params['head']['kernel']) + torch.tensor(params['head']['bias'])
    np.testing.assert_allclose(module.apply(variables, TOKENS[:1]), expected, atol=1e-5)


@pytest.mark.parametrize(
    'name', [pytest.param(name, marks=pytest.mark.long if name in ('rnn', 'gru') else ()) for name in HEADED]
)
def test_neither_padding_nor_neighbours_change_a_text(name):
    module, variables = made(name, **HEADED[name])
    apply = jax.jit(module.apply)
    together = apply(variables, TOKENS, mask=MASK)
    other = apply(variables, np.where(MASK, TOKENS, 3), mask=MASK)
    chex.assert_trees_all_close(together, other, atol=1e-6)
    row = 0 if name in PLAIN else 2
    alone = apply(variables, TOKENS[row : row + 1, : LENGTHS[row]])
    np.testing.assert_allclose(together[row], alone[0], rtol=1e-6, atol=1e-6)
    assert np.abs(apply(variables, TOKENS[::-1], mask=MASK) - together).max() > 0.01


def test_an_average_of_vectors():
    module, variables = made('word_average', **SMALL)
    table, head = (variables['params'][name] for name in ('token_embedding', 'head'))
    means = [table['embedding'][row[:length]].mean(0) for row, length in zip(TOKENS, LENGTHS, strict=True)]
    expected = np.stack(means) @ head['kernel'] + head['bias']
    np.testing.assert_allclose(module.apply(variables, TOKENS, mask=MASK), expected, atol=1e-5)


def test_a_direction_sees_what_it_has_read():
    """By a gradient that is exactly zero."""
    module, variables = made('lstm', bidirectional=False, **RECURRENT)

    def at(vectors, place):
        params = variables['params'] | {'token_embedding': {'embedding': vectors}}
        return module.apply({'params': params}, np.arange(7)[None])[0][0, place].sum()

    gradient = jax.grad(at)(variables['params']['token_embedding']['embedding'], 3)
    assert (np.abs(gradient).max(1) > 0).tolist() == [True] * 4 + [False] * 7


def test_heads():
    shapes = {'none': [(3, 7, 12), (3, 12)], 'classification': [(3, 4)], 'tagging': [(3, 7, 4)]}
    for head, expected in shapes.items():
        module = models.create('gru', 4, head=head, **RECURRENT)
        outputs, _ = jax.eval_shape(module.init_with_output, jax.random.key(0), TOKENS)
        assert [leaf.shape for leaf in jax.tree.leaves(outputs)] == expected
    for bad, message in (({'head': 'taging'}, "Did you mean 'tagging'"), ({'cell': 'ltsm'}, "Did you mean 'lstm'")):
        with pytest.raises(ConfigError, match=message):
            jax.eval_shape(models.create('lstm', 4, **bad).init, jax.random.key(0), TOKENS)
    with pytest.raises(ConfigError, match='reads tokens'):
        jax.eval_shape(models.create('text_cnn', 4).init, jax.random.key(0), jnp.zeros((2, 8, 8, 1)))
