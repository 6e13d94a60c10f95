"""The compiled chunk: a step done over and over on the device.

Letters: S steps a chunk, B examples a batch.
"""

import functools

import jax
import jax.numpy as jnp

from research.train.batches import training_batch
from research.train.phases import Phase
from research.train.state import Chunk, State
from research.train.steps import Step


def train_chunk(step: Step, phase: Phase, state: State, chunk: Chunk) -> tuple[State, dict[str, jax.Array]]:
    """`chunk.steps` updates in one call: a loop with a traced trip count, so that every length is the same program and bits.

    Returns:
      (state, {'loss', ...: float32 [S]} sums of each step, 0 behind `steps`). From a step on of which a sum or the
      gradient is not finite the state stays what it was before it, over later chunks too, so that the cause can be found.
    """
    constants = chunk.data['constants']
    reference = step.reference(chunk.reference, constants)

    @functools.partial(jax.jit, inline=True)  # traced once for the shapes and the loop; it leaves no call in the program
    def one(i, state):
        batch = training_batch(
            step.engine, step.fields, phase.micro_batches, chunk.data['examples'], chunk.rows[i], chunk.starts[i]
        )
        controls = {name: values[i] for name, values in chunk.controls.items()}
        return step.train(phase, state, batch, reference, constants, controls)

    sums = jax.eval_shape(one, jnp.int32(0), state)[1]
    buffers = jax.tree.map(lambda s: jnp.zeros(chunk.rows.shape[:1], s.dtype), sums)

    def body(i, carry):
        new, sums = one(i, carry[0])
        watched = jnp.stack([sums['gradient/norm'], *(value for name, value in sums.items() if '/' not in name)])
        sound = (carry[0].step == chunk.first + i) & jnp.isfinite(watched).all()
        state = jax.tree.map(lambda n, old: n if n is old else jnp.where(sound, n, old), new, carry[0])
        return state, jax.tree.map(lambda buffer, new: buffer.at[i].set(new), carry[1], sums)

    return jax.lax.fori_loop(0, chunk.steps, body, (state, buffers))
