"""Tokenizers: texts to numbers, trained on the training split alone or taken from a file.

All are the library `tokenizers`', saved as its `tokenizer.json`; `[PAD]`, `[UNK]`, `[CLS]`, `[SEP]` and `[MASK]` are the first
entries of a vocabulary that is trained here. The library's trainer of unigrams adds in the order of a hash map, which gives
another vocabulary each time: none is trained here, and one that is there is named as a file.

A file may have other names for the special tokens, lack some, and have one for several: GPT-2's `<|endoftext|>` starts, ends
and pads a text. So `number_of` finds them, and masks alone tell what is padding.
"""

import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from research import catalogue
from research.catalogue import ConfigError
from research.data import order, spans

if TYPE_CHECKING:  # imported where a text is read: 40 ms that images save
    from tokenizers import Tokenizer

TOKENIZERS = {
    'word_piece': 'research.data.tokenizer:word_piece',
    'bpe': 'research.data.tokenizer:bpe',
    'words': 'research.data.tokenizer:words',
    'file': 'research.data.tokenizer:file',
}
GIVEN = ('texts',)
# Those that learn from the texts, and from nothing else.
TRAINED = ('word_piece', 'bpe', 'words')

TEXT, PAIR, DOCUMENT = 'text', 'pair', 'document'

PAD, UNKNOWN, START, END, MASK = SPECIAL = ('[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]')
# What stands for each in a vocabulary, the first that is there: BERT's names, RoBERTa's and T5's, GPT-2's. What ends a text
# starts and pads it too where nothing else does.
_ENDS = (END, '</s>', '<|endoftext|>')
_NAMES = {
    PAD: (PAD, '<pad>', *_ENDS),
    UNKNOWN: (UNKNOWN, '<unk>'),
    START: (START, '<s>', *_ENDS),
    END: _ENDS,
    MASK: (MASK, '<mask>'),
}


def word_piece(texts: Iterable[str], vocabulary_size: int = 8192, lowercase: bool = True) -> 'Tokenizer':
    """BERT's (Devlin et al. 2019): words and punctuation, each the longest pieces of the vocabulary from its left.

    Args:
      texts: to train on.
      vocabulary_size: entries at most, special tokens among them.
      lowercase: small letters without accents, as the uncased BERT.
    """
    from tokenizers import models, trainers

    learner, texts = _as_bert(models.WordPiece(unk_token=UNKNOWN), lowercase), [*texts]
    # The trainer numbers pieces such as '##a' in the order of a hash map, and breaks ties by it (its issue 1794): another
    # vocabulary each time, unless they are there from the start.
    words = (learner.pre_tokenizer.pre_tokenize_str(learner.normalizer.normalize_str(text)) for text in texts)
    inside = sorted({f'##{letter}' for text in words for word, _ in text for letter in word[1:]})
    trainer = trainers.WordPieceTrainer(vocab_size=vocabulary_size, special_tokens=[*SPECIAL, *inside], show_progress=False)
    learner.train_from_iterator(texts, trainer)
    return _as_bert(models.WordPiece(learner.get_vocab(), unk_token=UNKNOWN), lowercase)


def bpe(texts: Iterable[str], vocabulary_size: int = 8192) -> 'Tokenizer':
    """Byte pairs (Sennrich et al. 2016) over bytes, as GPT-2 (Radford et al. 2019): no text has an unknown token."""
    from tokenizers import models, normalizers, pre_tokenizers, trainers

    made = _as_gpt2(models.BPE())
    made.normalizer = normalizers.NFC()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size, special_tokens=[*SPECIAL], initial_alphabet=alphabet, show_progress=False
    )
    made.train_from_iterator(texts, trainer)
    return made


def words(texts: Iterable[str], vocabulary_size: int = 2**16, min_count: int = 5, lowercase: bool = True) -> 'Tokenizer':
    """Whole words and punctuation, split as BERT does; the most frequent ones, and `[UNK]` for the rest.

    Args:
      texts: to count them in.
      vocabulary_size: entries at most, special tokens among them.
      min_count: times that a word must be there.
      lowercase: as of `word_piece`.
    """
    from tokenizers import models, trainers

    made = _as_bert(models.WordLevel(unk_token=UNKNOWN), lowercase)
    trainer = trainers.WordLevelTrainer(
        vocab_size=vocabulary_size, min_frequency=min_count, special_tokens=[*SPECIAL], show_progress=False
    )
    made.train_from_iterator(texts, trainer)
    return made


