"""The page answers on its first screen: the forest plot's order and axes, the headline, and what stands where."""

import itertools
import json
import pathlib
import re

import fabricate
import pytest
from hypothesis import given
from hypothesis import strategies as st

from research.report import axes, figures, forest, forest_data, headline, pages, screen, words

pytestmark = pytest.mark.usefixtures('without_plots')
SIZES = st.floats(1e-4, 1e4)


def _summary(contrasts, higher=True):
    made = [
        {
            'name': name,
            'weights': {name: 1, 'baseline': -1},
            'null': name == 'null',
            'verdict': verdict,
            'difference': mean,
            'interval': None if mean is None else [mean - 0.001, mean + 0.001],
            'differences': [mean],
            'cost': {'train_seconds': {'ratio': ratio, 'interval': [0.9 * ratio, 1.1 * ratio]}},
        }
        for name, verdict, mean, ratio in contrasts
    ]
    return {'metric': 'test/accuracy', 'higher_is_better': higher, 'variants': [], 'contrasts': made}


def _forest(contrasts, higher=True):
    costs = [{'key': 'train_seconds', 'label': 'training seconds'}]
    points = [{'name': name, 'costs': {}} for name in ('baseline', *(contrast[0] for contrast in contrasts))]
    return forest_data.forest(_summary(contrasts, higher), {'costs': costs, 'points': points})


@pytest.mark.parametrize(
    'higher, order', [(True, ['up', 'far', 'near', 'plus', 'minus']), (False, ['up', 'far', 'near', 'minus', 'plus'])]
)
def test_rows_stand_by_verdict_and_in_it_by_effect(higher, order):
    sign = 1 if higher else -1
    found = _forest(
        [
            ('minus', 'no effect shown', -0.001, 1.0),
            ('near', 'worse, within the margin', -0.002 * sign, 1.0),
            ('odd', 'a verdict of tomorrow', 0.0, 1.0),
            ('few', 'too few seeds', 0.5, 1.0),
            ('null', 'no effect shown', 0.0, 1.0),
            ('gone', 'failed (1 of 3 diverged)', None, 1.0),
            ('plus', 'no effect shown', 0.001, 1.0),
            ('far', 'worse', -0.003 * sign, 1.0),
            ('up', 'better', 0.004 * sign, 1.0),
        ],
        higher,
    )
    names = [row['name'] for row in found['rows']]
    assert names == [*order[:3], 'gone', *order[3:], 'odd', 'few']
    assert found['null'] == pytest.approx([-0.1, 0.1])
    assert _forest([('null', 'did nothing', None, 1.0), ('up', 'better', 0.1, 1.0)])['null'] is None


def test_an_outlier_leaves_the_axis_to_the_others():
    rows = [(f'v{i}', 'no effect shown', 0.002 * i, 1.0 + 0.1 * i) for i in range(5)]
    found = _forest([*rows, ('low_rate', 'worse', -0.09, 40.0)])
    outlier = found['rows'][0]
    assert outlier['outside'] == 'low' and outlier['costs']['train_seconds']['outside'] == 'high'
    low, high = found['axis']['range']
    assert -0.3 < low < 0 and 0.9 < high < 1.2 and not any(row['outside'] for row in found['rows'][1:])
    assert found['axis']['unit'] == 'points' and found['costs'][0]['range'][1] < 3


@given(st.lists(st.tuples(st.floats(-1e3, 1e3), SIZES), min_size=1, max_size=12))
def test_axes_hold_the_middle_of_the_rows_and_round_ticks(values):
    spans = [(middle - size, middle + size) for middle, size in values]
    low, high = forest_data.robust(spans)
    assert low < 0 < high
    assert 2 * sum(low <= a and b <= high for a, b in spans) >= len(spans)
    ticks = axes.round_ticks(low, high)
    assert 0 in ticks and 2 <= len(ticks) <= 6 and all(low <= t <= high for t in ticks)


@given(st.floats(1e-6, 0.99), st.floats(1.01, 1e6))
def test_ticks_of_ratios_are_few_and_hold_1(low, high):
    ticks = axes.ratio_ticks(low, high)
    assert 1 in ticks and ticks == sorted(set(ticks)) and len(ticks) <= 7 and all(low <= t <= high for t in ticks)


def _headline(verdicts, detectable=None, margin=0.0, within=(), metric='test/accuracy', seeds=10, weights=None):
    contrasts = [
        {
            'name': f'v{number}',
            'weights': weights or {f'v{number}': 1, 'baseline': -1},
            'null': False,
            'verdict': verdict,
            'difference': None if verdict.startswith('failed') else -0.0253,
            'interval': None if verdict.startswith('failed') or seeds < 2 else [-0.0306, -0.0194],
            'detectable': detectable and detectable[number],
            'within_margin': number in within,
        }
        for number, verdict in enumerate(verdicts)
    ]
    summary = {'metric': metric, 'margin': margin, 'alpha': 0.05, 'seeds': list(range(seeds)), 'contrasts': contrasts}
    return headline.headline(summary | {'variants': [{'spread': 0.0012}]})


