"""Texts with `[MASK]` in them as a trained network reads them, and its best guesses as tokens."""

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from research.catalogue import ConfigError
from research.data import texts
from research.data.tokenizer import MASK, PAD, number_of
from research.tasks import examples

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def coded(made: 'Tokenizer', given: Sequence[str], fields: Mapping[str, Any]) -> tuple[dict[str, np.ndarray], list[int]]:
    """Texts as a batch of the task masked_language_model, and how many blanks each has.

    Args:
      made: the run's tokenizer, which cuts at T tokens, and pads unless the run packs its texts.
      given: B texts.
      fields: of the run's data, by name, each with its 'shape'.

    Returns:
      ({'tokens': int32 [B, T], 'mask': bool [B, T], 'places': int32 [B, M], of the blanks, 0 where a text has fewer, and
      'packed', 'segments' where the data have them: int32 [B, T]}; blanks of each text).

    Raises:
      ConfigError: no text, something else than a text, one without a blank, or with one that is cut off.
    """
    if isinstance(given, str) or not len(given):
        raise ConfigError("Expected a list of texts, such as ['some [MASK] text'].")
    lines = texts.checked('The text', given).tolist()
    blank = made.id_to_token(number := number_of(made, MASK))
    # Such tokens bring the space before a word with them, so that a blank stood without it in training.
    if any(token.startswith(('Ġ', '▁')) for token in made.get_vocab()):
        lines = [re.sub(rf'\s+{re.escape(blank)}', blank, line) for line in lines]
    length = fields['tokens']['shape'][0]
    tokens, places = np.full((len(lines), length), number_of(made, PAD), np.int32), []
    mask = np.zeros(tokens.shape, bool)
    for row, (line, read) in enumerate(zip(lines, made.encode_batch_fast(lines), strict=True)):
        tokens[row, : len(read.ids)], mask[row, : len(read.ids)] = read.ids, read.attention_mask
        places.append(np.flatnonzero(tokens[row] == number))
        if not line.count(blank):
            raise ConfigError(f'The text at row {row} has no {blank}: write it where a token is to be guessed.')
        if len(places[-1]) < line.count(blank):
            raise ConfigError(
                f'The text at row {row} has {line.count(blank)} {blank}, and the network reads its first {length} tokens, '
                f'which hold {len(places[-1])}: shorten the text.'
            )
    most = max(map(len, places))
    batch = {
        'tokens': tokens,
        'mask': mask,
        'places': np.stack([np.pad(p, (0, most - len(p))) for p in places]).astype(np.int32),
    }
    alone = {'packed': mask.astype(np.int32), 'segments': np.zeros_like(tokens)}
    return batch | {name: values for name, values in alone.items() if name in fields}, [*map(len, places)]


def best(made: 'Tokenizer', chances: np.ndarray, count: int) -> list[list[tuple[str, float]]]:
    """The `count` most likely tokens at each blank of a text, with their probabilities; chances are float32 [M, V]."""
    order = np.argsort(-chances, axis=1, kind='stable')[:, :count]
    return [
        [(examples.token(made, int(number)), float(row[number])) for number in numbers]
        for row, numbers in zip(chances, order, strict=True)
    ]
