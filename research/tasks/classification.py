"""Classification: softmax or sigmoid cross-entropy, top-1 accuracy."""

import jax
import jax.numpy as jnp
import optax

from research import catalogue
from research.tasks import Task


def _softmax(logits, labels):
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels)


def _sigmoid(logits, labels):
    return optax.sigmoid_binary_cross_entropy(logits, jax.nn.one_hot(labels, logits.shape[-1])).sum(axis=-1)


LOSSES = {'softmax': 'research.tasks.classification:_softmax', 'sigmoid': 'research.tasks.classification:_sigmoid'}


def create(loss: str) -> Task:
    """Args: loss: 'softmax' (one class an example) or 'sigmoid' (K yes-or-no questions; the largest logit is the answer)."""
    per_example = catalogue.resolve('loss', loss, LOSSES)

    def correct(logits, batch):
        return jnp.argmax(logits, axis=-1) == batch['label']

    def sums(logits, batch):
        logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
        mask = batch['mask']
        return {
            'loss': jnp.sum(per_example(logits, batch['label']) * mask),
            'correct': jnp.sum(correct(logits, batch) * mask),
            'count': jnp.sum(mask),
        }

    def metrics(total):
        return {'loss': total['loss'] / total['count'], 'accuracy': total['correct'] / total['count']}

    return Task(sums, correct, metrics)
