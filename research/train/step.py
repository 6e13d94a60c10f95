"""One training step of one network, `augment -> weights -> apply -> loss -> gradient -> update`, and an evaluation.

Pure functions, written for the whole batch; an engine (research.train.parallel) says where rows and sums live. Letters:
B examples a batch, R examples of the reference batch, E rows of an evaluation, K blocks of the examples that statistics are
taken from. What fits no such step has a file of its own with the same names in it: research.train.adversarial.
"""

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax.traverse_util import flatten_dict, unflatten_dict

from research import augment, compress, gradients, models, optim, pretrained
from research.augment import resize
from research.data import Dataset
from research.gradients import freezing
from research.layers.example import example_keys, key_of
from research.tasks import Task
from research.train import precision
from research.train.chunks import gather, mean_over, stacked, standardize
from research.train.parallel import Jit, Pmap
from research.train.phases import Phase
from research.train.state import State


class Stages(NamedTuple):
    """The five stages, each a pure function, and what an evaluation needs of them.

    Attributes:
      step: `train_step`, what a chunk does over and over.
      augment: (keys [B], images [B, H, W, C]) -> images.
      resize: (images, side) -> images of another size.
      freeze: (params, names) -> params, of which these get no gradient.
      weights: (params, masks) -> params that are seen.
      apply: (seen, collections, images, reference images, positions [B, 2], rng) -> (outputs, outputs of auxiliary heads by
        name, collections).
      predict: (seen, collections, images) -> outputs; an inference.
      reference_pass: (seen, collections, images) -> collections whose statistics are those of these images.
      auxiliary_weight: of the loss of each auxiliary head in what is trained on; that of the outputs is 1.
      train_sums, sums, losses, correct: of the task.
      gradient: micro-batches -> (loss_fn, engine) -> (params, collections, batch) -> (gradient of the sum, aux).
      update: the optax chain.
    """

    step: Callable[..., Any]
    augment: Callable[..., Any]
    resize: Callable[..., Any]
    freeze: Callable[..., Any]
    weights: Callable[..., Any]
    apply: Callable[..., Any]
    predict: Callable[..., Any]
    reference_pass: Callable[..., Any]
    auxiliary_weight: float
    train_sums: Callable[..., Any]
    sums: Callable[..., Any]
    losses: Callable[..., Any]
    correct: Callable[..., Any]
    gradient: Callable[..., Any]
    update: Any


def create(
    config: Mapping[str, Any], dataset: Dataset, task: Task, axis_name: str | None
) -> tuple[nn.Module, Stages, Callable[[int], jax.Array]]:
    """The network, its stages, and what an inference of so many examples takes (zeros), as a config says.

    Raises:
      ConfigError: a name or argument that does not fit.
    """
    train, classes = config['train'], config['model']['num_classes'] or dataset.num_classes
    module = network(config['model'], classes, axis_name=axis_name, remat=train['remat'])

    def inputs(count: int) -> jax.Array:
        return jnp.zeros((count, *dataset.example_shape))

    shapes = jax.eval_shape(module.init, jax.random.key(0), inputs(2))
    example = shapes.get('example', {})
    # Named one by one: a mutable `reference` would make any call a reference pass.
    running = sorted(set(shapes) - {'params', 'reference', 'example'})
    compute, whole = precision.casts(train['precision'])

    def reference_pass(seen, collections, images):
        # Nothing random in it: not training.
        variables = {'params': compute(seen), **collections}
        _, new = module.apply(variables, compute(images), train=False, mutable=['reference', 'batch_stats'])
        return new

    def apply(seen, collections, images, reference, positions, rng):
        if 'reference' in collections:
            collections = {**collections, 'reference': reference_pass(seen, collections, reference)['reference']}
        told = {'position': positions, 'rng': rng}
        drawing = jax.tree_util.tree_map_with_path(lambda path, _: told[path[-1].key], example)
        variables = {'params': compute(seen), **collections, **({'example': drawing} if example else {})}
        outputs, new = module.apply(variables, compute(images), train=True, mutable=[*running, 'auxiliary'])
        auxiliary = new.pop('auxiliary', {})
        return whole(outputs), whole(auxiliary), jax.lax.stop_gradient({**collections, **new})

    def predict(seen, collections, images):
        return whole(module.apply({'params': compute(seen), **collections}, compute(images), train=False))

    stages = Stages(
        step=train_step,
        augment=augment.create(config['augment']),
        resize=resize.resize,
        freeze=freezing.freeze,
        weights=compress.create(config['compress']),
        apply=apply,
        predict=predict,
        reference_pass=reference_pass,
        auxiliary_weight=getattr(module, 'auxiliary_weight', 0.0),
        train_sums=task.train_sums,
        sums=task.sums,
        losses=task.losses,
        correct=task.correct,
        gradient=functools.partial(gradients.create, config['gradient']),
        update=optim.create(config),
    )
    return module, stages, inputs


