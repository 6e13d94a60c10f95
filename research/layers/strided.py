"""The gradient of images through a strided convolution, without multiplying by the zeros of a dilated gradient."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

Pair = tuple[int, int]


def input_gradient(
    dy: jax.Array,
    kernel: jax.Array,
    shape: Sequence[int],
    strides: Pair,
    padding: tuple[Pair, Pair],
    correlate: Callable[[jax.Array, jax.Array, Sequence[Pair]], jax.Array],
) -> jax.Array:
    """dx[s q + r] = sum over o of dy[o] kernel[s (q - o) + r + low]: one correlation for each residue r.

    A reshape interleaves the residues.

    Args:
      dy: [B, H', W', D].
      kernel: [kh, kw, ...], the last axes as `correlate` takes them.
      shape: of the images, (B, H, W, C).
      strides, padding: of the convolution; padding is (low, high) per spatial dimension, and may be negative.
      correlate: (dy, part of the kernel, padding) -> [B, H'', W'', C], with strides of 1.

    Returns:
      [B, H, W, C], the dtype of `dy`.
    """
    sides = list(zip(padding, kernel.shape[:2], strides, dy.shape[1:3], shape[1:3], strict=True))
    counts = [-(-n // s) for *_, s, _, n in sides]

    def residue(*position):
        taps, pads = [], []
        for r, ((low, _), k, s, o, _), count in zip(position, sides, counts, strict=True):
            skipped, first = divmod(r + low, s)
            n = len(range(first, k, s))
            taps.append(slice(first, None, s))
            pads.append((n - 1 - skipped, count - o + skipped))
        part = kernel[tuple(taps)]
        if not part.size:
            return jnp.zeros((dy.shape[0], *counts, shape[3]), dy.dtype)
        return correlate(dy, part[::-1, ::-1], pads)

    if strides == (1, 1):
        return residue(0, 0)
    residues = jnp.stack([jnp.stack([residue(i, j) for j in range(strides[1])], axis=3) for i in range(strides[0])], axis=2)
    whole = residues.reshape(len(dy), counts[0] * strides[0], counts[1] * strides[1], shape[3])
    return whole[:, : shape[1], : shape[2]]
