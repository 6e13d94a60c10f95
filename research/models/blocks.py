"""The block of a Transformer (Vaswani et al. 2017): of encoders (ViT, BERT), of decoders, and of decoders that read an encoder.

B examples, T tokens, S tokens of a memory, D features, N heads of H features, K heads of keys and values.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.initializers import Initializer

from research.catalogue import ConfigError
from research.layers import average_attention, initializers
from research.layers.attention import Cache, attention
from research.layers.dropout import Dropout
from research.layers.positions import rotary
from research.models.network import Kit

# How tokens see each other -> the method of a block.
ATTENTIONS = {'softmax': '_softmax', 'average': '_average'}


class Kept(NamedTuple):
    """What a block keeps of tokens, so that later ones can look at them.

    Attributes:
      own: keys and values of the tokens themselves, or their sum.
      memory: those of the memory; None without one.
    """

    own: Cache | average_attention.Sum
    memory: Cache | None


class Block(nn.Module):
    """Attention, attention over a memory if there is one, and MLP, each added to its input: `[B, T, D]` to `[B, T, D]`.

    Attributes:
      kit: a network's, or outside of one `Network(norm='layer', activation='gelu').kit(train)`.
      heads: N, a divisor of D.
      width: of the MLP.
      key_heads: K, a divisor of N; 0 for N.
      norm_first: whether a norm layer stands before each branch (Xiong et al. 2020) or after each sum, as in the original.
      gated: whether the MLP's activation multiplies a second matrix (Shazeer 2020, GLU variants improve Transformer).
      attention: a name in `ATTENTIONS`; over a memory it is softmax always.
      dropout: rate at the end of each branch.
      mlp_dropout: rate inside the MLP, after the activation.
      attention_dropout: rate of the attention's weights.
      stochastic_depth: share of examples for which a branch is dropped in training.
      kernel_init: of all matrices.
      output_init: of the last matrix of each branch; None for `kernel_init`.
    """

    kit: Kit
    heads: int
    width: int
    key_heads: int = 0
    norm_first: bool = True
    gated: bool = False
    attention: str = 'softmax'
    dropout: float = 0.0
    mlp_dropout: float = 0.0
    attention_dropout: float = 0.0
    stochastic_depth: float = 0.0
    kernel_init: Initializer = initializers.glorot_normal()
    output_init: Initializer | None = None

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        turn: int = 0,
        mask: jax.Array | None = None,
        bias: jax.Array | None = None,
        positions: jax.Array | None = None,
        memory: jax.Array | None = None,
        memory_mask: jax.Array | None = None,
        cache: Kept | None = None,
    ) -> tuple[jax.Array, Kept]:
        """The tokens' vectors, and what later tokens need of these and all before.

        Args:
          x: `[B, T, D]`.
          turn: counts the calls of a block that is applied several times: dropout draws anew in each.
          mask, bias: as in `research.layers.attention.attention`; an average needs a mask, the same for all heads.
          positions: int `[B, T]` or `[1, T]`; they turn queries and keys, if there are any. None turns nothing.
          memory: vectors of an encoder, `[B, S, D]`, that the tokens look at; None for none, or if a cache has its keys.
          memory_mask: `[B, 1, 1, S]` or `[B, 1, T, S]`.
          cache: of the tokens before, with room for these, which are put into it; they look at all of it under `mask`.
        """
        attend = getattr(self, ATTENTIONS[self.attention])
        attend = functools.partial(attend, mask=mask, bias=bias, positions=positions, cache=cache and cache.own)
        x, own = self._residual(x, 'attention', attend, turn)
        across = cache and cache.memory
        if memory is not None or across is not None:
            attend = functools.partial(self._cross, memory=memory, mask=memory_mask, kept=across)
            x, across = self._residual(x, 'cross', attend, turn)
        x, _ = self._residual(x, 'mlp', self._mlp, turn)
        return x, Kept(own, across)

    def _residual(self, x, name, branch, turn):
        y, kept = branch(self.kit.norm(x, name=f'{name}_norm') if self.norm_first else x, turn=turn)
        y = Dropout(self.dropout, name=f'{name}_dropout')(y, self.kit.train, turn)
        y = x + Dropout(self.stochastic_depth, unit='example', name=f'{name}_drop')(y, self.kit.train, turn)
        return y if self.norm_first else self.kit.norm(y, name=f'{name}_norm'), kept

    def _softmax(self, x, mask, bias, positions, cache, turn):
        shared = self.key_heads or self.heads
        query, key, value = self._in_heads(x, 'qkv', self.heads, shared, shared)
        if positions is not None:
            query, key = rotary(query, positions), rotary(key, positions)
        if cache is not None:
            cache = cache.extended(key, value)
            key, value = cache.pair
        weights = self._weights_dropout('weights_dropout', turn)
        mixed = attention(query, key, value, mask, bias, weights)
        return self._dense(mixed, x.shape[-1], 'projection', self.output_init), cache or Cache.of(key, value)

    def _average(self, x, mask, bias, positions, cache, turn):
        del bias, positions, turn
        y = average_attention.mean(x, mask, cache)
        gates = self._dense(jnp.concatenate([x, y], axis=-1), 2 * x.shape[-1], 'gates')
        return average_attention.gated(x, y, gates), cache.extended(x) if cache else average_attention.Sum.of(x)

    def _cross(self, x, memory, mask, kept, turn):
        shared = self.key_heads or self.heads
        (query,) = self._in_heads(x, 'cross_query', self.heads)
        key, value = kept.pair if kept else self._in_heads(memory, 'cross_key_value', shared, shared)
        weights = self._weights_dropout('cross_weights_dropout', turn)
        mixed = attention(query, key, value, mask, dropout=weights)
        return self._dense(mixed, x.shape[-1], 'cross_projection', self.output_init), kept or Cache.of(key, value)

    def _in_heads(self, x, name, *heads):
        """One matrix for several kinds of heads, so many of each: arrays `[B, T, heads, H]`."""
        dim = x.shape[-1]
        if dim % self.heads:
            raise ConfigError(f'{self.heads} heads cannot share {dim} features evenly: choose a divisor.')
        shape = sum(heads), dim // self.heads
        y = self._dense(x, math.prod(shape), name).reshape(*x.shape[:2], *shape)
        return jnp.split(y, [sum(heads[:i]) for i in range(1, len(heads))], axis=2)

    def _weights_dropout(self, name, turn):
        if not self.attention_dropout or not (self.kit.train or self.is_initializing()):
            return None
        return functools.partial(Dropout(self.attention_dropout, name=name), train=self.kit.train, turn=turn)

    def _mlp(self, x, turn):
        y = self.kit.activate(self._dense(x, self.width, 'mlp_in'))
        y = y * self._dense(x, self.width, 'mlp_gated') if self.gated else y
        y = Dropout(self.mlp_dropout, name='mlp_hidden_dropout')(y, self.kit.train, turn)
        return self._dense(y, x.shape[-1], 'mlp_out', self.output_init), None

    def _dense(self, x, features, name, init=None):
        return self.kit.dense(x, features, name=name, kernel_init=init or self.kernel_init)


def stack(
    x: jax.Array,
    block: Callable[..., nn.Module],
    depth: int,
    name: str = 'block',
    shared: bool = False,
    caches: Sequence[Kept] | None = None,
    **given: Any,
) -> tuple[jax.Array, tuple[Kept, ...]]:
    """Blocks one after the other, `[B, T, D]` to `[B, T, D]`, and what each keeps; called in a compact method of a network.

    Args:
      x: `[B, T, D]`.
      block: makes a block, given its name.
      depth: of the stack.
      name: the blocks are called this and a number, from 1.
      shared: whether one block is applied `depth` times.
      caches: of the tokens before, one a block or turn; None for none.
      **given: arguments of `Block.__call__` that are the same for all.
    """
    blocks, kept = [block(name=f'{name}{i + 1}') for i in range(1 if shared else depth)], []
    for i in range(depth):
        cache = caches[i] if caches else None
        x, own = blocks[0](x, i, cache=cache, **given) if shared else blocks[i](x, 0, cache=cache, **given)
        kept.append(own)
    return x, tuple(kept)
