"""ViT: sizes of the papers, and timm's logits."""

import chex
import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research import models
from research.catalogue import ConfigError


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
    module, x = models.create('vit', 10, depth=2), jax.random.normal(jax.random.key(1), (3, 28, 28, 1))
    variables = jax.jit(module.init)(jax.random.key(0), x)
    gradient = jax.jit(jax.grad(lambda x: module.apply(variables, x)[0].sum()))(x)
    assert jnp.abs(gradient[0]).max() > 0 and not gradient[1:].any()


def test_an_unknown_pool_is_refused():
    with pytest.raises(ConfigError, match="'avg'.*mean, token"):
        jax.eval_shape(models.create('vit', 10, pool='avg').init, jax.random.key(0), jnp.zeros((1, 28, 28, 1)))


@pytest.mark.parametrize(('patch', 'pool'), [(4, 'token'), (7, 'mean')])
def test_patches_are_a_set_but_for_their_positions(patch, pool):
    module, x = models.create('vit', 10, patch=patch, depth=2, pool=pool), jax.random.normal(jax.random.key(1), (2, 28, 28, 1))
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


# timm's names of layers, in front of `.weight` and `.bias`, and ours.
NAMES = {
    'patch_embed.proj': 'patch_embed',
    'norm1': 'attention_norm',
    'attn.qkv': 'qkv',
    'attn.proj': 'projection',
    'norm2': 'mlp_norm',
    'mlp.fc1': 'mlp_in',
    'mlp.fc2': 'mlp_out',
    'fc_norm': 'norm',
}
SMALL = (
    {'img_size': 28, 'in_chans': 1, 'patch_size': 7, 'embed_dim': 48, 'depth': 3, 'num_heads': 4, 'mlp_ratio': 2},
    {'patch': 7, 'dim': 48, 'depth': 3, 'heads': 4, 'mlp_ratio': 2},
)
TIMM = {
    'tiny': ({}, 'vit_tiny_patch16_224', {}, (2, 224, 224, 3)),
    'small': (SMALL[0], 'vit', SMALL[1], (2, 28, 28, 1)),
    'mean': (SMALL[0] | {'global_pool': 'avg'}, 'vit', SMALL[1] | {'pool': 'mean'}, (2, 28, 28, 1)),
}


def to_jax(tensors):
    """A state dict of timm's, or gradients by the same names, as our parameters."""
    params = {}
    for name, tensor in tensors.items():
        a = tensor.detach().numpy().copy()
        if name in ('cls_token', 'pos_embed'):
            params[{'cls_token': 'class_token', 'pos_embed': 'positions'}[name],] = a
            continue
        layer, _, leaf = name.rpartition('.')
        path = []
        if layer.startswith('blocks.'):
            _, number, layer = layer.split('.', 2)
            path = [f'block{int(number) + 1}']
        leaf = leaf if leaf == 'bias' else 'scale' if a.ndim == 1 else 'kernel'
        params[*path, NAMES.get(layer, layer), leaf] = a.transpose(2, 3, 1, 0) if a.ndim == 4 else a.T
    return flax.traverse_util.unflatten_dict(params)


def import_timm():
    """timm; its torchvision may be a build for another torch, which then lacks the two operators that it names at once."""
    import torch

    try:
        import timm
    except RuntimeError:
        library = torch.library.Library('torchvision', 'FRAGMENT')
        for op in ('nms', 'qnms'):
            library.define(op + '(Tensor dets, Tensor scores, float iou_threshold) -> Tensor')
        import timm
    return timm


@pytest.mark.parity
@pytest.mark.parametrize('case', TIMM)
def test_logits_and_gradients_are_timms(case):
    import torch

    timm = import_timm()
    torch.manual_seed(0)
    theirs, name, ours, shape = TIMM[case]
    network = timm.create_model('vit_tiny_patch16_224', num_classes=10, **theirs).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    images = np.random.default_rng(0).normal(0.3, 1, shape).astype(np.float32)
    logits = network(torch.tensor(images.transpose(0, 3, 1, 2)))
    torch.sin(logits).sum().backward()
    expected, gradients = logits.detach().numpy(), to_jax({n: p.grad for n, p in network.named_parameters()})

    module, params = models.create(name, 10, **ours), to_jax(network.state_dict())
    found, back = jax.vjp(jax.jit(lambda params: module.apply({'params': params}, images)), params)
    scale = np.abs(expected).max()
    assert np.abs(expected[0] - expected[1]).max() > 1e-2 * scale  # the logits see the image
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * scale)
    scale = max(np.abs(leaf).max() for leaf in jax.tree.leaves(gradients))
    chex.assert_trees_all_close(back(jnp.cos(found))[0], gradients, rtol=0, atol=1e-4 * scale)
