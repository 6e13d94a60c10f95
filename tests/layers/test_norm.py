"""Normalization layers against NumPy in float64, flax and PyTorch; who influences whom; the same numbers on 4 devices."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
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


def refreshed(layer, params, reference):
    return {'params': params, **layer.apply({'params': params}, reference, mutable=['reference'])[1]}


class TestVirtualBatchNorm:
    @pytest.mark.parametrize(('mean', 'std', 'tolerance'), [(0, 1, 1e-5), (50, 0.5, 1e-4)])
    @pytest.mark.parametrize('shape', [(7,), (4, 6, 7), (28, 28, 3)])
    @pytest.mark.parametrize(('n', 'batch'), [(8, 5), (64, 1), (1, 3)])
    def test_is_the_statistics_of_reference_and_example_together(self, mean, std, tolerance, shape, n, batch):
        reference, x = values(n, *shape, mean=mean, std=std), values(batch, *shape, mean=mean, std=std, seed=1)
        if n == 1 and len(shape) == 1:
            pytest.skip('two values: the output is a sign')
        params = affine(shape[-1])
        layer = norm.VirtualBatchNorm()
        y, collections = layer.apply({'params': params}, reference, mutable=['reference'])
        if n > 1:
            np.testing.assert_allclose(y, joint(reference, reference, params), rtol=0, atol=tolerance)
        assert collections['reference']['count'] == n
        y = layer.apply({'params': params, **collections}, x)
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
            return jnp.sum(weight * jnp.sin(layer.apply(refreshed(layer, params, reference @ theta['kernel']), x @ theta['kernel'])))

        def exact_loss(theta):
            return np.sum(weight * np.sin(virtual(reference @ theta['kernel'], x @ theta['kernel'], theta)))

        theta64 = {k: v.astype(np.float64) for k, v in theta.items()}
        for name, gradient in jax.grad(loss)(theta).items():
            expected = np.zeros_like(theta64[name])
            for index in np.ndindex(expected.shape):
                step = np.zeros_like(expected)
                step[index] = 1e-5
                up, down = (exact_loss({**theta64, name: theta64[name] + sign * step}) for sign in (1, -1))
                expected[index] = (up - down) / 2e-5
            np.testing.assert_allclose(gradient, expected, rtol=0, atol=1e-4 * np.abs(expected).max())

    def test_a_refresh_after_an_update_of_the_weights_brings_the_statistics_up_to_date(self):
        network = nn.Sequential([nn.Dense(5, name='dense'), norm.VirtualBatchNorm(name='norm')])
        reference, x = values(8, 4), values(3, 4, seed=1)
        stale = network.init(jax.random.key(0), reference)
        params = jax.tree.map(lambda a: a + 0.5, stale['params'])
        kernel, bias = (np.asarray(params['dense'][k], np.float64) for k in ('kernel', 'bias'))
        expected = virtual(reference @ kernel + bias, x @ kernel + bias, params['norm'])
        assert np.abs(network.apply({**stale, 'params': params}, x) - expected).max() > 1e-2
        _, fresh = network.apply({**stale, 'params': params}, reference, mutable=['reference'])
        np.testing.assert_allclose(network.apply({'params': params, **fresh}, x), expected, rtol=0, atol=1e-5)

    @settings(max_examples=10, deadline=None)
    @given(batch=st.integers(1, 9), spread=st.sampled_from([1.0, 1e4]), seed=st.integers(0, 99))
    def test_no_example_depends_on_its_neighbours(self, batch, spread, seed):
        layer = norm.VirtualBatchNorm()
        variables = refreshed(layer, affine(3), values(8, 4, 4, 3))
        x, neighbours = values(1, 4, 4, 3, seed=seed), values(batch, 4, 4, 3, std=spread, seed=seed)
        alone = layer.apply(variables, x)[0]
        np.testing.assert_allclose(layer.apply(variables, np.concatenate([neighbours, x]))[-1], alone, rtol=0, atol=1e-6)

    def test_without_weight_on_the_example_the_reference_itself_gets_batch_norm(self):
        x = values(8, 4, 4, 3)
        layer = norm.VirtualBatchNorm(example_weight=0.0)
        y = layer.apply(refreshed(layer, affine(3), x), x)
        batch, variables = norm.BatchNorm(use_running_average=False), {'params': affine(3), 'batch_stats': running(3)}
        np.testing.assert_allclose(y, batch.apply(variables, x, mutable=['batch_stats'])[0], rtol=0, atol=1e-6)


def running(channels):
    rng = np.random.default_rng(channels + 1)
    mean, variance = rng.normal(size=channels), rng.uniform(0.5, 2, channels)
    return {'mean': mean.astype(np.float32), 'var': variance.astype(np.float32)}


def train(layer, x, params=None):
    """Output and updated running statistics of a training pass."""
    variables = {'params': params or affine(x.shape[-1]), 'batch_stats': running(x.shape[-1])}
    y, collections = layer.apply(variables, x, use_running_average=False, mutable=['batch_stats'])
    return y, collections['batch_stats']


class TestBatchNorm:
    @pytest.mark.parametrize(('mean', 'std', 'tolerance'), [(0, 1, 1e-5), (50, 0.5, 1e-4), (-3000, 3, 1e-3)])
    @pytest.mark.parametrize('shape', [(32, 7), (16, 5, 6, 7), (64, 28, 28, 4)])
    def test_is_numpy_in_float64(self, mean, std, tolerance, shape):
        x = values(*shape, mean=mean, std=std)
        y, _ = train(norm.BatchNorm(), x)
        np.testing.assert_allclose(y, joint(x, x, affine(shape[-1])), rtol=0, atol=tolerance)

    @pytest.mark.parametrize('shape', [(9, 7), (6, 3, 4, 7)])
    def test_is_flax_batch_norm_in_training_in_evaluation_and_in_both_derivatives(self, shape):
        ours = norm.BatchNorm(momentum=0.8)
        flax = nn.BatchNorm(momentum=0.8, epsilon=EPSILON, use_fast_variance=False)
        x, direction, weight = (jnp.asarray(values(*shape, seed=s)) for s in range(3))
        for layer in (ours, flax):
            variables = layer.init(jax.random.key(0), x, use_running_average=False)
            assert jax.tree.map(jnp.shape, variables) == {
                'params': {'scale': (7,), 'bias': (7,)}, 'batch_stats': {'mean': (7,), 'var': (7,)}}

        def derivatives(layer):
            gradient = jax.grad(lambda x: jnp.sum(weight * jnp.sin(train(layer, x)[0])))
            return gradient(x), jax.jvp(gradient, (x,), (direction,))[1]

        def evaluate(layer):
            return layer.apply({'params': affine(7), 'batch_stats': running(7)}, x, use_running_average=True)

        for get in (lambda layer: train(layer, x), evaluate, derivatives):
            jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), get(ours), get(flax))

    @pytest.mark.parity
    def test_is_pytorch_batch_norm(self):
        torch = pytest.importorskip('torch')
        x = values(6, 3, 4, 7)
        other = torch.nn.BatchNorm2d(7, eps=EPSILON, momentum=0.1)
        params, statistics = affine(7), running(7)
        other.load_state_dict({'weight': torch.tensor(params['scale']), 'bias': torch.tensor(params['bias']),
                               'running_mean': torch.tensor(statistics['mean']), 'running_var': torch.tensor(statistics['var'])},
                              strict=False)
        expected = other(torch.tensor(x.transpose(0, 3, 1, 2))).detach().numpy().transpose(0, 2, 3, 1)
        y, new = train(norm.BatchNorm(momentum=0.9), x)
        np.testing.assert_allclose(y, expected, rtol=0, atol=1e-5)
        np.testing.assert_allclose(new['mean'], other.running_mean.numpy(), rtol=0, atol=1e-6)
        count = x.size / 7
        observed = (other.running_var.numpy() - 0.9 * statistics['var']) * (count - 1) / count
        np.testing.assert_allclose(new['var'], 0.9 * statistics['var'] + observed, rtol=0, atol=1e-6)

    def test_asks_which_statistics_to_use(self):
        with pytest.raises(ValueError, match='use_running_average'):
            norm.BatchNorm().init(jax.random.key(0), values(3, 4))

    def test_keeps_float32_statistics_of_bfloat16_images(self):
        x = values(64, 16, 16, 4, mean=3.0)
        y, new = train(norm.BatchNorm(momentum=0.0), jnp.asarray(x, jnp.bfloat16))
        assert y.dtype == new['mean'].dtype == jnp.float32
        np.testing.assert_allclose(new['mean'], x.mean((0, 1, 2)), rtol=1e-3)

    @pytest.mark.parametrize('name', ['batch', {'name': 'ghost_batch', 'virtual_batch_size': 4}])
    def test_a_constant_channel_stays_finite(self, name):
        x = jnp.full((6, 3, 3, 2), 1234.567)
        layer = norm.create(name, use_running_average=False)
        variables = layer.init(jax.random.key(0), x)

        def loss(x):
            return jnp.sum(jnp.square(layer.apply(variables, x, mutable=['batch_stats'])[0] + 1))

        assert np.isfinite(loss(x)) and np.isfinite(jax.grad(loss)(x)).all()


class TestGhostBatchNorm:
    @settings(max_examples=25, deadline=None)
    @given(batch=st.integers(2, 13), size=st.integers(1, 15), spatial=st.sampled_from([(), (3, 2)]))
    def test_each_run_of_rows_gets_batch_norm_of_its_own(self, batch, size, spatial):
        x = values(batch, *spatial, 4, mean=5.0)
        y, new = train(norm.GhostBatchNorm(virtual_batch_size=size, momentum=0.8), x)
        groups = [x[start : start + size] for start in range(0, batch, size)]
        alone = [train(norm.BatchNorm(momentum=0.8), group) for group in groups]
        # a group of one or two single values is divided by next to nothing, which magnifies rounding
        magnified = 1e-3 if not spatial else 1e-5
        np.testing.assert_allclose(y, np.concatenate([output for output, _ in alone]), rtol=0, atol=magnified)
        for key in ('mean', 'var'):
            expected = np.average([statistics[key] for _, statistics in alone], axis=0, weights=[len(g) for g in groups])
            np.testing.assert_allclose(new[key], expected, rtol=1e-5, atol=1e-5)

    @pytest.mark.parametrize('size', [12, 13, 1000])
    def test_with_a_size_of_at_least_the_batch_is_batch_norm(self, size):
        x = values(12, 3, 3, 4)
        ours, batch = train(norm.GhostBatchNorm(virtual_batch_size=size), x), train(norm.BatchNorm(), x)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-6), ours, batch)

    def test_gradients_stay_inside_a_group(self):
        x = jnp.asarray(values(7, 3, 3, 4))
        layer = norm.GhostBatchNorm(virtual_batch_size=3)
        weight = values(3, 3, 3, 4, seed=1)
        gradient = jax.grad(lambda x: jnp.sum(weight * train(layer, x)[0][3:6]))(x)
        assert (gradient[:3] == 0).all() and (gradient[6:] == 0).all() and (gradient[3:6] != 0).all()

    @pytest.mark.parametrize('batch', [1, 2, 7])
    def test_evaluates_any_batch_with_the_running_average(self, batch):
        x, variables = values(batch, 3, 3, 4), {'params': affine(4), 'batch_stats': running(4)}
        ghost, plain = norm.GhostBatchNorm(virtual_batch_size=3), norm.BatchNorm()
        np.testing.assert_array_equal(*(layer.apply(variables, x, use_running_average=True) for layer in (ghost, plain)))

    @pytest.mark.parametrize('size', [0, -4])
    def test_refuses_groups_of_nothing(self, size):
        with pytest.raises(ConfigError, match='virtual_batch_size'):
            norm.GhostBatchNorm(virtual_batch_size=size)


CASES = ['batch', 'virtual_batch', *({'name': 'ghost_batch', 'virtual_batch_size': n} for n in (1, 2, 3, 5, 6, 12))]


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
                variables = refreshed(layer, params, reference)
                y, statistics = layer.apply(variables, x), variables['reference']
            else:
                y, statistics = train(layer, x, params)
            return jnp.sum(weight * jnp.sin(y)), (y, statistics)

        return jax.grad(loss, (0, 1), has_aux=True)

    def expected(self, config):
        return jax.jit(self.step(config))(affine(4), self.x, self.weight, self.reference)

    def test_jit_over_a_mesh_gives_the_numbers_of_one_device(self, config):
        mesh = jax.make_mesh((4,), ('data',), axis_types=(jax.sharding.AxisType.Auto,))
        rows = jax.NamedSharding(mesh, jax.P('data'))
        batch = jax.device_put((self.x, self.weight, self.reference), rows)
        assert len(batch[0].sharding.device_set) == 4
        close(jax.jit(self.step(config))(affine(4), *batch), self.expected(config))

    def test_pmap_gives_the_numbers_of_one_device(self, config):
        split = [a.reshape(4, 3, *a.shape[1:]) for a in (self.x, self.weight)]
        step = jax.pmap(self.step(config, 'rows'), 'rows', in_axes=(None, 0, 0, None))
        (by_params, by_x), (y, statistics) = step(affine(4), *split, self.reference)
        expected = self.expected(config)
        joined = (jax.tree.map(lambda a: a.sum(0), by_params), by_x.reshape(self.x.shape)), y.reshape(self.x.shape)
        close(joined, (expected[0], expected[1][0]))
        for device in range(4):
            close(jax.tree.map(lambda a, d=device: a[d], statistics), expected[1][1])


def close(a, b):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), a, b)


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
        assert layer == nn.GroupNorm(num_groups=2, axis_name='rows')

    @pytest.mark.parametrize(('config', 'message'), [
        ('virtual_bach', "Did you mean 'virtual_batch'"),
        ({'name': 'batch', 'momentun': 0.9}, "Did you mean 'momentum'"),
        ({'name': 'batch', 'axis_name': 'rows'}, "no argument 'axis_name'"),
        ('ghost_batch', "needs 'virtual_batch_size'"),
        ({'momentum': 0.9}, "no 'name'"),
    ])
    def test_refuses_what_it_does_not_know(self, config, message):
        with pytest.raises(ConfigError, match=message):
            norm.create(config, use_running_average=True, axis_name=None)
