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
    'F1 in % with (recall, precision), means over the seeds where they are defined, on the test split. Recall: the share of '
    'the examples of a class that were answered with it. Precision: the share of the answers with a class that were right. '
    'F1: their harmonic mean. '
    f'{words.MISSING} means undefined: the class has no test examples, or no run answered with it.'
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
    """For summary.json, {names, training, training_of, training_differs, examples, variants, left_out}; None without matrices.

    names: of the K classes; training, examples: of each class in the training (None where it is not known) and the test split;
    training_of: the variant whose training split that is; training_differs: variants with other counts; variants: name ->
    {recall, precision, f1}, K each, means over the seeds where they are defined, None without; left_out: variants without a
    matrix of every seed.
    """
    found = matrices(records)
    if not found:
        return None
    first = next(iter(found))
    counts = {name: _data(records, name).get('facts', {}).get('counts') for name in found}
    source = next((name for name in found if counts[name]), first)
    return {
        'names': _named(_data(records, first).get('class_names'), range(found[first].shape[1])),
        'training': counts[source],
        'training_of': source,
        'training_differs': [name for name in found if counts[name] and counts[name] != counts[source]],
        'examples': found[first][0].sum(1).tolist(),
        'variants': {name: {key: _means(values) for key, values in _scores(kept).items()} for name, kept in found.items()},
        'left_out': _left_out(records, found),
    }


def groups(records: Records) -> dict[str, Any] | None:
    """For summary.json: {names, examples, variants, left_out}; None without.

    variants: name -> mean accuracy over seeds of each group; left_out: variants without groups of every seed.
    """
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
    return {
        'names': _named(known, names),
        'examples': examples,
        'variants': accuracy,
        'left_out': _left_out(records, found),
    }


def class_table(classes: Mapping[str, Any] | None) -> dict[str, Any]:
    """headings, rows of text and caption: each class, or the ten with the lowest F1 in the first variant; no rows without.

    Classes without test examples are not among the ten.
    """
    if classes is None:
        return {'headings': [], 'rows': [], 'caption': ''}
    names, training, scores = classes['names'], classes['training'], classes['variants']
    shown, caption = range(len(names)), _CAPTION
    if len(names) > _MOST_CLASSES:
        first = next(iter(scores))
        tested = [k for k in shown if classes['examples'][k]]
        shown = sorted(tested, key=lambda k: scores[first]['f1'][k])[:_WORST]
        untested = f', without the {len(names) - len(tested)} that have no test examples' if len(tested) < len(names) else ''
        caption = f'The {len(shown)} of {len(names)} classes with the lowest F1 in {first}{untested}. {caption}'

    def told(variant: str, k: int) -> str:
        values = (scores[variant][key][k] for key in ('f1', 'recall', 'precision'))
        f1, recall, precision = (words.MISSING if value is None else f'{100 * value:.1f}' for value in values)
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
        'caption': caption + _training_sentence(classes) * counted + _left_out_sentence(classes),
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
        'caption': 'Accuracy in %, mean over the seeds, on the test split.' + _left_out_sentence(found),
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
    told += f' The first {_MOST_PANELS} of {len(means)} variants.' * (len(means) > len(shown))
    return told + _left_out_sentence(classes)


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
        share = f'{100 * shares[k, k]:.0f}' if matrix[k].any() else words.MISSING
        panel.text(k, k, share, ha='center', va='center', fontsize=6.5, color=colour)


def _data(records: Records, variant: str) -> dict[str, Any]:
    """What a run of this variant has kept of its data."""
    return derived(records.workdir / 'runs' / records.results[variant][records.seeds[0]]['id'] / 'data.json')


def _named(known: Sequence[str] | None, numbers: Iterable[int]) -> list[str]:
    """The names of these classes or groups; the number of one without."""
    names = dict(enumerate(known or ()))
    return [str(names.get(number, number)) for number in numbers]


def _scores(kept: np.ndarray) -> dict[str, np.ndarray]:
    """recall, precision and f1 of matrices [S, K, K]: [S, K] each.

    NaN: recall and f1 of a class without test examples, precision of one that was never answered.
    """
    hits, examples, answers = np.diagonal(kept, axis1=1, axis2=2), kept.sum(2), kept.sum(1)
    tested = np.where(examples > 0, examples, np.nan)
    return {
        'recall': hits / tested,
        'precision': hits / np.where(answers > 0, answers, np.nan),
        'f1': 2 * hits / (tested + answers),
    }


def _means(values: np.ndarray) -> list[float | None]:
    """Of [S, K] the mean of each class over the seeds where it is defined; None where it is in none."""
    each = [column[~np.isnan(column)] for column in values.T]
    return [float(column.mean()) if len(column) else None for column in each]


def _left_out(records: Records, found: Mapping[str, Any]) -> list[str]:
    return [variant for variant in records.results if variant != NULL and variant not in found]


def _left_out_sentence(told: Mapping[str, Any]) -> str:
    """Follows a caption."""
    return (
        f' Left out, because a run diverged or lacks these counts: {", ".join(told["left_out"])}.' if told['left_out'] else ''
    )


def _training_sentence(classes: Mapping[str, Any]) -> str:
    """Follows a caption."""
    others = ', '.join(classes['training_differs'])
    return f' Training examples are those of {classes["training_of"]}.' + (f' They differ in {others}.' if others else '')
