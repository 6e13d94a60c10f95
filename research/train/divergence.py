"""Where a run went wrong: the first layer whose output, or else whose gradient, is not finite."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from research.optim.paths import path_of
from research.train import parallel
from research.train.chunks import standardize, training_batch
from research.train.experiment import Experiment
from research.train.phases import Phase


def locate(experiment: Experiment, phase: Phase, state: Any, chunk: tuple[Any, ...]) -> str:
    """Does one step again, operation by operation.

    Args:
      state: before the step that failed, on one device.
      chunk: arguments of a chunk of this one step, on one device.

    Returns:
      "parameter 'x/kernel'", "output of 'x'" or "gradient of 'x/kernel'", the first in the order of the computation.
    """
    data, reference, indices, starts, controls, *_ = chunk
    if bad := _not_finite(state.params):
        return f"parameter '{bad[0]}'"
    program, engine = experiment.program, parallel.Jit(jax.local_devices()[:1])
    _, stages, _ = program.kind.create(experiment.config, experiment.dataset, program.task, engine.axis_name)
    phase = phase._replace(micro_batches=1)
    batch = training_batch(engine, 1, data, indices[0], starts[0])
    now = {name: values[0] for name, values in controls.items()}
    updates = program.kind.updates(stages, engine, phase, state, batch, data, standardize(reference, data), now)
    for update in updates:
        if found := _located(batch, *update):
            return found
    return 'not found again outside of the training program'


def _located(batch: Any, loss_fn: Callable[..., Any], params: Any, collections: Any) -> str:
    """Where one update goes wrong, or ''."""
    met: dict[str, bool] = {}

    def note(call, args, kwargs, context):
        outputs = call(*args, **kwargs)
        name = '/'.join(context.module.path)
        if context.method_name == '__call__' and name:
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


def sentence(found: dict[str, Any]) -> str:
    """What a reader of the report needs beside the step."""
    norms = ', '.join(f'{norm:.3g}' for norm in found['gradient_norms'][-5:])
    saved = found['checkpoint_step']
    parts = [f'first seen in {found["layer"]}'] if 'layer' in found else []
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
