"""Fully connected layer: flax's own, with an initializer that compiles fast, and a gradient without transposes."""

import functools
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from research.layers import formulation, initializers


def _product(x: jax.Array, kernel: jax.Array, dimensions: Any, precision: Any = None) -> jax.Array:
    """x @ kernel as flax asks for it, [..., C] and [C, features]."""
    if x.ndim < 3 or not formulation.joins_rows():
        return lax.dot_general(x, kernel, dimensions, precision=precision)
    rows = x.reshape(math.prod(x.shape[:-1]), x.shape[-1])
    return jnp.dot(rows, kernel, precision=precision).reshape(*x.shape[:-1], kernel.shape[1])


Dense = functools.partial(nn.Dense, kernel_init=initializers.lecun_normal(), dot_general=_product)
"""`Dense(features, use_bias=True, name=...)`: [..., C] to [..., features]; `kernel` [C, features], `bias` [features]."""
