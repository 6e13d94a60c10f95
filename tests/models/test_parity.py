"""ResNet-18, ResNet-20 and the CNN against PyTorch, layer by layer the same weights: logits, gradients, running statistics."""

import copy

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research import models

torch = pytest.importorskip('torch')
F = torch.nn.functional
pytestmark = pytest.mark.parity


def conv(channels, features, kernel, stride=1):
    return torch.nn.Conv2d(channels, features, kernel, stride, kernel // 2, bias=False)


class Block(torch.nn.Module):
    def __init__(self, channels, features, stride, projection):
        super().__init__()
        self.conv1, self.norm1 = conv(channels, features, 3, stride), torch.nn.BatchNorm2d(features)
        self.conv2, self.norm2 = conv(features, features, 3), torch.nn.BatchNorm2d(features)
        self.stride, self.missing = stride, features - channels
        if projection and self.missing:
            self.shortcut_conv, self.shortcut_norm = conv(channels, features, 1, stride), torch.nn.BatchNorm2d(features)

    def forward(self, x):
        y = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        if hasattr(self, 'shortcut_conv'):
            x = self.shortcut_norm(self.shortcut_conv(x))
        elif self.missing:
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.missing))
        return F.relu(x + y)


class ResNet(torch.nn.Module):
    def __init__(self, widths, depth, imagenet):
        super().__init__()
        self.conv1, self.norm1 = conv(3, widths[0], *((7, 2) if imagenet else (3, 1))), torch.nn.BatchNorm2d(widths[0])
        self.pool = torch.nn.MaxPool2d(3, 2, 1) if imagenet else torch.nn.Identity()
        self.blocks, channels = [], widths[0]
        for s, width in enumerate(widths):
            for b in range(depth):
                self.blocks.append(Block(channels, width, 2 if s and not b else 1, projection=imagenet))
                self.add_module(f'stage{s + 1}_block{b + 1}', self.blocks[-1])
                channels = width
        self.head = torch.nn.Linear(channels, 10)

    def forward(self, x):
        x = self.pool(F.relu(self.norm1(self.conv1(x))))
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean((2, 3)))


class CNN(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.block1_conv1, self.block1_norm1 = conv(3, 32, 3), torch.nn.BatchNorm2d(32)
        self.block2_conv1, self.block2_norm1 = conv(32, 64, 3), torch.nn.BatchNorm2d(64)
        self.hidden1, self.head = torch.nn.Linear(64 * 7 * 7, 128), torch.nn.Linear(128, 10)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.block1_norm1(self.block1_conv1(x))), 2)
        x = F.max_pool2d(F.relu(self.block2_norm1(self.block2_conv1(x))), 2)
        return self.head(F.relu(self.hidden1(x.permute(0, 2, 3, 1).flatten(1))))


CASES = {
    'cnn': (CNN, 28),
    'resnet18': (lambda: ResNet((64, 128, 256, 512), 2, imagenet=True), 64),
    'resnet20': (lambda: ResNet((16, 32, 64), 3, imagenet=False), 32),
}


def images(size, seed):
    return np.random.default_rng(seed).normal(0.3, 1, (8, size, size, 3)).astype(np.float32)


def to_torch(x):
    return torch.tensor(x.transpose(0, 3, 1, 2))


def lived_in(network, size):
    """Scales and biases at random, statistics from data and then jittered: a network in which a mix-up of these shows."""
    for layer in network.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(layer.weight, 0.5, 1.5)
            torch.nn.init.normal_(layer.bias, std=0.3)
            layer.momentum = None
    with torch.no_grad():
        for seed in (10, 11):
            network(to_torch(images(size, seed)))
        for layer in network.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.running_mean.mul_(torch.empty_like(layer.running_mean).uniform_(0.9, 1.1))
                layer.running_var.mul_(torch.empty_like(layer.running_var).uniform_(0.9, 1.1))
                layer.momentum = 0.1
    return network


def to_jax(tensors):
    """A state dict, or gradients by the same names, as linen collections."""
    collections = {}
    for name, tensor in tensors.items():
        a, (*path, leaf) = tensor.detach().numpy().copy(), name.split('.')
        if leaf.startswith('running_'):
            collections['batch_stats', *path, leaf.removeprefix('running_')] = a
        elif leaf in ('weight', 'bias'):
            leaf = leaf if leaf == 'bias' else 'scale' if a.ndim == 1 else 'kernel'
            collections['params', *path, leaf] = {4: a.transpose(2, 3, 1, 0) if a.ndim == 4 else a, 2: a.T, 1: a}[a.ndim]
    return flax.traverse_util.unflatten_dict(collections)


@pytest.fixture(scope='module', params=CASES)
def pair(request):
    torch.manual_seed(0)
    constructor, size = CASES[request.param]
    network = lived_in(constructor(), size)
    variables = to_jax(network.state_dict())
    model = models.create(request.param, 10)
    expected = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, size, size, 3)))
    assert jax.tree.map(jnp.shape, variables) == jax.tree.map(jnp.shape, expected)
    return model, variables, network, size


def test_logits(pair):
    model, variables, network, size = pair
    network.eval()
    x = images(size, 1)
    expected = network(to_torch(x)).detach().numpy()
    scale = np.abs(expected).max()
    assert np.abs(expected[0] - expected[1]).max() > 1e-2 * scale  # the logits depend on the image
    np.testing.assert_allclose(jax.jit(model.apply)(variables, x), expected, rtol=0, atol=1e-4 * scale)


def test_gradients_and_running_statistics_of_a_training_pass(pair):
    """In float64: in float32 a rounding may choose another pixel in a max pooling, and with it another gradient."""
    model, variables, network, size = pair
    network = copy.deepcopy(network).double().train()
    variables = jax.tree.map(np.float64, variables)
    x, labels = images(size, 2).astype(np.float64), np.arange(8)
    F.cross_entropy(network(to_torch(x)), torch.tensor(labels)).backward()
    expected = to_jax({name: parameter.grad for name, parameter in network.named_parameters()})['params']

    def loss(params):
        logits, new = model.apply({**variables, 'params': params}, x, train=True, mutable=['batch_stats'])
        return -jax.nn.log_softmax(logits)[np.arange(8), labels].mean(), new['batch_stats']

    with jax.enable_x64(True):
        gradients, statistics = jax.jit(jax.grad(loss, has_aux=True))(variables['params'])

    def close(ours, theirs):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-8 * np.abs(theirs).max())

    jax.tree.map(close, gradients, expected)
    updated = to_jax(network.state_dict())['batch_stats']
    for (path, theirs), ours in zip(jax.tree.leaves_with_path(updated), jax.tree.leaves(statistics), strict=True):
        if "'mean'" in str(path[-1]):  # PyTorch's running variance divides by one less
            close(ours, theirs)
