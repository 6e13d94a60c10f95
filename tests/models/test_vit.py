"""ViT: sizes of the papers, any norm layer and number of tokens; its logits are compared in tests/pretrained."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research import models
from research.catalogue import ConfigError
from research.models.blocks import Block
from research.models.network import Network


@pytest.mark.parametrize(
    ('name', 'expected'),
    [('vit_tiny_patch16_224', 5_717_416), ('vit_small_patch16_224', 22_050_664), ('vit_base_patch16_224', 86_567_656)],
)
def test_parameter_counts(name, expected):
    shapes = jax.eval_shape(models.create(name).init, jax.random.key(0), jnp.zeros((1, 224, 224, 3)))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes['params'])) == expected


def test_an_image_that_patches_do_not_tile_is_refused():
    with pytest.raises(ConfigError, match='28x28 .* patches of 16'):
        jax.eval_shape(models.create('vit', 10, patch=16).init, jax.random.key(0), jnp.zeros((1, 28, 28, 1)))


def test_heads_that_do_not_divide_the_features_are_refused():
    with pytest.raises(ConfigError, match='3 heads'):
        jax.eval_shape(models.create('vit', 10, heads=3).init, jax.random.key(0), jnp.zeros((1, 28, 28, 1)))


def test_examples_do_not_see_each_other():
    module, x = models.create('vit', 10, depth=1), jax.random.normal(jax.random.key(1), (3, 28, 28, 1))
    variables = jax.jit(module.init)(jax.random.key(0), x)
    gradient = jax.jit(jax.grad(lambda x: module.apply(variables, x)[0].sum()))(x)
    assert jnp.abs(gradient[0]).max() > 0 and not gradient[1:].any()


def test_an_unknown_pool_is_refused():
    with pytest.raises(ConfigError, match="'avg'.*mean, token"):
        jax.eval_shape(models.create('vit', 10, pool='avg').init, jax.random.key(0), jnp.zeros((1, 28, 28, 1)))


@pytest.mark.parametrize(('patch', 'pool'), [(4, 'token'), pytest.param(7, 'mean', marks=pytest.mark.long)])
@pytest.mark.long
def test_patches_are_a_set_but_for_their_positions(patch, pool):
    module, x = models.create('vit', 10, patch=patch, depth=1, pool=pool), jax.random.normal(jax.random.key(1), (2, 28, 28, 1))
    variables, apply = jax.jit(module.init)(jax.random.key(0), x), jax.jit(module.apply)
    x, rolled = (jnp.roll(x, shift, 1) for shift in (0, patch))
    assert np.abs(apply(variables, rolled) - apply(variables, x)).max() > 1e-3
    variables['params']['positions'] *= 0
    np.testing.assert_allclose(apply(variables, rolled), apply(variables, x), rtol=0, atol=1e-5)


def test_rates_of_zero_leave_the_program_of_evaluation():
    module, x = models.create('vit', 10, depth=1), jnp.zeros((2, 8, 8, 3))
    variables = jax.eval_shape(module.init, jax.random.key(0), x)
    assert set(variables) == {'params'}
    train, evaluate = (jax.make_jaxpr(lambda v, t=t: module.apply(v, x, train=t))(variables) for t in (True, False))
    assert str(train) == str(evaluate)


@pytest.mark.long
def test_a_block_stands_on_its_own():
    """Each token sees every other of its example, in any number of tokens."""
    kit = Network(norm='layer', activation='gelu').kit(train=False)
    module, x = Block(kit, heads=2, width=32), jax.random.normal(jax.random.key(1), (2, 5, 8))
    variables = jax.jit(module.init)(jax.random.key(0), x)
    assert jax.eval_shape(module.apply, variables, x[:, :3])[0].shape == (2, 3, 8)
    gradient = jax.jit(jax.grad(lambda x: module.apply(variables, x)[0][0, 0].sum()))(x)
    assert (jnp.abs(gradient[0]).max(-1) > 0).all() and not gradient[1].any()


OTHERS = ('batch', {'name': 'ghost_batch', 'virtual_batch_size': 2}, 'none')


@pytest.mark.parametrize('norm', ['virtual_batch', *(pytest.param(norm, marks=pytest.mark.long) for norm in OTHERS)], ids=str)
@pytest.mark.long
def test_any_norm_layer_normalizes_tokens(norm):
    module, x = models.create('vit', 10, depth=1, norm=norm), jax.random.normal(jax.random.key(1), (4, 8, 8, 3))
    variables = jax.jit(module.init)(jax.random.key(0), x)
    logits, _ = jax.jit(lambda v: module.apply(v, x, train=True, mutable=['batch_stats']))(variables)
    assert np.isfinite(logits).all() and np.ptp(logits, axis=0).max() > 1e-3


def test_positions_on_another_square_keep_the_class_tokens_and_a_constant():
    module, positions = models.create('vit', 10), np.random.default_rng(0).normal(size=(1, 1 + 4**2, 8)).astype(np.float32)
    path = ('params', 'positions')
    found = module.resized(path, positions, (1, 1 + 8**2, 8))
    np.testing.assert_array_equal(found[:, 0], positions[:, 0])
    assert module.resized(path, np.ones_like(positions), (1, 1 + 3**2, 8)) == pytest.approx(np.ones((1, 10, 8)), abs=1e-6)
    assert module.resized(path, positions, (1, 1 + 8**2, 16)) is None  # another D
    assert module.resized(path, positions, (1, 1 + 3 * 8, 8)) is None  # no square
    assert module.resized(('params', 'class_token'), positions[:, :1], (1, 1, 16)) is None
