"""Data for the plots, and the Pareto plot of quality against the cost of training and inference.

matplotlib is imported only to draw; report.html draws its plots itself, from `chart`.
"""

import base64
import io
import urllib.parse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from research import files
from research.report import tables, words
from research.report.records import BASELINE, NULL

# Okabe and Ito (2008): safe for colour-blind readers; its yellow is left out, too pale on white.
PALETTE = ('#0072B2', '#D55E00', '#009E73', '#CC79A7', '#E69F00', '#56B4E9')
_MARKERS = 'o^Dv'
_MOST_NAMES = 14
# Sample images of one run in the report, evenly spaced over training.
_MOST_GRIDS = 8
# Characters of a learning-rate curve.
_CURVE = 40
_PANELS = ('train_seconds', 'inference_flops')
_COSTS = {
    'train_seconds': 'training seconds',
    'parameters': 'parameters',
    'inference_flops': 'FLOPs an example (inference)',
    'train_flops': 'FLOPs a training step',
    'seconds_per_step': 'seconds a training step',
    'predicted_bytes': 'memory predicted (bytes)',
    'peak_growth_bytes': 'memory measured in training (bytes)',
}
_STYLE = {
    'font.size': 9,
    'axes.spines.top': False,
    'axes.spines.right': False,
    'axes.grid': True,
    'grid.color': '#e4e4e4',
    'axes.axisbelow': True,
    'pdf.fonttype': 42,
    'text.parse_math': False,
}


def chart(summary: Mapping[str, Any], bands: Mapping[str, Any], schedules: Mapping[str, Any]) -> dict[str, Any]:
    """Numbers for the plots, scores in the metric's printed unit.

    Args:
      summary: as in summary.json.
      bands: learning curves, as research.report.summary.bands gives them.
      schedules: variant -> (positions, learning rates).

    Returns:
      metric, a label; higher: is better; points: a list of {name, role, mean, low, high, costs}, bounds those of the
      baseline's mean plus the paired difference; costs: a list of {key, label}; seeds; differences: a list of {name, null,
      mean, interval, values by seed}; curves: metric -> variant -> {x, mean, spread}; validation: the metric to show first;
      rates: variant -> {x, y}; palette.
    """
    score, contrasts = tables.unit(summary), tables.against_baseline(summary)
    baseline = next(variant['mean'] for variant in summary['variants'] if variant['name'] == BASELINE)
    points = []
    for variant in summary['variants']:
        name = variant['name']
        low, high = contrasts.get(name, {}).get('interval') or (None, None)
        latency = {f'latency_{batch}': 1e3 * quantiles['p50'] for batch, quantiles in variant['latency'].items()}
        points.append(
            {
                'name': name,
                'role': name if name in (BASELINE, NULL) else 'variant',
                'mean': score.scaled(variant['mean']),
                'low': None if low is None or baseline is None else score.scaled(baseline + low),
                'high': None if high is None or baseline is None else score.scaled(baseline + high),
                'costs': {key: variant['cost'].get(key) for key in _COSTS} | latency,
            }
        )
    batches = {batch for variant in summary['variants'] for batch in variant['latency']}
    labels = _COSTS | {f'latency_{batch}': f'latency at batch {batch} (ms)' for batch in sorted(batches, key=int)}
    known = {key for point in points for key, value in point['costs'].items() if value is not None}
    return {
        'metric': score.of(summary['metric']),
        'higher': summary['higher_is_better'],
        'points': points,
        'costs': [{'key': key, 'label': label} for key, label in labels.items() if key in known],
        'seeds': summary['seeds'],
        'differences': [
            {
                'name': contrast['name'],
                'null': contrast['null'],
                'mean': score.scaled(contrast['difference']),
                'interval': contrast['interval'] and [score.scaled(bound) for bound in contrast['interval']],
                'values': [score.scaled(value) for value in contrast['differences']],
            }
            for contrast in summary['contrasts']
        ],
        'curves': {metric: _scaled(by_variant, words.unit(metric, ())) for metric, by_variant in bands.items()},
        'validation': 'validation/' + summary['metric'].split('/', 1)[-1],
        'rates': {name: dict(zip('xy', schedule, strict=True)) for name, schedule in schedules.items()},
        'palette': PALETTE,
    }


def rates(schedules: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Each distinct learning-rate curve, as a line of block characters, and the names of the variants that use it."""
    curves: dict[str, list[str]] = {}
    for name, (positions, values) in schedules.items():
        drawn = np.interp(np.linspace(positions[0], positions[-1], _CURVE), positions, values)
        curves.setdefault(words.curve(drawn.tolist()), []).append(name)
    return [(curve, ', '.join(names)) for curve, names in curves.items()]


def samples(workdir: Path, study: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Images generated during training by the runs of the first seed.

    Returns:
      A list of {name, seed, grids} in the order of the variants, grids a list of {label, path, data}: path relative to
      `workdir`, data in base64; evenly spaced over the run if there are many. Variants without samples are left out.
    """
    drawn = []
    for name, runs in study['runs'].items():
        seed = str(study['seeds'][0])
        folder = workdir / 'runs' / runs.get(seed, '') / 'samples'
        pictures = sorted(folder.glob('*.png'), key=lambda file: (len(file.stem), file.stem)) if seed in runs else []
        picked = sorted({round(i) for i in np.linspace(0, len(pictures) - 1, min(len(pictures), _MOST_GRIDS))})
        grids = [
            {
                'label': pictures[i].stem,
                'path': urllib.parse.quote(str(pictures[i].relative_to(workdir))),
                'data': base64.b64encode(pictures[i].read_bytes()).decode(),
            }
            for i in picked
        ]
        if grids:
            drawn.append({'name': name, 'seed': seed, 'grids': grids})
    return drawn


def pareto(chart: Mapping[str, Any], workdir: Path) -> None:
    """Draws `pareto.png` and `pareto.pdf`: a panel for each of two costs, with a line through the Pareto front.

    Args:
      chart: as `chart` makes it.
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
        drawn = [pair for axes in figure.axes for pair in zip(*axes.get_legend_handles_labels(), strict=True)]
        if drawn:
            by_name = {name: handle for handle, name in drawn}
            figure.legend(by_name.values(), by_name.keys(), loc='outside right center', frameon=False)
        for suffix in ('png', 'pdf'):
            buffer = io.BytesIO()
            figure.savefig(buffer, format=suffix, dpi=160)
            files.write(workdir / f'pareto.{suffix}', buffer.getvalue())


def front(points: list[Mapping[str, Any]], cost: str, higher: bool) -> list[Mapping[str, Any]]:
    """The points that no other point beats at the same or a lower cost, sorted by cost."""
    best, kept = None, []
    sign = 1 if higher else -1
    for point in sorted(points, key=lambda p: (p['costs'][cost], -sign * p['mean'])):
        if best is None or sign * point['mean'] > best:
            best = sign * point['mean']
            kept.append(point)
    return kept


def _scaled(curves: Mapping[str, Any], score: words.Unit) -> dict[str, Any]:
    return {
        name: {'x': curve['x'], **{key: [score.scaled(value) for value in curve[key]] for key in ('mean', 'spread')}}
        for name, curve in curves.items()
    }


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
        label = point['name'][:24].lstrip('_') if named else None  # matplotlib ignores labels with a leading underscore
        axes.plot(point['costs'][cost], point['mean'], marker, color=colour, markersize=5, alpha=0.85, label=label)
