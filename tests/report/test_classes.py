"""Classes and groups in the report: what the confusion matrices of the records say."""

import json

import fabricate
import matplotlib.axes
import numpy as np
import pytest
import sklearn.metrics

from research.report import classes, pages, records

HOSTILE = '<script>alert(1)</script> | $x_1$'


def study(tmp_path, count=4, groups=True, **arguments):
    """A fabricated study whose runs keep matrices of `count` classes; and (label, answer) by variant and seed."""
    workdir = fabricate.study(
        tmp_path / 'study', {'baseline': 0.0, 'null': 0.0, 'adam': 0.03}, seeds=3, evaluations=2, **arguments
    )
    draw, label, told = np.random.default_rng(0), np.repeat(np.arange(count), 20), {}
    for path in sorted((workdir / 'runs').glob('*/result.json')):
        result = json.loads(path.read_text())
        answer = np.where(draw.random(len(label)) < 0.6, label, draw.integers(0, count, len(label)))
        told[result['variant'], result['seed']] = label, answer
        result['confusion'] = sklearn.metrics.confusion_matrix(label, answer).tolist()
        if groups:
            result['groups'] = [[0, 30, 10 + result['seed']], [1, 50, 25]]
        path.write_text(json.dumps(result))
        data = {'facts': {'counts': [100 + k for k in range(count)]}, 'class_names': [HOSTILE]}
        (path.parent / 'data.json').write_text(json.dumps(data))
    return workdir, told


def test_the_table_has_scikit_learns_scores_averaged_over_seeds(tmp_path):
    workdir, told = study(tmp_path)
    read = records.read(workdir)
    found = classes.summarize(read)
    for variant in ('baseline', 'adam'):
        each = [sklearn.metrics.precision_recall_fscore_support(*told[variant, seed], zero_division=0)[:3] for seed in range(3)]
        for key, expected in zip(('precision', 'recall', 'f1'), np.mean(each, axis=0), strict=True):
            np.testing.assert_allclose(found['variants'][variant][key], expected)
    assert 'null' not in found['variants']
    assert (
        found['names'] == [HOSTILE, '1', '2', '3']
        and found['examples'] == [20] * 4
        and found['training'] == [100, 101, 102, 103]
    )
    table = classes.class_table(found)
    assert table['headings'] == ['class', 'training examples', 'test examples', 'baseline', 'adam']
    f1, recall, precision = (100 * found['variants']['adam'][key][2] for key in ('f1', 'recall', 'precision'))
    assert table['rows'][2] == ['2', '102', '20', table['rows'][2][3], f'{f1:.1f} ({recall:.1f}, {precision:.1f})']


def test_of_many_classes_the_table_has_the_worst(tmp_path):
    workdir, _ = study(tmp_path, 40)
    found = classes.summarize(records.read(workdir))
    table = classes.class_table(found)
    worst = sorted(range(40), key=lambda k: found['variants']['baseline']['f1'][k])[:10]
    assert [row[0] for row in table['rows']] == [found['names'][k] for k in worst]
    assert '10 of 40 classes with the lowest F1 in baseline' in table['caption']


def change(workdir, variant, seed, **entries):
    run = records.read(workdir).results[variant][seed]
    path = workdir / 'runs' / run['id'] / 'result.json'
    path.write_text(json.dumps({**run, **entries}))
    return path.parent


def test_what_is_undefined_is_shown_as_missing(tmp_path, monkeypatch):
    """Class 2 is never answered with, except in one seed; class 3 is not in the test split, and class 1 is never right."""
    workdir, _ = study(tmp_path)
    never = [[4, 2, 0, 0], [5, 0, 0, 1], [3, 1, 0, 0], [0, 0, 0, 0]]
    once = [[4, 2, 0, 0], [5, 0, 0, 1], [1, 0, 3, 0], [0, 0, 0, 0]]
    for seed, kept in enumerate((never, never, once)):
        change(workdir, 'adam', seed, confusion=kept)
        change(workdir, 'baseline', seed, confusion=never)
    found = classes.summarize(records.read(workdir))
    baseline, adam = (found['variants'][variant] for variant in ('baseline', 'adam'))
    label, answer = (np.repeat(places, np.ravel(never)) for places in np.indices((4, 4)).reshape(2, -1))
    scores = sklearn.metrics.precision_recall_fscore_support(label, answer, labels=range(4), zero_division=np.nan)
    for key, expected in zip(('precision', 'recall', 'f1'), scores[:3], strict=True):
        known = slice(3) if key == 'f1' else slice(4)  # scikit-learn has 0, from the wrong answers, without a test example
        np.testing.assert_allclose(np.array(baseline[key], float)[known], expected[known])
    assert adam['precision'][2] == 1.0 and adam['recall'][2] == pytest.approx(0.25)
    rows = [row[3:] for row in classes.class_table(found)['rows']]
    assert [row[0] for row in rows[1:]] == ['0.0 (0.0, 0.0)', '0.0 (0.0, –)', '– (–, 0.0)']
    assert rows[2][1] == '28.6 (25.0, 100.0)'
    written = []
    monkeypatch.setattr(matplotlib.axes.Axes, 'text', lambda panel, x, y, text, **style: written.append(text))
    classes.draw(records.read(workdir), found, tmp_path)
    assert written[:4] == ['67', '0', '0', '–']


