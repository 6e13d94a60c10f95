"""Two players in one step: the discriminator's update, then the generator's; what stands beside `supervised`.

Goodfellow et al. 2014 (Generative adversarial nets, algorithm 1 with k = 1): each update draws latents of its own. Either
update is stages 2 to 5 with a loss of its own, so that accumulation, clipping, averaging and precision are those of any
network; stage 1 is for real examples. Each player has its own optimizer, made of the same config: what is to be different is
told by path, such as the discriminator's faster rate of Heusel et al. 2017, {'optimizer.rate_multipliers':
(('discriminator/*', 4.0),)}.

Virtual batch normalization in the generator has a reference batch of latents, drawn once a run, whose pass stands inside of
whatever is differentiated. A player's collections are changed by its own update alone.

Cost: a step is two updates of a network. Claim: samples like the data, from no likelihood. Clashes: resizing, freezing and
rematerialization are for one network and refused; a loss that falls says nothing, so judge by the Fréchet distance.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from research import optim
from research.data import Field
from research.layers.example import StepKeys, batch_key, example_keys, key_of
from research.tasks import generation
from research.tasks.generation import Generation
from research.train.batches import gather, length, mean_over, stacked
from research.train.parallel import Jit, Pmap
from research.train.state import Background, Block, Learnt, State, Variables
from research.train.steps.network import Descent, Inputs, Network, descend

PLAYERS = ('discriminator', 'generator')

# Examples of a sample grid.
_SAMPLES = 100


@dataclasses.dataclass(frozen=True, eq=False)
class Adversarial:
    """Two players, an update each; `research.train.steps.Step` says what the methods take and give.

    Attributes:
      network: both players, with their precision; a plain call is the generator's.
      augment: (keys [B], batch) -> batch, of real examples.
      weights: (params, masks) -> params that are seen, of both players.
      descents: player -> gradient and update, over {player: params}.
    """

    engine: Jit | Pmap
    task: Generation
    fields: Mapping[str, Field]
    network: Network
    augment: Callable[..., Any]
    weights: Callable[[Any, Any], Any]
    descents: Mapping[str, Descent]
    write: None = None

    @property
    def module(self) -> nn.Module:
        """The network's module."""
        return self.network.module

    def inputs(self, count: int) -> Inputs:
        """(args, kwargs) of `count` generated examples: latents of zeros."""
        return (jnp.zeros((count, self.module.latents)),), {}

    def init(self, rng: jax.Array, numbers: Mapping[str, Any], weights: Mapping[str, Any]) -> State:
        """The state before the first step: `params` and `opt_state` by player, inside of every collection likewise."""
        del weights  # refused for two players
        args, kwargs = self.inputs(2)
        variables = self.module.init(key_of(rng, 'init'), *args, **kwargs)
        params = variables['params']
        return State(
            step=jnp.int32(0),
            rng=rng,
            params=params,
            collections={k: v for k, v in variables.items() if k != 'params'},
            opt_state={p: optim.inject(self.descents[p].update.init({p: params[p]}), **numbers) for p in PLAYERS},
            masks={},
        )

    def reference(self, examples: Mapping[str, jax.Array], constants: Mapping[str, Any]) -> int:
        """How many latents the reference batch has: as many as there are examples of it."""
        del constants
        return length(examples)

    def predict(self, seen: Any, collections: Any, inputs: Inputs) -> jax.Array:
        """What the generator makes of latents."""
        return self.network.predict(seen, collections, inputs)

    def metric_names(self, shapes: State) -> list[str]:
        """What an evaluation comes to."""
        del shapes
        return [*generation.MEANS.values(), *self.task.judged]

    def train(self, phase, state, batch, reference, constants, controls):
        """One update of each player; 'loss' is the generator's."""
        losses = self._losses(state, reference, constants)
        state, sums, observed = self._update(phase, state, 'discriminator', losses, batch, controls)
        state, more, also = self._update(phase, state, 'generator', losses, batch, controls)
        both = {name: (observed[name] + also[name]) / 2 for name in observed}
        both['gradient/norm'] = jnp.hypot(observed['gradient/norm'], also['gradient/norm'])
        return state.replace(step=state.step + 1), {**sums, **more, **both}

    def updates(self, phase, state, batch, reference, constants, controls) -> Iterator[Any]:
        """The update of each player."""
        losses = self._losses(state, reference, constants)
        for player in PLAYERS:
            yield self._loss_function(state, player, losses), {player: state.params[player]}, state.collections
            state, *_ = self._update(phase, state, player, losses, batch, controls)

    def _losses(self, state: State, reference: int, constants: Mapping[str, Any]) -> dict[str, Callable[..., Any]]:
        """player -> (seen, collections, batch) -> (losses [B], sums, collections), at the latents that a step draws."""
        drawn = self.engine.reference_rows(self._latents(state.rng, 'reference', _positions(0, reference)))

        def key_for(update, batch):
            return lambda purpose: batch_key(state.rng, f'{update} {purpose}', batch['position'])

        def generate(seen, collections, latents, key):
            collections = self.network.referenced(seen, collections, only(drawn))
            made, _, collections = self.network.train(seen, collections, only(latents), key)
            return made, jax.lax.stop_gradient(collections)

        def discriminate(seen, collections, examples, key):
            logits, _, collections = self.network.train(seen, collections, only(examples), key, method='discriminate')
            return logits, jax.lax.stop_gradient(collections)

        def discriminator(seen, collections, batch):
            augmented = self.augment(example_keys(state.rng, 'augment', batch['position']), batch)
            real = self.task.real(augmented)
            latents = self._latents(state.rng, 'discriminator', batch['position'])
            generated, _ = generate(seen, collections, latents, key_for('discriminator', batch))
            on_real, collections = discriminate(seen, collections, real, key_for('real', batch))
            on_generated, collections = discriminate(seen, collections, generated, key_for('generated', batch))
            losses = self.task.discriminator(on_real, on_generated) * batch['valid']
            caught = jnp.sum(_caught(on_real, on_generated) * batch['valid'])
            return losses, {'discriminator_loss': jnp.sum(losses), 'caught': caught}, collections

        def generator(seen, collections, batch):
            latents = self._latents(state.rng, 'generator', batch['position'])
            key = key_for('generator', batch)
            generated, collections = generate(seen, collections, latents, key)
            logits, _ = discriminate(seen, collections, generated, key)
            losses = self.task.generator(logits) * batch['valid']
            return losses, {'loss': jnp.sum(losses)}, collections

        return {'discriminator': discriminator, 'generator': generator}

    def _loss_function(self, state: State, player: str, losses: Mapping[str, Callable[..., Any]]) -> Callable[..., Any]:
        """(params, collections, batch) -> (sum of the losses, aux) of {player: params}."""
        scale = optim.loss_scale(state.opt_state[player])

        def loss_fn(params, collections, batch):
            seen = self.weights({**state.params, **params}, state.masks)
            of_examples, sums, collections = losses[player](seen, collections, batch)
            sums['count'] = jnp.sum(batch['valid'])
            return jnp.sum(of_examples) * scale, {'sums': sums, 'collections': collections, 'losses': of_examples}

        return loss_fn

    def _update(self, phase, state, player, losses, batch, controls):
        """Stages 2 to 5 for one player: (state, sums over the batch, what was observed)."""
        learnt = Learnt({player: state.params[player]}, state.collections, state.opt_state[player])
        loss_fn = self._loss_function(state, player, losses)
        keys = StepKeys(key_of(state.rng, player), state.step)
        learnt, sums, observed = descend(self.descents[player], phase, loss_fn, learnt, batch, controls, keys)
        state = state.replace(
            params={**state.params, **learnt.params},
            collections=learnt.collections,
            opt_state={**state.opt_state, player: learnt.opt_state},
        )
        return state, sums, observed

    def evaluate(self, variables: Variables, data: Mapping[str, Any], block: Block):
        """Sums, and features of real examples and of as many generated ones.

        Latents are the same in every evaluation of every run: the i-th example has the i-th. The constants hold the 'judge'.
        """
        seen, collections, constants = self.weights(variables.params, variables.masks), variables.collections, data['constants']
        count = block.rows.shape[1]

        def one(i):
            batch = gather(self.engine, self.fields, data['examples'], block.rows[i], block.valid[i])
            positions = self.engine.rows(_positions(block.first + i * count, count))
            latents = self._latents(jax.random.key(0), 'evaluation', positions)
            generated, real = self.predict(seen, collections, only(latents)), self.task.real(batch)
            on_real, on_generated = (self._recognize(seen, collections, examples) for examples in (real, generated))
            features, right = self.task.recognized(constants, real, batch)
            values = {
                'loss': self.task.generator(on_generated),
                'discriminator_loss': self.task.discriminator(on_real, on_generated),
                'caught': _caught(on_real, on_generated),
                'judge_correct': right,
                'count': jnp.ones_like(batch['valid']),
            }
            sums = {name: jnp.sum(value * batch['valid']) for name, value in values.items()}
            rows = {'real': features, 'generated': self.task.recognized(constants, generated, batch)[0]}
            return self.engine.total(sums), jax.tree.map(self.engine.whole, rows)

        return stacked(one, len(block.rows), block.batches)

    def final(self, state: State, constants: Mapping[str, Any], background: Background) -> tuple[Any, Any]:
        """(params, collections) for evaluation.

        The generator's statistics are those of latents; the discriminator's are means over real and as many generated examples.
        """
        del constants
        params = {}
        for player in PLAYERS:
            params |= optim.evaluation_params({player: state.params[player]}, state.opt_state[player])
        seen, collections = self.weights(params, state.masks), state.collections
        blocks, count = next(iter(background.statistics.values())).shape[:2]

        def drawn(purpose, first, count):
            return self.engine.reference_rows(self._latents(state.rng, purpose, _positions(first, count)))

        def refreshed(player, of_block):
            averaged = mean_over(of_block, blocks, collections['batch_stats'][player])
            return {**collections, 'batch_stats': {**collections['batch_stats'], player: averaged}}

        def generated(k):
            latents = drawn('statistics', k * count, count)
            return self.network.statistics(seen, collections, only(latents))['batch_stats']['generator']

        def recognized(k):
            made = self.predict(seen, collections, only(drawn('statistics', k * count, count)))
            real = self.task.real(jax.tree.map(lambda values: values[k], background.statistics))
            passes = [
                self.network.statistics(seen, collections, only(examples), method='discriminate')['batch_stats']
                for examples in (made, self.engine.reference_rows(real))
            ]
            return jax.tree.map(lambda one, other: (one + other) / 2, *(new['discriminator'] for new in passes))

        if blocks and 'generator' in collections.get('batch_stats', {}):
            collections = refreshed('generator', generated)
        if 'reference' in collections:
            latents = drawn('reference', 0, length(background.reference))
            collections = self.network.referenced(seen, collections, only(latents))
        if blocks and 'discriminator' in collections.get('batch_stats', {}):
            collections = refreshed('discriminator', recognized)
        return params, collections

    def samples(self, variables: Variables) -> dict[str, jax.Array]:
        """The first examples that an evaluation generates, as the data store them [100, ...]."""
        latents = self._latents(jax.random.key(0), 'evaluation', _positions(0, _SAMPLES))
        seen = self.weights(variables.params, variables.masks)
        return {'samples': self.task.stored(self.predict(seen, variables.collections, only(latents)))}

    def _recognize(self, seen: Any, collections: Any, examples: jax.Array) -> jax.Array:
        """The discriminator's logits [B], at an inference."""
        return self.network.predict(seen, collections, only(examples), method='discriminate')

    def _latents(self, rng: jax.Array, purpose: str, positions: jax.Array) -> jax.Array:
        """Drawn at positions [B, 2] for one purpose: float32 [B, Z]."""
        keys = example_keys(rng, purpose, positions)
        return jax.vmap(lambda key: jax.random.normal(key, (self.module.latents,)))(keys)


def only(x: jax.Array) -> Inputs:
    """Inputs of one array."""
    return (x,), {}


def _positions(first: Any, count: int) -> jax.Array:
    """uint32 [count, 2]: halves of the positions from `first` on, below 2^32."""
    low = first + jnp.arange(count, dtype=jnp.uint32)
    return jnp.stack([jnp.zeros_like(low), low.astype(jnp.uint32)], axis=-1)


def _caught(real: jax.Array, generated: jax.Array) -> jax.Array:
    """How much of an example's two answers is right, float32 [B]."""
    return ((real > 0).astype(jnp.float32) + (generated <= 0)) / 2
