"""What tasks share whose network tells each token from those before it: loss, accuracy and perplexity, all a token.

Label smoothing (Szegedy et al. 2016, section 7) spreads a share of each target over the vocabulary, in training alone.
B rows of T targets, V entries in the vocabulary.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from research.catalogue import ConfigError
from research.tasks import Task, check_outputs, check_smoothing

Inputs = tuple[tuple[Any, ...], dict[str, Any]]


def create(
    name: str,
    loss: str,
    label_smoothing: float,
    fields: tuple[str, ...],
    inputs: Callable[[Mapping[str, Any], Mapping[str, Any]], Inputs],
    targets: Callable[[Mapping[str, Any]], tuple[jax.Array, jax.Array]],
) -> Task:
    """A task of this name.

    Args:
      loss: 'softmax'.
      label_smoothing: share of each target, from 0 below 1.
      fields, inputs: as of `Task`; the network gives logits [B, T, V], or [B, T + 1, V] of which the last are not read.
      targets: batch -> (tokens int [B, T], whether each counts bool [B, T]).

    Raises:
      ConfigError: another loss, no such share; while a step is traced, outputs of another shape.
    """
    if loss != 'softmax':
        raise ConfigError(f"Task '{name}' learns tokens by task.loss 'softmax', not '{loss}'.")
    check_smoothing(label_smoothing)

    def each(smoothing, outputs, batch):
        """Losses, whether each is right, and what each counts, [B, T]."""
        tokens, counts = targets(batch)
        more = outputs.shape[1] - tokens.shape[1] if getattr(outputs, 'ndim', 0) == 3 else 0
        check_outputs(name, outputs, (len(tokens), tokens.shape[1] + (more == 1), getattr(outputs, 'shape', (0,))[-1]))
        logits = outputs[:, : tokens.shape[1]]
        logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
        weights = counts * batch['valid'][:, None]
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, tokens)
        if smoothing:  # the mean over all tokens of the vocabulary is the loss of an even target
            losses = (1 - smoothing) * losses + smoothing * (jax.nn.logsumexp(logits, -1) - logits.mean(-1))
        return losses * weights, _likeliest(logits, tokens) * weights, weights

    def sums(smoothing, outputs, batch):
        return dict(zip(('loss', 'correct', 'count'), map(jnp.sum, each(smoothing, outputs, batch)), strict=True))

    def rows(outputs, batch):
        losses, _, weights = each(0.0, outputs, batch)
        return {'loss': losses.sum(1) / jnp.maximum(weights.sum(1), 1)}

    return Task(
        fields=fields,
        inputs=inputs,
        sums=lambda outputs, batch, constants: sums(0.0, outputs, batch),
        train_sums=lambda outputs, batch, constants: sums(label_smoothing, outputs, batch),
        losses=lambda outputs, batch, constants: each(label_smoothing, outputs, batch)[0].sum(axis=1),
        rows=rows,
        metrics=metrics,
        decodes=True,
    )


def _likeliest(logits: jax.Array, tokens: jax.Array) -> jax.Array:
    """Whether tokens [B, T] are the argmax of logits [B, T, V]: of equal logits the first one is.

    No other token beats them, which is one comparison each: argmax itself takes 3 % of a training step of `transformer_small`
    with 8,192 tokens on two cores (jaxlib 0.10.2), this a tenth of that.
    """
    own, places = jnp.asarray(tokens)[..., None], jnp.arange(logits.shape[-1])[None, None]
    reached = jnp.take_along_axis(logits, own, axis=-1)
    return ((logits < reached) | (logits == reached) & (places >= own)).all(-1)


def uncut(mask: jax.Array, packed: jax.Array | None = None) -> jax.Array:
    """Which of the tokens behind the first count, bool [B, T - 1]: real ones, but for the end of a text that fills its row,
    which a longer text that was cut has too, and the first of a text behind another one.

    Args:
      mask: bool [B, T], True on real tokens.
      packed: int [B, T], which of several texts in a row a token belongs to; None for one.
    """
    counts = jnp.asarray(mask)[:, 1:]
    if packed is None:
        return counts.at[:, -1].set(False)
    return (counts & (packed[:, 1:] == packed[:, :-1])).at[:, -1].min(packed[:, -1] != packed[:, 0])


def metrics(total: Mapping[str, float]) -> dict[str, float]:
    """Of sums over tokens."""
    loss, accuracy = (total[name] / max(total['count'], 1) for name in ('loss', 'correct'))
    return {'loss': loss, 'accuracy': accuracy, 'perplexity': float(np.exp(min(loss, 700.0)))}
