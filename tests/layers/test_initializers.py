import chex
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


@pytest.mark.parametrize('shape', [(4, 6), (2, 3, 6), (2, 1, 3, 6), (0, 3, 6)])
def test_dense_is_flax_dense(shape):
    """On more than one axis of rows the product is over one: equal, and with a gradient of the same numbers."""
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    ours, theirs = Dense(3, name='head'), nn.Dense(3, name='head', kernel_init=initializers.lecun_normal())
    variables, expected = (jax.jit(layer.init)(jax.random.key(0), x) for layer in (ours, theirs))
    jax.tree.map(np.testing.assert_array_equal, variables, expected)

    def both(layer):
        def output(variables, x):
            y = layer.apply(variables, x)
            return jnp.sin(y).sum(), y

        return jax.jit(jax.value_and_grad(output, (0, 1), has_aux=True))(variables, x)

    chex.assert_trees_all_close(both(ours), both(theirs), rtol=1e-6, atol=1e-6)


def test_the_gradient_of_a_kernel_sums_over_one_axis():
    """Over two, XLA transposes an array first."""
    x, layer = jnp.ones((2, 3, 6)), Dense(3)
    variables = layer.init(jax.random.key(0), x)
    gradient = str(jax.make_jaxpr(jax.grad(lambda variables: layer.apply(variables, x).sum()))(variables))
    assert 'dimension_numbers=(([0], [0])' in gradient and '([0, 1], [0, 1])' not in gradient
