"""CoAtNet (Dai et al. 2021, Marrying convolution and attention for all data sizes): two stages of MBConv, two of attention.

The networks of table 3, as in timm's models without `rw` in the name, which follow the paper: a convolutional stem, pre-norm
blocks, the first in a stage halving the map, attention over the whole map with a learned bias for each relative position, and
one more matrix before the logits, as in MaxViT (Tu et al. 2022). T = H W tokens, D features, N heads.
"""

import dataclasses
import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.core import FrozenDict

from research.catalogue import ConfigError
from research.layers import initializers
from research.layers.attention import attention
from research.layers.dropout import Dropout
from research.layers.pooling import avg_pool
from research.layers.squeeze_excite import SqueezeExcite
from research.models.network import HALF, Kit, Network, Preprocessing, Source

# Table 3 of the paper: blocks and D of each stage, channels of the stem.
SIZES = {
    '0': {'depths': (2, 3, 5, 2), 'widths': (96, 192, 384, 768), 'stem_width': 64},
    '1': {'depths': (2, 6, 14, 2), 'widths': (96, 192, 384, 768), 'stem_width': 64},
    '2': {'depths': (2, 6, 14, 2), 'widths': (128, 256, 512, 1024), 'stem_width': 128},
    '3': {'depths': (2, 6, 14, 2), 'widths': (192, 384, 768, 1536), 'stem_width': 192},
}
# Width inside a block as a multiple of D, and of the squeeze-and-excitation as a share of D (caption of table 3).
EXPANSION, SQUEEZE = 4, 0.25

_CONVOLUTION = {
    'pre_norm': 'pre_norm',
    'conv1': 'conv1_1x1',
    'norm1': 'norm1',
    'conv2': 'conv2_kxk',
    'norm2': 'norm2',
    'squeeze_excite/reduce': ('se.fc1', 'pointwise'),
    'squeeze_excite/expand': ('se.fc2', 'pointwise'),
    'conv3': 'conv3_1x1',
    'shortcut_conv': 'shortcut.expand',
}
_ATTENTION = {
    'qkv': ('attn.qkv', 'pointwise'),
    'relative_positions': 'attn.rel_pos.relative_position_bias_table',
    'projection': ('attn.proj', 'pointwise'),
    'mlp_norm': 'norm2',
    'mlp_in': ('mlp.fc1', 'pointwise'),
    'mlp_out': ('mlp.fc2', 'pointwise'),
    'shortcut_conv': 'shortcut.expand',
}


def _names(net: 'CoAtNet') -> Iterator[tuple[str, ...]]:
    yield from (('conv1', 'stem.conv1'), ('norm1', 'stem.norm1'), ('conv2', 'stem.conv2'))
    yield from (('norm', 'head.norm'), ('pre_logits', 'head.pre_logits.fc'), ('head', 'head.fc'))
    for ours, s, b in net.blocks():
        theirs = f'stages.{s - 1}.blocks.{b - 1}'
        table = {'C': _CONVOLUTION, 'T': _ATTENTION | {'attention_norm': 'norm1.norm' if b == 1 else 'norm1'}}
        for layer, entry in table[net.layout[s - 1]].items():
            name, form = (entry, '') if isinstance(entry, str) else entry
            yield f'{ours}/{layer}', f'{theirs}.{name}', form


