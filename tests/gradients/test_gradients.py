"""Accumulated, sharpness-aware and selective gradients against what their definitions say of the whole batch."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from research import gradients
from research.catalogue import ConfigError
from research.gradients import accumulated, freezing
from research.layers.norm import BatchNorm, GhostBatchNorm
from research.train import parallel

ENGINE = parallel.Jit(jax.devices()[:1])
ROWS, TOKENS = 32, 6


def config(name='plain', noise_scale=False, **kwargs):
    return {'name': name, 'micro_batch': 0, 'noise_scale': noise_scale, 'freeze': {'name': 'none'}, **kwargs}


def tokens(seed=0, empty=False):
    """A batch whose rows have unequal counts of valid tokens; two micro-batches of four are partial, one may be empty."""
    rng = np.random.default_rng(seed)
    valid = np.arange(TOKENS) < rng.integers(1, TOKENS + 1, (ROWS, 1))
    valid[8:11], valid[17:20] = False, False
    if empty:
        valid[24:28] = False
    x = rng.normal(size=(ROWS, TOKENS, 5))
    return {'x': x, 'y': np.sin(x.sum(-1)), 'tokens': valid.astype(x.dtype), 'valid': np.ones(ROWS, x.dtype)}


PARAMS = {'w': np.random.default_rng(1).normal(size=(5, 4)) / 2, 'v': np.random.default_rng(2).normal(size=4) / 2}


def loss_fn(params, collections, batch):
    """Sum over valid tokens of a squared error."""
    found = jnp.tanh(batch['x'] @ params['w']) @ params['v']
    valid = batch['tokens'] * batch['valid'][:, None]
    losses = ((found - batch['y']) ** 2 * valid).sum(-1)
    sums = {'loss': losses.sum(), 'count': valid.sum()}
    return sums['loss'], {'sums': sums, 'collections': collections, 'losses': losses}


def micro(batch, size):
    return {k: v.reshape(-1, size, *v.shape[1:]) for k, v in batch.items()}


def cast(tree, dtype):
    return jax.tree.map(lambda a: jnp.asarray(a, dtype), tree)


def trained(tx, n, dtype, steps=20):
    """Parameters after `steps` of an optimizer on batches of 32 rows in n micro-batches."""
    gradient = gradients.create(config(), n)(loss_fn, ENGINE, None)
    params = cast(PARAMS, dtype)
    state = tx.init(params)

    @jax.jit
    def step(params, state, batch):
        found, aux = gradient(params, {}, batch)
        found = jax.tree.map(lambda g: g / aux['count'], found)
        updates, state = tx.update(found, state, params)
        return optax.apply_updates(params, updates), state

    for k in range(steps):
        batch = cast(tokens(k, empty=k % 2 == 0), dtype)
        params, state = step(params, state, micro(batch, ROWS // n) if n > 1 else batch)
    return params


def test_eight_micro_batches_are_one_batch_for_sgd():
    one, eight = (trained(optax.sgd(0.1), n, jnp.float32) for n in (1, 8))
    for name, value in one.items():
        np.testing.assert_allclose(eight[name], value, rtol=0, atol=1e-6 * np.abs(value).max())
        assert np.abs(np.asarray(value) - PARAMS[name]).max() > 0.05


def test_eight_micro_batches_are_one_batch_for_adam_in_float64():
    with jax.enable_x64(True):
        one, eight = (trained(optax.adam(0.03), n, jnp.float64) for n in (1, 8))
        for name, value in one.items():
            np.testing.assert_allclose(eight[name], value, rtol=1e-10)


def test_an_average_of_averages_would_be_seen():
    """The batch that the two tests above rest on: its micro-batches' means are not the mean of the whole."""
    batch = cast(tokens(empty=True), jnp.float32)
    counts = micro(batch, 4)['tokens'].sum((1, 2)).tolist()
    assert min(counts) == 0 and len(set(counts)) > 4


@functools.cache
def plain(n):
    return jax.jit(gradients.create(config(), n)(loss_fn, ENGINE, None))


