"""The text CNN (Kim 2014): convolutions over a few tokens, the maximum of each over the text, and a linear layer.

B texts, T tokens, D features of a token, F filters a width.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from research.layers import initializers
from research.layers.conv import conv
from research.layers.dense import Dense
from research.layers.dropout import Dropout
from research.models.network import check_tokens


def _over_tokens(x, kernel, strides, padding, **_):
    """As images are convolved: in a training loop XLA itself takes 25 times as long for the kernel's gradient (CPU)."""
    return conv(x[:, :, None], kernel[:, None], (*strides, 1), (*padding, (0, 0)))[:, :, 0]


class TextCNN(nn.Module):
    """Logits `[B, K]` of texts; the paper's CNN-rand but for the constraint on the head's norm.

    Attributes:
      num_classes: K.
      vocabulary_size: V; tokens are below it.
      dim: D; the paper has 300.
      widths: tokens that a filter sees.
      filters: F.
      dropout: rate before the head.
    """

    num_classes: int = 2
    vocabulary_size: int = 30522
    dim: int = 128
    widths: tuple[int, ...] = (3, 4, 5)
    filters: int = 100
    dropout: float = 0.5

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
          mask: bool `[B, T]`, True on real tokens, which come first; None for all. Padding changes nothing.
          train: whether dropout is on.

        Raises:
          ConfigError: no tokens.
        """
        del segments
        check_tokens('A text CNN', tokens)
        mask = jnp.ones(tokens.shape, bool) if mask is None else mask
        x = nn.Embed(self.vocabulary_size, self.dim, name='token_embedding')(tokens) * mask[..., None]
        lengths, places = mask.sum(1, keepdims=True), jnp.arange(tokens.shape[1])[None]
        found = []
        for width in self.widths:
            filters = nn.Conv(
                self.filters,
                (width,),
                padding=[(0, width - 1)],
                kernel_init=initializers.he_normal(),
                conv_general_dilated=_over_tokens,
                name=f'conv{width}',
            )
            whole = places <= jnp.maximum(lengths - width, 0)  # a text shorter than a filter is seen once
            found.append((nn.relu(filters(x)) * whole[..., None]).max(1))
        x = Dropout(self.dropout, name='head_dropout')(jnp.concatenate(found, -1), train)
        return Dense(self.num_classes, name='head')(x)
