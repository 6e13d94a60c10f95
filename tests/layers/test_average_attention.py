"""Average attention: the paper's formulas token by token, what a token sees, and a sum in place of the tokens before."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.layers import average_attention
from research.layers.attention import causal_mask, padding_mask, segment_mask
from research.models.blocks import Block
from research.models.network import Kit

REAL = np.array([[1, 1, 1, 0, 1, 1, 1], [0, 1, 1, 1, 1, 1, 0]], bool)
PAIRS = np.array([[1, 1, 1, 1, 2, 2, 2], [3, 3, 3, 3, 3, 4, 4]])
MASK = causal_mask(7, 7) & padding_mask(REAL) & segment_mask(PAIRS, PAIRS)


def drawn(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def looked_at(b, t):
    """The tokens whose mean token t of text b takes."""
    return [s for s in range(t + 1) if REAL[b, s] and PAIRS[b, s] == PAIRS[b, t]]


def test_a_block_is_what_the_paper_writes_token_by_token():
    """Equations 1 and 2 without the feed-forward layer, then the block's MLP. A norm layer of no norm is a shift."""
    block, x = Block(Kit('none', 'relu', False), heads=2, width=5, attention='average'), drawn(2, 7, 4)
    shapes = jax.eval_shape(block.init, jax.random.key(0), x, mask=MASK)['params']
    rng = np.random.default_rng(1)
    params = jax.tree.map(lambda s: rng.normal(size=s.shape).astype(np.float32), shapes)
    found, _ = jax.jit(block.apply)({'params': params}, x, mask=MASK)

    def dense(name, x):
        return x @ params[name]['kernel'] + params[name]['bias']

    inputs = x + params['attention_norm']['bias']
    for b, t in np.ndindex(2, 7):
        own, seen = inputs[b, t], looked_at(b, t)
        others = sum((inputs[b, s] for s in seen), np.zeros(4, np.float32)) / max(len(seen), 1)
        first, second = np.split(1 / (1 + np.exp(-dense('gates', np.concatenate([own, others])))), 2)
        y = x[b, t] + first * own + second * others
        y += dense('mlp_out', np.maximum(dense('mlp_in', y + params['mlp_norm']['bias']), 0))
        np.testing.assert_allclose(found[b, t], y, rtol=0, atol=1e-5)


def test_gradients_are_equal_among_what_a_token_sees_and_exactly_0_elsewhere():
    found = jax.jit(jax.jacobian(lambda x: average_attention.mean(x, MASK)[..., 0]))(drawn(2, 7, 3))[..., 0]
    expected = np.zeros((2, 7, 2, 7), np.float32)
    for b, t in np.ndindex(2, 7):
        expected[b, t, b, looked_at(b, t)] = 1 / max(len(looked_at(b, t)), 1)
    assert not expected[1, 0].any()
    np.testing.assert_array_equal(found != 0, expected != 0)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize('chunk', [1, 3])
def test_a_sum_gives_what_all_tokens_give_and_never_grows(chunk):
    x = drawn(2, 6, 4)
    expected, kept = average_attention.mean(x, causal_mask(6, 6)), average_attention.Sum.of(x[:, :0]).widened(6)
    for at in range(0, 6, chunk):
        new = x[:, at : at + chunk]
        found = average_attention.mean(new, kept.causal(chunk), kept)
        np.testing.assert_allclose(found, expected[:, at : at + chunk], rtol=0, atol=1e-6)
        kept = kept.extended(new)
    assert kept.total.shape == (2, 4) and kept.length == 6


def test_a_mean_in_16_bits_is_rounded_once():
    x = jnp.asarray(1 + np.abs(drawn(1, 600, 8)), jnp.bfloat16)
    expected = np.cumsum(np.asarray(x, np.float64), 1) / np.arange(1, 601)[None, :, None]

    def step(kept, token):
        return kept.extended(token), average_attention.mean(token, kept.causal(1), kept)

    _, steps = jax.lax.scan(step, average_attention.Sum.of(x[:, :0]), x.reshape(600, 1, 1, 8))
    for found in (average_attention.mean(x, causal_mask(600, 600)), steps.reshape(1, 600, 8)):
        assert found.dtype == jnp.bfloat16
        np.testing.assert_allclose(np.asarray(found, np.float64), expected, rtol=2**-8 * 1.01)
