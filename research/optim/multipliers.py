"""What weight decay reaches, at what rate each parameter learns, and what Muon orthogonalizes: all by parameter path.

Idea: pairs (shell pattern over the '/'-joined path, factor), of which the last that matches a parameter counts. A rate factor
multiplies the whole update of a parameter, decay included, as PyTorch's groups of parameters do; a decay factor replaces the
default, which is 1 for kernels and 0 for biases, norms and embeddings.

Config: {'optimizer.rate_multipliers': (('head/*', 0.1),)} and {'optimizer.decay_multipliers': (('*', 1), ('head/*', 0))}.

Sources: decoupled decay Loshchilov and Hutter 2019, algorithm 2; kernels alone He et al. 2019 (Bag of tricks, section 3.1).
Claim: fine-tuning with slower early layers, no decay where it only shifts scales. Cost: none, factors are constants of the
program. Clashes: an optimizer that decays by a rule of its own (lamb, lars, ...) takes decay factors 0 and 1 alone.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import optax
import optax.contrib

from research.optim.paths import matches, path_of, refuse_unmatched

Pairs = Sequence[tuple[str, float]]


def factors(field: str, pairs: Pairs, params: Any, default: Any) -> Any:
    """The factor of every parameter: of the last pattern that matches its path, or else of the tree `default`.

    Raises:
      ConfigError: a pattern that matches nothing.
    """
    refuse_unmatched(f'optimizer.{field}', (pattern for pattern, _ in pairs), params)

    def factor(path: tuple[Any, ...], usual: float) -> float:
        return next((f for pattern, f in reversed(pairs) if matches(path, pattern)), usual)

    return jax.tree_util.tree_map_with_path(factor, default)


def kernels(params: Any) -> Any:
    """Tree of bools, True at leaves called `kernel`: what weight decay reaches; biases, norms and embeddings stay."""
    return jax.tree_util.tree_map_with_path(lambda path, _: bool(path) and getattr(path[-1], 'key', None) == 'kernel', params)


def decayed(pairs: Pairs) -> Callable[[Any], Any]:
    """The mask for an optimizer with a decay of its own: params -> tree of bools."""

    def mask(params: Any) -> Any:
        return jax.tree.map(bool, factors('decay_multipliers', pairs, params, kernels(params)))

    return mask


def decay(pairs: Pairs, learning_rate: Any, weight_decay: Any) -> optax.GradientTransformation:
    """Takes learning_rate * weight_decay * factor of each parameter off its update."""
    if not pairs:
        return optax.add_decayed_weights(-learning_rate * weight_decay, mask=kernels)

    def init(params: Any) -> optax.EmptyState:
        factors('decay_multipliers', pairs, params, kernels(params))
        return optax.EmptyState()

    def update(updates: Any, state: optax.EmptyState, params: Any) -> tuple[Any, optax.EmptyState]:
        found = factors('decay_multipliers', pairs, params, kernels(params))
        return jax.tree.map(lambda u, p, f: u - learning_rate * weight_decay * f * p if f else u, updates, params, found), state

    return optax.GradientTransformation(init, update)


def rates(pairs: Pairs) -> optax.GradientTransformation:
    """Multiplies each update by its factor."""

    def found(params: Any) -> Any:
        return factors('rate_multipliers', pairs, params, jax.tree.map(lambda _: 1.0, params))

    def init(params: Any) -> optax.EmptyState:
        found(params)
        return optax.EmptyState()

    def update(updates: Any, state: optax.EmptyState, params: Any) -> tuple[Any, optax.EmptyState]:
        return jax.tree.map(lambda u, f: u if f == 1 else u * f, updates, found(params)), state

    return optax.GradientTransformation(init, update)


def matrices(params: Any) -> Any:
    """What Muon orthogonalizes: hidden kernels as matrices [kh * kw * C, D]; the rest is Adam's.

    The input and the output layer are Adam's, and so every convolution over images but the first is Muon's (Jordan et al.
    2024, and the README of their code). They are known by name, 'head' and whatever has 'embed' in it; a first or last
    layer of another name is Muon's. A convolution over at most 3 channels is the first one, or a depthwise one, whose
    kernel [kh, kw, 1, D] is no matrix but D filters apart. By itself optax would take every leaf of two axes: the head, and
    no convolution.
    """

    def numbers(path: tuple[Any, ...], leaf: jax.Array) -> Any:
        name = path_of(path)
        hidden = name.endswith('kernel') and '/head/' not in f'/{name}' and 'embed' not in name
        if not hidden or leaf.ndim < 2 or leaf.ndim == 4 and leaf.shape[2] <= 3:
            return None
        return optax.contrib.MuonDimensionNumbers(tuple(range(leaf.ndim - 1)), (leaf.ndim - 1,))

    return jax.tree_util.tree_map_with_path(numbers, params)
