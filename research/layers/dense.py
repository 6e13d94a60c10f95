"""Fully connected layer: flax's own, with an initializer that compiles fast."""

import functools

import flax.linen as nn

from research.layers import initializers

Dense = functools.partial(nn.Dense, kernel_init=initializers.lecun_normal())
"""`Dense(features, use_bias=True, name=...)`: [..., C] to [..., features]; `kernel` [C, features], `bias` [features]."""
