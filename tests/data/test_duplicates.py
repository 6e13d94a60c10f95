"""Copies that were planted are found, whatever was done to them, and other examples are not."""

import io

import numpy as np
import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from research.data import duplicates

_DRAW = np.random.default_rng(0)
# Blobs as photographs have them: smooth, no two alike.
BLOBS = _DRAW.normal(size=(300, 16, 12, 1)) + 0.3 * _DRAW.normal(size=(300, 16, 12, 3))
BLOBS = ndimage.gaussian_filter(BLOBS, (0, 1.5, 1.5, 0))
BLOBS = (255 * (BLOBS - BLOBS.min()) / np.ptp(BLOBS)).astype(np.uint8)
WORDS = _DRAW.choice([f'word{i}' for i in range(2000)], (200, 40))
TEXTS = np.array([' '.join(row) for row in WORDS], object)


def jpeg(image):
    file = io.BytesIO()
    PIL.Image.fromarray(image).save(file, 'JPEG', quality=90)
    return np.asarray(PIL.Image.open(file))


CHANGES = {
    'as it is': lambda image: image,
    'mirrored': lambda image: image[:, ::-1],
    'down': lambda image: np.pad(image, ((1, 0), (0, 0), (0, 0)), 'edge')[:-1],
    'up and left': lambda image: np.pad(image, ((0, 1), (0, 1), (0, 0)), 'edge')[1:, 1:],
    'brighter': lambda image: (40 + image * 0.8).astype(np.uint8),
    'jpeg': jpeg,
}


@pytest.mark.parametrize('change', CHANGES)
def test_a_changed_copy_is_found_and_nothing_else(change):
    copies = np.stack([CHANGES[change](image) for image in BLOBS[40:60]])
    i, j, similarity = duplicates.find(np.concatenate([BLOBS[100:], copies]), BLOBS[:100])
    assert list(zip(i.tolist(), j.tolist(), strict=True)) == [(200 + k, 40 + k) for k in range(20)]
    assert (similarity >= 0.98).all() and (similarity <= 1.001).all()


def test_what_is_turned_or_shifted_far_is_no_copy():
    for changed in (BLOBS[:50, ::-1], np.roll(BLOBS[:50], 4, 2)):
        assert not len(duplicates.find(changed, BLOBS[:50])[0])


def brute(rows, against):
    """Pairs by NumPy's correlation coefficient, image by image."""
    pairs = set()
    for i, ours in enumerate(rows.mean(3)):
        for j, theirs in enumerate(against.mean(3)):
            wide = np.pad(theirs, 1, 'edge')
            shifted = [wide[y : y + ours.shape[0], x : x + ours.shape[1]] for y in range(3) for x in range(3)]
            if max(np.corrcoef(ours.ravel(), other.ravel())[0, 1] for other in (theirs[:, ::-1], *shifted)) >= 0.98:
                pairs.add((i, j))
    return pairs


@pytest.mark.parametrize('components', [1, 64])
def test_the_candidates_miss_nothing(components, monkeypatch):
    """Alike as faces are: many pairs close to the threshold, on both sides of it."""
    monkeypatch.setattr(duplicates, '_COMPONENTS', components)
    rows = (BLOBS[:1] + np.linspace(0, 0.5, 40)[:, None, None, None] * BLOBS[1:41]).astype(np.float32)
    expected = brute(rows, rows[:15])
    assert 100 < len(expected) < 500
    i, j, _ = duplicates.find(rows, rows[:15])
    assert {*zip(i.tolist(), j.tolist(), strict=True)} == expected


def test_among_themselves_later_rows_are_copies_of_earlier_ones(monkeypatch):
    monkeypatch.setattr(duplicates, '_BLOCK', 300)
    rows = np.concatenate([BLOBS[:30], BLOBS[5:10], BLOBS[7:8, :, ::-1], BLOBS[5:6]])
    i, j, similarity = duplicates.find(rows)
    assert {*zip(i.tolist(), j.tolist(), strict=True)} == {(30 + k, 5 + k) for k in range(5)} | {(35, 7), (36, 5)}
    assert similarity.tolist() == pytest.approx([1.0] * 7, abs=1e-3)
    found = duplicates.repeated(rows, None, np.ones(len(rows), bool))
    assert np.flatnonzero(found).tolist() == [*range(30, 37)]


def test_images_without_contrast_are_copies_of_one_another_alone():
    flat = np.stack([np.full((16, 12, 3), value, np.uint8) for value in (0, 7, 255)])
    assert not len(duplicates.find(flat, BLOBS)[0])
    assert len(duplicates.find(flat, flat)[0]) == 9
    assert len(duplicates.find((flat / 255).astype(np.float32), (flat / 255).astype(np.float32))[0]) == 9


def test_large_images_are_compared_when_averaged_down(monkeypatch):
    monkeypatch.setattr(duplicates, '_SIDE', 8)
    grey = BLOBS[:20].mean(3).reshape(20, 8, 2, 6, 2).mean((2, 4))
    np.testing.assert_allclose(duplicates._small(BLOBS[:20]), grey, rtol=1e-5)
    blocks = np.tile(np.array([[-9, 9], [9, -9]])[:, :, None], (8, 6, 1))  # which averages leave out
    i, j, _ = duplicates.find(BLOBS[19::-1] + 20.0 + blocks, BLOBS[:20] + 20.0)
    assert (i + j).tolist() == [19] * 20


def cut(text, share):
    words = text.split()
    return ' '.join(words[: round(len(words) * share)])


def test_of_texts_the_share_of_common_shingles_decides():
    """Of 38 shingles a text cut to a share keeps the first: 33 / 38 is above 0.8, and 28 / 38 below."""
    near, far = (np.array([cut(text, share) for text in TEXTS], object) for share in (0.875, 0.75))
    i, j, similarity = duplicates.find(near, TEXTS)
    assert i.tolist() == j.tolist() == [*range(200)]
    np.testing.assert_allclose(similarity, 33 / 38, rtol=1e-6)
    assert not len(duplicates.find(far, TEXTS)[0])


def test_case_spaces_and_punctuation_make_no_other_text():
    i, j, similarity = duplicates.find(np.array([TEXTS[3].upper().replace(' ', ',  ') + '!'], object), TEXTS)
    assert (i.tolist(), j.tolist(), similarity.tolist()) == ([0], [3], [1.0])
    again = np.concatenate([TEXTS, TEXTS[10:12]])
    assert [pair[:2] for pair in zip(*map(np.ndarray.tolist, duplicates.find(again)), strict=True)] == [(200, 10), (201, 11)]


@given(st.lists(st.sampled_from(['a b c d e', 'a b c d', 'x', '', 'a b c d e f', 'y z']), max_size=8))
def test_short_texts_are_compared_as_sets_of_shingles(texts):
    def shingles(text):
        words = text.split()
        return {tuple(words[k : k + 3]) for k in range(max(1, len(words) - 2))}

    against = ['a b c d e', 'x', '']
    found = {
        *zip(*map(np.ndarray.tolist, duplicates.find(np.array(texts, object), np.array(against, object))[:2]), strict=True)
    }
    for i, ours in enumerate(texts):
        for j, theirs in enumerate(against):
            jaccard = len(shingles(ours) & shingles(theirs)) / len(shingles(ours) | shingles(theirs))
            assert ((i, j) in found) == (jaccard >= 0.8)
