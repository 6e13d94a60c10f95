"""Keys by example: what is drawn belongs to an example's position in the run, not to the batch or the device that it meets."""

import zlib

import jax


def key_of(rng: jax.Array, purpose: str) -> jax.Array:
    """The seed's key for one purpose; two purposes never share draws."""
    return jax.random.fold_in(rng, zlib.crc32(purpose.encode()))


def example_keys(rng: jax.Array, purpose: str, positions: jax.Array) -> jax.Array:
    """One key an example, whatever the batch, the device or the engine that it meets.

    Args:
      rng: the seed's typed key [].
      purpose: what is drawn.
      positions: uint32 [B, 2], the high and the low half of each position (one fold_in would overflow at 2^32).

    Returns:
      Typed keys [B].
    """
    purpose_key = key_of(rng, purpose)
    return jax.vmap(lambda p: jax.random.fold_in(jax.random.fold_in(purpose_key, p[0]), p[1]))(positions)
