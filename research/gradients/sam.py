"""Sharpness-aware minimization: the gradient is taken where the loss nearby is worst.

Idea: step up the gradient to a distance of rho, and go down by the gradient found there; what is found this way are flat
minima, which generalize better.

Source: Foret et al. 2021 (Sharpness-aware minimization for efficiently improving generalization, equations 2 and 3).

Config: {'gradient.name': 'sam', 'gradient.rho': 0.05}

Cost: two gradients a step, twice the time. Claim: 0.4 points (ResNet-50, 100 epochs) to 1.9 points (ResNet-152, 400 epochs)
on ImageNet, and more under label noise.

The way up follows the gradient of the whole batch over all devices and micro-batches, so none of these change it (the paper's
m-sharpness takes each device's own). Running statistics are those of the first pass. Clashes: none known; with selective
backpropagation choose one.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from research import catalogue


def create(rho: float = 0.05) -> Callable[..., Any]:
    """Args: rho: the distance of the step up; 0 changes nothing."""
    if rho < 0:
        raise catalogue.ConfigError(f'gradient.rho is {rho}, expected a distance of 0 or more, such as 0.05.')

    def method(base: Callable[..., Any], loss_fn: Any, engine: Any) -> Callable[..., Any]:
        del loss_fn

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
