"""The block of a Transformer encoder (Vaswani et al. 2017), as in ViT and BERT. B examples, T tokens, D features, N heads."""

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.initializers import Initializer

from research.catalogue import ConfigError
from research.layers import initializers
from research.layers.attention import attention, rotary
from research.layers.dropout import Dropout
from research.models.network import Kit


class EncoderBlock(nn.Module):
    """Attention and MLP, each added to its input: `[B, T, D]` to `[B, T, D]`.

    Attributes:
      kit: a network's, or outside of one `Network(norm='layer', activation='gelu').kit(train)`.
      heads: N, a divisor of D.
      width: of the MLP.
      key_heads: heads of keys and values, a divisor of N; 0 for N.
      norm_first: whether a norm layer stands before each branch (Xiong et al. 2020) or after each sum, as in the original.
      gated: whether the MLP's activation multiplies a second matrix (Shazeer 2020, GLU variants improve Transformer).
      dropout: rate at the end of each branch.
      mlp_dropout: rate inside the MLP, after the activation.
      attention_dropout: rate of the attention's weights.
      stochastic_depth: share of examples for which a branch is dropped in training.
      kernel_init: of all matrices.
    """

    kit: Kit
    heads: int
    width: int
    key_heads: int = 0
    norm_first: bool = True
    gated: bool = False
    dropout: float = 0.0
    mlp_dropout: float = 0.0
    attention_dropout: float = 0.0
    stochastic_depth: float = 0.0
    kernel_init: Initializer = initializers.glorot_normal()

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        mask: jax.Array | None = None,
        bias: jax.Array | None = None,
        positions: jax.Array | None = None,
        turn: int = 0,
    ) -> jax.Array:
        """Mask and bias as in `research.layers.attention.attention`; positions, int `[B, T]`, turn queries and keys.
        `turn` counts the calls of a block that is applied several times: dropout draws anew in each."""
        attention = functools.partial(self._attention, mask=mask, bias=bias, positions=positions)
        return self._residual(self._residual(x, 'attention', attention, turn), 'mlp', self._mlp, turn)

    def _residual(self, x, name, branch, turn):
        y = branch(self.kit.norm(x, name=f'{name}_norm') if self.norm_first else x, turn=turn)
        y = Dropout(self.dropout, name=f'{name}_dropout')(y, self.kit.train, turn)
        y = x + Dropout(self.stochastic_depth, unit='example', name=f'{name}_drop')(y, self.kit.train, turn)
        return y if self.norm_first else self.kit.norm(y, name=f'{name}_norm')

    def _attention(self, x, mask, bias, positions, turn):
        dim, heads, shared = x.shape[-1], self.heads, self.key_heads or self.heads
        if dim % heads:
            raise ConfigError(f'{heads} heads cannot share {dim} features evenly: choose a divisor.')
        shape = heads + 2 * shared, dim // heads
        qkv = self._dense(x, math.prod(shape), 'qkv').reshape(*x.shape[:2], *shape)
        query, key, value = jnp.split(qkv, [heads, heads + shared], axis=2)
        if positions is not None:
            query, key = rotary(query, positions), rotary(key, positions)
        dropout = None
        if self.attention_dropout and (self.kit.train or self.is_initializing()):
            dropout = functools.partial(
                Dropout(self.attention_dropout, name='weights_dropout'), train=self.kit.train, turn=turn
            )
        return self._dense(attention(query, key, value, mask, bias, dropout), dim, 'projection')

    def _mlp(self, x, turn):
        y = self.kit.activate(self._dense(x, self.width, 'mlp_in'))
        y = y * self._dense(x, self.width, 'mlp_gated') if self.gated else y
        y = Dropout(self.mlp_dropout, name='mlp_hidden_dropout')(y, self.kit.train, turn)
        return self._dense(y, x.shape[-1], 'mlp_out')

    def _dense(self, x, features, name):
        return self.kit.dense(x, features, name=name, kernel_init=self.kernel_init)
