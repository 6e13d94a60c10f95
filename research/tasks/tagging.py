"""Tagging: rows of tokens, one class for each of them, such as parts of speech or named entities.

Field 'tags' is int32 [N, T], -1 where none counts: padding, special tokens, the pieces of a word behind its first. Loss and
accuracy are those of research.tasks.classification, means over all tags that count, so a long text weighs more than a short
one. Beside them the macro F1 of single tags, by scikit-learn; spans of several tags are not put together.

Data are columns of words and of their tags in files, {'data.name': 'texts', 'data.text': 'tokens', 'data.label': 'ner_tags'}
(research/data/spans.py), or arrays of a loader function, with the fields 'tokens', 'mask' and 'tags'. Their largest tag says
how many there are.
"""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from research.tasks import Task, check_outputs, classification, token_inputs


def _judge(rows: Mapping[str, Any]) -> dict[str, float]:
    from sklearn import metrics  # takes a second

    tags, answer = (np.asarray(rows[name]) for name in ('tags', 'answer'))
    counts = tags >= 0
    return {'f1_macro': float(metrics.f1_score(tags[counts], answer[counts], average='macro', zero_division=0))}


def create(loss: str, label_smoothing: float, facts: Mapping[str, Any]) -> Task:
    """A task of one class a token; the network is called with `(tokens, segments=..., mask=...)` and gives [B, T, K].

    Args:
      loss, label_smoothing: as of research.tasks.classification.
      facts: of the data; 'tags' is asked for.

    Raises:
      ConfigError: as it does; while a step is traced, outputs of another shape.
    """
    plain = classification.create(loss, label_smoothing, {})

    def each(logits, batch):
        """Every token as an example of its own: logits [B T, K], and a batch that is valid where a tag counts."""
        tags = batch['tags'].astype(jnp.int32)
        check_outputs('tagging', logits, (*tags.shape, getattr(logits, 'shape', (0,))[-1]))
        counts = batch['valid'][:, None] * (tags >= 0)
        return logits.reshape(-1, logits.shape[-1]), {'label': jnp.maximum(tags, 0).ravel(), 'valid': counts.ravel()}

    return plain._replace(
        fields=('tokens', 'mask', 'tags'),
        inputs=token_inputs,
        sums=lambda logits, batch, constants: plain.sums(*each(logits, batch), constants),
        train_sums=lambda logits, batch, constants: plain.train_sums(*each(logits, batch), constants),
        losses=lambda logits, batch, constants: plain.losses(*each(logits, batch), constants).reshape(len(logits), -1).sum(1),
        rows=lambda logits, batch: {'answer': jnp.argmax(logits, axis=-1), 'tags': batch['tags']},
        optional=(),
        judge=_judge,
        judged=('f1_macro',),
        classifies=False,
        outputs=facts.get('tags', 0),
    )
