"""Mixed precision: the network computes in fewer bits, parameters and their updates stay float32.

Idea: products and activations in bfloat16 or float16, a float32 copy of the weights that takes small updates, reductions
(losses, statistics of norm layers) in float32 (Micikevicius et al. 2018, Mixed precision training, section 3.1). bfloat16 has
float32's range; float16 wants the loss scaled, which `research.optim.scaling` does dynamically (section 3.2).

Config: {'train.precision': 'bfloat16'}, or 'float16'.

Claim: half the memory of activations, two to six times the speed on accelerators with 16-bit units, no loss of quality. On
CPU with this jax it gains nothing: float32 is the choice there.

Cost: a cast of the parameters a step. Clashes: with parity to the last bits. Gradients reach the optimizer in float32.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def casts(name: str) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    """(to the precision of the computation, back to float32), for trees of arrays; 'float32' leaves both alone."""
    if name == 'float32':
        return (lambda tree: tree), (lambda tree: tree)

    def to(dtype: Any) -> Callable[[Any], Any]:
        return lambda tree: jax.tree.map(lambda x: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree)

    return to(jnp.dtype(name)), to(jnp.float32)
