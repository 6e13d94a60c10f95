"""Tone operations, the parts of RandAugment and its kin (research/augment/policies.py) that draw nothing.

Definitions as in Pillow's ImageOps and ImageEnhance. The largest value is 255 in integer images and 1 in float images, which
therefore should lie in [0, 1].

Letters: B images, H rows, W columns, C channels.
"""

import jax
import jax.numpy as jnp

from research.augment import colors, pixels


def autocontrast(images: jax.Array) -> jax.Array:
    """[B, H, W, C]: each channel of each image is stretched from its least and largest value to the whole range."""
    values = pixels.working(images)
    # Over rows, then over columns: a CPU compares whole rows at once.
    least, most = values.min(1, keepdims=True).min(2, keepdims=True), values.max(1, keepdims=True).max(2, keepdims=True)
    span = most - least
    stretched = (values - least) * (pixels.top(images.dtype) / jnp.where(span > 0, span, 1))
    return jnp.where(span > 0, pixels.stored(stretched, images.dtype), images)


def equalize(images: jax.Array) -> jax.Array:
    """[B, H, W, C]: each channel of each image gets values that are equally common; floats as 256 levels."""
    batch, height, width, channels = images.shape
    scale = 255 / pixels.top(images.dtype)
    # Channel c has the bins 256 c to 256 c + 255; one histogram for each image is 15 times as fast on a CPU as sorting.
    offsets = 256 * jnp.tile(jnp.arange(channels), height * width)
    levels = pixels.stored(scale * pixels.working(images), jnp.uint8).reshape(batch, -1).astype(int)
    counts = jax.vmap(lambda level: jnp.zeros(256 * channels, int).at[level].add(1))(levels + offsets[None])
    counts = counts.reshape(batch, channels, 256)
    below = jnp.cumsum(counts, -1) - counts
    # Without the pixels of the largest level, as Pillow has it.
    step = jnp.where(counts > 0, below, 0).max(-1, keepdims=True) // 255
    # Whole division by floats, twice as fast on a CPU; the half keeps every quotient away from the whole numbers.
    table = jnp.floor((below + step // 2 + 0.5).astype(jnp.float32) / jnp.maximum(step, 1))
    table = jnp.minimum(table, 255).astype(jnp.uint8)
    read = jax.vmap(jax.vmap(lambda row, level: row[level], in_axes=(0, 1), out_axes=1))
    equal = read(table, levels.reshape(batch, -1, channels)).reshape(images.shape)
    return jnp.where((step > 0).reshape(batch, 1, 1, channels), (equal / scale).astype(images.dtype), images)


def invert(images: jax.Array) -> jax.Array:
    """[B, H, W, C]: white becomes black."""
    return jnp.asarray(pixels.top(images.dtype), images.dtype) - images


def solarize(images: jax.Array, thresholds: jax.Array) -> jax.Array:
    """[B, H, W, C] and [B] in the unit of the images: pixels at the threshold or above are inverted."""
    return jnp.where(pixels.working(images) >= thresholds[:, None, None, None], invert(images), images)


def posterize(images: jax.Array, bits: jax.Array) -> jax.Array:
    """[B, H, W, C] and whole numbers [B] from 0 to 8: only these leading bits of 8 are kept; floats as 256 levels, unless 8."""
    top, bits = pixels.top(images.dtype), bits[:, None, None, None]
    levels = pixels.stored(255 / top * pixels.working(images), jnp.uint8)
    kept = (levels >> (8 - bits).astype(jnp.uint8)) << (8 - bits).astype(jnp.uint8)
    return jnp.where(bits == 8, images, (kept / (255 / top)).astype(images.dtype))


def sharpness(images: jax.Array, factors: jax.Array) -> jax.Array:
    """[B, H, W, C] and [B]: 0 is smoothed over 3 x 3 pixels, 1 the image, 2 as much sharper; the border keeps its values."""
    if min(images.shape[1:3]) < 3:
        return images
    values = jnp.pad(pixels.working(images), ((0, 0), (1, 1), (1, 1), (0, 0)))
    rows = values[:, :-2] + values[:, 1:-1] + values[:, 2:]
    smooth = (rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:] + 4 * values[:, 1:-1, 1:-1]) / 13
    inside = jnp.pad(jnp.ones((images.shape[1] - 2, images.shape[2] - 2), bool), 1)[None, :, :, None]
    return jnp.where(inside, colors.blend(images, smooth, factors), images)
