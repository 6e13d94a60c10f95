"""One training step, `augment -> weights -> apply -> loss -> gradient -> update`, and the loops that run it on the device.

Pure functions, written for the whole batch; an engine (research.train.parallel) says where rows and sums live. Letters:
S steps a chunk, B examples a batch, N examples of the data, R examples of the reference batch, E rows of an evaluation.
"""

import zlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from research import optim
from research.train.parallel import Jit, Pmap
from research.train.state import State


class Stages(NamedTuple):
    """The five stages, each a pure function, and what an evaluation needs of them.

    Attributes:
      augment: (keys [B], images [B, H, W, C]) -> images.
      weights: (params, masks) -> params that are seen.
      apply: (seen, collections, images, reference images, positions [B, 2], rng) -> (outputs, collections).
      predict: (seen, collections, images) -> outputs; an inference.
      refresh: (seen, collections, reference images) -> collections that fit these parameters.
      sums, correct: of the task.
      gradient: loss_fn -> (params, batch) -> (gradient, aux).
      update: the optax chain.
    """

    augment: Callable[..., Any]
    weights: Callable[..., Any]
    apply: Callable[..., Any]
    predict: Callable[..., Any]
    refresh: Callable[..., Any]
    sums: Callable[..., Any]
    correct: Callable[..., Any]
    gradient: Callable[..., Any]
    update: Any


def key_of(rng: jax.Array, purpose: str) -> jax.Array:
    """The seed's key for one purpose; two purposes never share draws."""
    return jax.random.fold_in(rng, zlib.crc32(purpose.encode()))


def example_keys(rng: jax.Array, purpose: str, positions: jax.Array) -> jax.Array:
    """One key an example, whatever the batch, the device or the engine that it meets.

    Args:
      rng: the seed's typed key [].
      purpose: what is drawn.
      positions: uint32 [B, 2], the high and the low half of each position (one fold_in would overflow at 2^32).

    Returns:
      Typed keys [B].
    """
    purpose_key = key_of(rng, purpose)
    return jax.vmap(lambda p: jax.random.fold_in(jax.random.fold_in(purpose_key, p[0]), p[1]))(positions)


def standardize(images: jax.Array, data: Mapping[str, jax.Array]) -> jax.Array:
    """Stored images [B, H, W, C] -> float32 of mean 0 and deviation 1 over the training data, by channel."""
    return (images.astype(jnp.float32) - data['mean']) / data['std']


def train_step(
    stages: Stages, engine: Jit | Pmap, state: State, batch: Mapping[str, Any], rate: jax.Array
) -> tuple[State, Any]:
    """One update.

    Args:
      batch: image [B, H, W, C] as stored, label [B], mask [B], position [B, 2], `data` (mean, std), and the reference
        batch [R, H, W, C], standardized.
      rate: float32 [], the learning rate.

    Returns:
      (state, sums over the batch).
    """
    keys = example_keys(state.rng, 'augment', batch['position'])
    batch = {**batch, 'image': standardize(stages.augment(keys, batch['image']), batch['data'])}

    def loss_fn(params, batch):
        seen = stages.weights(params, state.masks)
        outputs, collections = stages.apply(
            seen, state.collections, batch['image'], batch['reference'], batch['position'], state.rng
        )
        sums = stages.sums(outputs, batch)
        return sums['loss'] / engine.total(jax.lax.stop_gradient(sums['count'])), (sums, collections)

    gradient, (sums, collections) = stages.gradient(loss_fn)(state.params, batch)
    updates, opt_state = stages.update.update(
        engine.total(gradient), optim.with_learning_rate(state.opt_state, rate), state.params
    )
    params = jax.tree.map(jnp.add, state.params, updates)
    state = state.replace(step=state.step + 1, params=params, collections=collections, opt_state=opt_state)
    return state, engine.total(sums)


def gather(engine: Jit | Pmap, data: Mapping[str, jax.Array], indices: jax.Array, mask: jax.Array) -> dict[str, jax.Array]:
    """The rows [B] of the data [N, ...] that this device works on."""
    rows = engine.rows(indices)
    return {'image': data['image'][rows], 'label': data['label'][rows], 'mask': engine.rows(mask), 'data': data}


def train_chunk(stages: Stages, engine: Jit | Pmap, state: State, data, reference, indices, starts, rates, steps):
    """`steps` updates in one call: a loop with a traced trip count, so that every length is the same program and bits.

    Args:
      data: {'image' [N, H, W, C], 'label' [N], 'mean' and 'std' [1, 1, 1, C]}.
      reference: the reference batch as stored [R, H, W, C].
      indices: int32 [S, B], rows of each step's batch.
      starts: uint32 [S, 2], halves of the position of each step's first example.
      rates: float32 [S].
      steps: int32 [], how many of the S are done.

    Returns:
      (state, {'loss', 'correct', ...: float32 [S]} sums of each step, 0 behind `steps`).
    """
    mask = jnp.ones(indices.shape[1], jnp.float32)
    reference_images = standardize(engine.reference_rows(reference), data)

    def step(i, state):
        offset = starts[i, 1] + jnp.arange(indices.shape[1], dtype=jnp.uint32)
        carry = (offset < starts[i, 1]).astype(jnp.uint32)
        position = engine.rows(jnp.stack([starts[i, 0] + carry, offset], axis=-1))
        batch = gather(engine, data, indices[i], mask)
        return train_step(stages, engine, state, {**batch, 'position': position, 'reference': reference_images}, rates[i])

    sums = jax.eval_shape(step, jnp.int32(0), state)[1]
    buffers = jax.tree.map(lambda s: jnp.zeros(indices.shape[:1], s.dtype), sums)

    def body(i, carry):
        state, sums = step(i, carry[0])
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

    shapes = jax.eval_shape(one, jnp.int32(0))
    buffers = jax.tree.map(lambda s: jnp.zeros((indices.shape[0], *s.shape), s.dtype), shapes)

    def body(i, buffers):
        return jax.tree.map(lambda buffer, new: buffer.at[i].set(new), buffers, one(i))

    return jax.lax.fori_loop(0, batches, body, buffers)


def refresh(stages: Stages, engine: Jit | Pmap, params, masks, collections, data, reference):
    """Collections that fit the parameters as they are now: stored statistics lag them by one update."""
    images = standardize(engine.reference_rows(reference), data)
    return stages.refresh(stages.weights(params, masks), collections, images)
