"""Stage 5: gradient -> update, an optax chain `clip -> optimizer -> decay -> rates -> average` whose numbers are data.

Learning rate, weight decay, clipping norm and the weight of averaging live in the optimizer state
(`optax.inject_hyperparams`); everything else is static. Configs that differ in these numbers alone share one program.

Full-batch gradient descent is sgd with {'data.batch_size': 0}. Against torch.optim, over 100 steps in float64, the paths are
the same to 1e-10 where the conventions are (tests/optim/test_trajectories.py):
  momentum, nesterov: torch's without dampening.
  adagrad: torch begins its sum at 0 and adds eps to the root; optax's scale_by_rss begins at 0.1 and adds eps inside the root,
    so initial_accumulator_value=0 and eps=0 on both sides.
  rmsprop: torch's alpha is `decay`; torch adds eps to the root: eps_in_sqrt=False.
  adam, adamw: the same eps, outside the root, after the correction of the bias.
"""

import fnmatch
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib

from research import catalogue, durations
from research.optim.averaging import average, average_weight
from research.optim.clipping import CLIPS, counted, path_of
from research.optim.scaling import dynamic
from research.optim.schedules import schedule

OPTIMIZERS = {
    'sgd': 'optax:sgd',
    'momentum': 'research.optim.optimizers:momentum',
    'nesterov': 'research.optim.optimizers:nesterov',
    'adam': 'optax:adam',
}
# Arguments of optimizers that are filled in here, where one takes them.
GIVEN = ('learning_rate', 'weight_decay', 'mask', 'weight_decay_mask', 'adam_weight_decay', 'muon_weight_dimension_numbers')
# Fields of the group that no optimizer is handed.
OWN = ('learning_rate', 'weight_decay', 'clip', 'rate_multipliers', 'decay_multipliers', 'average')


def create(config: Mapping[str, Any], total: int | None = None) -> optax.GradientTransformationExtraArgs:
    """The optimizer that a config describes.

    `optimizer.name` is one of `OPTIMIZERS`, any optimizer of optax or optax.contrib by its own name, or an import path.
    Weight decay is decoupled (Loshchilov and Hutter 2019): each update loses learning rate * weight decay * parameter, on
    leaves called `kernel` only, unless `decay_multipliers` say otherwise. An optimizer with a weight decay and a mask of its
    own (adamw, lion, lamb, lars, ...) is handed `optimizer.weight_decay` and that mask, because where it decays is part of
    its definition; then nothing is added behind it. `rate_multipliers` multiply the whole update of what they match.

    Args:
      config: the whole config; reads `optimizer {name, learning_rate, weight_decay, clip, rate_multipliers,
        decay_multipliers, average, **kwargs}`, `train.precision`, and `schedule` where `total` is given.
      total: number of updates of the run. With it the learning rate follows `schedule` over its own count of updates, and
        the average its own. Without, these numbers are what the state holds, until `inject` sets others.

    Returns:
      A transformation whose update needs `params`. Its state names the parts: `clip`, `optimizer`, `decay`, `rates`,
      `average`, each absent where there is nothing of it.

    Raises:
      ConfigError: unknown name (with the nearest valid one), unknown or missing argument, weight decay for an optimizer
        that would apply it to every parameter. From `init`: a pattern that matches no parameter.
    """
    optimizer, numbers = config['optimizer'], hyperparameters(config)
    name = optimizer['name']
    rule = catalogue.resolve('optimizer', name, entries())
    takes = inspect.signature(rule).parameters
    if 'learning_rate' not in takes:
        raise catalogue.ConfigError(f"Optimizer '{name}' takes no learning_rate, expected one that does.")
    if name in _NOT_FROM_0 and durations.examples(config['schedule']['warmup'], 1000, 1000, 1000):
        raise catalogue.ConfigError(
            f"Optimizer '{name}' finds its own step and cannot begin at a rate of 0: set schedule.warmup to '0st'."
        )
    own = {key: numbers[key] for key in ('learning_rate', 'weight_decay', 'adam_weight_decay') if key in takes}
    mask = {key: _decayed(optimizer['decay_multipliers']) for key in ('mask', 'weight_decay_mask') if key in takes}
    decays = 'weight_decay' in takes
    if decays and not mask and numbers['weight_decay']:
        raise catalogue.ConfigError(
            f"Optimizer '{name}' decays every parameter, and weight decay here is on "
            'kernels only. Set optimizer.weight_decay to 0, or take another optimizer.'
        )
    if decays and mask and any(factor not in (0, 1) for _, factor in optimizer['decay_multipliers']):
        raise catalogue.ConfigError(
            f"Optimizer '{name}' has its own weight decay, which can be on or off: expected factors 0 and 1 in "
            "optimizer.decay_multipliers. (Instead of 'adamw', 'adam' with optimizer.weight_decay takes any.)"
        )
    settings = {key: value for key, value in optimizer.items() if key not in ('name', *OWN)}
    catalogue.check('optimizer', name, rule, settings, given=GIVEN)
    given = mask if decays else {}
    if 'muon_weight_dimension_numbers' in takes:
        given = {**given, 'muon_weight_dimension_numbers': _matrices}

    stages = []
    if optimizer['clip']['name'] != 'none':
        clip = catalogue.resolve('clip', optimizer['clip']['name'], CLIPS)
        arguments = {key: value for key, value in optimizer['clip'].items() if key != 'name'}
        catalogue.check('clip', optimizer['clip']['name'], clip, arguments)
        for key, bound in arguments.items():
            if _number(bound) and not bound > 0:
                raise catalogue.ConfigError(f'optimizer.clip.{key} is {bound}, expected a bound above 0, such as 1.0.')
        stages.append(('clip', counted(_traced(clip, {k: v for k, v in arguments.items() if _number(v)})(**arguments))))
    stages.append(('optimizer', _traced(rule, own)(**settings, **given)))
    if not decays:
        decay = functools.partial(_decay, optimizer['decay_multipliers'])
        stages.append(('decay', _traced(decay, {k: numbers[k] for k in ('learning_rate', 'weight_decay')})()))
    elif optimizer['decay_multipliers'] and not mask:
        raise catalogue.ConfigError(
            f"Optimizer '{name}' takes no optimizer.decay_multipliers: it cannot be told where to decay."
        )
    if optimizer['rate_multipliers']:
        stages.append(('rates', _rates(optimizer['rate_multipliers'])))
    if optimizer['average']['name'] != 'none':
        stages.append(('average', _traced(average, {'average_weight': 1.0})()))
    chain = optax.named_chain(*stages)
    if config['train']['precision'] == 'float16':
        chain = dynamic(chain)
    if total is None:
        return chain
    steps = np.arange(total)
    weights = average_weight(config, total, per_step=1)
    rates = {'learning_rate': schedule(config, total, per_step=1)(steps)}
    return _follow(chain, rates if weights is None else rates | {'average_weight': weights(steps)})


