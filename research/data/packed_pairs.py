"""Packed pairs: several training pairs share a row of each side without looking at each other, so that less of it is padding.

Idea: a batch costs as much as its rows are long, and short sentences leave most of a row empty. Which pairs share a row is the
same in every epoch and for every seed. Validation and test have a pair a row: they are written one by one.

Sources: packing Raffel et al. 2020 (T5, section 3.1.2); that texts of a row do not see each other Krell et al. 2021 (Efficient
sequence packing without cross-contamination).

Config: {'data.pack': True, 'data.length': 64, 'data.batch_size': 16}

Cost: masks of queries and keys. Of Debian's messages 81 % of the places in rows of 64 tokens are padding, packed 9 %. Claim:
BERT's pretraining twice as fast (Krell et al., abstract). Clashes: a batch counts rows, so the same number of them has more
pairs; pairs of a row are learnt together. `augment.resize` cuts rows, and the last target of one may lose words of its source.

Letters: N pairs, R rows, S tokens of a source's row, T of a target's.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from research.data import tokenizer
from research.data.pairs import SIDES

# The last rows that are looked at for room: of more of them one finds little more.
_OPEN = 16


def pack(
    found: Mapping[str, np.ndarray],
    sentences: Mapping[str, np.ndarray],
    splits: Mapping[str, np.ndarray],
    pads: Mapping[str, int],
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], dict[str, np.ndarray]]:
    """What `research.data.pair_tokens.rows` returns of packed pairs: arrays, texts and splits of R rows.

    Args:
      found: 'source' int32 [N, S], 'target' int32 [N, T], and their masks.
      sentences: 'source' and 'target', N texts each.
      splits: of the pairs.
      pads: side -> the token that stands on empty places.
    """
    counts = [found[f'{side}_mask'][splits['train']].sum(1).tolist() for side in SIDES]
    rows = [splits['train'][row] for row in _shared(counts, [found[side].shape[1] for side in SIDES])]
    placed = {'train': np.arange(len(rows))}
    for split in ('validation', 'test'):
        placed[split] = len(rows) + np.arange(len(splits[split]))
        rows += [splits[split][k : k + 1] for k in range(len(splits[split]))]
    pairs, row_of = np.concatenate(rows), np.repeat(np.arange(len(rows)), [*map(len, rows)])
    arrays, texts = {}, {}
    for side in SIDES:
        mask = found[f'{side}_mask'][pairs]
        shape = len(rows), mask.shape[1]
        tokens, numbers = tokenizer.laid(found[side][pairs][mask], mask.sum(1), row_of, shape, pads[side])
        arrays |= {side: tokens, f'{side}_mask': numbers > 0, f'{side}_packed': numbers}
        texts[side] = np.array(['\n'.join(sentences[side][row]) for row in rows], object)
    return arrays, texts, placed


def _shared(counts: Sequence[Sequence[int]], most: Sequence[int]) -> list[list[int]]:
    """Numbers of pairs that share a row, from tokens of each and places of a row, by side; the first recent row with room."""
    rows: list[list[int]] = []
    room: list[tuple[int, int]] = []
    for pair, (source, target) in enumerate(zip(*counts, strict=True)):
        recent = range(max(0, len(rows) - _OPEN), len(rows))
        row = next((k for k in recent if room[k][0] >= source and room[k][1] >= target), len(rows))
        if row == len(rows):
            rows.append([])
            room.append(tuple(most))
        rows[row].append(pair)
        room[row] = room[row][0] - source, room[row][1] - target
    return rows
