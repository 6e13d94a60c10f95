"""Vision Transformer (Dosovitskiy et al. 2021, An image is worth 16x16 words), and the Transformer encoder that it stands on.

Patches through one matrix, a class token, learned positions, pre-norm blocks of attention and MLP, logits of the class token.
Layer by layer it is timm's: LayerNorm's epsilon 1e-6, exact GELU, biases throughout. T tokens, D features, N heads.
"""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from research.catalogue import ConfigError, nearest
from research.layers import initializers, remat
from research.layers.conv import Conv
from research.layers.dense import Dense
from research.layers.dropout import Dropout

# Table 1 of the paper, and of Touvron et al. 2021 (DeiT) for tiny and small: patch, D, blocks, heads.
SIZES = {
    'tiny': {'patch': 16, 'dim': 192, 'depth': 12, 'heads': 3},
    'small': {'patch': 16, 'dim': 384, 'depth': 12, 'heads': 6},
    'base': {'patch': 16, 'dim': 768, 'depth': 12, 'heads': 12},
}
# What of the tokens [B, 1 + T, D] the logits are of; timm's global_pool 'token' and 'avg'.
POOLS = {'token': lambda x: x[:, 0], 'mean': lambda x: x[:, 1:].mean(1)}

_norm = functools.partial(nn.LayerNorm, epsilon=1e-6)


def vit_tiny_patch16_224(
    num_classes: int = 1000, dropout: float = 0.0, stochastic_depth: float = 0.0, remat: str = 'none'
) -> 'ViT':
    """5,717,416 parameters at 1000 classes and 224 x 224. Args: as in `ViT`."""
    return ViT(num_classes, **SIZES['tiny'], dropout=dropout, stochastic_depth=stochastic_depth, remat=remat)


def vit_small_patch16_224(
    num_classes: int = 1000, dropout: float = 0.0, stochastic_depth: float = 0.0, remat: str = 'none'
) -> 'ViT':
    """22,050,664 parameters at 1000 classes and 224 x 224. Args: as in `ViT`."""
    return ViT(num_classes, **SIZES['small'], dropout=dropout, stochastic_depth=stochastic_depth, remat=remat)


def vit_base_patch16_224(
    num_classes: int = 1000, dropout: float = 0.0, stochastic_depth: float = 0.0, remat: str = 'none'
) -> 'ViT':
    """86,567,656 parameters at 1000 classes and 224 x 224. Args: as in `ViT`."""
    return ViT(num_classes, **SIZES['base'], dropout=dropout, stochastic_depth=stochastic_depth, remat=remat)


class ViT(nn.Module):
    """Images to logits by attention over patches.

    Attributes:
      num_classes: K, logits.
      patch: side of a patch; it divides the image's.
      dim, depth, heads, mlp_ratio: D, blocks, N, and the MLP's width as a multiple of D.
      pool: 'token', logits of the class token, or 'mean', of the patches' mean.
      dropout: share zeroed behind the positions and every matrix but that of query, key and value (appendix B.1).
      stochastic_depth: share of examples in which a block's branches are off, in the last block; linear in depth before it.
      remat: what of a block is computed again for the gradient, see research.layers.remat.
    """

    num_classes: int = 1000
    patch: int = 4
    dim: int = 64
    depth: int = 4
    heads: int = 4
    mlp_ratio: float = 4.0
    pool: str = 'token'
    dropout: float = 0.0
    stochastic_depth: float = 0.0
    remat: str = 'none'

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Images `[B, H, W, C]` to logits `[B, K]`."""
        if x.shape[1] % self.patch or x.shape[2] % self.patch:
            raise ConfigError(
                f'Images of {x.shape[1]}x{x.shape[2]} cannot be cut into patches of {self.patch}: choose a divisor.'
            )
        if self.pool not in POOLS:
            raise ConfigError(f"Unknown pool '{self.pool}'.{nearest(self.pool, POOLS)}")
        x = Conv(self.dim, self.patch, self.patch, padding='VALID', name='patch_embed')(x)
        x = x.reshape(len(x), -1, self.dim)
        token = self.param('class_token', nn.initializers.zeros, (1, 1, self.dim))
        x = jnp.concatenate([jnp.broadcast_to(token, (len(x), 1, self.dim)).astype(x.dtype), x], axis=1)
        x = x + self.param('positions', nn.initializers.normal(0.02), (1, x.shape[1], self.dim)).astype(x.dtype)
        x = Dropout(self.dropout, name='dropout')(x, train)
        block = remat.block(EncoderBlock, self.remat)
        for i in range(self.depth):
            drop = self.stochastic_depth * (i + 1) / self.depth
            x = block(self.heads, self.mlp_ratio, self.dropout, drop, name=f'block{i + 1}')(x, train)
        return Dense(self.num_classes, name='head')(_norm(name='norm')(POOLS[self.pool](x)))


class EncoderBlock(nn.Module):
    """Pre-norm attention and MLP, each added to its input: `[B, T, D]` to `[B, T, D]` (Dosovitskiy et al. 2021, eq. 2, 3)."""

    heads: int
    mlp_ratio: float = 4.0
    dropout: float = 0.0
    stochastic_depth: float = 0.0

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        def branch(y: jax.Array, name: str) -> jax.Array:
            y = Dropout(self.dropout, name=f'{name}_dropout')(y, train)
            return Dropout(self.stochastic_depth, unit='example', name=f'{name}_drop')(y, train)

        dim = x.shape[-1]
        x = x + branch(self.attend(_norm(name='attention_norm')(x)), 'attention')
        y = nn.gelu(_dense(int(self.mlp_ratio * dim), name='mlp_in')(_norm(name='mlp_norm')(x)), approximate=False)
        y = Dropout(self.dropout, name='mlp_hidden_dropout')(y, train)
        return x + branch(_dense(dim, name='mlp_out')(y), 'mlp')

    def attend(self, x: jax.Array) -> jax.Array:
        """Softmax attention over all tokens, with the softmax in float32 or wider (Vaswani et al. 2017, eq. 1).

        The scores, T x T a head, are no product that remat keeps: much memory, few FLOPs (Korthikanti et al. 2022).
        """
        dim = x.shape[-1]
        if dim % self.heads:
            raise ConfigError(f'{self.heads} heads cannot share {dim} features evenly: choose a divisor.')
        qkv = _dense(3 * dim, name='qkv')(x).reshape(*x.shape[:2], 3, self.heads, dim // self.heads)
        query, key, value = qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2]
        scores = jnp.einsum('btnd,bsnd->bnts', query, key) / jnp.sqrt(dim // self.heads).astype(x.dtype)
        weights = jax.nn.softmax(scores.astype(jnp.promote_types(scores.dtype, jnp.float32))).astype(x.dtype)
        mixed = remat.product(jnp.einsum('bnts,bsnd->btnd', weights, value))
        return _dense(dim, name='projection')(mixed.reshape(x.shape))


def _dense(features: int, name: str) -> Callable[[jax.Array], jax.Array]:
    layer = Dense(features, kernel_init=initializers.glorot_normal(), name=name)
    return lambda x: remat.product(layer(x))
