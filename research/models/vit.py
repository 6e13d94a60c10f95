"""Vision Transformer (Dosovitskiy et al. 2021, An image is worth 16x16 words).

Patches through one matrix, a class token, learned positions, pre-norm blocks of attention and MLP, logits of the class token.
It matches timm's layer by layer: LayerNorm's epsilon 1e-6, exact GELU, biases throughout. T tokens, D features, N heads.
"""

import functools
import math
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.core import FrozenDict

from research.catalogue import ConfigError, nearest
from research.layers import initializers
from research.layers.dropout import Dropout
from research.models.blocks import Block
from research.models.network import HALF, Network, Preprocessing, Source

# Table 1 of the paper, and of Touvron et al. 2021 (DeiT) for tiny and small: patch, D, blocks, heads.
SIZES = {
    'tiny': {'patch': 16, 'dim': 192, 'depth': 12, 'heads': 3},
    'small': {'patch': 16, 'dim': 384, 'depth': 12, 'heads': 6},
    'base': {'patch': 16, 'dim': 768, 'depth': 12, 'heads': 12},
}
# Tokens [B, 1 + T, D] -> input of the head [B, D]; timm's global_pool 'token' and 'avg'.
POOLS = {'token': lambda x: x[:, 0], 'mean': lambda x: x[:, 1:].mean(1)}

# Names in other libraries, which count blocks from 0; block{} counts from 1.
_TIMM = {
    'patch_embed': 'patch_embed.proj',
    'class_token': 'cls_token',
    'positions': 'pos_embed',
    'norm': 'norm',
    'head': 'head',
    'block{}/attention_norm': 'blocks.{}.norm1',
    'block{}/qkv': 'blocks.{}.attn.qkv',
    'block{}/projection': 'blocks.{}.attn.proj',
    'block{}/mlp_norm': 'blocks.{}.norm2',
    'block{}/mlp_in': 'blocks.{}.mlp.fc1',
    'block{}/mlp_out': 'blocks.{}.mlp.fc2',
}
_TORCHVISION = {
    'patch_embed': 'conv_proj',
    'class_token': 'class_token',
    'positions': 'encoder.pos_embedding',
    'norm': 'encoder.ln',
    'head': 'heads.head',
    'block{}/attention_norm': 'encoder.layers.encoder_layer_{}.ln_1',
    'block{}/qkv/kernel': 'encoder.layers.encoder_layer_{}.self_attention.in_proj_weight',
    'block{}/qkv/bias': 'encoder.layers.encoder_layer_{}.self_attention.in_proj_bias',
    'block{}/projection': 'encoder.layers.encoder_layer_{}.self_attention.out_proj',
    'block{}/mlp_norm': 'encoder.layers.encoder_layer_{}.ln_2',
    'block{}/mlp_in': 'encoder.layers.encoder_layer_{}.mlp.0',
    'block{}/mlp_out': 'encoder.layers.encoder_layer_{}.mlp.3',
}
# As in the files at the hub.
_HUGGINGFACE = {
    'patch_embed': 'vit.embeddings.patch_embeddings.projection',
    'class_token': 'vit.embeddings.cls_token',
    'positions': 'vit.embeddings.position_embeddings',
    'norm': 'vit.layernorm',
    'head': 'classifier',
    'block{}/attention_norm': 'vit.encoder.layer.{}.layernorm_before',
    'block{}/qkv': tuple(f'vit.encoder.layer.{{}}.attention.attention.{part}' for part in ('query', 'key', 'value')),
    'block{}/projection': 'vit.encoder.layer.{}.attention.output.dense',
    'block{}/mlp_norm': 'vit.encoder.layer.{}.layernorm_after',
    'block{}/mlp_in': 'vit.encoder.layer.{}.intermediate.dense',
    'block{}/mlp_out': 'vit.encoder.layer.{}.output.dense',
}
# In memory, and so in a `state_dict`, transformers 5 has other names than in its files.
_SPELLINGS = (
    (r'^(vit\.)?layers\.', r'\1encoder.layer.'),
    (r'\.attention\.q_proj\.', '.attention.attention.query.'),
    (r'\.attention\.k_proj\.', '.attention.attention.key.'),
    (r'\.attention\.v_proj\.', '.attention.attention.value.'),
    (r'\.attention\.o_proj\.', '.attention.output.dense.'),
    (r'\.mlp\.fc1\.', '.intermediate.dense.'),
    (r'\.mlp\.fc2\.', '.output.dense.'),
)


def _names(table: Mapping[str, str | tuple[str, ...]], net: 'ViT') -> Iterator[tuple[str, tuple[str, ...]]]:
    for ours, theirs in table.items():
        for i in range(net.depth if '{}' in ours else 1):
            yield ours.format(i + 1), tuple(name.format(i) for name in ((theirs,) if isinstance(theirs, str) else theirs))


def _timm_names(net: 'ViT') -> Iterator[tuple[str, tuple[str, ...]]]:
    return _names(_TIMM | {'norm': 'fc_norm' if net.pool == 'mean' else 'norm'}, net)


