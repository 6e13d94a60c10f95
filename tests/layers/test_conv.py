import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from research.catalogue import ConfigError
from research.layers import formulation
from research.layers.conv import Conv, conv, cut

PADDINGS = st.one_of(
    st.sampled_from(['SAME', 'VALID']),
    st.integers(0, 5),
    st.tuples(*[st.tuples(st.integers(0, 4), st.integers(0, 4))] * 2),
)


def arrays(*shapes, dtype=np.float32, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape).astype(dtype) for shape in shapes]


def value_and_gradients(f, *args):
    """Output, and gradients of a random weighting of it: a wrong entry anywhere shows. One program, as in training."""

    @jax.jit
    def together(*args):
        y, vjp = jax.vjp(f, *args)
        (weights,) = arrays(y.shape, seed=1)
        return y, *vjp(jnp.asarray(weights))

    return together(*args)


def assert_close(actual, expected, scale=1e-5):
    for a, e in zip(actual, expected, strict=True):
        assert a.shape == e.shape
        np.testing.assert_allclose(a, e, rtol=0, atol=scale * max(1.0, np.abs(e).max(initial=0)))


@settings(max_examples=10, deadline=None)
@given(
    batch=st.integers(1, 3),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    channels=st.integers(1, 3),
    features=st.integers(1, 3),
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    strides=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=PADDINGS,
)
def test_values_and_gradients_are_those_of_lax(batch, size, channels, features, kernel, strides, padding):
    x, k = arrays((batch, *size, channels), (*kernel, channels, features))
    pads = [(padding, padding)] * 2 if isinstance(padding, int) else padding
    if padding != 'SAME':
        around = [(0, 0)] * 2 if padding == 'VALID' else pads
        assume(all(n + low + high >= k for n, (low, high), k in zip(size, around, kernel, strict=True)))

    def lax_conv(x, k):
        return jax.lax.conv_general_dilated(x, k, strides, pads, dimension_numbers=('NHWC', 'HWIO', 'NHWC'))

    assert_close(value_and_gradients(lambda x, k: conv(x, k, strides, padding), x, k), value_and_gradients(lax_conv, x, k))


@settings(max_examples=6, deadline=None)
@given(
    batch=st.integers(1, 3),
    size=st.tuples(st.integers(1, 13), st.integers(1, 13)),
    channels=st.integers(2, 9),
    kernel=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    strides=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    dilation=st.sampled_from([(1, 1), (1, 1), (2, 2), (1, 2)]),
    padding=st.tuples(*[st.tuples(st.integers(0, 3), st.integers(0, 3))] * 2),
)
def test_a_kernel_for_each_channel_is_that_of_lax(batch, size, channels, kernel, strides, dilation, padding):
    assume(all(n + low + high > d * (k - 1) for n, (low, high), d, k in zip(size, padding, dilation, kernel, strict=True)))
    x, k = arrays((batch, *size, channels), (*kernel, 1, channels))

    def lax_conv(x, k):
        return jax.lax.conv_general_dilated(
            x,
            k,
            strides,
            padding,
            rhs_dilation=dilation,
            dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
            feature_group_count=channels,
        )

    ours = value_and_gradients(lambda x, k: conv(x, k, strides, padding, channels, dilation), x, k)
    assert_close(ours, value_and_gradients(lax_conv, x, k))


