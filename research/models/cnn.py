"""The simple convolutional network: convolve, pool, repeat, then fully connected layers.

LeCun et al. 1998 (Gradient-based learning applied to document recognition), with today's parts: 3x3 convolutions, ReLU,
max pooling and a normalization layer chosen by the config. The head returns logits; the
loss decides between sigmoid and softmax.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax

from research.catalogue import ConfigError
from research.layers import initializers, remat
from research.layers.dropout import Dropout
from research.models.network import Kit, Network


class CNN(Network):
    """A block of `depth` convolutions and a 2x2 max pooling for each of `widths`; then the `hidden` layers; then logits.

    Attributes, besides those of `Network`:
      widths: channels of each block; each halves the map, rounding down.
      depth: 3x3 convolutions in a block, each followed by norm and activation.
      hidden: units of each fully connected layer.
      dropout: rate on the input of each fully connected layer, including the head.
    """

    widths: Sequence[int] = (32, 64)
    depth: int = 1
    hidden: Sequence[int] = (128,)
    dropout: float = 0.0

    FIRST = 'block1_conv1'

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Images `[B, H, W, C]`, H and W at least 2 ** len(widths), to logits `[B, K]`."""
        smallest = 2 ** len(self.widths)
        if min(x.shape[1:3]) < smallest:
            raise ConfigError(
                f'Images of {x.shape[1]}x{x.shape[2]} are too small for {len(self.widths)} blocks of a CNN, '
                f'each of which halves them: expected {smallest}x{smallest} or more. Give it fewer widths.'
            )
        kit, block = self.kit(train), remat.block(_block, self.remat, static_argnums=(1, 3))
        for b in range(len(self.widths)):
            x = self.tap(f'stage{b + 1}', block(self, kit, x, b))
        x = x.reshape(x.shape[0], -1)
        for i, units in enumerate(self.hidden, 1):
            x = Dropout(self.dropout, name=f'hidden{i}_dropout')(x, train)
            x = kit.activate(kit.dense(x, units, kernel_init=initializers.he_normal(), name=f'hidden{i}'))
        x = Dropout(self.dropout, name='head_dropout')(x, train)
        return kit.dense(x, self.num_classes, name='head')


def _block(network: CNN, kit: Kit, x: jax.Array, b: int) -> jax.Array:
    for i in range(1, network.depth + 1):
        x = kit.conv(x, network.widths[b], 3, kernel_init=initializers.he_normal(), name=f'block{b + 1}_conv{i}')
        x = kit.activate(kit.norm(x, name=f'block{b + 1}_norm{i}'))
    return kit.max_pool(x, 2, 2)
