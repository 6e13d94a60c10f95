"""MobileNetV2 (Sandler et al. 2018, MobileNetV2: inverted residuals and linear bottlenecks).

Shortcuts connect the thin ends of blocks, which widen inside, where convolutions are depthwise and cheap. A block's output has
no activation. EfficientNet and TinyNet are this network with other stages; MobileNetV3 has the same blocks.
"""

import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import flax.linen as nn
import jax

from research.layers.dropout import Dropout
from research.layers.squeeze_excite import SqueezeExcite
from research.models.network import HALF, TENSORFLOW, Kit, Network, Preprocessing, Source, divisible


class Stage(NamedTuple):
    """A row of the table: blocks of one width.

    Attributes:
      expansion: channels inside a block, as a multiple of its input's.
      channels: of the output.
      depth: number of blocks.
      strides: of the first block.
      kernel: side of the depthwise kernels.
    """

    expansion: int
    channels: int
    depth: int
    strides: int
    kernel: int = 3


# Channels of the first and of the last convolution.
STEM, TOP = 32, 1280

# Hugging Face's weights, and the side of their images.
_HUGGINGFACE = {
    'mobilenetv2_035': ('google/mobilenet_v2_0.35_96', 96),
    'mobilenetv2_075': ('google/mobilenet_v2_0.75_160', 160),
    'mobilenetv2_100': ('google/mobilenet_v2_1.0_224', 224),
    'mobilenetv2_140': ('google/mobilenet_v2_1.4_224', 224),
}
_TIMM = tuple(f'mobilenetv2_{width}' for width in ('035', '050', '075', '100', '110d', '120d', '140'))


def timm_blocks(net: Network) -> Iterator[tuple[str, ...]]:
    """timm's names, except for the last layers, of all networks with these blocks; their first stage does not expand."""
    yield from (('conv1', 'conv_stem'), ('norm1', 'bn1'), ('head', 'classifier'))
    for ours, s, b in net.blocks():
        theirs = f'blocks.{s - 1}.{b - 1}'
        kinds = {'expand': 'conv_pw', 'depthwise': 'conv_dw', 'project': 'conv_pwl'}
        if s == 1:
            kinds = {'depthwise': 'conv_dw', 'project': 'conv_pw'}
        for i, (kind, name) in enumerate(kinds.items(), 1):
            yield from ((f'{ours}/{kind}', f'{theirs}.{name}'), (f'{ours}/{kind}_norm', f'{theirs}.bn{i}'))
        yield from ((f'{ours}/squeeze_excite/{kind}', f'{theirs}.se.conv_{kind}', 'pointwise') for kind in ('reduce', 'expand'))


def timm(net: 'MobileNetV2') -> Iterator[tuple[str, ...]]:
    """timm's names, also for EfficientNet and TinyNet."""
    yield from timm_blocks(net)
    yield from (('conv2', 'conv_head'), ('norm2', 'bn2'))


def _torchvision(net: 'MobileNetV2') -> Iterator[tuple[str, str]]:
    blocks = list(net.blocks())
    for i, n in ((1, 0), (2, len(blocks) + 1)):
        yield from ((f'conv{i}', f'features.{n}.0'), (f'norm{i}', f'features.{n}.1'))
    yield 'head', 'classifier.1'
    for n, (ours, s, _) in enumerate(blocks, 1):
        theirs = f'features.{n}.conv'
        kinds = ('depthwise',) if s == 1 else ('expand', 'depthwise')
        for i, kind in enumerate(kinds):
            yield from ((f'{ours}/{kind}', f'{theirs}.{i}.0'), (f'{ours}/{kind}_norm', f'{theirs}.{i}.1'))
        yield from ((f'{ours}/{kind}', f'{theirs}.{i}') for i, kind in enumerate(('project', 'project_norm'), len(kinds)))


def _huggingface(net: 'MobileNetV2') -> Iterator[tuple[str, str]]:
    """Theirs puts the first block in the stem."""
    yield 'head', 'classifier'
    pairs = {('conv1', 'norm1'): 'conv_stem.first_conv', ('conv2', 'norm2'): 'conv_1x1'}
    for n, (ours, _, _) in enumerate(net.blocks()):
        theirs = f'layer.{n - 1}' if n else 'conv_stem'
        for kind, name in (('expand', 'expand_1x1'), ('depthwise', 'conv_3x3'), ('project', 'reduce_1x1')):
            pairs[f'{ours}/{kind}', f'{ours}/{kind}_norm'] = f'{theirs}.{name}'
    for (conv, norm), theirs in pairs.items():
        yield from ((conv, f'mobilenet_v2.{theirs}.convolution'), (norm, f'mobilenet_v2.{theirs}.normalization'))


def _huggingface_preprocessing(name: str) -> Preprocessing:
    """The shorter side is resized to 32 pixels more than the crop."""
    _, size = _HUGGINGFACE.get(name, ('', 224))
    return Preprocessing(size, size / (size + 32), 'bilinear', HALF, HALF)


