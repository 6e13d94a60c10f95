"""Dynamic loss scaling, for float16.

Idea: gradients too small for float16 become 0; so the loss is multiplied by a large number before the backward pass and its
gradient divided by it after. Where that overflows the step is skipped and the number halved; after `period` good steps it is
doubled.

Source: Micikevicius et al. 2018 (Mixed precision training, sections 3.2 and 3.3). Config: {'train.precision': 'float16'}.
The loss here is a sum over the batch, so it begins at 2^9, about what 2^15 is to the mean over 64 examples.

Claim: float16 trains to float32's accuracy where it would not without. Cost: a pass over the gradients. Clashes: none; how many
steps were skipped is in the report ('scale/skipped').
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from research.optim.clipping import Observed, found_in


class ScaleState(NamedTuple):
    """float32 [] the scale, int32 [] good steps since it was changed."""

    scale: jax.Array
    good: jax.Array


def dynamic(
    chain: optax.GradientTransformationExtraArgs, start: float = 2.0**9, period: int = 2000
) -> optax.GradientTransformationExtraArgs:
    """The chain under loss scaling: takes scaled gradients; a step that overflows leaves its state and the parameters alone."""

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
        # From a scale without end (gradients that are 0 for days) there would be no way back.
        grows = finite & (good + 1 >= period) & jnp.isfinite(scale * 2)
        scale = jnp.where(finite, jnp.where(grows, scale * 2, scale), jnp.maximum(scale / 2, 1))
        good = jnp.where(finite & ~grows, good + 1, 0)
        return moved, Observed((ScaleState(scale, good), new), {'scale/skipped': 1 - finite.astype(jnp.float32)})

    return optax.GradientTransformationExtraArgs(init, update)


def loss_scale(state: optax.OptState) -> Any:
    """What the loss is multiplied by: float32 [], or 1.0 where nothing scales it."""
    parts = found_in(state, lambda part: isinstance(part, ScaleState))
    return parts[0].scale if parts else 1.0
