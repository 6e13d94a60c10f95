"""The Pareto picture of a study: quality against what training and inference cost. matplotlib is imported when drawn."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from research.study import records

# Okabe and Ito (2008): told apart by people who see colours differently; its yellow is too pale on white.
PALETTE = ('#0072B2', '#D55E00', '#009E73', '#CC79A7', '#E69F00', '#56B4E9')
_MARKERS = 'o^Dv'
_MOST_NAMES = 14
_PANELS = ('train_seconds', 'inference_flops')
_STYLE = {'font.size': 9, 'axes.spines.top': False, 'axes.spines.right': False, 'axes.grid': True, 'grid.color': '#e4e4e4',
          'axes.axisbelow': True, 'pdf.fonttype': 42, 'text.parse_math': False}


def pareto(chart: Mapping[str, Any], workdir: Path) -> None:
    """Draws `pareto.png` and `pareto.pdf`: a panel for each of two costs, with a line through the Pareto front.

    Args:
      chart: as research.study.report makes it: `points` of name, role, mean, low, high (in the metric's printed unit) and
        costs; `costs` that they may be drawn against, with key and label; `metric`, a label; `higher` is better.
      workdir: where to write.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    costs = [cost for cost in chart['costs'] if cost['key'] in _PANELS] or chart['costs'][:1]
    with rc_context(_STYLE):
        figure = Figure(figsize=(3.6 * max(len(costs), 1) + 1.8, 3.4), layout='constrained')
        FigureCanvasAgg(figure)
        for number, cost in enumerate(costs):
            axes = figure.add_subplot(1, len(costs), number + 1, xlabel=cost['label'], ylabel='' if number else chart['metric'])
            _panel(axes, chart, cost['key'])
        handles = {label: handle for axes in figure.axes for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
        if handles:
            figure.legend(handles.values(), handles.keys(), loc='outside right center', frameon=False)
        for suffix in ('png', 'pdf'):
            buffer = io.BytesIO()
            figure.savefig(buffer, format=suffix, dpi=160)
            records.write(workdir / f'pareto.{suffix}', buffer.getvalue())


def front(points: list[Mapping[str, Any]], cost: str, higher: bool) -> list[Mapping[str, Any]]:
    """The points that no other point beats at the same or a lower cost, by rising cost."""
    best, kept = None, []
    sign = 1 if higher else -1
    for point in sorted(points, key=lambda p: (p['costs'][cost], -sign * p['mean'])):
        if best is None or sign * point['mean'] > best:
            best = sign * point['mean']
            kept.append(point)
    return kept


def _panel(axes, chart: Mapping[str, Any], cost: str) -> None:
    from matplotlib.ticker import EngFormatter

    points = [p for p in chart['points'] if p['mean'] is not None and p['costs'].get(cost) is not None]
    best = front(points, cost, chart['higher'])
    axes.plot([p['costs'][cost] for p in best], [p['mean'] for p in best], color='#bbbbbb', linewidth=1, zorder=1)
    values = [p['costs'][cost] for p in points]
    if values and min(values) > 0 and max(values) > 20 * min(values):
        axes.set_xscale('log')
    else:
        axes.margins(x=0.1)
    axes.xaxis.set_major_formatter(EngFormatter(sep=''))
    variants = [p['name'] for p in chart['points'] if p['role'] == 'variant']
    for point in points:
        number = variants.index(point['name']) if point['role'] == 'variant' else 0
        colour = {'baseline': '#000000', 'null': '#888888'}.get(point['role'], PALETTE[number % len(PALETTE)])
        marker = 's' if point['role'] == 'baseline' else _MARKERS[number // len(PALETTE) % len(_MARKERS)]
        named = len(points) <= _MOST_NAMES or point['role'] == 'baseline' or point in best[-_MOST_NAMES:]
        if point['low'] is not None:
            axes.plot([point['costs'][cost]] * 2, [point['low'], point['high']], color=colour, linewidth=1.2, alpha=0.5)
        axes.plot(point['costs'][cost], point['mean'], marker, color=colour, markersize=5, alpha=0.85,
                  label=point['name'][:24].lstrip('_') or '?' if named else None)
