"""Selective backpropagation: only the examples with the largest losses are learnt from.

Idea: a forward pass over the batch tells which examples the network already does well on; the backward pass, which costs twice
as much, is spent on the others.

Source: Jiang et al. 2019 (Accelerating deep learning by focusing on the biggest losers); here, as in Composer, a fixed share of
each batch is kept, so that the program has one shape; the choice is by loss alone, without a draw.

Config: {'gradient.name': 'selective_backprop', 'gradient.keep': 0.5}

Cost: at keep = k a step takes (1 + 3 k) / 3 of a plain step's FLOPs: 0.83 at a half, and more than 1 above two thirds. Claim:
a target error up to 3.5 times sooner on CIFAR and SVHN (the paper); about 10 % less time at equal quality (Composer).

The choice is over the whole batch, whatever devices and micro-batches share it; of equal losses the earlier row is kept. Loss
and accuracy in training are those of the whole batch in the first pass; 'count', which the gradient is divided by, is that of
the chosen. Clashes: noisy labels, which have the largest losses; batch statistics are those of the chosen and of the few rows
more that make shares even; a noise scale is that of the chosen.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from research import catalogue


def create(keep: float = 0.5) -> Callable[..., Any]:
    """Args: keep: share of the batch's examples, rounded, one at least; 1 keeps all."""
    if not 0 < keep <= 1:
        raise catalogue.ConfigError(f'gradient.keep is {keep}, expected a share of the batch above 0 and up to 1.')

    def method(base: Callable[..., Any], loss_fn: Any, engine: Any) -> Callable[..., Any]:
        if keep == 1:
            return base

        def gradient(params: Any, collections: Any, batch: Any) -> tuple[Any, dict[str, Any]]:
            *micro, rows = batch['mask'].shape  # [B], or [n, B / n]
            axis = len(micro)
            sums, losses = _forward(loss_fn, params, collections, batch)
            whole = {k: engine.whole(v, axis) for k, v in {**batch, 'losses': losses}.items()}
            everyone = {k: v.reshape(-1, *v.shape[axis + 1 :]) for k, v in whole.items()}
            losses = everyone.pop('losses')
            # Padding comes last; a stable sort keeps the earlier of two equal losses.
            order = jnp.argsort(jnp.where(everyone['mask'] > 0, -losses, jnp.inf))
            most = max(1, round(keep * len(losses)))
            wanted = jnp.clip(jnp.round(keep * jnp.sum(everyone['mask'])), 1, most)
            everyone['mask'] *= jnp.argsort(order) < wanted
            # Rows beyond those wanted make the shares of micro-batches and devices even.
            shares = math.prod(micro) * (whole['mask'].shape[-1] // rows)
            kept = -(-most // shares) * shares
            chosen = jnp.sort(order[:kept])
            mine = {k: v[chosen].reshape(*micro, -1, *v.shape[1:]) for k, v in everyone.items()}
            found, aux = base(params, collections, {k: engine.rows(v, axis) for k, v in mine.items()})
            return found, {**aux, 'sums': sums}

        return gradient

    return method


def _forward(loss_fn: Any, params: Any, collections: Any, batch: Any) -> tuple[Any, jax.Array]:
    """Sums and losses over all rows, one micro-batch after the other."""

    def one(batch: Any) -> tuple[Any, jax.Array]:
        _, aux = loss_fn(jax.lax.stop_gradient(params), collections, batch)
        return aux['sums'], aux['losses']

    if batch['mask'].ndim == 1:
        return one(batch)
    sums, losses = jax.lax.map(one, batch)
    return jax.tree.map(lambda s: s.sum(0), sums), losses
