"""Attention: its definition in NumPy, PyTorch's, and what a query must not see."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from research import cost
from research.catalogue import ConfigError
from research.layers import formulation
from research.layers.attention import Cache, attention, causal_mask, padding_mask, segment_mask
from research.layers.dropout import Dropout
from research.layers.positions import alibi

apply = jax.jit(attention)


def drawn(seed, batch=2, queries=5, keys=5, heads=4, shared=4, features=6):
    rng = np.random.default_rng(seed)
    shapes = (batch, queries, heads, features), (batch, keys, shared, features), (batch, keys, shared, features)
    return [rng.normal(size=shape).astype(np.float32) for shape in shapes]


def defined(query, key, value, mask=True, bias=0.0):
    """Query by query, head by head, over the keys that are seen."""
    batch, length, heads, features = query.shape
    mask, bias = (np.broadcast_to(a, (batch, heads, length, key.shape[1])) for a in (mask, bias))
    result = np.zeros((batch, length, heads, features))
    for b, t, n in np.ndindex(batch, length, heads):
        seen, head = mask[b, n, t], n * key.shape[2] // heads
        if seen.any():
            weights = np.exp((key[b, seen, head] @ query[b, t, n]) / np.sqrt(features) + bias[b, n, t, seen])
            result[b, t, n] = weights / weights.sum() @ value[b, seen, head]
    return result.reshape(batch, length, -1)


@settings(max_examples=6)
@given(
    batch=st.integers(1, 3),
    queries=st.integers(1, 6),
    keys=st.integers(1, 6),
    shared=st.integers(1, 3),
    groups=st.integers(1, 3),
    masked=st.booleans(),
    seed=st.integers(0, 99),
)
def test_it_is_the_mean_of_values_by_the_softmax_of_scores(batch, queries, keys, shared, groups, masked, seed):
    arrays, rng = drawn(seed, batch, queries, keys, shared * groups, shared), np.random.default_rng(seed)
    mask = rng.random((batch, 1, queries, keys)) < 0.6 if masked else None  # some queries see nothing
    bias = rng.normal(size=(1, shared * groups, queries, keys)).astype(np.float32)
    expected = defined(*arrays, True if mask is None else mask, bias)
    np.testing.assert_allclose(attention(*arrays, mask, bias), expected, rtol=0, atol=2e-6)


def test_a_query_that_sees_nothing_gives_0_and_has_no_gradient():
    mask = causal_mask(5, 5, start=-1)  # the first query sees no key
    result, gradients = jax.value_and_grad(lambda arrays: apply(*arrays, mask)[:, 0].sum())(drawn(0))
    assert result == 0 and not any(np.any(g) for g in gradients)  # NaN counts as any


@pytest.mark.parametrize('t', [0, 3])
def test_causal_attention_has_a_gradient_of_exactly_0_at_the_future(t):
    gradients = jax.grad(lambda arrays: apply(*arrays, causal_mask(5, 5))[:, t].sum())(drawn(0))
    assert not any(g[:, t + 1 :].any() for g in gradients) and jnp.abs(gradients[2][:, : t + 1]).min() > 0


def test_neither_padding_nor_neighbours_change_a_query():
    query, key, value = drawn(0)
    valid = np.array([[True, True, True, False, False], [True] * 5])
    whole = apply(query, key, value, padding_mask(valid))
    for other in (100.0, np.finfo(np.float32).max / 1e3):
        changed = [np.where(valid[:, :, None, None], a, np.float32(other)) for a in (key, value)]
        np.testing.assert_array_equal(apply(query, *changed, padding_mask(valid)), whole)
    alone = apply(query[:1], key[:1, :3], value[:1, :3])
    np.testing.assert_allclose(whole[:1], alone, rtol=0, atol=1e-6)


def test_texts_in_one_row_do_not_see_each_other():
    query, key, value = drawn(0, batch=1)
    segments = np.array([[1, 1, 2, 2, 2]])
    whole = apply(query, key, value, segment_mask(segments, segments))
    for part in (slice(0, 2), slice(2, 5)):
        alone = apply(*(a[:, part] for a in (query, key, value)))
        np.testing.assert_allclose(whole[:, part], alone, rtol=0, atol=1e-6)


def test_grouped_heads_are_repeated_heads_with_their_gradients_summed():
    query, key, value = drawn(0, heads=6, shared=2)

    def result(key, value, repeats):
        return jnp.sin(apply(query, *(jnp.repeat(a, repeats, axis=2) for a in (key, value)), causal_mask(5, 5))).sum()

    grouped, repeated = (jax.value_and_grad(result, (0, 1))(key, value, repeats) for repeats in (1, 3))
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=0, atol=1e-5), grouped, repeated)


def test_heads_that_do_not_divide_are_refused():
    with pytest.raises(ConfigError, match='4 heads cannot share 3 heads'):
        jax.eval_shape(attention, *drawn(0, shared=3))


@pytest.mark.parametrize('chunk', [1, 2])
def test_a_cached_step_gives_what_the_whole_pass_gives(chunk):
    query, key, value = drawn(0, queries=6, keys=6, shared=2)
    expected = apply(query, key, value, causal_mask(6, 6))

    @jax.jit
    def step(cache, query, key, value):
        mask = cache.causal(query.shape[1])
        cache = cache.extended(key, value)
        return cache, attention(query, *cache.pair, mask)

    room = jnp.full((2, 2, 3, 6), 1e9)  # what is not filled is not seen
    cache = Cache(room, room, jnp.int32(0)).widened(5)
    for at in range(0, 6, chunk):
        cache, found = step(cache, *(a[:, at : at + chunk] for a in (query, key, value)))
        np.testing.assert_allclose(found, expected[:, at : at + chunk], rtol=0, atol=1e-6)
    assert cache.length == 6 and cache.key.shape == (2, 2, 8, 6)


def test_a_cache_without_room_says_so():
    room, key = jnp.zeros((2, 2, 4, 6)), jnp.zeros((2, 1, 2, 6))
    cache = Cache(room, room, jnp.int32(3)).extended(key, key)
    with pytest.raises(ConfigError, match='room for 4 tokens, and there are more'):
        cache.extended(key, key)
    with pytest.raises(ConfigError, match='room for 4 tokens, and there are more'):  # whatever is in it already
        jax.eval_shape(Cache.extended, cache, *(jax.ShapeDtypeStruct((2, 5, 2, 6), jnp.float32),) * 2)


def test_dropout_of_weights_belongs_to_the_position():
    query, key, value = drawn(0, batch=4)
    positions = np.stack([np.zeros(4), np.arange(4)], -1).astype(np.uint32)

    @jax.jit
    def masked(rows, positions):
        def dropout(weights):
            return Dropout(0.5).apply({'example': {'position': positions, 'rng': jax.random.key(0)}}, weights, True)

        return attention(*rows, dropout=dropout)

    whole, order = masked((query, key, value), positions), np.array([2, 0, 3, 1])
    np.testing.assert_array_equal(masked([a[order] for a in (query, key, value)], positions[order]), whole[order])
    assert np.abs(whole - apply(query, key, value)).max() > 0.1


@pytest.mark.parametrize('masked', ['causal', 'padding', 'segments'])
def test_blocks_of_queries_give_what_all_give_at_once(masked, monkeypatch):
    arrays, at = drawn(0, queries=6, keys=6, shared=2), np.arange(6)[None]
    mask = {'causal': causal_mask(6, 6), 'padding': padding_mask(at < np.array([[6], [4]]))}.get(masked)
    mask = segment_mask(*(jnp.array([[1, 1, 1, 2, 2, 2], [1, 2, 2, 2, 2, 3]]),) * 2) if mask is None else mask
    bias = alibi(4, at, at) if masked != 'segments' else jnp.arange(24.0).reshape(1, 4, 1, 6)  # of a head and a key alone

    def result(arrays):
        mixed = attention(*arrays, mask, bias)
        return jnp.sin(mixed).sum(), mixed

    expected = jax.jit(jax.value_and_grad(result, has_aux=True))(arrays)
    monkeypatch.setattr(formulation, 'queries_at_once', lambda queries, keys: 2)
    assert 'scan' in str(jax.make_jaxpr(result)(arrays))
    found = jax.jit(jax.value_and_grad(lambda arrays: result(arrays), has_aux=True))(arrays)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=0, atol=1e-5), found, expected)


def test_examples_on_several_devices_stay_where_they_are(monkeypatch):
    monkeypatch.setattr(formulation, 'queries_at_once', lambda queries, keys: 4)
    mesh = jax.sharding.Mesh(np.array(jax.devices()), 'd')
    x = jax.device_put(np.ones((8, 8, 2, 4), np.float32), jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec('d')))
    gradient = jax.jit(jax.grad(lambda x: attention(x, x, x).sum())).lower(x).compile()
    assert 'all-gather' not in gradient.as_text() and gradient(x).sharding.is_equivalent_to(x.sharding, 4)


def test_a_program_for_any_size_is_exported():
    batch, length = jax.export.symbolic_shape('b, t')
    for shape in ((batch, 512, 2, 8), (2, length, 2, 8)):
        given = jax.ShapeDtypeStruct(shape, jnp.float32)
        exported = jax.export.export(jax.jit(attention))(given, given, given)
        assert exported.out_avals[0].shape == (*shape[:2], 16)


def test_memory_grows_with_the_length_not_with_its_square():
    def temporaries(length):
        shape = jax.ShapeDtypeStruct((1, length, 4, 8), jnp.float32)
        gradient = jax.jit(jax.grad(lambda arrays: jnp.sin(attention(*arrays)).sum()))
        return cost.memory(gradient.lower([shape] * 3).compile())['temporaries']

    assert temporaries(4096) < 2.5 * temporaries(2048)


@pytest.mark.parity
@pytest.mark.parametrize('kind', ['all', 'causal', 'padding', 'grouped', 'bias'])
def test_against_pytorch(kind):
    torch = pytest.importorskip('torch')
    arrays = drawn(1, queries=7, keys=7, shared=2 if kind == 'grouped' else 4, features=8)
    valid = np.arange(7)[None] < np.array([[7], [4]])
    ours, theirs = {'padding': padding_mask(valid), 'causal': causal_mask(7, 7)}.get(kind), {}
    bias = np.random.default_rng(2).normal(size=(1, 4, 7, 7)).astype(np.float32) if kind == 'bias' else None
    if kind == 'causal':
        theirs = {'is_causal': True}
    elif kind != 'all':
        given = {'padding': valid[:, None, None], 'bias': bias}.get(kind)
        theirs = {'attn_mask': None if given is None else torch.tensor(given), 'enable_gqa': kind == 'grouped'}
    tensors = [torch.tensor(a, requires_grad=True) for a in arrays]
    result = torch.nn.functional.scaled_dot_product_attention(*(a.transpose(1, 2) for a in tensors), **theirs)
    expected = result.transpose(1, 2).reshape(2, 7, 32)
    torch.sin(expected).sum().backward()
    np.testing.assert_allclose(apply(*arrays, ours, bias), expected.detach(), rtol=0, atol=2e-6)
    gradients = jax.grad(lambda arrays: jnp.sin(apply(*arrays, ours, bias)).sum())(arrays)
    for found, tensor in zip(gradients, tensors, strict=True):
        np.testing.assert_allclose(found, tensor.grad, rtol=0, atol=1e-5)
