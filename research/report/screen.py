"""What report.html draws on the server: the forest plot, as text and places in percent of an axis, and tables with links."""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from research.report import axes, tables, words
from research.report.forest_data import GROUPS
from research.report.records import BASELINE

Runs = Mapping[str, Mapping[int, str]]

# So many rows stand open on the first screen of a phone. Where there are more, what shows no effect is folded, and of each
# other group the strongest rows stand.
_ROWS = 12
_LEAST = 3
# The label of a tick within so many percent of an end moves inwards.
_EDGE = 8
_QUIET = ('equivalent', 'none', 'same', 'nothing', 'few')


class Mark(NamedTuple):
    """A mean with its interval on an axis.

    Attributes:
      at, low, high: in percent of the axis, 0 to 100; None for what is unknown; `at` also if the mean is off the axis.
      cuts: the ends, of 'low' and 'high', at which the axis cuts the interval.
      outside: 'low' or 'high' if the mean is off the axis, else ''.
      text, span: the mean and the interval.
    """

    at: float | None = None
    low: float | None = None
    high: float | None = None
    cuts: tuple[str, ...] = ()
    outside: str = ''
    text: str = words.MISSING
    span: str = ''


def forest(
    summary: Mapping[str, Any], chart: Mapping[str, Any], runs: Runs, differing: Sequence[Sequence[str]]
) -> dict[str, Any]:
    """The forest plot as forest.html.jinja draws it.

    Args:
      summary: as in summary.json.
      chart: with `forest`, as research.report.forest_data makes it.
      runs: variant -> seed -> link to the folder of the run, of those with a record.
      differing: rows of (variant, field, baseline's value, value).

    Returns:
      axis: {label, unit, ticks, zero, band}; costs: a list of {key, label, ticks, zero}. Ticks are a list of {at, text}; at,
      zero and band are in percent. groups: a list of {kind, heading, rows, folded, span}, folded the rows that stand behind
      one line, span their means. compact: whether there are more rows than fit on a screen.
    """
    data, score = chart['forest'], tables.unit(summary)
    place = _linear(data['axis']['range'])
    contrasts = {contrast['name']: contrast for contrast in summary['contrasts']}
    rows = []
    for row in data['rows']:
        contrast = contrasts[row['name']]
        text, span = score.difference(contrast['difference']), score.span(contrast['interval']) if row['interval'] else ''
        rows.append(
            {
                **{key: row[key] for key in ('title', 'kind', 'verdict')},
                'cause': contrast['verdict'].partition('(')[2].rstrip(')') if contrast['failed'] else '',
                'difference': contrast['difference'],
                'sentence': words.answer(contrast, score, summary),
                'effect': _mark(place, row['mean'], row['interval'], row['outside'], text, span),
                'costs': {cost['key']: _ratio(row['costs'].get(cost['key']), cost) for cost in data['costs']},
                'seeds': _seeds(contrast, summary, runs, score),
                'settings': [line for line in differing if line[0] in contrast['weights']],
            }
        )
    band = data['null'] and [_within(place(bound)) for bound in data['null']]
    return {
        'axis': {
            **data['axis'],
            'ticks': _ticks(data['axis']['ticks'], place, place(0.0), functools.partial(axes.label, sign=True)),
            'zero': place(0.0),
            'band': band,
        },
        'costs': [
            {
                **cost,
                'band': None,
                'ticks': _ticks(cost['ticks'], _logarithmic(cost['range']), _at_1(cost), '×{:g}'.format),
                'zero': _at_1(cost),
            }
            for cost in data['costs']
        ],
        'groups': _groups(rows, score),
        'compact': len(rows) > _ROWS,
    }


def ordered(table: Mapping[str, Any], titles: Sequence[str]) -> dict[str, Any]:
    """A table whose rows with these names stand in this order, below all others."""
    places = {title: place for place, title in enumerate(titles)}
    return {**table, 'rows': sorted(table['rows'], key=lambda row: places.get(row[0], -1))}


def varying(table: Mapping[str, Any], same: bool = True) -> dict[str, Any]:
    """A table without columns that have no value, and with `same` without those that have one value in every row.

    Returns:
      headings, rows, caption, and same: a list of (heading, value) of the latter.
    """
    kept, alike = [], []
    for number, heading in enumerate(table['headings']):
        values = {row[number] for row in table['rows']} - {words.MISSING}
        if number == 0 or len(values) > 1 or values and (not same or len(table['rows']) == 1):
            kept.append(number)
        elif values:
            alike.append((heading, values.pop()))
    rows = [[row[number] for number in kept] for row in table['rows']]
    headings = [table['headings'][number] for number in kept]
    return {'headings': headings, 'rows': rows, 'caption': table['caption'], 'same': alike}