class ViT(Network):
    """Images to logits by attention over patches.

    Attributes, besides those of `Network`:
      patch: side of a patch, a divisor of the image's.
      dim, depth, heads, mlp_ratio: D, blocks, N, and the MLP's width as a multiple of D.
      pool: 'token', logits of the class token, or 'mean', of the patches' mean.
      dropout: rate after the positions and every matrix except that of query, key and value (appendix B.1).
      stochastic_depth: share of examples for which the last block's branches are dropped in training; earlier blocks in
        proportion to their depth.
    """

    norm: str | Mapping[str, Any] = FrozenDict({'name': 'layer', 'epsilon': 1e-6})
    activation: str = 'gelu'
    patch: int = 4
    dim: int = 64
    depth: int = 4
    heads: int = 4
    mlp_ratio: float = 4.0
    pool: Literal['token', 'mean'] = 'token'
    dropout: float = 0.0
    stochastic_depth: float = 0.0

    SOURCES = {
        'timm': Source(
            _timm_names,
            {f'vit_{size}_patch16_224': f'vit_{size}_patch16_224' for size in SIZES},
            lambda name: Preprocessing(crop=0.9, mean=HALF, std=HALF),
        ),
        'torchvision': Source(
            functools.partial(_names, _TORCHVISION),
            {'vit_base_patch16_224': 'vit_b_16'},
            lambda name: Preprocessing(interpolation='bilinear'),
        ),
        'huggingface': Source(
            functools.partial(_names, _HUGGINGFACE),
            {
                'vit_tiny_patch16_224': 'WinKawaks/vit-tiny-patch16-224',
                'vit_small_patch16_224': 'WinKawaks/vit-small-patch16-224',
                'vit_base_patch16_224': 'google/vit-base-patch16-224',
            },
            lambda name: Preprocessing(crop=1.0, interpolation='bilinear', mean=HALF, std=HALF),
            lambda name, tensors: {'norm': {'name': 'layer', 'epsilon': 1e-12}},
            backbone='vit',
            spellings=_SPELLINGS,
        ),
    }
    FIRST = 'patch_embed'

    @nn.nowrap
    def resized(self, path: tuple[str, ...], leaf: np.ndarray, shape: tuple[int, ...]) -> np.ndarray | None:
        """Positions `[1, 1 + T, D]` for another square of patches: bicubic with antialiasing; the class token keeps its own."""
        old, new = (math.isqrt(n - 1) for n in (leaf.shape[1], shape[1])) if path[-1] == 'positions' else (0, 0)
        if not old or (1, 1 + old**2, shape[2]) != leaf.shape or 1 + new**2 != shape[1]:
            return None
        grid = leaf[0, 1:].reshape(old, old, -1)
        patches = jax.image.resize(grid, (new, new, grid.shape[-1]), 'bicubic', antialias=True)
        return np.concatenate([leaf[:, :1], np.asarray(patches).reshape(1, new**2, -1)], axis=1)

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Images `[B, H, W, C]` to logits `[B, K]`."""
        if x.shape[1] % self.patch or x.shape[2] % self.patch:
            raise ConfigError(
                f'Images of {x.shape[1]}x{x.shape[2]} cannot be cut into patches of {self.patch}: choose a divisor.'
            )
        if self.pool not in POOLS:
            raise ConfigError(f"Unknown pool '{self.pool}'.{nearest(self.pool, POOLS)}")
        kit, init = self.kit(train), initializers.lecun_normal()
        x = kit.conv(x, self.dim, self.patch, self.patch, name='patch_embed', use_bias=True, padding='VALID', kernel_init=init)
        shape = self.tap('stem', x).shape
        x = x.reshape(x.shape[0], -1, self.dim)
        token = self.param('class_token', nn.initializers.zeros, (1, 1, self.dim))
        x = jnp.concatenate([jnp.broadcast_to(token, (x.shape[0], 1, self.dim)).astype(x.dtype), x], axis=1)
        x = x + self.param('positions', nn.initializers.normal(0.02), (1, x.shape[1], self.dim)).astype(x.dtype)
        x = Dropout(self.dropout, name='dropout')(x, train)
        block = self.block(Block)
        for i in range(1, self.depth + 1):
            rates = {
                'dropout': self.dropout,
                'mlp_dropout': self.dropout,
                'stochastic_depth': self.stochastic_depth * i / self.depth,
            }
            x, _ = block(kit, self.heads, int(self.mlp_ratio * self.dim), **rates, name=f'block{i}')(x)
        self.tap('stage1', x[:, 1:].reshape(shape))
        return kit.dense(kit.norm(POOLS[self.pool](x), name='norm'), self.num_classes, name='head')


# 5,717,416, 22,050,664 and 86,567,656 parameters at 1000 classes and 224 x 224.
vit_tiny_patch16_224 = functools.partial(ViT, **SIZES['tiny'])
vit_small_patch16_224 = functools.partial(ViT, **SIZES['small'])
vit_base_patch16_224 = functools.partial(ViT, **SIZES['base'])
