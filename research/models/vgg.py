"""VGG networks (Simonyan and Zisserman 2014, Very deep convolutional networks for large-scale image recognition).

Only 3x3 convolutions, 2x2 max pooling and three fully connected layers. Convolutions have biases even before batch
normalization, as in timm and torchvision. Average pooling fits a map of any size to the first fully connected layer; pixels of
smaller maps are repeated.
"""

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax

from research.catalogue import ConfigError
from research.layers.dropout import Dropout
from research.layers.initializers import he_normal
from research.layers.pooling import adaptive_avg_pool
from research.models.network import Kit, Network, Preprocessing, Source, divisible

# Table 1: channels of each stage, units of the fully connected layers, side of the map that the first one takes.
WIDTHS = (64, 128, 256, 512, 512)
HIDDEN = 4096
SIDE = 7

_NAMES = {f'vgg{layers}{norm}': f'vgg{layers}{norm}' for norm in ('', '_bn') for layers in (11, 13, 16, 19)}


def _features(net: 'VGG') -> Iterator[tuple[str, str]]:
    """Convolutions and norms as timm and torchvision number them: activations and poolings count."""
    index = 0
    for s, depth in enumerate(net.depths, 1):
        for i in range(1, depth + 1):
            yield f'stage{s}_block1/conv{i}', f'features.{index}'
            yield f'stage{s}_block1/norm{i}', f'features.{index + 1}'
            index += 3 if normalizes(net.norm) else 2
        index += 1


def _timm(net: 'VGG') -> Iterator[tuple[str, ...]]:
    yield from _features(net)
    yield from (('fc1', 'pre_logits.fc1'), ('fc2', 'pre_logits.fc2', 'pointwise'), ('head', 'head.fc'))


def _torchvision(net: 'VGG') -> Iterator[tuple[str, ...]]:
    yield from _features(net)
    yield from (('fc1', 'classifier.0', 'flat'), ('fc2', 'classifier.3'), ('head', 'classifier.6'))


class VGG(Network):
    """Five stages of convolutions, each followed by a pooling, and three fully connected layers.

    Maps too small to be pooled are not, so images of fewer than 32 pixels a side work too.

    Attributes, besides those of `Network`:
      norm: as in `Network`, after each convolution; 'none' adds no layer, because convolutions have biases.
      depths: convolutions of each stage.
      width: multiplier of channels and hidden units, which are rounded to multiples of 8.
      dropout: rate on the output of each hidden layer (section 3.1).
    """

    norm: str | Mapping[str, Any] = 'none'
    depths: Sequence[int] = (1, 1, 2, 2, 2)
    width: float = 1.0
    dropout: float = 0.5

    FIRST = 'stage1_block1/conv1'
    SOURCES = {
        'timm': Source(_timm, _NAMES, lambda name: Preprocessing(interpolation='bilinear')),
        'torchvision': Source(_torchvision, _NAMES, lambda name: Preprocessing(interpolation='bilinear')),
    }

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Images `[B, H, W, C]` to logits `[B, K]`."""
        if len(self.depths) != len(WIDTHS):
            raise ConfigError(f'{len(self.depths)} depths: expected one for each of the {len(WIDTHS)} stages.')
        kit, stage, hidden = self.kit(train), self.block(Stage), divisible(HIDDEN * self.width)
        for s, (features, depth) in enumerate(zip(WIDTHS, self.depths, strict=True), 1):
            x = stage(kit, (divisible(features * self.width),) * depth, name=f'stage{s}_block1')(x)
            x = self.tap(f'stage{s}', x)
            if min(x.shape[1:3]) > 1:
                x = kit.max_pool(x, 2, 2)
        x = adaptive_avg_pool(x, SIDE)
        x = kit.conv(x, hidden, SIDE, name='fc1', use_bias=True, padding='VALID', kernel_init=he_normal())
        x = Dropout(self.dropout, name='drop1')(kit.activate(x.reshape(x.shape[0], -1)), train)
        x = kit.activate(kit.dense(x, hidden, name='fc2', kernel_init=he_normal()))
        return kit.dense(Dropout(self.dropout, name='drop2')(x, train), self.num_classes, name='head')


class Stage(nn.Module):
    """Convolutions at one resolution, `[B, H, W, C]` to `[B, H, W, features[-1]]`; see `convolve`."""

    kit: Kit
    features: Sequence[int]
    kernel: int = 3

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for i, features in enumerate(self.features, 1):
            x = convolve(self.kit, x, features, self.kernel, number=i)
        return x


def convolve(kit: Kit, x: jax.Array, features: int, *size: int, number: int, **kwargs) -> jax.Array:
    """Convolution `conv{number}` with a bias, `norm{number}` if any, activation; `[B, H, W, C]` to `[B, H', W', features]`.

    The initializer keeps the scale of activations, because there may be no norm layer to do it.
    """
    x = kit.conv(x, features, *size, name=f'conv{number}', use_bias=True, kernel_init=he_normal(), **kwargs)
    return kit.activate(kit.norm(x, name=f'norm{number}') if normalizes(kit.norm_layer) else x)


def normalizes(norm) -> bool:
    """Whether a config's norm layer normalizes; after a convolution with a bias, 'none' adds nothing."""
    return (norm if isinstance(norm, str) else norm.get('name')) != 'none'


# Table 1 of the paper, columns A, B, D and E.
vgg11 = functools.partial(VGG, depths=(1, 1, 2, 2, 2))
vgg13 = functools.partial(VGG, depths=(2, 2, 2, 2, 2))
vgg16 = functools.partial(VGG, depths=(2, 2, 3, 3, 3))
vgg19 = functools.partial(VGG, depths=(2, 2, 4, 4, 4))
vgg11_bn = functools.partial(vgg11, norm='batch')
vgg13_bn = functools.partial(vgg13, norm='batch')
vgg16_bn = functools.partial(vgg16, norm='batch')
vgg19_bn = functools.partial(vgg19, norm='batch')
