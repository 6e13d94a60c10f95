"""What a program does over rows of the data: gathers them, and repeats an evaluation on the device.

Pure functions, written for the whole batch; an engine (research.train.parallel) says where rows and sums live. Letters:
B examples a batch, N examples of the data.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from research.data import Field
from research.train.parallel import Jit, Pmap


def length(examples: Mapping[str, jax.Array]) -> int:
    """N of {field: [N, ...]}."""
    return len(next(iter(examples.values())))


def gather(
    engine: Jit | Pmap, fields: Mapping[str, Field], examples: Mapping[str, jax.Array], rows: jax.Array, valid: jax.Array
) -> dict[str, jax.Array]:
    """The rows of the examples {field: [N, ...]} that this device works on, and which of them are valid.

    Args:
      fields: of the data set; what fills empty places.
      rows: int32 [..., B], or [..., B, k] where a position takes several, -1 for none.
      valid: float32 [..., B].

    Returns:
      {field: [..., B, ...] or [..., B, k, ...], 'valid': [..., B]}.
    """
    axis = valid.ndim - 1
    mine = engine.rows(rows, axis)
    batch = {name: values[mine] for name, values in examples.items()}
    if rows.ndim > valid.ndim:
        for name, values in batch.items():
            there = (mine >= 0).reshape(mine.shape + (1,) * (values.ndim - mine.ndim))
            batch[name] = jnp.where(there, values, jnp.asarray(fields[name].fill, values.dtype))
    return {**batch, 'valid': engine.rows(valid, axis)}


def training_batch(
    engine: Jit | Pmap,
    fields: Mapping[str, Field],
    micro_batches: int,
    examples: Mapping[str, jax.Array],
    rows: jax.Array,
    start: jax.Array,
) -> dict[str, jax.Array]:
    """What a step takes: rows of the data with their positions, in n micro-batches, the last padded with invalid rows.

    Args:
      rows: int32 [B] or [B, k].
      start: uint32 [2], halves of the position of the first row.
    """
    count, n = len(rows), micro_batches
    size = -(-count // n)
    padding, shape = n * size - count, (n, size) if n > 1 else (size,)
    valid = jnp.pad(jnp.ones(count, jnp.float32), (0, padding)).reshape(shape)
    low = start[1] + jnp.arange(n * size, dtype=jnp.uint32).reshape(shape)
    high = start[0] + (low < start[1]).astype(jnp.uint32)
    padded = jnp.pad(rows, ((0, padding),) + ((0, 0),) * (rows.ndim - 1)).reshape(*shape, *rows.shape[1:])
    batch = gather(engine, fields, examples, padded, valid)
    batch['position'] = jnp.stack([engine.rows(high, axis=-1), engine.rows(low, axis=-1)], axis=-1)
    return batch


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
