"""Residual networks (He et al. 2015, Deep Residual Learning for Image Recognition).

The networks of table 1 match torchvision's and timm's layer by layer: the stride of a bottleneck is in its 3x3 convolution (as
in Goyal et al. 2017; in the paper it is in the first 1x1). Those of section 4.2 are for CIFAR-10. Padding is half
the kernel, as in PyTorch: 'SAME' with stride 2 would shift the image by a pixel.
"""

import functools
from collections.abc import Iterator, Sequence
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from research import catalogue
from research.layers.blur import blur
from research.layers.dropout import Dropout
from research.layers.squeeze_excite import SqueezeExcite
from research.models.network import Kit, Network, Preprocessing, Source

IMAGENET_WIDTHS = (64, 128, 256, 512)
CIFAR_WIDTHS = (16, 32, 64)

# Kernel and stride of the first convolution, then window, stride and padding of the max pooling, if any.
STEMS = {
    'imagenet': {'kernel': 7, 'strides': 2, 'pool': {'window': 3, 'strides': 2, 'padding': ((1, 1), (1, 1))}},
    'cifar': {'kernel': 3, 'strides': 1, 'pool': None},
}
# Channels of a block's output as a multiple of those inside it.
EXPANSIONS = {'basic': 1, 'bottleneck': 4}
SHORTCUTS = ('padding', 'projection')

_IMAGENET = ('resnet18', 'resnet34', 'resnet50', 'resnet101', 'resnet152')


def _names(net: 'ResNet') -> Iterator[tuple[str, ...]]:
    """timm's, including SE-ResNets, and torchvision's."""
    yield from (('conv1', 'conv1'), ('norm1', 'bn1'), ('head', 'fc'))
    for ours, s, b in net.blocks():
        theirs = f'layer{s}.{b - 1}'
        yield from ((f'{ours}/conv{i}', f'{theirs}.conv{i}') for i in (1, 2, 3))
        yield from ((f'{ours}/norm{i}', f'{theirs}.bn{i}') for i in (1, 2, 3))
        yield from ((f'{ours}/shortcut_{kind}', f'{theirs}.downsample.{i}') for i, kind in enumerate(('conv', 'norm')))
        for layer, name in (('reduce', 'fc1'), ('expand', 'fc2')):
            yield f'{ours}/squeeze_excite/{layer}', f'{theirs}.se.{name}', 'pointwise'


def _huggingface_names(net: 'ResNet') -> Iterator[tuple[str, str]]:
    stem = 'resnet.embedder.embedder'
    yield from (('conv1', f'{stem}.convolution'), ('norm1', f'{stem}.normalization'), ('head', 'classifier.1'))
    for ours, s, b in net.blocks():
        theirs = f'resnet.encoder.stages.{s - 1}.layers.{b - 1}'
        for kind, name in (('conv', 'convolution'), ('norm', 'normalization')):
            yield from ((f'{ours}/{kind}{i}', f'{theirs}.layer.{i - 1}.{name}') for i in (1, 2, 3))
            yield f'{ours}/shortcut_{kind}', f'{theirs}.shortcut.{name}'


def _torchvision_preprocessing(name: str) -> Preprocessing:
    """That of the newest weights: a crop of 224 from 232, except for ResNet-18 and -34, which have only one set."""
    return Preprocessing(crop=0.875 if name in ('resnet18', 'resnet34') else 224 / 232, interpolation='bilinear')


