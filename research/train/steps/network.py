"""What both kinds of step share: a network with its precision and running statistics, and stages 4 and 5."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax.errors import InvalidRngError

from research import optim
from research.catalogue import ConfigError
from research.layers.example import StepKeys
from research.train import precision
from research.train.parallel import Jit, Pmap
from research.train.phases import Phase
from research.train.state import Learnt
from research.train.steps import streams

Inputs = tuple[tuple[Any, ...], dict[str, Any]]
# What a reference pass computes anew. A call with 'reference' mutable is one, so no other call may have it so.
_STATISTICS = ['reference', 'batch_stats']


@dataclasses.dataclass(frozen=True, eq=False)
class Network:
    """A module that computes in its precision. `seen` are parameters behind stage 2, `inputs` (args, kwargs) of a call.

    Attributes:
      shapes: of its variables.
      running: names of the collections that training moves.
      compute, whole: to the precision of the computation, and back to float32.
    """

    module: nn.Module
    shapes: Mapping[str, Any]
    running: tuple[str, ...]
    compute: Callable[[Any], Any]
    whole: Callable[[Any], Any]

    def predict(self, seen: Any, collections: Any, inputs: Inputs, **options: Any) -> Any:
        """Outputs of an inference, float32; `options` such as `method` go to `module.apply`.

        Raises:
          ConfigError: the network asks for random keys, while it is traced.
        """
        try:
            return self.whole(self._apply(seen, collections, inputs, train=False, **options))
        except InvalidRngError as error:
            raise ConfigError(
                f'Network {type(self.module).__name__} draws with `train` False: {str(error).partition(" (https")[0]}. An '
                'evaluation is not random: draw only where `train` is True, as in nn.Dropout(rate, deterministic=not train).'
            ) from error

    def train(
        self, seen: Any, collections: Any, inputs: Inputs, key: Callable[[str], jax.Array], **options: Any
    ) -> tuple[Any, dict[str, Any], Any]:
        """(outputs, outputs of auxiliary heads by name, collections with their running statistics moved) of a training call.

        `key` is purpose -> typed key [], for modules that draw by `make_rng`.
        """

        def call(rngs: Mapping[str, jax.Array]) -> tuple[Any, Any]:
            mutable = [*self.running, 'auxiliary']
            return self._apply(seen, collections, inputs, train=True, mutable=mutable, rngs=rngs, **options)

        names = streams.names(self.module, inputs, options, call)
        outputs, new = call({name: key(f'stream {name}') for name in names})
        auxiliary = new.pop('auxiliary', {})
        return self.whole(outputs), self.whole(auxiliary), {**collections, **new}

    def statistics(self, seen: Any, collections: Any, inputs: Inputs, **options: Any) -> dict[str, Any]:
        """The collections 'reference' and 'batch_stats' as these inputs make them; nothing random in it."""
        _, new = self._apply(seen, collections, inputs, train=False, mutable=_STATISTICS, **options)
        return new

    def referenced(self, seen: Any, collections: Any, reference: Inputs) -> Any:
        """The collections with the statistics of the reference batch, where the network has such."""
        if 'reference' not in collections:
            return collections
        return {**collections, 'reference': self.statistics(seen, collections, reference)['reference']}

    def _apply(self, seen, collections, inputs, **options):
        args, kwargs = self.compute(inputs)
        return self.module.apply({'params': self.compute(seen), **collections}, *args, **kwargs, **options)


def bind(module: nn.Module, inputs: Inputs, precision_name: str) -> Network:
    """A network, for inputs like these."""
    args, kwargs = inputs
    shapes = jax.eval_shape(lambda key: module.init(key, *args, **kwargs), jax.random.key(0))
    # Named one by one: a mutable `reference` would make any call a reference pass.
    running = tuple(sorted(set(shapes) - {'params', 'reference', 'example'}))
    return Network(module, shapes, running, *precision.casts(precision_name))


class Descent(NamedTuple):
    """Stages 4 and 5.

    Attributes:
      gradient: micro-batches -> (loss_fn, engine, keys) -> (params, collections, batch) -> (gradient of the sum, aux).
      update: the optax chain.
    """

    engine: Jit | Pmap
    gradient: Callable[[int], Callable[..., Any]]
    update: optax.GradientTransformation


def descend(
    descent: Descent,
    phase: Phase,
    loss_fn: Callable[..., Any],
    learnt: Learnt,
    batch: Mapping[str, jax.Array],
    controls: Mapping[str, jax.Array],
    keys: StepKeys,
) -> tuple[Learnt, dict[str, jax.Array], dict[str, jax.Array]]:
    """loss -> gradient -> update.

    Args:
      loss_fn: (params, collections, batch) -> (sum of the losses, aux), see research.gradients.
      batch, controls: as of `Step.train`.

    Returns:
      (what was learnt, sums over the batch, what was observed in this step).
    """
    engine, (params, collections, opt_state) = descent.engine, learnt
    scale = optim.loss_scale(opt_state)
    keys = keys._replace(loss_scale=scale)
    gradient, aux = descent.gradient(phase.micro_batches)(loss_fn, engine, keys)(params, collections, batch)
    sums, count = engine.total((aux['sums'], aux['count']))
    count = jnp.where(count > 0, count, 1)
    gradient = engine.total(gradient)
    if 'noise' in aux:  # once, after the sum over devices and micro-batches
        learns = {name: noise for name, noise in aux['noise'].items() if name not in phase.frozen}
        gradient |= jax.tree.map(lambda g, noise: g + noise * scale, {name: gradient[name] for name in learns}, learns)
    gradient = jax.tree.map(lambda g: g / count, gradient)
    updates, opt_state = descent.update.update(gradient, optim.inject(opt_state, **controls), params)
    updates = {name: jax.tree.map(jnp.zeros_like, u) if name in phase.frozen else u for name, u in updates.items()}
    params = jax.tree.map(jnp.add, params, updates)
    seen = optim.observations(opt_state)
    observed = {'gradient/norm': optax.tree.norm(gradient) / scale}
    observed |= {name: value / scale**2 for name, value in aux['observed'].items()}  # squares of gradients
    if 'scale/skipped' in seen:  # a step that loss scaling skipped is no divergence
        observed = {name: jnp.where(seen['scale/skipped'] > 0, 0, value) for name, value in observed.items()}
    return Learnt(params, aux['collections'], opt_state), sums, {**observed, **seen}
