"""Regression: images or rows of numbers, one number each.

The network learns the target less its mean over its deviation in the training data, so that rates that work for one unit work
for another; the loss is the squared error of that. The metrics are in the target's own unit: the root of the mean squared
error, the mean absolute error, and R2, the share of the variance that is explained, 0 where all targets of a split are the
same.

Config: {'task.name': 'regression', 'task.loss': 'squared', 'study.metric': 'test/rmse', 'study.higher_is_better': False}
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from research import catalogue
from research.tasks import Task, check_outputs, input_field, refuse_smoothing, standardization, standardized_input

LOSSES = {'squared': 'optax:squared_error'}


def answers(name: str, outputs: Any, label: jax.Array) -> jax.Array:
    """The outputs [B, 1] of a network as [B] in float32 or more; raises Misfit where they are of another shape."""
    check_outputs(name, outputs, (*label.shape, 1))
    return outputs[:, 0].astype(jnp.promote_types(outputs.dtype, jnp.float32))


def create(loss: str, label_smoothing: float, facts: Mapping[str, Any]) -> Task:
    """A task of one number an example; the network gives [B, 1].

    Args:
      loss: 'squared', or an import path of (answers [B], labels [B]) -> [B], such as 'optax:huber_loss'; both standardized.
      label_smoothing: 0.
      facts: of the data; 'label_mean', 'label_std', 'mean' and 'std' are asked for.

    Raises:
      ConfigError: no such loss, label smoothing, or labels that are classes; while a step is traced, outputs of another shape.
    """
    per_example = catalogue.resolve('loss', loss, LOSSES)
    refuse_smoothing('regression', label_smoothing)
    if 'classes' in facts:
        raise catalogue.ConfigError(
            "task 'regression' reads numbers, and the labels of these data are classes. Of a table set data.label to "
            "'NAME:number'; a loader function casts them to float32; or set task.name to 'classification'."
        )
    of_label = {name: np.float32(facts[name]) for name in ('label_mean', 'label_std') if name in facts}

    def errors(outputs, batch, constants):
        found = answers('regression', outputs, batch['label'])
        target = (batch['label'].astype(found.dtype) - constants['label_mean']) / constants['label_std']
        return found, target

    def losses(outputs, batch, constants):
        return per_example(*errors(outputs, batch, constants)) * batch['valid']

    def sums(outputs, batch, constants):
        found, target = errors(outputs, batch, constants)
        unit, valid = constants['label_std'], batch['valid']
        return {
            'loss': jnp.sum(losses(outputs, batch, constants)),
            'count': jnp.sum(valid),
            'squared': jnp.sum((unit * (found - target)) ** 2 * valid),
            'absolute': jnp.sum(unit * jnp.abs(found - target) * valid),
            'target': jnp.sum(unit * target * valid),
            'target_squared': jnp.sum((unit * target) ** 2 * valid),
        }

    def metrics(total):
        count = total['count']
        spread = total['target_squared'] - total['target'] ** 2 / count
        return {
            'loss': total['loss'] / count,
            'rmse': (total['squared'] / count) ** 0.5,
            'mae': total['absolute'] / count,
            # Rounding leaves a little of the spread of targets that are all the same.
            'r2': 1 - total['squared'] / spread if spread > 1e-6 * total['target_squared'] else 0.0,
        }

    return Task(
        fields=(input_field(facts), 'label'),
        inputs=standardized_input,
        sums=sums,
        train_sums=sums,
        losses=losses,
        rows=lambda outputs, batch: {},
        metrics=metrics,
        predictions=lambda outputs: outputs[:, 0] * of_label['label_std'] + of_label['label_mean'],
        outputs=1,
        constants={**standardization(facts), **of_label},
    )
