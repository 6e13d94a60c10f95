"""Differentially private training: each example's gradient is clipped, and noise hides what any one of them adds.

Idea: if one example can move a step only so far, noise of about that size makes it hard to tell whether it was there. Over the
steps this adds up to an epsilon: no event is more than e^epsilon times as likely with one training example replaced by another,
except with a probability of delta.

Source: Abadi et al. 2016 (Deep learning with differential privacy, algorithm 1).

Config: {'gradient.name': 'dp_sgd', 'gradient.epsilon': 3.0, 'gradient.clip_norm': 1.0, 'data.sampling.name':
'without_replacement', 'model.norm.name': 'layer'}, or 'gradient.noise_multiplier' in the place of the epsilon. `gradient.delta`
is 0 for 1 / (10 n) with n training examples: at 1 / n, publishing an example drawn at random would count as private. It wants
pip install 'frugal-jax[privacy]'.

Cost: a gradient of each example is in memory at once (`gradient.micro_batch` bounds them), and takes longer than that of their
sum. Accuracy falls, the more the smaller epsilon is and the fewer the data. Claim: at a delta of 1e-5, 97 % on MNIST with
epsilon 8 and 95 % with 2, and 73 % on CIFAR-10 with 8 (section 5), counted more mildly than here
(research/gradients/accounting.py).

Effect: -7.58 points at epsilon 8, -16.14 at 3 and -46.22 at 1, in three times the time (1,293 digits, ten seeds,
configs/privacy.py).

The divisor is the batch size, which is public, also for tasks that divide by tokens. A gradient that is not finite adds
nothing. Clashes: batch normalization, which mixes the examples of a batch (take 'layer' or 'group'); mixup, which pairs them.
Large batches and a learning rate of their own suit it; tune the clip norm first.

Epsilon is of the weights of one run, for somebody who does not know its seed, among all training splits of n examples that
differ in one. Not covered: what a step tells (losses, the norm of the gradient, the share that was clipped), scores on training
examples, the validation split, and what was tuned on them; mean and standard deviation of the images, the vocabulary and the
counts of classes, which count as public; and the rounding of floating-point noise.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from research.catalogue import ConfigError


def create(
    clip_norm: float = 1.0, noise_multiplier: float = 1.0, epsilon: float = 0.0, delta: float = 0.0
) -> Callable[..., Any]:
    """The method (base, loss_fn, engine, keys) -> gradient.

    Args:
      clip_norm: C, what the norm of an example's gradient is cut to.
      noise_multiplier: z; the noise on the sum has a standard deviation of z * C.
      epsilon: what z is found for, before anything is traced (research.train.privacy); 0: z is as given.
      delta: the probability with which epsilon may fail; 0: 1 / (10 n).
    """
    if not clip_norm > 0:
        raise ConfigError(f'gradient.clip_norm is {clip_norm}, expected a norm above 0, such as 1.0.')
    if noise_multiplier and clip_norm == float('inf'):
        raise ConfigError('gradient.clip_norm is infinite, so no noise is large enough: expected a norm such as 1.0.')
    del epsilon, delta

    def method(base: Callable[..., Any], loss_fn: Any, engine: Any, keys: Any) -> Callable[..., Any]:
        del base

        def gradient(params: Any, collections: Any, batch: Any) -> tuple[Any, dict[str, Any]]:
            def step(total: Any, rows: Any) -> tuple[Any, Any]:
                clipped, seen = _clipped(loss_fn, clip_norm, params, collections, rows)
                return jax.tree.map(jnp.add, total, clipped), seen

            if batch['valid'].ndim == 1:
                total, seen = _clipped(loss_fn, clip_norm, params, collections, batch)
            else:
                total, seen = jax.lax.scan(step, jax.tree.map(jnp.zeros_like, params), batch)
            sums, losses, over = seen
            sums, over = jax.tree.map(jnp.sum, (sums, over))
            count = jnp.sum(batch['valid'])
            observed = {'clip/examples': engine.total(over) / engine.total(count)}
            aux = {'sums': sums, 'collections': collections, 'losses': losses, 'count': count, 'observed': observed}
            if noise_multiplier:
                aux['noise'] = _noise(keys('noise'), params, noise_multiplier * clip_norm)
            return total, aux

        return gradient

    return method


def _clipped(loss_fn: Any, clip_norm: float, params: Any, collections: Any, batch: Any) -> tuple[Any, Any]:
    """(the sum of the clipped gradients of each of the rows [B, ...], (sums {name: [B]}, losses [B], clipped or not [B]))."""

    def one(row: Any) -> tuple[Any, Any]:
        own, aux = jax.grad(loss_fn, has_aux=True)(params, collections, {name: value[None] for name, value in row.items()})
        norm = optax.tree.norm(own)
        known, factor = jnp.isfinite(norm), jnp.minimum(1, clip_norm / norm)
        clipped = jax.tree.map(lambda g: jnp.where(known, factor * g, 0), own)
        over = ((norm > clip_norm) | ~known) * row['valid']
        return clipped, (aux['sums'], aux['losses'][0], over)

    clipped, seen = jax.vmap(one)(batch)
    # Added up by elements: a matrix product may round to fewer digits than the bound is kept with.
    return jax.tree.map(lambda g: jnp.sum(g, 0), clipped), seen


def _noise(key: jax.Array, params: Any, deviation: float) -> Any:
    leaves, tree = jax.tree.flatten(params)
    drawn = jax.random.split(key, len(leaves))
    noise = [deviation * jax.random.normal(k, leaf.shape, leaf.dtype) for k, leaf in zip(drawn, leaves, strict=True)]
    return jax.tree.unflatten(tree, noise)
