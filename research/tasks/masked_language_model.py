"""Masked language model: BERT's pretraining (Devlin et al. 2019, section 3.1) on texts without labels.

Of a text's tokens 15 % are to be found again: 80 % of them become `[MASK]`, 10 % another token, 10 % stay. Each epoch draws
anew; an evaluation draws by the row alone, so that its scores can be compared. Without a next sentence, as RoBERTa (Liu et al.
2019). The network has the head 'pretraining' and computes logits at the chosen places alone. B rows of T tokens, of which up to
M are chosen, V entries in the vocabulary.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from research.catalogue import ConfigError
from research.tasks import Task, examples, token_inputs


def _inputs(batch, constants):
    args, kwargs = token_inputs(batch, constants)
    packed = {'packed': batch['packed']} if 'packed' in batch else {}
    return args, {**kwargs, **packed, 'places': batch['places']}


def _starts(continues: jax.Array) -> jax.Array:
    """Place of the first piece of each token's word, int [T], from which tokens continue a word, bool [T]."""
    return jax.lax.cummax(jnp.where(continues, 0, jnp.arange(continues.size)))


def create(
    facts: Mapping[str, Any],
    loss: str = 'softmax',
    label_smoothing: float = 0.0,
    rate: float = 0.15,
    masked: float = 0.8,
    replaced: float = 0.1,
    whole_words: bool = False,
) -> Task:
    """A task of tokens to be found again, scored by loss, accuracy and perplexity, all a token.

    Args:
      facts: of the data: 'vocabulary_size', 'special_tokens', and for whole words 'continues'.
      loss, label_smoothing: 'softmax' and 0 alone.
      rate: share of a text's tokens that is chosen, 1 at least.
      masked, replaced: shares of these that become `[MASK]`, and another token.
      whole_words: choose words instead of pieces, all pieces of each.

    Raises:
      ConfigError: another loss, shares that are none, a tokenizer that does not tell words from pieces.
    """
    if loss != 'softmax' or label_smoothing:
        raise ConfigError(
            f"Masked tokens are learnt by task.loss 'softmax' without label smoothing, not '{loss}' and {label_smoothing}."
        )
    if not (0 < rate < 1 and min(masked, replaced) >= 0 and masked + replaced <= 1):
        raise ConfigError(
            'task.rate is a share in (0, 1), and task.masked and task.replaced add up to 1 at most, not '
            f'{rate}, {masked} and {replaced}.'
        )
    if whole_words and 'continues' in facts and not any(facts['continues']):
        raise ConfigError('task.whole_words: no piece of this tokenizer continues a word: take another, or choose tokens.')
    special = np.array(facts.get('special_tokens', ()), np.int32)
    continuing = np.array(facts.get('continues', ()), bool)

    def chosen(key, tokens, usable):
        """(places int [M], whether each counts bool [M]): the first tokens, or words, of a random order."""
        length = tokens.size
        start = _starts(jnp.asarray(continuing)[tokens] & usable) if whole_words else jnp.arange(length)
        noise = jnp.where(usable, jax.random.uniform(key, (length,))[start], jnp.inf)
        places = jnp.argsort(noise, stable=True)
        wanted = jnp.maximum(1, jnp.round(rate * usable.sum()))
        counts = usable[places] & (jnp.arange(length) < wanted)
        if whole_words:  # the last word counts with all of its pieces or not at all, unless it is the only one
            words = start[places]
            last = words[jnp.clip(wanted.astype(int), 0, length - 1)]
            counts &= (words != last) | (words == words[0])
        most = max(1, round(rate * length))
        return places[:most], counts[:most]

    def prepare_one(key, tokens, mask):
        choice, change, other = jax.random.split(key, 3)
        places, counts = chosen(choice, tokens, mask & ~jnp.isin(tokens, special))
        targets = tokens[places]
        draw = jax.random.uniform(change, places.shape)
        others = jax.random.randint(other, places.shape, 0, facts['vocabulary_size'])
        new = jnp.where(draw < masked, special[-1], jnp.where(draw < masked + replaced, others, targets))
        tokens = tokens.at[places].set(jnp.where(counts, new, targets))
        return {'tokens': tokens, 'places': places, 'targets': targets, 'counts': counts.astype(jnp.float32)}

    def prepare(keys, batch):
        return {**batch, **jax.vmap(prepare_one)(keys, batch['tokens'], batch['mask'])}

    def each(outputs, batch):
        logits = outputs[0] if isinstance(outputs, tuple) else outputs
        logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
        weights = batch['counts'] * batch['valid'][:, None]
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch['targets']) * weights
        return losses, (jnp.argmax(logits, axis=-1) == batch['targets']) * weights, weights

    def sums(outputs, batch, constants):
        del constants
        return dict(zip(('loss', 'correct', 'count'), map(jnp.sum, each(outputs, batch)), strict=True))

    def metrics(total):
        count = max(total['count'], 1)
        loss = total['loss'] / count
        return {'loss': loss, 'accuracy': total['correct'] / count, 'perplexity': float(np.exp(min(loss, 700.0)))}

    return Task(
        fields=('tokens', 'mask'),
        inputs=_inputs,
        sums=sums,
        train_sums=sums,
        losses=lambda outputs, batch, constants: each(outputs, batch)[0].sum(axis=1),
        rows=lambda outputs, batch: examples.guesses(outputs[0] if isinstance(outputs, tuple) else outputs, batch),
        metrics=metrics,
        prepare=prepare,
        examples=examples.blanks,
    )
