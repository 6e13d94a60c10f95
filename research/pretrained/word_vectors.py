"""Files of word vectors in word2vec's two formats, and what is near in them. V words, D numbers each.

Both begin with a line 'V D'. Then come each word, a space and its numbers: as text, or as D float32 of 4 bytes, the lowest
first. Source: the authors' program, word2vec.c.
"""

import contextlib
import io
import os
import pathlib
import warnings
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from research.catalogue import ConfigError, nearest

# How files in either format end.
SUFFIXES = ('.txt', '.vec', '.bin')


class Rows(NamedTuple):
    """Rows of a table, float32 `[T, D]`, that are `known`, bool `[T]`; the others are to be drawn."""

    table: np.ndarray
    known: np.ndarray


def load(path: str | os.PathLike) -> tuple[list[str], np.ndarray]:
    """(V words, vectors float32 [V, D]) of a file, which tells itself whether it is text.

    Raises:
      ConfigError: no such file, or another format.
    """
    file = pathlib.Path(path).expanduser()
    with _explained(file):
        content = file.read_bytes()
        head, _, body = content.partition(b'\n')
        count, size = _head(head)
        if count * size > len(body):
            raise ValueError(f'its first line says {count} words of {size} numbers, more than it holds')
        first = body.partition(b'\n')[0].rstrip().split(b' ')[1:]
        return (_text if len(first) == size and all(map(_is_number, first)) else _binary)(body, count, size)


def dim(path: str | os.PathLike) -> int:
    """D of a file, by its first line alone; raises as `load` does."""
    file = pathlib.Path(path).expanduser()
    with _explained(file), file.open('rb') as opened:
        return _head(opened.readline(64))[1]


def _head(line: bytes) -> tuple[int, int]:
    count, size = map(int, line.split())
    if count < 1 or size < 1:
        raise ValueError(f'its first line says {count} words of {size} numbers')
    return count, size


