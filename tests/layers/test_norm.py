"""Normalization layers against NumPy in float64, flax and PyTorch; who influences whom; the same numbers on 4 devices."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import FrozenDict
from hypothesis import given, settings
from hypothesis import strategies as st

from research.catalogue import ConfigError
from research.layers import norm

EPSILON = 1e-5


def values(*shape, mean=0.0, std=1.0, seed=0):
    """Float32 values whose channels differ in mean and spread, so that a mix-up of channels shows."""
    rng = np.random.default_rng([seed, *shape])
    channel_mean, channel_std = mean + std * rng.normal(size=shape[-1]), std * rng.uniform(0.5, 1.5, shape[-1])
    return (channel_mean + channel_std * rng.normal(size=shape)).astype(np.float32)


def affine(channels):
    rng = np.random.default_rng(channels)
    scale, bias = rng.uniform(0.5, 1.5, channels), rng.normal(size=channels)
    return {'scale': scale.astype(np.float32), 'bias': bias.astype(np.float32)}


def joint(members, x, params):
    """`x` normalized by all of `members` together, in float64."""
    axes = tuple(range(members.ndim - 1))
    members = members.astype(np.float64)
    return (x - members.mean(axes)) / np.sqrt(members.var(axes) + EPSILON) * params['scale'] + params['bias']


def virtual(reference, x, params):
    """Virtual batch normalization by its definition: each example together with the reference batch, in float64."""
    return np.concatenate([joint(np.concatenate([reference, one[None]]), one[None], params) for one in x])


def close(a, b, tolerance=1e-5):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance), a, b)


@functools.partial(jax.jit, static_argnums=0)
def refer(layer, params, reference):
    """Output and variables of a reference pass."""
    y, collections = layer.apply({'params': params}, reference, mutable=['reference'])
    return y, {'params': params, **collections}


@functools.partial(jax.jit, static_argnums=0)
def live(layer, variables, x):
    return layer.apply(variables, x)


@functools.partial(jax.jit, static_argnums=0)
def train(layer, x, params=None):
    """Output and updated running statistics of a training pass."""
    variables = {'params': params or affine(x.shape[-1]), 'batch_stats': running(x.shape[-1])}
    y, collections = layer.apply(variables, x, mutable=['batch_stats'])
    return y, collections['batch_stats']


@functools.partial(jax.jit, static_argnums=0)
def evaluate(layer, x):
    return layer.apply({'params': affine(x.shape[-1]), 'batch_stats': running(x.shape[-1])}, x)


def running(channels):
    rng = np.random.default_rng(channels + 1)
    mean, variance = rng.normal(size=channels), rng.uniform(0.5, 2, channels)
    return {'mean': mean.astype(np.float32), 'var': variance.astype(np.float32)}


class TestVirtualBatchNorm:
    @pytest.mark.parametrize(('mean', 'std', 'tolerance'), [(0, 1, 1e-5), (50, 0.5, 1e-4)])
    @pytest.mark.parametrize(('n', 'batch', 'shape'), [(8, 5, (7,)), (64, 1, (28, 28, 3)), (1, 3, (4, 6, 7))])
    def test_is_the_statistics_of_reference_and_example_together(self, mean, std, tolerance, n, batch, shape):
        reference, x = values(n, *shape, mean=mean, std=std), values(batch, *shape, mean=mean, std=std, seed=1)
        params = affine(shape[-1])
        layer = norm.VirtualBatchNorm()
        y, variables = refer(layer, params, reference)
        np.testing.assert_allclose(y, joint(reference, reference, params), rtol=0, atol=tolerance)
        assert variables['reference']['count'] == n
        y = live(layer, variables, x)
        np.testing.assert_allclose(y, virtual(reference, x, params), rtol=0, atol=tolerance)

    @pytest.mark.parametrize('spatial', [(), (3, 2)])
    def test_gradient_through_the_reference_pass_is_that_of_finite_differences(self, spatial):
        reference, x = values(6, *spatial, 4), values(3, *spatial, 4, seed=1)
        rng = np.random.default_rng(2)
        theta = {'kernel': rng.normal(size=(4, 5)).astype(np.float32), **affine(5)}
        weight = rng.normal(size=(*x.shape[:-1], 5)).astype(np.float32)
        layer = norm.VirtualBatchNorm()

        def loss(theta):
            params = {'scale': theta['scale'], 'bias': theta['bias']}
            _, variables = refer(layer, params, reference @ theta['kernel'])
            return jnp.sum(weight * jnp.sin(live(layer, variables, x @ theta['kernel'])))

        def exact_loss(theta):
            return np.sum(weight * np.sin(virtual(reference @ theta['kernel'], x @ theta['kernel'], theta)))

        theta64 = {k: v.astype(np.float64) for k, v in theta.items()}
        for name, gradient in jax.jit(jax.grad(loss))(theta).items():
            expected = np.zeros_like(theta64[name])
            for index in np.ndindex(expected.shape):
                step = np.zeros_like(expected)
                step[index] = 1e-5
                up, down = (exact_loss({**theta64, name: theta64[name] + sign * step}) for sign in (1, -1))
                expected[index] = (up - down) / 2e-5
            np.testing.assert_allclose(gradient, expected, rtol=0, atol=1e-4 * np.abs(expected).max())

    def test_a_refresh_after_an_update_of_the_weights_brings_the_statistics_up_to_date(self):
        network = nn.Sequential((nn.Dense(5), norm.VirtualBatchNorm()))
        reference, x = values(8, 4), values(3, 4, seed=1)
        stale = jax.jit(network.init)(jax.random.key(0), reference)
        params = jax.tree.map(lambda a: np.asarray(a) + 0.5, stale['params'])
        kernel, bias = (np.asarray(params['layers_0'][k], np.float64) for k in ('kernel', 'bias'))
        expected = virtual(reference @ kernel + bias, x @ kernel + bias, params['layers_1'])
        assert np.abs(np.asarray(live(network, {**stale, 'params': params}, x)) - expected).max() > 1e-2
        _, fresh = refer(network, params, reference)
        np.testing.assert_allclose(live(network, fresh, x), expected, rtol=0, atol=1e-5)

    @pytest.mark.parametrize(('batch', 'spread'), [(1, 1.0), (8, 1.0), (8, 1e4)])
    def test_no_example_depends_on_its_neighbours(self, batch, spread):
        layer = norm.VirtualBatchNorm()
        _, variables = refer(layer, affine(3), values(8, 4, 4, 3))
        x, neighbours = values(1, 4, 4, 3), values(batch, 4, 4, 3, std=spread, seed=1)
        together = live(layer, variables, np.concatenate([neighbours, x]))
        np.testing.assert_allclose(together[-1], live(layer, variables, x)[0], rtol=0, atol=1e-6)

    def test_without_weight_on_the_example_the_reference_itself_gets_batch_norm(self):
        x = values(8, 4, 4, 3)
        layer = norm.VirtualBatchNorm(example_weight=0.0)
        _, variables = refer(layer, affine(3), x)
        np.testing.assert_allclose(live(layer, variables, x), train(training('batch'), x)[0], rtol=0, atol=1e-6)


def training(name, **kwargs):
    return norm.create({'name': name, **kwargs}, use_running_average=False)


class TestBatchNorm:
    @pytest.mark.parametrize(('mean', 'std', 'tolerance'), [(0, 1, 1e-5), (50, 0.5, 1e-4), (-3000, 3, 1e-3)])
    @pytest.mark.parametrize('shape', [(32, 7), (16, 5, 6, 7), (64, 28, 28, 4)])
    def test_is_numpy_in_float64(self, mean, std, tolerance, shape):
        x = values(*shape, mean=mean, std=std)
        y, _ = train(training('batch'), x)
        np.testing.assert_allclose(y, joint(x, x, affine(shape[-1])), rtol=0, atol=tolerance)

    @pytest.mark.parametrize('shape', [(9, 7), (6, 3, 4, 7)])
    def test_is_flax_batch_norm_in_training_in_evaluation_and_in_both_derivatives(self, shape):
        flax = nn.BatchNorm(False, momentum=0.8, epsilon=EPSILON, use_fast_variance=False)
        ours = training('batch', momentum=0.8)
        x, direction, weight = (jnp.asarray(values(*shape, seed=s)) for s in range(3))
        variables = [jax.eval_shape(layer.init, jax.random.key(0), x) for layer in (ours, flax)]
        assert variables[0] == variables[1]

        @functools.partial(jax.jit, static_argnums=0)
        def derivatives(layer):
            gradient = jax.grad(lambda x: jnp.sum(weight * jnp.sin(train(layer, x)[0])))
            return gradient(x), jax.jvp(gradient, (x,), (direction,))[1]

        close(train(ours, x), train(flax, x))
        close(evaluate(ours.clone(use_running_average=True), x), evaluate(flax.clone(use_running_average=True), x))
        close(derivatives(ours), derivatives(flax))

    @pytest.mark.parity
    def test_is_pytorch_batch_norm(self):
        torch = pytest.importorskip('torch')
        x = values(6, 3, 4, 7)
        other = torch.nn.BatchNorm2d(7, eps=EPSILON, momentum=0.1)
        params, statistics = affine(7), running(7)
        state = {
            'weight': params['scale'],
            'bias': params['bias'],
            'running_mean': statistics['mean'],
            'running_var': statistics['var'],
        }
        other.load_state_dict({name: torch.tensor(a) for name, a in state.items()}, strict=False)
        expected = other(torch.tensor(x.transpose(0, 3, 1, 2))).detach().numpy().transpose(0, 2, 3, 1)
        y, new = train(training('batch', momentum=0.9), x)
        np.testing.assert_allclose(y, expected, rtol=0, atol=1e-5)
        np.testing.assert_allclose(new['mean'], other.running_mean.numpy(), rtol=0, atol=1e-6)
        count = x.size / 7
        observed = (other.running_var.numpy() - 0.9 * statistics['var']) * (count - 1) / count
        np.testing.assert_allclose(new['var'], 0.9 * statistics['var'] + observed, rtol=0, atol=1e-6)

    def test_asks_which_statistics_to_use(self):
        x, variables = values(3, 4), {'params': affine(4), 'batch_stats': running(4)}
        with pytest.raises(ValueError, match='use_running_average'):
            norm.BatchNorm().apply(variables, x)
        called = norm.BatchNorm().apply(variables, x, use_running_average=True)
        np.testing.assert_array_equal(called, norm.BatchNorm(use_running_average=True).apply(variables, x))

    def test_keeps_float32_statistics_of_bfloat16_images(self):
        x = values(64, 16, 16, 4, mean=3.0)
        y, new = train(training('batch', momentum=0.0), jnp.asarray(x, jnp.bfloat16))
        assert y.dtype == new['mean'].dtype == jnp.float32
        np.testing.assert_allclose(new['mean'], x.mean((0, 1, 2)), rtol=1e-3)

    @pytest.mark.parametrize('config', [{'name': 'batch'}, {'name': 'ghost_batch', 'virtual_batch_size': 4}], ids=str)
    def test_a_constant_channel_stays_finite(self, config):
        layer = training(**config)
        loss = jax.jit(jax.value_and_grad(lambda x: jnp.sum(jnp.square(train(layer, x)[0]))))
        assert all(np.isfinite(a).all() for a in loss(jnp.full((6, 3, 3, 2), 1234.567)))


class TestGhostBatchNorm:
    @pytest.mark.parametrize(('batch', 'size', 'spatial'), [(12, 4, ()), (12, 5, (3, 2)), (7, 3, (3, 2)), (5, 1, (3, 2))])
    def test_each_run_of_rows_gets_batch_norm_of_its_own(self, batch, size, spatial):
        x = values(batch, *spatial, 4, mean=5.0)
        y, new = train(training('ghost_batch', virtual_batch_size=size, momentum=0.8), x)
        groups = [x[start : start + size] for start in range(0, batch, size)]
        outputs, statistics = zip(*(train(training('batch', momentum=0.8), group) for group in groups), strict=True)
        np.testing.assert_allclose(y, np.concatenate(outputs), rtol=0, atol=1e-5)
        for key in ('mean', 'var'):
            expected = np.average([group[key] for group in statistics], axis=0, weights=[len(group) for group in groups])
            np.testing.assert_allclose(new[key], expected, rtol=0, atol=1e-5)

    @settings(max_examples=6, deadline=None)
    @given(batch=st.integers(1, 13), size=st.integers(1, 15))
    def test_each_run_of_rows_has_mean_0_and_variance_1(self, batch, size):
        x, identity = values(batch, 3, 2, 4, mean=5.0), {'scale': np.ones(4, np.float32), 'bias': np.zeros(4, np.float32)}
        y = np.asarray(train(training('ghost_batch', virtual_batch_size=size), x, identity)[0], np.float64)
        for start in range(0, batch, size):
            group = y[start : start + size]
            np.testing.assert_allclose(group.mean((0, 1, 2)), 0, atol=1e-5)
            np.testing.assert_allclose(group.var((0, 1, 2)), 1, atol=1e-3)

    @pytest.mark.parametrize('size', [12, 1000])
    def test_with_a_size_of_at_least_the_batch_is_batch_norm(self, size):
        x = values(12, 3, 3, 4)
        ghost, batch = train(training('ghost_batch', virtual_batch_size=size), x), train(training('batch'), x)
        close(ghost, batch, 1e-6)

    def test_gradients_stay_inside_a_group(self):
        x = jnp.asarray(values(7, 3, 3, 4))
        layer, weight = training('ghost_batch', virtual_batch_size=3), values(3, 3, 3, 4, seed=1)
        gradient = jax.jit(jax.grad(lambda x: jnp.sum(weight * train(layer, x)[0][3:6])))(x)
        assert (gradient[:3] == 0).all() and (gradient[6:] == 0).all() and (gradient[3:6] != 0).all()

    @pytest.mark.parametrize('batch', [1, 2, 7])
    def test_evaluates_any_batch_with_the_running_average(self, batch):
        ghost = norm.GhostBatchNorm(virtual_batch_size=3, use_running_average=True)
        x = values(batch, 3, 3, 4)
        np.testing.assert_array_equal(evaluate(ghost, x), evaluate(norm.BatchNorm(use_running_average=True), x))

    @pytest.mark.parametrize('size', [0, -4])
    def test_refuses_groups_of_nothing(self, size):
        with pytest.raises(ConfigError, match='virtual_batch_size'):
            norm.GhostBatchNorm(virtual_batch_size=size)


CASES = ['batch', 'virtual_batch', FrozenDict({'name': 'ghost_batch', 'virtual_batch_size': 5})]
CASES += [pytest.param(FrozenDict({'name': 'ghost_batch', 'virtual_batch_size': n}), marks=pytest.mark.long) for n in (2, 6)]


@pytest.mark.parametrize('config', CASES, ids=str)
class TestDevices:
    """12 rows on 4 devices, 3 a device: ghost groups end inside, at and beyond the rows of one."""

    reference = values(8, 2, 3, 4, mean=3.0, seed=5)
    x = values(12, 2, 3, 4, mean=3.0)
    weight = values(12, 2, 3, 4, seed=1)

    @staticmethod
    def step(config, axis_name=None):
        """Gradients of a sum over rows by parameters and by rows, the outputs, the statistics."""
        layer = norm.create(config, use_running_average=False, axis_name=axis_name)

        def loss(params, x, weight, reference):
            if config == 'virtual_batch':
                _, variables = refer(layer, params, reference)
                y, statistics = live(layer, variables, x), variables['reference']
            else:
                y, statistics = train(layer, x, params)
            return jnp.sum(weight * jnp.sin(y)), (y, statistics)

        return jax.grad(loss, (0, 1), has_aux=True)

    @staticmethod
    @functools.cache
    def expected(config):
        cls = TestDevices
        return jax.jit(cls.step(config))(affine(4), cls.x, cls.weight, cls.reference)

    def test_jit_over_a_mesh_gives_the_numbers_of_one_device(self, config):
        mesh = jax.make_mesh((4,), ('data',), axis_types=(jax.sharding.AxisType.Auto,))
        rows = jax.NamedSharding(mesh, jax.P('data'))
        batch = jax.device_put((self.x, self.weight, self.reference), rows)
        assert len(batch[0].sharding.device_set) == 4
        close(jax.jit(self.step(config))(affine(4), *batch), TestDevices.expected(config))

    def test_pmap_gives_the_numbers_of_one_device(self, config):
        split = [a.reshape(4, 3, *a.shape[1:]) for a in (self.x, self.weight)]
        step = jax.pmap(self.step(config, 'rows'), 'rows', in_axes=(None, 0, 0, None))
        (by_params, by_x), (y, statistics) = step(affine(4), *split, self.reference)
        expected = TestDevices.expected(config)
        joined = (jax.tree.map(lambda a: a.sum(0), by_params), by_x.reshape(self.x.shape)), y.reshape(self.x.shape)
        close(joined, (expected[0], expected[1][0]))
        for device in range(4):
            close(jax.tree.map(lambda a, d=device: a[d], statistics), expected[1][1])


@pytest.mark.parametrize('config', [{'name': 'batch'}, {'name': 'ghost_batch', 'virtual_batch_size': 5}], ids=str)
class TestReferencePass:
    """A layer told to evaluate, in a call in which `reference` is mutable."""

    x = values(12, 2, 3, 4, mean=3.0)

    @staticmethod
    def refer(config, axis_name=None):
        """Output and statistics; those of before are lost numbers."""
        layer = norm.create(config, use_running_average=True, axis_name=axis_name)
        variables = {'params': affine(4), 'batch_stats': jax.tree.map(lambda a: a * np.nan, running(4))}

        def refer(x):
            y, collections = layer.apply(variables, x, mutable=['reference', 'batch_stats'])
            assert set(collections) == {'batch_stats'}
            return y, collections['batch_stats']

        return refer

    def test_gives_the_outputs_of_training_and_stores_the_batchs_own_statistics(self, config):
        y, statistics = jax.jit(self.refer(config))(self.x)
        expected, averaged = train(training(**config, momentum=0.0), self.x)
        np.testing.assert_array_equal(y, expected)
        close(statistics, averaged, 1e-6)
        x = self.x.astype(np.float64)
        close(statistics['mean'], x.mean((0, 1, 2)))
        if config['name'] == 'batch':
            close(statistics['var'], x.var((0, 1, 2)))

    def test_on_a_pmap_axis_the_batch_is_that_of_all_devices(self, config):
        y, statistics = jax.pmap(self.refer(config, 'rows'), 'rows')(self.x.reshape(4, 3, *self.x.shape[1:]))
        expected = jax.jit(self.refer(config))(self.x)
        close(y.reshape(self.x.shape), expected[0])
        for device in range(4):
            close(jax.tree.map(lambda a, d=device: a[d], statistics), expected[1])

    def test_init_is_none(self, config):
        variables = norm.create(config, use_running_average=True).init(jax.random.key(0), self.x)
        close(variables['batch_stats'], {'mean': np.zeros(4), 'var': np.ones(4)}, 0)


class TestCreate:
    def test_passes_arguments_on(self):
        layer = norm.create({'name': 'ghost_batch', 'virtual_batch_size': 4}, axis_name='rows', name='norm1')
        assert layer == norm.GhostBatchNorm(virtual_batch_size=4, axis_name='rows', name='norm1')

    def test_none_is_a_bias(self):
        x, layer = values(3, 2, 2, 4), norm.create('none', use_running_average=True)
        assert jax.tree.map(jnp.shape, layer.init(jax.random.key(0), x)) == {'params': {'bias': (4,)}}
        bias = affine(4)['bias']
        np.testing.assert_array_equal(layer.apply({'params': {'bias': bias}}, x), x + bias)

    def test_takes_foreign_layers_that_know_nothing_of_running_averages(self):
        layer = norm.create({'name': 'flax.linen:GroupNorm', 'num_groups': 2}, use_running_average=True, axis_name='rows')
        assert layer == nn.GroupNorm(num_groups=2)

    @pytest.mark.parametrize('config', ['layer', {'name': 'group', 'num_groups': 2}])
    def test_layer_and_group_norm_are_of_one_example_also_on_an_axis(self, config):
        x = values(3, 2, 2, 4)
        layer, alone = (norm.create(config, use_running_average=False, axis_name=axis) for axis in ('rows', None))
        variables = alone.init(jax.random.key(0), x)
        found = jax.vmap(lambda row: layer.apply(variables, row[None])[0], axis_name='rows')(x)
        close(found, alone.apply(variables, x))

    @pytest.mark.parametrize(
        ('config', 'message'),
        [
            ('virtual_bach', "Did you mean 'virtual_batch'"),
            ({'name': 'batch', 'momentun': 0.9}, "Did you mean 'momentum'"),
            ({'name': 'batch', 'axis_name': 'rows'}, "no argument 'axis_name'"),
            ('ghost_batch', "needs 'virtual_batch_size'"),
            ({'momentum': 0.9}, "no 'name'"),
        ],
    )
    def test_refuses_what_it_does_not_know(self, config, message):
        with pytest.raises(ConfigError, match=message):
            norm.create(config, use_running_average=True, axis_name=None)
