"""Random bits in one pass: jax's own, for any shape, share and kind of key."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.layers import draws, formulation

KEYS = jax.random.split(jax.random.key(3), 5)


@pytest.mark.parametrize('shape', [(), (1,), (7,), (4, 3, 5)])
@pytest.mark.parametrize('share', [0.9, 0.5, 1e-7, 1.0])
def test_the_bits_of_jax(shape, share):
    drawn = jax.jit(draws.bernoulli, static_argnums=2)(KEYS, jnp.float32(share), shape)
    expected = jax.vmap(lambda key: jax.random.bernoulli(key, jnp.float32(share), shape))(KEYS)
    assert drawn.shape == (5, *shape) and drawn.dtype == bool
    np.testing.assert_array_equal(drawn, expected)


def test_no_loop_of_rounds_where_it_can_be_unrolled():
    """On CPU jax lowers its own primitive to a loop; other keys and other backends stay jax's."""

    def program(keys):
        return str(jax.make_jaxpr(lambda keys: draws.bernoulli(keys, jnp.float32(0.9), (64,)))(keys))

    others = jax.random.split(jax.random.key(3, impl='rbg'), 5)
    assert 'random_bits' not in program(KEYS) and 'random_bits' in program(others)
    with formulation.plain():
        assert 'random_bits' in program(KEYS)
    jax.config.update('jax_threefry_partitionable', False)
    try:
        assert 'random_bits' in program(KEYS)
    finally:
        jax.config.update('jax_threefry_partitionable', True)