def file(texts: Iterable[str], path: str, lowercase: bool = True) -> 'Tokenizer':
    """One that was trained elsewhere.

    Args:
      texts: not used.
      path: a `tokenizer.json`, a `vocab.txt` of word pieces, GPT-2's `vocab.json` beside its `merges.txt`, or a folder that
        holds one of them.
      lowercase: of a `vocab.txt`, which does not say.

    Raises:
      ConfigError: no such file, or one that is no tokenizer.
    """
    from tokenizers import Tokenizer, models

    del texts
    given = pathlib.Path(path).expanduser()
    found = [p for p in (given, *(given / name for name in ('tokenizer.json', 'vocab.txt', 'vocab.json'))) if p.is_file()]
    if not found:
        raise ConfigError(
            f"data.tokenizer.path='{path}': expected a tokenizer.json, a vocab.txt, or a folder with either, or with a "
            'vocab.json and its merges.txt.'
        )
    try:
        if found[0].name == 'vocab.json':
            return _as_gpt2(models.BPE.from_file(str(found[0]), str(found[0].with_name('merges.txt'))))
        if found[0].suffix == '.json':
            return Tokenizer.from_file(str(found[0]))
        return _as_bert(models.WordPiece.from_file(str(found[0]), unk_token=UNKNOWN), lowercase)
    except Exception as error:  # the library raises bare exceptions
        raise ConfigError(f"data.tokenizer.path='{path}' is no tokenizer: {error}.") from error


def _as_bert(model: Any, lowercase: bool) -> 'Tokenizer':
    from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers

    made = Tokenizer(model)
    made.normalizer, made.pre_tokenizer = normalizers.BertNormalizer(lowercase=lowercase), pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
    return made


def _as_gpt2(model: Any) -> 'Tokenizer':
    from tokenizers import Tokenizer, decoders, pre_tokenizers

    made = Tokenizer(model)
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    return made


def create(group: Mapping[str, Any], texts: Iterable[str]) -> 'Tokenizer':
    """The tokenizer of the group `config.data.tokenizer`, ready to frame texts by what stands for `[CLS]` and `[SEP]`.

    Args:
      group: its name and arguments.
      texts: those that it may learn from.

    Raises:
      ConfigError: a file that is no tokenizer, or one that lacks the token that ends a text, or that of unknown words where its
        model has one.
    """
    from tokenizers import processors

    made = catalogue.build('tokenizer', group, TOKENIZERS, texts=texts)
    if number_of(made, END) is None:
        raise ConfigError(
            f"The tokenizer '{group['name']}' has no token that ends a text: add one of {', '.join(_ENDS)} to it."
        )
    unknown = getattr(made.model, 'unk_token', None)
    if unknown and made.token_to_id(unknown) is None:
        raise ConfigError(f"The tokenizer '{group['name']}' has no {unknown}, its unknown token: add it to its vocabulary.")
    tokens = {role: made.id_to_token(found) for role in SPECIAL if (found := number_of(made, role)) is not None}
    made.add_special_tokens([*dict.fromkeys(tokens.values())])  # never cut, and left out of what is decoded
    start, end = tokens[START], tokens[END]
    made.post_processor = processors.TemplateProcessing(
        single=f'{start} $A {end}',
        pair=f'{start} $A {end} $B:1 {end}:1',
        special_tokens=[(token, made.token_to_id(token)) for token in (start, end)],
    )
    return made


def number_of(made: 'Tokenizer', role: str) -> int | None:
    """Number of the token that stands for one of `SPECIAL`; None of `[UNK]` and `[MASK]` where a vocabulary has no such."""
    return next((found for name in _NAMES[role] if (found := made.token_to_id(name)) is not None), None)


def rows(
    arrays: Mapping[str, Any], splits: Mapping[str, np.ndarray], config: Mapping[str, Any]
) -> tuple[dict[str, np.ndarray], Mapping[str, np.ndarray], 'Tokenizer']:
    """Every text of a source as tokens, by a tokenizer that has seen the training split alone.

    Args:
      arrays: 'text' and maybe 'pair', each N texts, and with these 'document'.
      splits: of these texts; the tokenizer reads 'train'.
      config: `config.data`; reads `tokenizer`, `length` and `pack`.

    Returns:
      (what `encode` gives, without segments where there are no pairs, or what `packed` gives; the splits of these rows; the
      tokenizer, with the length in it). Of pairs with documents also 'other_tokens', 'other_segments' and 'other_mask': the
      same first texts before a second text from another document of the split, drawn once.

    Raises:
      ConfigError: texts to pack that have labels, or pairs; a split of one document.
    """
    made = fitted(learned(arrays, splits, config), config)
    return *coded(made, arrays, splits, config), made


