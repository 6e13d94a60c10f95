"""Policies: each image gets operations that are drawn from a list, each at a drawn or a given strength.

Idea: many different changes are worth more than one that is tuned, and a policy leaves next to nothing to tune.

Sources: `randaugment` Cubuk et al. 2020 (RandAugment, section 3), with torchvision's ranges and its magnitudes from 0 to 30;
`trivialaugment` Müller and Hutter 2021 (TrivialAugment, algorithm 1, wide space); `augmix` Hendrycks et al. 2020 (AugMix,
algorithm 1), for images alone: without the Jensen-Shannon loss.

Config: {'augment.names': ('randaugment',), 'augment.randaugment.magnitude': 9}, and likewise for the others.

Cost: a CPU computes only what was drawn, image by image; other devices compute every operation for every image and keep one.
Claim: 77.6 instead of 76.3 % for a ResNet-50 on ImageNet (RandAugment, table 3), which TrivialAugment equals without a search;
11.2 instead of 26.9 % errors of a Wide-ResNet on corrupted CIFAR-10 (AugMix with its loss, table 1).

Effect: `randaugment` +3.00 points (2.64 to 3.35), and none shown with `cutmix` behind it (a small CNN on 600 images of
Fashion-MNIST, 60 epochs, ten seeds, configs/augmentation.py); -1.21 and -6.80 on 6,000 images in 6 epochs,
-1.06 and -4.02 on 55,000 in 2.

Nothing changes with `operations` 0, `strength` 0, and `width` or `depth` 0. A `magnitude` or a `severity` of 0 still lets
autocontrast and equalize through, which have no strength, and in AugMix posterize. Moved pixels are interpolated, and pixels
from outside are black. Floats should lie in [0, 1]. Saturation needs three channels and leaves other images as they are.
Clashes: other augmentations of colour or geometry beside one of these, which add to its strength.

Letters: B images, H rows, W columns, C channels; N operations, one after the other.
"""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from research.augment import affine, colors, mixing, pixels, tones


def randaugment(keys: Any, images: jax.Array, operations: int = 2, magnitude: float = 9) -> jax.Array:
    """`operations` out of 14, one after the other, all of the same `magnitude` from 0 to 30."""
    pixels.check('randaugment.operations', operations, whole=True)
    pixels.check('randaugment.magnitude', magnitude, most=30)
    height, width = images.shape[1:3]
    space = _space(shear=0.3, across=150 / 331 * width, down=150 / 331 * height, degrees=30, factor=0.9, bits=(0, 4))
    picks, signs = pixels.uniform(keys, 2 * operations).reshape(len(images), 2, operations).swapaxes(0, 1)
    return _chain(images, space, _choices(picks, len(space)), jnp.full(picks.shape, magnitude / 30, jnp.float32), signs)


def trivialaugment(keys: Any, images: jax.Array, strength: float = 1.0) -> jax.Array:
    """One operation out of 14 at one of 31 magnitudes, both drawn.

    `strength` from 0 to 1 multiplies every amount; autocontrast and equalize, which have none, it blends with the image.
    """
    pixels.check('trivialaugment.strength', strength, most=1)
    wide = _space(shear=0.99, across=32, down=32, degrees=135, factor=0.99, bits=(0, 6))
    space = {name: (strength * least, strength * most) for name, (least, most) in wide.items()}
    picks, magnitudes, signs = pixels.uniform(keys, 3)[..., None].swapaxes(0, 1)
    return _chain(images, space, _choices(picks, len(space)), _choices(magnitudes, 31) / 30, signs)


def augmix(keys: Any, images: jax.Array, severity: float = 3, width: int = 3, depth: int = 3, alpha: float = 1.0) -> jax.Array:
    """The image blended with `width` chains of 1 to `depth` operations out of 9, of magnitudes up to `severity` of 10.

    The weights of the chains are Dirichlet(alpha, ..., alpha), and the share of the image Beta(alpha, alpha).
    """
    pixels.check('augmix.severity', severity, most=10)
    pixels.check('augmix.width', width, whole=True)
    pixels.check('augmix.depth', depth, whole=True)
    pixels.check('augmix.alpha', alpha, least=1e-3)
    if not width or not depth:
        return images
    batch, rows, columns, _ = images.shape
    space = _space(shear=0.3, across=columns / 3, down=rows / 3, degrees=30, factor=0, bits=(4, 8))
    tested = ('brightness', 'saturation', 'contrast', 'sharpness')  # they resemble the corruptions of its benchmarks
    space = {name: amounts for name, amounts in space.items() if name not in tested}
    drawn = pixels.uniform(keys, width * (3 * depth + 2))
    lengths = 1 + _choices(drawn[:, :width], depth).reshape(-1, 1)
    picks, magnitudes, signs = drawn[:, width:-width].reshape(batch, 3, width, depth).swapaxes(0, 1).reshape(3, -1, depth)
    # Identity is the last of the space: it is not picked, and stands behind the end of a short chain.
    choices = jnp.where(jnp.arange(depth)[None] < lengths, _choices(picks, len(space) - 1), len(space) - 1)
    strengths = (min(0.1, severity) + max(0, severity - 0.1) * magnitudes) / 10
    chains = _chain(jnp.repeat(images, width, 0), space, choices, strengths, signs).reshape(batch, width, *images.shape[1:])
    weights = _dirichlet(drawn[:, -width:-1], alpha)
    mixed = sum(weights[:, i, None, None, None] * pixels.working(chains[:, i]) for i in range(width))
    return colors.blend(images, mixed, mixing.beta(drawn[:, -1], alpha, alpha))