def network(group: Mapping[str, Any], classes: int, **given: Any) -> nn.Module:
    """The network of the group `config.model`."""
    kwargs = {key: value for key, value in group.items() if key not in ('name', *models.OWN)}
    return models.create(group['name'], classes, **given, **pretrained.arguments(group['name'], group['init_from']) | kwargs)


def initial_state(
    module: nn.Module,
    stages: Stages,
    inputs: jax.Array,
    rng: jax.Array,
    numbers: Mapping[str, Any],
    weights: Mapping[str, Any],
) -> State:
    """The state before the first step.

    Args:
      inputs: of an inference of two examples or more.
      rng: the seed's typed key [].
      numbers: `research.optim.hyperparameters`.
      weights: of `pretrained.weights`, in place of those that are drawn; {} for none.
    """
    drawn = flatten_dict(module.init(key_of(rng, 'init'), inputs))
    variables = unflatten_dict(drawn | flatten_dict(weights))
    params = variables['params']
    return State(
        step=jnp.int32(0),
        rng=rng,
        params=params,
        collections={k: v for k, v in variables.items() if k not in ('params', 'example')},
        opt_state=optim.inject(stages.update.init(params), **numbers),
        masks={},
    )


def metric_names(stages: Stages, task: Task, inputs: Callable[[int], jax.Array], shapes: State) -> list[str]:
    """What an evaluation comes to; fails as it would where outputs and task do not fit each other."""
    batch = {'label': jnp.zeros(2, jnp.int32), 'mask': jnp.ones(2)}

    def sums(params, collections):
        return task.sums(stages.predict(params, collections, inputs(2)), batch)

    return list(task.metrics(dict.fromkeys(jax.eval_shape(sums, shapes.params, shapes.collections), 1.0)))


def loss_function(stages: Stages, phase: Phase, state: State, data, reference) -> Callable[..., Any]:
    """(params, collections, batch) -> (sum of the losses, scaled where the optimizer scales it; what a step needs of it)."""
    scale = optim.loss_scale(state.opt_state)

    def loss_fn(params, collections, batch):
        keys = example_keys(state.rng, 'augment', batch['position'])
        images = stages.resize(standardize(stages.augment(keys, batch['image']), data), phase.side)
        seen = stages.weights(stages.freeze(params, phase.frozen), state.masks)
        outputs, auxiliary, collections = stages.apply(seen, collections, images, reference, batch['position'], state.rng)
        sums = stages.train_sums(outputs, batch)
        loss = sums['loss']
        for head in auxiliary.values():
            loss += stages.auxiliary_weight * stages.train_sums(head, batch)['loss']
        return loss * scale, {'sums': sums, 'collections': collections, 'losses': stages.losses(outputs, batch)}

    return loss_fn


def train_step(
    stages: Stages,
    engine: Jit | Pmap,
    phase: Phase,
    state: State,
    batch: Mapping[str, jax.Array],
    data: Mapping[str, jax.Array],
    reference: jax.Array,
    controls: Mapping[str, jax.Array],
) -> tuple[State, dict[str, jax.Array]]:
    """One update.

    Args:
      batch: arrays with rows, [B, ...], or [n, B / n, ...] in n micro-batches: image as stored, label, mask, position [..., 2].
      data: mean and std [1, 1, 1, C].
      reference: the reference batch [R, H, W, C], standardized.
      controls: float32 [] each: the learning rate, and whatever else changes from step to step.

    Returns:
      (state, sums over the batch; beside them, under names with a slash, what was observed in this step).
    """
    loss_fn = loss_function(stages, phase, state, data, reference)
    moved, sums, observed = descend(
        stages, engine, phase, loss_fn, state.params, state.collections, state.opt_state, batch, controls
    )
    params, collections, opt_state = moved
    state = state.replace(step=state.step + 1, params=params, collections=collections, opt_state=opt_state)
    return state, {**sums, **observed}


