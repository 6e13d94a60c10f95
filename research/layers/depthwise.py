"""Depthwise convolution on CPU: `[B, H, W, C]` with a kernel `[kh, kw, 1, C]`, in elementwise loops that XLA vectorizes over C.

`lax.conv` has no fast code for it on CPU, forward or backward (benchmarks/convolutions.md). Forward and input gradient are
one loop each, a sum over taps of shifted images times weights by channel. The weight gradient is a *variadic* reduce, one
operand per tap, over a few columns only: XLA emits one kernel with an output per tap. LLVM unrolls the short reduction, so the
loop over channels is innermost and vectorized, and taps share their loads. Sums over rows are written out inside each operand.
The rest, `[B, H' / rows, W' / columns, C]` per tap, is summed by a matmul with ones, which XLA does not fuse; fused, the loop
would be scalar.
"""

import functools
import operator
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

from research.layers.strided import Pair, input_gradient

# Products of the weight gradient's kernel, taps x rows x columns: above it LLVM does not unroll, which is 3 times slower.
_PRODUCTS = 108


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def depthwise(x: jax.Array, kernel: jax.Array, strides: Pair, padding: tuple[Pair, Pair], dilation: Pair) -> jax.Array:
    """Convolves each channel with its own kernel.

    Args:
      x: [B, H, W, C], floating.
      kernel: [kh, kw, 1, C], the dtype of `x`.
      strides, dilation: one number per spatial dimension; one of the two is (1, 1).
      padding: (low, high) per spatial dimension.

    Returns:
      [B, H', W', C], the dtype of `x`.
    """
    return _correlate(x, kernel[:, :, 0], strides, padding, dilation)


def _forward(x, kernel, strides, padding, dilation):
    return depthwise(x, kernel, strides, padding, dilation), (x, kernel)


def _backward(strides, padding, dilation, residuals, dy):
    x, kernel = residuals
    dx = _input_gradient(x.shape, kernel[:, :, 0], strides, padding, dilation, dy)
    return dx, _weight_gradient(x, kernel, strides, padding, dilation, dy)


depthwise.defvjp(_forward, _backward)


def _padded(x, pads):
    return lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *((low, high, 0) for low, high in pads), (0, 0, 0)])


def sum_dtype(dtype: jnp.dtype) -> jnp.dtype:
    """The dtype in which products are added up: at least float32, because in half precision each summand loses digits."""
    return jnp.promote_types(dtype, jnp.float32)


def _correlate(x, kernel, strides, padding, dilation):
    """y[b, o, c] = sum over t of x[b, s o + d t - low, c] kernel[t, c]; kernel [kh, kw, C]."""
    of_sums = sum_dtype(x.dtype)
    x = lax.optimization_barrier(_padded(x, padding))
    (kh, kw, _), (sh, sw), (dh, dw) = kernel.shape, strides, dilation
    rows, columns = (x.shape[1] - dh * (kh - 1) - 1) // sh + 1, (x.shape[2] - dw * (kw - 1) - 1) // sw + 1

    def tap(i, j):
        cut = x[:, i * dh : i * dh + sh * (rows - 1) + 1 : sh, j * dw : j * dw + sw * (columns - 1) + 1 : sw]
        return cut.astype(of_sums) * kernel[i, j].reshape(1, 1, 1, -1).astype(of_sums)

    return functools.reduce(operator.add, (tap(i, j) for i in range(kh) for j in range(kw))).astype(x.dtype)


def _input_gradient(shape: Sequence[int], kernel, strides, padding, dilation, dy):
    def correlate(dy, part, pads):
        return _correlate(dy, part, (1, 1), pads, dilation)

    if max(dilation) == 1:
        return input_gradient(dy, kernel, shape, strides, padding, correlate)
    sides = zip(padding, kernel.shape, dilation, dy.shape[1:3], shape[1:3], strict=False)
    return correlate(dy, kernel[::-1, ::-1], [(d * (k - 1) - low, n - o + low) for (low, _), k, d, o, n in sides])


def _blocks(height: int, width: int, taps: int) -> Pair:
    """Rows and columns of the output that one entry of the reduce sums."""

    def cost(block):
        rows, columns = block
        padded = -(-height // rows) * rows * -(-width // columns) * columns / (height * width)
        return padded - 1 + 1 / (rows * columns)  # what is padded, what is written

    return min(((r, c) for c in range(2, 7) for r in range(1, 13) if r * c * taps <= _PRODUCTS), key=cost)


def _weight_gradient(x, kernel, strides, padding, dilation, dy):
    """dk[t, c] = sum over b, o of x[b, s o + d t - low, c] dy[b, o, c]."""
    (kh, kw), (batch, height, width, channels) = kernel.shape[:2], dy.shape
    if not dy.size:
        return jnp.zeros_like(kernel)
    group = max(1, min(kh, 9 // kw))  # rows of the kernel in one reduce
    rows, columns = _blocks(height, width, group * kw)
    tall, wide = -(-height // rows), -(-width // columns)  # blocks
    dy = _padded(dy, [(0, tall * rows - height), (0, wide * columns - width)])
    sides = zip(strides, dilation, (tall * rows, wide * columns), (kh, kw), x.shape[1:3], padding, strict=True)
    x = _padded(x, [(low, s * (o - 1) + d * (k - 1) + 1 - n - low) for s, d, o, k, n, (low, _) in sides])
    x = lax.optimization_barrier(x)
    (sh, sw), (dh, dw), of_sums = strides, dilation, sum_dtype(x.dtype)

    def product(i, j, row):
        top, left = i * dh + row * sh, j * dw
        part = x[:, top : top + (tall - 1) * rows * sh + 1 : rows * sh, left : left + (wide * columns - 1) * sw + 1 : sw]
        shape = (batch, tall, wide, columns, channels)
        return part.reshape(shape).astype(of_sums) * dy[:, row::rows].reshape(shape).astype(of_sums)

    sums = []
    for top in range(0, kh, group):
        positions = [(i, j) for i in range(top, min(top + group, kh)) for j in range(kw)]
        operands = [functools.reduce(operator.add, (product(i, j, row) for row in range(rows))) for i, j in positions]
        zeros = [jnp.zeros((), of_sums)] * len(operands)
        sums += lax.reduce(operands, zeros, lambda a, b: [u + v for u, v in zip(a, b, strict=True)], (3,))
    ones = jnp.ones((1, batch * tall * wide), of_sums)
    return jnp.stack([(ones @ part.reshape(-1, channels))[0] for part in sums]).reshape(kernel.shape).astype(kernel.dtype)
