"""Answers as spans of a text: where an answer starts and where it ends (Rajpurkar et al. 2016, SQuAD).

The loss is the mean of two cross-entropies over the places of the tokens, of the start and of the end (Devlin et al. 2019,
section 4.2). A question without an answer has both at -1, or at 0, the place of [CLS]; an answer that is not whole among the
tokens counts as none.

The answer of the network is the span with the highest sum of both logits, of at most `max_answer` tokens; [CLS] alone is none.
Exact match and F1 are SQuAD's on places of tokens instead of normalized words: whether both ends are right, and, of the overlap
of the two spans, the harmonic mean of its shares in both. Both are means over questions, and 1 where rightly none is given.

Data are files as SQuAD's, {'data.name': 'texts', 'data.text': 'question', 'data.pair': 'context', 'data.label': 'answers'}
(research/data/spans.py), or arrays of a loader function, with the fields 'tokens', 'mask', 'start' and 'end', and 'segments'
where the network reads them. Config: {'task.name': 'question_answering', 'study.metric': 'test/f1'},
{'model.head': 'question_answering'}.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from research import catalogue
from research.tasks import Task, check_outputs, refuse_smoothing, token_inputs

LOSSES = {'softmax': 'optax:softmax_cross_entropy_with_integer_labels'}


def _answer(batch: Mapping[str, Any]) -> tuple[jax.Array, jax.Array]:
    """The right start and end, int32 [B]; 0 where there is no answer among the tokens."""
    start, end = batch['start'].astype(jnp.int32), batch['end'].astype(jnp.int32)
    there = (start >= 0) & (start <= end) & (end < batch['mask'].sum(1))
    return jnp.where(there, start, 0), jnp.where(there, end, 0)


def best_span(starts: jax.Array, ends: jax.Array, max_answer: int) -> tuple[jax.Array, jax.Array]:
    """Start and end, int [B], of the span of the largest sum of logits, float [B, T] each; [CLS] is in none but alone."""
    length = starts.shape[1]
    reach = jnp.arange(length)[:, None] + jnp.arange(min(max_answer, length))[None]  # [T, L], the ends that a start may have
    sums = starts[:, :, None] + ends.at[:, reach].get(mode='fill', fill_value=-jnp.inf)
    sums = jnp.where(((reach == 0) | (reach[:, :1] > 0))[None], sums, -jnp.inf)
    best = jnp.argmax(sums.reshape(len(sums), -1), axis=1)
    return best // reach.shape[1], best // reach.shape[1] + best % reach.shape[1]


def create(loss: str, label_smoothing: float, facts: Mapping[str, Any], max_answer: int = 30) -> Task:
    """A task of one span a text; the network is called with `(tokens, segments=..., mask=...)` and gives [B, T, 2].

    Args:
      loss: 'softmax', or an import path of (logits [B, T], places [B]) -> [B].
      label_smoothing: 0.
      facts: not asked for.
      max_answer: tokens of an answer that is given, at most.

    Raises:
      ConfigError: no such loss, or label smoothing; while a step is traced, outputs of another shape.
    """
    del facts
    per_example = catalogue.resolve('loss', loss, LOSSES)
    refuse_smoothing('question_answering', label_smoothing)

    def logits(outputs, batch):
        """Of the start and of the end, float32 [B, T] each, next to nothing where no token is."""
        check_outputs('question_answering', outputs, (*batch['mask'].shape, 2))
        outputs = outputs.astype(jnp.promote_types(outputs.dtype, jnp.float32))
        return [jnp.where(batch['mask'], outputs[..., i], jnp.finfo(outputs.dtype).min) for i in (0, 1)]

    def losses(outputs, batch, constants):
        del constants
        start, end = map(per_example, logits(outputs, batch), _answer(batch))
        return (start + end) / 2 * batch['valid']

    def scores(outputs, batch):
        """(exact match bool, F1 float32) [B]."""
        (start, end), (right_start, right_end) = best_span(*logits(outputs, batch), max_answer), _answer(batch)
        common = jnp.maximum(jnp.minimum(end, right_end) - jnp.maximum(start, right_start) + 1, 0)
        exact = (start == right_start) & (end == right_end)
        return exact, 2 * common / (end - start + right_end - right_start + 2)

    def sums(outputs, batch, constants):
        exact, f1 = scores(outputs, batch)
        each = {'loss': losses(outputs, batch, constants), 'exact_match': exact, 'f1': f1, 'count': 1}
        return {name: jnp.sum(values * batch['valid']) for name, values in each.items()}

    return Task(
        fields=('tokens', 'mask', 'start', 'end'),
        inputs=token_inputs,
        sums=sums,
        train_sums=sums,
        losses=losses,
        rows=lambda outputs, batch: {'correct': scores(outputs, batch)[0]},
        metrics=lambda total: {name: total[name] / total['count'] for name in ('loss', 'exact_match', 'f1')},
        outputs=2,
    )
