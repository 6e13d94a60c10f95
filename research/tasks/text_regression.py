"""Regression of texts: rows of tokens, one number each, such as how alike two texts are (STS-B of GLUE, Wang et al. 2019).

The loss is the mean squared error, in the unit of the labels squared. Beside it, by scipy: Pearson's and Spearman's correlation
of answers and labels; 0 where either is the same for every text. Config: {'task.name': 'text_regression', 'task.loss':
'squared', 'study.metric': 'test/spearman'}, and of a network with heads {'model.head': 'classification'}.
"""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from research import catalogue
from research.tasks import Task, refuse_smoothing, regression, token_inputs

JUDGED = ('pearson', 'spearman')


def _judge(rows: Mapping[str, Any]) -> dict[str, float]:
    from scipy import stats  # takes a moment

    label, answer = (np.asarray(rows[name], np.float64) for name in ('label', 'answer'))
    if min(np.ptp(label), np.ptp(answer)) == 0:
        return dict.fromkeys(JUDGED, 0.0)
    return dict(zip(JUDGED, (float(f(label, answer).statistic) for f in (stats.pearsonr, stats.spearmanr)), strict=True))


def create(loss: str, label_smoothing: float, facts: Mapping[str, Any]) -> Task:
    """A task of one number a text; the network is called with `(tokens, segments=..., mask=...)` and gives [B, 1].

    Args:
      loss: 'squared', or an import path of (answers [B], labels [B]) -> [B], such as 'optax:huber_loss'.
      label_smoothing: 0.
      facts: not asked for.

    Raises:
      ConfigError: no such loss, or label smoothing; while a step is traced, outputs of another shape.
    """
    del facts
    per_example = catalogue.resolve('loss', loss, regression.LOSSES)
    refuse_smoothing('text_regression', label_smoothing)

    def losses(outputs, batch, constants):
        del constants
        answers = regression.answers('text_regression', outputs, batch['label'])
        return per_example(answers, batch['label'].astype(answers.dtype)) * batch['valid']

    def sums(outputs, batch, constants):
        return {'loss': jnp.sum(losses(outputs, batch, constants)), 'count': jnp.sum(batch['valid'])}

    return Task(
        fields=('tokens', 'mask', 'label'),
        inputs=token_inputs,
        sums=sums,
        train_sums=sums,
        losses=losses,
        rows=lambda outputs, batch: {'answer': outputs[:, 0], 'label': batch['label']},
        metrics=lambda total: {'loss': total['loss'] / total['count']},
        judge=_judge,
        judged=JUDGED,
        predictions=lambda outputs: outputs[:, 0],
        outputs=1,
    )
