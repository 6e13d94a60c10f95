"""The multilayer perceptron: fully connected layers, for rows of numbers and for small images.

Rumelhart et al. 1986 (Learning representations by back-propagating errors), with today's parts: He's initialization, a norm
layer and dropout, chosen by the config. Images are flattened.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax

from research.layers import initializers
from research.layers.dropout import Dropout
from research.models.network import Network


class MLP(Network):
    """`hidden` layers of matrix, norm and activation; then logits.

    Attributes, besides those of `Network`:
      hidden: units of each layer; () is a linear model.
      dropout: rate on the input of each layer but the first, the head included.
    """

    hidden: Sequence[int] = (64, 64)
    dropout: float = 0.0

    FIRST = 'hidden1'

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Features `[B, F]`, or images `[B, H, W, C]`, to logits `[B, K]`."""
        kit = self.kit(train)
        x = x.reshape(x.shape[0], -1)
        for i, units in enumerate(self.hidden, 1):
            x = kit.dense(x, units, kernel_init=initializers.he_normal(), name=f'hidden{i}')
            x = self.tap(f'stage{i}', kit.activate(kit.norm(x, name=f'hidden{i}_norm')))
            x = Dropout(self.dropout, name=f'hidden{i}_dropout')(x, train)
        return kit.dense(x, self.num_classes, name='head')
