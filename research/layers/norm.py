"""Normalization layers: `[B, ..., C]` to the same shape; each channel is normalized, then scaled and shifted.

The layers differ in the examples whose statistics they use. Statistics of parts are combined: the variance of the whole is the
mean variance within the parts plus the variance of their means. Sums are taken in float32 or wider, about a centre
near the mean (E[x^2] - E[x]^2 about zero loses all its digits where the mean is large).

Statistics are global: under `jit` over a mesh the compiler sees the whole batch, under `pmap` they go through `axis_name`.

Idea: statistics may come from fewer examples than the batch. Groups of the batch bring back the noise of small batches (ghost
batches). A reference batch, drawn once per run, and the example itself make an output independent of the rest of the batch
(virtual batches).

Config: {'model.norm.name': 'ghost_batch', 'model.norm.virtual_batch_size': 16}
        {'model.norm.name': 'virtual_batch'}, with 'data.reference_size'
        {'model.norm.name': 'group', 'model.norm.num_groups': 4}; also 'layer' and 'none'

Sources: Ioffe and Szegedy 2015; Hoffer et al. 2017 (Train longer, generalize better, algorithm 1); Salimans et al. 2016
(Improved techniques for training GANs, section 3.4).

Cost: almost nothing for ghost batches; for virtual batches a forward pass over the reference batch in every step, so expensive
that its authors use it only in the generator. Claim: ghost batches recover the generalization that large batches lose; virtual
batches keep a generator's outputs independent of each other.

Clashes: smaller groups have noisier statistics. No group spans two micro-batches (gradient.micro_batch), so batch normalization
in micro-batches is ghost batch normalization.
"""

import inspect
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from research import catalogue
from research.layers import formulation

NORMS = {
    'batch': 'research.layers.norm:BatchNorm',
    'ghost_batch': 'research.layers.norm:GhostBatchNorm',
    'group': 'flax.linen:GroupNorm',
    'layer': 'flax.linen:LayerNorm',
    'none': 'research.layers.norm:Shift',
    'virtual_batch': 'research.layers.norm:VirtualBatchNorm',
}
# Flax's, whose statistics are of one example: with an axis they would mix the examples of several devices.
_OF_ONE_EXAMPLE = (nn.GroupNorm, nn.InstanceNorm, nn.LayerNorm, nn.RMSNorm)


def create(norm: str | Mapping[str, Any], **given: Any) -> nn.Module:
    """The norm layer of a config.

    Args:
      norm: a name in `NORMS`, or an import path `module:attribute`, or a mapping `{'name': ..., **kwargs}`.
      **given: arguments that the network sets (`name`, `use_running_average`, `axis_name`), not passed to layers without
        them, such as `flax.linen:GroupNorm`. The result is called with `x` alone.

    Raises:
      ConfigError: an unknown name or argument, with the nearest valid one.
    """
    config = catalogue.named('norm layer', norm, NORMS)
    constructor = catalogue.resolve('norm layer', config['name'], NORMS)
    accepted = set(inspect.signature(constructor).parameters)
    if constructor in _OF_ONE_EXAMPLE:
        accepted.discard('axis_name')
    return catalogue.build('norm layer', config, NORMS, **{key: value for key, value in given.items() if key in accepted})


class _Norm(nn.Module):
    """What the norm layers share: parameters `scale` and `bias` `[C]`, and one signature.

    Attributes:
      epsilon: added to the variance.
      use_running_average: whether to normalize with the running average, here or in the call, as flax's BatchNorm.
      axis_name: the `pmap` axis over which the batch is split.
    """

    epsilon: float = 1e-5
    use_running_average: bool | None = None
    axis_name: str | None = None

    def normalize(self, x: jax.Array, mean: jax.Array, variance: jax.Array) -> jax.Array:
        """(x - mean) / sqrt(variance + epsilon) * scale + bias: `x` `[B, ..., C]`, statistics `[C]`, or `[B, C]` by example."""
        scale = self.param('scale', nn.initializers.ones, x.shape[-1:])
        bias = self.param('bias', nn.initializers.zeros, x.shape[-1:])
        factor = jax.lax.rsqrt(variance + self.epsilon) * _aligned(scale, variance.ndim)
        apply = _affine if formulation.normalization() == 'plain' else _affine_with_gradient
        return apply(x, mean, factor, bias).astype(jnp.result_type(x, scale))

    def split_axis(self) -> str | None:
        """The axis over which the batch is split; None in `init`, which runs outside of `pmap` on a whole batch."""
        return None if self.is_initializing() else self.axis_name


