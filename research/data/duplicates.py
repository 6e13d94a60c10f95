"""Near duplicates: rows that are a copy of another row, exact or slightly changed.

Idea: a test image that is in the training data too is no test, and a copy in the training data teaches nothing new.

Sources: copies of test images in training data, Barz and Denzler 2020 (Do we train on test data?); shingles and MinHash of
texts, Broder 1997 (On the resemblance and containment of documents), with the threshold of Lee et al. 2022 (Deduplicating
training data makes language models better, section 4.2).

Config: {'data.filters': ('duplicates',)}

Images are copies if their grey pixels correlate by at least 0.98, as they are, mirrored, or shifted by a pixel. A copy may be
brighter, of less contrast, slightly noisy or a JPEG, but not rotated, cropped or shifted further. Images of more than 32 pixels
a side are averaged down first. Candidates come from a projection onto 64 principal components: its dot product, and the length
of what it leaves out, bound the correlation from above (Cauchy-Schwarz), so that none is missed. All pixels decide.

Texts are copies if of their runs of three words they share at least 80 % (Jaccard similarity). Candidates are those with four
equal MinHash values in a row, which misses fewer than one in a million at 0.8.

Cost: once, kept on disk; 60,000 images of 28 x 28 against 10,000 in 53 s of one core. Claim: 3.3 % of CIFAR-10's
test images and 10 % of CIFAR-100's have a copy in the training data (Barz and Denzler 2020); a language model recites training
texts ten times less often without copies (Lee et al. 2022). Clashes: data where tiny changes make another class.

Effect: none shown of `data.filters`, +0.11 points (-0.16 to 0.38) beside the same data unfiltered (ten seeds,
configs/external.py); removing copies of test images keeps the score honest.
"""

import functools
import hashlib
import re
import unicodedata
import zlib
from collections.abc import Callable, Iterator
from typing import TypeAlias

import numpy as np

Pairs: TypeAlias = tuple[np.ndarray, np.ndarray, np.ndarray]

# Least similarity of copies.
CORRELATION, JACCARD = 0.98, 0.8

# Longest side that is compared, components that bound a correlation, images whose components they are, pairs in memory at once.
_SIDE, _COMPONENTS, _SAMPLE, _BLOCK = 32, 64, 4096, 1 << 24
# Of float32 dot products.
_ROUNDING = 1e-4
# MinHash values of a text, and how many in a row make a candidate; words of a shingle.
_HASHES, _BAND, _WORDS = 128, 4, 3


@functools.cache  # at the first text, since every launch imports this file
def _word() -> re.Pattern[str]:
    """A word, with vowel signs and accents, which Python's words leave out; those beyond U+FFFF would cost half the speed."""
    marks = ''.join(letter for letter in map(chr, range(1 << 16)) if unicodedata.category(letter).startswith('M'))
    return re.compile(rf'\w[\w{marks}]*')


def words(text: str) -> list[str]:
    """Words of a text in small letters, without punctuation."""
    return _word().findall(text.casefold())


def normalized(text: str) -> str:
    """Words alone, in small letters; a text without words as it is."""
    return ' '.join(words(text)) or text


def _runs_of_words(text: str) -> set[str]:
    of_text = words(text) or [text]
    return {' '.join(of_text[k : k + _WORDS]) for k in range(max(1, len(of_text) - _WORDS + 1))}


def find(
    rows: np.ndarray,
    against: np.ndarray | None = None,
    shingles: Callable[[str], set[str]] = _runs_of_words,
    least: float = JACCARD,
) -> Pairs:
    """Copies among `rows` and `against`.

    Args:
      rows: images [N, H, W, C], or texts as an array of str [N].
      against: likewise [M], of the same shape; None: `rows`, each against those before it.
      shingles: the parts of a text by which texts are compared.
      least: share of equal parts from which on texts are copies; at 0.7 about one in 7,000 is missed.

    Returns:
      (i int64 [P], j int64 [P], similarity float32 [P]): rows[i] is a copy of against[j]; without `against`, of rows[j] with
      j < i. Of rows that are exactly alike, without `against`, later ones are paired with the first alone.
    """
    texts = rows.dtype == object
    keys = [normalized(row).encode() if texts else np.ascontiguousarray(row).data for row in rows]
    first: dict[bytes, int] = {}
    head = np.array([first.setdefault(hashlib.sha256(key).digest(), i) for i, key in enumerate(keys)], np.int64)
    heads = np.flatnonzero(head == np.arange(len(head)))
    i, j, similarity = _texts(rows[heads], against, shingles, least) if texts else _images(rows[heads], against)
    i, j = heads[i], j if against is not None else heads[j]
    parts = [(i, j, similarity)]
    if len(copies := np.setdiff1d(np.arange(len(rows)), heads)):
        by_head = np.argsort(i, kind='stable')
        begin, end = (np.searchsorted(i[by_head], head[copies], side) for side in ('left', 'right'))
        of_head = by_head[np.concatenate([np.arange(*ends) for ends in zip(begin, end, strict=True)])]
        parts.append((np.repeat(copies, end - begin), j[of_head], similarity[of_head]))
        if against is None:
            parts.append((copies, head[copies], np.ones(len(copies), np.float32)))
    return tuple(np.concatenate(part) for part in zip(*parts, strict=True))


