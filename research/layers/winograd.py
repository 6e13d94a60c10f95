"""Winograd's convolution F(2x2, 3x3): four outputs of a 3x3 kernel from 16 products instead of 36 (Lavin & Gray 2015, 4.1).

Every 4x4 tile of the image, with a step of two, becomes 16 numbers per channel, and so does every 3x3 kernel. For each of the
16, a matmul over all tiles contracts the channels; the 16 results are combined into 2x2 outputs. The transforms only add and
halve, so rounding errors are of the size of the direct method's. The tiles hold four times as many numbers as the map, which
limits the gain for few channels.
"""

import functools
import itertools
import operator
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import lax

from research.layers.strided import Pair

# Equations 9 and 10 of the paper: B^T for images, G for kernels, A^T for outputs.
_IMAGE = ((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1))
_KERNEL = ((1, 0, 0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0, 0, 1))
_OUTPUT = ((1, 1, 1, 0), (0, 1, -1, -1))
_MIRRORED = (3, 1, 2, 0)  # rows of G for a kernel read backwards

Matrix = Sequence[Sequence[float]]


def convolve(x: jax.Array, kernel: jax.Array, padding: tuple[Pair, Pair]) -> jax.Array:
    """[B, H, W, C] with [3, 3, C, D] to [B, H', W', D], strides of 1; padding is (low, high) per spatial dimension."""
    return _from_tiles(_tiles(x, padding), _square(_KERNEL, lambda i, j: kernel[i, j]), x, padding)


def image_gradient(x: jax.Array, kernel: jax.Array, padding: tuple[Pair, Pair], dy: jax.Array) -> jax.Array:
    """[B, H, W, C]: `dy` [B, H', W', D] convolved with the rotated kernel, whose 16 numbers are the kernel's reordered."""
    pads = tuple((2 - low, n - o + low) for (low, _), n, o in zip(padding, x.shape[1:3], dy.shape[1:3], strict=True))
    kernels = _square(_KERNEL, lambda i, j: kernel[i, j])
    turned = [kernels[4 * p + q].T for p, q in itertools.product(_MIRRORED, repeat=2)]
    return _from_tiles(_tiles(dy, pads), turned, dy, pads)


def kernel_gradient(x: jax.Array, padding: tuple[Pair, Pair], dy: jax.Array) -> jax.Array:
    """[3, 3, C, D], from `x` [B, H, W, C] and `dy` [B, H', W', D]."""
    _, height, width, features = dy.shape
    dy = lax.pad(dy, jnp.zeros((), dy.dtype), [(0, 0, 0), (0, height % 2, 0), (0, width % 2, 0), (0, 0, 0)])
    outputs = _square(tuple(zip(*_OUTPUT, strict=True)), lambda i, j: dy[:, i::2, j::2].reshape(-1, features))
    rows = (((0,), (0,)), ((), ()))
    products = [lax.dot_general(a, b, rows) for a, b in zip(_tiles(x, padding), outputs, strict=True)]
    taps = _square(tuple(zip(*_KERNEL, strict=True)), lambda p, q: products[4 * p + q])
    return jnp.stack(taps).reshape(3, 3, *taps[0].shape)


def _square(matrix: Matrix, part: Callable[[int, int], jax.Array]) -> list[jax.Array]:
    """M X M^T for a matrix M, of which `part(i, j)` is X[i, j]: its entries row by row."""

    def entry(rows, columns):
        factors = [(i, j, a * b) for (i, a), (j, b) in itertools.product(enumerate(rows), enumerate(columns)) if a * b]
        return functools.reduce(operator.add, (factor * part(i, j) for i, j, factor in factors))

    return [entry(rows, columns) for rows, columns in itertools.product(matrix, repeat=2)]


def _tiles(x, padding) -> list[jax.Array]:
    """16 arrays [tiles, C]."""
    counts = [(n + low + high - 1) // 2 for n, (low, high) in zip(x.shape[1:3], padding, strict=True)]
    pads = [(low, 2 * count + 2 - n - low, 0) for n, count, (low, _) in zip(x.shape[1:3], counts, padding, strict=True)]
    x = lax.optimization_barrier(lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *pads, (0, 0, 0)]))
    tall, wide = (2 * count - 1 for count in counts)
    return [part.reshape(-1, x.shape[3]) for part in _square(_IMAGE, lambda i, j: x[:, i : i + tall : 2, j : j + wide : 2])]


def _from_tiles(tiles, kernels, x, padding) -> jax.Array:
    products = [tile @ kernel for tile, kernel in zip(tiles, kernels, strict=True)]
    height, width = (n + low + high - 2 for n, (low, high) in zip(x.shape[1:3], padding, strict=True))
    shape = (x.shape[0], (height + 1) // 2, (width + 1) // 2, -1)
    a, b, c, d = (part.reshape(shape) for part in _square(_OUTPUT, lambda p, q: products[4 * p + q]))
    y = jnp.stack([jnp.stack([a, b], 3), jnp.stack([c, d], 3)], 2)
    return y.reshape(shape[0], 2 * shape[1], 2 * shape[2], -1)[:, :height, :width]
