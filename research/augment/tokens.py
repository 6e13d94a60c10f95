"""Augmentation of texts: tokens are hidden, dropped, swapped or cut out, for each text and each time it is seen anew.

Idea: a class seldom hangs on one word or on the exact order, so a text with a few words less or elsewhere is a new example.

Sources: `token_mask` the corruption of Devlin et al. 2019 (BERT, section 3.1, without its random words); `token_dropout` word
dropout as in Bowman et al. 2016 (Generating sentences from a continuous space, section 3.1); `token_swap` Wei and Zou 2019
(EDA, random swap), of neighbours as in Artetxe et al. 2018 (Unsupervised neural machine translation, denoising);
`span_deletion` Wu et al. 2020 (CLEAR: contrastive learning for sentence representation).

Config: {'augment.names': ('token_mask',), 'augment.token_mask.share': 0.15}, and likewise for the others.

Cost: draws and moves of whole numbers, next to nothing. Claim: 0.8 points over five data sets, 3.0 with 500 examples each, of
four operations together (EDA, section 4.1).

These act on tokens, where the papers act on words, and never on [PAD], [CLS] and [SEP]. Clashes: tasks on places, whose tags
and spans `token_swap` and `span_deletion` would have to move; labels that hang on a single word, which then are wrong. Data
without texts have no special tokens and are refused; so are sentence pairs, whose two sides would have to change together.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from research.catalogue import ConfigError

# Fields that move with the tokens, and those of places that could not.
_MOVED, _PLACES = ('tokens', 'segments', 'mask'), ('tags', 'start', 'end')


def token_mask(keys: Any, batch: Mapping[str, Any], facts: Mapping[str, Any], share: float = 0.15) -> Mapping[str, Any]:
    """A share of the tokens becomes [MASK]."""
    return _replaced(keys, batch, facts, share, 4)


def token_dropout(keys: Any, batch: Mapping[str, Any], facts: Mapping[str, Any], share: float = 0.1) -> Mapping[str, Any]:
    """A share of the tokens becomes [UNK], as words that training has not seen do in an evaluation."""
    return _replaced(keys, batch, facts, share, 1)


def token_swap(keys: Any, batch: Mapping[str, Any], facts: Mapping[str, Any], share: float = 0.1) -> Mapping[str, Any]:
    """A share of the pairs of neighbours change places; pairs begin at even or at odd tokens, by text."""
    ordinary = _ordinary(batch, facts)
    here = jnp.arange(ordinary.shape[1])[None]
    odd = jax.vmap(lambda key: jax.random.bernoulli(jax.random.fold_in(key, 1)))(keys)[:, None]
    # What `roll` brings from the other end is [CLS], which has no part in any pair.
    first = (here % 2 == odd) & (_uniform(keys, ordinary) < share) & ordinary & jnp.roll(ordinary, -1, 1)
    return _moved(batch, here + first - jnp.roll(first, 1, 1))


def span_deletion(keys: Any, batch: Mapping[str, Any], facts: Mapping[str, Any], share: float = 0.1) -> Mapping[str, Any]:
    """A share of a text's tokens, one behind the other, is cut out; the rest closes up, and padding fills the end.

    A span may reach over the [SEP] between two texts, which stays.
    """
    ordinary = _ordinary(batch, facts)
    count, rank = ordinary.sum(1), jnp.cumsum(ordinary, 1) - 1
    length = jnp.round(share * count).astype(int)
    start = jax.vmap(lambda key, last: jax.random.randint(key, (), 0, last + 1))(keys, count - length)
    cut = ordinary & (rank >= start[:, None]) & (rank < (start + length)[:, None])
    moved = _moved(batch, jnp.argsort(cut, axis=1, stable=True))
    empty = jnp.arange(cut.shape[1])[None] >= (cut.shape[1] - length)[:, None]
    fills = {'tokens': facts['special_tokens'][0], 'segments': 0, 'mask': False}
    return {**moved, **{f: jnp.where(empty, fill, moved[f]).astype(moved[f].dtype) for f, fill in fills.items() if f in moved}}


def _replaced(keys: Any, batch: Mapping[str, Any], facts: Mapping[str, Any], share: float, special: int) -> Mapping[str, Any]:
    ordinary = _ordinary(batch, facts)
    drawn = ordinary & (_uniform(keys, ordinary) < share)
    tokens, other = batch['tokens'], facts['special_tokens'][special]
    if other is None:
        raise ConfigError(
            'token_mask puts [MASK] in the place of tokens, and token_dropout [UNK]: the tokenizer has no such token. Take '
            'token_swap or span_deletion, or add it to the vocabulary.'
        )
    return {**batch, 'tokens': jnp.where(drawn, other, tokens).astype(tokens.dtype)}


def _ordinary(batch: Mapping[str, Any], facts: Mapping[str, Any]) -> jax.Array:
    """bool [B, T], True on tokens other than [PAD], [CLS] and [SEP]."""
    if 'special_tokens' not in facts:
        raise ConfigError(
            'An augmentation of tokens has to know [CLS] and [SEP], and only data with texts have a tokenizer that says which '
            "they are. Choose such data (data.name 'texts'), or write one for your tokens."
        )
    if 'tokens' not in batch:
        raise ConfigError(
            "An augmentation of tokens changes the field 'tokens', and sentence pairs have 'source' and 'target', which are "
            'not augmented. Set augment.names to (), or write one for your fields.'
        )
    if 'other_tokens' in batch:
        raise ConfigError(
            'An augmentation of tokens leaves the second texts from elsewhere as they are, which tells them from next '
            "sentences. Set data.pair to '', or augment.names to ()."
        )
    pad, _, start, end, _ = facts['special_tokens']
    return ~jnp.isin(batch['tokens'], jnp.array([pad, start, end]))


def _uniform(keys: Any, like: jax.Array) -> jax.Array:
    """float32 [B, T] in [0, 1), a row of each key."""
    return jax.vmap(lambda key: jax.random.uniform(key, like.shape[1:], jnp.float32))(keys)


def _moved(batch: Mapping[str, Any], places: jax.Array) -> Mapping[str, Any]:
    """The batch with the token from places[b, t] at t."""
    if fixed := [field for field in _PLACES if field in batch]:
        raise ConfigError(
            f"An augmentation that moves tokens leaves the field '{fixed[0]}' where it was: take token_mask or token_dropout."
        )
    return {**batch, **{f: jnp.take_along_axis(batch[f], places, 1) for f in _MOVED if f in batch}}
