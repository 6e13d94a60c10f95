"""Gradient clipping before the optimizer, and how often it acts.

Idea: long gradients are shortened, so that one bad batch does not ruin the weights.

Config: {'optimizer.clip.name': 'global_norm', 'optimizer.clip.max_norm': 1.0}, and likewise for the others in `CLIPS`.

Sources: `global_norm` Pascanu et al. 2013 (On the difficulty of training recurrent neural networks, algorithm 1); `adaptive`
Brock et al. 2021 (High-performance large-scale image recognition without normalization, section 4.1, AGC).

Claim: larger stable learning rates; with AGC networks need no batch normalization. Cost: one pass over the gradients.

Clashes: optimizers that normalize their updates (Lion, LAMB, Muon) hardly notice it. Under loss scaling it acts on the unscaled
gradient. In the paper `adaptive` did better without the last linear layer: `exclude=('head/*',)`.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from research.optim.paths import matches, path_of, refuse_unmatched

CLIPS = {
    'adaptive': 'research.optim.clipping:adaptive',
    'global_norm': 'optax:clip_by_global_norm',
    'none': 'optax:identity',
    'parameter_norm': 'research.optim.clipping:parameter_norm',
    'value': 'research.optim.clipping:value',
}


def value(max_value: Any) -> optax.GradientTransformation:
    """Clips each entry to [-max_value, max_value]."""
    return optax.clip(max_value)


def parameter_norm(max_norm: Any) -> optax.GradientTransformation:
    """Shortens each parameter's gradient by itself to a norm of at most `max_norm`."""

    def shorten(g: jax.Array) -> jax.Array:
        return _shortened(g, jnp.linalg.norm(g.reshape(-1)), max_norm)

    return optax.stateless(lambda updates, params: jax.tree.map(shorten, updates))


def adaptive(clipping: Any = 0.01, eps: Any = 1e-3, exclude: Sequence[str] = ()) -> optax.GradientTransformation:
    """Shortens the gradient of each output unit to `clipping` times the norm of the unit's weights.

    The units of a kernel [..., D] are its D outputs; any other parameter is one unit. (optax goes by rank instead and would
    clip a table of positions entry by entry.)

    Args:
      clipping: lambda of the paper, 0.01 for large batches.
      eps: lower bound on the norm of the weights, so that weights that start at 0 can move.
      exclude: shell patterns over parameter paths ('head/*') that are not clipped.

    Raises:
      ConfigError: from `init`, a pattern that matches no parameter.
    """

    def init(params: Any) -> optax.EmptyState:
        refuse_unmatched('optimizer.clip.exclude', exclude, params)
        return optax.EmptyState()

    def shorten(path: tuple[Any, ...], g: jax.Array, w: jax.Array) -> jax.Array:
        if any(matches(path, pattern) for pattern in exclude):
            return g
        inputs = tuple(range(g.ndim - 1)) if path_of(path).endswith('kernel') else None

        def norm(x: jax.Array) -> jax.Array:
            return jnp.sqrt(jnp.sum(jnp.square(x), inputs, keepdims=True))

        return _shortened(g, norm(g), clipping * jnp.maximum(norm(w), eps))

    def update(updates: Any, state: optax.EmptyState, params: Any) -> tuple[Any, optax.EmptyState]:
        return jax.tree_util.tree_map_with_path(shorten, updates, params), state

    return optax.GradientTransformation(init, update)


def _shortened(g: jax.Array, norm: jax.Array, most: Any) -> jax.Array:
    """g itself, bit for bit, if its norm is at most `most`, else g scaled to this norm."""
    return jnp.where(norm > most, g * (most / jnp.where(norm > 0, norm, 1)), g).astype(g.dtype)


class Observed(NamedTuple):
    """A transformation's state, and observations of its last update: name with a slash -> float32 []."""

    inner: optax.OptState
    observed: dict[str, jax.Array]


def counted(clip: optax.GradientTransformation) -> optax.GradientTransformation:
    """The clip; observes 'clip/steps' (1 if it changed anything) and 'clip/entries' (the share changed), float32 []."""

    def init(params: Any) -> Observed:
        return Observed(clip.init(params), {name: jnp.zeros([], jnp.float32) for name in ('clip/steps', 'clip/entries')})

    def update(updates: Any, state: Observed, params: Any = None) -> tuple[Any, Observed]:
        clipped, inner = clip.update(updates, state.inner, params)
        pairs = zip(jax.tree.leaves(updates), jax.tree.leaves(clipped), strict=True)
        changed = sum(jnp.sum(before != after, dtype=jnp.float32) for before, after in pairs)
        share = changed / sum(leaf.size for leaf in jax.tree.leaves(updates))
        return clipped, Observed(inner, {'clip/steps': (changed > 0).astype(jnp.float32), 'clip/entries': share})

    return optax.GradientTransformation(init, update)


def observations(state: optax.OptState) -> dict[str, jax.Array]:
    """Observations of the last update anywhere in an optimizer state: name -> float32 []."""
    observed = {}
    for part in found_in(state, lambda part: isinstance(part, Observed)):
        observed |= {**part.observed, **observations(part.inner)}
    return observed


def found_in(state: optax.OptState, wanted: Callable[[Any], bool]) -> list[Any]:
    """The outermost parts of an optimizer state for which `wanted` is true."""
    return [part for part in jax.tree.leaves(state, is_leaf=wanted) if wanted(part)]
