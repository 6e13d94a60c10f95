"""Average attention: a token sees the plain mean of the tokens so far instead of a weighted one, so decoding keeps one sum.

Idea: queries, keys and weights are dropped. Two gates mix the mean of the inputs with the token's own one. A step then costs
the same after 1 token as after 1,000, in time and in memory.

Source: Zhang, Xiong and Su 2018 (Accelerating neural Transformer via an average attention network, equations 1 and 2), without
the feed-forward layer behind the mean, which the authors later recommend to leave out (their repository).

Config: {'model.decoder_attention': 'average'}, for the Transformer's decoder. Its encoder and GPT keep softmax attention.

Cost: 4 D^2 parameters of the gates in place of attention's. Training multiplies by a mask, `[B, T, T]`; sums are in float32 or
wider. Claim: decoding is over four times as fast as the original Transformer's, which had no cache (abstract and repository).

Measured: a step of transformer_tiny over 16 texts takes 0.39 ms with room for 32 tokens and 0.44 for 1,024; with keys and
values 0.42 and 3.6 (medians, two busy cores, jax 0.10.2). chrF falls from 14.1 to 13.1 (configs/translation.py, eight seeds).

Clashes: dropout of attention weights acts on cross attention alone, and rotary positions turn nothing in the decoder.

Letters: B texts, T tokens, D features.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from research.layers import remat
from research.layers.attention import causal_mask


class Sum(NamedTuple):
    """What later tokens need of those so far, whatever their number; like `research.layers.attention.Cache`, but for means.

    Attributes:
      total: the sum of their inputs, `[B, D]`, float32 or wider. All tokens count: texts that are continued have no padding.
      length: int32 [], how many these are.
    """

    total: jax.Array
    length: jax.Array

    @classmethod
    def of(cls, x: jax.Array) -> 'Sum':
        """Of tokens' inputs `[B, T, D]`."""
        return cls(x.sum(1, dtype=jnp.promote_types(x.dtype, jnp.float32)), jnp.int32(x.shape[1]))

    def widened(self, size: int) -> 'Sum':
        """Itself: a sum has room for any number of tokens."""
        del size
        return self

    def causal(self, queries: int) -> jax.Array:
        """Mask `[1, 1, T, T]` of the next T tokens among themselves; all see the sum."""
        return causal_mask(queries, queries)

    def extended(self, x: jax.Array) -> 'Sum':
        """The sum with the next tokens' inputs `[B, T, D]`."""
        new = Sum.of(x)
        return Sum(self.total + new.total, self.length + new.length)


def mean(x: jax.Array, mask: jax.Array, before: Sum | None = None) -> jax.Array:
    """For each token the mean of the inputs that it sees, 0 where it sees none: `[B, T, D]`, the dtype of `x`.

    Args:
      x: `[B, T, D]`, floating.
      mask: bool `[B, 1, T, T]`, or 1 for B; True where a token, in the rows, sees another one.
      before: of earlier tokens, which all see.
    """
    dtype, seen = jnp.promote_types(x.dtype, jnp.float32), mask[:, 0]
    # Divided after the product: of the mask itself, 16 bits hold every entry.
    total = remat.product(jnp.matmul(seen.astype(x.dtype), x, preferred_element_type=dtype))
    count = seen.sum(-1)[..., None]
    if before is not None:
        total, count = total + before.total[:, None], count + before.length
    return (total / jnp.maximum(count, 1)).astype(x.dtype)


def gated(x: jax.Array, y: jax.Array, gates: jax.Array) -> jax.Array:
    """A token's input and what it took from others, mixed: `[B, T, D]`.

    Args:
      x, y: `[B, T, D]`.
      gates: `[B, T, 2 D]` before the sigmoid, of the input and then of the others.
    """
    own, others = jnp.split(jax.nn.sigmoid(gates), 2, axis=-1)
    return own * x + others * y
