"""Sentence pairs as rows of tokens, one row a side. N pairs, R rows; sources of S tokens, targets of T."""

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from research import catalogue
from research.catalogue import ConfigError
from research.data import packed_pairs, token_cache, tokenizer
from research.data.pairs import SIDES, SOURCE, TARGET

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TARGETS = {
    'given': 'research.data.pair_tokens:given',
    'translated': 'research.pretrained.sequence_distillation:translated',
}
TOKENIZERS = {'shared': 'research.data.pair_tokens:shared', **tokenizer.TOKENIZERS}

# What a task that writes targets asks for: where one begins, where it ends, and what stands behind it.
_MARKS = {'bos': tokenizer.START, 'eos': tokenizer.END, 'pad': tokenizer.PAD}

# Share of unknown tokens beyond which a vocabulary is not one of that side.
_UNKNOWN = 0.5


def shared(texts: Any) -> None:
    """None: the targets have the tokenizer of the sources, which has then learnt from both."""
    del texts


def given(sources: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, str]:
    """The targets as they were read."""
    del sources
    return targets, ''


def taught(
    arrays: Mapping[str, Any], train: np.ndarray, config: Mapping[str, Any], checksum: str
) -> tuple[Mapping[str, Any], str]:
    """The arrays of `rows`, with training targets as `data.targets` has them, and the checksum of the source with these."""
    sources, targets = (arrays[side][:] for side in SIDES)
    learnt, told = catalogue.build('targets', config['targets'], TARGETS, sources=sources[train], targets=targets[train])
    if not told:
        return arrays, checksum
    targets = targets.copy()
    targets[train] = learnt
    return {**arrays, TARGET: targets}, f'{checksum} {told}'


def rows(
    arrays: Mapping[str, Any], splits: Mapping[str, np.ndarray], config: Mapping[str, Any], checksum: str
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], Mapping[str, np.ndarray], dict[str, Any], tuple[str, str]]:
    """Both sides as `[CLS] tokens [SEP]`, padded by `[PAD]`.

    Args:
      arrays: 'source' and 'target', each N texts, and nothing else where they are packed.
      splits: of these; tokenizers learn from 'train'.
      config: `config.data`; reads `tokenizer`, `target_tokenizer`, `length`, `target_length` and `pack`.
      checksum: of the source of the data.

    Returns:
      ({'source': int32 [R, S], 'source_mask': bool [R, S], 'target': int32 [R, T], 'target_mask': bool [R, T]}, of packed
      pairs also 'source_packed' int32 [R, S] and 'target_packed' int32 [R, T], the number of a token's pair in its row, from 1,
      0 on padding; the texts of each row, {'source': [R], 'target': [R]}, those of one row joined by ends of lines; the splits
      of these rows; facts, see `research.data.Dataset.facts`; both tokenizers as texts, the second '' where they share one).

    Raises:
      ConfigError: other fields beside packed pairs, a tokenizer that cannot be had, or one that does not know a side.
    """
    if config['pack'] and (other := sorted({*arrays} - {*SIDES})):
        raise ConfigError(f"data.pack puts several pairs in a row, and these have a '{other[0]}' each: set it to False.")
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
    sentences = {side: arrays[side] for side in SIDES}
    if config['pack']:
        pads = {side: tokenizer.number_of(made[side], tokenizer.PAD) for side in SIDES}
        found, sentences, splits = packed_pairs.pack(found, sentences, splits, pads)
    facts = _facts(made, found, splits['train'])
    return found, sentences, splits, facts, (made[SOURCE].to_str(), '' if one else made[TARGET].to_str())


def _facts(made: Mapping[str, 'Tokenizer'], found: Mapping[str, np.ndarray], train: np.ndarray) -> dict[str, Any]:
    masks = [found[f'{side}_mask'][train] for side in SIDES]
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
