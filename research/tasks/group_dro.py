"""Group DRO: the groups that the network does worst on weigh most in the loss.

Idea: a mean loss is low where the large groups' losses are, and a small group may stay wrong. Each group has a weight, which
grows with its loss, so that training minimizes the loss of the worst group instead (distributionally robust optimization).

Source: Sagawa et al. 2020 (Distributionally robust neural networks for group shifts, algorithm 1). After a batch the weight q
of a group is multiplied by exp(step size * its mean loss in the batch), and all are divided by their sum. They draw every group
as often; here an example's loss is multiplied by q / (its group's share of the training data), the same on average.

Config: {'task.group_dro': 0.01}, the step size, with a field `group` in the data (`data.group`). Cost: next to none (under 5 %
of the time, their section 5).

Claim: with strong weight decay, a worst-group accuracy of 84.6 % on Waterbirds and 86.7 % on CelebA, against 21.3 and 37.8 % by
a mean loss with the same decay (ResNet-50, table 1); with the usual decay 76.9 against 60.0 %, and 41.1 % either way. Drawing
all groups equally often comes close: 88.0 and 83.3 %, against 91.4 and 88.9 % by group DRO, both tuned (table 3).

A batch's weights are those that the batches before it led to: devices and micro-batches see the same ones. A step is larger
where a rare group has most of the weight. Clashes: `data.sampling` 'group_balanced' and `task.class_weights`, which correct the
same imbalance a second time; small decay, since a network that learns all groups by heart has no worst one.

Letters: B examples, G groups.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from research.catalogue import ConfigError


def start(step_size: float, facts: Mapping[str, Any]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """(what is learnt beside the network: 'group_weights' float32 [G], sum 1; constants: 'group_shares' float32 [G], and
    'group_step' []), both {} where the step size is 0.

    Raises:
      ConfigError: data without groups.
    """
    if not step_size:
        return {}, {}
    if facts and 'group_counts' not in facts:
        raise ConfigError("task.group_dro weighs groups, and the data have no field 'group': name it by data.group.")
    counts = np.asarray(facts.get('group_counts', (1,)), np.float64)
    present = counts > 0
    constants = {'group_shares': np.where(present, counts, 1) / counts.sum(), 'group_step': np.asarray(step_size)}
    return (
        {'group_weights': (present / present.sum()).astype(np.float32)},
        {name: values.astype(np.float32) for name, values in constants.items()},
    )


def weighted(losses: jax.Array, batch: Mapping[str, Any], constants: Mapping[str, Any]) -> jax.Array:
    """Losses [B], each times its group's weight over the group's share."""
    return losses * (constants['group_weights'] / constants['group_shares'])[batch['group']]


def sums(losses: jax.Array, batch: Mapping[str, Any], groups: int) -> dict[str, jax.Array]:
    """'group_loss' and 'group_count' [G], of losses [B] before they are weighted."""
    counted = {'group_loss': losses, 'group_count': jnp.ones_like(losses)}
    return {name: jax.ops.segment_sum(each * batch['valid'], batch['group'], groups) for name, each in counted.items()}


def learn(learnt: Mapping[str, Any], sums: Mapping[str, Any], constants: Mapping[str, Any]) -> dict[str, Any]:
    """The weights after a batch with these sums; a group without examples in it has a loss of 0."""
    means = sums['group_loss'] / jnp.maximum(sums['group_count'], 1)
    logits = jnp.log(learnt['group_weights']) + constants['group_step'] * means
    return {'group_weights': jax.nn.softmax(logits)}
