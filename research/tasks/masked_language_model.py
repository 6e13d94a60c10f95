"""Masked language model: BERT's pretraining (Devlin et al. 2019, section 3.1) on texts without labels.

Of a text's tokens 15 % are to be found again: 80 % of them become `[MASK]`, 10 % another token, 10 % stay. Each epoch draws
anew; an evaluation draws by the row alone, so that its scores can be compared. The network has the head 'pretraining' and
computes logits at the chosen places alone. B rows of T tokens, of which up to M are chosen, V entries in the vocabulary.

Next sentence, by config: half of the second texts are from another document, and the network tells which. Without it, the
default, as RoBERTa (Liu et al. 2019), which found it to be of no use. Config: {'task.next_sentence': True, 'data.pair': 'next'}
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from research.catalogue import ConfigError
from research.tasks import Task, examples, next_token, token_inputs


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
    next_sentence: bool = False,
) -> Task:
    """A task of tokens to be found again, scored by loss, accuracy and perplexity, all a token.

    Args:
      facts: of the data: 'vocabulary_size', 'special_tokens', and for whole words 'continues'.
      loss, label_smoothing: 'softmax' and 0 alone.
      rate: share of a text's tokens that is chosen, 1 at least.
      masked, replaced: shares of these that become `[MASK]`, and another token.
      whole_words: choose words instead of pieces, all pieces of each.
      next_sentence: tell too whether the second text follows the first. Its mean loss is added to
        the mean over tokens, where a row counts as often as it has chosen tokens; scores keep the two apart.

    Raises:
      ConfigError: another loss, shares that are none, a tokenizer without `[MASK]`, or that does not tell words from pieces.
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
    special = facts.get('special_tokens', ())
    if None in special[-1:]:
        raise ConfigError('Tokens are hidden by [MASK] or <mask>, and the tokenizer has neither: add one to its vocabulary.')
    special = np.array([number for number in special if number is not None], np.int32)
    continuing = np.array(facts.get('continues', ()), bool)
    texts = ('tokens', 'mask', *(('segments',) if next_sentence else ()))
    fields = (*texts, *(f'other_{name}' for name in texts if next_sentence))

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

    def prepare_one(key, row):
        choice, change, other, coin = jax.random.split(key, 4)
        if next_sentence:
            elsewhere = jax.random.bernoulli(coin)
            row = {name: jnp.where(elsewhere, row[f'other_{name}'], row[name]) for name in texts}
        tokens = row['tokens']
        places, counts = chosen(choice, tokens, row['mask'] & ~jnp.isin(tokens, special))
        targets = tokens[places]
        draw = jax.random.uniform(change, places.shape)
        others = jax.random.randint(other, places.shape, 0, facts['vocabulary_size'])
        new = jnp.where(draw < masked, special[-1], jnp.where(draw < masked + replaced, others, targets))
        tokens = tokens.at[places].set(jnp.where(counts, new, targets))
        told = {'elsewhere': elsewhere.astype(jnp.int32)} if next_sentence else {}
        return {**row, **told, 'tokens': tokens, 'places': places, 'targets': targets, 'counts': counts.astype(jnp.float32)}

    def prepare(keys, batch):
        return {**batch, **jax.vmap(prepare_one)(keys, {name: batch[name] for name in fields})}

    return Task(
        fields=fields,
        inputs=_inputs,
        sums=_pair_sums if next_sentence else _sums,
        train_sums=_train_sums if next_sentence else _sums,
        losses=_pair_losses if next_sentence else lambda outputs, batch, constants: _of_tokens(outputs, batch)[0].sum(axis=1),
        rows=_rows,
        metrics=_pair_metrics if next_sentence else next_token.metrics,
        prepare=prepare,
        examples=examples.blanks,
    )


def vocabulary_logits(outputs: Any) -> jax.Array:
    """[B, M, V] of a network that gives these alone, or before those of the next sentence."""
    return outputs[0] if isinstance(outputs, tuple) else outputs


def _of_tokens(outputs, batch):
    """Losses, whether each is right, and weights, each [B, M]."""
    logits = vocabulary_logits(outputs)
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    weights = batch['counts'] * batch['valid'][:, None]
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch['targets']) * weights
    return losses, (jnp.argmax(logits, axis=-1) == batch['targets']) * weights, weights


def _sums(outputs, batch, constants):
    del constants
    return dict(zip(('loss', 'correct', 'count'), map(jnp.sum, _of_tokens(outputs, batch)), strict=True))


def _rows(outputs, batch):
    kept = examples.guesses(vocabulary_logits(outputs), batch)
    if 'elsewhere' in batch:  # shown are the data's own texts
        kept['chances'] *= 1 - batch['elsewhere'][:, None, None]
    return kept


def _of_pairs(outputs, batch):
    """Losses, whether each is right, and weights, [B]: a pair that was cut short of its second text tells nothing."""
    logits = outputs[1].astype(jnp.promote_types(outputs[1].dtype, jnp.float32))
    weights = batch['valid'] * ((batch['segments'] > 0) & batch['mask']).any(axis=1)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch['elsewhere']) * weights
    return losses, (jnp.argmax(logits, axis=-1) == batch['elsewhere']) * weights, weights


def _pair_sums(outputs, batch, constants):
    told = zip(('next_loss', 'next_correct', 'rows'), map(jnp.sum, _of_pairs(outputs, batch)), strict=True)
    return _sums(outputs, batch, constants) | dict(told)


def _pair_losses(outputs, batch, constants):
    """A row's tokens each bring its answer's loss: losses over 'count' are then the sum of two means."""
    del constants
    losses, _, weights = _of_tokens(outputs, batch)
    return losses.sum(axis=1) + _of_pairs(outputs, batch)[0] * weights.sum(axis=1)


def _train_sums(outputs, batch, constants):
    scored = _pair_sums(outputs, batch, constants)
    return scored | {'loss': _pair_losses(outputs, batch, constants).sum(), 'token_loss': scored['loss']}


def _pair_metrics(total):
    loss, accuracy = (total[name] / max(total['rows'], 1) for name in ('next_loss', 'next_correct'))
    of_tokens = total | {'loss': total['token_loss']} if 'token_loss' in total else total
    return next_token.metrics(of_tokens) | {'next_sentence_loss': loss, 'next_sentence_accuracy': accuracy}
