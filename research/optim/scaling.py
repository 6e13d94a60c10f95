"""Dynamic loss scaling, for float16.

Idea: gradients too small for float16 become 0. So the loss is multiplied by a large scale before the backward pass, and the
gradient divided by it after. A step that overflows is skipped and the scale halved; after `period` good steps it is doubled.

Source: Micikevicius et al. 2018 (Mixed precision training, sections 3.2 and 3.3). Config: {'train.precision': 'float16'}.
Here the loss is a sum over the batch, so the scale starts at 2^9, like 2^15 for the mean over 64 examples.

Claim: float16 reaches float32's accuracy where it otherwise would not. Cost: a pass over the gradients. Clashes: none; the
report says how many steps were skipped ('scale/skipped').
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from research.optim.clipping import Observed, found_in


class ScaleState(NamedTuple):
    """The scale, float32 [], and good steps since it last changed, int32 []."""

    scale: jax.Array
    good: jax.Array


def dynamic(
    chain: optax.GradientTransformationExtraArgs, start: float = 2.0**9, period: int = 2000
) -> optax.GradientTransformationExtraArgs:
    """The chain for scaled gradients; a step that overflows changes neither its state nor the parameters."""

    def init(params: Any) -> Observed:
        scale = ScaleState(jnp.float32(start), jnp.int32(0))
        return Observed((scale, chain.init(params)), {'scale/skipped': jnp.float32(0)})

    def update(updates: Any, state: Observed, params: Any = None, **extra: Any) -> tuple[Any, Observed]:
        (scale, good), inner = state.inner
        updates = jax.tree.map(lambda g: g / scale.astype(g.dtype), updates)
        finite = jnp.array([jnp.isfinite(g).all() for g in jax.tree.leaves(updates)]).all()
        moved, new = chain.update(jax.tree.map(lambda g: jnp.where(finite, g, 0), updates), inner, params, **extra)
        moved = jax.tree.map(lambda u: jnp.where(finite, u, 0), moved)
        new = jax.tree.map(lambda n, old: jnp.where(finite, n, old), new, inner)
        # An infinite scale (after many steps of zero gradients) could never recover.
        grows = finite & (good + 1 >= period) & jnp.isfinite(scale * 2)
        scale = jnp.where(finite, jnp.where(grows, scale * 2, scale), jnp.maximum(scale / 2, 1))
        good = jnp.where(finite & ~grows, good + 1, 0)
        return moved, Observed((ScaleState(scale, good), new), {'scale/skipped': 1 - finite.astype(jnp.float32)})

    return optax.GradientTransformationExtraArgs(init, update)


def loss_scale(state: optax.OptState) -> Any:
    """The loss scale, float32 []; 1.0 without loss scaling."""
    parts = found_in(state, lambda part: isinstance(part, ScaleState))
    return parts[0].scale if parts else 1.0