def linked(table: Mapping[str, Any], runs: Runs) -> dict[str, Any]:
    """A table of variants with a last column of links to the folders of their runs, each a {text, href}."""
    cells = [[{'text': str(seed), 'href': href} for seed, href in runs.get(row[0], {}).items()] for row in table['rows']]
    if not any(cells):
        return dict(table)
    rows = [[*row, links] for row, links in zip(table['rows'], cells, strict=True)]
    return {**table, 'headings': [*table['headings'], 'runs, by seed'], 'rows': rows}


def _groups(rows: Sequence[Mapping[str, Any]], score: words.Unit) -> list[dict[str, Any]]:
    present = [kind for kind in GROUPS if any(row['kind'] == kind for row in rows)]
    loud = [kind for kind in present if kind not in _QUIET] or present[:1]
    groups = []
    for kind in present:
        own = [row for row in rows if row['kind'] == kind]
        stand = max(_LEAST, _ROWS // len(loud)) if kind in loud else 0
        if len(rows) <= _ROWS or len(own) <= max(_LEAST, stand):
            stand = len(own)
        means = [row['difference'] for row in own[stand:] if row['difference'] is not None]
        span = score.span((min(means), max(means))) if means else ''
        groups.append({'kind': kind, 'heading': GROUPS[kind], 'rows': own[:stand], 'folded': own[stand:], 'span': span})
    return groups


def _seeds(contrast: Mapping[str, Any], summary: Mapping[str, Any], runs: Runs, score: words.Unit) -> list[dict[str, Any]]:
    """{text, links} of each seed: its difference or why it has none, and its runs but the baseline's."""
    others = [variant for variant in contrast['weights'] if variant != BASELINE]
    causes = {run['seed']: run['message'] for run in summary['unfinished'] if run['variant'] in contrast['weights']}
    named = [(variant, f' {variant}' if len(others) > 1 else '') for variant in others]
    return [
        {
            'text': causes.get(seed, 'no number') if value is None else score.difference(value),
            'links': [{'text': f'seed {seed}{name}', 'href': runs[variant][seed]} for variant, name in named],
        }
        for seed, value in zip(summary['seeds'], contrast['differences'], strict=True)
    ]


def _ratio(entry: Mapping[str, Any] | None, cost: Mapping[str, Any]) -> Mark:
    if not entry:
        return Mark()
    text, _, span = words.ratio(entry).partition(' ')
    place = _logarithmic(cost['range'])
    return _mark(place, entry['ratio'], entry['interval'], entry['outside'], text, span.strip('()'))


def _mark(
    place: Callable[[float], float], mean: float | None, interval: Sequence[float] | None, outside: str, text: str, span: str
) -> Mark:
    if mean is None:
        return Mark()
    ends = [place(bound) for bound in interval] if interval else (None, None)
    low, high = (None if end is None else _within(end) for end in ends)
    cuts = () if outside or not interval else tuple(['low'] * (ends[0] < 0) + ['high'] * (ends[1] > 100))
    return Mark(None if outside else _within(place(mean)), low, high, cuts, outside, text, span)


def _linear(shown: Sequence[float]) -> Callable[[float], float]:
    low, high = shown
    return lambda value: round(100 * (value - low) / (high - low), 2)


def _logarithmic(shown: Sequence[float]) -> Callable[[float], float]:
    place = _linear([math.log(bound) for bound in shown])
    return lambda value: place(math.log(value))


def _within(percent: float) -> float:
    return min(100.0, max(0.0, percent))


def _at_1(cost: Mapping[str, Any]) -> float:
    return _logarithmic(cost['range'])(1.0)


def _ticks(
    values: Sequence[float], place: Callable[[float], float], origin: float, text: Callable[[float], str]
) -> list[dict[str, Any]]:
    ticks, middle = [], min(range(len(values)), key=lambda number: abs(place(values[number]) - origin), default=0)
    for number, value in enumerate(values):
        at = place(value)
        edge = 'first' if at < _EDGE else 'last' if at > 100 - _EDGE else ''
        ticks.append({'at': at, 'text': text(value), 'place': f'{edge} {"minor" if (number - middle) % 2 else ""}'.strip()})
    return ticks