@contextlib.contextmanager
def _explained(file: pathlib.Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConfigError(f"No word vectors at '{file}': {error.strerror}.") from error
    except ValueError as error:
        raise ConfigError(
            f"'{file}' holds no word vectors: {error}. Expected a line with the number of words and of their numbers, then "
            'each word with its own, as word2vec and gensim save them; files of GloVe lack that line.'
        ) from error


def _is_number(text: bytes) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _text(body: bytes, count: int, size: int) -> tuple[list[str], np.ndarray]:
    rows = [line.rstrip().split(' ') for line in body.decode().split('\n') if line]
    if bad := [row for row in rows if len(row) != size + 1]:
        raise ValueError(f"'{bad[0][0]}' has {len(bad[0]) - 1} numbers, not {size}")
    if len(rows) != count:
        raise ValueError(f'it has {len(rows)} words, not {count}')
    return [row[0] for row in rows], np.array([row[1:] for row in rows], np.float32)


def _binary(body: bytes, count: int, size: int) -> tuple[list[str], np.ndarray]:
    words, vectors, place = [], np.empty((count, size), np.float32), 0
    for row in range(count):
        end = body.index(b' ', place)
        words.append(body[place:end].decode().lstrip('\n'))  # the authors' program ends each word's numbers with a line
        vectors[row] = np.frombuffer(body, '<f4', size, end + 1)
        place = end + 1 + 4 * size
    return words, vectors


def of_tokens(path: str | os.PathLike, tokenizer: str, shape: tuple[int, int]) -> Rows:
    """The vectors of a tokenizer's tokens, as far as a file has them; warns of how many it has.

    Args:
      path: of the file.
      tokenizer: as the text of a `tokenizer.json`; '' of data without one.
      shape: (T, D) of the table.

    Raises:
      ConfigError: as `load` does; no tokenizer, vectors of another length than D, not finite, or of no token.
    """
    from tokenizers import Tokenizer

    if not tokenizer:
        raise ConfigError(
            f"'{path}' has vectors of words, and the data have no tokenizer that says which token is which word: take data of "
            'texts, or start from a run of word2vec.'
        )
    words, vectors = load(path)
    if vectors.shape[1] != shape[1]:
        raise ConfigError(
            f"'{path}' has vectors of {vectors.shape[1]} numbers, and model.dim is {shape[1]}: leave model.dim out, or take "
            'another file.'
        )
    if bad := np.flatnonzero(~np.isfinite(vectors).all(1)).tolist():
        raise ConfigError(f"'{path}' has a vector of '{words[bad[0]]}' that is not finite: leave the word out.")
    tokens = Tokenizer.from_str(tokenizer).get_vocab()
    numbers = {word: number for number, word in reversed([*enumerate(words)])}  # the first of several counts
    table, known = np.zeros(shape, np.float32), np.zeros(shape[0], bool)
    for token, row in tokens.items():
        if token in numbers:
            table[row], known[row] = vectors[numbers[token]], True
    if not known.any():
        raise ConfigError(
            f"'{path}' has a vector of none of the {len(tokens)} tokens. Check that data.tokenizer.name is 'words', as the "
            'file has no pieces of words, and that data.tokenizer.lowercase is as in the file.'
        )
    warnings.warn(f"'{path}' has vectors of {known.sum()} of the {len(tokens)} tokens; the others are drawn.", stacklevel=3)
    return Rows(table, known)


def save(path: str | os.PathLike, words: Sequence[str], vectors: np.ndarray, binary: bool = False) -> None:
    """Writes word vectors; as text each number is the shortest that reads back to the same float32.

    Args:
      path: of the file.
      words: V words.
      vectors: float `[V, D]`.
      binary: whether numbers are bytes.

    Raises:
      ConfigError: a word with a space or a line's end, which the format cannot hold; another number of words than of vectors.
    """
    vectors = np.asarray(vectors, '<f4')
    if vectors.ndim != 2 or len(vectors) != len(words):
        raise ConfigError(f'{len(words)} words and vectors {list(vectors.shape)}: expected vectors [V, D], one for each word.')
    if bad := [word for word in words if not word or word.split() != [word]]:
        raise ConfigError(f"'{bad[0]}' is no word that a file of vectors can hold: expected one without spaces.")
    out = io.BytesIO()
    out.write(f'{len(words)} {vectors.shape[1]}\n'.encode())
    for word, vector in zip(words, vectors, strict=True):
        numbers = vector.tobytes() if binary else ' '.join(map(str, vector)).encode()
        out.write(word.encode() + b' ' + numbers + b'\n')
    pathlib.Path(path).expanduser().write_bytes(out.getvalue())


def near(
    words: Sequence[str], vectors: np.ndarray, plus: Sequence[str], minus: Sequence[str] = (), count: int = 10
) -> list[tuple[str, float]]:
    """The words whose vectors have the largest cosine with a sum, without those of the sum.

    An analogy (Mikolov et al. 2013), man to king as woman to what: `near(words, vectors, ['king', 'woman'], ['man'])`.

    Args:
      words, vectors: as `load` returns them.
      plus, minus: words whose vectors, each of length 1, are added and subtracted.
      count: how many.

    Returns:
      (word, cosine), the largest first.

    Raises:
      ConfigError: a word that is not among them.
    """
    numbers = {word: number for number, word in enumerate(words)}
    if unknown := [word for word in (*plus, *minus) if word not in numbers]:
        raise ConfigError(f"There is no vector of '{unknown[0]}'.{nearest(unknown[0], words)}")
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    of = [numbers[word] for word in (*plus, *minus)]
    wanted = np.repeat([1.0, -1.0], (len(plus), len(minus))) @ unit[of]
    cosines = unit @ (wanted / max(np.linalg.norm(wanted), 1e-12))
    cosines[of] = -np.inf
    return [(words[row], float(cosines[row])) for row in np.argsort(-cosines)[:count]]
