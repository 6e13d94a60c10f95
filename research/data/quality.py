"""Junk: images and texts from which nothing can be learnt.

Idea: what was collected by machine holds broken files, empty frames and noise; simple measures of one item alone find them.

Sources: sharpness by the variance of the Laplacian, Pech-Pacheco et al. 2000 (Diatom autofocusing in brightfield microscopy),
here over the variance of the pixels, so that contrast does not matter; texts by rules such as those of Rae et al. 2021 (Scaling
language models, appendix A.1.1: length, share of words with letters) and by script.

Config: {'data.filters': ('quality',)}

An image is junk if it is constant, if it is blurred (below a twentieth of the median sharpness of the main training data), or
if it is noise. A text is junk if it has fewer than two words, if most of its letters are of another script than most letters of
the main training data, if less than 60 % of its characters are letters and spaces, or if a run without a space is longer than
100 characters.

Cost: seconds, once. Claim: none of a score; in Rae et al. 2021 this is one of the steps that together improve a model.

Effect: none shown, +0.07 points (-0.16 to 0.30) beside the same data with 4 % junk (ten seeds, configs/external.py).

Clashes: images that are smooth or noisy by nature (depth, spectra); texts that are no sentences (code, tables, single words).
"""

import collections
import functools
import re
import unicodedata
from collections.abc import Iterable

import numpy as np

# Of the usual sharpness; and of a sharpness, of which white noise has 20.
_BLURRED, _NOISE = 0.05, 17.0
_FEWEST_WORDS, _OTHER_SCRIPT, _LETTERS, _LONGEST_RUN = 2, 0.5, 0.6, 100
# Scripts that put no spaces between words.
_UNSPACED = {'CJK', 'HIRAGANA', 'KATAKANA', 'THAI', 'LAO', 'KHMER', 'MYANMAR', 'TIBETAN'}


def junk(examples: np.ndarray, labels: np.ndarray | None, main: np.ndarray) -> np.ndarray:
    """bool [N], True of junk; a filter of research/data/curation.py."""
    del labels
    usual = examples[main] if main.any() else examples
    if examples.dtype == object:
        return junk_texts(examples, main_script(usual))
    return junk_images(examples, float(np.nanmedian(sharpness(usual))))


def sharpness(images: np.ndarray) -> np.ndarray:
    """float64 [N] of images [N, H, W, C]: the variance of the Laplacian over that of the pixels, grey; NaN without contrast."""
    found = np.empty(len(images))
    for first in range(0, len(images), 1024):
        grey = images[first : first + 1024].mean(3, dtype=np.float64)
        middle = grey[:, 1:-1, 1:-1]
        around = grey[:, :-2, 1:-1] + grey[:, 2:, 1:-1] + grey[:, 1:-1, :-2] + grey[:, 1:-1, 2:]
        contrast = grey.var((1, 2))
        flat = contrast <= 1e-9 * np.maximum((grey**2).mean((1, 2)), 1e-12)
        found[first : first + 1024] = np.where(flat, np.nan, (around - 4 * middle).var((1, 2)) / np.where(flat, 1, contrast))
    return found


def junk_images(images: np.ndarray, usual: float) -> np.ndarray:
    """bool [N] of images [N, H, W, C], by the `usual` sharpness, the median of the main training data."""
    found = sharpness(images)
    return np.isnan(found) | (found < _BLURRED * usual) | (found > _NOISE)


def junk_texts(texts: np.ndarray, script: str) -> np.ndarray:
    """bool [N] of texts [N], by the main `script` of the training data; see `main_script`."""
    return np.array([_is_junk(text, script) for text in texts], bool)


def main_script(texts: Iterable[str]) -> str:
    """The script of most letters, such as 'LATIN'; '' where there are no letters."""
    counts = collections.Counter(script for text in texts for script in map(_script, text) if script)
    return min(counts, key=lambda script: (-counts[script], script)) if counts else ''


def in_other_script(text: str, script: str) -> bool:
    """Whether more than half of a text's letters are of another script than `script`."""
    of_letters = [found for found in map(_script, text) if found]
    return sum(found != script for found in of_letters) > _OTHER_SCRIPT * len(of_letters)


def _is_junk(text: str, script: str) -> bool:
    letters = sum(bool(_script(character)) for character in text)
    spaced = script not in _UNSPACED
    return (
        len(text.split()) < _FEWEST_WORDS
        and (spaced or len(text) < _FEWEST_WORDS)
        or in_other_script(text, script)
        or letters + sum(map(str.isspace, text)) < _LETTERS * len(text)
        or spaced
        and max(map(len, re.split(r'\s+', text))) > _LONGEST_RUN
    )


@functools.cache
def _script(character: str) -> str:
    """The script of a letter or of a mark on one; '' of other characters."""
    return unicodedata.name(character, '').partition(' ')[0] if unicodedata.category(character)[0] in 'LM' else ''
