"""Variance-scaling initializers that draw a vector and reshape it: bit for bit `jax.nn.initializers`, compiled much faster.

XLA's CPU backend takes seconds to compile a truncated normal drawn in a small shape of several dimensions; drawn as a
vector it takes a fraction of one (benchmarks/step_rate.md).

He et al. 2015 (https://arxiv.org/abs/1502.01852), Glorot and Bengio 2010, LeCun et al. 1998 (Efficient BackProp).
"""

import math

import jax
import jax.numpy as jnp
from flax.linen.initializers import Initializer


def he_normal() -> Initializer:
    """Variance 2 / fan_in: keeps the scale of activations through ReLU layers."""
    return variance_scaling(2.0, 'fan_in')


def he_normal_fan_out(groups: int = 1) -> Initializer:
    """Variance 2 / fan_out: keeps the scale of gradients; usual for ResNets.

    Args:
      groups: of the convolution; an input only reaches the outputs of its own group.
    """
    return variance_scaling(2.0 * groups, 'fan_out')


def lecun_normal() -> Initializer:
    """Variance 1 / fan_in: flax's own default."""
    return variance_scaling(1.0, 'fan_in')


def glorot_normal() -> Initializer:
    """Variance 2 / (fan_in + fan_out): a compromise between activations and gradients in layers without ReLU."""
    return variance_scaling(1.0, 'fan_avg')


def truncated_normal(stddev: float = 0.02) -> Initializer:
    """Normal with this standard deviation, truncated at two of them, as `jax.nn.initializers.truncated_normal`."""

    def init(key, shape, dtype=jnp.float32):
        return _draw(key, shape, dtype) * jnp.asarray(stddev, dtype)

    return init


def variance_scaling(scale: float, mode: str) -> Initializer:
    """Normal truncated at two standard deviations, with variance scale / n after the truncation.

    Args:
      scale: positive.
      mode: what n is: 'fan_in', 'fan_out' or 'fan_avg'; the last axis counts outputs, the one before it inputs, and
        all others the receptive field.

    Returns:
      `(key, shape, dtype) -> array`, equal bit for bit to `jax.nn.initializers.variance_scaling(.., 'truncated_normal')`.
    """

    def init(key, shape, dtype=jnp.float32):
        field = math.prod(shape[:-2])
        fan_in, fan_out = shape[-2] * field, shape[-1] * field
        n = {'fan_in': fan_in, 'fan_out': fan_out, 'fan_avg': (fan_in + fan_out) / 2}[mode]
        spread_of_cut_normal = 0.87962566103423978
        stddev = jnp.sqrt(jnp.asarray(scale / n, dtype)) / jnp.asarray(spread_of_cut_normal, dtype)
        return _draw(key, shape, dtype) * stddev

    return init


def _draw(key, shape, dtype):
    return jax.random.truncated_normal(key, -2, 2, (math.prod(shape),), dtype).reshape(shape)
