"""Words with a tag each, and answers in a context: columns of a table, and the places of the tokens that they become.

Words and tags are two columns of lists, as Hugging Face has CoNLL and Universal Dependencies. Answers are a column of
`{'text': [...], 'answer_start': [...]}`, as it has SQuAD: the first counts, empty lists are no answer.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from research.catalogue import ConfigError

if TYPE_CHECKING:
    from tokenizers import Encoding

# Fields of a source; the spaces keep them apart from those of a loader function.
WORD_TAGS, ANSWER = FIELDS = ('tags of words', 'place of an answer')

_WORDS = {'text': list, 'label': list}
_ANSWERS = {'text': str, 'pair': str, 'label': dict}


def read(
    where: str, tables: Mapping[str, Mapping[str, Sequence[Any]]], numbered: Callable[..., Any]
) -> tuple[dict[str, dict[str, Any]], tuple[str, ...]] | None:
    """Tables with words or answers in the fields of a source; None of tables without them.

    Args:
      where: messages begin with it.
      tables: part -> {'text', 'pair', 'label': N values}, those that there are.
      numbered: `research.data.texts.numbered`, for the tags.

    Returns:
      (part -> {'text': N texts, words joined by spaces, `WORD_TAGS`: int32 [N, W], -1 behind the last word and for a tag
      below 0, which does not count}, or {'text': N
      questions, 'pair': N contexts, `ANSWER`: int32 [N, 2], the first character in the context and the one behind the last,
      -1 for none}; the names of the tags).

    Raises:
      ConfigError: other columns, words that are none, not a tag for each word, a tag that training has not, an answer that
        does not stand where it should.
    """
    kinds = {part: {field: type(next(iter(values), None)) for field, values in table.items()} for part, table in tables.items()}
    if not {list, dict} & {kind for of_part in kinds.values() for kind in of_part.values()}:
        return None
    if all(of_part == _ANSWERS for of_part in kinds.values()):
        answers = {part: _answers(f'{where}: the {part} part', table) for part, table in tables.items()}
        return {part: {'text': t['text'], 'pair': t['pair'], ANSWER: answers[part]} for part, t in tables.items()}, ()
    for part, of_part in kinds.items():
        if of_part != _WORDS:
            found = ', '.join(f'data.{field} is a {kind.__name__}' for field, kind in of_part.items())
            raise ConfigError(
                f'{where}: in the rows of the {part} part {found}. Expected of all parts either a list of words as data.text '
                "and one of their tags as data.label, with data.pair ''; or a question as data.text, its context as data.pair "
                "and {'text': [...], 'answer_start': [...]} as data.label."
            )
        _check_words(f'{where}: the {part} part', tables[part])
    of_words = {part: [tag for tags in table['label'] for tag in tags] for part, table in tables.items()}
    counts = {part: np.array([isinstance(tag, str) or tag >= 0 for tag in tags], bool) for part, tags in of_words.items()}
    told = {part: [tag for tag, one in zip(tags, counts[part], strict=True) if one] for part, tags in of_words.items()}
    numbers, names = numbered(where, told)
    width = max(len(tags) for table in tables.values() for tags in table['label'])
    made = {}
    for part, table in tables.items():
        there = np.arange(width) < np.array([len(tags) for tags in table['label']])[:, None]
        tags = np.full(there.shape, -1, np.int32)
        there[there] = counts[part]
        tags[there] = numbers[part]
        made[part] = {'text': [' '.join(words) for words in table['text']], WORD_TAGS: tags}
    return made, names


def _check_words(where: str, table: Mapping[str, Sequence[Any]]) -> None:
    for row, (words, tags) in enumerate(zip(table['text'], table['label'], strict=True)):
        if bad := [word for word in words if not isinstance(word, str) or word.split() != [word]]:
            raise ConfigError(
                f'{where} has {bad[0]!r} among the words of row {row}, expected texts that are not empty and have no space '
                'inside: mend it, or leave the row out.'
            )
        if len(tags) != len(words):
            raise ConfigError(
                f'{where} has {len(words)} words and {len(tags)} tags at row {row}, expected a tag for each word.'
            )
        if bad := [tag for tag in tags if not isinstance(tag, str | int)]:
            raise ConfigError(f'{where} has {bad[0]!r} among the tags of row {row}, expected names or whole numbers.')


def _answers(where: str, table: Mapping[str, Sequence[Any]]) -> np.ndarray:
    """`ANSWER` of a part."""
    places = np.full((len(table['label']), 2), -1, np.int32)
    for row, (answer, context) in enumerate(zip(table['label'], table['pair'], strict=True)):
        texts, begins = (answer.get(name) for name in ('text', 'answer_start'))
        fits = isinstance(texts, list) and isinstance(begins, list) and len(texts) == len(begins)
        if (
            not fits
            or not all(isinstance(text, str) and text.strip() for text in texts)
            or not all(isinstance(begin, int) and begin >= 0 for begin in begins)
        ):
            raise ConfigError(
                f"{where} has {answer} at row {row}, expected {{'text': [...], 'answer_start': [...]}}, texts that are not "
                'empty and as many whole numbers from 0; two empty lists for no answer.'
            )
        for text, begin in zip(texts[:1], begins[:1], strict=True):
            if (stands := context[begin : begin + len(text)]) != text:
                raise ConfigError(
                    f"{where} has the answer '{text}' at row {row}, and its context has '{stands}' at character {begin}: "
                    "expected the same. 'answer_start' counts characters, not bytes, from 0."
                )
            places[row] = begin, begin + len(text.rstrip())  # a space behind is of the next word's token
    return places


def placed(coded: Sequence['Encoding'], texts: Sequence[str], marks: Mapping[str, Any] | None) -> dict[str, np.ndarray]:
    """Tags and answers as places of tokens.

    Args:
      coded: N rows of T tokens, with their offsets in the texts.
      texts: the N first texts.
      marks: of `FIELDS` those that the source has; none for {}.

    Returns:
      With `WORD_TAGS` {'tags': int32 [N, T], the tag of a word at its first token, -1 elsewhere}; with `ANSWER` {'start',
      'end': int32 [N], the tokens that hold its first and its last character, -1 where it is not whole among the tokens,
      with a warning}.

    Raises:
      ConfigError: there are answers, and none is whole among the tokens.
    """
    if not marks:
        return {}
    shape = (len(coded), len(coded[0].ids)) if WORD_TAGS in marks else len(coded)
    made = {field: np.full(shape, -1, np.int32) for field in (('tags',) if WORD_TAGS in marks else ('start', 'end'))}
    for row, one in enumerate(coded):
        begins, behind = np.array(one.offsets).T
        there = begins < behind  # special tokens and padding are empty
        if WORD_TAGS in marks:
            spaces = np.cumsum([len(word) + 1 for word in texts[row].split(' ')]) - 1  # the one behind each word
            # By its last character: a token of bytes begins with the space before its word.
            words, first = np.unique(np.where(there, np.searchsorted(spaces, behind - 1), -1), return_index=True)
            made['tags'][row, first[words >= 0]] = marks[WORD_TAGS][row, words[words >= 0]]
        elif (marks[ANSWER][row] >= 0).all():
            begin, end = marks[ANSWER][row]
            context = np.flatnonzero(there & (np.array(one.type_ids) == 1))
            # Not by equality: no token holds what a normalizer drops, such as the accent at an answer's end.
            answer = context[(behind[context] > begin) & (begins[context] < end)]
            if answer.size and (behind[context[-1]] >= end or not one.overflowing):
                made['start'][row], made['end'][row] = answer[[0, -1]]
    if ANSWER in marks and (cut := int(((marks[ANSWER][:, 0] >= 0) & (made['start'] < 0)).sum())):
        said = f'{cut} of {int((marks[ANSWER][:, 0] >= 0).sum())} answers are not whole among {len(coded[0].ids)} tokens'
        if (made['start'] < 0).all():
            raise ConfigError(f'{said}, and there are no others: raise data.length.')
        warnings.warn(f'{said} and count as no answer: raise data.length.', stacklevel=2)
    return made
