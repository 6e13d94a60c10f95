"""The forest plot of report.html as a picture: forest.png for a README, forest.pdf for a paper."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from research.report import drawing
from research.report.screen import Mark

# In inches: the picture, where its columns begin and end, and a character of the means and of their intervals. Where no cost
# differs, the first plot takes the room.
_WIDTH = 10.0
_NAMES, _EFFECTS, _COSTS, _RATIOS = 0.12, 2.45, (7.6, 9.3), 9.42
_MEAN, _SPAN = 0.09, 0.078
_BOTTOM = 0.72
# More rows than this are drawn closer, with ticks above them as well.
_MANY = 14


def draw(forest: Mapping[str, Any], chart: Mapping[str, Any], level: str, workdir: Path) -> None:
    """Draws `forest.png` (1600 pixels wide) and `forest.pdf`, every row unfolded; nothing without rows.

    Args:
      forest: as research.report.screen.forest makes it.
      chart: as research.report.figures.chart makes it.
      level: of the intervals: '95 %'.
      workdir: where to write.
    """
    groups = [group | {'rows': [*group['rows'], *group['folded']]} for group in forest['groups']]
    count = sum(len(group['rows']) for group in groups)
    if not count:
        return
    step = 0.3 if count <= _MANY else 0.235
    top = 0.58 if count <= _MANY else 0.78
    height = top + step * (count + 1.15 * len(groups)) + _BOTTOM
    cost = forest['costs'][0] if forest['costs'] else None
    marks = [row['effect'] for group in groups for row in group['rows']]
    spans = (_COSTS[0] if cost else _WIDTH) - 0.1 - _SPAN * max(len(mark.span) for mark in marks)
    effects = (_EFFECTS, spans - 0.25 - _MEAN * max(len(mark.text) for mark in marks))
    with drawing.figure(_WIDTH, height, workdir / 'forest') as figure:
        figure.set_layout_engine('none')
        canvas = figure.add_axes((0, 0, 1, 1), xlim=(0, _WIDTH), ylim=(height, 0))
        canvas.axis('off')
        panels = [(effects, forest['axis'])] + [(_COSTS, cost)] * bool(cost)
        for ends, axis in panels:
            _axis(canvas, ends, axis, top, height - _BOTTOM, above=count > _MANY)
        _heads(canvas, chart, effects, cost)
        y = top
        for group in groups:
            colour = drawing.KINDS.get(group['kind'], drawing.SOFT)
            y += step * 1.15
            canvas.text(_NAMES, y - step / 2, group['heading'], color=colour, va='center', size=11)
            for row in group['rows']:
                y += step
                middle = y - step / 2
                canvas.text(_NAMES + 0.15, middle, drawing.short(row['title']), va='center', color=drawing.INK)
                _mark(canvas, effects, row['effect'], middle, colour, row['cause'])
                if row['effect'].span:
                    _number(canvas, spans, middle, row['effect'])
                if cost:
                    ratio = row['costs'][cost['key']]
                    _mark(canvas, _COSTS, ratio, middle, colour)
                    canvas.text(_RATIOS, middle, ratio.text, va='center', color=drawing.INK)
        canvas.text(_NAMES, height - 0.15, _caption(forest, chart, level), color=drawing.SOFT, size=9, va='center')


def _axis(canvas, ends: Sequence[float], axis: Mapping[str, Any], top: float, bottom: float, above: bool) -> None:
    """The band of the null, the lines of the ticks and their texts; `axis` has places in percent."""
    if axis['band']:
        low, high = (_across(ends, at) for at in axis['band'])
        canvas.fill_between([low, high], top, bottom, color=drawing.BAND, linewidth=0)
    for tick in axis['ticks']:
        x = _across(ends, tick['at'])
        canvas.plot([x, x], [top, bottom], color=drawing.GRID, linewidth=0.8)
        for y in [bottom + 0.14] + [top - 0.12] * above:
            canvas.text(x, y, tick['text'], color=drawing.SOFT, size=9, ha='center', va='center')
    zero = _across(ends, axis['zero'])
    canvas.plot([zero, zero], [top, bottom], color=drawing.LINE, linewidth=1)


def _heads(canvas, chart: Mapping[str, Any], effects: Sequence[float], cost: Mapping[str, Any] | None) -> None:
    unit = f', in {chart["unit"]}' if chart['unit'] else ''
    canvas.text(effects[0], 0.2, f'difference of {chart["metric"]}{unit}', color=drawing.INK, va='center', size=11)
    left, right = ('worse', 'better') if chart['higher'] else ('better', 'worse')
    canvas.text(effects[0], 0.43, f'← {left}', color=drawing.SOFT, size=9, va='center')
    canvas.text(effects[1], 0.43, f'{right} →', color=drawing.SOFT, size=9, va='center', ha='right')
    if cost:
        canvas.text(_COSTS[0], 0.2, f'{cost["label"]}, ratio', color=drawing.INK, va='center', size=11)


def _mark(canvas, ends: Sequence[float], mark: Mark, y: float, colour: str, cause: str = '') -> None:
    if mark.low is not None and mark.high is not None:
        bar = [_across(ends, mark.low), _across(ends, mark.high)]
        canvas.plot(bar, [y, y], color=colour, linewidth=2.5, alpha=0.6, solid_capstyle='butt')
    for side in {*mark.cuts, mark.outside} - {''}:
        marker, x = ('<', ends[0]) if side == 'low' else ('>', ends[1])
        canvas.plot(x, y, marker, color=colour, markersize=6)
    if mark.at is not None:
        canvas.plot(_across(ends, mark.at), y, 'o', color=colour, markersize=5.5)
    elif cause:
        canvas.text(ends[0], y, cause, color=drawing.SOFT, size=9, va='center')


def _number(canvas, spans: float, y: float, mark: Mark) -> None:
    canvas.text(spans - 0.09, y, mark.text, color=drawing.INK, va='center', ha='right')
    canvas.text(spans, y, mark.span, color=drawing.SOFT, va='center', size=9)


def _caption(forest: Mapping[str, Any], chart: Mapping[str, Any], level: str) -> str:
    seeds = len(chart['seeds'])
    told = f'Mean and {level} interval over {seeds} paired seed{"s" * (seeds != 1)}.'
    if forest['axis']['band']:
        told += ' Grey band: the interval of the null variant, where only the data order was redrawn.'
    return told + (' Arrows: beyond the axis.' if any(_beyond(group) for group in forest['groups']) else '')


def _beyond(group: Mapping[str, Any]) -> bool:
    rows = itertools.chain(group['rows'], group['folded'])
    return any(mark.outside or mark.cuts for row in rows for mark in (row['effect'], *row['costs'].values()))


def _across(ends: Sequence[float], percent: float) -> float:
    left, right = ends
    return left + (right - left) * percent / 100
