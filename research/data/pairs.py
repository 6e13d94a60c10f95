"""Sentence pairs: rules that tell a bad pair from the pair alone, and copies of scored sentences in the training data.

Idea: parallel texts are collected by machine; pairs that are no translations of each other teach the wrong thing, and a test
sentence that was in training measures memory.

Sources: rules on length and ratio as the cleaning script of Moses, Koehn et al. 2007; copies by MinHash and Jaccard similarity,
Broder 1997 (On the resemblance and containment of documents).

Config: {'data.clean': ('short', 'long', 'ratio', 'script', 'markup', 'identical', 'duplicates')} cleans every split,
{'data.filters': ('markup', 'ratio')} the training split alone.

| rule | leaves out a pair |
|---|---|
| empty | with an empty side; without this rule such a pair is an error |
| short | of fewer than 3 words on both sides |
| long | of more than 80 words on one side |
| ratio | of which one side has more than twice the letters of the other, and ten more |
| script | of which most letters of a side are of another script than most letters of that side elsewhere |
| markup | with a tag, an entity, or a placeholder: %s, %1, %(name)s, {0}, {name}, $(X), $1, $name, @NAME@, ~a |
| identical | of the same text on both sides |
| duplicates | that was there before, or nearly: research/data/duplicates.py on both sides as one text |

In any case training pairs are left out whose source or target is in validation or test. Case, punctuation and spaces do not
count. Near copies share at least 70 % of their runs of four letters (Jaccard similarity): 'new in Fortran 2018' and 'new in
Fortran 2003'. The runs of three words by which documents are compared find nothing in sentences of five words.

Cost: once, kept on disk; 176,000 pairs of Debian's catalogues through all rules in 65 s of one core. Claim: noise such as
untranslated sentences costs a neural system several BLEU (Khayrallah and Koehn 2018, On the impact of various types of noise on
neural machine translation). Clashes: 'script' where one side mixes scripts by nature; 'short' for catalogues of single words.
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from research.catalogue import ConfigError
from research.data import duplicates, quality

SOURCE, TARGET = SIDES = ('source', 'target')

# Words of a pair; letters of one side over the other's, and letters that are never too many.
_FEWEST, _MOST, _RATIO, _SLACK = 3, 80, 2, 10
# Letters of a run by which sentences are compared, and the share of equal runs that makes a near copy.
_LETTERS, _ALIKE = 4, 0.7

_MARKUP = re.compile(
    r'</?[A-Za-z][^<>]*>'  # a tag
    r'|&(?:\w+|#\d+);'  # an entity
    r"|%(?:\d|[-+#*]*(?:\d*\.)?[\d*]*[A-Za-z{(<>\['])"  # of printf, Qt and gcc; with a space flag '50 % of' would be one
    r'|[$#]?\{[^{}\s]*\}|\$\([^()\s]*\)|\$(?:[A-Za-z_]|\d\b)|@[A-Z]{2,}@|~[ads%](?!\w)'
)


def texts_in(arrays: Mapping[str, Any]) -> bool:
    """Whether a source has sentence pairs as texts; fields of these names may also be tokens of a function's own."""
    return all(side in arrays and arrays[side].dtype == object for side in SIDES)


def joined(source: Iterable[str], target: Iterable[str]) -> np.ndarray:
    """Pairs as one text each, [N]: source, end of line, target. No sentence has an end of line in it."""
    return np.array([f'{one}\n{other}' for one, other in zip(source, target, strict=True)], object)


def keys(sources: Iterable[str]) -> np.ndarray:
    """uint64 [N], hashes of normalized sentences, by which a test split is cut: equal sources stay on one side."""
    digests = (hashlib.sha256(duplicates.normalized(text).encode()).digest() for text in sources)
    return np.array([int.from_bytes(digest[:8], 'little') for digest in digests], np.uint64)


def leaked(examples: np.ndarray, scored: np.ndarray) -> np.ndarray:
    """bool [N], True of pairs [N] whose source or target is, or nearly is, that of a scored pair [M]; both as `joined`."""
    found = np.zeros(len(examples), bool)
    for ours, theirs in zip(_sides(examples), _sides(scored), strict=True):
        distinct, places = np.unique(np.array([*map(duplicates.normalized, ours)], object), return_inverse=True)
        against = np.unique(np.array([*map(duplicates.normalized, theirs)], object))
        copies, _, _ = duplicates.find(distinct, against, _runs_of_letters, _ALIKE)
        found |= np.isin(places, copies)
    return found


