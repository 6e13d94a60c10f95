"""Stage 5: gradient -> update, an optax chain `clip -> optimizer -> decay -> rates -> average` whose numbers are data.

Learning rate, weight decay, clipping norm and the weight of averaging live in the optimizer state
(`optax.inject_hyperparams`); everything else is static. Configs that differ only in these numbers share one program.

Idea: momentum averages gradients, adaptive methods divide by their size, sign methods keep only their sign.

Config: {'optimizer.name': 'adamw', 'optimizer.learning_rate': 1e-3, 'optimizer.weight_decay': 0.01, 'optimizer.b2': 0.98}

Sources: optax's own documentation names the paper of each. Cost: a copy of the parameters per moment (momentum one, Adam
two), and for Muon some matrix products per step. Claim: that of each paper, on its own tuned baseline; tune the rate of each
(`study.tune`) before comparing. Clashes: `create` refuses what cannot be combined, with the reason.

Full-batch gradient descent is sgd with {'data.batch_size': 0}. Over 100 steps in float64 the trajectories are torch.optim's to
1e-10 where the conventions are the same (tests/optim/test_trajectories.py):
  momentum, nesterov: torch's without dampening.
  adagrad: optax begins its sum of squares at initial_accumulator_value (0.1) and adds eps (1e-7) inside the root; torch begins
    at 0 and adds eps (1e-10) to the root. So optax's (a, eps) is torch's (initial_accumulator_value=a + eps, eps=0), and a
    torch eps above 0 has no equivalent: the closest is (0, 0), whose updates are longer by a factor of 1 + eps / root.
  rmsprop: torch's alpha (0.99) is `decay` (0.9); torch adds eps to the root, optax inside it unless eps_in_sqrt=False. Its
    momentum buffer holds rate times update, as TensorFlow's; in torch the rate multiplies the buffer. Equal at constant rates.
  adam, adamw: the same eps, added to the root after bias correction; adamw's weight_decay is 0.01 in torch, here
    optimizer.weight_decay, which only applies to kernels.
"""

import functools
import inspect
import types
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib

from research import catalogue
from research.optim import layer_decay, multipliers
from research.optim.averaging import average, average_weight
from research.optim.clipping import CLIPS, counted
from research.optim.scaling import dynamic
from research.optim.schedules import begins_at_0, schedule

OPTIMIZERS = {
    'sgd': 'optax:sgd',
    'momentum': 'research.optim.optimizers:momentum',
    'nesterov': 'research.optim.optimizers:nesterov',
    'adam': 'optax:adam',
}
# Arguments of optimizers that are filled in here, or would bypass the shared schedule and decay.
GIVEN = (
    'learning_rate',
    'weight_decay',
    'mask',
    'weight_decay_mask',
    'adam_learning_rate',
    'adam_weight_decay',
    'muon_weight_dimension_numbers',
)
# Fields of the group that are not arguments of the optimizer.
OWN = ('learning_rate', 'weight_decay', 'clip', 'layer_decay', 'rate_multipliers', 'decay_multipliers', 'average')


def create(
    config: Mapping[str, Any], total: int | None = None, layers: Sequence[str] = ()
) -> optax.GradientTransformationExtraArgs:
    """The optimizer that a config describes.

    `optimizer.name` is one of `OPTIMIZERS`, any optimizer of optax or optax.contrib by its own name, or an import path.
    Weight decay is decoupled (Loshchilov and Hutter 2019): each update loses learning rate * weight decay * parameter, on
    leaves called `kernel` only, unless `decay_multipliers` say otherwise. An optimizer with its own weight decay and mask
    (adamw, lion, lamb, lars, ...) gets `optimizer.weight_decay` and that mask, because its decay is part of its definition;
    then no decay is added after it. `rate_multipliers` multiply the whole update of what they match; so they also give what
    Muon leaves to Adam its own rate.

    Args:
      config: the whole config; reads `optimizer {name, learning_rate, weight_decay, clip, layer_decay, rate_multipliers,
        decay_multipliers, average, **kwargs}`, `train.precision`, and `schedule` if `total` is given.
      total: number of updates of the run. With it the learning rate and the average follow their schedules over the
        optimizer's own count of updates. Without it these numbers stay in the state until `inject` sets others.
      layers: top-level names of the parameters in the order of the forward pass, for `layer_decay`.

    Returns:
      A transformation whose update needs `params`. Its state names the parts: `clip`, `optimizer`, `decay`, `rates`,
      `average`, each absent if unused.

    Raises:
      ConfigError: unknown name (with the nearest valid one) or one that no config can describe, unknown or missing argument,
        decay that the optimizer cannot have. From `init`: a pattern that matches no parameter.
    """
    chain = optax.named_chain(*_stages(config, layers))
    if config['train']['precision'] == 'float16':
        chain = dynamic(chain)
    if total is None:
        return chain
    steps = np.arange(total)
    weights = average_weight(config, total, per_step=1)
    rates = {'learning_rate': schedule(config, total, per_step=1)(steps)}
    return _follow(chain, rates if weights is None else rates | {'average_weight': weights(steps, steps, 1)})


