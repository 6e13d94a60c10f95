"""What clipping leaves of a gradient, against torch and NumPy; and how often it says that it acted."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import references
from hypothesis import given
from hypothesis import strategies as st
from test_optimizers import config, once, problem

from research import optim
from research.catalogue import ConfigError
from research.optim import clipping

GRADIENT = {
    'conv': {'kernel': np.random.default_rng(1).normal(size=(3, 3, 2, 4)).astype(np.float32)},
    'head': {'kernel': np.full((4, 2), 0.01, np.float32), 'bias': np.float32([3, -4])},
}
PARAMS = jax.tree.map(lambda g: 0.5 + 0 * g, GRADIENT)


def clipped(clip, gradient=GRADIENT, params=PARAMS):
    clip = clipping.counted(clip)
    updates, state = jax.jit(clip.update)(gradient, clip.init(params), params)
    return updates, {name: float(value) for name, value in state.observed.items()}


@pytest.mark.parity
@pytest.mark.parametrize('bound', [0.5, 4.0, 100.0])
def test_parity_with_torch(bound):
    import torch

    def tensors():
        found = [torch.nn.Parameter(torch.zeros(g.shape)) for g in jax.tree.leaves(GRADIENT)]
        for tensor, g in zip(found, jax.tree.leaves(GRADIENT), strict=True):
            tensor.grad = torch.tensor(g)
        return found

    by_norm, by_value, each = tensors(), tensors(), tensors()
    torch.nn.utils.clip_grad_norm_(by_norm, bound)
    torch.nn.utils.clip_grad_value_(by_value, bound)
    for tensor in each:
        torch.nn.utils.clip_grad_norm_([tensor], bound)
    for clip, expected in (
        (optax.clip_by_global_norm(bound), by_norm),
        (clipping.value(bound), by_value),
        (clipping.parameter_norm(bound), each),
    ):
        for found, tensor in zip(jax.tree.leaves(clipped(clip)[0]), expected, strict=True):
            np.testing.assert_allclose(found, tensor.grad, rtol=2e-6)


def model():
    """(gradient, weights) of every kind of parameter that a model has; some weights small, some gradients 0."""
    generator = np.random.default_rng(2)
    shapes = {
        'conv': {'kernel': (3, 3, 2, 4), 'bias': (4,)},
        'depthwise': {'kernel': (3, 3, 1, 4)},
        'dense': {'kernel': (6, 5)},
        'one_input': {'kernel': (1, 5)},
        'positions': (1, 7, 3),
        'token': (1, 1, 3),
        'scale': (),
    }

    def draw(shape):
        return generator.normal(size=shape).astype(np.float32)

    gradient, weights = (jax.tree.map(draw, shapes, is_leaf=lambda x: isinstance(x, tuple)) for _ in range(2))
    weights['dense']['kernel'][:, 0] = 0
    gradient['dense']['kernel'][:, 1] = 0
    return gradient, weights


@pytest.mark.parametrize('factor', [0.1, 1.0])
def test_adaptive_clipping_is_that_of_the_paper(factor):
    """Brock et al. 2021, equation 3, in float64: a unit is an output of a kernel, or a whole other parameter."""
    gradient, weights = model()
    updates, _ = clipped(clipping.adaptive(factor, 1e-3), gradient, weights)
    untouched = 0
    for (path, u), g, w in zip(
        jax.tree_util.tree_leaves_with_path(updates), jax.tree.leaves(gradient), jax.tree.leaves(weights), strict=True
    ):
        units = w.shape[-1] if clipping.path_of(path).endswith('kernel') else 1
        u, g, w = (np.asarray(x, np.float64).reshape(-1, units) for x in (u, g, w))
        for unit in range(units):
            longest = factor * max(np.linalg.norm(w[:, unit]), 1e-3)
            expected = g[:, unit] * min(1, longest / max(np.linalg.norm(g[:, unit]), 1e-300))
            untouched += bool((expected == g[:, unit]).all())
            np.testing.assert_allclose(u[:, unit], expected, rtol=1e-5, err_msg=str(path))
    assert 1 <= untouched < 20


@pytest.mark.parity
@pytest.mark.parametrize('factor', [0.1, 1.0])
def test_adaptive_clipping_is_timms(factor):
    torch, timm, _ = references.libraries()
    gradient, weights = model()

    def turned(x):
        """Outputs come first in torch's kernels."""
        return x.transpose(3, 2, 0, 1) if x.ndim == 4 else x.T if x.ndim == 2 else x

    tensors = [torch.nn.Parameter(torch.tensor(turned(w))) for w in jax.tree.leaves(weights)]
    for tensor, g in zip(tensors, jax.tree.leaves(gradient), strict=True):
        tensor.grad = torch.tensor(turned(g))
    timm.utils.adaptive_clip_grad(tensors, factor, 1e-3)
    updates, _ = clipped(clipping.adaptive(factor, 1e-3), gradient, weights)
    for found, tensor in zip(jax.tree.leaves(updates), tensors, strict=True):
        np.testing.assert_allclose(turned(np.asarray(found)), tensor.grad, rtol=2e-6)


