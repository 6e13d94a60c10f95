"""How single classes and groups fare: metrics that rare classes move as much as frequent ones, from the rows of a split.

`balanced_accuracy` is the mean recall of the classes, `worst_class_accuracy` the least; `f1_macro` is the mean F1, `matthews`
the correlation of answers and classes (Gorodkin 2004). `calibration_error` is the mean distance of confidence and accuracy over
15 bins of equal width (Guo et al. 2017, On calibration of modern neural networks, equation 3). `worst_group_accuracy` is the
least of the groups of the field 'group' (Sagawa et al. 2020, Distributionally robust neural networks for group shifts).

Letters: N examples, K classes, G groups.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

METRICS = ('balanced_accuracy', 'worst_class_accuracy', 'f1_macro', 'matthews')
# Classes of which a record keeps the matrix.
_MOST = 100
_BINS = 15


def judge(rows: Mapping[str, Any]) -> dict[str, float]:
    """`METRICS`; calibration and the worst group where rows tell of them.

    Args:
      rows: 'label' and 'answer', whole numbers [N]; maybe 'confidence', float32 [N], and 'group', whole numbers [N].
    """
    metrics = of_classes(rows['label'], rows['answer'])
    correct = np.asarray(rows['label']) == rows['answer']
    if 'confidence' in rows:
        metrics['calibration_error'] = calibration_error(correct, np.asarray(rows['confidence'], np.float64))
    if 'group' in rows:
        metrics['worst_group_accuracy'] = float(min(hits / count for _, count, hits in groups(rows['group'], correct)))
    return metrics


def recorded(rows: Mapping[str, Any]) -> dict[str, Any]:
    """For the record of a run: 'confusion', a matrix of up to 100 classes, and 'groups', (group, examples, right) each."""
    label, answer = (np.asarray(rows[name], np.int64) for name in ('label', 'answer'))
    classes, correct = int(max(label.max(), answer.max())) + 1, label == answer
    return {
        **({'confusion': matrix(label, answer, classes).tolist()} if classes <= _MOST else {}),
        **({'groups': groups(rows['group'], correct)} if 'group' in rows else {}),
    }


def matrix(label: np.ndarray, answer: np.ndarray, classes: int) -> np.ndarray:
    """How many examples of class i were answered with class j, of int64 [N] each: int64 [K, K]."""
    return np.bincount(label * classes + answer, minlength=classes**2).reshape(classes, classes)


def of_classes(label: Any, answer: Any) -> dict[str, float]:
    """`METRICS` of whole numbers [N] each, from three counts a class: a matrix [K, K] of 21,841 classes would take 3.8 GB."""
    label, answer = (np.asarray(values, np.int64) for values in (label, answer))
    classes = int(max(label.max(), answer.max())) + 1
    examples, answers, hits = (
        np.bincount(values, minlength=classes).astype(float) for values in (label, answer, label[label == answer])
    )
    there, either, total = examples > 0, examples + answers > 0, examples.sum()
    recall = hits[there] / examples[there]
    spread = (total**2 - (answers**2).sum()) * (total**2 - (examples**2).sum())
    return {
        'balanced_accuracy': float(recall.mean()),
        'worst_class_accuracy': float(recall.min()),
        'f1_macro': float((2 * hits[either] / (examples + answers)[either]).mean()),
        'matthews': float((hits.sum() * total - examples @ answers) / np.sqrt(spread)) if spread else 0.0,
    }


def calibration_error(correct: np.ndarray, confidence: np.ndarray) -> float:
    """The expected calibration error of answers, bool [N], with their probabilities, float64 [N]; NaN if one is not finite."""
    if not np.isfinite(confidence).all():  # of a run that diverged, whose loss the loop looks at next
        return math.nan
    bins = np.clip(np.ceil(confidence * _BINS) - 1, 0, _BINS - 1).astype(int)
    return float(np.abs(np.bincount(bins, correct - confidence, _BINS)).sum() / len(correct))


def groups(group: Any, correct: np.ndarray) -> list[tuple[int, int, int]]:
    """(group, its examples, those answered right) for each group that occurs."""
    names, number, count = np.unique(group, return_inverse=True, return_counts=True)
    return list(zip(names.tolist(), count.tolist(), np.bincount(number, correct).astype(int).tolist(), strict=True))
