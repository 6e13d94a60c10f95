"""Losses for classes of unequal size: weights, focal loss, logit adjustment.

Idea: a network that minimizes the mean loss neglects rare classes. Their losses are multiplied (`class_weights`), maybe only
towards the end, when the features are learnt (`reweight_from`); or what is learnt already counts less (`focal`); or logits are
shifted by the class frequencies in training, which the network then need not learn (`logit_adjustment`).

Sources: weights by the effective number of examples Cui et al. 2019 (Class-balanced loss based on effective number of samples,
section 4); from a later epoch on Cao et al. 2019 (Learning imbalanced datasets with label-distribution-aware margin loss,
section 3.3); focal loss Lin et al. 2017 (Focal loss for dense object detection, equation 4); logit adjustment Menon et al. 2021
(Long-tail learning via logit adjustment, equation 10).

Config: {'task.class_weights': 'inverse_frequency'}; {'task.class_weights': 'effective_number', 'task.beta': 0.999,
'task.reweight_from': '0.8run'}; {'task.focal': 2.0}; {'task.logit_adjustment': 1.0}

Cost: next to nothing. Claim: on CIFAR-10 with a long tail of ratio 100 the error of a ResNet-32 falls from 29.6 to 25.4 % by
effective-number weights and focal loss together, while focal loss alone leaves it at 29.6 (Cui et al. 2019, table 2), and from
27.2 to 22.3 % by logit adjustment (Menon et al. 2021, table 3).

Effect on balanced accuracy: logit adjustment +5.75 points (5.18 to 6.24), effective number +3.18 (2.58 to 3.67), the same from
0.8 of the run on +2.01 (1.56 to 2.44), focal loss -0.83 (-1.38 to -0.28) (a long tail of Fashion-MNIST, ratio 100, ten seeds,
configs/imbalance.py).

Weights have the mean 1 over the classes, not over the examples, and the loss is divided by the number of examples, not by the
sum of their weights: where rare classes weigh most, the step is smaller than without weights. A blended target has the weight
of its classes in their shares; label smoothing does not change it. An evaluation has none of this, so losses of training and
evaluation cannot be compared. Clashes: balanced sampling, which corrects the same imbalance; logit adjustment of a sigmoid.

Letters: B examples, K classes of the data, L >= K logits.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from research import durations
from research.catalogue import ConfigError


class Balance(NamedTuple):
    """What a task adds to its training loss.

    Attributes:
      adjusted: (logits [B, L], constants) -> logits.
      weighted: (losses [B], batch, constants) -> losses.
      constants, durations: as of `research.tasks.Task`.
    """

    adjusted: Callable[[Any, Mapping[str, Any]], Any]
    weighted: Callable[[Any, Mapping[str, Any], Mapping[str, Any]], Any]
    constants: Mapping[str, Any]
    durations: Mapping[str, str]


def create(class_weights: str, beta: float, reweight_from: str, logit_adjustment: float, facts: Mapping[str, Any]) -> Balance:
    """What these arguments of a task ask for; what is off leaves the program as it is.

    Args:
      class_weights: 'none', 'inverse_frequency' or 'effective_number'.
      beta: of the effective number, from 0 (all weigh the same) below 1 (inverse frequency).
      reweight_from: duration before which all weights are 1.
      logit_adjustment: tau, 0 for none.
      facts: of the data; 'counts' are read.

    Raises:
      ConfigError: data without classes.
    """
    if facts and 'counts' not in facts and (class_weights != 'none' or logit_adjustment):
        raise ConfigError(
            'task.class_weights and task.logit_adjustment need the number of examples of each class, and the data have no '
            "classes. Set them to 'none' and 0, or choose data with a label of whole numbers."
        )
    counts = np.asarray(facts.get('counts', (1,)), np.float64)
    constants: dict[str, Any] = {}
    adjusted, weighted, lasting = _as_they_are, _unweighted, {}
    if class_weights != 'none':
        constants['class_weights'] = weights(counts, beta if class_weights == 'effective_number' else None).astype(np.float32)
        weighted = _weighted
        if durations.parse(reweight_from)[0]:
            constants['reweight_from'], lasting, weighted = np.float32(0), {'reweight_from': reweight_from}, _weighted_late
    if logit_adjustment:
        prior = np.maximum(counts, 1) / counts.sum()  # a class without examples counts as if it had one
        constants['logit_adjustment'] = (logit_adjustment * np.log(prior)).astype(np.float32)
        adjusted = _adjusted
    return Balance(adjusted, weighted, constants, lasting)


def weights(counts: np.ndarray, beta: float | None) -> np.ndarray:
    """Of each class its weight: float64 [K], 0 without examples; the mean over the others is 1.

    Args:
      counts: examples of each class, float64 [K].
      beta: of the effective number of n examples, (1 - beta ** n) / (1 - beta); None for the number itself.
    """
    present = counts > 0
    effective = counts if beta is None else 1 - beta**counts
    inverse = np.where(present, 1 / np.where(present, effective, 1), 0)
    return inverse * present.sum() / inverse.sum()


def focal_softmax(logits: jax.Array, targets: jax.Array, gamma: float) -> jax.Array:
    """Cross-entropy in which each class of the target counts (1 - its probability) ** gamma times: [B, L], [B, L] -> [B]."""
    log_p = jax.nn.log_softmax(logits)
    # Of the likeliest class 1 - p is the sum of the others', or it would round to 0; no other p is above a half.
    top = jax.nn.one_hot(jnp.argmax(log_p, axis=-1), log_p.shape[-1], dtype=bool)
    rest = jax.nn.logsumexp(log_p, axis=-1, keepdims=True, where=~top)
    log_q = jnp.where(top, rest, jnp.log1p(-jnp.exp(jnp.where(top, -1.0, log_p))))
    return -(targets * jnp.exp(gamma * log_q) * log_p).sum(axis=-1)


def focal_sigmoid(logits: jax.Array, targets: jax.Array, gamma: float) -> jax.Array:
    """Likewise of a yes or no for each class, summed over the classes: [B, L], [B, L] -> [B]."""
    yes, no = jax.nn.log_sigmoid(logits), jax.nn.log_sigmoid(-logits)
    return -(targets * jnp.exp(gamma * no) * yes + (1 - targets) * jnp.exp(gamma * yes) * no).sum(axis=-1)


def _as_they_are(logits: Any, constants: Mapping[str, Any]) -> Any:
    del constants
    return logits


def _unweighted(losses: Any, batch: Mapping[str, Any], constants: Mapping[str, Any]) -> Any:
    del batch, constants
    return losses


def _adjusted(logits: jax.Array, constants: Mapping[str, Any]) -> jax.Array:
    """A class that the data do not have is taken for as rare as the rarest."""
    shift = constants['logit_adjustment']
    return logits + jnp.pad(shift, (0, logits.shape[-1] - len(shift)), mode='minimum')[None]


def _weighted(losses: jax.Array, batch: Mapping[str, Any], constants: Mapping[str, Any]) -> jax.Array:
    return losses * _weights(batch, constants)


def _weighted_late(losses: jax.Array, batch: Mapping[str, Any], constants: Mapping[str, Any]) -> jax.Array:
    high, low = batch['position'][:, 0].astype(jnp.float32), batch['position'][:, 1].astype(jnp.float32)
    return losses * jnp.where(high * 2.0**32 + low >= constants['reweight_from'], _weights(batch, constants), 1.0)


def _weights(batch: Mapping[str, Any], constants: Mapping[str, Any]) -> jax.Array:
    """The weight of each example, [B]."""
    by_class = constants['class_weights']
    if 'target' in batch:
        return batch['target'][:, : len(by_class)] @ by_class
    return by_class[batch['label']]
