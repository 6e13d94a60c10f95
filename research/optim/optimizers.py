"""Stage 5: gradient -> update, an optax chain `clip -> optimizer -> decay` whose numbers are data, not program.

Learning rate, weight decay and clipping norm live in the optimizer state (`optax.inject_hyperparams`); everything else
is static. Configs that differ in these numbers alone therefore share one compiled program.
"""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib

from research import catalogue
from research.optim.schedules import schedule

OPTIMIZERS = {
    'sgd': 'optax:sgd',
    'momentum': 'research.optim.optimizers:momentum',
    'adam': 'optax:adam',
}

CLIPS = {
    'none': 'optax:identity',
    'global_norm': 'optax:clip_by_global_norm',
}


def create(config: Mapping[str, Any], total: int | None = None) -> optax.GradientTransformationExtraArgs:
    """The optimizer that a config describes.

    `optimizer.name` is one of `OPTIMIZERS`, any optimizer of optax or optax.contrib by its own name, or an import path.
    Weight decay is decoupled (Loshchilov and Hutter 2019): each update loses learning rate * weight decay * parameter, on
    leaves called `kernel` only. An optimizer with a weight decay and a mask of its own (adamw, lion, lamb, lars, ...) is
    handed `optimizer.weight_decay` and that mask, because where it decays is part of its definition; then nothing is
    added behind it.

    Args:
      config: the whole config; reads `optimizer {name, learning_rate, weight_decay, clip {name, max_norm}, **kwargs}`, and
        `schedule` where `total` is given.
      total: number of updates of the run. With it the learning rate follows `schedule` over its own count of updates.
        Without, the rate is what the state holds: `optimizer.learning_rate` until `with_learning_rate` sets another.

    Returns:
      A transformation whose update needs `params`. Its state names the parts: `clip` (absent for 'none'), `optimizer`,
      `decay` (absent where the optimizer has its own).

    Raises:
      ConfigError: unknown name (with the nearest valid one), unknown or missing argument, weight decay for an optimizer
        that would apply it to every parameter.
    """
    optimizer, numbers = config['optimizer'], hyperparameters(config)
    rates = {key: numbers[key] for key in ('learning_rate', 'weight_decay')}
    rule = catalogue.resolve('optimizer', optimizer['name'], entries())
    takes = inspect.signature(rule).parameters
    if 'learning_rate' not in takes:
        raise catalogue.ConfigError(f"Optimizer '{optimizer['name']}' takes no learning_rate, expected one that does.")
    decays = 'weight_decay' in takes
    mask = {name: kernels for name in ('mask', 'weight_decay_mask') if decays and name in takes}
    if decays and not mask and numbers['weight_decay']:
        raise catalogue.ConfigError(
            f"Optimizer '{optimizer['name']}' decays every parameter, and weight decay here is on "
            'kernels only. Set optimizer.weight_decay to 0, or take another optimizer.'
        )
    settings = {key: value for key, value in optimizer.items() if key not in ('name', 'clip', *rates)}
    catalogue.check('optimizer', optimizer['name'], rule, settings, given=(*rates, *mask))

    stages = []
    if optimizer['clip']['name'] != 'none':
        norms = {key: value for key, value in numbers.items() if key not in rates}
        clip = catalogue.resolve('clip', optimizer['clip']['name'], CLIPS)
        catalogue.check('clip', optimizer['clip']['name'], clip, norms)
        stages.append(('clip', _traced(clip, norms)()))
    if decays:
        stages.append(('optimizer', _traced(rule, rates)(**settings, **mask)))
    else:
        stages.append(('optimizer', _traced(rule, {'learning_rate': numbers['learning_rate']})(**settings)))
        stages.append(('decay', _traced(_decay, rates)()))
    chain = optax.named_chain(*stages)
    return chain if total is None else _follow(chain, schedule(config, total, per_step=1)(np.arange(total)))


