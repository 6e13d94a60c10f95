"""Weight standardization: each filter of a convolution is seen with mean 0 and variance 1.

Idea: the mean and the scale of a filter are no use in front of a norm layer; without them the loss is smoother.

Source: Qiao et al. 2019 (Micro-batch training with batch-channel normalization and weight standardization, equations 4 to 6).
Config: {'model.conv.name': 'standardized'}, in every family.

Cost: a pass over the kernels in every step, nothing in the maps. Claim: with group normalization it reaches or passes
large-batch batch normalization on ImageNet (table 3). Clashes: without a norm layer behind it the scale of the filters is
lost; weight decay then acts on what is not seen.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from research.layers.conv import Conv


class StandardizedConv(Conv):
    """`research.layers.conv.Conv` that standardizes its kernel `[kh, kw, C / groups, D]` over all axes but the last.

    Attributes:
      epsilon: added to the variance.
    """

    epsilon: float = 1e-6

    @nn.nowrap
    def seen(self, kernel: jax.Array) -> jax.Array:
        """What images are convolved with: filters of mean 0 and variance 1."""
        axes = (0, 1, 2)
        centred = kernel - kernel.mean(axes, keepdims=True)
        return centred * jax.lax.rsqrt(jnp.square(centred).mean(axes, keepdims=True) + self.epsilon)
