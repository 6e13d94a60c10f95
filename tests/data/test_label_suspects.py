"""Labels that were made wrong are suspected, and few others."""

import sys

import numpy as np
import pytest
from sklearn.datasets import load_digits

from research.catalogue import ConfigError
from research.data import label_suspects

IMAGES, LABELS = load_digits(return_X_y=True)
IMAGES = IMAGES.reshape(-1, 8, 8, 1).astype(np.uint8)
ALL = np.ones(len(LABELS), bool)
WRONG = np.sort(np.random.default_rng(0).permutation(len(LABELS))[:90])


def spoiled(labels, rows):
    changed = labels.copy()
    changed[rows] = (labels[rows] + np.random.default_rng(1).integers(1, 10, len(rows))) % 10
    return changed


@pytest.mark.parity
def test_wrong_labels_of_images_are_suspected_and_few_right_ones():
    found = label_suspects.suspects(IMAGES, spoiled(LABELS, WRONG), ALL)
    assert found[WRONG].mean() > 0.75 and found.sum() < 1.5 * len(WRONG)
    assert label_suspects.suspects(IMAGES, LABELS, ALL).mean() < 0.05


def test_an_example_is_judged_by_others():
    """A classifier that had seen noise would know its labels."""
    noise = np.random.default_rng(0).normal(size=(200, 8, 8, 1)).astype(np.float32)
    labels = np.arange(200) % 2
    found = label_suspects.probabilities(noise, labels)
    np.testing.assert_allclose(found.sum(1), 1)
    assert abs((found.argmax(1) == labels).mean() - 0.5) < 0.15


@pytest.mark.parity
def test_wrong_labels_of_texts_are_suspected():
    words = np.array([['stork', 'heron', 'crane', 'swift', 'robin'], ['iron', 'zinc', 'lead', 'tin', 'gold']])
    labels, draw = np.arange(120) % 2, np.random.default_rng(0)
    texts = np.array([' '.join(draw.choice(words[label], 4)) for label in labels], object)
    wrong = np.arange(len(labels)) % 17 == 0
    found = label_suspects.suspects(texts, np.where(wrong, 1 - labels, labels), np.ones(120, bool))
    np.testing.assert_array_equal(found, wrong)


@pytest.mark.parity
def test_classes_may_be_missing_between_others():
    rows = LABELS != 4
    found = label_suspects.suspects(IMAGES[rows], LABELS[rows], ALL[rows])
    assert found.shape == (rows.sum(),) and found.mean() < 0.05


@pytest.mark.parity
def test_what_it_cannot_judge_is_refused(monkeypatch):
    for labels, expected in ((None, 'the data have none'), (np.append(LABELS[:-1], 10), 'class 10 has 1')):
        with pytest.raises(ConfigError, match=expected):
            label_suspects.suspects(IMAGES, labels, ALL)
    monkeypatch.setitem(sys.modules, 'cleanlab.filter', None)
    with pytest.raises(ConfigError, match=r"pip install 'frugal-jax\[filters\]'"):
        label_suspects.suspects(IMAGES, LABELS, ALL)
