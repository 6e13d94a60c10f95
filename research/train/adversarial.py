"""Two players in one step: the discriminator's update, then the generator's; what stands beside `research.train.step`.

Goodfellow et al. 2014 (Generative adversarial nets, algorithm 1 with k = 1): each update draws latents of its own. Either
update is stages 2 to 5 of `step` with a loss of its own, so that accumulation, clipping, averaging and precision are those
of any network; stage 1 is for real images. Each player has its own optimizer, made of the same config: what is to be different
is told by path, such as the discriminator's faster rate of Heusel et al. 2017, {'optimizer.rate_multipliers':
(('discriminator/*', 4.0),)}.

Virtual batch normalization in the generator has a reference batch of latents, drawn once a run, whose pass stands inside of
whatever is differentiated. A player's collections are changed by its own update alone.

Cost: a step is two updates of a network. Claim: samples like the data, from no likelihood. Clashes: resizing, freezing and
rematerialization are for one network and refused; a loss that falls says nothing, so judge by the Fréchet distance.
"""

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from research import augment, catalogue, compress, gradients, models, optim
from research.data import Dataset
from research.layers.example import example_keys, key_of
from research.optim.paths import reaches, refuse_unmatched
from research.tasks import generation
from research.train import precision
from research.train.chunks import gather, mean_over, stacked
from research.train.parallel import Jit, Pmap
from research.train.phases import Phase
from research.train.state import State
from research.train.step import descend

PLAYERS = ('discriminator', 'generator')

# Images of a sample grid.
_SAMPLES = 100
# Stored pixels 0 to 255 are what the players see as -1 to 1.
_HALF = 127.5


class Players(NamedTuple):
    """What a step of two players is made of, and an evaluation; `seen` are parameters behind stage 2, of both players.

    Attributes:
      step: `train_step`, what a chunk does over and over.
      augment: (keys [B], images [B, H, W, C]) -> images, of real ones.
      weights: (params, masks) -> params that are seen.
      generate: (seen, collections, latents [B, Z], latents of the reference batch [R, Z]) -> (images, collections).
      discriminate: (seen, collections, images) -> (logits [B], collections); this and `generate` in training.
      predict: (seen, collections, latents) -> images; an inference.
      recognize: (seen, collections, images) -> logits; an inference.
      reference_pass: (seen, collections, latents) -> collections whose statistics of the generator are those of this batch.
      recognition_pass: (seen, collections, images) -> collections whose statistics of the discriminator are those of these.
      latents: (rng, purpose, positions [B, 2]) -> [B, Z].
      judge: (judge, images in [-1, 1]) -> (features [B, F], logits [B, K]) of the classifier.
      task, gradient: as in `research.tasks.generation` and `research.gradients`.
      update: player -> its optax chain, over {player: params}.
    """

    step: Callable[..., Any]
    augment: Callable[..., Any]
    weights: Callable[..., Any]
    generate: Callable[..., Any]
    discriminate: Callable[..., Any]
    predict: Callable[..., Any]
    recognize: Callable[..., Any]
    reference_pass: Callable[..., Any]
    recognition_pass: Callable[..., Any]
    latents: Callable[..., Any]
    judge: Callable[..., Any]
    task: generation.Generation
    gradient: Callable[..., Any]
    update: Mapping[str, Any]


