"""What the forest plot shows: rows in order, axes that an outlier cannot stretch."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from research.report import axes, costs, tables, words

# Kind of a verdict -> its heading, in the order of the plot.
GROUPS = {
    'better': 'Helps',
    'worse': 'Hurts',
    'failed': 'Failed',
    'equivalent': 'Equivalent',
    'none': 'No effect shown',
    'other': 'Other',
    'same': 'Same numbers, other cost',
    'nothing': 'Did nothing',
    'few': 'Too few seeds',
}
_STARTS = {
    'better': 'better',
    'worse': 'worse',
    'failed': 'failed',
    'equivalent': 'equivalent',
    'no effect': 'none',
    'same numbers': 'same',
    'did nothing': 'nothing',
    'too few seeds': 'few',
}
# An axis reaches this many times as far as the middle row. It is cut there if that leaves out a third of it or more.
_REACH, _WORTH = 6.0, 1.5
# Off an axis may lie so many rows, or a tenth of many: more are no outliers.
_OFF = 2
# Ratios of cost that are nearer to 1 do not say how far an axis must reach.
_NEAR = math.log(1.1)


def kind(verdict: str) -> str:
    """The group of a verdict, one of GROUPS."""
    return next((found for start, found in _STARTS.items() if verdict.startswith(start)), 'other')


def forest(summary: Mapping[str, Any], chart: Mapping[str, Any]) -> dict[str, Any]:
    """The rows and axes of the forest plot, scores in the metric's printed unit.

    Args:
      summary: as in summary.json.
      chart: `costs` and `points` as research.report.figures.chart makes them.

    Returns:
      rows: a list of {name, title, kind, null, verdict, mean, interval, outside, values, costs}, `in_order`. outside is 'low'
        or 'high' if the mean lies beyond the axis, else ''; values are by seed; costs: key -> {ratio, interval, outside},
        interval None for what is counted.
      null: [low, high] of the null variant, None if unknown, or if redrawing the data order changed nothing.
      axis: {label, unit, range, ticks}.
      costs: a list of {key, label, range, ticks} of those that differ in some row, as ratios to the baseline, on a
        logarithmic axis; the default first.
    """
    score, null = tables.unit(summary), tables.null(summary)
    low, high = (null or {}).get('interval') or (0.0, 0.0)
    band = [score.scaled(low), score.scaled(high)] if low < high else None
    rows = [_row(contrast, score, chart) for contrast in in_order(summary)]
    effects = robust([*(_span(row['mean'], row['interval']) for row in rows), band or []])
    for row in rows:
        row['outside'] = _outside(row['mean'], effects)
    shown = []
    for cost in chart['costs']:
        entries = [row['costs'][cost['key']] for row in rows if cost['key'] in row['costs']]
        if not any(abs(math.log(entry['ratio'])) > 1e-9 for entry in entries):
            continue
        spans = [[math.log(value) for value in _span(entry['ratio'], entry['interval'])] for entry in entries]
        low, high = map(math.exp, robust(spans, _NEAR))
        for entry in entries:
            entry['outside'] = _outside(entry['ratio'], (low, high))
        shown.append({**cost, 'range': [low, high], 'ticks': axes.ratio_ticks(low, high)})
    return {
        'rows': rows,
        'null': band,
        'axis': {
            'label': summary['metric'],
            'unit': score.name.strip(),
            'range': list(effects),
            'ticks': axes.round_ticks(*effects),
        },
        'costs': sorted(shown, key=lambda cost: cost['key'] != 'train_seconds'),
    }


def in_order(summary: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The contrasts but the null's, by group and in it by effect: the strongest first where there is one, else the best."""

    def place(contrast: Mapping[str, Any]) -> tuple[int, float]:
        group, difference = kind(contrast['verdict']), contrast['difference'] or 0.0
        best_first = -difference if summary['higher_is_better'] else difference
        return list(GROUPS).index(group), -best_first if group == 'worse' else best_first

    return sorted((contrast for contrast in summary['contrasts'] if not contrast['null']), key=place)


def difference(contrast: Mapping[str, Any], score: words.Unit) -> dict[str, Any]:
    """{name, kind, null, mean, interval, values by seed} of a contrast, scores in the metric's printed unit."""
    return {
        'name': contrast['name'],
        'kind': kind(contrast['verdict']),
        'null': contrast['null'],
        'mean': score.scaled(contrast['difference']),
        'interval': contrast['interval'] and [score.scaled(bound) for bound in contrast['interval']],
        'values': [score.scaled(value) for value in contrast['differences']],
    }


def _row(contrast: Mapping[str, Any], score: words.Unit, chart: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **difference(contrast, score),
        'title': tables.title(contrast),
        'verdict': contrast['verdict'],
        'costs': _costs(contrast, chart),
    }


def _costs(contrast: Mapping[str, Any], chart: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Ratios paired by seed where the summary has them; of the rest, that of the variants' values."""
    values = {point['name']: point['costs'] for point in chart['points']}
    found = {}
    for cost in chart['costs']:
        key = cost['key']
        known = [values[name].get(key) for name in contrast['weights']]
        if key in contrast['cost']:
            found[key] = {'interval': None, **contrast['cost'][key]}
        elif key not in costs.COUNTED + costs.MEASURED and all(known):
            ratio = math.prod(value**weight for value, weight in zip(known, contrast['weights'].values(), strict=True))
            found[key] = {'ratio': ratio, 'interval': None}
    return found


def _span(middle: float | None, interval: Sequence[float] | None) -> list[float]:
    return [value for value in (middle, *(interval or ())) if value is not None]


def _outside(value: float | None, shown: Sequence[float]) -> str:
    return '' if value is None else 'low' if value < shown[0] else 'high' if value > shown[1] else ''


def robust(spans: Iterable[Sequence[float]], near: float = 0.0) -> tuple[float, float]:
    """(low, high) around 0 that shows every span but those that would flatten the rest, with a margin.

    Spans within `near` of 0 do not count among the rest.
    """
    known = [span for span in spans if span]
    reach = [reached for span in known if (reached := max(map(abs, span))) > near] or [near]
    limit = max(_REACH * float(np.median(reach)), sorted(reach)[-1 - min(len(reach) - 1, max(_OFF, len(reach) // 10))])
    if max(reach) < _WORTH * limit:
        limit = max(reach)
    inside = [near, -near, *(value for span in known for value in span if abs(value) <= limit)]
    low, high = min(inside), max(inside)
    margin = 0.06 * (high - low) or 1.0
    return low - margin, high + margin
