"""Which formulation a layer takes on which backend: the one place where this is decided.

Every layer here has a plain formulation, what `lax` or flax offers, and some have a second one that computes the same
numbers (1e-5) from the same parameters faster on CPU. GPU and TPU always take the plain one. The figures behind each
choice are in benchmarks/convolutions.md and step_rate.md; without one, a layer stays plain.
"""

import contextlib
from collections.abc import Iterator, Sequence

import jax

_plain = jax.make_user_context(default_value=False)  # part of jit's cache key: a function is traced anew under it


@contextlib.contextmanager
def plain() -> Iterator[None]:
    """Inside, every layer takes its plain formulation.

    For whatever must see or pass through the mathematics rather than its fast form: counting FLOPs on a jaxpr, forward
    mode (`jax.jvp`, `jax.linearize`) and second derivatives, none of which pass a `custom_vjp`.
    """
    with _plain(True):
        yield


def compiler_options(platform: str) -> dict[str, str]:
    """What training programs are compiled with.

    On CPU `lax.optimization_barrier` is by itself taken away before fusion, which then computes activations anew, and slowly,
    inside of whatever transposes them for a kernel's gradient: 260 of the 830 ms of a step of ResNet-18 (jaxlib 0.10.2;
    benchmarks/convolutions.md). This keeps barriers until after.
    """
    return {'xla_disable_hlo_passes': 'cse_barrier_expander'} if platform == 'cpu' else {}


def _fast() -> bool:
    return not _plain.value and jax.default_backend() == 'cpu'


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
      x, kernel, strides, padding, groups, dilation: as in `research.layers.conv.conv`; of the arrays shape and dtype count.

    Returns:
      'plain': `lax.conv_general_dilated` and the gradients that automatic differentiation makes of it.
      'pointwise': a matmul, for kernels of one tap.
      'whole': a matmul over the map, where a kernel takes all of it.
      'depthwise': elementwise loops, where each channel has its own kernel (research.layers.depthwise).
      'taps': a sum over shifted images, for one channel and few taps.
      'winograd': fewer products for 3x3 kernels (research.layers.winograd), or 'winograd_images': but the kernel's gradient.
      'channels_last': both gradients, too, are convolutions in channels-last order.
    """
    (kh, kw, channels, features), size = kernel.shape, x.shape[1:3]
    if not _fast():
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
    # Half precisions would lose digits to the sums, large maps would need much memory for the tiles.
    tiled = kh == kw == 3 and max(strides) == 1 and x.dtype.itemsize > 2 and min(size) >= 2 and size[0] * size[1] <= 1024
    if tiled and min(channels, features) >= 128:
        return 'winograd' if max(channels, features) >= 256 and min(size) >= 4 else 'winograd_images'
    return 'channels_last'


def small_maps() -> str:
    """'cut' (without the taps of a kernel that meet nothing but padding) or 'plain'."""
    return 'cut' if _fast() else 'plain'


def max_pooling(window: Sequence[int], strides: Sequence[int]) -> str:
    """'plain' (`reduce_window`, whose gradient is slow on CPU) or 'slices' (a maximum of strided slices)."""
    covering = len(window) == 2 and all(2 <= k <= 3 for k in window)
    return 'slices' if _fast() and covering and tuple(strides) == (2, 2) else 'plain'


def normalization() -> str:
    """'plain', or 'sums' (the gradients of mean, scale and shift from two sums, where differentiation makes more passes)."""
    return 'sums' if _fast() else 'plain'