class MobileNetV2(Network):
    """A strided convolution, stages of inverted residuals, a pointwise convolution, global average pooling, logits.

    Attributes, besides those of `Network`:
      width: multiplier of channels, which are rounded to multiples of 8; the last convolution only gets wider.
      depth: multiplier of the blocks of a stage, rounded up; the first and the last stage stay as they are.
      fixed_ends: whether the first and the last convolution ignore `width`.
      squeeze_excite: reduced channels after each depthwise convolution, as a share of the channels of the block's input; 0
        for none, as in the paper.
      dropout: rate on the input of the last layer.
      stochastic_depth: share of examples for which the last block's residual branch is dropped in training; earlier blocks
        in proportion to their depth (Huang et al. 2016, equation 4).
    """

    activation: str = 'relu6'
    width: float = 1.0
    depth: float = 1.0
    fixed_ends: bool = False
    squeeze_excite: float = 0.0
    dropout: float = 0.0
    stochastic_depth: float = 0.0

    # Table 2.
    STAGES: ClassVar[Sequence[Stage]] = (
        Stage(1, 16, 1, 1),
        Stage(6, 24, 2, 2),
        Stage(6, 32, 3, 2),
        Stage(6, 64, 4, 2),
        Stage(6, 96, 3, 1),
        Stage(6, 160, 3, 2),
        Stage(6, 320, 1, 1),
    )
    SOURCES = {
        'timm': Source(timm, {n: n for n in _TIMM}),
        'torchvision': Source(
            _torchvision,
            {'mobilenetv2_100': 'mobilenet_v2'},
            lambda name: Preprocessing(crop=224 / 232, interpolation='bilinear'),
        ),
        'huggingface': Source(
            _huggingface,
            {n: address for n, (address, _) in _HUGGINGFACE.items()},
            _huggingface_preprocessing,
            lambda name, tensors: TENSORFLOW,
            backbone='mobilenet_v2',
        ),
    }

    @nn.nowrap
    def depths(self) -> list[int]:
        """Blocks of each stage."""
        first, *inner, last = (stage.depth for stage in self.STAGES)
        return [first, *(math.ceil(n * self.depth) for n in inner), last]

    @nn.nowrap
    def top(self) -> int:
        """Channels of the last convolution."""
        return TOP if self.fixed_ends else divisible(TOP * max(1.0, self.width))

    @nn.nowrap
    def blocks(self) -> Iterator[tuple[str, int, int]]:
        """(name, number of the stage, number in the stage), both from 1."""
        yield from ((f'stage{s}_block{b}', s, b) for s, depth in enumerate(self.depths(), 1) for b in range(1, depth + 1))

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Images `[B, H, W, C]` to logits `[B, K]`."""
        kit, block, depths = self.kit(train), self.block(InvertedResidual), self.depths()
        x = kit.conv(x, STEM if self.fixed_ends else divisible(STEM * self.width), 3, 2, name='conv1')
        x = self.tap('stem', kit.activate(kit.norm(x, name='norm1')))
        for number, (name, s, b) in enumerate(self.blocks(), 1):
            stage, channels = self.STAGES[s - 1], x.shape[-1]
            reduced = max(1, round(self.squeeze_excite * channels))
            x = block(
                kit,
                hidden=divisible(stage.expansion * channels),
                features=divisible(stage.channels * self.width),
                kernel=stage.kernel,
                strides=stage.strides if b == 1 else 1,
                squeeze_excite={'reduced': reduced, 'activation': kit.activation} if self.squeeze_excite else {},
                drop=self.stochastic_depth * number / sum(depths),
                name=name,
            )(x)
            if b == depths[s - 1]:
                x = self.tap(f'stage{s}', x)
        x = kit.activate(kit.norm(kit.conv(x, self.top(), 1, name='conv2'), name='norm2'))
        x = Dropout(self.dropout, name='dropout')(x.mean((1, 2)), train)
        return kit.dense(x, self.num_classes, name='head')


class InvertedResidual(nn.Module):
    """Widen, convolve each channel, narrow; `[B, H, W, C]` to `[B, ceil(H / strides), ceil(W / strides), features]`.

    The input is added if it has the shape of the output.

    Attributes:
      hidden: channels inside; no widening if equal to C.
      squeeze_excite: arguments of a `SqueezeExcite` after the depthwise convolution; {} for none.
      drop: share of examples for which the branch is dropped in training.
    """

    kit: Kit
    hidden: int
    features: int
    kernel: int
    strides: int
    squeeze_excite: Mapping[str, Any]
    drop: float

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kit, y = self.kit, x
        if self.hidden != x.shape[-1]:
            y = kit.activate(kit.norm(kit.conv(y, self.hidden, 1, name='expand'), name='expand_norm'))
        y = kit.conv(y, self.hidden, self.kernel, self.strides, groups=self.hidden, name='depthwise')
        y = kit.activate(kit.norm(y, name='depthwise_norm'))
        if self.squeeze_excite:
            y = SqueezeExcite(**self.squeeze_excite, name='squeeze_excite')(y)
        y = kit.norm(kit.conv(y, self.features, 1, name='project'), name='project_norm')
        if self.strides > 1 or x.shape != y.shape:  # a map of one pixel keeps its shape under a stride
            return y
        return x + Dropout(self.drop, unit='example', name='drop')(y, kit.train)


# The width multipliers of section 6.1 and timm's; 110d and 120d are deeper ones of timm's.
mobilenetv2_035 = functools.partial(MobileNetV2, width=0.35)
mobilenetv2_050 = functools.partial(MobileNetV2, width=0.5)
mobilenetv2_075 = functools.partial(MobileNetV2, width=0.75)
mobilenetv2_100 = functools.partial(MobileNetV2, width=1.0)
mobilenetv2_140 = functools.partial(MobileNetV2, width=1.4)
mobilenetv2_110d = functools.partial(MobileNetV2, width=1.1, depth=1.2, fixed_ends=True)
mobilenetv2_120d = functools.partial(MobileNetV2, width=1.2, depth=1.4, fixed_ends=True)
