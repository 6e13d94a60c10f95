"""Classification of texts: rows of tokens, one class each.

Loss and accuracy are those of research.tasks.classification. Beside them, by scikit-learn: balanced accuracy (the mean recall
of the classes) and the macro F1, which rare classes move as much as frequent ones, and Matthews' correlation coefficient.
"""

from collections.abc import Mapping
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np

from research.tasks import Task, classification, examples, token_inputs


def _judge(rows: Mapping[str, Any]) -> dict[str, float]:
    from sklearn import metrics  # takes a second

    label, answer = (np.asarray(rows[name]) for name in ('label', 'answer'))
    return {
        'balanced_accuracy': float(
            metrics.recall_score(label, answer, labels=np.unique(label), average='macro', zero_division=0)
        ),
        'f1_macro': float(metrics.f1_score(label, answer, average='macro', zero_division=0)),
        'matthews': float(metrics.matthews_corrcoef(label, answer)),
    }


def create(
    loss: str,
    label_smoothing: float,
    facts: Mapping[str, Any],
    class_weights: Literal['none', 'inverse_frequency', 'effective_number'] = 'none',
    beta: float = 0.999,
    reweight_from: str = '0st',
    focal: float = 0.0,
    logit_adjustment: float = 0.0,
) -> Task:
    """A task of one class a text; the network is called with `(tokens, segments=..., mask=...)`.

    Args:
      loss, label_smoothing, facts, and all others: as of research.tasks.classification.

    Raises:
      ConfigError: as it does.
    """
    plain = classification.create(loss, label_smoothing, facts, class_weights, beta, reweight_from, focal, logit_adjustment)

    def rows(logits, batch):
        kept = {**plain.rows(logits, batch), 'answer': jnp.argmax(logits, axis=-1), 'label': batch['label']}
        if plain.probabilities is None:
            return kept
        both = jnp.stack([batch['label'], kept['answer']], axis=1)
        return {**kept, 'chances': jnp.take_along_axis(plain.probabilities(logits.astype(jnp.float32)), both, axis=1)}

    return plain._replace(
        fields=('tokens', 'mask', 'label'),
        inputs=token_inputs,
        rows=rows,
        judge=_judge,
        examples=examples.errors,
        judged=('balanced_accuracy', 'f1_macro', 'matthews'),
    )