def _stages(config: Mapping[str, Any], layers: Sequence[str]) -> list[tuple[str, optax.GradientTransformation]]:
    """The parts of the chain by name, without those that are unused."""
    optimizer, numbers = config['optimizer'], hyperparameters(config)
    rule, settings = _rule(config)
    takes = inspect.signature(rule).parameters
    given = _decay_arguments(optimizer, takes, 'weight_decay' in takes or 'weight_decay_rate' in settings)
    own = {key: numbers[key] for key in ('learning_rate', 'weight_decay') if key in takes and key not in given}
    if 'muon_weight_dimension_numbers' in takes:
        given = {**given, 'muon_weight_dimension_numbers': multipliers.matrices}
    stages = [] if optimizer['clip']['name'] == 'none' else [('clip', _clip(**optimizer['clip']))]
    stages.append(('optimizer', _traced(rule, own)(**settings, **given)))
    if 'weight_decay' not in own:
        decay = functools.partial(multipliers.decay, optimizer['decay_multipliers'])
        stages.append(('decay', _traced(decay, {k: numbers[k] for k in ('learning_rate', 'weight_decay')})()))
    decayed = layer_decay.factors(optimizer['layer_decay'], layers) if optimizer['layer_decay'] != 1 else {}
    if optimizer['rate_multipliers'] or decayed:
        stages.append(('rates', multipliers.rates(optimizer['rate_multipliers'], decayed)))
    if optimizer['average']['name'] != 'none':
        stages.append(('average', _traced(average, {'average_weight': 1.0})()))
    return stages


def _rule(config: Mapping[str, Any]) -> tuple[Callable[..., optax.GradientTransformation], dict[str, Any]]:
    """The optimizer's constructor, and its arguments in the config."""
    optimizer = config['optimizer']
    name, known = optimizer['name'], _known(optimizer['name'])
    if known in _ASKS_FOR_MORE:
        raise catalogue.ConfigError(f"Optimizer '{name}' {_ASKS_FOR_MORE[known]}.")
    rule = catalogue.resolve('optimizer', name, entries())
    if 'learning_rate' not in inspect.signature(rule).parameters:
        raise catalogue.ConfigError(f"Optimizer '{name}' takes no learning_rate, expected one that does.")
    settings = {key: value for key, value in optimizer.items() if key not in ('name', *OWN)}
    catalogue.check('optimizer', name, rule, settings, given=GIVEN)
    graded = optimizer['rate_multipliers'] or optimizer['layer_decay'] != 1
    if known.startswith('schedule_free') and (graded or optimizer['average']['name'] != 'none'):
        raise catalogue.ConfigError(
            f"Optimizer '{name}' scores an average of its own, which optimizer.rate_multipliers, optimizer.layer_decay and "
            "optimizer.average would make another point: set them to (), 1 and {'name': 'none'}, or take another optimizer."
        )
    if known in _NOT_FROM_0 and not settings.get('safeguard_warmup') and begins_at_0(config):
        raise catalogue.ConfigError(f"Optimizer '{name}' cannot begin at a rate of 0: {_NOT_FROM_0[known]}.")
    return rule, settings


