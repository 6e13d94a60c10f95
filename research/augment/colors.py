"""Colour augmentation: brightness, contrast, saturation and hue of an image change by a small random amount.

Idea: light and camera change the colours of an object and not its class, so a network should not depend on them.

Sources: Howard 2013 (Some improvements on deep convolutional neural network based image classification, section 2.2) for
brightness, contrast and saturation; Szegedy et al. 2015 (Going deeper with convolutions, section 6); definitions and the
default of 0.4 as in torchvision's ColorJitter. The hue turns as in HSV, a hexagon and not a circle.

Config: {'augment.names': ('color_jitter',), 'augment.color_jitter.hue': 0.1}; each of the four alone:
{'augment.names': ('brightness',), 'augment.brightness.share': 0.4}.

Cost: a few operations a pixel, most of them for the hue. Claim: no figure for colour alone in these papers; in SimCLR (Chen et
al. 2020, figure 5) crops and colour together make the best pair.

A factor f is drawn between 1 - share and 1 + share, and not below 0; the result is f x + (1 - f) y. The image y is black for
brightness, the mean of the grey image for contrast, and the grey image for saturation. Grey is 0.299 R + 0.587 G + 0.114 B
(ITU-R BT.601). Images without three channels have no colour: their contrast is about the mean over all channels, and
saturation and hue leave them as they are. Clashes: classes that differ in colour alone.

Letters: B images, H rows, W columns, C channels.
"""

from typing import Any

import jax
import jax.numpy as jnp

from research.augment import pixels


def brightness(keys: Any, images: jax.Array, share: float = 0.4) -> jax.Array:
    """Darker or brighter by up to `share`."""
    return adjust_brightness(images, _factors('brightness.share', share, pixels.uniform(keys, 1)[:, 0]))


def contrast(keys: Any, images: jax.Array, share: float = 0.4) -> jax.Array:
    """Nearer to the mean or farther from it by up to `share`."""
    return adjust_contrast(images, _factors('contrast.share', share, pixels.uniform(keys, 1)[:, 0]))


def saturation(keys: Any, images: jax.Array, share: float = 0.4) -> jax.Array:
    """Paler or more colourful by up to `share`."""
    return adjust_saturation(images, _factors('saturation.share', share, pixels.uniform(keys, 1)[:, 0]))


def hue(keys: Any, images: jax.Array, share: float = 0.1) -> jax.Array:
    """Every hue turned the same way, by up to `share` of the circle."""
    return turn_hue(images, _turns('hue.share', share, pixels.uniform(keys, 1)[:, 0]))


def color_jitter(
    keys: Any, images: jax.Array, brightness: float = 0.4, contrast: float = 0.4, saturation: float = 0.4, hue: float = 0.1
) -> jax.Array:
    """The four, one after the other: first the hue, then in the order of the arguments; torchvision draws the order too."""
    drawn = pixels.uniform(keys, 4).T
    # At the end it would take 5 times as long on a CPU, which computes what stands before it again for each channel it reads.
    images = turn_hue(images, _turns('color_jitter.hue', hue, drawn[3]))
    images = adjust_brightness(images, _factors('color_jitter.brightness', brightness, drawn[0]))
    images = adjust_contrast(images, _factors('color_jitter.contrast', contrast, drawn[1]))
    return adjust_saturation(images, _factors('color_jitter.saturation', saturation, drawn[2]))


def adjust_brightness(images: jax.Array, factors: jax.Array) -> jax.Array:
    """[B, H, W, C] and float [B]: 0 is black, 1 the image."""
    return blend(images, jnp.zeros((), pixels.working(images).dtype), factors)


def adjust_contrast(images: jax.Array, factors: jax.Array) -> jax.Array:
    """[B, H, W, C] and float [B]: 0 is flat, 1 the image."""
    # The mean over rows comes before the grey: 7 times as fast on a CPU, which adds whole rows at once.
    return blend(images, _grey(pixels.working(images).mean(1, keepdims=True)).mean((1, 2, 3), keepdims=True), factors)


def adjust_saturation(images: jax.Array, factors: jax.Array) -> jax.Array:
    """[B, H, W, C] and float [B]: 0 is grey, 1 the image; no change unless C is 3."""
    return blend(images, _grey(images), factors) if images.shape[-1] == 3 else images


def turn_hue(images: jax.Array, turns: jax.Array) -> jax.Array:
    """[B, H, W, C] and float [B], in turns of the circle of hues: 1/3 makes red green; no change unless C is 3."""
    if images.shape[-1] != 3:
        return images
    red, green, blue = (pixels.working(images[..., channel]) for channel in range(3))
    most, least = jnp.maximum(jnp.maximum(red, green), blue), jnp.minimum(jnp.minimum(red, green), blue)
    chroma = most - least
    safe = jnp.where(chroma > 0, chroma, 1)
    # Places on the circle are in sixths: red is at 0, green at 2 and blue at 4.
    second = jnp.where(most == green, 2 + (blue - red) / safe, 4 + (red - green) / safe)
    place = jnp.where(most == red, (green - blue) / safe, second) + 6 * turns[:, None, None]
    place -= 6 * jnp.floor(place / 6)  # the remainder, without the slow call that % is on a CPU
    shares = jnp.abs(place - 3) - 1, 2 - jnp.abs(place - 2), 2 - jnp.abs(place - 4)
    turned = jnp.stack([least + chroma * jnp.clip(share, 0, 1) for share in shares], -1)
    return jnp.where(turns[:, None, None, None] == 0, images, pixels.stored(turned, images.dtype))


def blend(images: jax.Array, others: jax.Array, factors: jax.Array) -> jax.Array:
    """f x + (1 - f) y: images x [B, H, W, C], others y that broadcast with them, factors f [B]."""
    values, factors = pixels.working(images), factors[:, None, None, None]
    return pixels.stored(factors * values + (1 - factors) * others, images.dtype)


def _grey(images: jax.Array) -> jax.Array:
    """[B, H, W, C] -> float [B, H, W, 1] for three channels; others as they are, as floats."""
    values = pixels.working(images)
    if images.shape[-1] != 3:
        return values
    return 0.299 * values[..., :1] + 0.587 * values[..., 1:2] + 0.114 * values[..., 2:]


def _factors(argument: str, share: float, drawn: jax.Array) -> jax.Array:
    """float32 [B] in [0, 1) -> in [1 - share, 1 + share], not below 0."""
    pixels.check(argument, share)
    least = max(0.0, 1 - share)
    return least + (1 + share - least) * drawn


def _turns(argument: str, share: float, drawn: jax.Array) -> jax.Array:
    """float32 [B] in [0, 1) -> in [-share, share]."""
    pixels.check(argument, share, most=0.5)
    return share * (2 * drawn - 1)
