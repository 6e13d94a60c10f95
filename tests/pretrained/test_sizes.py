"""Networks that are made for one size of images: smaller ones, and weights at another size, against timm."""

import jax
import numpy as np
import pytest
import references

from research import models, pretrained

pytestmark = pytest.mark.parity

SMALL = (
    {'img_size': 28, 'in_chans': 1, 'patch_size': 7, 'embed_dim': 48, 'depth': 3, 'num_heads': 4, 'mlp_ratio': 2},
    {'patch': 7, 'dim': 48, 'depth': 3, 'heads': 4, 'mlp_ratio': 2},
)


def timms(path, **kwargs):
    """A network of timm's in which no parameter is as it began, its weights in a file."""
    import safetensors.torch

    torch, timm, _ = references.libraries()
    torch.manual_seed(0)
    network = timm.create_model('vit_tiny_patch16_224', num_classes=10, **kwargs).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    safetensors.torch.save_file(network.state_dict(), path)
    return network


def compare(network, module, variables, size, channels):
    import torch

    images = references.images(size, 1, channels=channels)
    with torch.no_grad():
        expected = network(references.to_torch(images)).numpy()
    scale = np.abs(expected).max()
    assert np.abs(expected[0] - expected[1]).max() > 1e-2 * scale  # the logits see the image
    np.testing.assert_allclose(jax.jit(module.apply)(variables, images), expected, rtol=0, atol=1e-4 * scale)


@pytest.mark.parametrize('pool', [{'global_pool': 'token', 'pool': 'token'}, {'global_pool': 'avg', 'pool': 'mean'}], ids=str)
def test_a_small_one_has_timms_logits(pool, tmp_path):
    network = timms(tmp_path / 'model.safetensors', global_pool=pool['global_pool'], **SMALL[0])
    compare(network, *pretrained.load('vit', tmp_path, size=28, pool=pool['pool'], **SMALL[1]), 28, 1)


@pytest.mark.parametrize('size', [160, 288])
def test_at_another_size_of_the_images_it_has_timms_positions(size, tmp_path):
    network = timms(tmp_path / 'model.safetensors')
    module, variables = pretrained.load('vit_tiny_patch16_224', tmp_path, size=size)
    network.set_input_size(img_size=size)
    expected = network.pos_embed.detach().numpy()
    np.testing.assert_allclose(variables['params']['positions'], expected, rtol=0, atol=1e-4 * np.abs(expected).max())
    compare(network, module, variables, size, 3)


def test_relative_positions_of_coatnet_are_resampled_linearly():
    """A table that is linear in the offset stays so (timm's own resampling is on a warped grid)."""
    module = models.create('coatnet_0_224', 10)
    table = np.add.outer(np.linspace(-1, 1, 13), 2 * np.linspace(-1, 1, 13)).reshape(-1, 1).astype(np.float32)
    found = module.resized(('params', 'relative_positions'), table, (27**2, 1)).reshape(27, 27)
    assert found[13, 13] == pytest.approx(0, abs=1e-6)
    inner = (np.arange(27) - 13) / 6 * 13 / 27
    np.testing.assert_allclose(found[2:-2, 2:-2], np.add.outer(inner, 2 * inner)[2:-2, 2:-2], rtol=0, atol=1e-5)
