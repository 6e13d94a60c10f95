"""Classification of images or features: softmax or sigmoid cross-entropy, with label smoothing in training.

Label smoothing (Szegedy et al. 2016, Rethinking the Inception architecture, section 7): a share of each target is spread evenly
over the classes, so that the network is not driven to infinite logits. Config: {'task.label_smoothing': 0.1}. Claim: 0.2
points on ImageNet. Cost: none. Evaluation counts the loss without it, so losses of training and evaluation cannot be compared.
Targets of a sigmoid are those of softmax, 1 - s + s / K and s / K. Clashes: a teacher trained with it teaches worse (Mueller et
al. 2019).

Remedies for classes of unequal size are in research.tasks.balancing, for groups in research.tasks.group_dro, the metrics that
show them in research.tasks.confusion.
"""

import functools
from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax

from research import catalogue
from research.tasks import Task, balancing, check_smoothing, confusion, input_field, standardization, standardized_input
from research.tasks import group_dro as robust


def _softmax(logits, labels, smoothing=0.0, focal=0.0):
    if focal:
        return balancing.focal_softmax(logits, _smooth(logits, labels, smoothing), focal)
    if smoothing or labels.ndim > 1:
        return optax.softmax_cross_entropy(logits, _smooth(logits, labels, smoothing))
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels)


def _sigmoid(logits, labels, smoothing=0.0, focal=0.0):
    if focal:
        return balancing.focal_sigmoid(logits, _smooth(logits, labels, smoothing), focal)
    return optax.sigmoid_binary_cross_entropy(logits, _smooth(logits, labels, smoothing)).sum(axis=-1)


def _smooth(logits, labels, smoothing):
    targets = labels if labels.ndim > 1 else jax.nn.one_hot(labels, logits.shape[-1])
    return optax.smooth_labels(targets, smoothing) if smoothing else targets


LOSSES = {'softmax': 'research.tasks.classification:_softmax', 'sigmoid': 'research.tasks.classification:_sigmoid'}


def create(
    loss: str,
    label_smoothing: float,
    facts: Mapping[str, Any],
    class_weights: Literal['none', 'inverse_frequency', 'effective_number'] = 'none',
    beta: float = 0.999,
    reweight_from: str = '0st',
    focal: float = 0.0,
    logit_adjustment: float = 0.0,
    group_dro: float = 0.0,
) -> Task:
    """A task of one class an example.

    Args:
      loss: 'softmax' (one class an example) or 'sigmoid' (K yes-or-no questions; the largest logit is the answer). One's own
        is (logits [B, K], labels [B]) -> [B], and takes a third, `smoothing`, where it is to be smoothed, and `focal`
        likewise. Labels are float32 [B, K] where an augmentation gave the batch a 'target'; accuracy counts by 'label'.
      label_smoothing: share of the target that is spread over all classes, from 0 below 1.
      facts: of the data; 'mean', 'std' and 'counts' are asked for.
      class_weights, beta, reweight_from, logit_adjustment: as of `balancing.create`.
      focal: gamma of the focal loss; 0 is cross-entropy.
      group_dro: step size of `research.tasks.group_dro.over`; 0 for none.

    Raises:
      ConfigError: no such loss, no such share, a loss that cannot be smoothed or adjusted.
    """
    per_example = catalogue.resolve('loss', loss, LOSSES)
    check_smoothing(label_smoothing)
    named, open_ended = catalogue.parameters(per_example)
    asked = {'label_smoothing': ('smoothing', label_smoothing), 'focal': ('focal', focal)}
    asked = {field: (argument, value) for field, (argument, value) in asked.items() if value}
    for field, (argument, _) in asked.items():
        if argument not in named and not open_ended:
            raise catalogue.ConfigError(
                f"loss '{loss}' takes no argument '{argument}', as task.{field} needs: add it, or set the field to 0."
            )
    if logit_adjustment and loss == 'sigmoid':
        raise catalogue.ConfigError(
            'task.logit_adjustment shifts classes against each other, and a sigmoid asks for each class alone: set it to 0, or '
            "task.loss to 'softmax'."
        )
    trained = functools.partial(per_example, **dict(asked.values())) if asked else per_example
    probabilities = {'softmax': jax.nn.softmax, 'sigmoid': jax.nn.sigmoid}.get(loss)
    grouped = not facts or 'groups' in facts  # before data are read, they may have groups
    balance = balancing.create(class_weights, beta, reweight_from, logit_adjustment, facts)

    def correct(logits, batch):
        return jnp.argmax(logits, axis=-1) == batch['label']

    def wide(logits):
        return logits.astype(jnp.promote_types(logits.dtype, jnp.float32))

    def judged(logits, batch, constants):
        del constants
        return per_example(wide(logits), batch['label']) * batch['valid']

    def losses(logits, batch, constants):
        each = trained(balance.adjusted(wide(logits), constants), batch.get('target', batch['label']))
        return balance.weighted(each, batch, constants) * batch['valid']

    def sums(losses_of, logits, batch, constants):
        return {
            'loss': jnp.sum(losses_of(logits, batch, constants)),
            'correct': jnp.sum(correct(logits, batch) * batch['valid']),
            'count': jnp.sum(batch['valid']),
        }

    def rows(logits, batch):
        answer, small = jnp.argmax(logits, axis=-1), jnp.uint8 if logits.shape[-1] <= 256 else jnp.int32
        kept = {'correct': answer == batch['label'], 'label': batch['label'].astype(small), 'answer': answer.astype(small)}
        kept['loss'] = per_example(wide(logits), batch['label'])
        if probabilities is not None:
            kept['confidence'] = probabilities(wide(logits)).max(axis=-1)
        return kept | {name: batch[name] for name in ('group',) if 'groups' in facts}

    def metrics(total):
        return {'loss': total['loss'] / total['count'], 'accuracy': total['correct'] / total['count']}

    task = Task(
        fields=(input_field(facts), 'label'),
        inputs=standardized_input,
        sums=functools.partial(sums, judged),
        train_sums=functools.partial(sums, losses),
        losses=losses,
        rows=rows,
        metrics=metrics,
        judge=confusion.judge,
        judged=(*confusion.METRICS, *['calibration_error'] * (probabilities is not None), *['worst_group_accuracy'] * grouped),
        recorded=confusion.recorded,
        optional=('target',),
        predictions=probabilities,
        classifies=True,
        constants={**standardization(facts), **balance.constants},
        durations=balance.durations,
    )
    return robust.over(task, group_dro, facts)
