"""FLOPs and multiply-adds of a training step and of an inference, counted by a walk over their jaxprs; nothing is compiled."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from research import cost
from research.data import Dataset
from research.train import parallel, phases, program, steps
from research.train.phases import Phase
from research.train.program import Program
from research.train.state import State
from research.train.steps import Step


def train(config: Mapping[str, Any], dataset: Dataset, batch_size: int, total: int) -> tuple[int, int]:
    """FLOPs and multiply-adds of one training step over the whole batch, as if on one device: the mean over the run.

    Args:
      batch_size: examples of the first step.
      total: examples of the run.
    """
    counts = _by_phase(config, dataset, batch_size, total)
    mean = sum(each * steps for _, steps, each in counts) // sum(steps for _, steps, _ in counts)
    return 2 * mean, mean


def per_example(config: Mapping[str, Any], dataset: Dataset, batch_size: int, total: int) -> float:
    """FLOPs of training one example, the mean over the run; arguments as of `train`."""
    counts = _by_phase(config, dataset, batch_size, total)
    examples = sum(phase.batch_size * steps for phase, steps, _ in counts)
    return 2 * sum(each * steps for _, steps, each in counts) / examples


def uncounted(config: Mapping[str, Any], dataset: Dataset, batch_size: int, total: int) -> list[str]:
    """Operations of a training step that cost something and count as nothing (`cost.uncounted`); arguments as of `train`."""
    step = steps.create(config, dataset, parallel.Jit(jax.devices()[:1]))
    phase = phases.create(config, dataset, batch_size, step, total).at(0, 0)
    return cost.uncounted(*_call(step, program.state_shapes(config, step), phase, config['data']['reference_size']))


def _by_phase(config: Mapping[str, Any], dataset: Dataset, batch_size: int, total: int) -> list[tuple[Phase, int, int]]:
    """(phase, steps, multiply-adds of a step) over a run."""
    step = steps.create(config, dataset, parallel.Jit(jax.devices()[:1]))
    state = program.state_shapes(config, step)
    spans = phases.create(config, dataset, batch_size, step, total).spans(total)
    calls = {phase: _call(step, state, phase, config['data']['reference_size']) for phase, _ in spans}
    counts = {phase: cost.multiply_adds(*call) for phase, call in calls.items()}
    return [(phase, steps, counts[phase]) for phase, steps in spans]


def _call(step: Step, state: State, phase: Phase, reference_size: int) -> tuple[Any, ...]:
    """A training step and its arguments, as shapes."""
    n = phase.micro_batches
    rows = (n, -(-phase.batch_size // n)) if n > 1 else (phase.batch_size,)

    def examples(shape: tuple[int, ...]) -> dict[str, jax.ShapeDtypeStruct]:
        return {name: jax.ShapeDtypeStruct((*shape, *field.shape), field.dtype) for name, field in step.fields.items()}

    batch = {
        **examples(rows),
        'valid': jax.ShapeDtypeStruct(rows, jnp.float32),
        'position': jax.ShapeDtypeStruct((*rows, 2), jnp.uint32),
    }
    constants = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), dict(step.task.constants))
    controls = {'learning_rate': jax.ShapeDtypeStruct((), jnp.float32)}

    def one(state, batch, stored, constants, controls):
        return step.train(phase, state, batch, step.reference(stored, constants), constants, controls)

    return one, state, batch, examples((reference_size,)), constants, controls


def inference(program: Program) -> tuple[int, int]:
    """FLOPs and multiply-adds of one example's inference, with the weights that are seen."""
    return cost.count(program.step.predict, program.seen, program.shapes.collections, program.step.inputs(1))
