"""DCGAN: a generator and a discriminator made of strided convolutions.

Radford et al. 2016 (Unsupervised representation learning with deep convolutional generative adversarial networks, section 3
and figure 1): no pooling and no hidden fully connected layers, 4x4 kernels of stride 2, ReLU in the generator and tanh at its
end, leaky ReLU in the discriminator, norm layers everywhere except in the generator's last layer and the discriminator's first,
weights drawn from N(0, 0.02^2). Config: {'task.name': 'generation', 'task.loss': 'non_saturating', 'model.name': 'dcgan'},
complete in configs/gan_norms.py. Latents are normal here (uniform in the paper), and sizes suit a CPU.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype

from research.catalogue import ConfigError
from research.layers import formulation, remat
from research.layers import norm as norms
from research.layers.conv import Conv, conv
from research.layers.dense import Dense

SLOPE = 0.2  # of the leaky ReLU
WEIGHTS = nn.initializers.normal(0.02)


class DCGAN(nn.Module):
    """Both players; calling it runs the generator. Parameters are under `generator` and `discriminator`.

    Attributes:
      latents: Z, length of the latent vector of an image.
      side: of the square images, a multiple of 2 ** len(widths): 28 and 32 for the usual data.
      channels: of the images.
      widths: channels of the generator's maps, each map twice as large as the one before; reversed for the discriminator.
      norm: of the generator, a name in `research.layers.norm.NORMS`, or a mapping with `name` and its arguments.
      discriminator_norm: likewise; it sees real and generated images in two batches.
      axis_name: the `pmap` axis over which batches are split.
    """

    latents: int = 100
    side: int = 28
    channels: int = 1
    widths: Sequence[int] = (64, 32)
    norm: str | Mapping[str, Any] = 'batch'
    discriminator_norm: str | Mapping[str, Any] = 'batch'
    axis_name: str | None = None

    def setup(self) -> None:
        """Makes the players; raises ConfigError for sizes that do not fit each other."""
        if not self.widths or self.side % 2 ** len(self.widths):
            raise ConfigError(
                f'Images of side {self.side} are not a map doubled {len(self.widths)} times: give DCGAN at least one width, '
                'and a side that is a multiple of 2 ** len(widths).'
            )
        self.generator = Generator(self.side, self.channels, self.widths, self.norm, self.axis_name)
        self.discriminator = Discriminator(self.widths[::-1], self.discriminator_norm, self.axis_name)

    def __call__(self, z: jax.Array, train: bool = False) -> jax.Array:
        """Latents `[B, Z]` to images `[B, side, side, channels]` in [-1, 1]."""
        images = self.generator(z, train)
        if self.is_initializing():
            self.discriminator(images, train)
        return images

    def discriminate(self, images: jax.Array, train: bool = False) -> jax.Array:
        """Images `[B, H, W, C]` in [-1, 1] to logits `[B]`, positive for images taken for real."""
        return self.discriminator(images, train)


class Generator(nn.Module):
    """A matrix to the smallest map, then transposed convolutions that double it: `[B, Z]` to `[B, side, side, channels]`."""

    side: int
    channels: int
    widths: Sequence[int]
    norm: str | Mapping[str, Any]
    axis_name: str | None

    @nn.compact
    def __call__(self, z: jax.Array, train: bool) -> jax.Array:
        norm = functools.partial(norms.create, self.norm, use_running_average=not train, axis_name=self.axis_name)
        smallest = self.side // 2 ** len(self.widths)
        x = Dense(smallest**2 * self.widths[0], use_bias=False, kernel_init=WEIGHTS, name='project')(z)
        x = nn.relu(norm(name='norm1')(x.reshape(len(z), smallest, smallest, self.widths[0])))
        for i, width in enumerate(self.widths[1:], 2):
            x = nn.relu(norm(name=f'norm{i}')(ConvTranspose(width, name=f'up{i - 1}')(x)))
        x = ConvTranspose(self.channels, use_bias=True, name=f'up{len(self.widths)}')(x)
        return nn.tanh(x)


class Discriminator(nn.Module):
    """Convolutions that halve the map, then one unit over the last map: `[B, H, W, C]` to `[B]`."""

    widths: Sequence[int]
    norm: str | Mapping[str, Any]
    axis_name: str | None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        for i, width in enumerate(self.widths, 1):
            x = Conv(width, 4, 2, padding=1, use_bias=i == 1, kernel_init=WEIGHTS, name=f'down{i}')(x)
            if i > 1:
                norm = norms.create(self.norm, use_running_average=not train, axis_name=self.axis_name, name=f'norm{i}')
                x = norm(x)
            x = nn.leaky_relu(x, SLOPE)
        return Dense(1, kernel_init=WEIGHTS, name='head')(x.reshape(x.shape[0], -1))[:, 0]


class ConvTranspose(nn.Module):
    """`conv_transpose`, [B, H, W, C] to [B, 2 H, 2 W, D], with parameters `kernel` [4, 4, C, D] and `bias` [D].

    Attributes:
      features: D, output channels.
      use_bias: whether to add a bias.
    """

    features: int
    use_bias: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = self.param('kernel', WEIGHTS, (4, 4, x.shape[-1], self.features))
        bias = self.param('bias', nn.initializers.zeros, (self.features,)) if self.use_bias else None
        x, kernel, bias = promote_dtype(x, kernel, bias)
        y = remat.product(conv_transpose(x, kernel))
        return y if bias is None else y + bias.reshape(1, 1, 1, -1)


def conv_transpose(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """The transposed convolution of stride 2 that doubles a map: y[2 i + k - 1] is the sum of x[i] kernel[k], in both axes.

    It is the input gradient of a convolution of stride 2, so its own gradients are that convolution and its kernel gradient.
    All of these are fast in a loop on CPU (research.layers.conv): 4 ms, where the dilated convolution takes 170 ms and
    nearest-neighbour resizing with a 3x3 convolution 10 ms (forward and both gradients, 64
    maps of 7x7, 64 to 32 channels, one core of an AMD EPYC with AVX-512).

    Args:
      x: [B, H, W, C], floating.
      kernel: [4, 4, C, D], the dtype of `x`.

    Returns:
      [B, 2 H, 2 W, D].
    """
    images = jax.ShapeDtypeStruct((x.shape[0], 2 * x.shape[1], 2 * x.shape[2], kernel.shape[3]), x.dtype)
    plain = formulation.convolution(images, kernel.swapaxes(2, 3), (2, 2), ((1, 1), (1, 1)), 1, (1, 1)) == 'plain'
    return (_transpose if plain else _transpose_with_gradient)(x, kernel)


def _halve(images: jax.Array, kernel: jax.Array) -> jax.Array:
    return conv(images, kernel.swapaxes(2, 3), 2, 1)


def _transpose(x: jax.Array, kernel: jax.Array) -> jax.Array:
    batch, height, width, _ = x.shape
    images = jnp.zeros((batch, 2 * height, 2 * width, kernel.shape[3]), x.dtype)
    return jax.vjp(lambda images: _halve(images, kernel), images)[1](x)[0]


def _transpose_backward(residuals: tuple[jax.Array, jax.Array], dy: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, kernel = residuals
    dx, pull = jax.vjp(lambda kernel: _halve(dy, kernel), kernel)
    return dx, pull(x)[0]


_transpose_with_gradient = jax.custom_vjp(_transpose)
_transpose_with_gradient.defvjp(lambda x, kernel: (_transpose(x, kernel), (x, kernel)), _transpose_backward)
