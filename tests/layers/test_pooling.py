import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from research.layers import formulation
from research.layers.pooling import adaptive_avg_pool, avg_pool, max_pool

PADDINGS = st.one_of(st.sampled_from(['SAME', 'VALID']), st.tuples(*[st.tuples(st.integers(0, 1), st.integers(0, 1))] * 2))


def value_and_gradient(f, x):
    @jax.jit
    def together(x):
        y, vjp = jax.vjp(f, x)
        weights = np.random.default_rng(1).standard_normal(y.shape).astype(np.float32)
        return y, vjp(jnp.asarray(weights))[0]

    return together(x)


@settings(max_examples=10, deadline=None)
@given(
    batch=st.integers(1, 3),
    size=st.tuples(st.integers(3, 9), st.integers(3, 9)),
    window=st.tuples(st.integers(2, 3), st.integers(2, 3)),
    stride=st.sampled_from([2, 2, 1, 3]),
    padding=PADDINGS,
    ties=st.booleans(),
)
def test_max_pool_is_that_of_flax_ties_and_gradient_included(batch, size, window, stride, padding, ties):
    x = np.random.default_rng(0).standard_normal((batch, *size, 2)).astype(np.float32)
    x = np.maximum(np.round(x), 0) if ties else x
    strides = (stride, stride)
    y, dx = value_and_gradient(lambda x: max_pool(x, window, strides, padding), x)
    expected, expected_dx = value_and_gradient(lambda x: nn.max_pool(x, window, strides, padding), x)
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_allclose(dx, expected_dx, atol=1e-6)


@pytest.mark.parametrize('dtype', [np.int32, np.uint8])
def test_max_pool_of_integers_is_that_of_floats(dtype):
    x = np.random.default_rng(0).integers(0 if dtype == np.uint8 else -99, 99, (2, 7, 6, 3)).astype(dtype)
    y = max_pool(x, (3, 3), (2, 2), 'SAME')
    assert y.dtype == dtype
    np.testing.assert_array_equal(y, max_pool(x.astype(np.float32), (3, 3), (2, 2), 'SAME'))


@pytest.mark.parametrize('window, padding', [((2, 2), 'VALID'), ((3, 3), ((1, 1), (1, 1)))])
def test_plain_gives_the_same_numbers_without_a_custom_gradient(window, padding):
    x = np.random.default_rng(0).standard_normal((2, 8, 7, 3)).astype(np.float32)

    def gradient(x):
        return value_and_gradient(lambda x: max_pool(x, window, (2, 2), padding), x)

    fast = gradient(x)
    with formulation.plain():
        plain, program = gradient(x), str(jax.make_jaxpr(gradient)(x))
    np.testing.assert_array_equal(fast[0], plain[0])
    np.testing.assert_allclose(fast[1], plain[1], atol=1e-6)
    assert 'select_and_scatter' in program and 'select_and_scatter' not in str(jax.make_jaxpr(gradient)(x))


def test_a_batch_split_over_devices_stays_split():
    x = np.random.default_rng(0).standard_normal((8, 6, 6, 2)).astype(np.float32)
    split = NamedSharding(jax.make_mesh((4,), ('data',), axis_types=(AxisType.Auto,)), P('data'))
    step = jax.jit(lambda x: value_and_gradient(lambda x: max_pool(x, (3, 3), (2, 2), 'SAME'), x))
    results, expected = step(jax.device_put(x, split)), step(x)
    for result, e in zip(results, expected, strict=True):
        np.testing.assert_allclose(result, e, atol=1e-6)
        assert result.sharding.is_equivalent_to(split, 4)


