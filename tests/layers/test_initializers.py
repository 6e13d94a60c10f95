import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.layers import initializers
from research.layers.dense import Dense

PAIRS = {
    'he_normal': jax.nn.initializers.he_normal(),
    'he_normal_fan_out': jax.nn.initializers.variance_scaling(2.0, 'fan_out', 'truncated_normal'),
    'lecun_normal': jax.nn.initializers.lecun_normal(),
    'glorot_normal': jax.nn.initializers.glorot_normal(),
    'truncated_normal': jax.nn.initializers.truncated_normal(0.02),
}


@pytest.mark.parametrize('name', PAIRS)
@pytest.mark.parametrize('shape', [(3, 3, 4, 5), (7, 6), (1, 1, 8, 2)])
def test_the_bits_of_jax_in_any_shape(name, shape):
    key = jax.random.key(3)
    both = getattr(initializers, name)(), PAIRS[name]
    ours, theirs = (jax.jit(f, static_argnums=(1, 2))(key, shape, jnp.float32) for f in both)
    assert ours.shape == shape and ours.dtype == jnp.float32
    np.testing.assert_array_equal(ours, theirs)


def test_every_initializer_that_is_offered_is_compared():
    offered = {name for name in vars(initializers) if name.endswith('_normal') or name.startswith('he_normal')}
    assert offered == set(PAIRS)


def test_dense_is_flax_dense():
    x = np.random.default_rng(0).standard_normal((4, 6)).astype(np.float32)
    ours, theirs = Dense(3, name='head'), nn.Dense(3, name='head')
    variables, expected = (jax.jit(layer.init)(jax.random.key(0), x) for layer in (ours, theirs))
    jax.tree.map(np.testing.assert_array_equal, variables, expected)
    np.testing.assert_array_equal(*(jax.jit(layer.apply)(variables, x) for layer in (ours, theirs)))