# The tables: what an operation does with amounts [B], in its own unit. Of an amount of 0 none changes anything.

# Where pixels are read: amounts, H, W -> six entries of `affine.matrices`. Shears hold the upper left corner, and
# moves are by whole pixels.
_MOVES: Mapping[str, Callable[..., tuple[Any, ...]]] = {
    'shear_x': lambda a, h, w: (1, a, a * h / 2, 0, 1, 0),
    'shear_y': lambda a, h, w: (1, 0, 0, a, 1, a * w / 2),
    'translate_x': lambda a, h, w: (1, 0, -jnp.trunc(a), 0, 1, 0),
    'translate_y': lambda a, h, w: (1, 0, 0, 0, 1, -jnp.trunc(a)),
    'rotate': lambda a, h, w: (jnp.cos(a), -jnp.sin(a), 0, jnp.sin(a), jnp.cos(a), 0),  # radians
}
# Values: images, amounts -> images.
_TONES: Mapping[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
    'brightness': lambda images, a: colors.adjust_brightness(images, 1 + a),
    'saturation': lambda images, a: colors.adjust_saturation(images, 1 + a),
    'contrast': lambda images, a: colors.adjust_contrast(images, 1 + a),
    'sharpness': lambda images, a: tones.sharpness(images, 1 + a),
    'posterize': lambda images, a: tones.posterize(images, 8 - jnp.round(a)),
    'solarize': lambda images, a: tones.solarize(images, jnp.where(a > 0, pixels.top(images.dtype) * (1 - a), jnp.inf)),
    'autocontrast': lambda images, a: colors.blend(images, pixels.working(tones.autocontrast(images)), 1 - a),
    'equalize': lambda images, a: colors.blend(images, pixels.working(tones.equalize(images)), 1 - a),
    'identity': lambda images, a: images,
}
# Their amounts have either sign.
_SIGNED = (*_MOVES, 'brightness', 'saturation', 'contrast', 'sharpness')


def operate(name: str, images: jax.Array, amounts: jax.Array) -> jax.Array:
    """An operation of the tables on images [B, H, W, C], in amounts [B]."""
    if name in _TONES:
        return _TONES[name](images, amounts)
    return affine.transform(images, affine.matrices(*_MOVES[name](amounts, *images.shape[1:3])))


def _space(
    shear: float, across: float, down: float, degrees: float, factor: float, bits: tuple[float, float]
) -> dict[str, tuple[float, float]]:
    """Each operation's amount at strength 0 and at strength 1; those without a strength are always done in full."""
    return {
        'shear_x': (0, shear),
        'shear_y': (0, shear),
        'translate_x': (0, across),
        'translate_y': (0, down),
        'rotate': (0, math.radians(degrees)),
        'brightness': (0, factor),
        'saturation': (0, factor),
        'contrast': (0, factor),
        'sharpness': (0, factor),
        'posterize': bits,
        'solarize': (0, 1),
        'autocontrast': (1, 1),
        'equalize': (1, 1),
        'identity': (0, 0),
    }


def _choices(uniforms: jax.Array, count: int) -> jax.Array:
    """float32 in [0, 1) -> whole numbers below `count`."""
    return (count * uniforms).astype(int)


def _dirichlet(uniforms: jax.Array, alpha: float) -> jax.Array:
    """float32 [B, N - 1] in [0, 1) -> weights [B, N] from Dirichlet(alpha, ..., alpha): pieces are broken off a stick."""
    count, rest, pieces = uniforms.shape[1] + 1, jnp.ones(len(uniforms), jnp.float32), []
    for index in range(count - 1):
        broken = rest * mixing.beta(uniforms[:, index], alpha, (count - 1 - index) * alpha)
        pieces, rest = [*pieces, broken], rest - broken
    return jnp.stack([*pieces, rest], 1)


def _chain(
    images: jax.Array, space: Mapping[str, tuple[float, float]], choices: jax.Array, strengths: jax.Array, signs: jax.Array
) -> jax.Array:
    """The operations of each image, one after the other.

    Args:
      images: [B, H, W, C].
      space: amounts at strength 0 and 1.
      choices: int [B, N], places in the space.
      strengths: float [B, N] from 0 to 1.
      signs: float [B, N] in [0, 1), which say the sign of an amount that has one.
    """
    least, most = jnp.array(list(space.values()), jnp.float32).T
    amounts = least[choices] + strengths * (most - least)[choices]
    signed = jnp.array([name in _SIGNED for name in space])[choices]
    amounts = jnp.where(signed & (signs < 0.5), -amounts, amounts)
    branches = [functools.partial(operate, name) for name in space]

    def row(image, choices, amounts):  # [H, W, C], [N], [N]
        def step(images, drawn):
            choice, amount = drawn
            return jax.lax.switch(choice, branches, images, amount[None]), None

        return jax.lax.scan(step, image[None], (choices, amounts))[0][0]

    # Row by row a CPU computes only what was chosen, in a tenth of the time; under `vmap` every operation is computed for all.
    def one_by_one(*rows):
        return jax.lax.map(lambda drawn: row(*drawn), rows)

    return jax.lax.platform_dependent(images, choices, amounts, cpu=one_by_one, default=jax.vmap(row))
