"""Positions: counts of real tokens, sines of the paper's, features that turn as Llama's, slopes of Bloom's."""

import math

import jax.numpy as jnp
import numpy as np
import pytest
import references

from research.catalogue import ConfigError
from research.layers.positions import alibi, counted, rotary, sinusoidal


def drawn(seed, batch=2, length=5, features=6):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(batch, length, 4, features)).astype(np.float32) for _ in range(2)]


def test_real_tokens_are_counted_anew_in_each_text():
    mask = np.array([[0, 0, 1, 1, 1, 1, 0, 1], [1, 1, 0, 1, 1, 0, 1, 1]], bool)
    packed = np.array([[1, 1, 1, 1, 2, 2, 2, 2], [7, 7, 7, 7, 7, 3, 3, 7]])
    np.testing.assert_array_equal(counted(4), [[0, 1, 2, 3]])
    np.testing.assert_array_equal(counted(8, packed=packed), [[0, 1, 2, 3, 0, 1, 2, 3], [0, 1, 2, 3, 4, 0, 1, 0]])
    for given in (None, packed):
        texts = np.zeros_like(packed) if given is None else np.cumsum(np.diff(given, axis=1, prepend=given[:, :1]) != 0, 1)
        for row, text, real in zip(np.asarray(counted(8, mask, given)), texts, mask, strict=True):
            for t in range(8):
                assert row[t] == sum(real[s] for s in range(t) if text[s] == text[t])


@pytest.mark.parametrize('features', [6, 7])
def test_waves_are_those_of_the_paper(features):
    """Section 3.5 of Vaswani et al. 2017, feature by feature."""
    positions = np.array([[0, 1, 50], [7, 7, 2000]])
    found = sinusoidal(positions, features)
    assert found.shape == (2, 3, features)
    for b, t, feature in np.ndindex(found.shape):
        angle = positions[b, t] / 10000 ** (feature // 2 * 2 / features)
        assert found[b, t, feature] == pytest.approx((math.cos if feature % 2 else math.sin)(angle), abs=3e-4)


def test_scores_of_rotated_features_depend_on_the_distance_alone():
    query, key = drawn(0, batch=1)
    near, far = (
        jnp.einsum('btnh,bsnh->bnts', rotary(query, at), rotary(key, at)) for at in (np.arange(5)[None] + n for n in (0, 90))
    )
    np.testing.assert_allclose(far, near, rtol=0, atol=2e-5)
    assert np.abs(near - np.einsum('btnh,bsnh->bnts', query, key)).max() > 0.1
    with pytest.raises(ConfigError, match='a head has 5'):
        rotary(query[..., :5], np.arange(5)[None])


@pytest.mark.parametrize('heads', [1, 4, 6])
def test_alibi_falls_linearly_with_the_distance(heads):
    at = np.array([[0, 1, 2, 7]])
    bias = np.asarray(alibi(heads, at, at))
    slopes = {1: [2**-8], 4: [0.25, 2**-4, 2**-6, 2**-8], 6: [0.25, 2**-4, 2**-6, 2**-8, 0.5, 2**-3]}[heads]
    np.testing.assert_array_equal(bias[0, :, 3, 0], -7 * np.array(slopes))
    np.testing.assert_array_equal(bias, bias.swapaxes(2, 3))


@pytest.mark.parity
def test_rotary_positions_are_llamas():
    pytest.importorskip('transformers')
    references.libraries()
    import torch
    from transformers.models.llama import modeling_llama

    config = modeling_llama.LlamaConfig(hidden_size=32, num_attention_heads=4)
    query, key = drawn(1, length=7, features=8)
    positions = np.array([[0, 1, 2, 3, 4, 5, 6], [900, 3, 0, 7, 7, 1, 2]])
    cos, sin = modeling_llama.LlamaRotaryEmbedding(config)(torch.tensor(query), torch.tensor(positions))
    for found, expected in zip(
        (rotary(query, positions), rotary(key, positions)),
        modeling_llama.apply_rotary_pos_emb(torch.tensor(query), torch.tensor(key), cos, sin, unsqueeze_dim=2),
        strict=True,
    ):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


@pytest.mark.parity
def test_slopes_are_blooms():
    pytest.importorskip('transformers')
    references.libraries()
    import torch
    from transformers.models.bloom import modeling_bloom

    for heads in (4, 6, 12):
        theirs = modeling_bloom.build_alibi_tensor(torch.ones(1, 5), heads, torch.float32).reshape(heads, 5)
        found = alibi(heads, np.array([[4]]), np.arange(5)[None])[0, :, 0]
        np.testing.assert_allclose(found, theirs - 4 * theirs[:, 1:2], rtol=0, atol=1e-6)
