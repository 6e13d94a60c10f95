"""GoogLeNet (Szegedy et al. 2014, Going deeper with convolutions), with batch normalization, as torchvision has it.

Each block processes its map at several scales in parallel. As in torchvision, batch normalization follows every convolution,
there is no local response normalization, the paper's 5x5 convolutions are 3x3, and the auxiliary heads pool to 4x4 for
images of any size. Small images work: windows of a pooling may reach beyond the map.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.core import FrozenDict

from research.layers.dropout import Dropout
from research.layers.initializers import he_normal
from research.layers.pooling import adaptive_avg_pool
from research.models.network import HALF, Kit, Network, Preprocessing, Source, divisible

# Table 1: channels and kernel of the convolutions of the stem, of which the first has stride 2.
STEM = ((64, 7), (64, 1), (192, 3))
# Table 1: a stage's blocks, and the window of the pooling after it. In a block: channels of the 1x1 convolution; of the
# reduction before the 3x3 one and of that; of the reduction before the larger one and of that; after the pooling.
STAGES = (
    (((64, 96, 128, 16, 32, 32), (128, 128, 192, 32, 96, 64)), 3),
    (
        (
            (192, 96, 208, 16, 48, 64),
            (160, 112, 224, 24, 64, 64),
            (128, 128, 256, 24, 64, 64),
            (112, 144, 288, 32, 64, 64),
            (256, 160, 320, 32, 128, 128),
        ),
        2,
    ),
    (((256, 160, 320, 32, 128, 128), (384, 192, 384, 48, 128, 128)), None),
)
# Section 5: auxiliary classifiers, each after a block; the side they pool to, and channels of their hidden layers.
AUXILIARY = {'stage2_block1': 'aux1', 'stage2_block4': 'aux2'}
AUXILIARY_SIDE, AUXILIARY_WIDTHS = 4, (128, 1024)

# torchvision's numbers for the layers of a block: the branch, and the place in it.
_BRANCHES = {'conv1': (1, 0), 'reduce2': (2, 0), 'conv2': (2, 1), 'reduce3': (3, 0), 'conv3': (3, 1), 'conv4': (4, 1)}


def _torchvision(net: 'GoogLeNet') -> Iterator[tuple[str, ...]]:
    def unit(ours: str, theirs: str) -> Iterator[tuple[str, ...]]:
        yield from ((ours, f'{theirs}.conv'), (f'{ours}_norm', f'{theirs}.bn'))

    yield 'head', 'fc'
    for i in range(1, len(STEM) + 1):
        yield from unit(f'conv{i}', f'conv{i}')
    for s, (blocks, _) in enumerate(STAGES, 1):
        for b, letter in enumerate('abcde'[: len(blocks)], 1):
            for layer, (branch, place) in _BRANCHES.items():
                alone = '' if branch == 1 else f'.{place}'
                yield from unit(f'stage{s}_block{b}/{layer}', f'inception{s + 2}{letter}.branch{branch}{alone}')
    for aux in AUXILIARY.values():
        yield from unit(f'{aux}_conv', f'{aux}.conv')
        yield from ((f'{aux}_fc1', f'{aux}.fc1', 'flat'), (f'{aux}_fc2', f'{aux}.fc2'))


class GoogLeNet(Network):
    """A stem, three stages of Inception blocks, global average pooling, logits; in training also two auxiliary heads.

    The heads' logits `[B, K]` go to the collection 'auxiliary', as 'aux1' and 'aux2', if the caller makes it mutable.

    Attributes, besides those of `Network`:
      width: multiplier of channels and hidden units, which are rounded to multiples of 8.
      dropout: rate on the input of the last layer (table 1).
      auxiliary: whether there are auxiliary heads.
      auxiliary_dropout: rate on the input of the last layer of each (section 5).
      auxiliary_weight: weight of the loss of each, for the trainer (section 5).
    """

    norm: str | Mapping[str, Any] = FrozenDict({'name': 'batch', 'epsilon': 1e-3})
    width: float = 1.0
    dropout: float = 0.4
    auxiliary: bool = True
    auxiliary_dropout: float = 0.7
    auxiliary_weight: float = 0.3

    HEADS = ('head', 'aux1_fc2', 'aux2_fc2')
    SOURCES = {
        # With pretrained weights torchvision's network converts ImageNet's mean and deviation into a half each.
        'torchvision': Source(
            _torchvision,
            {'googlenet': 'googlenet'},
            lambda name: Preprocessing(interpolation='bilinear', mean=HALF, std=HALF),
            # torchvision removes the heads from a pretrained network by default.
            lambda name, tensors: {'auxiliary': any(tensor.startswith('aux') for tensor in tensors)},
        )
    }

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Images `[B, H, W, C]` to logits `[B, K]`."""
        kit, block = self.kit(train), self.block(Inception)
        # The heads' norm layers also need statistics from a reference pass; it and `init` make this collection mutable.
        heads = AUXILIARY if self.auxiliary and (train or self.is_mutable_collection('reference')) else {}
        for i, (features, kernel) in enumerate(STEM, 1):
            x = convolve(kit, x, divisible(features * self.width), kernel, 2 if i == 1 else 1, name=f'conv{i}')
            if i == 1:
                x = pool(kit, self.tap('stem', x), 3)
        x = pool(kit, x, 3)
        for s, (blocks, window) in enumerate(STAGES, 1):
            for b, features in enumerate(blocks, 1):
                name = f'stage{s}_block{b}'
                x = block(kit, tuple(divisible(n * self.width) for n in features), name=name)(x)
                if name in heads:
                    self.hand_on(kit, heads[name], x)
            x = self.tap(f'stage{s}', x)
            if window:
                x = pool(kit, x, window)
        x = Dropout(self.dropout, name='drop')(x.mean((1, 2)), train)
        return kit.dense(x, self.num_classes, name='head')

    @nn.nowrap
    def hand_on(self, kit: Kit, name: str, x: jax.Array) -> None:
        """Sows the logits `[B, K]` of an auxiliary head on a map `[B, H, W, C]`."""
        features, hidden = (divisible(n * self.width) for n in AUXILIARY_WIDTHS)
        x = convolve(kit, adaptive_avg_pool(x, AUXILIARY_SIDE), features, 1, name=f'{name}_conv')
        fc1 = {'name': f'{name}_fc1', 'use_bias': True, 'padding': 'VALID', 'kernel_init': he_normal()}
        x = kit.activate(kit.conv(x, hidden, AUXILIARY_SIDE, **fc1)).reshape(x.shape[0], -1)
        x = Dropout(self.auxiliary_dropout, name=f'{name}_drop')(x, kit.train)
        logits = kit.dense(x, self.num_classes, name=f'{name}_fc2')
        if kit.train and not self.is_initializing():
            self.tap(name, logits, 'auxiliary')