def create(
    config: Mapping[str, Any], dataset: Dataset, task: generation.Generation, axis_name: str | None
) -> tuple[nn.Module, Players, Callable[[int], jax.Array]]:
    """The network of both players, the step's parts, and what an inference of so many images takes, as a config says.

    Raises:
      ConfigError: images that the network does not make, or a technique that two players cannot follow.
    """
    module = network(config['model'], 0, axis_name=axis_name)

    def inputs(count: int) -> jax.Array:
        return jnp.zeros((count, module.latents))

    shapes = jax.eval_shape(module.init, jax.random.key(0), inputs(2))
    _check(config, dataset, task, jax.eval_shape(module.apply, shapes, inputs(2)).shape[1:], shapes)
    running = sorted(set(shapes) - {'params', 'reference'})
    compute, whole = precision.casts(config['train']['precision'])
    classifier = models.create(num_classes=dataset.num_classes, **generation.JUDGE)
    features = generation.penultimate(classifier)

    def apply(seen, collections, x, mutable=False, **kwargs):
        return module.apply({'params': compute(seen), **collections}, compute(x), mutable=mutable, **kwargs)

    def reference_pass(seen, collections, latents):
        _, new = apply(seen, collections, latents, ['reference', 'batch_stats'])
        return new

    def recognition_pass(seen, collections, images):
        _, new = apply(seen, collections, images, ['reference', 'batch_stats'], method='discriminate')
        return new

    def generate(seen, collections, latents, reference):
        if 'reference' in collections:
            collections = {**collections, 'reference': reference_pass(seen, collections, reference)['reference']}
        images, new = apply(seen, collections, latents, running, train=True)
        return whole(images), jax.lax.stop_gradient({**collections, **new})

    def discriminate(seen, collections, images):
        logits, new = apply(seen, collections, images, running, train=True, method='discriminate')
        return whole(logits), jax.lax.stop_gradient({**collections, **new})

    def draw(rng, purpose, positions):
        keys = example_keys(rng, purpose, positions)
        return jax.vmap(lambda key: jax.random.normal(key, (module.latents,)))(keys)

    def judge(judge, images):
        stored = jnp.round((images + 1) * _HALF)  # as an image file holds them
        return features(judge['variables'], (stored - judge['mean']) / judge['std'])

    players = Players(
        step=train_step,
        augment=augment.create(config['augment']),
        weights=compress.create(config['compress']),
        generate=generate,
        discriminate=discriminate,
        predict=lambda seen, collections, latents: whole(apply(seen, collections, latents)),
        recognize=lambda seen, collections, images: whole(apply(seen, collections, images, method='discriminate')),
        reference_pass=reference_pass,
        recognition_pass=recognition_pass,
        latents=draw,
        judge=judge,
        task=task,
        gradient=functools.partial(gradients.create, config['gradient']),
        update={player: optim.create(_of_player(config, player, shapes['params'])) for player in PLAYERS},
    )
    return module, players, inputs


def _of_player(config: Mapping[str, Any], player: str, params: Any) -> dict[str, Any]:
    """The config with those patterns over parameter paths that reach a player; each has to reach one of the two."""
    optimizer, clip, own = config['optimizer'], config['optimizer']['clip'], {player: params[player]}
    found = {}
    for field in ('rate_multipliers', 'decay_multipliers'):
        refuse_unmatched(f'optimizer.{field}', (pattern for pattern, _ in optimizer[field]), params)
        found[field] = tuple(pair for pair in optimizer[field] if reaches(pair[0], own))
    if exclude := clip.get('exclude'):
        refuse_unmatched('optimizer.clip.exclude', exclude, params)
        found['clip'] = {**clip, 'exclude': tuple(pattern for pattern in exclude if reaches(pattern, own))}
    return {**config, 'optimizer': {**optimizer, **found}}


def network(group: Mapping[str, Any], classes: int, **given: Any) -> nn.Module:
    """The network of the group `config.model`; it knows no classes."""
    del classes
    kwargs = {key: value for key, value in group.items() if key not in models.OWN}
    return catalogue.build('generative model', kwargs, models.GENERATORS, **given)


def initial_state(
    module: nn.Module,
    players: Players,
    inputs: jax.Array,
    rng: jax.Array,
    numbers: Mapping[str, Any],
    weights: Mapping[str, Any],
) -> State:
    """The state before the first step: `params` and `opt_state` by player, inside of every collection likewise.

    Arguments are as of `step.initial_state`; there are no weights of others.
    """
    del weights
    variables = module.init(key_of(rng, 'init'), inputs)
    params = variables['params']
    return State(
        step=jnp.int32(0),
        rng=rng,
        params=params,
        collections={k: v for k, v in variables.items() if k != 'params'},
        opt_state={p: optim.inject(players.update[p].init({p: params[p]}), **numbers) for p in PLAYERS},
        masks={},
    )


def metric_names(players: Players, task: generation.Generation, inputs: Callable[[int], jax.Array], shapes: State) -> list[str]:
    """What an evaluation comes to."""
    del players, inputs, shapes
    return [*generation.MEANS.values(), *task.judged]


def train_step(
    players: Players,
    engine: Jit | Pmap,
    phase: Phase,
    state: State,
    batch: Mapping[str, jax.Array],
    data: Mapping[str, jax.Array],
    reference: jax.Array,
    controls: Mapping[str, jax.Array],
) -> tuple[State, dict[str, jax.Array]]:
    """One update of each player; arguments and results as of `step.train_step`.

    The reference batch is one of latents, as many as `reference` has images. 'loss' is the generator's.
    """
    del data
    losses = _losses(players, engine, state, reference)
    state, sums, observed = _update(players, engine, phase, state, 'discriminator', losses, batch, controls)
    state, more, also = _update(players, engine, phase, state, 'generator', losses, batch, controls)
    both = {name: (observed[name] + also[name]) / 2 for name in observed}
    both['gradient/norm'] = jnp.hypot(observed['gradient/norm'], also['gradient/norm'])
    return state.replace(step=state.step + 1), {**sums, **more, **both}


