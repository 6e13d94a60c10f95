"""Classification of texts: rows of tokens, one class each.

Losses and metrics are those of research.tasks.classification.
"""

from collections.abc import Mapping
from typing import Any, Literal

import jax.numpy as jnp

from research.tasks import Task, classification, examples, token_inputs


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
        kept = plain.rows(logits, batch)
        if plain.probabilities is None:
            return kept
        both = jnp.stack([batch['label'], jnp.argmax(logits, axis=-1)], axis=1)
        return {**kept, 'chances': jnp.take_along_axis(plain.probabilities(logits.astype(jnp.float32)), both, axis=1)}

    return plain._replace(
        fields=('tokens', 'mask', 'label'),
        inputs=token_inputs,
        rows=rows,
        examples=examples.errors,
    )