@pytest.mark.parametrize(
    'transform', [jax.checkpoint, lambda f: lambda x: jax.vmap(f)(x[:, None])[:, 0]], ids=['checkpoint', 'vmap']
)
def test_transformations_leave_value_and_gradient_alone(transform):
    x = np.random.default_rng(0).standard_normal((2, 7, 6, 2)).astype(np.float32)

    def f(x):
        return max_pool(x, (2, 2), (2, 2))

    for result, expected in zip(
        jax.jit(lambda x: value_and_gradient(transform(f), x))(x), value_and_gradient(f, x), strict=True
    ):
        np.testing.assert_allclose(result, expected, atol=1e-6)


def test_avg_pool_is_the_mean_of_each_window():
    x = np.random.default_rng(0).standard_normal((2, 4, 6, 3)).astype(np.float32)
    np.testing.assert_allclose(avg_pool(x, (2, 2), (2, 2)), x.reshape(2, 2, 2, 3, 2, 3).mean((2, 4)), atol=1e-6)
    ones = avg_pool(np.ones((1, 3, 3, 1), np.float32), (3, 3), (1, 1), 'SAME', count_include_pad=False)
    np.testing.assert_allclose(ones, 1, atol=1e-6)


@settings(max_examples=10, deadline=None)
@given(rows=st.integers(1, 15), columns=st.integers(1, 15), size=st.integers(1, 7))
def test_adaptive_avg_pool_is_the_mean_of_each_part(rows, columns, size):
    x = np.random.default_rng(0).standard_normal((2, rows, columns, 3)).astype(np.float32)
    row, column = ([slice(i * n // size, -(-(i + 1) * n // size)) for i in range(size)] for n in (rows, columns))
    expected = np.stack([np.stack([x[:, r, c].mean((1, 2)) for c in column], 1) for r in row], 1)
    np.testing.assert_allclose(jax.jit(adaptive_avg_pool, static_argnums=1)(x, size), expected, atol=1e-6)


def test_adaptive_avg_pool_of_a_map_of_its_size_is_the_map():
    x = jnp.zeros((2, 4, 4, 3))
    assert adaptive_avg_pool(x, 4) is x


@pytest.mark.parity
@pytest.mark.parametrize('rows, columns, size', [(1, 2, 7), (7, 5, 6), (9, 14, 7), (14, 13, 4)])
def test_adaptive_avg_pool_is_that_of_torch_gradient_included(rows, columns, size):
    torch = pytest.importorskip('torch')
    x = np.random.default_rng(0).standard_normal((2, rows, columns, 3)).astype(np.float32)
    tx = torch.tensor(x.transpose(0, 3, 1, 2), requires_grad=True)
    ty = torch.nn.functional.adaptive_avg_pool2d(tx, size)
    y, dx = value_and_gradient(lambda x: adaptive_avg_pool(x, size), x)
    ty.backward(torch.tensor(np.random.default_rng(1).standard_normal(y.shape).astype(np.float32).transpose(0, 3, 1, 2)))
    np.testing.assert_allclose(y, ty.detach().permute(0, 2, 3, 1), atol=1e-6)
    np.testing.assert_allclose(dx, tx.grad.permute(0, 2, 3, 1), atol=1e-5)


@pytest.mark.parity
@pytest.mark.parametrize('window, stride, padding', [(2, 2, 0), (3, 2, 1)])
def test_torch(window, stride, padding):
    torch = pytest.importorskip('torch')
    x = np.random.default_rng(0).standard_normal((2, 9, 8, 3)).astype(np.float32)
    tx = torch.tensor(x.transpose(0, 3, 1, 2), requires_grad=True)
    ty = torch.nn.functional.max_pool2d(tx, window, stride, padding)
    y, dx = value_and_gradient(lambda x: max_pool(x, (window,) * 2, (stride,) * 2, ((padding,) * 2,) * 2), x)
    ty.backward(torch.tensor(np.random.default_rng(1).standard_normal(y.shape).astype(np.float32).transpose(0, 3, 1, 2)))
    np.testing.assert_array_equal(y, ty.detach().permute(0, 2, 3, 1))
    np.testing.assert_allclose(dx, tx.grad.permute(0, 2, 3, 1), atol=1e-6)
