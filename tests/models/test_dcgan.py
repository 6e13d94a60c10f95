"""DCGAN: PyTorch's transposed convolution and images, what the paper says of its layers, and independence of the batch."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import FrozenDict
from jax import lax

from research import cost
from research.catalogue import ConfigError
from research.layers import formulation
from research.models.dcgan import DCGAN, conv_transpose

NORMS = ['batch', 'virtual_batch', FrozenDict({'name': 'ghost_batch', 'virtual_batch_size': 4}), 'none']


def arrays(*shapes):
    return [jax.random.normal(jax.random.key(i), shape) for i, shape in enumerate(shapes)]


@functools.cache
def made(**kwargs):
    module = DCGAN(**{'latents': 6, 'side': 8, 'widths': (4, 3), **kwargs})
    return module, jax.jit(module.init)(jax.random.key(0), jnp.zeros((2, module.latents)))


def value_and_gradients(f, *args):
    def weighted(*args):
        y = f(*args)
        return jnp.sum(jnp.sin(y)), y

    (_, y), gradients = jax.jit(jax.value_and_grad(weighted, range(len(args)), has_aux=True))(*args)
    return y, gradients


class TestConvTranspose:
    @pytest.mark.parametrize('shape', [(5, 4, 3, 2), (4, 4, 3, 1), (1, 3, 1, 2)])
    def test_is_what_lax_calls_so(self, shape):
        height, width, channels, features = shape
        x, kernel = arrays((2, height, width, channels), (4, 4, channels, features))

        def reference(x, kernel):
            flipped = kernel[::-1, ::-1]
            return lax.conv_general_dilated(
                x, flipped, (1, 1), ((2, 2), (2, 2)), lhs_dilation=(2, 2), dimension_numbers=('NHWC', 'HWIO', 'NHWC')
            )

        found = value_and_gradients(conv_transpose, x, kernel)
        assert found[0].shape == (2, 2 * height, 2 * width, features)
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(value_and_gradients(reference, x, kernel)), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5 * np.abs(b).max())

    def test_plain_formulation_gives_the_same_and_passes_forward_mode(self):
        x, kernel = arrays((2, 3, 3, 3), (4, 4, 3, 2))
        found = value_and_gradients(conv_transpose, x, kernel)
        with formulation.plain():
            for a, b in zip(
                jax.tree.leaves(found), jax.tree.leaves(value_and_gradients(conv_transpose, x, kernel)), strict=True
            ):
                np.testing.assert_allclose(a, b, atol=1e-5 * np.abs(b).max())
            _, along = jax.jvp(lambda x: conv_transpose(x, kernel), (x,), (x,))
        np.testing.assert_allclose(along, found[0], atol=1e-5)  # it is linear

    @pytest.mark.parity
    def test_is_torchs(self):
        import torch

        x, kernel, bias = arrays((2, 5, 4, 3), (4, 4, 3, 2), (2,))
        layer = torch.nn.ConvTranspose2d(3, 2, 4, 2, 1)
        layer.weight.data = torch.tensor(np.asarray(kernel).transpose(2, 3, 0, 1).copy())
        layer.bias.data = torch.tensor(np.asarray(bias))
        there = torch.tensor(np.asarray(x).transpose(0, 3, 1, 2).copy(), requires_grad=True)
        expected = layer(there)
        torch.sin(expected).sum().backward()
        found, (dx, dk) = value_and_gradients(
            lambda x, kernel: conv_transpose(x, kernel) + bias.reshape(1, 1, 1, -1), x, kernel
        )
        np.testing.assert_allclose(found, expected.detach().numpy().transpose(0, 2, 3, 1), atol=2e-5)
        np.testing.assert_allclose(dx, there.grad.numpy().transpose(0, 2, 3, 1), atol=5e-5)
        np.testing.assert_allclose(dk, layer.weight.grad.numpy().transpose(2, 3, 0, 1), atol=5e-5)


@pytest.mark.parametrize(('side', 'channels', 'widths'), [(28, 1, (8, 4)), (32, 3, (8, 6, 4)), (32, 3, (8, 4))])
def test_latents_to_images_and_images_to_logits(side, channels, widths):
    module = DCGAN(latents=10, side=side, channels=channels, widths=widths)
    variables = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((2, 10)))
    images = jax.eval_shape(module.apply, variables, jnp.zeros((5, 10)))
    assert (images.shape, images.dtype) == ((5, side, side, channels), jnp.float32)
    logits = jax.eval_shape(functools.partial(module.apply, method='discriminate'), variables, images)
    assert (logits.shape, logits.dtype) == ((5,), jnp.float32)


def test_counts_are_those_of_its_layers():
    """A transposed convolution costs what its convolution does: 16 taps of each place of the smaller map."""
    module = DCGAN()
    variables = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((2, 100)))
    generator = 100 * 49 * 64 + 16 * 64 * 32 + 16 * 32 * 1 + 1 + 2 * 64 + 2 * 32
    discriminator = 16 * 1 * 32 + 32 + 16 * 32 * 64 + 2 * 64 + 49 * 64 + 1
    assert cost.parameters(variables) == generator + discriminator
    multiply_adds = 100 * 49 * 64 + 49 * 16 * 64 * 32 + 196 * 16 * 32
    assert cost.count(module.apply, variables, jnp.zeros((1, 100))) == (2 * multiply_adds, multiply_adds)


def test_norms_and_biases_are_where_the_paper_has_them():
    """None at the generator's output and at the discriminator's input."""
    params = made(widths=(4, 3, 2))[1]['params']
    assert set(params) == {'generator', 'discriminator'}
    assert set(params['generator']) == {'project', 'norm1', 'up1', 'norm2', 'up2', 'norm3', 'up3'}
    assert set(params['discriminator']) == {'down1', 'down2', 'norm2', 'down3', 'norm3', 'head'}
    biased = {f'{player}/{layer}' for player, layers in params.items() for layer, leaves in layers.items() if 'bias' in leaves}
    without_norm = {'generator/up3', 'discriminator/down1', 'discriminator/head'}
    assert {name for name in biased if 'norm' not in name} == without_norm


def test_weights_are_drawn_with_a_deviation_of_2_hundredths():
    params = jax.jit(DCGAN().init)(jax.random.key(1), jnp.zeros((2, 100)))['params']
    kernels = [leaf for path, leaf in jax.tree_util.tree_leaves_with_path(params) if path[-1].key == 'kernel']
    assert len(kernels) == 6
    for kernel in kernels:
        assert jnp.std(kernel) == pytest.approx(0.02, rel=4 / np.sqrt(2 * kernel.size))


@pytest.mark.parametrize('norm', NORMS[1:], ids=str)
@pytest.mark.long
def test_every_norm_begins_with_the_same_weights(norm):
    (_, expected), (_, found) = made(), made(norm=norm, discriminator_norm='none' if norm == 'virtual_batch' else norm)
    for player, layer in (('generator', 'project'), ('generator', 'up2'), ('discriminator', 'down2')):
        np.testing.assert_array_equal(found['params'][player][layer]['kernel'], expected['params'][player][layer]['kernel'])


def test_images_fill_their_range():
    module, variables = made()
    z = 1e4 * jax.random.normal(jax.random.key(2), (20, 6))
    images = jax.jit(module.apply)(variables, z)
    assert -1 <= images.min() < -0.99 and 0.99 < images.max() <= 1


@pytest.mark.parametrize(('norm', 'alone'), [('batch', False), ('virtual_batch', True), ('none', True)])
@pytest.mark.long
def test_whether_an_image_depends_on_the_others_of_its_batch(norm, alone):
    module, variables = made(norm=norm)
    z = jax.random.normal(jax.random.key(2), (4, 6))

    def first(z):
        return jnp.sum(module.apply(variables, z, train=True, mutable=['batch_stats'])[0][0] ** 2)

    gradient = jax.jit(jax.grad(first))(z)
    assert jnp.abs(gradient[0]).max() > 0
    assert (not gradient[1:].any()) == alone


def test_a_side_that_cannot_be_halved_is_refused():
    for kwargs in ({'side': 28, 'widths': (8, 4, 2)}, {'widths': ()}):
        with pytest.raises(ConfigError, match='multiple of 2'):
            made(**kwargs)


@pytest.mark.parity
@pytest.mark.parametrize('side', [28, 32])
def test_images_and_logits_are_torchs(side):
    """The same layers in torch.nn, in training, so that statistics are the batch's."""
    import torch

    latents, (w1, w2), base = 7, (6, 5), side // 4
    nn = torch.nn
    generator = nn.Sequential(
        nn.BatchNorm2d(w1), nn.ReLU(), nn.ConvTranspose2d(w1, w2, 4, 2, 1, bias=False),
        nn.BatchNorm2d(w2), nn.ReLU(), nn.ConvTranspose2d(w2, 1, 4, 2, 1), nn.Tanh(),
    )  # fmt: skip
    project = nn.Linear(latents, base * base * w1, bias=False)
    discriminator = nn.Sequential(
        nn.Conv2d(1, w2, 4, 2, 1), nn.LeakyReLU(0.2),
        nn.Conv2d(w2, w1, 4, 2, 1, bias=False), nn.BatchNorm2d(w1), nn.LeakyReLU(0.2),
    )  # fmt: skip
    head = nn.Linear(base * base * w1, 1)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in (*generator.parameters(), *discriminator.parameters(), *head.parameters()):
            parameter.add_(0.1 * torch.randn_like(parameter))
        z = torch.randn(3, latents)
        small = project(z).reshape(3, base, base, w1).permute(0, 3, 1, 2)
        images = generator(small)
        logits = head(discriminator(images).permute(0, 2, 3, 1).flatten(1))[:, 0].numpy()

    def kernel(layer, axes):
        leaves = {'kernel': layer.weight.detach().numpy().transpose(axes)}
        return leaves if layer.bias is None else {**leaves, 'bias': layer.bias.detach().numpy()}

    def norm(layer):
        return {'scale': layer.weight.detach().numpy(), 'bias': layer.bias.detach().numpy()}

    params = {
        'generator': {
            'project': kernel(project, (1, 0)),
            'norm1': norm(generator[0]),
            'up1': kernel(generator[2], (2, 3, 0, 1)),
            'norm2': norm(generator[3]),
            'up2': kernel(generator[5], (2, 3, 0, 1)),
        },
        'discriminator': {
            'down1': kernel(discriminator[0], (2, 3, 1, 0)),
            'down2': kernel(discriminator[2], (2, 3, 1, 0)),
            'norm2': norm(discriminator[3]),
            'head': kernel(head, (1, 0)),
        },
    }
    module, variables = made(latents=latents, side=side, widths=(w1, w2))
    variables = {**variables, 'params': params}
    found, _ = module.apply(variables, z.numpy(), train=True, mutable=['batch_stats'])
    np.testing.assert_allclose(found[..., 0], images[:, 0].numpy(), atol=2e-5)
    assert np.abs(found[0] - found[1]).max() > 1e-2
    answers, _ = module.apply(variables, found, train=True, mutable=['batch_stats'], method='discriminate')
    np.testing.assert_allclose(answers, logits, atol=1e-4 * np.abs(logits).max())
    assert np.ptp(logits) > 1e-2 * np.abs(logits).max()