def checked(where: str, texts: Sequence[Any]) -> np.ndarray:
    """Sentences as an array of str [N], each one line and some maybe empty; messages begin with `where`.

    Raises:
      ConfigError: something else than a text.
    """
    if wrong := [row for row, text in enumerate(texts) if not isinstance(text, str)]:
        raise ConfigError(f'{where} is a {type(texts[wrong[0]]).__name__} at row {wrong[0]}, expected a text.')
    return np.array([' '.join(text.split()) for text in texts], object)


def _runs_of_letters(text: str) -> set[str]:
    padded = f' {duplicates.normalized(text)} '
    return {padded[k : k + _LETTERS] for k in range(max(1, len(padded) - _LETTERS + 1))}


def refuse_empty(name: str, split: str, numbers: np.ndarray, sides: Mapping[str, Sequence[str]]) -> None:
    """Raises ConfigError for a pair with an empty side.

    Args:
      name: of the data.
      split: of these pairs.
      numbers: int [N], of the pairs in their part, from 0.
      sides: {side: N texts}.
    """
    for side, texts in sides.items():
        if empty := [number for number, text in zip(numbers, texts, strict=True) if not text]:
            raise ConfigError(
                f"'{name}': {len(empty)} {split} pairs have an empty {side}, the first is at row {empty[0]}, from 0. Leave "
                "them out, or add 'empty' to data.clean."
            )


def _sides(examples: np.ndarray) -> tuple[list[str], list[str]]:
    pairs = [text.split('\n') for text in examples]
    if wrong := [row for row, pair in enumerate(pairs) if len(pair) != 2]:
        raise ConfigError(
            f'A rule on sentence pairs was given a text of {len(pairs[wrong[0]])} lines at row {wrong[0]}, expected a pair of '
            "lines: choose data.name 'parallel', or leave the rule out of data.clean and data.filters."
        )
    return [one for one, _ in pairs], [other for _, other in pairs]


def _where(examples: np.ndarray, bad: Callable[[str, str], bool]) -> np.ndarray:
    return np.array([bad(one, other) for one, other in zip(*_sides(examples), strict=True)], bool)


def empty(examples: np.ndarray, labels: Any, main: Any) -> np.ndarray:
    """bool [N], True of pairs with an empty side; as all rules here a filter of research/data/curation.py."""
    del labels, main
    return _where(examples, lambda one, other: not one or not other)


def short(examples: np.ndarray, labels: Any, main: Any) -> np.ndarray:
    """bool [N], True of pairs of few words on both sides."""
    del labels, main
    return _where(examples, lambda one, other: max(len(one.split()), len(other.split())) < _FEWEST)


def long(examples: np.ndarray, labels: Any, main: Any) -> np.ndarray:
    """bool [N], True of pairs of many words on one side."""
    del labels, main
    return _where(examples, lambda one, other: max(len(one.split()), len(other.split())) > _MOST)


def ratio(examples: np.ndarray, labels: Any, main: Any) -> np.ndarray:
    """bool [N], True of pairs of which one side is much longer."""
    del labels, main
    return _where(examples, lambda one, other: max(len(one), len(other)) > _RATIO * min(len(one), len(other)) + _SLACK)


def script(examples: np.ndarray, labels: Any, main: np.ndarray) -> np.ndarray:
    """bool [N], True of pairs of which one side is in another script than most letters of that side in the main data."""
    del labels
    found = np.zeros(len(examples), bool)
    for texts in _sides(examples):
        column = np.array(texts, object)
        usual = quality.main_script(column[main] if main.any() else column)
        found |= np.array([quality.in_other_script(text, usual) for text in texts], bool)
    return found


def markup(examples: np.ndarray, labels: Any, main: Any) -> np.ndarray:
    """bool [N], True of pairs with tags, entities or placeholders."""
    del labels, main
    return _where(examples, lambda one, other: bool(_MARKUP.search(one) or _MARKUP.search(other)))


def identical(examples: np.ndarray, labels: Any, main: Any) -> np.ndarray:
    """bool [N], True of pairs whose sides are the same text, whatever its case."""
    del labels, main
    return _where(examples, lambda one, other: one.casefold() == other.casefold())