def _decay_arguments(optimizer: Mapping[str, Any], takes: Collection[str], decays: bool) -> dict[str, Any]:
    """The optimizer's arguments for weight decay; a 'weight_decay' among them leaves decay to the stage `decay`.

    Args:
      optimizer: the group of the config.
      takes: names of the constructor's arguments.
      decays: whether the optimizer has its own weight decay.
    """
    name, pairs = optimizer['name'], optimizer['decay_multipliers']
    masks = {key: multipliers.decayed(pairs) for key in ('mask', 'weight_decay_mask') if key in takes}
    if decays and not masks and (optimizer['weight_decay'] or pairs):
        raise catalogue.ConfigError(
            f"Optimizer '{name}' decays every parameter and takes no mask, but weight decay here is for kernels only. "
            'Set optimizer.weight_decay to 0 and optimizer.decay_multipliers to (), or take another optimizer.'
        )
    graded = any(factor not in (0, 1) for _, factor in pairs)
    # Muon's mask excludes what it leaves to Adam, whose biases and norms would decay.
    if 'muon_weight_dimension_numbers' in takes or graded and _known(name) in _DECOUPLED:
        return {'weight_decay': 0.0}
    if graded and decays:
        raise catalogue.ConfigError(
            f"Optimizer '{name}' has its own weight decay, which can only be on or off: expected factors 0 and 1 in "
            f'optimizer.decay_multipliers. Any factor goes with an optimizer without one, and with {", ".join(_DECOUPLED)}.'
        )
    return masks


def _known(name: str) -> str:
    """An optimizer's name without optax's modules."""
    return name.removeprefix('optax.contrib:').removeprefix('optax:')


def _clip(name: str, **arguments: Any) -> optax.GradientTransformation:
    clip = catalogue.resolve('clip', name, CLIPS)
    catalogue.check('clip', name, clip, arguments)
    for key, bound in arguments.items():
        if _number(bound) and not bound > 0:
            raise catalogue.ConfigError(f'optimizer.clip.{key} is {bound}, expected a bound above 0, such as 1.0.')
    return counted(_traced(clip, {k: v for k, v in arguments.items() if _number(v)})(**arguments))


def hyperparameters(config: Mapping[str, Any]) -> dict[str, float]:
    """The traced numbers of a config, under the names that `inject` takes; all become float32 []."""
    optimizer = config['optimizer']
    clip = {} if optimizer['clip']['name'] == 'none' else {k: v for k, v in optimizer['clip'].items() if _number(v)}
    numbers = {'learning_rate': optimizer['learning_rate'], 'weight_decay': optimizer['weight_decay'], **clip}
    return {key: float(value) for key, value in numbers.items()}