def test_classes_without_test_examples_are_not_among_the_worst(tmp_path):
    workdir, _ = study(tmp_path, 40)
    for variant in ('baseline', 'adam'):
        for seed in range(3):
            kept = np.array(records.read(workdir).results[variant][seed]['confusion'])
            kept[7:] = 0
            change(workdir, variant, seed, confusion=kept.tolist())
    table = classes.class_table(classes.summarize(records.read(workdir)))
    assert sorted(row[0] for row in table['rows']) == sorted([HOSTILE, *'123456'])
    assert 'The 7 of 40 classes with the lowest F1 in baseline, without the 33 that have no test examples.' in table['caption']


def test_the_caption_names_whose_training_examples_these_are_and_who_is_left_out(tmp_path):
    workdir, _ = study(tmp_path)
    for seed in range(3):
        folder = change(workdir, 'adam', seed)
        (folder / 'data.json').write_text(json.dumps({'facts': {'counts': [9, 8, 7, 6]}}))
    table = classes.class_table(classes.summarize(records.read(workdir)))
    assert table['caption'].endswith('Training examples are those of baseline. They differ in adam.')
    (change(workdir, 'baseline', 0) / 'data.json').unlink()
    table = classes.class_table(classes.summarize(records.read(workdir)))
    assert table['rows'][0][1] == '9' and table['caption'].endswith('Training examples are those of adam.')
    change(workdir, 'baseline', 1, status='diverged', metrics={}, confusion=None, groups=None)
    read = records.read(workdir)
    found = classes.summarize(read)
    table, grouped = classes.class_table(found), classes.group_table(classes.groups(read))
    assert [row[1] for row in table['rows']] == ['9', '8', '7', '6']
    left = 'Left out, because a run diverged or lacks these counts: baseline.'
    assert table['caption'].endswith(f'Training examples are those of adam. {left}')
    assert grouped['caption'].endswith(left) and classes.draw(read, found, tmp_path).endswith(left)


def test_groups_have_their_mean_accuracy(tmp_path):
    workdir, _ = study(tmp_path)
    found = classes.groups(records.read(workdir))
    assert found == {
        'names': ['0', '1'],
        'examples': [30, 50],
        'variants': {v: pytest.approx([11 / 30, 0.5]) for v in ('baseline', 'adam')},
        'left_out': [],
    }


def test_the_report_shows_them(tmp_path):
    workdir, _ = study(tmp_path)
    pages.write(workdir)
    assert (workdir / 'confusion.png').stat().st_size > 5000 and (workdir / 'confusion.pdf').exists()
    page, text = (workdir / 'report.html').read_text(), (workdir / 'report.md').read_text()
    assert '<h2>Classes</h2>' in page and '<h2>Groups</h2>' in page and '![Confusion matrices](confusion.png)' in text
    assert '<script>alert' not in page + text


def test_a_study_without_matrices_shows_nothing(tmp_path, without_plots):
    plain = fabricate.study(tmp_path / 'plain', {'baseline': 0.0, 'adam': 0.03}, seeds=2, evaluations=2)
    pages.write(plain)
    assert 'Classes' not in (plain / 'report.html').read_text()
    assert json.loads((plain / 'summary.json').read_text())['classes'] is None


def test_damaged_matrices_are_left_out(tmp_path):
    workdir, _ = study(tmp_path, groups=False)
    change(workdir, 'adam', 1, confusion=[[1, 2]])
    read = records.read(workdir)
    assert [*classes.matrices(read)] == ['baseline'] and classes.groups(read) is None