class CoAtNet(Network):
    """A stem that halves the image, stages that each halve the map, global average pooling, logits.

    Attributes, besides those of `Network`; `norm` is for the stages of convolution:
      depths, widths: blocks of each stage, and D in them.
      layout: per stage 'C' for convolution or 'T' for attention (section 2.2 compares 'CCCC', 'CCCT', 'CCTT', 'CTTT').
      stem_width: channels of the stem's two convolutions.
      head_dim: features per head, a divisor of D in stages of attention.
      attention_norm: norm layer of the stages of attention and before the logits, as `norm`.
      dropout: rate before the logits.
      stochastic_depth: share of examples for which the last block's branches are dropped in training; earlier blocks in
        proportion to their depth.
    """

    activation: str = 'gelu'
    depths: Sequence[int] = (2, 3, 5, 2)
    widths: Sequence[int] = (96, 192, 384, 768)
    layout: str = 'CCTT'
    stem_width: int = 64
    head_dim: int = 32
    attention_norm: str | Mapping[str, Any] = FrozenDict({'name': 'layer', 'epsilon': 1e-6})
    dropout: float = 0.0
    stochastic_depth: float = 0.0

    SOURCES = {
        'timm': Source(
            _names,
            {f'coatnet_{size}_224': f'coatnet_{size}_224' for size in SIZES},
            lambda name: Preprocessing(crop=0.95, mean=HALF, std=HALF),
        ),
    }

    @nn.nowrap
    def blocks(self) -> Iterator[tuple[str, int, int]]:
        """(name, number of the stage, number in the stage), both from 1."""
        yield from ((f'stage{s}_block{b}', s, b) for s, depth in enumerate(self.depths, 1) for b in range(1, depth + 1))

    @nn.nowrap
    def resized(self, path: tuple[str, ...], leaf: np.ndarray, shape: tuple[int, ...]) -> np.ndarray | None:
        """Biases `[(2 H - 1) (2 W - 1), N]` of relative positions for another square map: bilinear (appendix A.1)."""
        old, new = math.isqrt(len(leaf)), math.isqrt(shape[0])
        if path[-1] != 'relative_positions' or leaf.shape != (old**2, shape[-1]) or new**2 != shape[0]:
            return None
        return np.asarray(jax.image.resize(leaf.reshape(old, old, -1), (new, new, shape[-1]), 'bilinear')).reshape(shape)

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Images `[B, H, W, C]` to logits `[B, K]`."""
        if not len(self.depths) == len(self.widths) == len(self.layout) or set(self.layout) - set('CT'):
            raise ConfigError(
                f"{len(self.depths)} depths, {len(self.widths)} widths and a layout '{self.layout}': expected the same number "
                "of each, and 'C' or 'T' per stage."
            )
        kit = self.kit(train)
        attention_kit = dataclasses.replace(kit, norm_layer=self.attention_norm)
        x = kit.activate(kit.norm(kit.conv(x, self.stem_width, 3, 2, name='conv1'), name='norm1'))
        x = self.tap('stem', kit.conv(x, self.stem_width, 3, name='conv2'))
        convolution, encoder = self.block(ConvolutionBlock), self.block(AttentionBlock)
        for number, (name, s, b) in enumerate(self.blocks(), 1):
            given = {
                'width': self.widths[s - 1],
                'strides': 2 if b == 1 else 1,
                'drop': self.stochastic_depth * number / sum(self.depths),
                'name': name,
            }
            if self.layout[s - 1] == 'C':
                x = convolution(kit, **given)(x)
            else:
                x = encoder(attention_kit, head_dim=self.head_dim, **given)(x)
            if b == self.depths[s - 1]:
                x = self.tap(f'stage{s}', x)
        x = attention_kit.norm(x.mean((1, 2)), name='norm')
        x = jnp.tanh(kit.dense(x, x.shape[-1], name='pre_logits'))
        return kit.dense(Dropout(self.dropout, name='dropout')(x, train), self.num_classes, name='head')


def _shortcut(kit: Kit, x: jax.Array, width: int, strides: int) -> jax.Array:
    """What a branch is added to: the map, pooled and widened like the branch (equation 5)."""
    x = _sampled(x, strides)
    return x if x.shape[-1] == width else kit.conv(x, width, 1, use_bias=True, name='shortcut_conv')


def _sampled(x: jax.Array, strides: int) -> jax.Array:
    """Means of squares, cut off at the far edges: `[B, ceil(H / strides), ceil(W / strides), C]`."""
    if strides == 1:
        return x
    padding = [(0, -n % strides) for n in x.shape[1:3]]
    return avg_pool(x, (strides, strides), (strides, strides), padding, count_include_pad=False)


class ConvolutionBlock(nn.Module):
    """MBConv with a norm layer first: `[B, H, W, C]` to `[B, ceil(H / strides), ceil(W / strides), width]`."""

    kit: Kit
    width: int
    strides: int
    drop: float

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kit, inner = self.kit, EXPANSION * self.width
        y = kit.norm(x, name='pre_norm')
        y = kit.activate(kit.norm(kit.conv(y, inner, 1, name='conv1'), name='norm1'))
        y = kit.conv(y, inner, 3, self.strides, groups=inner, name='conv2')
        y = kit.activate(kit.norm(y, name='norm2'))
        y = SqueezeExcite(max(1, int(SQUEEZE * self.width)), activation='silu', name='squeeze_excite')(y)
        y = kit.conv(y, self.width, 1, use_bias=True, name='conv3')
        shortcut = _shortcut(kit, x, self.width, self.strides)
        return shortcut + Dropout(self.drop, unit='example', name='drop')(y, kit.train)


class AttentionBlock(nn.Module):
    """Pre-norm attention and MLP: `[B, H, W, C]` to `[B, ceil(H / strides), ceil(W / strides), width]`."""

    kit: Kit
    width: int
    strides: int
    drop: float
    head_dim: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kit, dense = self.kit, functools.partial(self.kit.dense, kernel_init=initializers.glorot_normal())
        if self.width % self.head_dim:
            raise ConfigError(f'Heads of {self.head_dim} features do not divide {self.width} features: choose a divisor.')

        def branch(y: jax.Array, name: str) -> jax.Array:
            return Dropout(self.drop, unit='example', name=f'{name}_drop')(y, kit.train)

        y = _sampled(kit.norm(x, name='attention_norm'), self.strides)
        batch, *size, _ = y.shape
        heads = self.width // self.head_dim
        # A head's query, key and value are adjacent, as in timm.
        qkv = dense(y, 3 * self.width, name='qkv').reshape(batch, math.prod(size), heads, 3, self.head_dim)
        query, key, value = jnp.moveaxis(qkv, 3, 0)
        shape = math.prod(2 * n - 1 for n in size), heads
        table = self.param('relative_positions', initializers.truncated_normal(0.02), shape)
        y = attention(query, key, value, bias=table[_relative(*size)].transpose(2, 0, 1)[None])
        y = dense(y.reshape(batch, *size, self.width), self.width, name='projection')
        x = _shortcut(kit, x, self.width, self.strides) + branch(y, 'attention')
        y = kit.activate(dense(kit.norm(x, name='mlp_norm'), EXPANSION * self.width, name='mlp_in'))
        return x + branch(dense(y, self.width, name='mlp_out'), 'mlp')


def _relative(height: int, width: int) -> np.ndarray:
    """Rows of the table for each query and key, `[T, T]`: offsets of the query from the key, row by row, the lowest first."""
    rows, columns = (n.reshape(-1) for n in np.mgrid[:height, :width])
    offsets = [n[:, None] - n + extent - 1 for n, extent in ((rows, height), (columns, width))]
    return offsets[0] * (2 * width - 1) + offsets[1]


# 25,036,820, 42,225,776, 74,684,744 and 166,966,264 parameters at 1000 classes and 224 x 224.
coatnet_0_224 = functools.partial(CoAtNet, **SIZES['0'])
coatnet_1_224 = functools.partial(CoAtNet, **SIZES['1'])
coatnet_2_224 = functools.partial(CoAtNet, **SIZES['2'])
coatnet_3_224 = functools.partial(CoAtNet, **SIZES['3'])