def hyperparameters(config: Mapping[str, Any]) -> dict[str, float]:
    """The traced numbers of a config, under the names that `inject` takes."""
    optimizer = config['optimizer']
    clip = {} if optimizer['clip']['name'] == 'none' else {k: v for k, v in optimizer['clip'].items() if _number(v)}
    decay = optimizer['weight_decay']
    # muon decays what it leaves to Adam by a number of its own.
    numbers = {'learning_rate': optimizer['learning_rate'], 'weight_decay': decay, 'adam_weight_decay': decay, **clip}
    return {key: float(value) for key, value in numbers.items()}


def traced(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Dotted config keys, or whole groups, that change the numbers in the state and never the program."""
    clip = (f'optimizer.clip.{key}' for key, value in config['optimizer']['clip'].items() if _number(value))
    average = (f'optimizer.average.{key}' for key in config['optimizer']['average'] if key != 'name')
    return ('schedule', 'optimizer.learning_rate', 'optimizer.weight_decay', *clip, *average)


def inject(state: optax.OptState, **values: Any) -> optax.OptState:
    """Sets traced numbers wherever the optimizer state holds them, shapes and dtypes kept, so that nothing recompiles."""

    def put(path: tuple[Any, ...], leaf: jax.Array) -> jax.Array:
        inside, name = (getattr(path[-2], 'name', None), getattr(path[-1], 'key', None)) if len(path) > 1 else (None, None)
        return jnp.full_like(leaf, values[name]) if inside == 'hyperparams' and name in values else leaf

    return jax.tree_util.tree_map_with_path(put, state)


def kernels(params: Any) -> Any:
    """Tree of bools, True at leaves called `kernel`: what weight decay reaches; biases, norms and embeddings stay."""
    return jax.tree_util.tree_map_with_path(lambda path, _: bool(path) and getattr(path[-1], 'key', None) == 'kernel', params)


def momentum(learning_rate: Any, momentum: float = 0.9, nesterov: bool = False) -> optax.GradientTransformation:
    """SGD with momentum, in the form without dampening (Sutskever et al. 2013; torch.optim.SGD)."""
    return optax.sgd(learning_rate, momentum, nesterov)


def nesterov(learning_rate: Any, momentum: float = 0.9) -> optax.GradientTransformation:
    """SGD with Nesterov's momentum (Sutskever et al. 2013, eq. 3; torch.optim.SGD(nesterov=True))."""
    return optax.sgd(learning_rate, momentum, nesterov=True)


@functools.cache
def entries() -> dict[str, str]:
    """Every optimizer by name: `OPTIMIZERS`, and what optax and optax.contrib have that a config can describe."""
    found = {
        name: f'{module.__name__}:{name}'
        for module in (optax.contrib, optax)
        for name, value in vars(module).items()
        if inspect.isfunction(value) and not name.startswith(('_', 'scale_by_')) and name not in _ASK_FOR_MORE
        if 'learning_rate' in inspect.signature(value).parameters
    }
    return found | OPTIMIZERS


# These want the loss, or the loss as a function, at every update, which stage 4 does not hand on; or functions, arrays and
# other transformations, which no config can say (schedule_free_sgd and schedule_free_adamw are what it can).
_ASK_FOR_MORE = ('dpsgd', 'lbfgs', 'momo', 'momo_adam', 'noisy_sgd', 'polyak_sgd', 'schedule_free', 'sophia')
# These estimate the step from what they moved, and 0 / 0 is what they make of a first rate of 0.
_NOT_FROM_0 = ('dadapt_adamw', 'prodigy')


def factors(field: str, pairs: Sequence[tuple[str, float]], params: Any, default: Any) -> Any:
    """The factor of every parameter: of the last pattern that matches its path, or else of the tree `default`.

    Raises:
      ConfigError: a pattern that matches nothing.
    """
    paths = [path_of(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    for pattern, _ in pairs:
        if not any(fnmatch.fnmatchcase(path, pattern) for path in paths):
            raise catalogue.ConfigError(
                f"optimizer.{field}: '{pattern}' matches no parameter.{catalogue.nearest(pattern, paths)}"
            )

    def factor(path: tuple[Any, ...], usual: float) -> float:
        return next((f for pattern, f in reversed(pairs) if fnmatch.fnmatchcase(path_of(path), pattern)), usual)

    return jax.tree_util.tree_map_with_path(factor, default)


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _traced(
    factory: Callable[..., optax.GradientTransformation], numbers: Mapping[str, float]
) -> Callable[..., optax.GradientTransformation]:
    """`factory` with these numbers in its state and the rest static: tracing Adam's betas too would move its results."""
    static = inspect.signature(factory).parameters.keys() - numbers.keys()
    injected = optax.inject_hyperparams(factory, static_args=static)
    return lambda **others: injected(**{**others, **numbers})


def _decayed(pairs: Sequence[tuple[str, float]]) -> Callable[[Any], Any]:
    def mask(params: Any) -> Any:
        return jax.tree.map(bool, factors('decay_multipliers', pairs, params, kernels(params)))

    return mask


def _decay(pairs: Sequence[tuple[str, float]], learning_rate: Any, weight_decay: Any) -> optax.GradientTransformation:
    if not pairs:
        return optax.add_decayed_weights(-learning_rate * weight_decay, mask=kernels)

    def init(params: Any) -> optax.EmptyState:
        factors('decay_multipliers', pairs, params, kernels(params))
        return optax.EmptyState()

    def update(updates: Any, state: optax.EmptyState, params: Any) -> tuple[Any, optax.EmptyState]:
        found = factors('decay_multipliers', pairs, params, kernels(params))
        return jax.tree.map(lambda u, p, f: u - learning_rate * weight_decay * f * p if f else u, updates, params, found), state

    return optax.GradientTransformation(init, update)


def _rates(pairs: Sequence[tuple[str, float]]) -> optax.GradientTransformation:
    """Multiplies updates, decay included, as PyTorch's groups of parameters do."""

    def ones(params: Any) -> Any:
        return factors('rate_multipliers', pairs, params, jax.tree.map(lambda _: 1.0, params))

    def init(params: Any) -> optax.EmptyState:
        ones(params)
        return optax.EmptyState()

    def update(updates: Any, state: optax.EmptyState, params: Any) -> tuple[Any, optax.EmptyState]:
        return jax.tree.map(lambda u, f: u if f == 1 else u * f, updates, ones(params)), state

    return optax.GradientTransformation(init, update)


def _matrices(params: Any) -> Any:
    """What Muon orthogonalizes: hidden kernels as matrices [kh * kw * C, D] (Jordan et al. 2024); the rest is Adam's.

    By itself it would take every leaf of two axes: the head, which it should not have, and no convolution.
    """

    def numbers(path: tuple[Any, ...], leaf: jax.Array) -> Any:
        name = path_of(path)
        hidden = name.endswith('kernel') and not name.startswith('head') and 'embed' not in name
        if not hidden or leaf.ndim < 2:
            return None
        return optax.contrib.MuonDimensionNumbers(tuple(range(leaf.ndim - 1)), (leaf.ndim - 1,))

    return jax.tree_util.tree_map_with_path(numbers, params)


class FollowState(NamedTuple):
    """Of a chain that follows its own schedule: `count` int32 [], updates so far, and the chain's own state."""

    count: jax.Array
    inner: optax.OptState


def _follow(
    chain: optax.GradientTransformationExtraArgs, numbers: Mapping[str, np.ndarray]
) -> optax.GradientTransformationExtraArgs:
    """`chain` with the numbers of its own count of updates; the last ones stay."""

    def init(params: Any) -> FollowState:
        return FollowState(jnp.zeros([], jnp.int32), chain.init(params))

    def update(updates: Any, state: FollowState, params: Any = None, **extra: Any) -> tuple[Any, FollowState]:
        now = {k: jnp.asarray(v)[jnp.minimum(state.count, len(v) - 1)] for k, v in numbers.items()}
        updates, inner = chain.update(updates, inject(state.inner, **now), params, **extra)
        return updates, FollowState(optax.safe_increment(state.count), inner)

    return optax.GradientTransformationExtraArgs(init, update)
