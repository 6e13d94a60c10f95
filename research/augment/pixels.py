"""What augmentations of images share: the range of stored values, the draws of a row, and how a strength is refused.

Letters: B images, H rows, W columns, C channels; N draws.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp

from research.catalogue import ConfigError


def top(dtype: Any) -> float:
    """White: 255 in integer images, 1 in float images."""
    return 255.0 if jnp.issubdtype(dtype, jnp.integer) else 1.0


def working(images: jax.Array) -> jax.Array:
    """The images in the type to calculate in: float32, or float64 if they have it."""
    return images.astype(jnp.promote_types(images.dtype, jnp.float32))


def stored(values: Any, dtype: Any) -> jax.Array:
    """Values of any shape as pixels of a type: integers are rounded half to even and clipped to [0, 255], floats only cast."""
    if jnp.issubdtype(dtype, jnp.integer):
        values = jnp.clip(jnp.round(values), 0, 255)
    return jnp.asarray(values).astype(dtype)


def uniform(keys: Any, count: int) -> jax.Array:
    """float32 [B, N] in [0, 1), `count` numbers from each of the keys [B]."""
    return jax.vmap(lambda key: jax.random.uniform(key, (count,), jnp.float32))(keys)


def check(argument: str, value: float, least: float = 0, most: float = math.inf, whole: bool = False) -> None:
    """Refuses a strength outside [least, most], or one that is not whole; `argument` is its name below `augment`."""
    if not least <= value <= most or math.isinf(value) or (whole and value % 1):
        expected = f'from {least} to {most}' if most < math.inf else f'of {least} or more'
        kind = 'a whole number' if whole else 'a number'
        raise ConfigError(f'augment.{argument} is {value}, expected {kind} {expected}.')
