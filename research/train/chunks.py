"""What a program does over rows of the data: gathers them, and repeats a step or an evaluation on the device.

Pure functions, written for the whole batch; an engine (research.train.parallel) says where rows and sums live. Letters:
S steps a chunk, B examples a batch, N examples of the data, R examples of the reference batch.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from research.train.parallel import Jit, Pmap
from research.train.phases import Phase


def standardize(images: jax.Array, data: Mapping[str, jax.Array]) -> jax.Array:
    """Stored images [B, H, W, C] -> float32 of mean 0 and deviation 1 over the training data, by channel."""
    return (images.astype(jnp.float32) - data['mean']) / data['std']


def gather(engine: Jit | Pmap, data: Mapping[str, jax.Array], indices: jax.Array, mask: jax.Array) -> dict[str, jax.Array]:
    """The rows [..., B] of the data [N, ...] that this device works on."""
    rows = engine.rows(indices, axis=-1)
    return {'image': data['image'][rows], 'label': data['label'][rows], 'mask': engine.rows(mask, axis=-1)}


def training_batch(
    engine: Jit | Pmap, micro_batches: int, data: Mapping[str, jax.Array], indices: jax.Array, start: jax.Array
) -> dict[str, jax.Array]:
    """What a step takes: rows of the data with their positions, in n micro-batches, the last padded with masked rows.

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
    stages: Any, engine: Jit | Pmap, phase: Phase, state: Any, data, reference, indices, starts, controls, first, steps
):
    """`steps` updates in one call: a loop with a traced trip count, so that every length is the same program and bits.

    Args:
      stages: whose `step` is done.
      data: {'image' [N, H, W, C], 'label' [N], 'mean' and 'std' [1, 1, 1, C]}.
      reference: the reference batch as stored [R, H, W, C].
      indices: int32 [S, B], rows of each step's batch.
      starts: uint32 [S, 2], halves of the position of each step's first example.
      controls: float32 [S] each.
      first: int32 [], the step that the state should be at.
      steps: int32 [], how many of the S are done.

    Returns:
      (state, {'loss', ...: float32 [S]} sums of each step, 0 behind `steps`). From a step on of which a sum or the
      gradient is not finite the state stays what it was before it, over later chunks too, so that the cause can be found.
    """
    reference_images = standardize(engine.reference_rows(reference), data)

    def step(i, state):
        batch = training_batch(engine, phase.micro_batches, data, indices[i], starts[i])
        now = {name: values[i] for name, values in controls.items()}
        return stages.step(stages, engine, phase, state, batch, data, reference_images, now)

    sums = jax.eval_shape(step, jnp.int32(0), state)[1]
    buffers = jax.tree.map(lambda s: jnp.zeros(indices.shape[:1], s.dtype), sums)

    def body(i, carry):
        new, sums = step(i, carry[0])
        watched = jnp.stack([sums['gradient/norm'], *(value for name, value in sums.items() if '/' not in name)])
        sound = (carry[0].step == first + i) & jnp.isfinite(watched).all()
        state = jax.tree.map(lambda n, old: n if n is old else jnp.where(sound, n, old), new, carry[0])
        return state, jax.tree.map(lambda buffer, new: buffer.at[i].set(new), carry[1], sums)

    return jax.lax.fori_loop(0, steps, body, (state, buffers))


def stacked(one: Callable[[jax.Array], Any], size: int, count: jax.Array) -> Any:
    """`one(i)` for i below `count`, at index i of arrays [size, ...]; 0 behind."""
    buffers = jax.tree.map(lambda s: jnp.zeros((size, *s.shape), s.dtype), jax.eval_shape(one, jnp.int32(0)))

    def body(i, buffers):
        return jax.tree.map(lambda buffer, new: buffer.at[i].set(new), buffers, one(i))

    return jax.lax.fori_loop(0, count, body, buffers)


def mean_over(one: Callable[[jax.Array], Any], count: int, like: Any) -> Any:
    """The mean of the trees `one(k)`, k below `count`, which are like `like`."""

    def add(k, total):
        return jax.tree.map(lambda t, new: t + new / count, total, one(k))

    return jax.lax.fori_loop(0, count, add, jax.tree.map(jnp.zeros_like, like))
