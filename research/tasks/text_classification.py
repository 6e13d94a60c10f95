"""Classification of texts: rows of tokens, one class each.

Losses and metrics are those of research.tasks.classification.
"""

import functools
from typing import Any

import jax.numpy as jnp

from research.tasks import Task, classification, examples, token_inputs


@functools.wraps(classification.create, assigned=())  # whose arguments it takes
def create(*args: Any, **kwargs: Any) -> Task:
    """A task of one class a text; the network is called with `(tokens, segments=..., mask=...)`.

    Args:
      *args, **kwargs: as of research.tasks.classification.

    Raises:
      ConfigError: as it does.
    """
    plain = classification.create(*args, **kwargs)

    def rows(logits, batch):
        kept = plain.rows(logits, batch)
        if plain.predictions is None:
            return kept
        both = jnp.stack([batch['label'], jnp.argmax(logits, axis=-1)], axis=1)
        return {**kept, 'chances': jnp.take_along_axis(plain.predictions(logits.astype(jnp.float32)), both, axis=1)}

    return plain._replace(
        fields=('tokens', 'mask', 'label'),
        inputs=token_inputs,
        rows=rows,
        examples=examples.errors,
    )