@settings(deadline=None)
@given(size=st.sampled_from((1, 4, 16)), seed=st.integers(0, 1000), empty=st.booleans())
def test_sums_and_losses_are_the_whole_batchs(size, seed, empty):
    batch, params = cast(tokens(seed, empty), jnp.float32), cast(PARAMS, jnp.float32)
    found, aux = plain(ROWS // size)(params, {}, micro(batch, size))
    expected, whole = plain(1)(params, {}, batch)
    chex.assert_trees_all_close(found, expected, rtol=1e-4, atol=1e-5)
    chex.assert_trees_all_close(aux['sums'], whole['sums'], rtol=1e-5)
    np.testing.assert_allclose(aux['losses'].reshape(-1), whole['losses'], rtol=1e-5, atol=1e-6)


def test_batch_norm_under_accumulation_is_ghost_batch_norm():
    """Groups are the micro-batches; the running average moves once for each."""
    images = jax.random.normal(jax.random.key(0), (16, 4, 4, 3))

    def loss_of(norm):
        def loss(params, collections, batch):
            y, new = norm.apply({'params': params, **collections}, batch['x'], False, mutable=['batch_stats'])
            sums = {'loss': jnp.sum(jnp.sin(3 * y) * y), 'count': jnp.float32(len(batch['x']))}
            return sums['loss'], {'sums': sums, 'collections': new, 'losses': jnp.zeros(len(batch['x']))}

        return loss

    ghost, batch = GhostBatchNorm(virtual_batch_size=4), BatchNorm()
    variables = jax.jit(batch.init, static_argnums=2)(jax.random.key(1), images, False)
    params, collections = variables['params'], {'batch_stats': variables['batch_stats']}
    whole, by_four = (
        jax.jit(gradients.create(config(), n)(loss_of(norm), ENGINE, None)) for n, norm in ((1, ghost), (4, batch))
    )
    expected, _ = whole(params, collections, {'x': images})
    found, aux = by_four(params, collections, {'x': images.reshape(4, 4, 4, 4, 3)})
    chex.assert_trees_all_close(found, expected, rtol=1e-4, atol=1e-4)
    mean = np.zeros(3)
    for group in np.asarray(images).reshape(4, 4, 4, 4, 3):
        mean = 0.9 * mean + 0.1 * group.mean((0, 1, 2))
    np.testing.assert_allclose(aux['collections']['batch_stats']['mean'], mean, rtol=1e-4, atol=1e-6)


EVEN = np.full(8, 4)
UNEVEN = np.array([4, 1, 4, 0, 3, 2, 4, 4])


@pytest.mark.parametrize('counts', [EVEN, UNEVEN], ids=['even', 'uneven'])
def test_the_noise_scale_finds_a_known_one(counts):
    """Gradients of examples g + noise, with |g|^2 = 4 and a covariance of trace 30: their ratio is 7.5 examples."""
    valid = (np.arange(4) < counts[:, None]).astype(np.float32)
    rng, scale = np.random.default_rng(0), np.sqrt(np.linspace(0.5, 2.5, 20))
    signal = np.zeros(20)
    signal[:4] = 1.0

    def linear(params, collections, batch):
        losses = batch['g'] @ params['w'] * batch['valid']
        sums = {'loss': losses.sum(), 'count': batch['valid'].sum()}
        return sums['loss'], {'sums': sums, 'collections': {}, 'losses': losses}

    gradient = jax.jit(gradients.create(config(noise_scale=True), 8)(linear, ENGINE, None))
    means = {'noise/signal': [], 'noise/trace': []}
    for _ in range(400):
        g = (signal + scale * rng.normal(size=(8, 4, 20))).astype(np.float32)
        _, aux = gradient({'w': jnp.zeros(20)}, {}, {'g': g, 'valid': valid})
        for name, values in means.items():
            values.append(float(aux['observed'][name]))
    found = gradients.with_noise_scale({name: float(np.mean(values)) for name, values in means.items()})
    assert found['noise/signal'] == pytest.approx(4, rel=0.05)
    assert found['noise/trace'] == pytest.approx(np.sum(scale**2), rel=0.05)
    assert found['noise/scale'] == pytest.approx(7.5, rel=0.1)


def test_a_step_that_cannot_tell_leaves_the_noise_scale_alone():
    """One micro-batch has all the examples: 0 in both parts, whose means then keep their ratio."""
    batch = cast(tokens(), jnp.float32)
    batch['valid'] = batch['valid'].at[8:].set(0)
    gradient = jax.jit(gradients.create(config(noise_scale=True), 4)(loss_fn, ENGINE, None))
    _, aux = gradient(cast(PARAMS, jnp.float32), {}, micro(batch, 8))
    assert aux['observed'] == {'noise/signal': 0, 'noise/trace': 0}


def test_the_noise_scale_is_a_ratio_of_means_where_it_was_measured():
    assert gradients.with_noise_scale({'clip/steps': 0.5}) == {'clip/steps': 0.5}
    measured = {'noise/signal': 0.5, 'noise/trace': 2.0, 'clip/steps': 1.0}
    assert gradients.with_noise_scale(measured) == {**measured, 'noise/scale': 4.0}
    assert 'noise/scale' not in gradients.with_noise_scale({'noise/signal': -0.1, 'noise/trace': 2.0})


def test_the_noise_scale_wants_micro_batches():
    with pytest.raises(ConfigError, match='set gradient.micro_batch'):
        gradients.create(config(noise_scale=True), 1)


@pytest.mark.parametrize('n', [1, 4])
def test_sam_is_the_papers_equations(n):
    """Foret et al. 2021: g at w + rho * g / |g|, over the whole batch."""
    batch, params = cast(tokens(), jnp.float32), cast(PARAMS, jnp.float32)
    gradient = jax.jit(gradients.create(config('sam', rho=0.3), n)(loss_fn, ENGINE, None))
    found, aux = gradient(params, {}, micro(batch, ROWS // n) if n > 1 else batch)
    gradient_at = jax.jit(jax.grad(lambda p: loss_fn(p, {}, batch)[0]))
    g = gradient_at(params)
    norm = np.sqrt(sum(float((leaf**2).sum()) for leaf in jax.tree.leaves(g)))
    expected = gradient_at(jax.tree.map(lambda p, g: p + 0.3 * g / norm, params, g))
    chex.assert_trees_all_close(found, expected, rtol=1e-3, atol=1e-4)
    assert aux['sums']['loss'] == pytest.approx(float(loss_fn(params, {}, batch)[0]), rel=1e-5)


def test_sam_without_a_distance_is_plain_and_keeps_what_the_first_pass_saw():
    batch, params = cast(tokens(), jnp.float32), cast(PARAMS, jnp.float32)

    def remembers(params, collections, batch):
        loss, aux = loss_fn(params, collections, batch)
        return loss, {**aux, 'collections': {'seen': params}}

    expected, _ = gradients.create(config(), 1)(remembers, ENGINE, None)(params, {}, batch)
    still, _ = gradients.create(config('sam', rho=0.0), 1)(remembers, ENGINE, None)(params, {}, batch)
    chex.assert_trees_all_equal(still, expected)
    moved, aux = gradients.create(config('sam', rho=0.3), 1)(remembers, ENGINE, None)(params, {}, batch)
    assert not np.allclose(moved['w'], expected['w'])
    chex.assert_trees_all_equal(aux['collections']['seen'], params)


@pytest.mark.parametrize('n', [1, 4])
@pytest.mark.parametrize(('keep', 'count'), [(0.25, 6), (0.4, 9), (0.01, 1), (0.999, 23)])
def test_selective_backprop_learns_from_the_largest_losses(n, keep, count):
    """A share of the 23 rows that count, whatever the shares of micro-batches; of the others' losses nobody knows."""
    batch, params = cast(tokens(), jnp.float32), cast(PARAMS, jnp.float32)
    batch['valid'] = batch['valid'].at[4:13].set(0)
    gradient = jax.jit(gradients.create(config('selective_backprop', keep=keep), n)(loss_fn, ENGINE, None))
    found, aux = gradient(params, {}, micro(batch, ROWS // n) if n > 1 else batch)
    losses = np.asarray(loss_fn(params, {}, batch)[1]['losses'])
    chosen = np.argsort(np.where(batch['valid'] > 0, -losses, np.inf), kind='stable')[:count]
    expected = jax.jit(jax.grad(lambda p: loss_fn(p, {}, jax.tree.map(lambda a: a[chosen], batch))[0]))(params)
    chex.assert_trees_all_close(found, expected, rtol=1e-3, atol=1e-4)
    assert float(aux['count']) == float(batch['tokens'][chosen].sum())
    assert float(aux['sums']['count']) == float((batch['tokens'] * batch['valid'][:, None]).sum())
    assert float(aux['sums']['loss']) == pytest.approx(losses.sum(), rel=1e-5)


def test_of_equal_losses_the_earlier_row_is_kept():
    batch = {'x': jnp.arange(8.0), 'valid': jnp.ones(8)}

    def equal(params, collections, batch):
        losses = batch['valid'] * (1 + (params - jax.lax.stop_gradient(params)) * batch['x'])
        return losses.sum(), {'sums': {'count': batch['valid'].sum()}, 'collections': {}, 'losses': losses}

    gradient = jax.jit(gradients.create(config('selective_backprop', keep=0.5), 1)(equal, ENGINE, None))
    found, _ = gradient(jnp.float32(1), {}, batch)
    assert found == 0 + 1 + 2 + 3


DEVICES = 2
SELECTIVE = config('selective_backprop', keep=0.29)  # 9 of 32 rows, which two devices cannot share evenly


@pytest.mark.parametrize(
    ('group', 'n'),
    [(config(noise_scale=True), 2), (config('sam', rho=0.3), 1), (config('sam', rho=0.3), 2), (SELECTIVE, 1), (SELECTIVE, 2)],
    ids=['noise_scale', 'sam', 'sam accumulated', 'selective_backprop', 'selective_backprop accumulated'],
)
@pytest.mark.long
def test_every_engine_takes_the_whole_batch(group, n):
    params, batch = cast(PARAMS, jnp.float32), cast(tokens(), jnp.float32)
    batch = micro(batch, ROWS // n) if n > 1 else batch

    def on(engine):
        def step(params, batch):
            mine = {name: engine.rows(v, n > 1) for name, v in batch.items()}
            found, aux = gradients.create(group, n)(loss_fn, engine, None)(params, {}, mine)
            return *engine.total((found, aux['sums'], aux['count'])), aux['observed']

        return engine.host(engine.jit(step)(engine.replicate(params), engine.replicate(batch)))

    several = jax.devices()[:DEVICES]
    one, *others = (on(engine) for engine in (ENGINE, parallel.Jit(several), parallel.Pmap(several)))
    for other in others:
        chex.assert_trees_all_close(other, one, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ('group', 'message'),
    [
        (config('sam', rho=-1.0), 'a distance of 0 or more'),
        (config('selective_backprop', keep=0.0), 'above 0'),
        (config('selective_backprop', keep=1.5), 'up to 1'),
        (config('sma'), "Did you mean 'sam'"),
        (config('sam', keep=0.5), "takes no argument 'keep'"),
    ],
)
def test_errors_name_the_field(group, message):
    with pytest.raises(ConfigError, match=message):
        gradients.create(group, 1)


def test_layers_freeze_from_the_front_and_never_the_last():
    layers = ('stem', 'block1', 'block2', 'head')
    assert [freezing.frozen(layers, share) for share in (0, 0.24, 0.25, 0.5, 1)] == [
        (), (), ('stem',), ('stem', 'block1'), ('stem', 'block1', 'block2')
    ]  # fmt: skip
    group = {'name': 'progressive', 'start': '100ex', 'until': '200ex', 'share': 0.8}
    freeze = freezing.create(config(freeze=group), lambda text: int(text[:-2]))
    assert freeze.changes == (100, 125, 150, 175)
    assert [freeze.at(p) for p in (0, 99, 100, 174, 175, 999)] == pytest.approx([0, 0, 0.2, 0.6, 0.8, 0.8])


@given(count=st.integers(1, 40), shares=st.lists(st.floats(0, 1), min_size=2, max_size=2).map(sorted))
def test_more_is_frozen_with_a_larger_share(count, shares):
    layers = tuple(f'layer{k}' for k in range(count))
    less, more = (freezing.frozen(layers, share) for share in shares)
    assert layers[: len(less)] == less and layers[: len(more)] == more and len(less) <= len(more) < count
    assert len(more) in (int(shares[1] * count), int(shares[1] * count + 1e-6), count - 1)


@pytest.mark.parametrize(
    'group',
    [
        {'name': 'progressive', 'start': '200ex', 'until': '100ex'},
        {'name': 'progressive', 'start': '0ex', 'until': '100ex', 'share': 0.0},
        {'name': 'progressive', 'start': '0ex', 'until': '100ex', 'levels': 0},
        {'name': 'progresive'},
        {'name': 'none', 'share': 0.5},
    ],
)
def test_freezing_refuses_nonsense(group):
    with pytest.raises(ConfigError):
        freezing.create(config(freeze=group), lambda text: int(text[:-2]))


def test_by_default_nothing_freezes():
    assert freezing.create(config(), int).changes == () and freezing.create(config(), int).at(10**9) == 0


def test_nothing_goes_back_through_what_is_frozen():
    params = {'first': jnp.ones((3, 3)), 'second': jnp.ones((3, 3))}

    def loss(params, x):
        seen = freezing.freeze(params, ('first',))
        return jnp.sum(jnp.tanh(x @ seen['first']) @ seen['second'])

    x = jnp.arange(6.0).reshape(2, 3)
    gradient = jax.grad(loss)(params, x)
    assert not gradient['first'].any() and gradient['second'].any()
    products = str(jax.make_jaxpr(jax.grad(loss))(params, x)).count('dot_general')
    assert products == 3  # two forward, one for the second kernel; learning both takes five


def test_accumulation_adds_in_float32_at_least():
    params = {'w': jnp.ones(3, jnp.bfloat16)}

    def loss(params, collections, batch):
        sums = {'loss': jnp.sum(batch['x'] * params['w'][None]).astype(jnp.float32), 'count': jnp.float32(1)}
        return sums['loss'], {'sums': sums, 'collections': {}, 'losses': jnp.zeros(1)}

    batch = {'x': jnp.full((512, 1, 3), 1.0, jnp.bfloat16)}
    found, _ = accumulated.gradient(loss, ENGINE, False)(params, {}, batch)
    assert found['w'].dtype == jnp.float32 and (found['w'] == 512).all()  # bfloat16 stops at 256
