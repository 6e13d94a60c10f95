"""Junk that was planted is found, and what is as the main data is not."""

import numpy as np
import pytest
from scipy import ndimage
from sklearn.datasets import load_digits

from research.data import quality

_DRAW = np.random.default_rng(0)
DIGITS = load_digits().images[:, :, :, None].astype(np.uint8)
LARGE = ndimage.zoom(DIGITS[:200].astype(np.float32), (1, 4, 4, 1), order=1)
ENGLISH = ['The quick brown fox jumps over the lazy dog.', 'He said (in 1999): "costs are $5.00", no more.', 'Good morning!']


def test_sharpness_is_the_variance_of_the_laplacian_over_that_of_the_pixels():
    stencil = np.array([[0, 1, 0], [1, -4, 1], [0, 1, 0]])
    grey = DIGITS[:20, :, :, 0].astype(float)
    expected = [ndimage.convolve(image, stencil)[1:-1, 1:-1].var() / image.var() for image in grey]
    np.testing.assert_allclose(quality.sharpness(DIGITS[:20]), expected, rtol=1e-9)
    np.testing.assert_allclose(quality.sharpness(DIGITS[:20] * 3 + 50.0), expected, rtol=1e-9)


def test_junk_among_images_is_found():
    junk = [
        np.full_like(LARGE[:5], 12),
        _DRAW.uniform(0, 16, LARGE[:5].shape),
        ndimage.gaussian_filter(LARGE[:5], (0, 9, 9, 0)),
    ]
    examples = np.concatenate([LARGE, *junk]).astype(np.float32)
    found = quality.junk(examples, None, np.arange(len(examples)) < 200)
    assert np.flatnonzero(found).tolist() == [*range(200, 215)]
    assert not quality.junk(DIGITS, None, np.ones(len(DIGITS), bool)).any()


@pytest.mark.parametrize(
    'text',
    [
        'word',
        'Καλημέρα σας, τι κάνετε;',
        'доброе утро, my friends и соседи',
        '%$## 12 34 @@ == 12 [] {} <> 77 ok',
        'look at ' + 'x' * 101,
    ],
)
def test_junk_among_texts_is_found(text):
    examples = np.array([*ENGLISH, text], object)
    assert quality.junk(examples, None, np.arange(4) < 3).tolist() == [False] * 3 + [True]


def test_the_main_script_is_that_of_the_main_data():
    assert quality.main_script(['día', 'д']) == 'LATIN' and quality.main_script(['12', '']) == ''
    greek = np.array(['Καλημέρα σας', 'τι κάνετε;', 'Good morning'], object)
    assert quality.junk(greek, None, np.array([True, True, False])).tolist() == [False, False, True]
    chinese = np.array(['今天天气很好' * 30, '好', 'Good morning'], object)
    assert quality.junk(chinese, None, np.array([True, True, False])).tolist() == [False, True, True]
