"""How single classes and groups fare in each variant: confusion matrices, and recall, precision and F1, from result.json.

Letters: K classes, [i, j] counts test examples of class i that were answered with class j.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from research.report import drawing, words
from research.report.records import NULL, Records, derived

# Names of the picture, without the ending.
PICTURE = 'confusion'
# With more classes only the worst are in the table, and the picture has no names.
_MOST_CLASSES, _WORST, _MOST_NAMES = 30, 10, 12
# Panels of the picture, three in a row.
_MOST_PANELS, _COLUMNS = 12, 3
# Side of a panel, inches.
_SIDE = 2.5
_CAPTION = (
    'F1 in % with (recall, precision), means over the seeds, on the test split. Recall: the share of the examples of a class '
    'that were answered with it. Precision: the share of the answers with a class that were right. F1: their harmonic mean.'
)


def matrices(records: Records) -> dict[str, np.ndarray]:
    """Variant -> confusion matrices of its seeds, float64 [seeds, K, K]; without the null and variants that have none."""
    found = {}
    for variant, by_seed in records.results.items():
        kept = [np.array(by_seed[seed].get('confusion') or [[]], np.float64) for seed in records.seeds]
        if variant != NULL and kept and all(len(m) > 1 and m.shape == (len(m), len(m)) for m in kept):
            found[variant] = kept
    classes = max((len(matrix) for kept in found.values() for matrix in kept), default=0)
    return {v: np.stack([np.pad(m, (0, classes - len(m))) for m in kept]) for v, kept in found.items()}


def summarize(records: Records) -> dict[str, Any] | None:
    """For summary.json: {names, training, examples, variants}; None where no run tells.

    names: of the K classes; training, examples: of each class in the training (of the first variant; None where it is not
    known) and the test split; variants: name -> {recall, precision, f1}, means over seeds, K each.
    """
    found = matrices(records)
    if not found:
        return None
    first = next(iter(found))
    data = _data(records, first)
    training = data.get('facts', {}).get('counts')
    return {
        'names': _named(data.get('class_names'), range(found[first].shape[1])),
        'training': training,
        'examples': found[first][0].sum(1).tolist(),
        'variants': {
            name: {key: values.mean(0).tolist() for key, values in _scores(kept).items()} for name, kept in found.items()
        },
    }


def groups(records: Records) -> dict[str, Any] | None:
    """For summary.json: {names, examples, variants}, the last name -> mean accuracy over seeds of each group; None without."""
    found: dict[str, np.ndarray] = {}
    for variant, by_seed in records.results.items():
        kept = [by_seed[seed].get('groups') for seed in records.seeds]
        if variant != NULL and kept and all(kept):
            found[variant] = np.array(kept)
    if not found or len({counts[0, :, :2].tobytes() for counts in found.values()}) > 1:
        return None
    names, examples, _ = next(iter(found.values()))[0].T.tolist()
    accuracy = {variant: (counts[:, :, 2] / counts[:, :, 1]).mean(0).tolist() for variant, counts in found.items()}
    known = _data(records, next(iter(found))).get('group_names')
    return {'names': _named(known, names), 'examples': examples, 'variants': accuracy}


def class_table(classes: Mapping[str, Any] | None) -> dict[str, Any]:
    """headings, rows of text and caption: each class, or the ten with the lowest F1 in the first variant; no rows without."""
    if classes is None:
        return {'headings': [], 'rows': [], 'caption': ''}
    names, training, scores = classes['names'], classes['training'], classes['variants']
    shown, caption = range(len(names)), _CAPTION
    if len(names) > _MOST_CLASSES:
        first = next(iter(scores))
        shown = np.argsort(scores[first]['f1'], kind='stable')[:_WORST].tolist()
        caption = f'The {_WORST} of {len(names)} classes with the lowest F1 in {first}. {caption}'

    def told(variant: str, k: int) -> str:
        f1, recall, precision = (f'{100 * scores[variant][key][k]:.1f}' for key in ('f1', 'recall', 'precision'))
        return f'{f1} ({recall}, {precision})'

    counted = training is not None
    return {
        'headings': ['class', *['training examples'] * counted, 'test examples', *scores],
        'rows': [
            [
                names[k],
                *[str(training[k]) if k < len(training) else words.MISSING] * counted,
                f'{classes["examples"][k]:.0f}',
                *(told(variant, k) for variant in scores),
            ]
            for k in shown
        ],
        'caption': caption + ' Training examples are those of the baseline.' * counted,
    }


def group_table(found: Mapping[str, Any] | None) -> dict[str, Any]:
    """headings, rows of text and caption: the accuracy of each group; no rows without."""
    if found is None:
        return {'headings': [], 'rows': [], 'caption': ''}
    return {
        'headings': ['group', 'test examples', *found['variants']],
        'rows': [
            [name, str(count), *(f'{100 * accuracy[g]:.1f}' for accuracy in found['variants'].values())]
            for g, (name, count) in enumerate(zip(found['names'], found['examples'], strict=True))
        ],
        'caption': 'Accuracy in %, mean over the seeds, on the test split.',
    }


def draw(records: Records, classes: Mapping[str, Any] | None, folder: Path) -> str:
    """Draws `confusion.png` and `confusion.pdf`, a panel a variant; returns what stands below them, '' without matrices."""
    if classes is None:
        return ''
    means = {variant: kept.mean(0) for variant, kept in matrices(records).items()}
    shown = dict([*means.items()][:_MOST_PANELS])
    labels = [drawing.short(name) for name in classes['names']] if len(classes['names']) <= _MOST_NAMES else []
    across, down = min(len(shown), _COLUMNS), math.ceil(len(shown) / _COLUMNS)
    margin = 0.25 + 0.065 * max(map(len, labels), default=0)  # inches, for the names
    width, height = margin + _SIDE * across + 0.1, margin + (_SIDE + 0.3) * down
    with drawing.figure(width, height, folder / PICTURE) as figure:
        figure.set_layout_engine('none')  # which would draw everything once more
        for number, (variant, matrix) in enumerate(shown.items()):
            row, column = divmod(number, across)
            left, top = margin + _SIDE * column, (_SIDE + 0.3) * row + 0.3
            box = (left / width, 1 - (top + _SIDE) / height, (_SIDE - 0.1) / width, (_SIDE - 0.1) / height)
            panel = figure.add_axes(box)
            _panel(panel, variant, matrix, labels, left=column == 0, bottom=number + across >= len(shown))
    told = 'Rows: the true class; columns: the answer. A row adds up to 100 %, the darkest blue; the diagonal is the recall.'
    return told + f' The first {_MOST_PANELS} of {len(means)} variants.' * (len(means) > len(shown))


def _panel(panel, variant: str, matrix: np.ndarray, labels: list[str], left: bool, bottom: bool) -> None:
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    panel.imshow(shares, cmap='Blues', vmin=0, vmax=1)
    panel.grid(visible=False)
    panel.set_title(drawing.short(variant), fontsize=10)
    places = range(len(labels))
    panel.set_xticks(places if bottom else [], labels if bottom else [], rotation=90, fontsize=7)
    panel.set_yticks(places if left else [], labels if left else [], fontsize=7)
    panel.tick_params(length=0)
    for k in places:
        colour = 'white' if shares[k, k] > 0.5 else drawing.INK
        panel.text(k, k, f'{100 * shares[k, k]:.0f}', ha='center', va='center', fontsize=6.5, color=colour)


def _data(records: Records, variant: str) -> dict[str, Any]:
    """What a run of this variant has kept of its data."""
    return derived(records.workdir / 'runs' / records.results[variant][records.seeds[0]]['id'] / 'data.json')


def _named(known: Sequence[str] | None, numbers: Iterable[int]) -> list[str]:
    """The names of these classes or groups; the number of one without."""
    names = dict(enumerate(known or ()))
    return [str(names.get(number, number)) for number in numbers]


def _scores(kept: np.ndarray) -> dict[str, np.ndarray]:
    """recall, precision and f1 of matrices [S, K, K]: [S, K] each, 0 where nothing is divided."""
    hits, examples, answers = np.diagonal(kept, axis1=1, axis2=2), kept.sum(2), kept.sum(1)
    return {
        'recall': hits / np.maximum(examples, 1),
        'precision': hits / np.maximum(answers, 1),
        'f1': 2 * hits / np.maximum(examples + answers, 1),
    }
