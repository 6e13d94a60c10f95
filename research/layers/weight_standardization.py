"""Weight standardization: each filter of a convolution is used with mean 0 and variance 1.

Idea: before a norm layer the mean and the scale of a filter have no effect on the output; fixing them smooths the loss.

Source: Qiao et al. 2019 (Micro-batch training with batch-channel normalization and weight standardization, equations 4 to 6).
Config: {'model.conv.name': 'standardized'}, in every family.

Cost: one pass over the kernels per step, none over the maps. Claim: with group normalization it reaches or passes
large-batch batch normalization on ImageNet (table 3). Clashes: without a norm layer after it the scale of the filters is
lost; weight decay shrinks the stored kernels, not the standardized ones.
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
        """The kernel that images are convolved with, same shape: filters of mean 0 and variance 1."""
        axes = (0, 1, 2)
        centred = kernel - kernel.mean(axes, keepdims=True)
        return centred * jax.lax.rsqrt(jnp.square(centred).mean(axes, keepdims=True) + self.epsilon)
