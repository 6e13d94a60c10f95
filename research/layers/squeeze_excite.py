"""Squeeze-and-excitation: each channel gets a weight computed from the means of all channels.

Idea: a channel matters more in some images than in others; two small matrices compute how much from the map's mean.

Source: Hu et al. 2018 (Squeeze-and-excitation networks, section 3). Config: {'model.squeeze_excite': 0.0625} in families that
have a place for it; MobileNetV3, TinyNet and EfficientNet have it by default, as in their papers.

Cost: 2 C^2 / r parameters per layer, almost no FLOPs, one more pass over the map. Claim: about one point of top-1 on
ImageNet for ResNet-50 (table 2). Clashes: the mean is over the whole image, so the weights ignore positions.
"""

import flax.linen as nn
import jax

from research.layers import activation, initializers
from research.layers.dense import Dense


class SqueezeExcite(nn.Module):
    """Multiplies `[B, H, W, C]` by weights `[B, 1, 1, C]`.

    Attributes:
      reduced: units between the two matrices, `reduce` [C, reduced] and `expand` [reduced, C].
      activation: between them, a name in research.layers.activation.
      gate: activation of the weights, likewise.
    """

    reduced: int
    activation: str = 'relu'
    gate: str = 'sigmoid'

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        init = initializers.he_normal()
        s = Dense(self.reduced, kernel_init=init, name='reduce')(x.mean((1, 2)))
        s = Dense(x.shape[-1], kernel_init=init, name='expand')(activation.create(self.activation)(s))
        return x * activation.create(self.gate)(s)[:, None, None]
