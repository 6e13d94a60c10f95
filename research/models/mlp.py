"""The multilayer perceptron (Rumelhart et al. 1986): fully connected layers, for rows of numbers and for small images.

It has today's parts: He's initialization, and norm layer, activation and dropout chosen by the config. Images are flattened.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax

from research.layers import activation, initializers, norm
from research.layers.dense import Dense
from research.layers.dropout import Dropout


class MLP(nn.Module):
    """`hidden` layers of matrix, norm and activation; then logits.

    Attributes:
      num_classes: K, logits.
      hidden: units of each layer; () is a linear model.
      norm: a name in `research.layers.norm.NORMS`, or a mapping with `name` and its arguments.
      activation: a name in `research.layers.activation.ACTIVATIONS`.
      dropout: rate behind each hidden layer.
      axis_name: the `pmap` axis over which batches are split.
    """

    num_classes: int = 1000
    hidden: Sequence[int] = (64, 64)
    norm: str | Mapping[str, Any] = 'batch'
    activation: str = 'relu'
    dropout: float = 0.0
    axis_name: str | None = None

    HEADS = ('head',)

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Features `[B, F]`, or images `[B, H, W, C]`, to logits `[B, K]`."""
        x, activate = x.reshape(x.shape[0], -1), activation.create(self.activation)
        for i, units in enumerate(self.hidden, 1):
            x = Dense(units, kernel_init=initializers.he_normal(), name=f'hidden{i}')(x)
            given = {'use_running_average': not train, 'axis_name': self.axis_name, 'name': f'hidden{i}_norm'}
            x = activate(norm.create(self.norm, **given)(x))
            x = Dropout(self.dropout, name=f'hidden{i}_dropout')(x, train)
        return Dense(self.num_classes, kernel_init=initializers.lecun_normal(), name='head')(x)
