"""MobileNetV3 (Howard et al. 2019, Searching for MobileNetV3).

MobileNetV2's blocks with sizes found by search, squeeze-and-excitation in some of them, a hard swish for small maps, and last
layers after the pooling, where they cost a 49th.
"""

import dataclasses
import functools
from collections.abc import Iterator
from typing import Literal, NamedTuple

import flax.linen as nn
import jax

from research import catalogue
from research.layers.dropout import Dropout
from research.models.mobilenetv2 import InvertedResidual, timm_blocks
from research.models.network import HALF, TENSORFLOW, Network, Preprocessing, Source, divisible


class Stage(NamedTuple):
    """Rows of the table with the same output.

    Attributes:
      channels: of a block's output.
      kernel: side of the depthwise kernels.
      strides: of the first block.
      expanded: channels inside each block.
      squeezed: whether blocks have squeeze-and-excitation.
      activation: of the blocks; '' is the network's.
    """

    channels: int
    kernel: int
    strides: int
    expanded: tuple[int, ...]
    squeezed: bool
    activation: str = ''


# Channels of the first convolution, in both tables.
STEM = 16
# Stages of tables 1 and 2, then channels of the last convolution and of the layer after the pooling.
SIZES = {
    'large': (
        (
            Stage(16, 3, 1, (16,), False, 'relu'),
            Stage(24, 3, 2, (64, 72), False, 'relu'),
            Stage(40, 5, 2, (72, 120, 120), True, 'relu'),
            Stage(80, 3, 2, (240, 200, 184, 184), False),
            Stage(112, 3, 1, (480, 672), True),
            Stage(160, 5, 2, (672, 960, 960), True),
        ),
        960,
        1280,
    ),
    'small': (
        (
            Stage(16, 3, 2, (16,), True, 'relu'),
            Stage(24, 3, 2, (72, 88), False, 'relu'),
            Stage(40, 5, 2, (96, 240, 240), True),
            Stage(48, 5, 1, (120, 144), True),
            Stage(96, 5, 2, (288, 576, 576), True),
        ),
        576,
        1024,
    ),
}

# timm has the authors' own weights, ported from TensorFlow, under names with `tf_`.
_TIMM = tuple(f'mobilenetv3_{size}' for size in ('small_050', 'small_075', 'small_100', 'large_075', 'large_100')) + tuple(
    f'tf_mobilenetv3_{size}_{width}' for size in ('small', 'large') for width in ('075', '100', 'minimal_100')
)


def _timm(net: 'MobileNetV3') -> Iterator[tuple[str, ...]]:
    yield from timm_blocks(net)
    last = f'blocks.{len(SIZES[net.size][0])}.0'
    yield from (('conv2', f'{last}.conv'), ('norm2', f'{last}.bn1'), ('top', 'conv_head', 'pointwise'))


def _timm_preprocessing(name: str) -> Preprocessing:
    if name.startswith('tf_'):
        return Preprocessing(interpolation='bilinear', mean=HALF, std=HALF)
    return Preprocessing(interpolation='bilinear' if name == 'mobilenetv3_large_075' else 'bicubic')


def torchvision_block(ours: str, theirs: str, expands: bool, squeezed: bool) -> Iterator[tuple[str, ...]]:
    """Names in a block of torchvision's MobileNetV3 and EfficientNet, which only count layers that exist."""
    kinds = [*(('expand',) if expands else ()), 'depthwise', *(('squeeze_excite',) if squeezed else ()), 'project']
    for i, kind in enumerate(kinds):
        if kind == 'squeeze_excite':
            yield from (
                (f'{ours}/{kind}/{k}', f'{theirs}.{i}.{n}', 'pointwise') for k, n in (('reduce', 'fc1'), ('expand', 'fc2'))
            )
        else:
            yield from ((f'{ours}/{kind}', f'{theirs}.{i}.0'), (f'{ours}/{kind}_norm', f'{theirs}.{i}.1'))


def _torchvision(net: 'MobileNetV3') -> Iterator[tuple[str, ...]]:
    blocks = list(net.blocks())
    for i, n in ((1, 0), (2, len(blocks) + 1)):
        yield from ((f'conv{i}', f'features.{n}.0'), (f'norm{i}', f'features.{n}.1'))
    yield from (('top', 'classifier.0'), ('head', 'classifier.3'))
    for n, (ours, s, _) in enumerate(blocks, 1):
        squeezed = SIZES[net.size][0][s - 1].squeezed and net.squeeze_excite > 0
        yield from torchvision_block(ours, f'features.{n}.block', s > 1, squeezed)


def _torchvision_preprocessing(name: str) -> Preprocessing:
    """That of the newest weights; the small network has only one set."""
    return Preprocessing(crop=0.875 if 'small' in name else 224 / 232, interpolation='bilinear')


