"""Crops: the network sees a part of an image, at a random place.

Idea: an object is of the same class wherever it stands (`pad_crop`), and whether all of it is seen or a part, from far or near
(`random_resized_crop`).

Sources: `pad_crop` He et al. 2015 (Deep residual learning for image recognition, section 4.2); `random_resized_crop` Szegedy et
al. 2015 (Going deeper with convolutions, section 6).

Config: {'augment.names': ('pad_crop',), 'augment.pad_crop.padding': 4}, or
{'augment.names': ('random_resized_crop',), 'augment.random_resized_crop.area': (0.08, 1.0)}

Cost: `pad_crop` one read a pixel; `random_resized_crop` two products with square matrices. Claim: `pad_crop` with
`flip_horizontal`, 4.72 % errors against 10.63 % without either (ResNet-18 on CIFAR-10, DeVries and Taylor 2017, table 1);
`random_resized_crop` without a number.

Effect: `pad_crop` of 2 pixels +1.08 points (0.62 to 1.53), `random_resized_crop` of areas from 0.6 none shown (a small CNN on
600 images of Fashion-MNIST, ten seeds, configs/augmentation.py). In 6 epochs of 6,000 images they cost 2.64 and 4.81.

The defaults of `random_resized_crop` are those for ImageNet. They are harsh for small images, which lose too much detail: start
there at an area of 0.5 or more. Clashes: objects that fill little of the image may be cropped away.

Letters: B images, H rows, W columns, C channels.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp

from research.augment import pixels
from research.catalogue import ConfigError

# A box of a random shape may not fit into the image; so many are drawn, and the first that fits is taken.
_TRIES = 10


def pad_crop(keys: Any, images: jax.Array, padding: int = 4, fill: float = 0.0) -> jax.Array:
    """Images [B, H, W, C] padded on each side by `padding` pixels of `fill`, and cropped to their size anywhere."""
    pixels.check('pad_crop.padding', padding, whole=True)
    starts = jnp.floor((2 * padding + 1) * pixels.uniform(keys, 2)).astype(int)
    return pad_and_crop(images, starts, padding, fill)


def pad_and_crop(images: jax.Array, starts: jax.Array, padding: int, fill: float = 0.0) -> jax.Array:
    """Images [B, H, W, C] padded, then cropped to [H, W] from the row and the column `starts` int [B, 2]."""
    frame = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    padded = jnp.pad(images, frame, constant_values=pixels.stored(fill, images.dtype))

    def cropped(image, start):
        return jax.lax.dynamic_slice(image, (start[0], start[1], 0), images.shape[1:])

    return jax.vmap(cropped)(padded, starts)


def random_resized_crop(
    keys: Any, images: jax.Array, area: tuple[float, float] = (0.08, 1.0), ratio: tuple[float, float] = (0.75, 4 / 3)
) -> jax.Array:
    """A box from images [B, H, W, C], scaled up to their size.

    Args:
      keys: [B].
      images: integer or float.
      area: of the box, least and most, as a share of the image.
      ratio: of its width to its height, least and most, in units of the image's own ratio; its logarithm is drawn uniformly.
    """
    check_box('random_resized_crop', area, ratio)
    return resized_crop(images, boxes(keys, area, ratio))


def resized_crop(images: jax.Array, crops: jax.Array) -> jax.Array:
    """Boxes (top, left, height, width) float [B, 4], as shares of the image, scaled up to [H, W] with bilinear interpolation.

    A pixel at the border of the box blends with its neighbours outside the box, as in `jax.image.scale_and_translate` and PIL.
    """
    shape = images.shape[1:]
    scales = 1 / crops[:, 2:]
    shifts = -scales * crops[:, :2] * jnp.array(shape[:2], crops.dtype)[None]

    def cropped(image, scale, shift):
        return jax.image.scale_and_translate(image, shape, (0, 1), scale, shift, 'linear')

    return pixels.stored(jax.vmap(cropped)(pixels.working(images), scales, shifts), images.dtype)


def boxes(keys: Any, area: tuple[float, float], ratio: tuple[float, float]) -> jax.Array:
    """float32 [B, 4]: top, left, height and width of random boxes inside the image, as shares of its sides.

    Of ten boxes the first that fits is taken, as in torchvision; if none fits, the first is cut to the image.
    """
    draws = pixels.uniform(keys, 2 * _TRIES + 2)
    areas = area[0] + (area[1] - area[0]) * draws[:, :_TRIES]
    low, high = math.log(ratio[0]), math.log(ratio[1])
    ratios = jnp.exp(low + (high - low) * draws[:, _TRIES:-2])
    sides = jnp.sqrt(jnp.stack([areas / ratios, areas * ratios], -1))  # [B, tries, 2]
    first = jnp.argmax((sides <= 1).all(-1), 1)
    side = jnp.minimum(jnp.take_along_axis(sides, first[:, None, None], 1)[:, 0], 1)
    return jnp.concatenate([(1 - side) * draws[:, -2:], side], 1)


def check_box(name: str, area: tuple[float, float], ratio: tuple[float, float]) -> None:
    """Refuses ranges that no box can have; `name` is the augmentation."""
    for field, bounds, most in (('area', area, 1), ('ratio', ratio, math.inf)):
        if len(bounds) != 2 or not 0 < bounds[0] <= bounds[1] <= most or math.isinf(bounds[1]):
            limit = ', at most 1' if most == 1 else ''
            raise ConfigError(f'augment.{name}.{field} is {bounds}, expected two numbers above 0, least and most{limit}.')
