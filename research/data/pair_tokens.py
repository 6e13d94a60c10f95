"""Sentence pairs as rows of tokens, one row a side. N pairs; sources of S tokens, targets of T."""

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from research.catalogue import ConfigError
from research.data import token_cache, tokenizer
from research.data.pairs import SIDES, SOURCE, TARGET

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TOKENIZERS = {'shared': 'research.data.pair_tokens:shared', **tokenizer.TOKENIZERS}

# What a task that writes targets asks for: where one begins, where it ends, and what stands behind it.
_MARKS = {'bos': tokenizer.START, 'eos': tokenizer.END, 'pad': tokenizer.PAD}

# Share of unknown tokens beyond which a vocabulary is not one of that side.
_UNKNOWN = 0.5


def shared(texts: Any) -> None:
    """None: the targets have the tokenizer of the sources, which has then learnt from both."""
    del texts


def rows(
    arrays: Mapping[str, Any], splits: Mapping[str, np.ndarray], config: Mapping[str, Any], checksum: str
) -> tuple[dict[str, np.ndarray], dict[str, Any], tuple[str, str]]:
    """Both sides as `[CLS] tokens [SEP]`, padded by `[PAD]`.

    Args:
      arrays: 'source' and 'target', each N texts.
      splits: of these; tokenizers learn from 'train'.
      config: `config.data`; reads `tokenizer`, `target_tokenizer`, `length`, `target_length` and `pack`.
      checksum: of the source of the data.

    Returns:
      ({'source': int32 [N, S], 'source_mask': bool [N, S], 'target': int32 [N, T], 'target_mask': bool [N, T]}; facts, see
      `research.data.Dataset.facts`; both tokenizers as texts, the second '' where they share one).

    Raises:
      ConfigError: `data.pack`, a tokenizer that cannot be had, or one that does not know a side.
    """
    if config['pack']:
        raise ConfigError('data.pack puts several texts in a row, and a pair has a row a side: set it to False.')
    groups = {SOURCE: config['tokenizer'], TARGET: config['target_tokenizer']}
    lengths = {SOURCE: config['length'], TARGET: config['target_length'] or config['length']}
    one = groups[TARGET]['name'] == 'shared'
    found, made = {}, {}
    for side in SIDES:
        settings = {'tokenizer': groups[SOURCE if one else side], 'length': lengths[side], 'pack': False}
        learnt_from = dict(
            zip((tokenizer.TEXT, tokenizer.PAIR), (arrays[name] for name in (SIDES if one else (side,))), strict=False)
        )
        name = f'{checksum} {"both" if one else side}'
        try:
            made[side] = tokenizer.fitted(token_cache.learned(learnt_from, splits, settings, name), settings)
        except ConfigError as error:  # which names the field of texts that have one side
            field = 'data.tokenizer' if side == SOURCE or one else 'data.target_tokenizer'
            raise ConfigError(str(error).replace('data.tokenizer', field)) from error
        coded, _ = token_cache.coded(made[side], {tokenizer.TEXT: arrays[side]}, splits, settings, f'{checksum} {side}')
        found |= {side: coded['tokens'], f'{side}_mask': coded['mask']}
        _refuse_unknown(side, coded['tokens'][splits['train']], made[side], one)
    _warn_of_cuts(found, splits['train'])
    return found, _facts(made, found), (made[SOURCE].to_str(), '' if one else made[TARGET].to_str())


def _facts(made: Mapping[str, 'Tokenizer'], found: Mapping[str, np.ndarray]) -> dict[str, Any]:
    masks = [found[f'{side}_mask'] for side in SIDES]
    return {
        **tokenizer.facts(made[SOURCE]),
        'target_vocabulary_size': made[TARGET].get_vocab_size(),
        **{name: tokenizer.number_of(made[TARGET], role) for name, role in _MARKS.items()},
        'padding': 1 - float(sum(mask.sum() for mask in masks) / sum(mask.size for mask in masks)),
    }


def _refuse_unknown(side: str, tokens: np.ndarray, made: 'Tokenizer', one: bool) -> None:
    """Raises ConfigError where most of a side's words are unknown: rows [N, S or T] of the training split."""
    framing = [tokenizer.number_of(made, role) for role in _MARKS.values()]
    words = tokens[~np.isin(tokens, framing)]
    # A tokenizer of bytes may have no such token: no word is unknown to it.
    unknown = float((words == tokenizer.number_of(made, tokenizer.UNKNOWN)).mean()) if len(words) else 1.0
    if unknown > _UNKNOWN:
        field = 'data.tokenizer' if side == SOURCE or one else 'data.target_tokenizer'
        raise ConfigError(
            f'{unknown:.0%} of the tokens of the {side} side are unknown to the vocabulary of {field}, which is not one of '
            f"this side: choose another, such as {field}.name = 'bpe'."
        )


def _warn_of_cuts(found: Mapping[str, np.ndarray], train: np.ndarray) -> None:
    for side, field in ((SOURCE, 'data.length'), (TARGET, 'data.target_length')):
        mask = found[f'{side}_mask']
        if full := int(mask[train, -1].sum()):
            warnings.warn(
                f'{full} of {len(train)} training {side}s fill all {mask.shape[1]} tokens, and what is longer is cut: raise '
                f"{field}, or add 'long' to data.clean.",
                stacklevel=2,
            )
