"""Where a run went wrong: the first layer whose output, or else whose gradient, is not finite."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from research.optim.paths import path_of
from research.train import parallel, steps
from research.train.batches import training_batch
from research.train.experiment import Experiment
from research.train.phases import Phase
from research.train.state import Chunk, State


def locate(experiment: Experiment, phase: Phase, state: State, chunk: Chunk) -> str:
    """Does one step again, operation by operation.

    Args:
      state: before the step that failed, on one device.
      chunk: of this one step, on one device.

    Returns:
      "parameter 'x/kernel'", "output of 'x'" or "gradient of 'x/kernel'", the first in the order of the computation.
    """
    if bad := _not_finite(state.params):
        return f"parameter '{bad[0]}'"
    # One micro-batch has no noise scale.
    config = {**experiment.config, 'gradient': {**experiment.config['gradient'], 'noise_scale': False}}
    step = steps.create(config, experiment.dataset, parallel.Jit(jax.local_devices()[:1]))
    constants = chunk.data['constants']
    batch = training_batch(step.engine, step.fields, 1, chunk.data['examples'], chunk.rows[0], chunk.starts[0])
    controls = {name: values[0] for name, values in chunk.controls.items()}
    reference = step.reference(chunk.reference, constants)
    updates = step.updates(phase._replace(micro_batches=1), state, batch, reference, constants, controls)
    for update in updates:
        if layer := _located(batch, *update):
            return layer
    return 'not found again outside of the training program'


def _located(batch: Any, loss_fn: Callable[..., Any], params: Any, collections: Any) -> str:
    """Where one update goes wrong, or ''."""
    met: dict[str, bool] = {}

    def note(call, args, kwargs, context):
        outputs = call(*args, **kwargs)
        name = '/'.join(context.module.path)
        # A call may be traced first, for its shapes alone: such outputs have no values.
        traced = any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(outputs))
        if context.method_name == '__call__' and name and not traced:
            met[name] = met.get(name, True) and not _not_finite(outputs)
        return outputs

    with nn.intercept_methods(note):
        loss, _ = loss_fn(params, collections, batch)
    first = next((name for name, finite in met.items() if not finite), None)
    if first:
        return f"output of '{first}'"
    if not np.isfinite(loss):
        return 'the loss, of outputs that are finite'
    gradient = jax.grad(lambda params: loss_fn(params, collections, batch)[0])(params)
    called = list(met)

    def order(parameter: str) -> int:
        owners = [name for name in called if parameter.startswith(f'{name}/')]
        return called.index(max(owners, key=len)) if owners else -1

    bad = sorted(_not_finite(gradient), key=order)
    # The backward pass meets the last layer first.
    return f"gradient of '{bad[-1]}'" if bad else ''


def sentence(where: dict[str, Any]) -> str:
    """What a reader of the report needs beside the step."""
    norms = ', '.join(f'{norm:.3g}' for norm in where['gradient_norms'][-5:])
    saved = where['checkpoint_step']
    parts = [f'first seen in {where["layer"]}'] if 'layer' in where else []
    parts += [f'norms of the last gradients {norms}'] if norms else []
    parts += [f'last good checkpoint at step {saved}' if saved is not None else 'no checkpoint before it']
    return '; '.join(parts)


def _not_finite(tree: Any) -> list[str]:
    """Paths of the arrays that hold NaN or infinity."""
    return [
        path_of(path)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
        if jnp.issubdtype(leaf.dtype, jnp.floating) and not np.isfinite(np.asarray(leaf, np.float64)).all()
    ]