class ResNet(Network):
    """A stem, stages of blocks, each but the first halving the map, global average pooling, logits.

    Attributes, besides those of `Network`:
      depths: blocks of each stage.
      widths: channels in the blocks of each stage; the stem has the first.
      block_type: 'basic' (two 3x3 convolutions) or 'bottleneck' (1x1, 3x3, 1x1 to four times the width).
      stem: 'imagenet' (7x7 stride 2, then 3x3 max pooling) for images of about 224; 'cifar' (3x3 stride 1) for about 32.
      shortcut: if a block changes the shape, 'projection' (1x1 convolution and norm: option B) or 'padding' (every other
        row and column, zeros for the new channels: option A).
      squeeze_excite: reduced channels at the end of each branch as a share, 1/16 in Hu et al. 2018; 0 for none.
      stochastic_depth: share of examples for which the last block's residual branch is dropped in training; earlier blocks
        in proportion to their depth (Huang et al. 2016, equation 4).
    """

    depths: Sequence[int] = (2, 2, 2, 2)
    widths: Sequence[int] = IMAGENET_WIDTHS
    block_type: Literal['basic', 'bottleneck'] = 'basic'
    stem: Literal['imagenet', 'cifar'] = 'imagenet'
    shortcut: Literal['padding', 'projection'] = 'projection'
    squeeze_excite: float = 0.0
    stochastic_depth: float = 0.0

    SOURCES = {
        'timm': Source(_names, {n: n for n in _IMAGENET}, lambda name: Preprocessing(crop=0.95)),
        'torchvision': Source(_names, {n: n for n in _IMAGENET}, _torchvision_preprocessing),
        'huggingface': Source(
            _huggingface_names, {n: n.replace('resnet', 'microsoft/resnet-') for n in _IMAGENET}, backbone='resnet'
        ),
    }

    @nn.nowrap
    def blocks(self) -> Iterator[tuple[str, int, int]]:
        """(name, number of the stage, number in the stage), both from 1."""
        yield from ((f'stage{s}_block{b}', s, b) for s, depth in enumerate(self.depths, 1) for b in range(1, depth + 1))

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Images `[B, H, W, C]` to logits `[B, K]`."""
        for field, valid in (('stem', STEMS), ('block_type', EXPANSIONS), ('shortcut', SHORTCUTS)):
            if (value := getattr(self, field)) not in valid:
                raise catalogue.ConfigError(f"Unknown {field} '{value}'.{catalogue.nearest(value, valid)}")
        if len(self.depths) != len(self.widths):
            raise catalogue.ConfigError(
                f'{len(self.depths)} depths and {len(self.widths)} widths: expected one of each per stage.'
            )
        kit, stem = self.kit(train), STEMS[self.stem]
        x = kit.conv(x, self.widths[0], stem['kernel'], stem['strides'], name='conv1')
        x = self.tap('stem', kit.activate(kit.norm(x, name='norm1')))
        if stem['pool']:
            x = kit.max_pool(x, **stem['pool'])
        block = self.block(Block)
        for number, (name, s, b) in enumerate(self.blocks(), 1):
            x = block(
                kit,
                self.widths[s - 1],
                self.block_type,
                strides=2 if s > 1 and b == 1 else 1,
                shortcut=self.shortcut,
                squeeze_excite=self.squeeze_excite,
                drop=self.stochastic_depth * number / sum(self.depths),
                name=name,
            )(x)
            if b == self.depths[s - 1]:
                x = self.tap(f'stage{s}', x)
        return kit.dense(x.mean((1, 2)), self.num_classes, name='head')


class Block(nn.Module):
    """Convolutions added to their input, `[B, H, W, C]` to `[B, ceil(H / strides), ceil(W / strides), expansion * width]`."""

    kit: Kit
    width: int
    block_type: str
    strides: int
    shortcut: str
    squeeze_excite: float
    drop: float

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kit, features = self.kit, self.width * EXPANSIONS[self.block_type]
        sizes = {
            'basic': ((self.width, 3, self.strides), (features, 3, 1)),
            'bottleneck': ((self.width, 1, 1), (self.width, 3, self.strides), (features, 1, 1)),
        }[self.block_type]
        y = x
        for i, size in enumerate(sizes, 1):
            y = kit.norm(kit.conv(y, *size, name=f'conv{i}'), name=f'norm{i}')
            y = kit.activate(y) if i < len(sizes) else y
        if self.squeeze_excite:
            y = SqueezeExcite(max(1, round(self.squeeze_excite * features)), kit.activation, name='squeeze_excite')(y)
        if self.strides > 1 or x.shape != y.shape:  # a map of one pixel keeps its shape under a stride
            if self.shortcut == 'projection':
                x = kit.norm(kit.conv(x, features, 1, self.strides, name='shortcut_conv'), name='shortcut_norm')
            else:
                x = blur(x, self.strides) if kit.blur_pool else x[:, :: self.strides, :: self.strides]
                x = jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, features - x.shape[-1])))
        return kit.activate(x + Dropout(self.drop, unit='example', name='drop')(y, kit.train))


# Table 1 of the paper, and its section 4.2.
_cifar = functools.partial(ResNet, widths=CIFAR_WIDTHS, stem='cifar', shortcut='padding')
resnet18 = functools.partial(ResNet, depths=(2, 2, 2, 2))
resnet34 = functools.partial(ResNet, depths=(3, 4, 6, 3))
resnet50 = functools.partial(ResNet, depths=(3, 4, 6, 3), block_type='bottleneck')
resnet101 = functools.partial(ResNet, depths=(3, 4, 23, 3), block_type='bottleneck')
resnet152 = functools.partial(ResNet, depths=(3, 8, 36, 3), block_type='bottleneck')
resnet20 = functools.partial(_cifar, depths=(3, 3, 3))
resnet32 = functools.partial(_cifar, depths=(5, 5, 5))
resnet44 = functools.partial(_cifar, depths=(7, 7, 7))
resnet56 = functools.partial(_cifar, depths=(9, 9, 9))