class Inception(nn.Module):
    """Four branches side by side, `[B, H, W, C]` to `[B, H, W, sum of their channels]`.

    Attributes:
      features: channels of the layers, as in `STAGES`.
    """

    kit: Kit
    features: tuple[int, ...]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kit, (conv1, reduce2, conv2, reduce3, conv3, conv4) = self.kit, self.features
        branches = [
            convolve(kit, x, conv1, 1, name='conv1'),
            convolve(kit, convolve(kit, x, reduce2, 1, name='reduce2'), conv2, 3, name='conv2'),
            convolve(kit, convolve(kit, x, reduce3, 1, name='reduce3'), conv3, 3, name='conv3'),
            convolve(kit, kit.max_pool(x, 3, 1, ((1, 1), (1, 1))), conv4, 1, name='conv4'),
        ]
        return jnp.concatenate(branches, -1)


def convolve(kit: Kit, x: jax.Array, features: int, kernel: int, strides: int = 1, *, name: str) -> jax.Array:
    """Convolution, norm layer (`{name}_norm`) and activation, `[B, H, W, C]` to `[B, H', W', features]`."""
    return kit.activate(kit.norm(kit.conv(x, features, kernel, strides, name=name), name=f'{name}_norm'))


def pool(kit: Kit, x: jax.Array, window: int) -> jax.Array:
    """Max pooling of stride 2 that keeps a last, partial window: `[B, H, W, C]` to `[B, ceil((H - window) / 2) + 1, ...]`."""
    outputs = (max(1, -((window - n) // 2) + 1) for n in x.shape[1:3])
    padding = [(0, max(0, 2 * (out - 1) + window - n)) for out, n in zip(outputs, x.shape[1:3], strict=True)]
    return kit.max_pool(x, window, 2, tuple(padding))


googlenet = GoogLeNet