def test_adaptive_clipping_leaves_out_what_it_is_told_to():
    updates, observed = clipped(clipping.adaptive(0.1, exclude=('head/*',)))
    chex.assert_trees_all_equal(updates['head'], GRADIENT['head'])
    assert observed['clip/entries'] == pytest.approx(72 / 82)
    with pytest.raises(ConfigError, match=r"optimizer.clip.exclude: 'haed/\*' matches no parameter"):
        clipping.adaptive(0.1, exclude=('haed/*',)).init(PARAMS)


@pytest.mark.parametrize(
    ('name', 'bound'),
    [('global_norm', 'max_norm'), ('value', 'max_value'), ('parameter_norm', 'max_norm'), ('adaptive', 'clipping')],
)
def test_the_bound_is_data(name, bound):
    """One program whatever the bound; an infinite one changes no bit."""
    settings = config()
    settings.optimizer.clip = {'name': name, bound: 0.01}
    tx = optim.create(settings)
    gradient = {**GRADIENT, 'zero': {'kernel': np.zeros((2, 3), np.float32)}}
    params = jax.tree.map(np.ones_like, gradient)
    chex.clear_trace_counter()
    update = jax.jit(chex.assert_max_traces(tx.update, 1))
    seen = []
    for number in (0.01, 0.02, float('inf')):
        updates, state = update(gradient, optim.inject(tx.init(params), **{bound: number}), params)
        seen.append((updates, optim.observations(state)['clip/entries']))
    (tight, some), (loose, _), (free, none) = seen
    longest = [optax.tree.norm(updates) for updates in (tight, loose, free)]
    assert longest[0] < longest[1] < longest[2]
    assert some > 0 and none == 0
    chex.assert_trees_all_equal(free, jax.tree.map(lambda g: np.float32(-0.1) * g, gradient))


@pytest.mark.parametrize(
    ('clip', 'steps', 'entries'),
    [
        (optax.clip_by_global_norm(1e6), 0, 0),
        (clipping.value(3.5), 1, 1 / 82),
        (clipping.value(float('inf')), 0, 0),
        (clipping.parameter_norm(5.1), 1, 72 / 82),  # the kernel of the convolution alone is longer
        (clipping.adaptive(1e6), 0, 0),
    ],
)
def test_it_says_how_often_it_acted(clip, steps, entries):
    updates, observed = clipped(clip)
    assert np.linalg.norm(GRADIENT['conv']['kernel']) > 5.1 and np.abs(GRADIENT['conv']['kernel']).max() < 3.5
    assert observed == {'clip/steps': steps, 'clip/entries': pytest.approx(entries)}
    if not steps:
        chex.assert_trees_all_equal(updates, GRADIENT)


by_parameter = jax.jit(lambda bound: clipping.parameter_norm(bound).update(GRADIENT, optax.EmptyState(), PARAMS)[0])


@given(bound=st.floats(1e-3, 1e3))
def test_no_parameters_gradient_is_longer_than_asked_for(bound):
    updates = by_parameter(jnp.float32(bound))
    assert all(np.linalg.norm(u) <= bound * (1 + 1e-5) for u in jax.tree.leaves(updates))


def test_observations_are_found_in_a_whole_chain():
    """In and out of loss scaling; nothing where nothing observes."""
    params, loss = problem()
    names = {'clip/steps', 'clip/entries'}
    for precision, more in (('float32', set()), ('float16', {'scale/skipped'})):
        settings = config('adam', clip='global_norm', max_norm=1e-3)
        settings.train.precision = precision
        tx = optim.create(settings)
        _, state = once(tx, jax.jit(jax.grad(loss))(params), params)
        found = optim.observations(state)
        assert set(found) == names | more
        assert found['clip/steps'] == 1
    assert optim.observations(optim.create(config('adam')).init(params)) == {}
