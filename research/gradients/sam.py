"""Sharpness-aware minimization: the gradient is taken where the loss nearby is worst.

Idea: step up the gradient to a distance of rho, and descend by the gradient there; this leads to flat minima, which generalize
better.

Source: Foret et al. 2021 (Sharpness-aware minimization for efficiently improving generalization, equations 2 and 3).

Config: {'gradient.name': 'sam', 'gradient.rho': 0.05}

Cost: two gradients per step, twice the time. Claim: 0.4 points (ResNet-50, 100 epochs) to 1.9 points (ResNet-152, 400 epochs)
on ImageNet, and more under label noise.

The step up follows the gradient of the whole batch, so devices and micro-batches do not change it (the paper's m-sharpness uses
each device's own). Running statistics come from the first pass. Clashes: selective backpropagation, because a run has one
method.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from research import catalogue


def create(rho: float = 0.05) -> Callable[..., Any]:
    """The method (base, loss_fn, engine, keys) -> gradient; `rho` is the length of the step up, 0 changes nothing."""
    if rho < 0:
        raise catalogue.ConfigError(f'gradient.rho is {rho}, expected a distance of 0 or more, such as 0.05.')

    def method(base: Callable[..., Any], loss_fn: Any, engine: Any, keys: Any) -> Callable[..., Any]:
        del loss_fn, keys

        def gradient(params: Any, collections: Any, batch: Any) -> tuple[Any, dict[str, Any]]:
            here, aux = base(params, collections, batch)
            here = engine.total(here)
            norm = optax.tree.norm(here)
            scale = rho / jnp.where(norm > 0, norm, 1)
            above = jax.tree.map(lambda p, g: (p + scale * g).astype(p.dtype), params, here)
            there, _ = base(above, collections, batch)
            return there, aux

        return gradient

    return method
