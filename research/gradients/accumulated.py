"""Gradient accumulation: the gradient of a batch as the sum of its micro-batches' gradients.

Idea: only one micro-batch's activations are in memory at a time, so a batch can be larger than memory allows. Sums are added
and divided once at the end, which gives the whole batch's gradient for any sizes, masks and token counts of the micro-batches.

Config: {'gradient.micro_batch': 16}, in examples; a smaller last micro-batch is padded with masked rows.

Source: a sum is linear. Claim: the whole batch's gradient at a micro-batch's memory. Cost: one more copy of the gradient; small
micro-batches use the device poorly. Clashes: batch normalization, as follows; `train.memory_budget` chooses it itself.

Batch normalization uses a micro-batch's statistics: it is ghost batch normalization (Hoffer et al. 2017) with the micro-batch
as its group, and its running average moves once per micro-batch. Virtual batch normalization computes the same as with the
whole batch, but repeats its reference pass for each micro-batch.

The noise scale (McCandlish et al. 2018, An empirical model of large-batch training, appendix A.1) compares the
micro-batches' gradients with their mean: {'gradient.noise_scale': True}. Batches well below it learn as much from
each example as small ones do.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def gradient(loss_fn: Callable[..., Any], engine: Any, noise_scale: bool) -> Callable[..., Any]:
    """(params, collections, batch of [n, B / n, ...]) -> (gradient of the sum, aux), as in research.gradients."""
    one = jax.grad(loss_fn, has_aux=True)

    def of(params: Any, collections: Any, batch: Any) -> tuple[Any, dict[str, Any]]:
        def step(carry: Any, micro_batch: Any) -> tuple[Any, Any]:
            total, collections = carry
            gradient, aux = one(params, collections, micro_batch)
            square = jnp.zeros([]), aux['sums']['count']
            if noise_scale:
                square = _square(engine.total(gradient)), engine.total(aux['sums']['count'])
            return (jax.tree.map(jnp.add, total, gradient), aux['collections']), (aux['sums'], aux['losses'], square)

        zeros = jax.tree.map(lambda p: jnp.zeros(p.shape, jnp.promote_types(p.dtype, jnp.float32)), params)
        (total, collections), (sums, losses, squares) = jax.lax.scan(step, (zeros, collections), batch)
        sums = jax.tree.map(lambda s: s.sum(0), sums)
        observed = _noise(engine.total(total), *squares) if noise_scale else {}
        aux = {'sums': sums, 'collections': collections, 'losses': losses, 'count': sums['count'], 'observed': observed}
        return total, aux

    return of


def _square(tree: Any) -> jax.Array:
    return sum(jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(tree))


def _noise(total: Any, squares: jax.Array, counts: jax.Array) -> dict[str, jax.Array]:
    """Unbiased estimates, float32 [], of the squared norm of the true gradient and the trace of an example's covariance.

    With E|g_b|^2 = signal + trace / b for the mean gradient of b examples, the micro-batches and the whole give two equations;
    if micro-batches differ in size, the first uses their mean 1 / b. Empty ones are ignored. If only one has examples, both
    are 0, which does not change the ratio of their means over steps.

    Args:
      total: gradient of the sum over the batch.
      squares: squared norm of each micro-batch's gradient of the sum, float32 [n].
      counts: examples of each, float32 [n].
    """
    there = counts > 0
    size = jnp.where(there, counts, 1)
    number = jnp.sum(there)
    small, whole = jnp.sum(jnp.where(there, squares / size**2, 0)) / number, _square(total) / jnp.sum(counts) ** 2
    inverse_small, inverse_whole = jnp.sum(jnp.where(there, 1 / size, 0)) / number, 1 / jnp.sum(counts)
    trace = (small - whole) / (inverse_small - inverse_whole)
    parts = {'noise/signal': whole - trace * inverse_whole, 'noise/trace': trace}
    return {name: jnp.where(number > 1, value, 0) for name, value in parts.items()}