def learned(arrays: Mapping[str, Any], splits: Mapping[str, np.ndarray], config: Mapping[str, Any]) -> 'Tokenizer':
    """The tokenizer of `rows`, without a length; takes and raises the same."""
    columns = _columns(arrays, config)
    return create(config['tokenizer'], (column[row] for column in columns for row in splits['train']))


def fitted(made: 'Tokenizer', config: Mapping[str, Any]) -> 'Tokenizer':
    """Puts the length into a tokenizer, and what stands behind a shorter text."""
    made.enable_truncation(config['length'])
    if not config['pack']:
        pad = number_of(made, PAD)
        made.enable_padding(length=config['length'], pad_id=pad, pad_token=made.id_to_token(pad))
    return made


def coded(
    made: 'Tokenizer', arrays: Mapping[str, Any], splits: Mapping[str, np.ndarray], config: Mapping[str, Any]
) -> tuple[dict[str, np.ndarray], Mapping[str, np.ndarray]]:
    """The rows of `rows` and their splits, by a tokenizer from `fitted`."""
    columns = _columns(arrays, config)
    if config['pack']:
        return packed(made, columns[0], splits, config['length'])
    found = encode(made, *columns, marks={name: arrays[name][:] for name in spans.FIELDS if name in arrays})
    if DOCUMENT in read(arrays):
        documents, other = arrays[DOCUMENT][:], np.arange(len(columns[0]))
        for split, numbers in splits.items():
            if len(numbers) and len(np.unique(documents[numbers])) == 1:
                raise ConfigError(f"The {split} split has one document, and a next sentence is told from another's: add texts.")
            other[numbers] = numbers[order.elsewhere(documents[numbers])]
        found |= {f'other_{name}': a for name, a in encode(made, columns[0], [columns[1][row] for row in other]).items()}
    return {name: a for name, a in found.items() if name != 'segments' or columns[1:]}, splits


def read(arrays: Mapping[str, Any]) -> tuple[str, ...]:
    """The fields of a source that become rows of tokens: texts, their `spans.FIELDS`, and of pairs the numbers of documents.

    Raises:
      ConfigError: documents that are no whole numbers [N].
    """
    document = arrays.get(DOCUMENT)
    if document is None or PAIR not in arrays:
        return tuple(name for name in (TEXT, PAIR, *spans.FIELDS) if name in arrays)
    if document.dtype.kind not in 'iu' or len(document.shape) != 1:
        raise ConfigError(
            f"Pairs of texts have a field '{DOCUMENT}', {document.dtype} {document.shape}: expected whole numbers [N], of each "
            'pair that of its document. Leave it out, or rename it.'
        )
    return TEXT, PAIR, DOCUMENT


def _columns(arrays: Mapping[str, Any], config: Mapping[str, Any]) -> list[list[str]]:
    if config['pack'] and (other := sorted({*arrays} - {TEXT})):
        raise ConfigError(f"data.pack puts several texts in a row, and these have a '{other[0]}' each: set it to False.")
    return [arrays[name][:].tolist() for name in (TEXT, PAIR) if name in arrays]


def encode(made: 'Tokenizer', *columns: Sequence[str], marks: Mapping[str, Any] | None = None) -> dict[str, np.ndarray]:
    """Texts, or pairs of them, as rows of one length: the longer are cut behind, the shorter padded.

    Args:
      made: as `rows` makes and saves it, which has the length T in it.
      *columns: N texts, and maybe the N that stand behind them.
      marks: tags or answers of the N texts; what `spans.placed` makes of them is returned too.

    Returns:
      {'tokens': int32 [N, T], 'segments': int32 [N, T], 1 on second texts, 'mask': bool [N, T], True on tokens}.
    """
    encode_batch = made.encode_batch if marks else made.encode_batch_fast  # which finds no offsets
    coded = encode_batch([*zip(*columns, strict=True)] if columns[1:] else columns[0])
    return {
        'tokens': np.array([row.ids for row in coded], np.int32),
        'segments': np.array([row.type_ids for row in coded], np.int32),
        'mask': np.array([row.attention_mask for row in coded], bool),
        **spans.placed(coded, columns[0], marks),
    }


