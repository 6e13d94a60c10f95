"""Several yes-or-no questions about an image or a row of numbers: field 'labels' [N, K] of 0 and 1.

The loss is the sigmoid cross-entropy, the mean over the K questions. Beside it the share of examples with all K answers right
(`exact_match`), at a chance of 0.5; by scikit-learn the mean over the questions of the average precision, of those that have a
yes in the split; and F1 of the yes answers at 0.5, 0 without any: `f1_micro` counts all answers together, `f1_macro` is the
mean over the questions.

Config: {'task.name': 'multilabel', 'task.loss': 'sigmoid', 'data.label': 'red,round,ripe', 'study.metric':
'test/mean_average_precision'}. Label smoothing makes 1 and 0 of training 1 - s / 2 and s / 2.
"""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from research import catalogue
from research.tasks import Task, check_outputs, check_smoothing, input_field, standardization, standardized_input


def _sigmoid(logits, labels):
    return optax.sigmoid_binary_cross_entropy(logits, labels).mean(-1)


LOSSES = {'sigmoid': 'research.tasks.multilabel:_sigmoid'}
JUDGED = ('mean_average_precision', 'f1_micro', 'f1_macro')


def _judge(rows: Mapping[str, Any]) -> dict[str, float]:
    from sklearn import metrics  # takes a second

    labels, chances = (np.asarray(rows[name]) for name in ('labels', 'chances'))
    asked = labels.any(0)
    precision = metrics.average_precision_score(labels[:, asked], chances[:, asked], average='macro') if asked.any() else 0.0
    # Counted here, since scikit-learn takes a single question for two classes, and counts its noes too.
    yes, said = labels > 0, chances > 0.5
    hits, either = (yes & said).sum(0), yes.sum(0) + said.sum(0)
    micro, macro = 2 * hits.sum() / max(either.sum(), 1), np.mean(2 * hits / np.maximum(either, 1))
    return dict(zip(JUDGED, map(float, (precision, micro, macro)), strict=True))


def create(loss: str, label_smoothing: float, facts: Mapping[str, Any]) -> Task:
    """A task of K answers an example; the network gives logits [B, K].

    Args:
      loss: 'sigmoid', or an import path of (logits [B, K], labels float32 [B, K]) -> [B].
      label_smoothing: s, from 0 below 1.
      facts: of the data; 'labels' is K, 'mean' and 'std' are asked for.

    Raises:
      ConfigError: no such loss or share; while a step is traced, outputs of another shape.
    """
    per_example = catalogue.resolve('loss', loss, LOSSES)
    check_smoothing(label_smoothing)

    def losses(smoothing, logits, batch, constants):
        del constants
        check_outputs('multilabel', logits, batch['labels'].shape)
        logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
        labels = batch['labels'].astype(logits.dtype)
        return per_example(logits, labels * (1 - smoothing) + smoothing / 2) * batch['valid']

    def correct(logits, batch):
        return jnp.all((logits > 0) == (batch['labels'] > 0), axis=-1)

    def sums(smoothing, logits, batch, constants):
        return {
            'loss': jnp.sum(losses(smoothing, logits, batch, constants)),
            'correct': jnp.sum(correct(logits, batch) * batch['valid']),
            'count': jnp.sum(batch['valid']),
        }

    def rows(logits, batch):
        chances = jax.nn.sigmoid(logits.astype(jnp.promote_types(logits.dtype, jnp.float32)))
        return {'correct': correct(logits, batch), 'chances': chances, 'labels': batch['labels']}

    return Task(
        fields=(input_field(facts), 'labels'),
        inputs=standardized_input,
        sums=functools.partial(sums, 0.0),
        train_sums=functools.partial(sums, label_smoothing),
        losses=functools.partial(losses, label_smoothing),
        rows=rows,
        metrics=lambda total: {'loss': total['loss'] / total['count'], 'exact_match': total['correct'] / total['count']},
        judge=_judge,
        judged=JUDGED,
        predictions=jax.nn.sigmoid,
        outputs=facts.get('labels', 0),
        constants=standardization(facts),
    )