def traced(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Dotted config keys, or whole groups, that only change numbers in the state, never the program."""
    clip = (f'optimizer.clip.{key}' for key, value in config['optimizer']['clip'].items() if _number(value))
    average = (f'optimizer.average.{key}' for key in config['optimizer']['average'] if key != 'name')
    return ('schedule', 'optimizer.learning_rate', 'optimizer.weight_decay', *clip, *average)


def inject(state: optax.OptState, **values: Any) -> optax.OptState:
    """The state with traced numbers set everywhere; shapes and dtypes stay, so nothing recompiles."""

    def put(path: tuple[Any, ...], leaf: jax.Array) -> jax.Array:
        inside, name = (getattr(path[-2], 'name', None), getattr(path[-1], 'key', None)) if len(path) > 1 else (None, None)
        return jnp.full_like(leaf, values[name]) if inside == 'hyperparams' and name in values else leaf

    return jax.tree_util.tree_map_with_path(put, state)


def momentum(learning_rate: Any, momentum: float = 0.9, nesterov: bool = False) -> optax.GradientTransformation:
    """SGD with momentum, in the form without dampening (Sutskever et al. 2013; torch.optim.SGD)."""
    return optax.sgd(learning_rate, momentum, nesterov)


def nesterov(learning_rate: Any, momentum: float = 0.9) -> optax.GradientTransformation:
    """SGD with Nesterov's momentum (Sutskever et al. 2013, eq. 3; torch.optim.SGD(nesterov=True))."""
    return optax.sgd(learning_rate, momentum, nesterov=True)


@functools.cache
def entries() -> dict[str, str]:
    """Every optimizer by name: `OPTIMIZERS`, those of optax and optax.contrib, and those that `create` refuses."""
    library = {
        name: f'{module.__name__}:{name}'
        for module in (optax.contrib, optax)
        for name, value in vars(module).items()
        if isinstance(value, types.FunctionType | functools.partial) and not name.startswith(('_', 'scale_by_'))
        if 'learning_rate' in inspect.signature(value).parameters
    }
    return library | dict.fromkeys(_ASKS_FOR_MORE, 'research.optim.optimizers:asks_for_more') | OPTIMIZERS


def asks_for_more(**settings: Any) -> None:
    """Placeholder for optimizers that no config can describe; `create` refuses them before calling it."""


_LOSS = 'needs the loss at every update, which is not handed to optimizers here; take another'
_LOSS_FUNCTION = 'needs to evaluate the loss within an update, and optimizers here are handed its gradient; take another'
_ASKS_FOR_MORE = {
    'dpsgd': 'needs the gradient of each example apart, and optimizers here are handed that of the batch; take another',
    'lbfgs': _LOSS_FUNCTION,
    'lookahead': 'wraps another optimizer and keeps two copies of the parameters in the place of one; take another',
    'mechanize': "wraps another optimizer; another that finds its own step is 'prodigy'",
    'momo': _LOSS,
    'momo_adam': _LOSS,
    'noisy_sgd': 'draws from a key of its own, so that every seed of a study would see the same noise; take another',
    'polyak_sgd': _LOSS,
    'reduce_on_plateau': "is a schedule here: schedule.name = 'plateau'",
    'rprop': "adapts step sizes of its own, which no schedule reaches; another that goes by signs is 'sign_sgd'",
    'sam': "is a gradient here: gradient.name = 'sam'",
    'schedule_free': "wraps another optimizer; expected 'schedule_free_adamw' or 'schedule_free_sgd'",
    'sophia': _LOSS_FUNCTION,
}
# These divide by the distance that their gradients have moved them; with a first rate of 0 this is 0 / 0.
_NOT_FROM_0 = {
    'dadapt_adamw': "set schedule.warmup to '0st', with a schedule that begins above 0",
    'prodigy': 'set optimizer.safeguard_warmup to True, which leaves the rate out of that sum',
}
# Their own weight decay equals the stage `decay` up to rounding, so the stage can replace it.
_DECOUPLED = ('acprop', 'adamaxw', 'adamw', 'adan', 'ademamix', 'galore', 'lion', 'nadamw', 'simplified_ademamix')


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _traced(
    factory: Callable[..., optax.GradientTransformation], numbers: Mapping[str, float]
) -> Callable[..., optax.GradientTransformation]:
    """`factory` with these numbers in its state and the rest static: tracing Adam's betas too would move its results."""
    static = inspect.signature(factory).parameters.keys() - numbers.keys()
    injected = optax.inject_hyperparams(factory, static_args=static)
    return lambda **others: injected(**{**others, **numbers})


class FollowState(NamedTuple):
    """State of a chain that follows its own schedule: `count` int32 [], updates so far, and the chain's state."""

    count: jax.Array
    inner: optax.OptState


def _follow(
    chain: optax.GradientTransformationExtraArgs, numbers: Mapping[str, np.ndarray]
) -> optax.GradientTransformationExtraArgs:
    """`chain` with `numbers`, name -> [total], indexed by its own count of updates; the last ones stay."""

    def init(params: Any) -> FollowState:
        return FollowState(jnp.zeros([], jnp.int32), chain.init(params))

    def update(updates: Any, state: FollowState, params: Any = None, **extra: Any) -> tuple[Any, FollowState]:
        now = {k: jnp.asarray(v)[jnp.minimum(state.count, len(v) - 1)] for k, v in numbers.items()}
        updates, inner = chain.update(updates, inject(state.inner, **now), params, **extra)
        return updates, FollowState(optax.safe_increment(state.count), inner)

    return optax.GradientTransformationExtraArgs(init, update)