def updates(
    players: Players, engine: Jit | Pmap, phase: Phase, state: State, batch, data, reference, controls
) -> Iterator[Any]:
    """Yields (loss function, its parameters, collections) of each update of a step; arguments as of `train_step`."""
    del data
    losses = _losses(players, engine, state, reference)
    for player in PLAYERS:
        yield _loss_function(players, state, player, losses), {player: state.params[player]}, state.collections
        state, *_ = _update(players, engine, phase, state, player, losses, batch, controls)


def _losses(players: Players, engine: Jit | Pmap, state: State, reference: jax.Array) -> dict[str, Callable[..., Any]]:
    """player -> (seen, collections, batch) -> (losses [B], sums, collections), at the latents that a step of `state` draws."""
    drawn = engine.reference_rows(players.latents(state.rng, 'reference', _positions(0, len(reference))))

    def discriminator(seen, collections, batch):
        real = _scaled(players.augment(example_keys(state.rng, 'augment', batch['position']), batch['image']))
        latents = players.latents(state.rng, 'discriminator', batch['position'])
        generated, _ = players.generate(seen, collections, latents, drawn)
        on_real, collections = players.discriminate(seen, collections, real)
        on_generated, collections = players.discriminate(seen, collections, generated)
        losses = players.task.discriminator(on_real, on_generated) * batch['mask']
        caught = jnp.sum(_caught(on_real, on_generated) * batch['mask'])
        return losses, {'discriminator_loss': jnp.sum(losses), 'caught': caught}, collections

    def generator(seen, collections, batch):
        latents = players.latents(state.rng, 'generator', batch['position'])
        generated, collections = players.generate(seen, collections, latents, drawn)
        logits, _ = players.discriminate(seen, collections, generated)
        losses = players.task.generator(logits) * batch['mask']
        return losses, {'loss': jnp.sum(losses)}, collections

    return {'discriminator': discriminator, 'generator': generator}


def _loss_function(players: Players, state: State, player: str, losses: Mapping[str, Callable[..., Any]]) -> Callable[..., Any]:
    """As `step.loss_function`, of {player: params}."""
    scale = optim.loss_scale(state.opt_state[player])

    def loss_fn(params, collections, batch):
        seen = players.weights({**state.params, **params}, state.masks)
        found, sums, collections = losses[player](seen, collections, batch)
        sums['count'] = jnp.sum(batch['mask'])
        return jnp.sum(found) * scale, {'sums': sums, 'collections': collections, 'losses': found}

    return loss_fn


def _update(players, engine, phase, state, player, losses, batch, controls):
    """Stages 2 to 5 for one player: (state, sums over the batch, what was observed)."""
    opt_state, params = state.opt_state[player], {player: state.params[player]}
    loss_fn, own = _loss_function(players, state, player, losses), players._replace(update=players.update[player])
    moved, sums, observed = descend(own, engine, phase, loss_fn, params, state.collections, opt_state, batch, controls)
    params, collections, opt_state = moved
    state = state.replace(
        params={**state.params, **params},
        collections=collections,
        opt_state={**state.opt_state, player: opt_state},
    )
    return state, sums, observed


def evaluate(players: Players, engine: Jit | Pmap, params, masks, collections, data, indices, mask, batches, first):
    """Sums, and features of the images of a split and of as many generated ones, padded as in `step.evaluate`.

    Latents are the same in every evaluation of every run: row i of a split has the i-th.

    Args:
      data: with 'judge': {'variables', 'mean', 'std'} of the classifier.

    Returns:
      ({'loss', ...: float32 [E]}, {'real', 'generated': float32 [E, B, F]}).
    """
    seen = players.weights(params, masks)
    rows = indices.shape[1]

    def one(i):
        batch = gather(engine, data, indices[i], mask[i])
        latents = players.latents(jax.random.key(0), 'evaluation', engine.rows(_positions(first + i * rows, rows)))
        generated, real = players.predict(seen, collections, latents), _scaled(batch['image'])
        on_real, on_generated = (players.recognize(seen, collections, images) for images in (real, generated))
        features, logits = players.judge(data['judge'], real)
        losses = {
            'loss': players.task.generator(on_generated),
            'discriminator_loss': players.task.discriminator(on_real, on_generated),
            'caught': _caught(on_real, on_generated),
            'judge_correct': jnp.argmax(logits, -1) == batch['label'],
            'count': jnp.ones_like(batch['mask']),
        }
        sums = {name: jnp.sum(values * batch['mask']) for name, values in losses.items()}
        found = {'real': features, 'generated': players.judge(data['judge'], generated)[0]}
        return engine.total(sums), jax.tree.map(engine.whole, found)

    return stacked(one, len(indices), batches)


