"""The plots: round ticks with units, identical programs at one cost, colours and labels that can be told apart."""

import itertools
import json
import math
import re
from pathlib import Path

import fabricate
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from research.report import axes, drawing, figures, records, summary

SIZES = {
    '': {'': 1, 'k': 1e3, 'M': 1e6, 'G': 1e9, 'T': 1e12},
    'B': {'B': 1, 'kB': 1e3, 'MB': 1e6, 'GB': 1e9, 'TB': 1e12},
    's': {'µs': 1e-6, 'ms': 1e-3, 's': 1, 'min': 60, 'h': 3600},
}
CODE = Path(figures.__file__).parent


def chart(workdir, **options):
    read = records.read(fabricate.study(workdir, evaluations=2, **options))
    summarized = json.loads(records.dumps(summary.summarize(read, summary.read_evaluations(read))))
    return summarized, figures.chart(summarized, {}, {})


@given(st.floats(1, 9e8), st.floats(1.02, 3000), st.sampled_from(list(SIZES)))
def test_ticks_are_round_in_the_unit_that_they_show(low, factor, unit):
    scaled = low * 1e-4 if unit == 's' else low
    found = axes.axis([scaled, scaled * factor], unit)
    assert found['log'] == (factor > 10) and 2 <= len(found['ticks']) <= 9
    start, end = found['range']
    assert start < scaled < scaled * factor < end
    for value, text in found['ticks']:
        number, _, name = text.partition(' ')
        assert float(number) * SIZES[unit][name] == pytest.approx(value, rel=1e-9) and start <= value <= end * (1 + 1e-9)
    if found['log']:
        assert {text[0] for _, text in found['ticks']} <= {'1', '2', '5'}
    else:
        assert len({text.partition(' ')[2] for value, text in found['ticks'] if value}) == 1


@pytest.mark.parametrize(
    'values, unit, ticks',
    [
        ([0.22, 0.61], 's', ['200 ms', '300 ms', '400 ms', '500 ms', '600 ms']),
        ([1.58e6, 2.51e6], '', ['1.5 M', '2 M', '2.5 M']),
        ([2e-3, 2e-2 + 1e-3], 's', ['2 ms', '5 ms', '10 ms', '20 ms']),
        ([30.0, 3000.0], 's', ['50 s', '2 min', '5 min', '10 min', '20 min', '50 min']),
    ],
)
def test_ticks_are_those_that_a_person_would_write(values, unit, ticks):
    assert [text for _, text in axes.axis(values, unit)['ticks']] == ticks


def test_score_ticks_have_their_unit_and_differences_their_sign():
    assert [text for _, text in axes.scores(95.6, 99.2, '%')] == ['96 %', '97 %', '98 %', '99 %']
    assert [text for _, text in axes.scores(-2.1, 1.2, 'points', sign=True)] == ['−2 points', '−1 points', '0', '+1 points']


def test_variants_that_share_a_program_are_at_one_cost_and_others_have_bars(tmp_path):
    workdir = fabricate.study(tmp_path / 'study', evaluations=2)
    for variant, seed in itertools.product(fabricate.EFFECTS, range(10)):
        fabricate.amend(workdir, variant, seed, key='small' if variant == 'tiny' else 'same')
    read = records.read(workdir)
    found = json.loads(records.dumps(summary.summarize(read, summary.read_evaluations(read))))
    points = {point['name']: point for point in figures.chart(found, {}, {})['points']}
    own = [variant['cost']['train_seconds'] for variant in found['variants'] if variant['name'] != 'tiny']
    same = {name: point['costs']['train_seconds'] for name, point in points.items() if name != 'tiny'}
    assert len(set(same.values())) == 1 < len(set(own)) and same['adam'] == pytest.approx(np.mean(own))
    assert all(not point['intervals'] for name, point in points.items() if name != 'tiny')
    low, high = points['tiny']['intervals']['train_seconds']
    assert low < points['tiny']['costs']['train_seconds'] < high < same['adam'] and high / low < 1.2


def test_a_variant_without_external_data_has_spent_nothing_on_them(tmp_path):
    found, drawn = chart(tmp_path, seeds=3)
    assert 'data_price' not in drawn['pareto']
    next(variant for variant in found['variants'] if variant['name'] == 'adam')['cost']['data_price'] = 20.0
    points = figures.chart(found, {}, {})['points']
    assert {point['name']: point['costs']['data_price'] for point in points} == dict.fromkeys(fabricate.EFFECTS, 0.0) | {
        'adam': 20.0
    }


