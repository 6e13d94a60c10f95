"""Which formulation a layer uses on which backend, decided in this one place.

Every layer has a plain formulation, from `lax` or flax. Some have a second one that computes the same numbers (1e-5) from
the same parameters faster on CPU. GPU and TPU always use the plain one. The measurements behind each choice are in
benchmarks/convolutions.md and step_rate.md; a layer without a measurement stays plain.
"""

import contextlib
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp

_plain = jax.make_user_context(default_value=False)  # part of jit's cache key, so functions are traced again under it


@contextlib.contextmanager
def plain() -> Iterator[None]:
    """Makes every layer use its plain formulation inside the block.

    Needed where a `custom_vjp` is in the way: counting FLOPs on a jaxpr, forward mode (`jax.jvp`, `jax.linearize`) and
    second derivatives.
    """
    with _plain(True):
        yield


def compiler_options(platform: str) -> dict[str, str]:
    """XLA options for training programs on a platform ('cpu', 'gpu', 'tpu'); {} except on CPU.

    XLA's CPU backend removes `lax.optimization_barrier` before fusion. Fusion then recomputes activations, slowly, inside the
    transposes for a kernel's gradient: 260 of the 830 ms of a ResNet-18 step (jaxlib 0.10.2; benchmarks/convolutions.md).
    This option keeps barriers until after fusion.
    """
    return {'xla_disable_hlo_passes': 'cse_barrier_expander'} if platform == 'cpu' else {}


def _fast() -> bool:
    return not _plain.value and jax.default_backend() == 'cpu'


def _known(sizes: Sequence[int]) -> bool:
    """Not so where a program for sizes of any number is exported."""
    return all(isinstance(size, int) for size in sizes)


def convolution(
    x: jax.Array | jax.ShapeDtypeStruct,
    kernel: jax.Array | jax.ShapeDtypeStruct,
    strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
    groups: int,
    dilation: Sequence[int],
) -> str:
    """The formulation of a convolution, forward and backward.

    Args:
      x, kernel, strides, padding, groups, dilation: as in `research.layers.conv.conv`; only shapes and dtypes are read.

    Returns:
      'plain': `lax.conv_general_dilated`, differentiated automatically.
      'pointwise': a matmul, for kernels of one tap.
      'whole': a matmul over the map, for a kernel that covers all of it.
      'depthwise': elementwise loops, for one kernel per channel (research.layers.depthwise).
      'taps': a sum over shifted images, for one channel and few taps.
      'winograd': fewer products for 3x3 kernels (research.layers.winograd); 'winograd_images': not in the kernel's gradient.
      'channels_last': convolutions in channels-last order, both gradients too.
    """
    (kh, kw, channels, features), size = kernel.shape, x.shape[1:3]
    if not _fast() or not _known(x.shape) or x.shape[0] == 0 or _empty(size, (kh, kw), strides, padding, dilation):
        return 'plain'
    if groups > 1:
        alone = channels == 1 and features == groups
        return 'depthwise' if alone and (max(strides) == 1 or max(dilation) == 1) else 'plain'
    padded = any(low or high for low, high in padding)
    if kh == kw == 1 and not padded:
        return 'pointwise'
    if max(dilation) > 1:
        return 'plain'
    if (kh, kw) == size and not padded:
        return 'whole'
    if channels == 1 and kh * kw <= 36:
        return 'taps'
    # In half precision the sums would lose digits; for large maps the tiles would need much memory.
    tiled = kh == kw == 3 and max(strides) == 1 and x.dtype.itemsize > 2 and min(size) >= 2 and size[0] * size[1] <= 1024
    if tiled and min(channels, features) >= 128:
        return 'winograd' if max(channels, features) >= 256 and min(size) >= 4 else 'winograd_images'
    return 'channels_last'


def _empty(size, kernel_size, strides, padding, dilation) -> bool:
    sides = zip(size, kernel_size, strides, padding, dilation, strict=True)
    return min((n + low + high - d * (k - 1) - 1) // s + 1 for n, k, s, (low, high), d in sides) < 1


def small_maps(size: Sequence[int]) -> str:
    """'cut' (a kernel loses the taps that only see padding) or 'plain'."""
    return 'cut' if _fast() and _known(size) else 'plain'


def max_pooling(dtype: jnp.dtype, window: Sequence[int], strides: Sequence[int]) -> str:
    """'plain' (`reduce_window`, whose gradient is slow on CPU) or 'slices' (a maximum of strided slices of floats)."""
    covering = len(window) == 2 and all(2 <= k <= 3 for k in window)
    floating = jnp.issubdtype(dtype, jnp.floating)
    return 'slices' if _fast() and floating and covering and tuple(strides) == (2, 2) else 'plain'


def queries_at_once(queries: int, keys: int) -> int:
    """How many queries of one head an attention takes at once, each block computed again for its gradient; 0 for all heads and
    queries.

    With 12 heads of 64 features a gradient at 2048 tokens takes 48 MiB instead of 588 and 0.45 of the time, at 1024 24 instead
    of 150 and 0.72; eight texts of 512 take 0.77, of 384 1.07 of the time (jaxlib 0.10.2, two cores).
    """
    if not _fast() or not _known((queries, keys)) or queries * keys < 512**2:
        return 0
    return next((block for block in (512, 256, 128) if queries % block == 0), queries)


def keeps_masks() -> bool:
    """Whether a mask that is drawn is kept for the gradient, a byte an element, where fusion would draw it again.

    A gradient of BERT-mini at 16 x 128 tokens takes 0.93 of the time and 0.81 of the memory (jaxlib 0.10.2, two cores).
    """
    return _fast()


def parts_augmentations() -> bool:
    """Whether each augmentation's images are computed before the next one begins: fusion would compute them again wherever the
    next one reads them, 13 times as slow for a colour jitter before a flip (jaxlib 0.10.2, two cores)."""
    return _fast()


def joins_rows() -> bool:
    """Whether a matrix is applied to the rows of `[B, T, C]` as to `[B T, C]`: for the sum over two axes that is the matrix's
    gradient, XLA transposes an array first."""
    return _fast()


def unrolls_draws() -> bool:
    """Whether random bits come from one loop over elements, where jax has one for each few rounds of its generator: the same
    bits in a quarter of the time, compiled faster (jaxlib 0.10.2, two cores)."""
    return _fast()


def normalization() -> str:
    """'plain', or 'sums' (gradients of mean, scale and shift from two sums; automatic differentiation makes more passes)."""
    return 'sums' if _fast() else 'plain'