def final(players: Players, engine: Jit | Pmap, state: State, data, reference, statistics):
    """(params, collections) for evaluation, as in `step.final`.

    The generator's statistics are those of latents; the discriminator's are means over real and as many generated images.
    """
    del data
    params = {}
    for player in PLAYERS:
        params |= optim.evaluation_params({player: state.params[player]}, state.opt_state[player])
    seen, collections = players.weights(params, state.masks), state.collections
    blocks, rows = statistics.shape[:2]

    def drawn(purpose, first, count):
        return engine.reference_rows(players.latents(state.rng, purpose, _positions(first, count)))

    def refreshed(player, of_block):
        averaged = mean_over(of_block, blocks, collections['batch_stats'][player])
        return {**collections, 'batch_stats': {**collections['batch_stats'], player: averaged}}

    def generated(k):
        return players.reference_pass(seen, collections, drawn('statistics', k * rows, rows))['batch_stats']['generator']

    def recognized(k):
        made = players.predict(seen, collections, drawn('statistics', k * rows, rows))
        batches = made, engine.reference_rows(_scaled(statistics[k]))
        found = [players.recognition_pass(seen, collections, images)['batch_stats']['discriminator'] for images in batches]
        return jax.tree.map(lambda one, other: (one + other) / 2, *found)

    if blocks and 'generator' in collections.get('batch_stats', {}):
        collections = refreshed('generator', generated)
    if 'reference' in collections:
        latents = drawn('reference', 0, len(reference))
        collections = {**collections, 'reference': players.reference_pass(seen, collections, latents)['reference']}
    if blocks and 'discriminator' in collections.get('batch_stats', {}):
        collections = refreshed('discriminator', recognized)
    return params, collections


def samples(players: Players, engine: Jit | Pmap, params, masks, collections) -> jax.Array:
    """The first images of an evaluation, uint8 [100, H, W, C]."""
    del engine
    latents = players.latents(jax.random.key(0), 'evaluation', _positions(0, _SAMPLES))
    images = players.predict(players.weights(params, masks), collections, latents)
    return jnp.round((images + 1) * _HALF).astype(jnp.uint8)


def _positions(first, count: int) -> jax.Array:
    """uint32 [count, 2]: halves of the positions from `first` on, below 2^32."""
    low = first + jnp.arange(count, dtype=jnp.uint32)
    return jnp.stack([jnp.zeros_like(low), low.astype(jnp.uint32)], axis=-1)


def _scaled(images: jax.Array) -> jax.Array:
    return images.astype(jnp.float32) / _HALF - 1


def _caught(real: jax.Array, generated: jax.Array) -> jax.Array:
    """How much of an example's two answers is right, float32 [B]."""
    return ((real > 0).astype(jnp.float32) + (generated <= 0)) / 2


def _check(config, dataset: Dataset, task: generation.Generation, made: tuple[int, ...], shapes: Any) -> None:
    for split in ('validation', 'test'):
        if 0 < (count := len(dataset.splits[split])) < task.least:
            raise catalogue.ConfigError(
                f'The {split} split has {count} examples, and generated ones are judged by at least {task.least}: make it '
                'larger, or lower task.neighbours.'
            )
    if made != dataset.example_shape or dataset.dtype != np.uint8:
        raise catalogue.ConfigError(
            f"'{config['model']['name']}' makes uint8 images of {made}, and data '{dataset.name}' has {dataset.dtype} "
            f'{dataset.example_shape}: set model.side and model.channels to the data.'
        )
    if 'discriminator' in shapes.get('reference', {}):
        raise catalogue.ConfigError(
            "model.discriminator_norm 'virtual_batch' has no reference batch: it is one of latents, for the generator. "
            "Choose 'batch', 'ghost_batch' or 'none'."
        )
    if config['model']['init_from']:
        raise catalogue.ConfigError("Nobody's weights are known for two players: leave model.init_from at ''.")
    if config['model']['num_classes']:
        raise catalogue.ConfigError("'model.num_classes' is of one network, and two players know no classes: leave it at 0.")
    if config['train']['remat'] != 'none':
        raise catalogue.ConfigError(
            f"train.remat '{config['train']['remat']}' is for one network, not for two players: 'none'."
        )
    for group, name, neutral in (('augment', 'resize', 'constant'), ('gradient', 'freeze', 'none')):
        if (chosen := config[group][name]['name']) != neutral:
            raise catalogue.ConfigError(f"{group}.{name} '{chosen}' is for one network, not for two players: '{neutral}'.")