class BatchNorm(_Norm):
    """Batch normalization (Ioffe & Szegedy 2015): the batch's statistics in training, their running average elsewhere.

    Collection `batch_stats`: `mean` and `var` `[C]`, the variance divided by the number of values (as flax and the paper's
    training pass; PyTorch's running variance divides by one less). In a reference pass, when the collection
    `reference` is mutable, the batch is normalized by its own statistics, and these are stored without averaging, whatever
    `use_running_average` says.

    Attributes:
      momentum: share of the running average that a training step keeps.
    """

    momentum: float = 0.9

    @nn.compact
    def __call__(self, x: jax.Array, use_running_average: bool | None = None) -> jax.Array:
        average = nn.merge_param('use_running_average', self.use_running_average, use_running_average)
        reference = self.is_mutable_collection('reference') and not self.is_initializing()
        running_mean = self.variable('batch_stats', 'mean', jnp.zeros, x.shape[-1:])
        running_variance = self.variable('batch_stats', 'var', jnp.ones, x.shape[-1:])
        if average and not reference:
            return self.normalize(x, running_mean.value, running_variance.value)
        statistics, observed = self.batch_statistics(x)
        if not self.is_initializing():
            for running, new in zip((running_mean, running_variance), observed, strict=True):
                mixed = new if reference else self.momentum * running.value + (1 - self.momentum) * new
                running.value = mixed.astype(running.value.dtype)
        return self.normalize(x, *statistics)

    def batch_statistics(self, x: jax.Array) -> tuple[tuple[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]:
        """Mean and variance to normalize with, and those to average: here the same, `[C]`."""
        mean, variance = _batch_moments(x)
        if axis := self.split_axis():
            own, mean = mean, jax.lax.pmean(mean, axis)
            variance = jax.lax.pmean(variance + jnp.square(own - mean), axis)
        return (mean, variance), (mean, variance)


class GhostBatchNorm(BatchNorm, kw_only=True):
    """Ghost batch normalization (Hoffer et al. 2017, algorithm 1): each group of the batch has its own statistics in training.

    Groups are `virtual_batch_size` contiguous rows of the global batch, over however many devices it is split; the
    remaining rows form a smaller group. With a size of at least the batch this is BatchNorm. The running average uses the
    groups' means and variances, weighted by their sizes (the paper adds one group after the other, so its last one weighs
    most). It normalizes batches of any size outside of training.

    Attributes:
      virtual_batch_size: rows of a group.
    """

    virtual_batch_size: int

    def __post_init__(self):
        if self.virtual_batch_size < 1:
            raise catalogue.ConfigError(f'virtual_batch_size is {self.virtual_batch_size}, expected 1 or more examples.')
        super().__post_init__()

    def batch_statistics(self, x: jax.Array) -> tuple[tuple[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]:
        """Mean and variance `[B, C]` of each row's group to normalize with, and their mean over rows `[C]` to average."""
        axis = self.split_axis()
        mean, variance = _example_moments(x, _mean(x))
        if axis:
            mean, variance = (jax.lax.all_gather(a, axis, tiled=True) for a in (mean, variance))
        rows = mean.shape[0]
        size = min(self.virtual_batch_size, rows)
        groups = -(-rows // size)
        member = (np.arange(groups * size) < rows).reshape(groups, size, 1)
        weight = (member / member.sum(1, keepdims=True)).astype(mean.dtype)

        def grouped(a: jax.Array) -> jax.Array:
            return jnp.pad(a, ((0, groups * size - rows), (0, 0))).reshape(groups, size, -1)

        def every_row(a: jax.Array) -> jax.Array:
            return jnp.broadcast_to(a, (groups, size, a.shape[-1])).reshape(groups * size, -1)[:rows]

        group_mean = (weight * grouped(mean)).sum(1, keepdims=True)
        group_variance = (weight * (grouped(variance) + jnp.square(grouped(mean) - group_mean))).sum(1, keepdims=True)
        statistics = every_row(group_mean), every_row(group_variance)
        observed = statistics[0].mean(0), statistics[1].mean(0)
        if axis:
            first = jax.lax.axis_index(axis) * x.shape[0]
            statistics = tuple(jax.lax.dynamic_slice_in_dim(a, first, x.shape[0]) for a in statistics)
        return statistics, observed


class VirtualBatchNorm(_Norm):
    """Virtual batch normalization (Salimans et al. 2016, section 3.4): statistics of a fixed reference batch and the example.

    While the collection `reference` is mutable (as in `init`), the input is the reference batch of n examples: it is
    normalized by its own statistics, and `mean` and `var` `[C]` and `count` (n, float32 []) are stored. Otherwise each example
    is normalized by the n + 1 examples of the reference and itself, in training and in evaluation. So its output depends on
    no other example, and a batch of 1 works. The gradient is complete only if the reference pass is inside the
    differentiated function.

    `use_running_average` changes nothing. Nor does `axis_name`: under `pmap` the reference batch is replicated, and each
    device finds its statistics alone.

    Attributes:
      example_weight: the example's share of its statistics; None is 1 / (n + 1). At 0 the reference batch
        itself is normalized as by BatchNorm.
    """

    example_weight: float | None = None

    @nn.compact
    def __call__(self, x: jax.Array, use_running_average: bool | None = None) -> jax.Array:
        del use_running_average
        reference_mean = self.variable('reference', 'mean', jnp.zeros, x.shape[-1:])
        reference_variance = self.variable('reference', 'var', jnp.ones, x.shape[-1:])
        count = self.variable('reference', 'count', jnp.zeros, ())
        if self.is_mutable_collection('reference'):
            mean, variance = _batch_moments(x)
            reference_mean.value, reference_variance.value = mean, variance
            count.value = jnp.asarray(x.shape[0], count.value.dtype)
            return self.normalize(x, mean, variance)
        own_mean, own_variance = _example_moments(x, reference_mean.value)
        weight = 1 / (count.value + 1) if self.example_weight is None else self.example_weight
        offset = own_mean - _aligned(reference_mean.value, 2)
        between = weight * (1 - weight) * jnp.square(offset)
        mean = _aligned(reference_mean.value, 2) + weight * offset
        variance = (1 - weight) * _aligned(reference_variance.value, 2) + weight * own_variance + between
        return self.normalize(x, mean, variance)


class Shift(nn.Module):
    """No normalization, only the bias `[C]`, which convolutions before a norm layer do not have."""

    @nn.compact
    def __call__(self, x: jax.Array, use_running_average: bool | None = None) -> jax.Array:
        del use_running_average
        return x + _aligned(self.param('bias', nn.initializers.zeros, x.shape[-1:]), x.ndim)


def _affine(x: jax.Array, mean: jax.Array, factor: jax.Array, bias: jax.Array) -> jax.Array:
    """(x - mean) * factor + bias, for mean and factor `[C]` or `[B, C]`, and bias `[C]`."""
    return (x - _aligned(mean, x.ndim)) * _aligned(factor, x.ndim) + _aligned(bias, x.ndim)


_affine_with_gradient = jax.custom_vjp(_affine)


def _affine_forward(
    x: jax.Array, mean: jax.Array, factor: jax.Array, bias: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    return _affine(x, mean, factor, bias), (x, mean, factor, bias)


def _affine_backward(residuals: tuple[jax.Array, ...], dy: jax.Array) -> tuple[jax.Array, ...]:
    """All three small gradients from two sums over dy; automatic differentiation makes three or more passes."""
    x, mean, factor, bias = residuals
    axes = tuple(range(mean.ndim - 1, x.ndim - 1))
    total = jnp.sum(dy, axes, dtype=mean.dtype)
    against_x = jnp.sum(dy * (x - _aligned(mean, x.ndim)), axes, dtype=factor.dtype)
    to_bias = total if total.ndim == 1 else total.sum(0)
    return (dy * _aligned(factor, x.ndim)).astype(x.dtype), -factor * total, against_x, to_bias.astype(bias.dtype)


_affine_with_gradient.defvjp(_affine_forward, _affine_backward)


def _aligned(a: jax.Array, ndim: int) -> jax.Array:
    """`[C]` or `[B, C]` with axes of length 1 put before C up to `ndim` dimensions."""
    return a.reshape(*a.shape[:-1], *(1,) * (ndim - a.ndim), a.shape[-1])


def _mean(x: jax.Array) -> jax.Array:
    """`[C]`, float32 or wider."""
    return jnp.mean(x, tuple(range(x.ndim - 1)), dtype=jnp.promote_types(x.dtype, jnp.float32))


def _batch_moments(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean and variance `[C]` of the batch."""
    return _moments(x, _mean(x), first_axis=0)


def _example_moments(x: jax.Array, centre: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean and variance `[B, C]` of each example over its positions."""
    return _moments(x, centre, first_axis=1)


def _moments(x: jax.Array, centre: jax.Array, first_axis: int) -> tuple[jax.Array, jax.Array]:
    """Mean and variance over the axes from `first_axis` to C, from the sums of x - centre and of its square.

    This is the corrected two-pass algorithm of Chan, Golub & LeVeque 1983. But for rounding the result does not depend on
    `centre` `[C]`, so no gradient goes through it: that would cost another pass over x.
    """
    axes = tuple(range(first_axis, x.ndim - 1))
    centre = jax.lax.stop_gradient(centre)
    distance = x - _aligned(centre, x.ndim)
    mean = jnp.mean(distance, axes)
    variance = jnp.maximum(jnp.mean(jnp.square(distance), axes) - jnp.square(mean), 0)
    return _aligned(centre, mean.ndim) + mean, variance
