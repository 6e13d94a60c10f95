"""Which parameters decay, at what rate each learns, and which Muon orthogonalizes, by parameter path.

Idea: pairs (shell pattern over the '/'-joined path, factor); the last one that matches a parameter counts. A rate factor
multiplies the whole update of a parameter, including decay, like PyTorch's parameter groups; a decay factor replaces the
default, which is 1 for kernels and 0 for biases, norms and embeddings.

Config: {'optimizer.rate_multipliers': (('head/*', 0.1),)} and {'optimizer.decay_multipliers': (('*', 1), ('head/*', 0))}.

Sources: decoupled decay Loshchilov and Hutter 2019, algorithm 2; kernels alone He et al. 2019 (Bag of tricks, section 3.1).
Claim: fine-tuning with slower early layers; no decay where it only shifts scales. Cost: none, factors are constants of the
program. Clashes: optimizers with their own rule for decay (lamb, lars, ...) only take the decay factors 0 and 1.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import optax
import optax.contrib

from research.optim.paths import matches, path_of, refuse_unmatched

Pairs = Sequence[tuple[str, float]]


def factors(field: str, pairs: Pairs, params: Any, default: Any) -> Any:
    """Tree of floats like `params`: the factor of the last pattern that matches a path, or else that in the tree `default`.

    Raises:
      ConfigError: a pattern that matches nothing.
    """
    refuse_unmatched(f'optimizer.{field}', (pattern for pattern, _ in pairs), params)

    def factor(path: tuple[Any, ...], usual: float) -> float:
        return next((f for pattern, f in reversed(pairs) if matches(path, pattern)), usual)

    return jax.tree_util.tree_map_with_path(factor, default)


def kernels(params: Any) -> Any:
    """Tree of bools, True at leaves called `kernel`, which decay; biases, norms and embeddings do not."""
    return jax.tree_util.tree_map_with_path(lambda path, _: bool(path) and getattr(path[-1], 'key', None) == 'kernel', params)


def decayed(pairs: Pairs) -> Callable[[Any], Any]:
    """The mask for an optimizer with its own decay: params -> tree of bools."""

    def mask(params: Any) -> Any:
        return jax.tree.map(bool, factors('decay_multipliers', pairs, params, kernels(params)))

    return mask


def decay(pairs: Pairs, learning_rate: Any, weight_decay: Any) -> optax.GradientTransformation:
    """Subtracts learning_rate * weight_decay * factor * parameter from each update."""
    if not pairs:
        return optax.add_decayed_weights(-learning_rate * weight_decay, mask=kernels)

    def init(params: Any) -> optax.EmptyState:
        factors('decay_multipliers', pairs, params, kernels(params))
        return optax.EmptyState()

    def update(updates: Any, state: optax.EmptyState, params: Any) -> tuple[Any, optax.EmptyState]:
        of_each = factors('decay_multipliers', pairs, params, kernels(params))

        def with_decay(u: jax.Array, p: jax.Array, f: float) -> jax.Array:
            return u - learning_rate * weight_decay * f * p if f else u

        return jax.tree.map(with_decay, updates, params, of_each), state

    return optax.GradientTransformation(init, update)


def rates(pairs: Pairs, layers: Mapping[str, float]) -> optax.GradientTransformation:
    """Multiplies each update by the factor of its parameter and that of its layer, a top-level name; {} for no layers."""

    def rate_factors(params: Any) -> Any:
        own = factors('rate_multipliers', pairs, params, jax.tree.map(lambda _: 1.0, params))
        if not layers:
            return own
        slowest = min(layers.values())
        return jax.tree_util.tree_map_with_path(lambda path, f: f * layers.get(path[0].key, slowest), own)

    def init(params: Any) -> optax.EmptyState:
        rate_factors(params)
        return optax.EmptyState()

    def update(updates: Any, state: optax.EmptyState, params: Any) -> tuple[Any, optax.EmptyState]:
        return jax.tree.map(lambda u, f: u if f == 1 else u * f, updates, rate_factors(params)), state

    return optax.GradientTransformation(init, update)


def matrices(params: Any) -> Any:
    """What Muon orthogonalizes: hidden kernels as matrices [kh * kw * C, D]; Adam trains the rest.

    Adam trains the input and the output layer, Muon all other convolutions (Jordan et al. 2024, and the README of their
    code). These two layers are recognized by name: 'head', or 'embed' anywhere in it; under other names Muon trains them. A
    convolution over at most 3 channels counts as the first one, or is depthwise: its kernel [kh, kw, 1, D] is not a matrix
    but D separate filters. By default optax would take every leaf of two axes: the head, and no convolution.

    Returns:
      A tree like `params` of `optax.contrib.MuonDimensionNumbers`, or None for Adam.
    """

    def numbers(path: tuple[Any, ...], leaf: jax.Array) -> Any:
        name = path_of(path)
        hidden = name.endswith('kernel') and '/head/' not in f'/{name}' and 'embed' not in name
        if not hidden or leaf.ndim < 2 or leaf.ndim == 4 and leaf.shape[2] <= 3:
            return None
        return optax.contrib.MuonDimensionNumbers(tuple(range(leaf.ndim - 1)), (leaf.ndim - 1,))

    return jax.tree_util.tree_map_with_path(numbers, params)