def hyperparameters(config: Mapping[str, Any]) -> dict[str, float]:
    """The traced numbers of a config, under the names that `inject` takes."""
    optimizer = config['optimizer']
    clip = {} if optimizer['clip']['name'] == 'none' else {k: v for k, v in optimizer['clip'].items() if k != 'name'}
    numbers = {'learning_rate': optimizer['learning_rate'], 'weight_decay': optimizer['weight_decay'], **clip}
    return {key: float(value) for key, value in numbers.items()}


def traced(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Dotted config keys, or whole groups, that change the numbers in the state and never the program."""
    clip = (f'optimizer.clip.{key}' for key in config['optimizer']['clip'] if key != 'name')
    return ('schedule', 'optimizer.learning_rate', 'optimizer.weight_decay', *clip)


def inject(state: optax.OptState, **values: Any) -> optax.OptState:
    """Sets traced numbers wherever the optimizer state holds them, shapes and dtypes kept, so that nothing recompiles."""

    def put(path: tuple[Any, ...], leaf: jax.Array) -> jax.Array:
        inside, name = (getattr(path[-2], 'name', None), getattr(path[-1], 'key', None)) if len(path) > 1 else (None, None)
        return jnp.full_like(leaf, values[name]) if inside == 'hyperparams' and name in values else leaf

    return jax.tree_util.tree_map_with_path(put, state)


def with_learning_rate(state: optax.OptState, learning_rate: Any) -> optax.OptState:
    """The state with another learning rate (scalar, may be traced) for the next updates."""
    return inject(state, learning_rate=learning_rate)


def kernels(params: Any) -> Any:
    """Tree of bools, True at leaves called `kernel`: what weight decay reaches; biases, norms and embeddings stay."""
    return jax.tree_util.tree_map_with_path(lambda path, _: bool(path) and getattr(path[-1], 'key', None) == 'kernel', params)


def momentum(learning_rate: Any, momentum: float = 0.9, nesterov: bool = False) -> optax.GradientTransformation:
    """SGD with momentum, in the form without dampening (Sutskever et al. 2013; torch.optim.SGD)."""
    return optax.sgd(learning_rate, momentum, nesterov)


@functools.cache
def entries() -> dict[str, str]:
    """Every optimizer by name: `OPTIMIZERS`, and what optax and optax.contrib have that takes a learning rate."""
    found = {
        name: f'{module.__name__}:{name}'
        for module in (optax.contrib, optax)
        for name, value in vars(module).items()
        if inspect.isfunction(value)
        and not name.startswith(('_', 'scale_by_'))
        and 'learning_rate' in inspect.signature(value).parameters
    }
    return found | OPTIMIZERS


def _traced(
    factory: Callable[..., optax.GradientTransformation], numbers: Mapping[str, float]
) -> Callable[..., optax.GradientTransformation]:
    """`factory` with these numbers in its state and the rest static: tracing Adam's betas too would move its results."""
    static = inspect.signature(factory).parameters.keys() - numbers.keys()
    return functools.partial(optax.inject_hyperparams(factory, static_args=static), **numbers)


def _decay(learning_rate: Any, weight_decay: Any) -> optax.GradientTransformation:
    return optax.add_decayed_weights(-learning_rate * weight_decay, mask=kernels)


class FollowState(NamedTuple):
    """Of a chain that follows its own schedule: `count` int32 [], updates so far, and the chain's own state."""

    count: jax.Array
    inner: optax.OptState


def _follow(chain: optax.GradientTransformationExtraArgs, rates: np.ndarray) -> optax.GradientTransformationExtraArgs:
    """`chain` with the rate of its own count of updates; the last rate stays."""

    def init(params: Any) -> FollowState:
        return FollowState(jnp.zeros([], jnp.int32), chain.init(params))

    def update(updates: Any, state: FollowState, params: Any = None, **extra: Any) -> tuple[Any, FollowState]:
        rate = jnp.asarray(rates)[jnp.minimum(state.count, len(rates) - 1)]
        updates, inner = chain.update(updates, with_learning_rate(state.inner, rate), params, **extra)
        return updates, FollowState(optax.safe_increment(state.count), inner)

    return optax.GradientTransformationExtraArgs(init, update)