class MobileNetV3(Network):
    """A strided convolution, stages of inverted residuals, a pointwise convolution, pooling, a hidden layer, logits.

    Attributes, besides those of `Network`:
      size: 'large' or 'small', tables 1 and 2.
      activation: of the first and last layers and of the later stages; the early ones have ReLU.
      largest_kernel: side that no depthwise kernel exceeds; 3 in the authors' minimalistic networks, which have ReLU and no
        squeeze-and-excitation.
      width: multiplier of channels, which are rounded to multiples of 8; the first convolution keeps at least 16, and the
        hidden layer does not change.
      squeeze_excite: reduced channels of a squeeze-and-excitation as a share of those inside its block; 0 for none.
      dropout: rate on the input of the last layer (section 6.1.1).
      stochastic_depth: share of examples for which the last block's residual branch is dropped in training; earlier blocks
        in proportion to their depth (Huang et al. 2016, equation 4).
    """

    activation: str = 'hard_swish'
    size: Literal['large', 'small'] = 'large'
    largest_kernel: int = 5
    width: float = 1.0
    squeeze_excite: float = 0.25
    dropout: float = 0.2
    stochastic_depth: float = 0.0

    SOURCES = {
        'timm': Source(
            _timm,
            {n: n for n in _TIMM},
            _timm_preprocessing,
            lambda name, tensors: TENSORFLOW if name.startswith('tf_') else {},
        ),
        'torchvision': Source(
            _torchvision,
            {f'mobilenetv3_{size}_100': f'mobilenet_v3_{size}' for size in ('small', 'large')},
            _torchvision_preprocessing,
            lambda name, tensors: {'padding': 'half', 'norm': {'name': 'batch', 'epsilon': 1e-3, 'momentum': 0.99}},
        ),
    }

    @nn.nowrap
    def blocks(self) -> Iterator[tuple[str, int, int]]:
        """(name, number of the stage, number in the stage), both from 1."""
        for s, stage in enumerate(SIZES[self.size][0], 1):
            yield from ((f'stage{s}_block{b}', s, b) for b in range(1, len(stage.expanded) + 1))

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Images `[B, H, W, C]` to logits `[B, K]`."""
        if self.size not in SIZES:
            raise catalogue.ConfigError(f"Unknown size '{self.size}'.{catalogue.nearest(self.size, SIZES)}")
        stages, last, top = SIZES[self.size]
        kit, block, total = self.kit(train), self.block(InvertedResidual), len(list(self.blocks()))
        x = kit.conv(x, max(STEM, divisible(STEM * self.width)), 3, 2, name='conv1')
        x = self.tap('stem', kit.activate(kit.norm(x, name='norm1')))
        before = STEM  # channels of the block's input in the table
        for number, (name, s, b) in enumerate(self.blocks(), 1):
            stage = stages[s - 1]
            hidden = divisible(x.shape[-1] * stage.expanded[b - 1] / before)
            reduced = divisible(self.squeeze_excite * hidden)
            x = block(
                dataclasses.replace(kit, activation=stage.activation or kit.activation),
                hidden=hidden,
                features=divisible(stage.channels * self.width),
                kernel=min(stage.kernel, self.largest_kernel),
                strides=stage.strides if b == 1 else 1,
                squeeze_excite={'reduced': reduced, 'gate': 'hard_sigmoid'} if stage.squeezed and self.squeeze_excite else {},
                drop=self.stochastic_depth * number / total,
                name=name,
            )(x)
            before = stage.channels
            if b == len(stage.expanded):
                x = self.tap(f'stage{s}', x)
        x = kit.activate(kit.norm(kit.conv(x, divisible(last * self.width), 1, name='conv2'), name='norm2'))
        x = kit.activate(kit.dense(x.mean((1, 2)), top, name='top'))
        return kit.dense(Dropout(self.dropout, name='dropout')(x, train), self.num_classes, name='head')


# The width multipliers of figure 1 that timm has.
mobilenetv3_small_050 = functools.partial(MobileNetV3, size='small', width=0.5)
mobilenetv3_small_075 = functools.partial(MobileNetV3, size='small', width=0.75)
mobilenetv3_small_100 = functools.partial(MobileNetV3, size='small', width=1.0)
mobilenetv3_large_075 = functools.partial(MobileNetV3, size='large', width=0.75)
mobilenetv3_large_100 = functools.partial(MobileNetV3, size='large', width=1.0)
_tf = functools.partial(MobileNetV3, **TENSORFLOW)
_minimal = functools.partial(_tf, largest_kernel=3, squeeze_excite=0.0, activation='relu')
tf_mobilenetv3_small_075 = functools.partial(_tf, size='small', width=0.75)
tf_mobilenetv3_small_100 = functools.partial(_tf, size='small', width=1.0)
tf_mobilenetv3_large_075 = functools.partial(_tf, size='large', width=0.75)
tf_mobilenetv3_large_100 = functools.partial(_tf, size='large', width=1.0)
tf_mobilenetv3_small_minimal_100 = functools.partial(_minimal, size='small')
tf_mobilenetv3_large_minimal_100 = functools.partial(_minimal, size='large')
