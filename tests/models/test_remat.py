"""Rematerialization changes what is kept, and neither gradients nor names nor first weights."""

import functools

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from research import cost, models
from research.catalogue import ConfigError
from research.layers.formulation import compiler_options
from research.layers.remat import POLICIES


class Linear(nn.Module):
    num_classes: int


# Constructor, arguments, images. Each draws masks.
NETWORKS = {
    'cnn': ('cnn', {'widths': (4, 8), 'hidden': (16,), 'dropout': 0.3}, (8, 8, 8, 1)),
    'resnet': (
        'research.models.resnet:ResNet',
        {'depths': (3,), 'widths': (8,), 'stem': 'cifar', 'stochastic_depth': 0.5},
        (16, 12, 12, 3),
    ),
    'encoder': ('vit', {'depth': 2, 'dim': 16, 'heads': 2, 'dropout': 0.2, 'stochastic_depth': 0.5}, (16, 16, 16, 3)),
}

REMATS = ('none', *POLICIES)


def network(name, remat):
    constructor, kwargs, shape = NETWORKS[name]
    return models.create(constructor, 10, remat=remat, **kwargs), jax.random.normal(jax.random.key(1), shape)


@functools.cache
def variables(name):
    module, images = network(name, 'none')
    return jax.jit(module.init)(jax.random.key(0), images)


@functools.cache
def compiled(name, remat, devices):
    """The gradient of a loss by parameters, and its arguments: dropout on, rows over so many devices."""
    module, images = network(name, remat)
    params, example, statistics = (variables(name).get(kind, {}) for kind in ('params', 'example', 'batch_stats'))
    positions = jnp.stack([jnp.zeros(len(images), jnp.uint32), jnp.arange(len(images), dtype=jnp.uint32)], -1)
    told = {'position': positions, 'rng': jax.random.key(2)}
    example = jax.tree_util.tree_map_with_path(lambda path, _: told[path[-1].key], example)

    def loss(params, images):
        collections = {'params': params, 'batch_stats': statistics, 'example': example}
        logits, _ = module.apply(collections, images, train=True, mutable=['batch_stats'])
        return jnp.mean(jnp.sum(jnp.sin(logits), -1))

    mesh = jax.make_mesh((devices,), ('data',), axis_types=(AxisType.Auto,), devices=jax.devices()[:devices])
    whole, rows = NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec('data'))
    arguments = jax.device_put(params, whole), jax.device_put(images, rows)
    return jax.jit(jax.grad(loss), compiler_options=compiler_options('cpu')).lower(*arguments).compile(), arguments


@pytest.mark.long
@pytest.mark.parametrize(('name', 'devices'), [('resnet', 2), ('cnn', 1), ('cnn', 4), ('encoder', 2)])
def test_gradients_are_equal_with_and_without(name, devices):
    expected, *others = (gradient(*arguments) for gradient, arguments in (compiled(name, r, devices) for r in REMATS))
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(expected))
    scale = max(np.abs(leaf).max() for leaf in jax.tree.leaves(expected))
    for found in others:
        chex.assert_trees_all_close(found, expected, rtol=0, atol=1e-6 * scale)


@pytest.mark.long
@pytest.mark.parametrize('name', ['resnet', 'encoder'])
def test_less_is_kept_the_more_is_computed_again(name):
    """By the compiler's own count, of networks deep enough that activations are most of it."""
    none, products, block = (cost.memory(compiled(name, remat, 2)[0])['temporaries'] for remat in REMATS)
    assert none > products > block


@pytest.mark.parametrize('policy', ['block', *(pytest.param(p, marks=pytest.mark.long) for p in POLICIES if p != 'block')])
@pytest.mark.parametrize('name', NETWORKS)
def test_a_network_begins_with_the_same_weights_by_the_same_names(name, policy):
    module, images = network(name, policy)
    chex.assert_trees_all_equal(jax.jit(module.init)(jax.random.key(0), images), variables(name))


def test_a_network_without_blocks_says_so():
    constructor = f'{__name__}:Linear'
    assert not models.rematerializes(constructor)
    models.create(constructor, 10, remat='none')
    with pytest.raises(ConfigError, match="Linear' has no blocks to rematerialize"):
        models.create(constructor, 10, remat='block')


@pytest.mark.parametrize('name', NETWORKS)
def test_an_unknown_policy_is_refused(name):
    module, images = network(name, 'product')
    with pytest.raises(ConfigError, match="'product'.*Did you mean 'products'"):
        jax.eval_shape(module.init, jax.random.key(0), images)


@pytest.mark.parametrize('name', ['cnn', 'resnet18', 'resnet20', 'vit', 'vit_tiny_patch16_224'])
def test_a_network_with_blocks_is_told(name):
    assert models.rematerializes(name) and models.create(name, 10, remat='block').remat == 'block'