@pytest.mark.parametrize(
    'said, options',
    [
        (
            'Of 9 changes, 3 hurt, none is shown to help; 6 show no effect at a resolution of 0.3 to 1.1 points.',
            {
                'verdicts': ['worse'] * 3 + ['no effect shown'] * 6,
                'detectable': [0.02, 0.01, 0.02, 0.0072, 0.0107, 0.0031, 0.004, 0.005, 0.006],
            },
        ),
        (
            'Of 3 changes, none is shown to help or to hurt; all 3 are equivalent to the baseline within 0.50 points.',
            {'verdicts': ['equivalent'] * 3, 'margin': 0.005},
        ),
        (
            'Of 6 changes, 1 hurts, 2 help (1 by less than the margin); 1 failed; 1 has the same numbers at another cost; '
            '1 did nothing.',
            {
                'verdicts': ['worse', 'better', 'better, within the margin', 'failed (1 of 3 diverged)']
                + ['same numbers, other cost', 'did nothing'],
                'within': [2],
            },
        ),
        (
            'Of 2 changes, none is shown to help or to hurt; 1 shows no effect; 1 ended otherwise (a verdict of tomorrow).',
            {'verdicts': ['no effect shown', 'a verdict of tomorrow']},
        ),
        (
            '3 seeds are too few for a claim: the differences of 2 changes are shown as they are, untested.',
            {'verdicts': ['too few seeds'] * 2, 'seeds': 3},
        ),
        ('v0 hurts: test/accuracy −2.53 points (95 % interval −3.06 to −1.94).', {'verdicts': ['worse']}),
        ('v0 failed (1 of 10 diverged).', {'verdicts': ['failed (1 of 10 diverged)']}),
        ('v0 has too few seeds for a claim: test/accuracy −2.53 points.', {'verdicts': ['too few seeds'], 'seeds': 1}),
        (
            'v0 shows no effect at a resolution of 0.002 test/loss: test/loss −0.0253 (95 % interval −0.0306 to −0.0194).',
            {'verdicts': ['no effect shown'], 'detectable': [0.0021], 'metric': 'test/loss'},
        ),
        (
            'Of 2 comparisons, all 2 help, none is shown to hurt.',
            {'verdicts': ['better'] * 2, 'weights': {'a': 1, 'b': -1}},
        ),
        ('The baseline ran alone: there is nothing to compare.', {'verdicts': []}),
        ('No seed has a result in every variant yet.', {'verdicts': ['too few seeds'], 'seeds': 0}),
    ],
)
def test_the_headline_counts_verdicts(said, options):
    assert _headline(**options) == said


@pytest.fixture(scope='module')
def page(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, 'pareto', lambda chart, workdir: None)
        patch.setattr(forest, 'draw', lambda *arguments: None)
        workdir = fabricate.study(tmp_path_factory.mktemp('page'), evaluations=2, finished={'clip': 9})
        fabricate.amend(workdir, 'adam', 1, message='stalled: the training loss was 2.3 in the first interval and in the last')
        pages.write(workdir)
    return workdir, (workdir / 'report.html').read_text()


def test_the_page_warns_then_answers_then_shows_then_tells(page):
    _, text = page
    marks = ['Read first: 9 of 10 seeds are in; 1 run did not learn', 'Of 4 changes, ', '<figure class="forest', 'Gains ']
    marks += ['over training seeds, on this test set', 'the null variant', 'Rules 1.0', 'p, Holm', 'latency, batch 64']
    marks += ['multiply-adds', 'id="pareto"', '>Environment<', 'Do it again', 'What differs', 'resolved</summary>']
    places = [text.index(mark) for mark in marks]
    assert places == sorted(places)


def test_a_row_opens_to_its_sentence_its_seeds_and_its_overrides(page):
    workdir, text = page
    row = re.search(r'<details class="row better"><summary>.*?>adam<.*?</details>', text, re.S)[0]
    assert 'adam: better.' in row and 'optimizer.learning_rate = 0.002' in row and '(baseline 0.05' in row
    runs = json.loads((workdir / 'study.json').read_text())['runs']['adam']
    assert re.findall(r'href="runs/(\w+)/">seed (\d)</a>: <b>\+', row) == [(runs[str(seed)], str(seed)) for seed in range(9)]
    titles = re.findall(r'<svg class="plot" role="img"><title>(.*?)</title>', row)
    assert titles[0].startswith('difference +') and '95 % interval +' in titles[0]
    assert titles[1].startswith('training') and '×' in titles[1] and len(titles) > 2


