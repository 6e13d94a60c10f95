"""Mixing: two examples become blends of both, and so do their labels.

Idea: a network that is linear between examples, or that finds a class in a part of the image, is less sure where it should not
be, and generalizes better.

Sources: `mixup` Zhang et al. 2018 (mixup: beyond empirical risk minimization, section 2); `cutmix` Yun et al. 2019 (CutMix,
section 3.1 and algorithm A1).

Config: {'augment.names': ('mixup',), 'augment.mixup.alpha': 0.2}, and likewise `cutmix`.

Cost: next to nothing. Claim: errors of a ResNet-50 on ImageNet fall from 23.5 to 23.3 % in 90 epochs and from 23.6 to 22.1 % in
200 (mixup, table 1), and from 23.7 to 21.4 % in 300 (CutMix, table 3).

Effect: `mixup` +0.70 points (0.33 to 1.08), `cutmix` +1.54 (1.21 to 1.89) (a small CNN on 600 images of Fashion-MNIST, ten
seeds, configs/augmentation.py). In 6 epochs of 6,000 images `cutmix` costs 3.13, `mixup` none shown.

Rows 2k and 2k + 1 are partners, so that they share a device; the papers draw a permutation, which the random order of examples
stands for. One share is drawn for a pair, from the key of its first row: that row keeps this share of itself, and the other
row is the mirror image. Accuracy is counted by `label`, which stays. A pair with padding is left unmixed.
Clashes: losses that need one class for each example.

Letters: B examples, H rows, W columns, C channels, K classes.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special

from research.augment import pixels
from research.catalogue import ConfigError


def mixup(
    keys: Any, batch: Mapping[str, Any], num_classes: int = 0, alpha: float = 0.2, facts: Mapping[str, Any] | None = None
) -> Mapping[str, Any]:
    """Pixels and labels of two examples blended, in shares from Beta(alpha, alpha).

    Args:
      keys: [B], B even.
      batch: 'image' [B, H, W, C], 'valid' [B], and 'target' float [B, K] or else 'label' int [B].
      num_classes: K where there is no 'target'; 0 is the number of classes of the data.
      alpha: small is mostly one of the two, 1 any share alike; 0 is off.
      facts: of the data.

    Returns:
      The batch with 'image' mixed, and 'target' float32 [B, K] beside 'label' as it was.
    """
    target = _target('mixup', batch, num_classes, alpha, facts)
    if not alpha:
        return batch
    share = _both(beta(pixels.uniform(keys[::2], 1)[:, 0], alpha, alpha), batch['valid'])
    return _mixed(batch, share[:, None, None, None], target, share)


def cutmix(
    keys: Any, batch: Mapping[str, Any], num_classes: int = 0, alpha: float = 1.0, facts: Mapping[str, Any] | None = None
) -> Mapping[str, Any]:
    """A box of each image is that of its partner, and labels are mixed by the area of the box.

    The box has the proportions of the image, its area is a share from Beta(alpha, alpha) and its centre is anywhere, so that a
    part of it may be lost beyond the edge. Arguments and result are those of `mixup`.
    """
    target = _target('cutmix', batch, num_classes, alpha, facts)
    if not alpha:
        return batch
    drawn = pixels.uniform(keys[::2], 3)
    area = beta(drawn[:, 0], alpha, alpha)
    height, width = batch['image'].shape[1:3]
    down, across = _within(height, area, drawn[:, 1]), _within(width, area, drawn[:, 2])  # [B / 2, H], [B / 2, W]
    own = _both(1.0 - (down[:, :, None] & across[:, None, :]), batch['valid'])
    return _mixed(batch, own[..., None], target, own.mean((1, 2)))


def beta(uniforms: jax.Array, a: float, b: float) -> jax.Array:
    """float32 in [0, 1), any shape -> from Beta(a, b), each from its own number.

    The inverse of the distribution function is read from a table. Between its knots the function is off by less than their
    distance, 1/4096, whatever a and b are; jax.random.beta takes 30 times as long to compile.
    """
    knots = np.linspace(0, 1, 4097)
    return jnp.interp(
        uniforms, jnp.asarray(knots, jnp.float32), jnp.asarray(scipy.special.betaincinv(a, b, knots), jnp.float32)
    )


def _target(name: str, batch: Mapping[str, Any], num_classes: int, alpha: float, facts: Mapping[str, Any] | None) -> jax.Array:
    """What is to be mixed as 'target', float32 [B, K], once all arguments are found to be right."""
    pixels.check(f'{name}.alpha', alpha)
    if 'image' not in batch or not {'label', 'target'} & set(batch):
        raise ConfigError(
            f"Augmentation '{name}' mixes images and their labels, but the batch has the fields {', '.join(sorted(batch))}: "
            "expected 'image' and 'label', as of data for classification."
        )
    if len(batch['image']) % 2:
        raise ConfigError(
            f"Augmentation '{name}' mixes pairs of rows, but got {len(batch['image'])} rows at once: choose data.batch_size, "
            'train.devices and gradient.micro_batch so that every device has an even number of rows in each micro-batch.'
        )
    if 'target' in batch:
        return batch['target'].astype(jnp.float32)
    classes = num_classes or (facts or {}).get('classes', 0)
    if not classes:
        raise ConfigError(f"Augmentation '{name}' has to know the number of classes: set augment.{name}.num_classes.")
    return jax.nn.one_hot(batch['label'], classes, dtype=jnp.float32)


def _both(shares: jax.Array, valid: jax.Array) -> jax.Array:
    """What a pair keeps of itself, [B / 2, ...] -> float32 [B, ...], which is all if one of the two is padding."""
    whole = jnp.repeat(valid.reshape(-1, 2).min(1) > 0, 2)
    return jnp.where(jnp.expand_dims(whole, range(1, shares.ndim)), jnp.repeat(shares, 2, 0), 1).astype(jnp.float32)


def _within(side: int, area: jax.Array, centre: jax.Array) -> jax.Array:
    """bool [B / 2, side], True along one side of a box of this share of the area [B / 2], its centre at a share of the side."""
    length = jnp.floor(side * jnp.sqrt(area))
    first = jnp.floor(side * centre) - jnp.floor(length / 2)
    places = jnp.arange(side)[None]
    return (places >= first[:, None]) & (places < (first + length)[:, None])


def _mixed(batch: Mapping[str, Any], own: jax.Array, target: jax.Array, share: jax.Array) -> Mapping[str, Any]:
    """The batch mixed with partners: `own` [B, H, W, 1] or [B, 1, 1, 1] is what stays of pixels, `share` [B] of the target."""

    def blended(values, kept):
        partner = values.reshape(-1, 2, *values.shape[1:])[:, ::-1].reshape(values.shape)
        return kept * values + (1 - kept) * partner

    image = pixels.stored(blended(pixels.working(batch['image']), own), batch['image'].dtype)
    return {**batch, 'image': image, 'target': blended(target, share[:, None])}
