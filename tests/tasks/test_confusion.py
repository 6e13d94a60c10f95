"""Metrics of classes and groups against scikit-learn and their definitions."""

import tracemalloc

import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st

from research import tasks
from research.tasks import confusion

GROUP = {'loss': 'softmax', 'label_smoothing': 0.0}


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 999), size=st.integers(1, 60), classes=st.integers(1, 5))
def test_metrics_are_scikit_learns(seed, size, classes):
    draw = np.random.default_rng(seed)
    label, answer = draw.integers(0, classes, size, np.uint8), draw.integers(0, classes + 1, size, np.uint8)
    recall = sklearn.metrics.recall_score(label, answer, labels=np.unique(label), average=None, zero_division=0)
    assert confusion.judge({'label': label, 'answer': answer}) == pytest.approx(
        {
            'balanced_accuracy': recall.mean(),
            'worst_class_accuracy': recall.min(),
            'f1_macro': sklearn.metrics.f1_score(label, answer, average='macro', zero_division=0),
            'matthews': sklearn.metrics.matthews_corrcoef(label, answer),
        }
    )
    occurring = range(max(label.max(), answer.max()) + 1)
    found = confusion.recorded({'label': label, 'answer': answer})
    assert found == {'confusion': sklearn.metrics.confusion_matrix(label, answer, labels=[*occurring]).tolist()}


def test_calibration_error_is_that_of_its_definition():
    draw = np.random.default_rng(0)
    confidence, correct = draw.uniform(0.1, 1, 500), draw.random(500) < 0.6
    expected = 0.0
    for low in range(15):
        inside = (confidence > low / 15) & (confidence <= (low + 1) / 15)
        if inside.any():
            expected += inside.mean() * abs(correct[inside].mean() - confidence[inside].mean())
    assert confusion.calibration_error(correct, confidence) == pytest.approx(expected)
    assert confusion.calibration_error(np.ones(3, bool), np.ones(3)) == 0
    assert confusion.calibration_error(np.zeros(3, bool), np.ones(3)) == 1


@pytest.mark.parametrize('bad', [np.nan, np.inf, -np.inf])
def test_a_confidence_that_is_not_finite_has_no_calibration_error(bad):
    rows = {'label': np.array([0, 1]), 'answer': np.array([0, 0]), 'confidence': np.array([0.5, bad], np.float32)}
    metrics = confusion.judge(rows)
    assert np.isnan(metrics['calibration_error']) and metrics['balanced_accuracy'] == 0.5


def test_metrics_of_many_classes_take_memory_in_proportion_to_their_number():
    label = np.arange(2000)
    rows = {'label': label, 'answer': label[::-1].copy()}
    tracemalloc.start()
    try:
        confusion.judge(rows)
        assert confusion.recorded(rows) == {}
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 100 * 8 * len(label)  # the matrix alone has 2000 * 8 bytes a class


def test_the_worst_group_is_the_one_with_the_lowest_accuracy():
    group, correct = np.array([7, 7, -1, -1, -1, 3]), np.array([1, 0, 1, 1, 1, 1], bool)
    rows = {'label': np.ones(6, int), 'answer': correct.astype(int), 'group': group}
    assert confusion.judge(rows)['worst_group_accuracy'] == 0.5
    assert confusion.recorded(rows)['groups'] == [(-1, 3, 3), (3, 1, 1), (7, 2, 1)]


@pytest.mark.parametrize('name', ['classification', 'text_classification'])
@pytest.mark.parametrize('loss', ['softmax', 'sigmoid', 'optax:softmax_cross_entropy_with_integer_labels'])
@pytest.mark.parametrize('grouped', [False, True])
def test_tasks_give_the_metrics_that_they_name(name, loss, grouped):
    facts = {'classes': 3, 'counts': (5, 3, 2)} | ({'groups': 2} if grouped else {})
    task = tasks.create({'name': name, **GROUP, 'loss': loss}, facts)
    draw = np.random.default_rng(0)
    logits, label = draw.normal(size=(40, 3)).astype(np.float32), draw.integers(0, 3, 40)
    rows = task.rows(logits, {'label': label, 'group': label % 2})
    assert {*task.judge({k: np.asarray(v) for k, v in rows.items()})} == {*task.judged}
    assert rows['label'].dtype == rows['answer'].dtype == np.uint8
    if loss == 'softmax':
        expected = np.exp(logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)).max(1)
        np.testing.assert_allclose(rows['confidence'], expected, rtol=1e-5)


def test_more_classes_than_a_byte_counts_keep_their_numbers():
    task = tasks.create({'name': 'classification', **GROUP}, {})
    logits = np.eye(300, dtype=np.float32)[[299, 256]]
    rows = task.rows(logits, {'label': np.array([299, 0])})
    assert rows['answer'].tolist() == [299, 256] and rows['correct'].tolist() == [True, False]
    assert 'confusion' not in task.recorded({k: np.asarray(v) for k, v in rows.items()})
