"""The page answers on its first screen: the forest plot's order and axes, the headline, and what stands where."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from research.report import forest_data

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
    low, high = forest_data._range(spans)
    assert low < 0 < high
    assert 2 * sum(low <= a and b <= high for a, b in spans) >= len(spans)
    ticks = forest_data.round_ticks(low, high)
    assert 0 in ticks and 2 <= len(ticks) <= 6 and all(low <= t <= high for t in ticks)


@given(st.floats(1e-6, 0.99), st.floats(1.01, 1e6))
def test_ticks_of_ratios_are_few_and_hold_1(low, high):
    ticks = forest_data.ratio_ticks(low, high)
    assert 1 in ticks and ticks == sorted(set(ticks)) and len(ticks) <= 7 and all(low <= t <= high for t in ticks)