def repeated(examples: np.ndarray, labels: np.ndarray | None, main: np.ndarray) -> np.ndarray:
    """bool [N], True of copies of an earlier example; a filter of research/data/curation.py."""
    del labels, main
    found = np.zeros(len(examples), bool)
    found[find(examples)[0]] = True
    return found


def _images(rows: np.ndarray, against: np.ndarray | None) -> Pairs:
    small = _small(rows)
    others = small if against is None else _small(against)
    ours, best = _unit(small), {}
    sample = _unit(others[:: -(-len(others) // _SAMPLE)])
    basis = np.linalg.eigh(sample.T @ sample)[1][:, -_COMPONENTS:].astype(np.float32)
    ours_bound = _bounding(ours, basis)
    for changed in _changed(others):
        theirs = _unit(changed)
        theirs_bound, block = _bounding(theirs, basis), max(1, _BLOCK // len(theirs))
        for start in range(0, len(ours), block):
            stop = start + block if against is None else None  # of `theirs`: the rows before
            i, j = np.nonzero(ours_bound[start : start + block] @ theirs_bound[:stop].T >= CORRELATION - _ROUNDING)
            i, j = (i + start, j) if against is not None else (i[j < i + start] + start, j[j < i + start])
            for some in np.array_split(np.arange(len(i)), len(i) // 4096 + 1):
                correlation = np.einsum('nd,nd->n', ours[i[some]], theirs[j[some]])
                for pair in zip(i[some], j[some], correlation, strict=True):
                    if pair[2] >= CORRELATION:
                        best[pair[:2]] = max(pair[2], best.get(pair[:2], 0))
    return _pairs(best)


def _small(images: np.ndarray) -> np.ndarray:
    """float32 [N, h, w]: grey, averaged down to sides of at most `_SIDE`."""
    by = -(-max(images.shape[1:3]) // _SIDE)
    height, width = (max(1, size // by) for size in images.shape[1:3])
    small = np.empty((len(images), height, width), np.float32)
    for first in range(0, len(images), 1024):
        grey = images[first : first + 1024, : height * by, : width * by].mean(3, dtype=np.float32)
        small[first : first + 1024] = grey.reshape(len(grey), height, min(by, grey.shape[1]), width, -1).mean((2, 4))
    return small


def _unit(images: np.ndarray) -> np.ndarray:
    """float32 [N, h * w + 1] of length 1, whose dot products are correlations of pixels. Images without contrast have none, and
    are alike."""
    pixels = images.reshape(len(images), -1)
    centred = pixels - pixels.mean(1, keepdims=True)
    norm = np.linalg.norm(centred, axis=1, keepdims=True)
    flat = norm <= 1e-5 * np.maximum(np.linalg.norm(pixels, axis=1, keepdims=True), 1e-12)
    return np.hstack([np.where(flat, 0, centred / np.where(flat, 1, norm)), flat]).astype(np.float32)


def _bounding(unit: np.ndarray, basis: np.ndarray) -> np.ndarray:
    """float32 [N, K + 1], whose dot products are at least those of `unit`: the projection, and the length of the rest."""
    inside = unit @ basis
    return np.hstack([inside, np.sqrt(np.maximum(0, 1 - (inside**2).sum(1, keepdims=True)))])


def _changed(images: np.ndarray) -> Iterator[np.ndarray]:
    """The images as they are, mirrored, and shifted by a pixel in eight directions."""
    yield images
    yield images[:, :, ::-1]
    height, width = images.shape[1:]
    wide = np.pad(images, ((0, 0), (1, 1), (1, 1)), 'edge')
    for down, right in np.ndindex(3, 3):
        if (down, right) != (1, 1):
            yield wide[:, down : down + height, right : right + width]


def _texts(rows: np.ndarray, against: np.ndarray | None, shingles: Callable[[str], set[str]], least: float) -> Pairs:
    ours, best = [shingles(text) for text in rows], {}
    theirs = ours if against is None else [shingles(text) for text in against]
    marks = _marks(ours)
    others = marks if against is None else _marks(theirs)
    for band in range(0, _HASHES, _BAND):
        known: dict[bytes, list[int]] = {}
        for j, mark in enumerate(others):
            known.setdefault(mark[band : band + _BAND].tobytes(), []).append(j)
        for i, mark in enumerate(marks):
            for j in known.get(mark[band : band + _BAND].tobytes(), ()):
                if (against is not None or j < i) and (i, j) not in best:
                    best[i, j] = len(ours[i] & theirs[j]) / max(1, len(ours[i] | theirs[j]))
    return _pairs({pair: jaccard for pair, jaccard in best.items() if jaccard >= least})


def _marks(shingles: list[set[str]]) -> np.ndarray:
    """MinHash values, uint64 [N, _HASHES]: of each of many orders of all shingles the first that a text has."""
    factors, terms = np.random.Philox(key=0).random_raw(2 * _HASHES).reshape(2, 1, _HASHES)
    marks = np.empty((len(shingles), _HASHES), np.uint64)
    for row, of_text in enumerate(shingles):
        codes = np.array([zlib.crc32(shingle.encode()) for shingle in of_text], np.uint64)[:, None]
        marks[row] = ((codes * (factors | np.uint64(1)) + terms) >> np.uint64(20)).min(0)
    return marks


def _pairs(best: dict[tuple[int, int], float]) -> Pairs:
    pairs = np.array(sorted(best), np.int64).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1], np.array([best[i, j] for i, j in pairs.tolist()], np.float32)