def test_links_lead_to_the_folders_of_runs_that_have_a_record(page):
    workdir, text = page
    table = text[text.index('aria-label="Quality"') :]
    linked = re.findall(r'href="(runs/\w+/)"', table[: table.index('</table>')])
    assert len(linked) == len(set(linked)) == 49 and all((workdir / folder / 'result.json').exists() for folder in linked)


def test_the_row_of_a_failed_variant_says_what_failed_and_where(tmp_path):
    workdir = fabricate.study(tmp_path, seeds=3, evaluations=2, status={('tiny', 2): 'failed'})
    pages.write(workdir)
    row = re.search(r'<details class="row failed">.*?</details>', (workdir / 'report.html').read_text(), re.S)[0]
    assert '>1 of 3 ended in an error</text>' in row and re.search('seed 2</a>: <b>failed at step 300<', row)


def test_costs_that_do_not_differ_are_a_line_and_what_is_unknown_is_nothing():
    table = {
        'headings': ['variant', 'parameters', 'latency', 'memory'],
        'rows': [['baseline', '25 k', '–', '4 MB'], ['adam', '25 k', '–', '5 MB'], ['a − b', '–', '–', '–']],
        'caption': '',
    }
    assert screen.varying(table)['same'] == [('parameters', '25 k')]
    assert screen.varying(table)['headings'] == ['variant', 'memory']
    assert screen.varying(table, same=False)['headings'] == ['variant', 'parameters', 'memory']
    assert screen.varying(table | {'rows': table['rows'][:1]})['headings'] == ['variant', 'parameters', 'memory']


def test_sections_without_content_are_left_out(tmp_path):
    workdir = fabricate.study(tmp_path, effects={'baseline': 0.0}, seeds=2, evaluations=2)
    pages.write(workdir)
    text = (workdir / 'report.html').read_text()
    for absent in ('<figure class="forest', 'Read first', 'did not finish', 'observed', 'Tuning', '>Notes<', 'What differs'):
        assert absent not in text
    assert 'nothing to compare' in text


def test_of_many_rows_the_strongest_stand_and_those_without_effect_are_one_line():
    names = [*(('worse', -0.03 - 0.001 * i) for i in range(9)), *(('no effect shown', 0.0001 * i) for i in range(20))]
    contrasts = [(f'v{i}', verdict, mean, 1.0) for i, (verdict, mean) in enumerate(names)]
    contrasts.append(('up', 'better', 0.05, 1.0))
    rows = [dict(row, difference=row['mean'] / 100) for row in _forest(contrasts)['rows']]
    groups = {group['kind']: group for group in screen._groups(rows, words.unit('test/accuracy', ()))}
    assert [row['name'] for row in groups['worse']['rows']] == ['v8', 'v7', 'v6', 'v5', 'v4', 'v3']
    assert len(groups['worse']['folded']) == 3 and len(groups['better']['rows']) == 1
    assert not groups['none']['rows'] and len(groups['none']['folded']) == 20 and groups['none']['span'] == '+0.00 to +0.19'
    few = screen._groups(rows[1:7], words.unit('test/accuracy', ()))
    assert not few[0]['folded'] and len(few[0]['rows']) == 6


def test_marks_stay_on_their_axis():
    place = screen._linear((-1.0, 1.0))
    assert screen._mark(place, 0.0, [-0.5, 0.5], '', '', '')[:5] == (50, 25, 75, (), '')
    assert screen._mark(place, 0.9, [-3.0, 3.0], '', '', '')[:5] == (95, 0, 100, ('low', 'high'), '')
    assert screen._mark(place, -9.0, [-9.5, -8.5], 'low', '−9', '')[:6] == (None, 0, 0, (), 'low', '−9')
    assert screen._mark(place, None, None, '', '', '').text == words.MISSING


def _luminance(colour):
    full = ''.join(2 * c for c in colour) if len(colour) == 3 else colour
    linear = [
        v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in (int(full[i : i + 2], 16) / 255 for i in (0, 2, 4))
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize('mode', [0, 1])
def test_contrast_is_that_of_wcag_aa_in_light_and_dark(mode):
    css = (pathlib.Path(pages.__file__).parent / 'report.css').read_text()
    colours = dict(re.findall(r'--([\w-]+): #(\w+)', re.findall(r':root \{[^}]*--ink[^}]*\}', css)[mode]))

    def contrast(a, b):
        bright, dim = sorted((_luminance(colours[a]), _luminance(colours[b])), reverse=True)
        return (bright + 0.05) / (dim + 0.05)

    for text, ground in itertools.product(('ink', 'soft', 'link'), ('paper', 'wash', 'band')):
        assert contrast(text, ground) >= 4.5, (text, ground)
    assert contrast('ink', 'alarm') >= 4.5
    for mark, ground in itertools.product(('better', 'worse', 'equivalent', 'plain'), ('paper', 'band')):
        assert contrast(mark, ground) >= 3, (mark, ground)
