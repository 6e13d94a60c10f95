"""Activation functions by name: floating arrays of any shape to the same shape and dtype."""

from collections.abc import Callable

import jax

from research import catalogue

ACTIVATIONS = {
    'gelu': 'research.layers.activation:gelu',
    'hard_sigmoid': 'jax.nn:hard_sigmoid',
    'hard_swish': 'jax.nn:hard_swish',
    'identity': 'jax.numpy:asarray',
    'relu': 'jax.nn:relu',
    'relu6': 'jax.nn:relu6',
    'sigmoid': 'jax.nn:sigmoid',
    'silu': 'jax.nn:silu',
    'tanh': 'jax.numpy:tanh',
}


def gelu(x: jax.Array) -> jax.Array:
    """x times the normal CDF of x, exact (Hendrycks and Gimpel 2016); jax's own default is an approximation."""
    return jax.nn.gelu(x, approximate=False)


def create(name: str) -> Callable[[jax.Array], jax.Array]:
    """The function behind a name in `ACTIVATIONS`, or an import path `module:attribute`.

    Raises:
      ConfigError: an unknown name, with the nearest valid one.
    """
    return catalogue.resolve('activation', name, ACTIVATIONS)