@pytest.mark.parametrize(('size', 'kernel', 'stride'), [((6, 6), 3, 1), ((7, 12), 5, 2), ((24, 24), 3, 2), ((12, 12), 5, 1)])
def test_depthwise_layers_of_mobile_networks(size, kernel, stride):
    """Their sizes take every way of cutting a map into blocks."""
    x, k = arrays((4, *size, 24), (kernel, kernel, 1, 24))
    name = formulation.convolution(x, k, (stride, stride), ((1, 1), (1, 1)), 24, (1, 1))
    assert name == 'depthwise'

    def layer(x, k):
        return conv(x, k, stride, kernel // 2, 24)

    with formulation.plain():
        expected = value_and_gradients(layer, x, k)
    assert_close(value_and_gradients(layer, x, k), expected)


@pytest.mark.parametrize(('kernel', 'groups', 'name'), [((5, 5, 1, 16), 1, 'taps'), ((3, 3, 1, 8), 8, 'depthwise')])
def test_sums_in_half_precision_are_as_exact_as_those_of_lax(kernel, groups, name):
    args = [jnp.asarray(a, jnp.bfloat16) for a in arrays((8, 12, 12, groups), kernel, (8, 12, 12, kernel[3]))]
    assert formulation.convolution(*args[:2], (1, 1), ((1, 1), (1, 1)), groups, (1, 1)) == name

    def results(*args):
        x, k, dy = args
        y, vjp = jax.vjp(lambda x, k: conv(x, k, 1, 'SAME', groups), x, k)
        return y, *vjp(dy)

    ours, exact = jax.jit(results)(*args), jax.jit(results)(*(a.astype(np.float32) for a in args))
    with formulation.plain():
        plain = jax.jit(results)(*args)
    for one, other, exactly in zip(ours, plain, exact, strict=True):
        error, least = (np.abs(np.float32(a) - exactly).max() for a in (one, other))
        assert error <= 1.2 * least


@pytest.mark.parametrize(
    ('size', 'kernel', 'padding', 'groups', 'name'),
    [
        ((7, 6), (7, 6), 0, 1, 'whole'),
        ((1, 1), (3, 3), 1, 1, 'pointwise'),
        ((2, 1), (5, 5), 2, 1, 'channels_last'),
        ((1, 1), (5, 5), 2, 8, 'depthwise'),
    ],
)
def test_small_maps(size, kernel, padding, groups, name):
    """Kernels that cover their map, or reach beyond it on all sides: what is left of them, and its formulation."""
    x, k = arrays((3, *size, 8), (*kernel, 8 // groups, 8))
    pads = ((padding, padding),) * 2
    kept, around = cut(x, k, (1, 1), pads, (1, 1))
    assert formulation.convolution(x, kept, (1, 1), around, groups, (1, 1)) == name
    assert kept.shape[:2] == tuple(min(k, 2 * n - 1) for k, n in zip(kernel, size, strict=True)) or name == 'whole'

    def layer(x, k):
        return conv(x, k, 1, padding, groups)

    with formulation.plain():
        expected = value_and_gradients(layer, x, k)
    assert_close(value_and_gradients(layer, x, k), expected)


@pytest.mark.long
@pytest.mark.parametrize('name', ['winograd', 'winograd_images'])
@pytest.mark.parametrize(
    ('size', 'padding'),
    [((4, 4), ((1, 1), (1, 1))), ((7, 6), ((1, 1), (1, 1))), ((5, 8), ((0, 0), (2, 1))), ((3, 2), ((0, 3), (1, 1)))],
)
def test_winograd(monkeypatch, name, size, padding):
    """Whatever is left over at a side: full tiles are of an even output."""
    x, k = arrays((3, *size, 5), (3, 3, 5, 6))

    def layer(x, k):
        return conv(x, k, 1, padding)

    with formulation.plain():
        expected = value_and_gradients(layer, x, k)
    monkeypatch.setattr(formulation, 'convolution', lambda *args: name)
    assert_close(value_and_gradients(layer, x, k), expected)


@pytest.mark.parametrize(
    ('features', 'dtype', 'name'),
    [(128, jnp.float32, 'winograd_images'), (256, jnp.float32, 'winograd'), (256, jnp.bfloat16, 'channels_last')],
)
def test_many_channels_take(features, dtype, name):
    x, k = (jax.ShapeDtypeStruct(shape, dtype) for shape in ((2, 6, 6, 128), (3, 3, 128, features)))
    assert formulation.convolution(x, k, (1, 1), ((1, 1), (1, 1)), 1, (1, 1)) == name


@pytest.mark.parametrize('features', [128, pytest.param(256, marks=pytest.mark.long)])
def test_many_channels(features):
    x, k = arrays((2, 6, 6, 128), (3, 3, 128, features))

    def layer(x, k):
        return conv(x, k, 1, 1)

    with formulation.plain():
        expected = value_and_gradients(layer, x, k)
    assert_close(value_and_gradients(layer, x, k), expected)


@pytest.mark.parametrize(
    ('shape', 'kernel', 'padding'),
    [((2, 2, 9, 128), (3, 3, 128, 128), 0), ((2, 2, 2, 4), (5, 3, 4, 4), 0), ((0, 6, 6, 128), (3, 3, 128, 128), 1)],
    ids=['no rows', 'less than no rows', 'no images'],
)
def test_what_is_empty_is_empty_as_in_lax(shape, kernel, padding):
    def shapes(x, k):
        return [a.shape for a in value_and_gradients(lambda x, k: conv(x, k, 1, padding), x, k)]

    x, k = jnp.ones(shape), jnp.ones(kernel)
    with formulation.plain():
        expected = shapes(x, k)
    assert shapes(x, k) == expected


@pytest.mark.parametrize(('channels', 'groups', 'strides'), [(3, 1, 1), (1, 1, 2), (4, 2, 1), (4, 4, 2)])
def test_dilation(channels, groups, strides):
    x, k = arrays((2, 9, 8, channels), (3, 3, channels // groups, 4))

    def lax_conv(x, k):
        dims = ('NHWC', 'HWIO', 'NHWC')
        return jax.lax.conv_general_dilated(
            x, k, (strides,) * 2, ((2, 2), (2, 2)), rhs_dilation=(2, 2), dimension_numbers=dims, feature_group_count=groups
        )

    def ours(x, k):
        return conv(x, k, strides, 2, groups, 2)

    assert_close(value_and_gradients(ours, x, k), value_and_gradients(lax_conv, x, k))


@pytest.mark.parametrize('groups', [2, 4])
def test_groups_are_independent_convolutions(groups):
    x, k = arrays((2, 6, 6, 4), (3, 3, 4 // groups, 8))
    y = conv(x, k, 2, 1, groups)
    parts = [conv(a, b, 2, 1) for a, b in zip(np.split(x, groups, 3), np.split(k, groups, 3), strict=True)]
    assert_close([y], [jnp.concatenate(parts, 3)])


@pytest.mark.parity
@pytest.mark.parametrize('kernel, stride, padding', [(3, 1, 1), (3, 2, 1), (7, 2, 3), (1, 2, 0), (5, 3, 4), (2, 2, 0)])
def test_torch_in_float64(kernel, stride, padding):
    torch = pytest.importorskip('torch')
    x, k = arrays((3, 11, 12, 4), (kernel, kernel, 4, 5))
    tx, tk = (
        torch.tensor(a.astype(np.float64).transpose(order), requires_grad=True)
        for a, order in ((x, (0, 3, 1, 2)), (k, (3, 2, 0, 1)))
    )
    ty = torch.nn.functional.conv2d(tx, tk, stride=stride, padding=padding)
    y, dx, dk = value_and_gradients(lambda x, k: conv(x, k, stride, padding), x, k)
    ty.backward(torch.tensor(arrays(y.shape, seed=1)[0].astype(np.float64).transpose(0, 3, 1, 2)))
    expected = ty.detach().permute(0, 2, 3, 1), tx.grad.permute(0, 2, 3, 1), tk.grad.permute(2, 3, 1, 0)
    assert_close((y, dx, dk), [e.numpy() for e in expected])


@pytest.mark.parametrize('kernel, strides', [((3, 3), 1), ((3, 3), 2), ((1, 1), 2)])
def test_plain_gives_the_same_numbers_in_another_program(kernel, strides):
    x, k = arrays((2, 7, 8, 3), (*kernel, 3, 4))

    @jax.jit
    def gradients(x, k):
        return value_and_gradients(lambda x, k: conv(x, k, strides), x, k)

    fast, fast_program = gradients(x, k), str(jax.make_jaxpr(gradients)(x, k))
    with formulation.plain():
        plain, plain_program = gradients(x, k), str(jax.make_jaxpr(gradients)(x, k))
    assert_close(fast, plain)
    assert fast_program != plain_program and 'custom_vjp' not in plain_program


def test_plain_allows_forward_mode_and_second_derivatives():
    x, k = arrays((2, 5, 5, 2), (3, 3, 2, 3))

    def loss(k):
        return jnp.sum(jnp.tanh(conv(x, k)))

    with formulation.plain():
        _, forward = jax.jvp(loss, (k,), (jnp.ones_like(k),))
        hessian_product = jax.jvp(jax.grad(loss), (k,), (jnp.ones_like(k),))[1]
    np.testing.assert_allclose(forward, jnp.sum(jax.grad(loss)(k)), rtol=1e-4)
    step = 1e-2
    difference = (jax.grad(loss)(k + step) - jax.grad(loss)(k - step)) / (2 * step)
    np.testing.assert_allclose(hessian_product, difference, atol=2e-2 * np.abs(difference).max())


def test_a_loop_of_any_length_runs_one_program_with_the_same_gradients():
    x, k = arrays((2, 6, 6, 2), (3, 3, 2, 2))

    def step(k):
        return k - 0.01 * jax.grad(lambda k: jnp.sum(conv(x, k) ** 2))(k)

    @jax.jit
    def run(k, steps):
        return jax.lax.fori_loop(0, steps, lambda _, k: step(k), k)

    one_by_one = k
    for _ in range(3):
        one_by_one = step(one_by_one)
    assert_close([run(k, 3)], [one_by_one])
    run(k, 7)
    assert run._cache_size() == 1


@pytest.mark.parametrize('strides', [1, 2])
def test_a_batch_split_over_devices_gives_the_same_gradients(strides):
    x, k = arrays((8, 7, 7, 3), (3, 3, 3, 4))
    mesh = jax.make_mesh((4,), ('data',), axis_types=(AxisType.Auto,))
    step = jax.jit(lambda x, k: value_and_gradients(lambda x, k: conv(x, k, strides), x, k))
    split = jax.device_put(x, NamedSharding(mesh, P('data'))), jax.device_put(k, NamedSharding(mesh, P()))
    y, dx, dk = step(*split)
    assert_close((y, dx, dk), step(x, k))
    assert y.sharding.is_equivalent_to(NamedSharding(mesh, P('data')), 4)


@pytest.mark.parametrize(
    'transform',
    [
        jax.checkpoint,
        lambda f: lambda x, k: jax.vmap(f, in_axes=(0, None))(x[:, None], k)[:, 0],
        lambda f: lambda x, k: jax.pmap(f, in_axes=(0, None))(x[:, None], k)[:, 0],
    ],
    ids=['checkpoint', 'vmap', 'pmap'],
)
def test_transformations_leave_value_and_gradients_alone(transform):
    x, k = arrays((4, 6, 5, 2), (3, 3, 2, 3))

    def f(x, k):
        return conv(x, k, 2)

    assert_close(value_and_gradients(transform(f), x, k), value_and_gradients(f, x, k))


def test_vmap_over_kernels():
    x, k = arrays((2, 6, 5, 2), (3, 3, 3, 2, 3))
    together = value_and_gradients(jax.vmap(lambda k: conv(x, k)), k)
    np.testing.assert_allclose(together[0], np.stack([conv(x, one) for one in k]), atol=1e-5)
    with formulation.plain():
        assert_close(together, value_and_gradients(jax.vmap(lambda k: conv(x, k)), k))


@pytest.mark.parametrize('kernel_size, strides, padding, groups', [(3, 1, 'SAME', 1), ((1, 3), 2, 'VALID', 2), (1, 2, 0, 1)])
def test_module_has_flax_parameters_and_output(kernel_size, strides, padding, groups):
    (x,) = arrays((2, 7, 8, 4))
    size = (kernel_size,) * 2 if isinstance(kernel_size, int) else kernel_size
    ours = Conv(6, kernel_size, strides=strides, padding=padding, groups=groups, name='c')
    theirs = nn.Conv(6, size, strides=strides, padding=padding, feature_group_count=groups, name='c')
    variables = jax.jit(ours.init)(jax.random.key(0), x)
    jax.tree.map(np.testing.assert_array_equal, variables, jax.jit(theirs.init)(jax.random.key(0), x))
    assert_close([jax.jit(ours.apply)(variables, x)], [jax.jit(theirs.apply)(variables, x)])
    assert set(jax.eval_shape(Conv(6, 3, use_bias=False).init, jax.random.key(0), x)['params']) == {'kernel'}


@pytest.mark.parametrize(
    'arguments, message',
    [
        ({'padding': 'same'}, "'SAME'"),
        ({'padding': (1, 1, 1)}, 'rows, columns'),
        ({'strides': 0}, 'positive'),
        ({'groups': 3}, 'divisible by 3'),
    ],
)
def test_errors_say_what_was_expected(arguments, message):
    x, k = arrays((1, 4, 4, 2), (3, 3, 2, 2))
    with pytest.raises(ConfigError, match=message):
        conv(x, k, **arguments)
