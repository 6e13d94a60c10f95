"""Residual networks with basic blocks (He et al. 2015, Deep Residual Learning for Image Recognition).

`resnet18` is the ImageNet network of their table 1, layer by layer torchvision's and timm's; `resnet20` the CIFAR-10 network
of their section 4.2. Padding is half the kernel, as in PyTorch: 'SAME' with stride 2 would shift the image by a pixel.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from research import catalogue
from research.layers import initializers, remat
from research.layers import norm as norms
from research.layers.conv import Conv
from research.layers.dense import Dense
from research.layers.dropout import Dropout
from research.layers.pooling import max_pool

IMAGENET_WIDTHS = (64, 128, 256, 512)
CIFAR_WIDTHS = (16, 32, 64)

# Kernel and stride of the first convolution, then window, stride and padding of a max pooling where there is one.
STEMS = {
    'imagenet': {'kernel': 7, 'strides': 2, 'pool': {'window_shape': (3, 3), 'strides': (2, 2), 'padding': ((1, 1), (1, 1))}},
    'cifar': {'kernel': 3, 'strides': 1, 'pool': None},
}


def resnet18(
    num_classes: int = 1000,
    norm: str | Mapping[str, Any] = 'batch',
    stem: str = 'imagenet',
    stochastic_depth: float = 0.0,
    remat: str = 'none',
    axis_name: str | None = None,
) -> 'ResNet':
    """ResNet-18 with projection shortcuts (option B): 11,689,512 parameters at 1000 classes and 3 channels.

    Args:
      num_classes, norm, stochastic_depth, remat, axis_name: as in `ResNet`.
      stem: 'imagenet' (7x7 stride 2, then 3x3 max pooling) for maps of some 224; 'cifar' (3x3 stride 1) for maps of some 32.
    """
    return ResNet(
        num_classes=num_classes,
        depths=(2, 2, 2, 2),
        widths=IMAGENET_WIDTHS,
        stem=stem,
        shortcut='projection',
        norm=norm,
        stochastic_depth=stochastic_depth,
        remat=remat,
        axis_name=axis_name,
    )


def resnet20(
    num_classes: int = 1000,
    norm: str | Mapping[str, Any] = 'batch',
    stochastic_depth: float = 0.0,
    remat: str = 'none',
    axis_name: str | None = None,
) -> 'ResNet':
    """ResNet-20 with parameter-free shortcuts (option A): 269,722 parameters at 10 classes (the paper's 0.27M).

    Args:
      num_classes, norm, stochastic_depth, remat, axis_name: as in `ResNet`.
    """
    return ResNet(
        num_classes=num_classes,
        depths=(3, 3, 3),
        widths=CIFAR_WIDTHS,
        stem='cifar',
        shortcut='padding',
        norm=norm,
        stochastic_depth=stochastic_depth,
        remat=remat,
        axis_name=axis_name,
    )


class ResNet(nn.Module):
    """A stem, stages of basic blocks of which each but the first halves the map, global average pooling, logits.

    Attributes:
      num_classes: K, logits.
      depths: blocks of each stage.
      widths: channels of each stage; the stem has the first.
      stem: a name in `STEMS`.
      shortcut: where a block changes the shape, 'projection' (1x1 convolution and norm: option B) or 'padding' (every other
        row and column, zeros for the new channels: option A).
      norm: a name in `research.layers.norm.NORMS`, or a mapping with `name` and its arguments.
      stochastic_depth: share of examples in which the last block's residual branch is off in training; blocks before it
        in proportion to their depth (Huang et al. 2016, equation 4).
      remat: what of a block is computed again for the gradient, see research.layers.remat.
      axis_name: the `pmap` axis over which batches are split.
    """

    num_classes: int = 1000
    depths: Sequence[int] = (2, 2, 2, 2)
    widths: Sequence[int] = IMAGENET_WIDTHS
    stem: str = 'imagenet'
    shortcut: str = 'projection'
    norm: str | Mapping[str, Any] = 'batch'
    stochastic_depth: float = 0.0
    remat: str = 'none'
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Images `[B, H, W, C]` to logits `[B, K]`."""
        if self.stem not in STEMS:
            raise catalogue.ConfigError(f"Unknown stem '{self.stem}'.{catalogue.nearest(self.stem, STEMS)}")
        stem = STEMS[self.stem]
        x = _conv(self.widths[0], stem['kernel'], stem['strides'], name='conv1')(x)
        x = norms.create(self.norm, use_running_average=not train, axis_name=self.axis_name, name='norm1')(x)
        x = nn.relu(x)
        if stem['pool']:
            x = max_pool(x, **stem['pool'])
        block, number = remat.block(BasicBlock, self.remat), 0
        for s, (depth, width) in enumerate(zip(self.depths, self.widths, strict=True)):
            for b in range(depth):
                number += 1
                x = block(
                    width,
                    strides=2 if s > 0 and b == 0 else 1,
                    shortcut=self.shortcut,
                    norm=self.norm,
                    drop=self.stochastic_depth * number / sum(self.depths),
                    axis_name=self.axis_name,
                    name=f'stage{s + 1}_block{b + 1}',
                )(x, train)
        return Dense(self.num_classes, name='head')(x.mean((1, 2)))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions added to their input, `[B, H, W, C]` to `[B, ceil(H / strides), ceil(W / strides), features]`."""

    features: int
    strides: int
    shortcut: str
    norm: str | Mapping[str, Any]
    drop: float
    axis_name: str | None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        norm = functools.partial(norms.create, self.norm, use_running_average=not train, axis_name=self.axis_name)
        y = nn.relu(norm(name='norm1')(_conv(self.features, 3, self.strides, name='conv1')(x)))
        y = norm(name='norm2')(_conv(self.features, 3, 1, name='conv2')(y))
        if x.shape != y.shape:
            if self.shortcut == 'projection':
                x = norm(name='shortcut_norm')(_conv(self.features, 1, self.strides, name='shortcut_conv')(x))
            elif self.shortcut == 'padding':
                x = x[:, :: self.strides, :: self.strides]
                x = jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, self.features - x.shape[-1])))
            else:
                raise catalogue.ConfigError(f"Unknown shortcut '{self.shortcut}'. Valid: padding, projection.")
        return nn.relu(x + Dropout(self.drop, unit='example', name='drop')(y, train))


def _conv(features: int, kernel: int, strides: int, name: str) -> Conv:
    return Conv(
        features, kernel, strides, padding=kernel // 2, use_bias=False, name=name, kernel_init=initializers.he_normal_fan_out()
    )
