"""Noise: pixels are disturbed at random.

Idea: what differs from pixel to pixel by chance says nothing about the class, so a network should not depend on it.

Sources: `gaussian_noise` Bishop 1995 (Training with noise is equivalent to Tikhonov regularization) and Rusak et al. 2020 (A
simple way to make neural networks robust against diverse image corruptions); `salt_and_pepper` the impulse noise of Hendrycks
and Dietterich 2019 (Benchmarking neural network robustness to common corruptions and perturbations).

Config: {'augment.names': ('gaussian_noise',), 'augment.gaussian_noise.std': 0.05}, or
{'augment.names': ('salt_and_pepper',), 'augment.salt_and_pepper.share': 0.02}

Cost: one draw a pixel. Claim: with well-tuned Gaussian or speckle noise a ResNet-50 reached the best results of its day on
corrupted images (ImageNet-C, Rusak et al., abstract).

All channels of a pixel are disturbed alike, so grey stays grey; the papers disturb each channel by itself. White is 255 in
integer images and 1 in float images. Clashes: float images in another range than [0, 1] need another `std`.
"""

from typing import Any

import jax
import jax.numpy as jnp

from research.augment import pixels


def gaussian_noise(keys: Any, images: jax.Array, std: float = 0.05) -> jax.Array:
    """Normal noise is added to images [B, H, W, C]; its standard deviation is `std`, as a share of white."""
    pixels.check('gaussian_noise.std', std)
    shape = (*images.shape[1:3], 1)
    noise = jax.vmap(lambda key: jax.random.normal(key, shape, jnp.float32))(keys)
    return pixels.stored(pixels.working(images) + std * pixels.top(images.dtype) * noise, images.dtype)


def salt_and_pepper(keys: Any, images: jax.Array, share: float = 0.02) -> jax.Array:
    """A `share` of the pixels of images [B, H, W, C] becomes black or white, either as often."""
    pixels.check('salt_and_pepper.share', share, most=1)
    batch, height, width, _ = images.shape
    draw = pixels.uniform(keys, height * width).reshape(batch, height, width, 1)
    value = jnp.where(draw < share / 2, 0, pixels.top(images.dtype)).astype(images.dtype)
    return jnp.where(draw < share, value, images)