def packed(
    made: 'Tokenizer', texts: Sequence[str], splits: Mapping[str, np.ndarray], length: int
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Texts one after the other, in rows of T tokens; those of more than T in several pieces.

    Args:
      made: a tokenizer that cuts at T tokens and does not pad.
      texts: N.
      splits: of the texts; rows hold texts of one split.
      length: T.

    Returns:
      ({'tokens': int32 [R, T], 'mask': bool [R, T], 'packed': int32 [R, T], the number of a token's text in its row, from
      1, 0 on padding}; the splits of the rows).
    """
    pieces: list[list[int]] = []
    rows: list[int] = []  # of each piece
    found, count = {}, 0
    for split, numbers in splits.items():
        first, left = count, 0
        for coded in made.encode_batch_fast([texts[number] for number in numbers]):
            for piece in (coded, *coded.overflowing):
                if left < len(piece.ids):
                    count, left = count + 1, length
                pieces.append(piece.ids)
                rows.append(count - 1)
                left -= len(piece.ids)
        found[split] = np.arange(first, count)
    flat, counts = [token for piece in pieces for token in piece], [*map(len, pieces)]
    tokens, numbers = laid(flat, counts, rows, (count, length), number_of(made, PAD))
    return {'tokens': tokens, 'mask': numbers > 0, 'packed': numbers}, found


def laid(
    tokens: Sequence[int], counts: Sequence[int], rows: Sequence[int], shape: tuple[int, int], pad: int
) -> tuple[np.ndarray, np.ndarray]:
    """Texts one after the other in rows of T tokens.

    Args:
      tokens: of all P texts, end to end.
      counts: of the tokens of each text, [P].
      rows: that each text stands in, [P], rising.
      shape: (R, T).
      pad: the token that stands on empty places.

    Returns:
      (tokens int32 [R, T]; the number of a token's text in its row, from 1, 0 on padding, int32 [R, T]).
    """
    flat, sizes, row_of = (np.asarray(values, np.int64) for values in (tokens, counts, rows))
    first = np.searchsorted(row_of, row_of)  # of each text the one that begins its row
    starts = sizes.cumsum() - sizes
    at = np.repeat(row_of, sizes), np.arange(len(flat)) - np.repeat(starts[first], sizes)
    found, numbers = np.full(shape, pad, np.int32), np.zeros(shape, np.int32)
    found[at], numbers[at] = flat, np.repeat(np.arange(len(row_of)) - first + 1, sizes)
    return found, numbers


def facts(made: 'Tokenizer') -> dict[str, Any]:
    """What tasks and networks ask of a tokenizer, see `research.data.Dataset.facts`."""
    tokens = [made.id_to_token(number) or '' for number in range(made.get_vocab_size())]
    special = tuple(number_of(made, role) for role in SPECIAL)
    # Pieces inside a word have a mark ('##' of word pieces), or those that begin one have (of bytes and of sentence pieces).
    begins = next((mark for mark in ('Ġ', '▁') if any(token.startswith(mark) for token in tokens)), None)
    continues = (token.startswith('##') if begins is None else not token.startswith(begins) for token in tokens)
    return {
        'vocabulary_size': len(tokens),
        'special_tokens': special,
        'continues': tuple(continues),
        # Each letter of such a token stands for a byte; others do not give back the text as it was.
        **(
            {'token_bytes': tuple(0 if n in special else len(token) for n, token in enumerate(tokens))} if begins == 'Ġ' else {}
        ),
    }


def of(dataset: Any) -> 'tuple[Tokenizer, Tokenizer]':
    """Those of a data set of texts: of its sources and of its targets, which may be one."""
    from tokenizers import Tokenizer

    made = Tokenizer.from_str(dataset.tokenizer)
    return made, Tokenizer.from_str(dataset.target_tokenizer) if dataset.target_tokenizer else made


def written(made: 'Tokenizer', tokens: np.ndarray) -> list[str]:
    """Rows of tokens, int [N, T], as texts, each up to its first token that ends one."""
    end = number_of(made, END)
    return made.decode_batch([row[: [*row, end].index(end)] for row in tokens.tolist()])


def saved(path: pathlib.Path) -> 'Tokenizer | None':
    """The tokenizer that a run has saved; None of a run without one."""
    if not path.exists():
        return None
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(path))
