"""The average of word vectors under a linear layer: fastText's classifier without n-grams (Joulin et al. 2017).

B texts, T tokens, D features of a token, K classes.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from research.layers.dense import Dense
from research.layers.dropout import Dropout
from research.models.network import check_tokens


class WordAverage(nn.Module):
    """Logits `[B, K]` of texts.

    Attributes:
      num_classes: K.
      vocabulary_size: V; tokens are below it.
      dim: D.
      dropout: rate before the head.
    """

    num_classes: int = 2
    vocabulary_size: int = 30522
    dim: int = 128
    dropout: float = 0.0

    HEADS = ('head',)
    WORD_VECTORS = True
    EXAMPLE = jax.ShapeDtypeStruct((1, 1), jnp.int32)

    @nn.compact
    def __call__(
        self, tokens: jax.Array, segments: jax.Array | None = None, mask: jax.Array | None = None, train: bool = False
    ) -> jax.Array:
        """Logits.

        Args:
          tokens: int `[B, T]`, below V.
          segments: not read: a pair is one text here, with a separator inside.
          mask: bool `[B, T]`, True on real tokens; None for all. Padding changes nothing.
          train: whether dropout is on.

        Raises:
          ConfigError: no tokens.
        """
        del segments
        check_tokens('An average of word vectors', tokens)
        vectors = nn.Embed(self.vocabulary_size, self.dim, name='token_embedding')(tokens)
        there = jnp.ones((*tokens.shape, 1), vectors.dtype) if mask is None else mask[..., None].astype(vectors.dtype)
        mean = (vectors * there).sum(1) / jnp.maximum(there.sum(1), 1)
        return Dense(self.num_classes, name='head')(Dropout(self.dropout, name='head_dropout')(mean, train))
