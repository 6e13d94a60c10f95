"""Rematerialization: a block's activations are dropped, and recomputed for its gradient.

Idea: activations take most of a step's memory; computing them twice trades time for memory.

Source: Chen et al. 2016 (Training deep nets with sublinear memory cost). Config: {'train.remat': 'products'} or 'block'.

Cost and gain: 'products' keeps the outputs of convolutions and matrix products and recomputes norms, activations and dropout,
for little time; 'block' keeps only a block's input, for a third more FLOPs. Gradients are the same.

Claim: the memory of activations grows with the square root of the depth, for one more forward pass. Clashes:
`train.memory_budget` chooses it itself; networks without blocks refuse it. On CPU a program must be compiled with
`research.layers.formulation.compiler_options`; otherwise XLA merges the two computations, which undoes the saving.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
from jax.ad_checkpoint import checkpoint_name

from research.catalogue import ConfigError, nearest

# 'products' keeps the outputs under this name: inside a custom gradient jax sees no primitive to choose by.
PRODUCT = 'product'
POLICIES: dict[str, Callable[..., bool]] = {
    'products': jax.checkpoint_policies.save_only_these_names(PRODUCT),
    'block': jax.checkpoint_policies.nothing_saveable,
}


def block(module: Any, policy: str, static_argnums: tuple[int, ...] = (2,)) -> Any:
    """The module class (or function of a module) under a policy; 'none' is the class itself.

    Args:
      static_argnums: static arguments of `__call__`, counting self; by default `train`, which follows x.

    Raises:
      ConfigError: an unknown policy.
    """
    if policy == 'none':
        return module
    if policy not in POLICIES:
        raise ConfigError(f"Unknown remat '{policy}'.{nearest(policy, ['none', *POLICIES])}")
    return nn.remat(module, policy=POLICIES[policy], static_argnums=static_argnums, prevent_cse=True)


def product(x: jax.Array) -> jax.Array:
    """The identity; marks `x`, of any shape, as the output of a convolution or matrix product, which 'products' keeps."""
    return checkpoint_name(x, PRODUCT)
