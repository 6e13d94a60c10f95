"""Pooling of images. [B, H, W, C] input, [B, H', W', C] output."""

import functools
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from research.layers import formulation

Pair = tuple[int, int]


def max_pool(
    inputs: jax.Array, window_shape: Pair, strides: Pair | None = None, padding: str | Sequence[Pair] = 'VALID'
) -> jax.Array:
    """Maximum over windows, with the arguments of `flax.linen.max_pool`.

    Args:
      inputs: [B, H, W, C], floating or integer.
      window_shape: rows and columns of a window.
      strides: rows and columns from one window to the next; None: (1, 1), as in flax.
      padding: 'SAME', 'VALID' or (low, high) per spatial dimension; padding never wins.

    Returns:
      [B, H', W', C], the dtype of `inputs`. Of equal values in a window the first, row by row, gets the gradient, as in `lax`.
    """
    window_shape, strides = tuple(window_shape), tuple(strides or (1, 1))
    if formulation.max_pooling(inputs.dtype, window_shape, strides) == 'plain':
        return nn.max_pool(inputs, window_shape=window_shape, strides=strides, padding=padding)
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(inputs.shape[1:3], window_shape, strides, padding)
    return _max_of_slices(inputs, window_shape, strides, tuple(map(tuple, padding)), inputs.shape[1:3])


def avg_pool(
    inputs: jax.Array,
    window_shape: Pair,
    strides: Pair | None = None,
    padding: str | Sequence[Pair] = 'VALID',
    count_include_pad: bool = True,
) -> jax.Array:
    """Mean over windows, [B, H, W, C] to [B, H', W', C]: `flax.linen.avg_pool` with the same arguments."""
    return nn.avg_pool(
        inputs, window_shape=tuple(window_shape), strides=strides, padding=padding, count_include_pad=count_include_pad
    )


def adaptive_avg_pool(x: jax.Array, size: int) -> jax.Array:
    """Means over `size` windows in rows and in columns, for maps of any size, as PyTorch's AdaptiveAvgPool2d.

    Of n rows window i has those from floor(i n / size) to ceil((i + 1) n / size): windows share rows if `size` does not
    divide n, and rows are repeated if n is smaller than `size`.

    Args:
      x: [B, H, W, C], floating.
      size: rows and columns of the output.

    Returns:
      [B, size, size, C].
    """
    for axis in (1, 2):  # the mean over a rectangle is the mean over rows of the means over columns
        if (n := x.shape[axis]) != size:
            windows = [(i * n // size, -(-(i + 1) * n // size)) for i in range(size)]
            means = [lax.slice_in_dim(x, first, end, axis=axis).mean(axis, keepdims=True) for first, end in windows]
            x = jnp.concatenate(means, axis)
    return x


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3, 4))
def _max_of_slices(x, window, strides, padding, size):
    """`size`, the rows and columns of `x`, is for the gradient, which does not get `x`."""
    del size
    return functools.reduce(jnp.maximum, _taps(x, window, strides, padding))


def _forward(x, window, strides, padding, size):
    y = _max_of_slices(x, window, strides, padding, size)
    winner = jnp.zeros_like(y)  # as wide as x although a byte would do: vector code does not mix widths well
    for index, tap in reversed(list(enumerate(_taps(x, window, strides, padding)))):
        winner = jnp.where(tap == y, jnp.asarray(index, y.dtype), winner)
    return y, winner


def _backward(window, strides, padding, size, winner, dy):
    if window == strides:
        return (_to_own_window(winner, dy, window, padding, size),)
    return (_to_overlapping_windows(winner, dy, window, strides, padding, size),)


_max_of_slices.defvjp(_forward, _backward)


def _to_own_window(winner, dy, window, padding, size):
    """Windows that do not overlap: each input looks up whether it won, and XLA makes one loop of it and what follows."""
    batch, rows, columns, channels = dy.shape
    taps = jnp.arange(window[0] * window[1], dtype=winner.dtype).reshape(1, 1, window[0], 1, window[1], 1)
    winner, dy = (a.reshape(batch, rows, 1, columns, 1, channels) for a in (winner, dy))
    zero = jnp.zeros((), dy.dtype)
    dx = jnp.where(winner == taps, dy, zero).reshape(batch, rows * window[0], columns * window[1], channels)
    fit = [(-low, n + low - covered, 0) for (low, _), n, covered in zip(padding, size, dx.shape[1:3], strict=True)]
    return lax.pad(dx, zero, [(0, 0, 0), *fit, (0, 0, 0)])


def _to_overlapping_windows(winner, dy, window, strides, padding, size):
    """Tap i of window o lies at s o + i - low: each residue of that modulo s is a sum of shifted taps, interleaved last."""
    counts = [-(-n // s) for n, s in zip(size, strides, strict=True)]
    zero = jnp.zeros((), dy.dtype)
    phases = [[[] for _ in range(strides[1])] for _ in range(strides[0])]
    for index, position in enumerate(_positions(window)):
        offsets = [i - low for i, (low, _) in zip(position, padding, strict=True)]
        (row_shift, row), (column_shift, column) = (divmod(offset, s) for offset, s in zip(offsets, strides, strict=True))
        shifts = (row_shift, column_shift)
        pads = [(shift, n - o - shift, 0) for shift, n, o in zip(shifts, counts, dy.shape[1:3], strict=True)]
        phases[row][column].append(lax.pad(jnp.where(winner == index, dy, zero), zero, [(0, 0, 0), *pads, (0, 0, 0)]))
    dx = jnp.stack([jnp.stack([sum(parts) for parts in row], axis=3) for row in phases], axis=2)
    dx = dx.reshape(dy.shape[0], counts[0] * strides[0], counts[1] * strides[1], dy.shape[3])
    return dx[:, : size[0], : size[1]]


def _positions(window):
    return [(i, j) for i in range(window[0]) for j in range(window[1])]


def _taps(x, window, strides, padding):
    """One strided slice for each position in the window."""
    lowest = jnp.asarray(-jnp.inf, x.dtype)
    x = lax.pad(x, lowest, [(0, 0, 0), *((low, high, 0) for low, high in padding), (0, 0, 0)])
    rows, columns = ((n - k) // s + 1 for n, k, s in zip(x.shape[1:3], window, strides, strict=True))
    return [
        x[:, i : i + (rows - 1) * strides[0] + 1 : strides[0], j : j + (columns - 1) * strides[1] + 1 : strides[1]]
        for i, j in _positions(window)
    ]
