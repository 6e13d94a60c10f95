"""MobileNetV1 (Howard et al. 2017, MobileNets: efficient convolutional neural networks for mobile vision applications).

A convolution is split into a depthwise one, with one kernel per channel, and a pointwise one, across channels: 8 to 9 times
fewer products. One number, the width multiplier, makes the network thinner throughout. ReLU6 as in the authors' code.
"""

import functools
from collections.abc import Iterator

import flax.linen as nn
import jax

from research.layers.dropout import Dropout
from research.layers.squeeze_excite import SqueezeExcite
from research.models.network import HALF, TENSORFLOW, Kit, Network, Preprocessing, Source, divisible

# Table 1: channels of the first convolution; then channels, number of blocks and stride of the first of them.
STEM = 32
STAGES = ((64, 1, 1), (128, 2, 2), (256, 2, 2), (512, 6, 2), (1024, 2, 2))

# Crops of timm's weights, and sizes of Hugging Face's, which are 32 pixels less than the shorter side.
_TIMM_CROPS = {'mobilenetv1_100': 0.875, 'mobilenetv1_125': 0.9}
_HUGGINGFACE_SIZES = {'mobilenetv1_075': 192, 'mobilenetv1_100': 224}


def _timm(net: 'MobileNetV1') -> Iterator[tuple[str, ...]]:
    yield from (('conv1', 'conv_stem'), ('norm1', 'bn1'), ('head', 'classifier'))
    for ours, s, b in net.blocks():
        theirs = f'blocks.{s - 1}.{b - 1}'
        for i, (kind, name) in enumerate((('depthwise', 'conv_dw'), ('pointwise', 'conv_pw')), 1):
            yield from ((f'{ours}/{kind}', f'{theirs}.{name}'), (f'{ours}/{kind}_norm', f'{theirs}.bn{i}'))
        yield from ((f'{ours}/squeeze_excite/{kind}', f'{theirs}.se.conv_{kind}', 'pointwise') for kind in ('reduce', 'expand'))


def _huggingface(net: 'MobileNetV1') -> Iterator[tuple[str, str]]:
    yield 'head', 'classifier'
    ours = ['conv1', *(f'{name}/{kind}' for name, *_ in net.blocks() for kind in ('depthwise', 'pointwise'))]
    theirs = ['conv_stem', *(f'layer.{i}' for i in range(len(ours) - 1))]
    for one, other in zip(ours, theirs, strict=True):
        yield one, f'mobilenet_v1.{other}.convolution'
        yield 'norm1' if one == 'conv1' else f'{one}_norm', f'mobilenet_v1.{other}.normalization'


def _huggingface_preprocessing(name: str) -> Preprocessing:
    size = _HUGGINGFACE_SIZES.get(name, 224)
    return Preprocessing(size, size / (size + 32), 'bilinear', HALF, HALF)


class MobileNetV1(Network):
    """A strided convolution, 13 separable ones, four of which halve the map, global average pooling, logits.

    Attributes, besides those of `Network`:
      width: multiplier of all channels, which are rounded to multiples of 8.
      squeeze_excite: reduced channels after each depthwise convolution, as a share of its own; 0 for none, as in the paper.
      dropout: rate on the input of the last layer.
    """

    activation: str = 'relu6'
    width: float = 1.0
    squeeze_excite: float = 0.0
    dropout: float = 0.0

    SOURCES = {
        'timm': Source(
            _timm,
            {n: n for n in _TIMM_CROPS},
            lambda name: Preprocessing(crop=_TIMM_CROPS.get(name, 0.875), mean=HALF, std=HALF),
        ),
        'huggingface': Source(
            _huggingface,
            {'mobilenetv1_075': 'google/mobilenet_v1_0.75_192', 'mobilenetv1_100': 'google/mobilenet_v1_1.0_224'},
            _huggingface_preprocessing,
            lambda name, tensors: TENSORFLOW,
            backbone='mobilenet_v1',
        ),
    }

    @nn.nowrap
    def blocks(self) -> Iterator[tuple[str, int, int]]:
        """(name, number of the stage, number in the stage), both from 1."""
        yield from ((f'stage{s}_block{b}', s, b) for s, (_, depth, _) in enumerate(STAGES, 1) for b in range(1, depth + 1))

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Images `[B, H, W, C]` to logits `[B, K]`."""
        kit, block = self.kit(train), self.block(Separable)
        x = kit.conv(x, divisible(STEM * self.width), 3, 2, name='conv1')
        x = self.tap('stem', kit.activate(kit.norm(x, name='norm1')))
        for name, s, b in self.blocks():
            features, depth, strides = STAGES[s - 1]
            strides = strides if b == 1 else 1
            x = block(kit, divisible(features * self.width), strides, self.squeeze_excite, name=name)(x)
            if b == depth:
                x = self.tap(f'stage{s}', x)
        x = Dropout(self.dropout, name='dropout')(x.mean((1, 2)), train)
        return kit.dense(x, self.num_classes, name='head')


class Separable(nn.Module):
    """Depthwise, then pointwise convolution, `[B, H, W, C]` to `[B, ceil(H / strides), ceil(W / strides), features]`."""

    kit: Kit
    features: int
    strides: int
    squeeze_excite: float

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kit, channels = self.kit, x.shape[-1]
        x = kit.conv(x, channels, 3, self.strides, groups=channels, name='depthwise')
        x = kit.activate(kit.norm(x, name='depthwise_norm'))
        if self.squeeze_excite:
            x = SqueezeExcite(max(1, round(self.squeeze_excite * channels)), kit.activation, name='squeeze_excite')(x)
        return kit.activate(kit.norm(kit.conv(x, self.features, 1, name='pointwise'), name='pointwise_norm'))


# The width multipliers of tables 6 and 7, and timm's wider one.
mobilenetv1_025 = functools.partial(MobileNetV1, width=0.25)
mobilenetv1_050 = functools.partial(MobileNetV1, width=0.5)
mobilenetv1_075 = functools.partial(MobileNetV1, width=0.75)
mobilenetv1_100 = functools.partial(MobileNetV1, width=1.0)
mobilenetv1_125 = functools.partial(MobileNetV1, width=1.25)
