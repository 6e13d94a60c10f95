"""One training step, `augment -> weights -> apply -> loss -> gradient -> update`, and the loops that run it on the device.

Pure functions, written for the whole batch; an engine (research.train.parallel) says where rows and sums live. Letters:
S steps a chunk, B examples a batch, N examples of the data, R examples of the reference batch, E rows of an evaluation,
K blocks of the examples that statistics are taken from.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from research import optim
from research.layers.example import example_keys
from research.train.parallel import Jit, Pmap
from research.train.phases import Phase
from research.train.state import State


class Stages(NamedTuple):
    """The five stages, each a pure function, and what an evaluation needs of them.

    Attributes:
      augment: (keys [B], images [B, H, W, C]) -> images.
      resize: (images, side) -> images of another size.
      freeze: (params, names) -> params, of which these get no gradient.
      weights: (params, masks) -> params that are seen.
      apply: (seen, collections, images, reference images, positions [B, 2], rng) -> (outputs, collections).
      predict: (seen, collections, images) -> outputs; an inference.
      reference_pass: (seen, collections, images) -> collections whose statistics are those of these images.
      train_sums, sums, losses, correct: of the task.
      gradient: micro-batches -> (loss_fn, engine) -> (params, collections, batch) -> (gradient of the sum, aux).
      update: the optax chain.
    """

    augment: Callable[..., Any]
    resize: Callable[..., Any]
    freeze: Callable[..., Any]
    weights: Callable[..., Any]
    apply: Callable[..., Any]
    predict: Callable[..., Any]
    reference_pass: Callable[..., Any]
    train_sums: Callable[..., Any]
    sums: Callable[..., Any]
    losses: Callable[..., Any]
    correct: Callable[..., Any]
    gradient: Callable[..., Any]
    update: Any


def standardize(images: jax.Array, data: Mapping[str, jax.Array]) -> jax.Array:
    """Stored images [B, H, W, C] -> float32 of mean 0 and deviation 1 over the training data, by channel."""
    return (images.astype(jnp.float32) - data['mean']) / data['std']


def loss_function(stages: Stages, phase: Phase, state: State, data, reference) -> Callable[..., Any]:
    """(params, collections, batch) -> (sum of the losses, scaled where the optimizer scales it; what a step needs of it)."""
    scale = optim.loss_scale(state.opt_state)

    def loss_fn(params, collections, batch):
        keys = example_keys(state.rng, 'augment', batch['position'])
        images = stages.resize(standardize(stages.augment(keys, batch['image']), data), phase.side)
        seen = stages.weights(stages.freeze(params, phase.frozen), state.masks)
        outputs, collections = stages.apply(seen, collections, images, reference, batch['position'], state.rng)
        sums = stages.train_sums(outputs, batch)
        return sums['loss'] * scale, {'sums': sums, 'collections': collections, 'losses': stages.losses(outputs, batch)}

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


def gather(engine: Jit | Pmap, data: Mapping[str, jax.Array], indices: jax.Array, mask: jax.Array) -> dict[str, jax.Array]:
    """The rows [..., B] of the data [N, ...] that this device works on."""
    rows = engine.rows(indices, axis=-1)
    return {'image': data['image'][rows], 'label': data['label'][rows], 'mask': engine.rows(mask, axis=-1)}


def training_batch(
    engine: Jit | Pmap, micro_batches: int, data: Mapping[str, jax.Array], indices: jax.Array, start: jax.Array
) -> dict[str, jax.Array]:
    """What `train_step` takes: rows of the data with their positions, in n micro-batches, the last padded with masked rows.

    Args:
      indices: int32 [B].
      start: uint32 [2], halves of the position of the first row.
    """
    rows, n = len(indices), micro_batches
    size = -(-rows // n)
    padding, shape = n * size - rows, (n, size) if n > 1 else (size,)
    mask = jnp.pad(jnp.ones(rows, jnp.float32), (0, padding)).reshape(shape)
    low = start[1] + jnp.arange(n * size, dtype=jnp.uint32).reshape(shape)
    high = start[0] + (low < start[1]).astype(jnp.uint32)
    batch = gather(engine, data, jnp.pad(indices, (0, padding)).reshape(shape), mask)
    batch['position'] = jnp.stack([engine.rows(high, axis=-1), engine.rows(low, axis=-1)], axis=-1)
    return batch


def train_chunk(
    stages: Stages, engine: Jit | Pmap, phase: Phase, state: State, data, reference, indices, starts, controls, first, steps
):
    """`steps` updates in one call: a loop with a traced trip count, so that every length is the same program and bits.

    Args:
      data: {'image' [N, H, W, C], 'label' [N], 'mean' and 'std' [1, 1, 1, C]}.
      reference: the reference batch as stored [R, H, W, C].
      indices: int32 [S, B], rows of each step's batch.
      starts: uint32 [S, 2], halves of the position of each step's first example.
      controls: float32 [S] each.
      first: int32 [], the step that the state should be at.
      steps: int32 [], how many of the S are done.

    Returns:
      (state, {'loss', 'correct', ...: float32 [S]} sums of each step, 0 behind `steps`). From a step on whose loss or
      gradient is not finite the state stays what it was before it, over later chunks too, so that the cause can be found.
    """
    reference_images = standardize(engine.reference_rows(reference), data)

    def step(i, state):
        batch = training_batch(engine, phase.micro_batches, data, indices[i], starts[i])
        now = {name: values[i] for name, values in controls.items()}
        return train_step(stages, engine, phase, state, batch, data, reference_images, now)

    sums = jax.eval_shape(step, jnp.int32(0), state)[1]
    buffers = jax.tree.map(lambda s: jnp.zeros(indices.shape[:1], s.dtype), sums)

    def body(i, carry):
        new, sums = step(i, carry[0])
        sound = (carry[0].step == first + i) & jnp.isfinite(sums['loss']) & jnp.isfinite(sums['gradient/norm'])
        state = jax.tree.map(lambda n, old: n if n is old else jnp.where(sound, n, old), new, carry[0])
        return state, jax.tree.map(lambda buffer, new: buffer.at[i].set(new), carry[1], sums)

    return jax.lax.fori_loop(0, steps, body, (state, buffers))


def evaluate(stages: Stages, engine: Jit | Pmap, params, masks, collections, data, indices, mask, batches):
    """Sums and correctness of each batch of a split, padded to full batches; every example counts once.

    Args:
      indices: int32 [E, B]; mask: float32 [E, B], 0 on padding; batches: int32 [], how many of the E rows are looked at.

    Returns:
      ({'loss', ...: float32 [E]}, correct bool [E, B]).
    """
    seen = stages.weights(params, masks)

    def one(i):
        batch = gather(engine, data, indices[i], mask[i])
        outputs = stages.predict(seen, collections, standardize(batch['image'], data))
        return engine.total(stages.sums(outputs, batch)), engine.whole(stages.correct(outputs, batch))

    return stacked(one, len(indices), batches)


def stacked(one: Callable[[jax.Array], Any], size: int, count: jax.Array) -> Any:
    """`one(i)` for i below `count`, at index i of arrays [size, ...]; 0 behind."""
    buffers = jax.tree.map(lambda s: jnp.zeros((size, *s.shape), s.dtype), jax.eval_shape(one, jnp.int32(0)))

    def body(i, buffers):
        return jax.tree.map(lambda buffer, new: buffer.at[i].set(new), buffers, one(i))

    return jax.lax.fori_loop(0, count, body, buffers)


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


def mean_over(one: Callable[[jax.Array], Any], count: int, like: Any) -> Any:
    """The mean of the trees `one(k)`, k below `count`, which are like `like`."""

    def add(k, total):
        return jax.tree.map(lambda t, new: t + new / count, total, one(k))

    return jax.lax.fori_loop(0, count, add, jax.tree.map(jnp.zeros_like, like))
