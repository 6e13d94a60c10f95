"""Random bits by key, the same as jax.random's, in one pass over the elements on CPU.

jax unrolls Threefry (Salmon et al. 2011, Parallel random numbers: as easy as 1, 2, 3) on GPU and TPU. On CPU it keeps a loop,
whose every turn writes two arrays.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from research.layers import formulation

# Of Threefry 2x32, by which the second word is rotated (table 2), and Skein's parity.
_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = 0x1BD11BDA


def bernoulli(keys: jax.Array, share: jax.Array, shape: Sequence[int]) -> jax.Array:
    """`jax.random.bernoulli(key, share, shape)` of each key, bit by bit.

    Args:
      keys: typed keys [B].
      share: float32 [], of True.
      shape: of what one key draws.

    Returns:
      bool [B, *shape].
    """
    threefry = str(jax.random.key_impl(keys)) == 'threefry2x32' and jax.config.jax_threefry_partitionable
    if not threefry or not formulation.unrolls_draws() or math.prod(shape) >= 2**32:
        return jax.vmap(lambda key: jax.random.bernoulli(key, share, shape))(keys)
    numbers = jnp.arange(math.prod(shape), dtype=jnp.uint32).reshape(1, *shape)
    words = jnp.split(jax.random.key_data(keys).reshape(len(keys), 2, *(1 for _ in shape)), 2, axis=1)
    bits = _threefry(*(word[:, 0] for word in words), numbers)
    # As jax.random.uniform: 23 bits are the fraction of a number in [1, 2).
    return jax.lax.bitcast_convert_type(bits >> np.uint32(9) | np.uint32(0x3F800000), jnp.float32) - 1 < share


def _threefry(first: jax.Array, second: jax.Array, numbers: jax.Array) -> jax.Array:
    """Both words of the block for a counter below 2^32, joined by xor; keys and numbers are uint32 and broadcast."""
    schedule = (first, second, first ^ second ^ np.uint32(_PARITY))
    a, b = jnp.broadcast_arrays(first, second + numbers)
    for turn in range(1, 6):
        for rotation in _ROTATIONS[(turn + 1) % 2]:
            a = a + b
            b = a ^ (b << np.uint32(rotation) | b >> np.uint32(32 - rotation))
        a = a + schedule[turn % 3]
        b = b + schedule[(turn + 1) % 3] + np.uint32(turn)
    return a ^ b
