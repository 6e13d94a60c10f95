"""Where tokens stand: counts, and three ways to tell a network. B examples, T tokens, D features, N heads of H features."""

import math

import jax
import jax.numpy as jnp

from research.catalogue import ConfigError

# Of the Transformers that generate texts; each says what it does with them.
POSITIONS = ('sinusoidal', 'learned', 'rotary')


def check_length(what: str, length: int, most: int) -> None:
    """Raises ConfigError where `what` have more tokens than there are learned positions."""
    if length > most:
        raise ConfigError(
            f'{what} of {length} tokens, and there are learned positions for {most}: cut the texts, or raise max_length.'
        )


def counted(length: int, mask: jax.Array | None = None, packed: jax.Array | None = None) -> jax.Array:
    """Positions from 0, int `[1, T]`, or `[B, T]` where texts differ.

    Args:
      length: T.
      mask: bool `[B, T]`, True on tokens that count; None for all.
      packed: int `[B, T]`, which of several texts in a row a token belongs to; each is counted anew.
    """
    places = jnp.arange(length)[None]
    before = places if mask is None else jnp.cumsum(mask, axis=1, dtype=jnp.int32) - mask
    if packed is None:
        return before
    new = jnp.pad(packed[:, 1:] != packed[:, :-1], ((0, 0), (1, 0)))
    return before - jax.lax.cummax(jnp.where(new, before, 0), axis=1)


def sinusoidal(positions: jax.Array, features: int, base: float = 10000.0) -> jax.Array:
    """Sines and cosines by turns, of wavelengths from 2 pi to base times that (Vaswani et al. 2017, section 3.5).

    Args:
      positions: int `[B, T]`, or `[1, T]`.
      features: D.
      base: ratio of the longest wavelength to the shortest.

    Returns:
      float32 `[B, T, D]` or `[1, T, D]`: feature 2i is the sine of the position over base^(2i / D), 2i + 1 its cosine.
    """
    speeds = base ** -(jnp.arange(0, features, 2, dtype=jnp.float32) / features)
    angles = positions.astype(jnp.float32)[:, :, None] * speeds[None, None, :]
    waves = jnp.stack([jnp.sin(angles), jnp.cos(angles)], axis=-1)
    return waves.reshape(*positions.shape, 2 * len(speeds))[..., :features]


def rotary(x: jax.Array, positions: jax.Array, base: float = 10000.0) -> jax.Array:
    """Queries or keys turned by their positions, so that scores depend on distances (Su et al. 2021, RoFormer, as in Llama).

    Args:
      x: `[B, T, N, H]`, H even. Feature i is turned together with feature i + H / 2.
      positions: int `[B, T]`, or `[1, T]` if they are the same for all examples.
      base: the slowest pair of features turns by base^(2 / H - 1) radians a position.

    Returns:
      The shape and dtype of `x`; angles and products are in float32 or wider.

    Raises:
      ConfigError: H is odd.
    """
    if x.shape[-1] % 2:
        raise ConfigError(f'Rotary positions turn pairs of features, and a head has {x.shape[-1]}: choose an even number.')
    dtype, half = jnp.promote_types(x.dtype, jnp.float32), x.shape[-1] // 2
    speeds = base ** -(jnp.arange(half, dtype=dtype) / half)
    angles = positions.astype(dtype)[:, :, None, None] * speeds[None, None, None, :]
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    first, second = jnp.split(x.astype(dtype), 2, axis=-1)
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1).astype(x.dtype)


def alibi(heads: int, queries: jax.Array, keys: jax.Array) -> jax.Array:
    """Bias against distance, steeper from head to head (Press et al. 2022); the same in both directions.

    Args:
      heads: N.
      queries, keys: positions, int `[B, T]` and `[B, S]`, or with 1 for B.

    Returns:
      float32 `[B, N, T, S]`. Slopes are 2^(-8 n / N), n from 1; where N is no power of two, those of the power below,
      followed by every other one of the power above.
    """
    power = 2 ** int(math.log2(heads))
    slopes = [2 ** (-8 * n / power) for n in range(1, power + 1)]
    slopes += [2 ** (-4 * n / power) for n in range(1, 2 * power, 2)][: heads - power]
    distances = jnp.abs(queries[:, None, :, None] - keys[:, None, None, :])
    return -jnp.asarray(slopes, jnp.float32)[None, :, None, None] * distances
