"""Convolution of images. [B, H, W, C] input, [kh, kw, C / groups, D] kernel, [B, H', W', D] output."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype
from jax import lax

from research import catalogue
from research.catalogue import ConfigError
from research.layers import formulation, initializers, remat, winograd
from research.layers.depthwise import depthwise, sum_dtype
from research.layers.strided import Pair, input_gradient

Padding = str | int | Sequence[int | Pair]

_LAYOUT = ('NHWC', 'HWIO', 'NHWC')

CONVS = {
    'plain': 'research.layers.conv:Conv',
    'standardized': 'research.layers.weight_standardization:StandardizedConv',
}

# Arguments that the network sets, not the config.
GIVEN = (
    *('features', 'kernel_size', 'strides', 'padding', 'groups', 'dilation'),
    *('use_bias', 'kernel_init', 'bias_init', 'dtype', 'param_dtype'),
)


def conv(
    x: jax.Array,
    kernel: jax.Array,
    strides: int | Pair = 1,
    padding: Padding = 'SAME',
    groups: int = 1,
    dilation: int | Pair = 1,
) -> jax.Array:
    """Convolves images with a kernel, as `lax.conv_general_dilated` does, in the formulation that is fastest on the backend.

    Args:
      x: [B, H, W, C], floating.
      kernel: [kh, kw, C / groups, D], the dtype of `x`.
      strides: one number, or one per spatial dimension.
      padding: 'SAME', 'VALID', one number for all four sides, or one number or (low, high) per spatial dimension.
      groups: number of groups of channels, each with its own kernel.
      dilation: pixels from one tap of the kernel to the next; one number, or one per spatial dimension.

    Returns:
      [B, H', W', D], the dtype of `x`.

    Raises:
      ConfigError: shapes, strides or padding that do not fit.
    """
    strides, dilation = ((n, n) if isinstance(n, int) else tuple(n) for n in (strides, dilation))
    _check(x, kernel, strides, groups, dilation)
    extent = tuple(d * (k - 1) + 1 for k, d in zip(kernel.shape[:2], dilation, strict=True))
    padding = _pairs(padding, x.shape[1:3], extent, strides)
    if formulation.small_maps(x.shape[1:3]) == 'cut':
        kernel, padding = cut(x, kernel, strides, padding, dilation)
    match formulation.convolution(x, kernel, strides, padding, groups, dilation):
        case 'pointwise':
            return _pointwise(x[:, :: strides[0], :: strides[1]], kernel[0, 0])
        case 'whole':
            return _pointwise(x.reshape(x.shape[0], 1, 1, -1), kernel.reshape(-1, kernel.shape[3]))
        case 'depthwise':
            return depthwise(x, kernel, strides, padding, dilation)
        case 'taps':
            return _by_taps(x, kernel, strides, padding)
        case 'winograd' | 'winograd_images' as name:
            return _winograd(x, kernel, padding, name == 'winograd')
        case 'channels_last':
            return _channels_last(x, kernel, strides, padding)
        case _:
            return lax.conv_general_dilated(
                x, kernel, strides, padding, rhs_dilation=dilation, dimension_numbers=_LAYOUT, feature_group_count=groups
            )


class Conv(nn.Module):
    """Convolution, [B, H, W, C] to [B, H', W', D], with flax's parameters `kernel` [kh, kw, C / groups, D] and `bias` [D].

    Attributes:
      features: D, output channels.
      kernel_size: (kh, kw), or one number for both.
      strides, padding, groups, dilation: as in `conv`.
      use_bias: whether to add a bias.
      kernel_init, bias_init: initializers, `(key, shape, dtype) -> array`.
      dtype: of the computation; None promotes the input's and the parameters'.
      param_dtype: of the parameters.
    """

    features: int
    kernel_size: int | Pair
    strides: int | Pair = 1
    padding: Padding = 'SAME'
    groups: int = 1
    dilation: int | Pair = 1
    use_bias: bool = True
    kernel_init: nn.initializers.Initializer = initializers.lecun_normal()
    bias_init: nn.initializers.Initializer = nn.initializers.zeros_init()
    dtype: jnp.dtype | None = None
    param_dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        size = (self.kernel_size,) * 2 if isinstance(self.kernel_size, int) else tuple(self.kernel_size)
        shape = (*size, x.shape[-1] // self.groups, self.features)
        kernel = self.seen(self.param('kernel', self.kernel_init, shape, self.param_dtype))
        bias = self.param('bias', self.bias_init, (self.features,), self.param_dtype) if self.use_bias else None
        x, kernel, bias = promote_dtype(x, kernel, bias, dtype=self.dtype)
        y = remat.product(conv(x, kernel, self.strides, self.padding, self.groups, self.dilation))
        return y if bias is None else y + bias.reshape(1, 1, 1, -1)

    @nn.nowrap
    def seen(self, kernel: jax.Array) -> jax.Array:
        """The kernel that images are convolved with: the parameter itself."""
        return kernel


def create(conv: str | Mapping[str, Any], **given: Any) -> nn.Module:
    """The convolution layer of a config.

    Args:
      conv: a name in `CONVS`, or an import path `module:attribute`, or a mapping `{'name': ..., **kwargs}`.
      **given: arguments of `Conv` that the network sets.

    Raises:
      ConfigError: an unknown name or argument, with the nearest valid one.
    """
    return catalogue.build('convolution', catalogue.named('convolution', conv, CONVS), CONVS, **given)


def _check(x, kernel, strides, groups, dilation):
    if x.ndim != 4 or kernel.ndim != 4:
        raise ConfigError(f'conv takes x [B, H, W, C] and a kernel [kh, kw, C / groups, D], got {x.shape} and {kernel.shape}.')
    for name, pair in (('strides', strides), ('dilation', dilation)):
        if len(pair) != 2 or min(pair) < 1:
            raise ConfigError(f'conv {name} {pair}: expected one or two positive integers.')
    channels, features = x.shape[3], kernel.shape[3]
    if channels % groups or features % groups or channels // groups != kernel.shape[2]:
        raise ConfigError(
            f'conv with {groups} groups needs channels and features divisible by {groups}, and a kernel '
            f'[kh, kw, {channels} / {groups}, D]: got {channels} channels and a kernel {kernel.shape}.'
        )


def _pairs(padding, size, kernel_size, strides) -> tuple[Pair, Pair]:
    if isinstance(padding, str):
        if padding not in ('SAME', 'VALID'):
            raise ConfigError(f"Padding '{padding}': expected 'SAME', 'VALID', an integer or (low, high) pairs.")
        return tuple(lax.padtype_to_pads(size, kernel_size, strides, padding))
    sides = (padding, padding) if isinstance(padding, int) else tuple(padding)
    if len(sides) != 2:
        raise ConfigError(f'Padding {padding}: expected one entry per spatial dimension, (rows, columns).')
    return tuple((side, side) if isinstance(side, int) else tuple(side) for side in sides)


def cut(
    x: jax.Array, kernel: jax.Array, strides: Pair, padding: tuple[Pair, Pair], dilation: Pair
) -> tuple[jax.Array, tuple[Pair, Pair]]:
    """Kernel and padding without the outer taps that only see padding: eight of nine on a map of one pixel. As in `conv`."""
    kept, pads = [], []
    for (low, high), k, s, d, n in zip(padding, kernel.shape[:2], strides, dilation, x.shape[1:3], strict=True):
        outputs = max(0, (n + low + high - d * (k - 1) - 1) // s + 1)
        met = [i for i in range(k) if any(0 <= s * o + d * i - low < n for o in range(outputs))] or [0, k - 1]
        first, behind = met[0], k - 1 - met[-1]
        kept.append(slice(first, k - behind))
        pads.append((low - d * first, high - d * behind))
    return kernel[tuple(kept)], tuple(pads)


@jax.custom_vjp
def _pointwise(x, kernel):
    return x @ kernel


def _pointwise_forward(x, kernel):
    return x @ kernel, (x, kernel)


def _pointwise_backward(residuals, dy):
    x, kernel = residuals
    x, dy = lax.optimization_barrier((x, dy))
    return dy @ kernel.T, _over_rows(x, dy)


_pointwise.defvjp(_pointwise_forward, _pointwise_backward)


def _over_rows(x, dy):
    """sum over b, h, w of x[b, h, w, c] dy[b, h, w, d], over one joint axis: over three, XLA transposes both arrays first."""
    rows = (((0,), (0,)), ((), ()))
    return lax.dot_general(x.reshape(-1, x.shape[-1]), dy.reshape(-1, dy.shape[-1]), rows)


# Automatic differentiation makes the gradients of a convolution convolutions in another dimension order, for which XLA's
# CPU backend has no fast code inside a loop (jax issue 12868, xla issue 34273). So both gradients are written out here.


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _channels_last(x, kernel, strides, padding):
    return _convolve(x, kernel, strides, padding)


def _channels_last_forward(x, kernel, strides, padding):
    return _convolve(x, kernel, strides, padding), (x, kernel)


def _channels_last_backward(strides, padding, residuals, dy):
    x, kernel = residuals
    x, dy = lax.optimization_barrier((x, dy))
    return _input_gradient(x, kernel, strides, padding, dy), _kernel_gradient(x, kernel, strides, padding, dy)


_channels_last.defvjp(_channels_last_forward, _channels_last_backward)


def _kernel_gradient(x, kernel, strides, padding, dy):
    """dk[i, c, d] = sum over b, o of x[b, s o + i - low, c] dy[b, o, d]: channels are the batch, the batch is contracted."""
    sides = zip(padding, kernel.shape[:2], strides, dy.shape[1:3], x.shape[1:3], strict=True)
    pads = [(low, k - 1 + s * (o - 1) + 1 - n - low) for (low, _), k, s, o, n in sides]
    dk = _convolve(x.transpose(3, 1, 2, 0), dy.transpose(1, 2, 0, 3), (1, 1), pads, dilation=strides)
    return dk.transpose(1, 2, 0, 3)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _winograd(x, kernel, padding, all_gradients):
    del all_gradients
    return winograd.convolve(x, kernel, padding)


def _winograd_forward(x, kernel, padding, all_gradients):
    return _winograd(x, kernel, padding, all_gradients), (x, kernel)


def _winograd_backward(padding, all_gradients, residuals, dy):
    x, kernel = residuals
    x, dy = lax.optimization_barrier((x, dy))
    dk = winograd.kernel_gradient(x, padding, dy) if all_gradients else _kernel_gradient(x, kernel, (1, 1), padding, dy)
    return winograd.image_gradient(x, kernel, padding, dy), dk


_winograd.defvjp(_winograd_forward, _winograd_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _by_taps(x, kernel, strides, padding):
    """For one input channel: a loop over the output; a convolution would gather patches first."""
    of_sums = sum_dtype(x.dtype)
    taps = _taps(x, kernel, strides, padding)
    weights = kernel.reshape(len(taps), 1, 1, 1, -1).astype(of_sums)
    products = [tap.astype(of_sums) * weight for tap, weight in zip(taps, weights, strict=True)]
    return functools.reduce(jnp.add, products).astype(x.dtype)


def _by_taps_forward(x, kernel, strides, padding):
    return _by_taps(x, kernel, strides, padding), (x, kernel)


def _by_taps_backward(strides, padding, residuals, dy):
    x, kernel = residuals
    x, dy = lax.optimization_barrier((x, dy))
    patches = jnp.concatenate(_taps(x, kernel, strides, padding), axis=3)
    return _input_gradient(x, kernel, strides, padding, dy), _over_rows(patches, dy).reshape(kernel.shape)


_by_taps.defvjp(_by_taps_forward, _by_taps_backward)


def _taps(x, kernel, strides, padding):
    """The pixels under each entry of the kernel: kh * kw arrays [B, H', W', 1]."""
    x = lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *((low, high, 0) for low, high in padding), (0, 0, 0)])
    (kh, kw), (sh, sw) = kernel.shape[:2], strides
    rows, columns = (x.shape[1] - kh) // sh + 1, (x.shape[2] - kw) // sw + 1
    return [x[:, i : i + sh * (rows - 1) + 1 : sh, j : j + sw * (columns - 1) + 1 : sw] for i in range(kh) for j in range(kw)]


def _input_gradient(x, kernel, strides, padding, dy):
    def correlate(dy, part, pads):
        return _convolve(dy, part, (1, 1), pads)

    return input_gradient(dy, kernel.swapaxes(2, 3), x.shape, strides, padding, correlate)


def _convolve(x, kernel, strides, padding, dilation=(1, 1)):
    """A convolution that crops negative padding first: XLA's fast code does not support it."""
    crop = [(0, 0, 0), *((min(low, 0), min(high, 0), 0) for low, high in padding), (0, 0, 0)]
    if any(low or high for low, high, _ in crop):
        x = lax.pad(x, jnp.zeros((), x.dtype), crop)
    pads = [(max(low, 0), max(high, 0)) for low, high in padding]
    return lax.conv_general_dilated(x, kernel, strides, pads, rhs_dilation=dilation, dimension_numbers=_LAYOUT)
