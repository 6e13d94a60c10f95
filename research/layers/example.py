"""Random keys per example: they depend on its position in the run, not on the batch or the device that it is in."""

import zlib
from typing import NamedTuple

import jax
import jax.numpy as jnp


def key_of(rng: jax.Array, purpose: str) -> jax.Array:
    """The typed key [] for one purpose, from the seed's typed key []; two purposes never share draws."""
    return jax.random.fold_in(rng, zlib.crc32(purpose.encode()))


def example_keys(rng: jax.Array, purpose: str, positions: jax.Array) -> jax.Array:
    """One key per example, independent of batch, device and engine.

    Args:
      rng: the seed's typed key [].
      purpose: what is drawn.
      positions: uint32 [B, 2], the high and the low half of each position (one fold_in would overflow at 2^32).

    Returns:
      Typed keys [B].
    """
    purpose_key = key_of(rng, purpose)
    return jax.vmap(lambda p: jax.random.fold_in(jax.random.fold_in(purpose_key, p[0]), p[1]))(positions)


def batch_key(rng: jax.Array, purpose: str, positions: jax.Array) -> jax.Array:
    """One typed key [] for a whole batch, by the position of its first example; arguments as of `example_keys`."""
    return example_keys(rng, purpose, positions[:1])[0]


def numbered_keys(purpose: str, numbers: jax.Array) -> jax.Array:
    """Typed keys [B] for rows of the data set, int [B]: the same in every evaluation, for all variants and seeds."""
    low = numbers.astype(jnp.uint32)
    return example_keys(jax.random.key(0), purpose, jnp.stack([jnp.zeros_like(low), low], axis=-1))


class StepKeys(NamedTuple):
    """Keys of one step, the same on every device: `keys(purpose)` is a typed key [].

    Attributes:
      rng: the seed's typed key [].
      step: int32 [], updates done.
      loss_scale: float32 [], what the loss, and so its gradient, is multiplied by; 1.0 unless in float16.
    """

    rng: jax.Array
    step: jax.Array
    loss_scale: jax.Array | float = 1.0

    def __call__(self, purpose: str) -> jax.Array:
        """The typed key [] for one purpose of a gradient method."""
        return jax.random.fold_in(key_of(self.rng, f'gradient {purpose}'), self.step)
