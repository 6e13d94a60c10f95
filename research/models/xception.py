"""Xception (Chollet 2017, Xception: Deep learning with depthwise separable convolutions).

Residual blocks of separable convolutions: a depthwise one, with one kernel per channel, directly followed by a
pointwise one. The two convolutions of the stem have no padding.
"""

from collections.abc import Iterator

import flax.linen as nn
import jax

from research.catalogue import ConfigError
from research.layers.dropout import Dropout
from research.models.network import HALF, Kit, Network, Preprocessing, Source, divisible

# Figure 5: channels and stride of the convolutions of the stem; channels of the separable ones of the entry flow's blocks,
# each of which halves the map; of the middle flow's and of the exit flow's block, which halves it once more; of the last ones.
STEM = ((32, 2), (64, 1))
ENTRY = ((128, 128), (256, 256), (728, 728))
MIDDLE = (728, 728, 728)
EXIT = (728, 1024)
LAST = (1536, 2048)
# Smallest side of images: two 3x3 convolutions without padding, the first with stride 2, reduce it to one pixel.
SMALLEST = 7


def _timm(net: 'Xception') -> Iterator[tuple[str, ...]]:
    yield from ((f'{kind}{i}', f'{theirs}{i}') for kind, theirs in (('conv', 'conv'), ('norm', 'bn')) for i in (1, 2))
    for number, (ours, features, _) in enumerate(net.blocks(), 1):
        yield from ((f'{ours}/shortcut_conv', f'block{number}.skip'), (f'{ours}/shortcut_norm', f'block{number}.skipbn'))
        for i in range(1, len(features) + 1):
            at = 3 * i - (3 if number == 1 else 2)  # an activation, a separable convolution, a norm; the first activates once
            yield f'{ours}/norm{i}', f'block{number}.rep.{at + 1}'
            yield from _separable(f'{ours}/{{}}{i}', f'block{number}.rep.{at}')
    for i in (3, 4):
        yield f'norm{i}', f'bn{i}'
        yield from _separable(f'{{}}{i}', f'conv{i}')
    yield 'head', 'fc'


def _separable(ours: str, theirs: str) -> Iterator[tuple[str, ...]]:
    yield from ((ours.format('depthwise'), f'{theirs}.conv1'), (ours.format('pointwise'), f'{theirs}.pointwise'))


class Xception(Network):
    """A stem, the blocks of entry, middle and exit flow, two separable convolutions, global average pooling, logits.

    Attributes, besides those of `Network`:
      middle: blocks of the middle flow.
      width: multiplier of all channels, which are rounded to multiples of 8.
      dropout: rate on the input of the last layer (section 4.4).
      stochastic_depth: share of examples for which the last block's residual branch is dropped in training; earlier blocks
        in proportion to their depth.
    """

    middle: int = 8
    width: float = 1.0
    dropout: float = 0.5
    stochastic_depth: float = 0.0

    SOURCES = {
        'timm': Source(
            _timm, {'legacy_xception': 'legacy_xception'}, lambda name: Preprocessing(299, 0.8975, mean=HALF, std=HALF)
        )
    }

    @nn.nowrap
    def blocks(self) -> Iterator[tuple[str, tuple[int, ...], int]]:
        """(name, channels of its separable convolutions, stride)."""
        yield from ((f'stage{s}_block1', features, 2) for s, features in enumerate(ENTRY, 1))
        yield from ((f'stage{len(ENTRY)}_block{b}', MIDDLE, 1) for b in range(2, self.middle + 2))
        yield f'stage{len(ENTRY) + 1}_block1', EXIT, 2

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Images `[B, H, W, C]` to logits `[B, K]`."""
        if min(x.shape[1:3]) < SMALLEST:
            raise ConfigError(f'Xception takes images of {SMALLEST} pixels a side or more, got {x.shape[1]} x {x.shape[2]}.')
        kit, block, blocks = self.kit(train), self.block(Block), list(self.blocks())
        for i, (features, strides) in enumerate(STEM, 1):
            x = kit.conv(x, divisible(features * self.width), 3, strides, name=f'conv{i}', padding=0)
            x = kit.activate(kit.norm(x, name=f'norm{i}'))
        x = self.tap('stem', x)
        for number, (name, features, strides) in enumerate(blocks, 1):
            x = block(
                kit,
                tuple(divisible(n * self.width) for n in features),
                strides,
                activated=number == 1,
                drop=self.stochastic_depth * number / len(blocks),
                name=name,
            )(x)
            stage = name.partition('_')[0]
            if number < len(blocks) and not blocks[number][0].startswith(f'{stage}_'):
                x = self.tap(stage, x)
        for i, features in enumerate(LAST, len(STEM) + 1):
            x = kit.activate(separable(kit, x, divisible(features * self.width), number=i))
        x = self.tap(stage, x).mean((1, 2))
        return kit.dense(Dropout(self.dropout, name='drop')(x, train), self.num_classes, name='head')


class Block(nn.Module):
    """Separable convolutions added to their input, `[B, H, W, C]` to `[B, ceil(H / strides), ceil(W / strides), D]`.

    Attributes:
      features: output channels of each separable convolution; the last is D.
      strides: of the 3x3 max pooling after them; 1 for none.
      activated: whether the input is already activated; otherwise the branch begins with an activation.
      drop: share of examples for which the branch is dropped in training.
    """

    kit: Kit
    features: tuple[int, ...]
    strides: int
    activated: bool
    drop: float

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kit, y = self.kit, x
        for i, features in enumerate(self.features, 1):
            y = separable(kit, y if i == 1 and self.activated else kit.activate(y), features, number=i)
        if self.strides > 1:
            y = kit.max_pool(y, 3, self.strides, ((1, 1), (1, 1)))
        if self.strides > 1 or x.shape[-1] != y.shape[-1]:
            x = kit.conv(x, self.features[-1], 1, self.strides, name='shortcut_conv')
            x = kit.norm(x, name='shortcut_norm')
        return x + Dropout(self.drop, unit='example', name='drop')(y, kit.train)


def separable(kit: Kit, x: jax.Array, features: int, *, number: int) -> jax.Array:
    """`depthwise{number}` 3x3, `pointwise{number}` and `norm{number}`: `[B, H, W, C]` to `[B, H, W, features]`."""
    x = kit.conv(x, x.shape[-1], 3, name=f'depthwise{number}', groups=x.shape[-1])
    return kit.norm(kit.conv(x, features, 1, name=f'pointwise{number}'), name=f'norm{number}')


legacy_xception = Xception
