"""The simple convolutional network: convolve, pool, repeat, then fully connected layers.

LeCun et al. 1998 (Gradient-based learning applied to document recognition), with today's parts: 3x3 convolutions, ReLU,
max pooling and a normalization layer chosen by the config. The head gives logits; whether they are sigmoids' or a
softmax's is the loss's to say.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax

from research.catalogue import ConfigError
from research.layers import initializers, remat
from research.layers import norm as norms
from research.layers.conv import Conv
from research.layers.dense import Dense
from research.layers.dropout import Dropout
from research.layers.pooling import max_pool


class CNN(nn.Module):
    """`depth` convolutions and a 2x2 max pooling a block, one block for each of `widths`; then `hidden` layers; then logits.

    Attributes:
      num_classes: K, logits.
      widths: channels of each block; each halves the map, rounding down.
      depth: 3x3 convolutions in a block, each followed by norm and ReLU.
      hidden: units of each fully connected layer.
      dropout: share of the inputs of each fully connected layer, the head too, that is zeroed in training.
      norm: a name in `research.layers.norm.NORMS`, or a mapping with `name` and its arguments.
      remat: what of a block is computed again for the gradient, see research.layers.remat.
      axis_name: the `pmap` axis over which batches are split.
    """

    num_classes: int = 1000
    widths: Sequence[int] = (32, 64)
    depth: int = 1
    hidden: Sequence[int] = (128,)
    dropout: float = 0.0
    norm: str | Mapping[str, Any] = 'batch'
    remat: str = 'none'
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Images `[B, H, W, C]`, H and W at least 2 ** len(widths), to logits `[B, K]`."""
        smallest = 2 ** len(self.widths)
        if min(x.shape[1:3]) < smallest:
            raise ConfigError(
                f'Images of {x.shape[1]}x{x.shape[2]} are too small for {len(self.widths)} blocks of a CNN, '
                f'each of which halves them: expected {smallest}x{smallest} or more. Give it fewer widths.'
            )
        block = remat.block(_block, self.remat, static_argnums=(2, 3))
        for b in range(len(self.widths)):
            x = block(self, x, train, b)
        x = x.reshape(len(x), -1)
        for i, units in enumerate(self.hidden, 1):
            x = Dropout(self.dropout, name=f'hidden{i}_dropout')(x, train)
            x = nn.relu(Dense(units, kernel_init=initializers.he_normal(), name=f'hidden{i}')(x))
        x = Dropout(self.dropout, name='head_dropout')(x, train)
        return Dense(self.num_classes, name='head')(x)


def _block(network: CNN, x: jax.Array, train: bool, b: int) -> jax.Array:
    norm = functools.partial(norms.create, network.norm, use_running_average=not train, axis_name=network.axis_name)
    for i in range(1, network.depth + 1):
        x = Conv(network.widths[b], 3, use_bias=False, kernel_init=initializers.he_normal(), name=f'block{b + 1}_conv{i}')(x)
        x = nn.relu(norm(name=f'block{b + 1}_norm{i}')(x))
    return max_pool(x, (2, 2), (2, 2))
