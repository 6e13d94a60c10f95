"""What a config adds to any network: squeeze-and-excitation, blur pooling, weight standardization, low rank."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import references

from research import models
from research.catalogue import ConfigError
from research.layers.blur import blur
from research.layers.squeeze_excite import SqueezeExcite
from research.layers.weight_standardization import StandardizedConv


def images(*shape):
    return jax.random.normal(jax.random.key(1), shape)


class TestBlur:
    @pytest.mark.parametrize('size', [(7, 6), *(pytest.param(size, marks=pytest.mark.long) for size in ((2, 3), (1, 4)))])
    @pytest.mark.parametrize('strides', [1, 2, 3])
    def test_is_the_binomial_filter_with_reflected_edges(self, size, strides):
        x = np.asarray(images(2, *size, 3), np.float64)
        pad = [np.pad(x, [(0, 0), (1, 1), (0, 0), (0, 0)], 'reflect' if size[0] > 1 else 'edge')]
        padded = np.pad(pad[0], [(0, 0), (0, 0), (1, 1), (0, 0)], 'reflect' if size[1] > 1 else 'edge')
        weights = np.outer([1, 2, 1], [1, 2, 1]) / 16
        expected = sum(weights[i, j] * padded[:, i : i + size[0], j : j + size[1]] for i in range(3) for j in range(3))
        np.testing.assert_allclose(
            jax.jit(blur, static_argnums=1)(jnp.float32(x), strides), expected[:, ::strides, ::strides], atol=1e-5
        )

    def test_a_constant_stays(self):
        np.testing.assert_allclose(blur(jnp.full((1, 5, 5, 2), 3.0), 2), jnp.full((1, 3, 3, 2), 3.0), rtol=1e-6)

    @pytest.mark.parity
    def test_is_timms(self):
        torch, timm, _ = references.libraries()
        theirs, x = timm.layers.BlurPool2d(3, filt_size=3, stride=2), np.asarray(images(2, 9, 8, 3))
        expected = theirs(torch.tensor(x.transpose(0, 3, 1, 2))).numpy().transpose(0, 2, 3, 1)
        np.testing.assert_allclose(blur(jnp.asarray(x), 2), expected, atol=1e-5)

    def test_stands_in_front_of_every_layer_that_leaves_pixels_out(self):
        """With strides of 1 nothing is blurred; a shift of the image by one pixel changes the logits less with it."""
        x = images(4, 33, 33, 1)
        logits = {}
        for on in (False, True):
            module = models.create('cnn', 5, widths=(4, 8), hidden=(), blur_pool=on)
            variables = jax.jit(module.init)(jax.random.key(0), x[:, :32, :32])
            apply = jax.jit(module.apply)
            logits[on] = apply(variables, x[:, :32, :32]), apply(variables, x[:, 1:, 1:])
        assert not np.allclose(logits[True][0], logits[False][0])


class TestWeightStandardization:
    def test_filters_are_seen_with_mean_0_and_variance_1(self):
        layer = StandardizedConv(6, 3, groups=2)
        variables = jax.jit(layer.init)(jax.random.key(0), images(1, 8, 8, 4))
        variables = {'params': {**variables['params'], 'kernel': 3 + 5 * images(3, 3, 2, 6)}}
        seen = layer.seen(variables['params']['kernel'])
        np.testing.assert_allclose(seen.mean((0, 1, 2)), jnp.zeros(6), atol=1e-5)
        np.testing.assert_allclose(seen.std((0, 1, 2)), jnp.ones(6), rtol=1e-4)

    def test_neither_scale_nor_shift_of_a_filter_matters(self):
        layer = StandardizedConv(3, 3, use_bias=False)
        kernel, x = images(3, 3, 4, 3), images(2, 8, 8, 4)
        apply = jax.jit(layer.apply)
        one, other = (apply({'params': {'kernel': k}}, x) for k in (kernel, 7 * kernel + 2))
        np.testing.assert_allclose(one, other, atol=1e-3)

    @pytest.mark.parity
    def test_is_timms(self):
        torch, timm, _ = references.libraries()
        theirs, x = timm.layers.StdConv2d(4, 5, 3, padding=1), np.asarray(images(2, 9, 8, 4))
        expected = theirs(torch.tensor(x.transpose(0, 3, 1, 2))).detach().numpy().transpose(0, 2, 3, 1)
        params = {'kernel': theirs.weight.detach().numpy().transpose(2, 3, 1, 0)}
        found = StandardizedConv(5, 3, padding=1, use_bias=False).apply({'params': params}, x)
        np.testing.assert_allclose(found, expected, atol=1e-4)


class TestSqueezeExcite:
    def test_weighs_channels_by_the_mean_of_the_map(self):
        layer, x = SqueezeExcite(2), images(3, 5, 4, 6)
        variables = jax.jit(layer.init)(jax.random.key(0), x)
        p = jax.tree.map(np.asarray, variables['params'])
        hidden = np.maximum(np.asarray(x).mean((1, 2)) @ p['reduce']['kernel'] + p['reduce']['bias'], 0)
        gate = 1 / (1 + np.exp(-(hidden @ p['expand']['kernel'] + p['expand']['bias'])))
        np.testing.assert_allclose(jax.jit(layer.apply)(variables, x), x * gate[:, None, None], atol=1e-5)

    def test_in_a_resnet_adds_its_two_matrices_a_block(self):
        def names(share):
            module = models.create('research.models.resnet:ResNet', 10, depths=(1, 1), widths=(8, 8), squeeze_excite=share)
            shapes = jax.eval_shape(module.init, jax.random.key(0), images(1, 32, 32, 3))['params']
            return {jax.tree_util.keystr(p): a.shape for p, a in jax.tree.leaves_with_path(shapes)}

        more = set(names(1 / 16)) - set(names(0.0))
        assert len(more) == 2 * 4 and all('squeeze_excite' in name for name in more)


def test_low_rank_computes_with_the_product_of_its_factors():
    x = images(2, 8, 8, 64)
    module = models.create('research.models.resnet:ResNet', 10, depths=(1,), widths=(128,), stem='cifar', low_rank=0.25)
    params = jax.eval_shape(module.init, jax.random.key(0), x)['params']['stage1_block1']
    assert params['conv1_in']['kernel'].shape == (3, 3, 128, 32) and params['conv1_out']['kernel'].shape == (1, 1, 32, 128)


@pytest.mark.parametrize('wrong', [{'conv': 'standardised'}, {'activation': 'reluu'}, {'padding': 'halff'}])
def test_what_is_misspelt_is_refused_with_the_nearest(wrong):
    module = models.create('resnet20', 10, **wrong)
    with pytest.raises(ConfigError, match='Did you mean'):
        jax.eval_shape(module.init, jax.random.key(0), images(1, 32, 32, 3))