def test_no_front_goes_through_the_null(tmp_path):
    _, drawn = chart(tmp_path, effects={'baseline': 0.0, 'null': 0.05, 'worst': -0.05}, seeds=4)
    points = {point['name']: point['mean'] for point in drawn['points']}
    assert points['null'] > points['baseline']
    assert [layout['front'] for layout in drawn['pareto'].values()] and all(
        'null' not in layout['front'] for layout in drawn['pareto'].values()
    )


def test_of_many_points_those_that_matter_have_names(tmp_path):
    effects = {'baseline': 0.0, 'null': 0.0} | {f'v{i}': -0.08 if i < 3 else 0.0 for i in range(13)}
    found, drawn = chart(tmp_path / 'many', effects=effects)
    verdicts = {contrast['name'] for contrast in found['contrasts'] if contrast['verdict'] in ('better', 'worse')}
    layout = drawn['pareto']['train_seconds']
    assert {'v0', 'v1', 'v2'} <= verdicts and layout['named'][0] == 'baseline'
    assert set(layout['named']) == {'baseline', *layout['front'], *verdicts} and len(layout['named']) < 9
    _, few = chart(tmp_path / 'few', seeds=3)
    assert set(few['pareto']['train_seconds']['named']) == set(fabricate.EFFECTS)


def test_an_outlier_leaves_the_axes_to_the_others(tmp_path):
    effects = {'baseline': 0.0, 'null': 0.0, 'a': 0.01, 'b': -0.01, 'c': 0.005, 'lost': -1.0}
    _, drawn = chart(tmp_path, effects=effects, seeds=4)
    means = {point['name']: point['mean'] for point in drawn['points']}
    for name, value in (('scores', means['lost']), ('spread', means['lost'] - means['baseline'])):
        low, high = drawn[name]['range']
        assert value < low and high - low < (high - value) / 2
    low, high = drawn['scores']['range']
    assert all(low < mean < high for name, mean in means.items() if name != 'lost')


def _luminance(colour):
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))


def test_colours_of_curves_stand_out_from_a_light_and_a_dark_page():
    """WCAG 2.1, 1.4.11: 3 to 1 for graphics."""
    for colour, page in itertools.product(figures.PALETTE, ('#ffffff', '#14181c')):
        light, dark = sorted((_luminance(colour), _luminance(page)), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 3, (colour, page)


def test_the_page_draws_in_its_own_colours():
    """Dark mode changes variables of CSS alone."""
    code = (CODE / 'plots.js').read_text()
    assert not re.search(r"'#[0-9a-fA-F]{3,8}'|\b(white|black)\b", code)


@pytest.mark.parametrize('spread', [0.0, 0.03, 0.3])
def test_labels_hide_neither_one_another_nor_a_point(spread):
    places = 0.5 + spread * np.random.default_rng(3).uniform(-1, 1, (10, 2))
    figure = Figure(figsize=(4, 3))
    FigureCanvasAgg(figure)
    panel = figure.add_subplot(xlim=(0, 1), ylim=(0, 1))
    drawing.label(
        panel, [(x, y, f'name_{i}', i % 2 == 0) for i, (x, y) in enumerate(places)], [tuple(place) for place in places]
    )
    figure.draw_without_rendering()
    boxes = [Text.get_window_extent(text) for text in panel.texts]
    assert len(boxes) >= 8
    for a, b in itertools.combinations(boxes, 2):
        assert min(a.x1, b.x1) - max(a.x0, b.x0) < 2 or min(a.y1, b.y1) - max(a.y0, b.y0) < 2
    for box, (x, y) in itertools.product(boxes, panel.transData.transform(places)):
        assert not (box.x0 < x < box.x1 and box.y0 < y < box.y1)


def test_the_first_of_few_labels_is_written_beside_its_point():
    figure = Figure(figsize=(4, 3))
    FigureCanvasAgg(figure)
    panel = figure.add_subplot(xlim=(0, 1), ylim=(0, 1))
    drawing.label(panel, [(0.5, 0.5, 'one', False)], [(0.5, 0.5)])
    (text,) = panel.texts
    x, y = panel.transData.transform((0.5, 0.5))
    box = text.get_window_extent()
    assert 0 < box.x0 - x < 15 and math.isclose((box.y0 + box.y1) / 2, y, abs_tol=3)