def updates(
    stages: Stages, engine: Jit | Pmap, phase: Phase, state: State, batch, data, reference, controls
) -> Iterator[tuple[Any, ...]]:
    """Yields (loss function, its parameters, collections) of each update of a step; arguments as of `train_step`."""
    del engine, batch, controls
    yield loss_function(stages, phase, state, data, reference), state.params, state.collections


def descend(
    stages: Any, engine: Jit | Pmap, phase: Phase, loss_fn: Callable[..., Any], params, collections, opt_state, batch, controls
) -> tuple[tuple[Any, Any, Any], dict[str, jax.Array], dict[str, jax.Array]]:
    """Stages 4 and 5: loss -> gradient -> update.

    Args:
      stages: whose `gradient` and `update` are used.
      loss_fn: as of `loss_function`.
      params, collections, opt_state: of what is updated.
      batch, controls: as of `train_step`.

    Returns:
      ((params, collections, opt_state) after the update, sums over the batch, what was observed in this step).
    """
    scale = optim.loss_scale(opt_state)
    gradient, aux = stages.gradient(phase.micro_batches)(loss_fn, engine)(params, collections, batch)
    sums, count = engine.total((aux['sums'], aux['count']))
    count = jnp.where(count > 0, count, 1)
    gradient = jax.tree.map(lambda g: g / count, engine.total(gradient))
    updates, opt_state = stages.update.update(gradient, optim.inject(opt_state, **controls), params)
    updates = {name: jax.tree.map(jnp.zeros_like, u) if name in phase.frozen else u for name, u in updates.items()}
    params = jax.tree.map(jnp.add, params, updates)
    seen = optim.observations(opt_state)
    observed = {'gradient/norm': optax.tree.norm(gradient) / scale}
    observed |= {name: value / scale**2 for name, value in aux['observed'].items()}  # squares of gradients
    if 'scale/skipped' in seen:  # a step that loss scaling skipped is no divergence
        observed = {name: jnp.where(seen['scale/skipped'] > 0, 0, value) for name, value in observed.items()}
    return (params, aux['collections'], opt_state), sums, {**observed, **seen}


def evaluate(stages: Stages, engine: Jit | Pmap, params, masks, collections, data, indices, mask, batches, first):
    """Sums and correctness of each batch of a split, padded to full batches; every example counts once.

    Args:
      indices: int32 [E, B]; mask: float32 [E, B], 0 on padding; batches: int32 [], how many of the E rows are looked at;
        first: int32 [], the place in the split of the first of them.

    Returns:
      ({'loss', ...: float32 [E]}, {'correct': bool [E, B]}).
    """
    del first  # nothing is drawn
    seen = stages.weights(params, masks)

    def one(i):
        batch = gather(engine, data, indices[i], mask[i])
        outputs = stages.predict(seen, collections, standardize(batch['image'], data))
        return engine.total(stages.sums(outputs, batch)), {'correct': engine.whole(stages.correct(outputs, batch))}

    return stacked(one, len(indices), batches)


def final(stages: Stages, engine: Jit | Pmap, state: State, data, reference, statistics):
    """The one notion of what is scored, saved and exported: (params, collections) for evaluation.

    Parameters are the averaged ones where the optimizer keeps any. Statistics are made to fit them: those of the reference
    batch, which lag the weights by one update, and of batch normalization, which belong to the weights that were trained.

    Args:
      reference: the reference batch as stored [R, H, W, C].
      statistics: images as stored [K, B, H, W, C], over whose blocks batch statistics are averaged; K = 0 leaves them.
    """
    params = optim.evaluation_params(state.params, state.opt_state)
    seen, collections = stages.weights(params, state.masks), state.collections

    def passed(images):
        return stages.reference_pass(seen, state.collections, standardize(engine.reference_rows(images), data))

    if len(statistics):
        averaged = mean_over(lambda k: passed(statistics[k])['batch_stats'], len(statistics), collections['batch_stats'])
        collections = {**collections, 'batch_stats': averaged}
    if 'reference' in collections:
        collections = {**collections, 'reference': passed(reference)['reference']}
    return params, collections
