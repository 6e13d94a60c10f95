"""Softmax attention (Vaswani et al. 2017), one function for all models, with masks and a cache for decoding.

B examples, T queries, S keys, N heads of H features, K heads of keys and values, a divisor of N (Ainslie et al. 2023, GQA).
Masks are boolean, True where a query may see a key, broadcast to `[B, N, T, S]`, and combined by `&`.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from research.catalogue import ConfigError
from research.layers import formulation, remat


def attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    mask: jax.Array | None = None,
    bias: jax.Array | None = None,
    dropout: Callable[[jax.Array], jax.Array] | None = None,
) -> jax.Array:
    """Weighted means of values, with the softmax in float32 or wider.

    remat does not keep the scores, T x S per head: much memory, few FLOPs (Korthikanti et al. 2022). On CPU, without dropout,
    long sequences go head by head and, where 128 divides them, by blocks of queries: memory is linear in T (Rabe and Staats
    2021).

    Args:
      query: `[B, T, N, H]`, floating.
      key, value: `[B, S, K, H]`, the dtype of `query`. Query head n sees key head n K // N.
      mask: a query that may see no key gets 0; None lets all queries see all keys.
      bias: added to the scores, floating, `[B, N, T, S]`, 1 where it is the same.
      dropout: applied to the weights, `[B, N, T, S]` to the same: a `research.layers.dropout.Dropout`, in training.

    Returns:
      `[B, T, N H]`, the dtype of `value`.

    Raises:
      ConfigError: K does not divide N.
    """
    batch, length, heads, features = query.shape
    keys, shared = key.shape[1:3]
    if heads % shared:
        raise ConfigError(f'{heads} heads cannot share {shared} heads of keys and values evenly: choose a divisor.')
    groups = heads // shared
    # Queries of a group are rows beside each other, [B, K, R, H]: they share keys and values without copies of these.
    rows = query.reshape(batch, length, shared, groups, features).transpose(0, 2, 3, 1, 4)
    arrays = {
        'query': rows.reshape(batch, shared, groups * length, features),
        'key': key.swapaxes(1, 2),
        'value': value.swapaxes(1, 2),
        **{name: _of_rows(a, shared, groups, length) for name, a in (('mask', mask), ('bias', bias)) if a is not None},
    }
    block = 0 if dropout else formulation.queries_at_once(groups * length, keys)
    if block:
        mixed = _of_each(functools.partial(_in_turn, functools.partial(_by_blocks, block)), arrays)
    else:
        by_heads = dropout and (lambda weights: dropout(weights.reshape(batch, heads, length, keys)).reshape(weights.shape))
        mixed = _of_all(**arrays, dropout=by_heads)
    return mixed.reshape(rows.shape).transpose(0, 3, 1, 2, 4).reshape(batch, length, heads * features)


def _of_rows(a, shared, groups, length):
    """A mask or a bias by rows, `[B, K, R, S]`, copied for the queries of a group; what is 1 for heads and queries stays 1."""
    batch, heads, queries, keys = a.shape
    if heads == queries == 1:
        return a
    outer = batch, 1 if heads == 1 else shared
    a = a.reshape(*outer, heads // outer[1], queries, keys)
    return jnp.broadcast_to(a, (*outer, groups, length, keys)).reshape(*outer, groups * length, keys)


def _in_turn(function, arrays, over=lax.map):
    """`function` of one row of named arrays after the other; an array of 1 row has the same for all."""
    cut = {name: a for name, a in arrays.items() if a.shape[0] != 1}
    same = {name: a[0] for name, a in arrays.items() if a.shape[0] == 1}
    return over(lambda part: function(same | part), cut) if cut else function(same)[None]


def _of_each(function, arrays):
    """The same for all rows at once: devices may have some each. One row alone is no axis, with which XLA is slower."""
    return _in_turn(function, arrays, lambda each, cut: jax.vmap(each)(cut))


def _by_blocks(block, arrays):
    """One head of keys, a block of rows after the other."""

    def blocks(name, a):
        return a[None] if name in ('key', 'value') or a.shape[0] == 1 else a.reshape(-1, block, a.shape[1])

    mixed = _in_turn(jax.checkpoint(lambda part: _of_all(**part)), {name: blocks(name, a) for name, a in arrays.items()})
    return mixed.reshape(arrays['query'].shape)


def _of_all(query, key, value, mask=None, bias=None, dropout=None):
    """Of queries `[..., R, H]`, keys and values `[..., S, H]`; mask and bias broadcast to `[..., R, S]`."""
    # There are fewer queries than scores: they are divided.
    scores = (query / jnp.sqrt(query.shape[-1]).astype(query.dtype)) @ key.swapaxes(-1, -2)
    scores = scores.astype(jnp.promote_types(scores.dtype, jnp.float32))
    scores = scores if bias is None else scores + bias
    # A selection takes 0.6 of the time and memory of a masked softmax (CPU, T 512); queries that see nothing get 0 below.
    scores = scores if mask is None else jnp.where(mask, scores, jnp.finfo(scores.dtype).min)
    weights = jax.nn.softmax(scores).astype(value.dtype)
    mixed = remat.product((dropout(weights) if dropout else weights) @ value)
    return mixed if mask is None else jnp.where(mask.any(-1)[..., None], mixed, 0)


def padding_mask(valid: jax.Array) -> jax.Array:
    """Mask `[B, 1, 1, S]` that hides padding among keys, from `[B, S]`, True on real tokens: of the queries' own sequence, or
    of another one that they look at (cross attention)."""
    return valid.astype(bool)[:, None, None, :]


def causal_mask(queries: int, keys: int, start: jax.Array | int = 0) -> jax.Array:
    """Mask `[1, 1, T, S]` that hides the future: key j is seen from query i if j <= start + i.

    Args:
      queries, keys: T and S.
      start: int [], position of the first query among the keys: with a cache, the tokens in it before these queries.
    """
    return (jnp.arange(keys)[None, :] <= start + jnp.arange(queries)[:, None])[None, None]


def segment_mask(queries: jax.Array, keys: jax.Array) -> jax.Array:
    """Mask `[B, 1, T, S]` that hides keys of another segment, from numbers of segments, int `[B, T]` and `[B, S]`: several
    texts in a row do not see each other."""
    return (queries[:, :, None] == keys[:, None, :])[:, None]


class Cache(NamedTuple):
    """Keys and values of the tokens so far. Examples are rows: `jax.tree.map` over `key` and `value` reorders beams.

    Heads come before tokens, as products take them: a step of 12 heads over 16 texts of 80 tokens takes 0.13 ms, and 1.0 ms at
    best where it turns them first (jaxlib 0.10.2, two cores).

    Attributes:
      key, value: `[B, K, S, H]`, S the most tokens that it can hold.
      length: int32 [], tokens in it.
    """

    key: jax.Array
    value: jax.Array
    length: jax.Array

    @classmethod
    def of(cls, key: jax.Array, value: jax.Array) -> 'Cache':
        """A cache that is full of tokens' keys and values `[B, S, K, H]`."""
        return cls(key.swapaxes(1, 2), value.swapaxes(1, 2), jnp.int32(key.shape[1]))

    @property
    def pair(self) -> tuple[jax.Array, jax.Array]:
        """Keys and values `[B, S, K, H]`, as `attention` takes them."""
        return self.key.swapaxes(1, 2), self.value.swapaxes(1, 2)

    def causal(self, queries: int) -> jax.Array:
        """Mask `[1, 1, T, S]` of the next T queries, from before their own keys are put in."""
        return causal_mask(queries, self.key.shape[2], start=self.length)

    def widened(self, size: int) -> 'Cache':
        """The cache with room for `size` more tokens."""
        room = (0, 0), (0, 0), (0, size), (0, 0)
        return Cache(jnp.pad(self.key, room), jnp.pad(self.value, room), self.length)

    def extended(self, key: jax.Array, value: jax.Array) -> 'Cache':
        """The cache with the next tokens' keys and values `[B, T, K, H]`.

        Raises:
          ConfigError: there is no room; where the length is traced, tokens beyond S overwrite the last ones instead.
        """
        room, length = self.key.shape[2], self.length + key.shape[1]
        if (key.shape[1] if isinstance(length, jax.core.Tracer) else length) > room:
            raise ConfigError(f'The cache has room for {room} tokens, and there are more to decode: start with a larger size.')
        at = (0, 0, self.length, 0)
        olds, news = (self.key, self.value), (key.swapaxes(1, 2), value.swapaxes(1, 2))
        return Cache(*(lax.dynamic_update_slice(old, new, at) for old, new in zip(olds, news, strict=True)), length)
