"""Rematerialization: what a block computes is forgotten and computed again when its gradient is.

Idea: activations are most of a step's memory; computing them twice costs time and saves it.

Source: Chen et al. 2016 (Training deep nets with sublinear memory cost). Config: {'train.remat': 'products'} or 'block'.

Cost and gain: 'products' keeps the outputs of convolutions and matrix products and recomputes norms, activations and dropout,
for little time; 'block' keeps only what goes into a block, for a third more FLOPs. Gradients are the same.

Claim: memory of activations that grows with the root of the depth, for one more forward pass. Clashes: `train.memory_budget`
chooses it itself; networks without blocks refuse it. On CPU a program needs `research.layers.formulation.compiler_options`, or
common subexpressions are merged across the barrier between the two computations, which undoes all of it.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
from jax.ad_checkpoint import checkpoint_name

from research.catalogue import ConfigError, nearest

# Outputs of layers under this name are what 'products' keeps: behind a custom gradient jax sees no primitive to choose by.
PRODUCT = 'product'
POLICIES: dict[str, Callable[..., bool]] = {
    'products': jax.checkpoint_policies.save_only_these_names(PRODUCT),
    'block': jax.checkpoint_policies.nothing_saveable,
}


def block(module: Any, policy: str, static_argnums: tuple[int, ...] = (2,)) -> Any:
    """The module class (or function of a module) under a policy; 'none' is the class itself.

    Args:
      static_argnums: of `__call__`, counted with self; `train` stands behind x.
    """
    if policy == 'none':
        return module
    if policy not in POLICIES:
        raise ConfigError(f"Unknown remat '{policy}'.{nearest(policy, ['none', *POLICIES])}")
    return nn.remat(module, policy=POLICIES[policy], static_argnums=static_argnums, prevent_cse=True)


def product(x: jax.Array) -> jax.Array:
    """Marks the output of a convolution or a matrix product as one that 'products' keeps."""
    return checkpoint_name(x, PRODUCT)
