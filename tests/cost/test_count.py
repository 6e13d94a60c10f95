"""FLOPs against counts by hand and against the compiler's own analysis."""

import itertools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax
from jax.sharding import AxisType, PartitionSpec

from research import cost
from research.layers import conv as layers


def array(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def convolution(strides=1, padding='SAME', groups=1, dilation=1):
    def convolve(x, kernel):
        return lax.conv_general_dilated(
            x, kernel, (strides, strides), padding, rhs_dilation=(dilation, dilation),
            dimension_numbers=('NHWC', 'HWIO', 'NHWC'), feature_group_count=groups)  # fmt: skip

    return convolve


def gradient(fn, argnums):
    """As in training: the loss is not linear, so the forward pass is needed too."""
    return jax.grad(lambda *args: jnp.sum(fn(*args) ** 2), argnums)


def compiler(fn, *args):
    return jax.jit(fn).lower(*args).cost_analysis()['flops']


def test_dense_by_hand():
    x, kernel = array(8, 100), array(100, 30)
    assert cost.multiply_adds(jnp.dot, x, kernel) == 8 * 100 * 30
    assert cost.flops(jnp.dot, x, kernel) == 2 * 8 * 100 * 30
    assert isinstance(cost.flops(jnp.dot, x, kernel), int)
    assert cost.multiply_adds(gradient(jnp.dot, (0, 1)), x, kernel) == 3 * 8 * 100 * 30


@pytest.mark.parametrize('equation, shapes', [
    ('bqhd,bkhd->bhqk', [(2, 7, 3, 5), (2, 11, 3, 5)]),
    ('ij,ij->', [(4, 6), (4, 6)]),
    ('ij,k->ijk', [(4, 6), (5,)]),
])  # fmt: skip
def test_products_cost_one_for_every_combination_of_indices(equation, shapes):
    def product(*args):
        return jnp.einsum(equation, *args)

    args = [array(*shape) for shape in shapes]
    sizes = dict(zip(equation.split('->')[0].replace(',', ''), itertools.chain(*shapes), strict=True))
    assert cost.multiply_adds(product, *args) == math.prod(sizes.values())


@pytest.mark.parametrize('convolve, kernel, out', [
    (convolution(), (3, 3, 16, 24), 32),
    (convolution(2), (3, 3, 16, 24), 16),
    (convolution(2, [(3, 3), (3, 3)]), (7, 7, 16, 24), 16),
    (convolution(1, 'VALID'), (5, 5, 16, 24), 28),
    (convolution(1, 'SAME', groups=16), (3, 3, 1, 16), 32),
    (convolution(2, 'SAME', groups=4), (3, 3, 4, 24), 16),
    (convolution(1, 'SAME', dilation=2), (3, 3, 16, 24), 32),
    (convolution(2), (1, 1, 16, 24), 16),
])  # fmt: skip
def test_convolutions_by_hand_and_their_gradients(convolve, kernel, out):
    """Each gradient is the same sum of products in another order, and costs what the convolution costs."""
    x, kernel = array(8, 32, 32, 16), array(*kernel)
    kh, kw, channels, features = kernel.shape
    forward = 8 * out * out * features * channels * kh * kw
    assert cost.multiply_adds(convolve, x, kernel) == forward
    assert cost.multiply_adds(gradient(convolve, 1), x, kernel) == 2 * forward
    if (kh, out) != (5, 28):  # without padding the sum for an input at the border has fewer products than taps
        assert cost.multiply_adds(gradient(convolve, 0), x, kernel) == 2 * forward


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 3), st.integers(1, 4), st.sampled_from([1, 2, 4]), st.integers(9, 16))
def test_without_padding_as_the_compiler(strides, size, groups, side):
    convolve = convolution(strides, 'VALID', groups)
    x, kernel = array(2, side, side, 8), array(size, size, 8 // groups, 12)
    assert cost.flops(convolve, x, kernel) == compiler(convolve, x, kernel)
    weights = gradient(convolve, 1)
    elementwise = compiler(lambda y: 2 * y, jax.eval_shape(convolve, x, kernel))
    assert abs(cost.flops(weights, x, kernel) - compiler(weights, x, kernel)) <= 4 * elementwise


@pytest.mark.parametrize('strides', [1, 2])
def test_with_padding_the_compiler_leaves_out_taps_outside(strides):
    convolve = convolution(strides)
    x, kernel = array(2, 32, 32, 8), array(3, 3, 8, 12)
    assert 0.93 * cost.flops(convolve, x, kernel) < compiler(convolve, x, kernel) < cost.flops(convolve, x, kernel)


def test_the_formulation_does_not_change_the_count():
    """Also for a function that was jitted, called and cached in its fast formulation."""
    x, kernel = jnp.ones((2, 8, 8, 4)), jnp.ones((3, 3, 4, 6))
    step = jax.jit(gradient(lambda x, kernel: layers.conv(x, kernel, 2), (0, 1)))
    step(x, kernel)
    assert cost.multiply_adds(step, x, kernel) == 3 * 2 * 4 * 4 * 6 * 4 * 9


def test_loops_and_branches():
    x, w = array(8, 8), array(8, 8)
    one = 8**3

    def scanned(x, w):
        return lax.scan(lambda x, _: (jnp.tanh(x @ w), None), x, None, length=20)[0]

    def counted(x, w):
        return lax.fori_loop(0, 7, lambda _, x: x @ w, x)

    def traced(n, x, w):
        return lax.fori_loop(0, n, lambda _, x: x @ w, x)

    def branches(x, w):
        return lax.switch(jnp.int32(x[0, 0]), [lambda: x, lambda: x @ w, lambda: x @ w @ w])

    assert cost.multiply_adds(scanned, x, w) == 20 * one
    assert cost.multiply_adds(lambda x, w: lax.scan(lambda x, _: (scanned(x, w), None), x, None, length=3)[0], x, w) == 60 * one
    assert cost.multiply_adds(gradient(scanned, (0, 1)), x, w) == 60 * one
    assert cost.multiply_adds(counted, x, w) == 7 * one
    assert cost.multiply_adds(traced, jax.ShapeDtypeStruct((), jnp.int32), x, w) == one
    assert cost.multiply_adds(branches, x, w) == 2 * one
    assert compiler(scanned, x, w) < 0.1 * cost.flops(scanned, x, w)  # the body once: why we count ourselves


def test_through_every_wrapper():
    x, w = array(8, 8), array(8, 8)

    @jax.custom_vjp
    def with_gradient(x, w):
        return x @ w

    with_gradient.defvjp(lambda x, w: (x @ w, (x, w)), lambda saved, dy: (dy @ saved[1].T, saved[0].T @ dy))

    @jax.custom_jvp
    def with_tangent(x, w):
        return x @ w

    with_tangent.defjvp(lambda primals, tangents: (primals[0] @ primals[1], tangents[0] @ primals[1]))
    for wrapped in (jax.jit(jnp.dot), jax.jit(jax.jit(jnp.dot)), jax.checkpoint(jnp.dot), with_gradient, with_tangent):
        assert cost.multiply_adds(wrapped, x, w) == 8**3
    assert cost.multiply_adds(gradient(with_gradient, (0, 1)), x, w) == 3 * 8**3
    recomputed = jax.checkpoint(lambda x, w: jnp.tanh(jnp.tanh(x @ w) @ w))
    assert cost.multiply_adds(gradient(recomputed, 0), x, w) == (2 + 2 + 2) * 8**3
    assert cost.multiply_adds(jax.vmap(jnp.dot, (0, None)), array(5, 8, 8), w) == 5 * 8**3


def test_all_devices_count():
    n = jax.device_count()
    assert n > 1
    mesh = jax.make_mesh((n,), ('data',), axis_types=(AxisType.Auto,))
    rows, whole = PartitionSpec('data'), PartitionSpec()
    sharded = jax.shard_map(jnp.dot, mesh=mesh, in_specs=(rows, whole), out_specs=rows)
    assert cost.multiply_adds(sharded, array(8 * n, 5), array(5, 3)) == 8 * n * 5 * 3
    assert cost.multiply_adds(jax.pmap(jnp.dot, in_axes=(0, None)), array(n, 8, 5), array(5, 3)) == 8 * n * 5 * 3


def test_what_nothing_depends_on_is_free():
    def wasteful(x, w):
        unused = x @ w
        return x + 0 * jnp.shape(unused)[0]

    assert cost.multiply_adds(wasteful, array(8, 8), array(8, 8)) == 0


class Net(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.BatchNorm(use_running_average=True, name='norm')(nn.Conv(8, (3, 3), name='conv')(x))
        return nn.Dense(10, name='head')(x.mean((1, 2)))


def test_parameters():
    net = Net()
    variables = jax.eval_shape(net.init, jax.random.key(0), array(1, 8, 8, 3))
    by_hand = 3 * 3 * 3 * 8 + 8 + 8 + 8 + 8 * 10 + 10
    assert cost.parameters(variables) == cost.parameters(variables['params']) == by_hand
    assert cost.parameters({'batch_stats': variables['batch_stats']}) == 16
    assert cost.multiply_adds(net.apply, variables, array(4, 8, 8, 3)) == 4 * (8 * 8 * 8 * 27 + 8 * 10)


def test_what_costs_and_counts_as_nothing_is_named():
    def scan(x):
        return lax.scan(lambda carry, _: (jnp.linalg.cholesky(carry @ carry), None), x, length=3)[0]

    def unused(x):
        return (jnp.fft.fft(x), x + 1)[1]

    def called(x):
        return jax.pure_callback(lambda y: y, x, x) + jnp.abs(jnp.fft.fft(x))

    def turning(x):
        return lax.while_loop(lambda c: c.sum() < 5, lambda c: c @ c, x)

    x = array(4, 4)
    assert cost.uncounted(jax.jit(scan), x) == ['cholesky']
    assert cost.uncounted(unused, x) == cost.uncounted(lambda x: jnp.tanh(x @ x).sum(), x) == []
    assert cost.uncounted(called, x) == ['fft', 'pure_callback']
    assert cost.uncounted(turning, x) == ['while (one turn counted)']
