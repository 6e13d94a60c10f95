"""Data for the plots, and the Pareto plot of quality against the cost of training and inference.

matplotlib is imported only to draw; report.html draws its plots itself, from `chart`.
"""

import base64
import os
import urllib.parse
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from research.report import axes, drawing, forest_data, tables, words
from research.report.records import BASELINE, NULL

# Told apart by colour-blind readers as far as lightness lets them, with a contrast of 3 to white and to a dark page.
PALETTE = ('#0072B2', '#D55E00', '#00A66E', '#A03CF0', '#8C6238', '#E545DC')
# More points than this have names only where they matter.
_MOST_NAMES = 12
# Sample images of one run in the report, evenly spaced over training.
_MOST_GRIDS = 8
# Characters of a learning-rate curve.
_CURVE = 40
# How far beyond the points, as a factor, an axis follows their bars.
_BARS = 1.5
_PANELS = ('train_seconds', 'inference_flops')
# Cost -> label, unit.
_COSTS = {
    'train_seconds': ('training time', 's'),
    'parameters': ('parameters', ''),
    'inference_flops': ('FLOPs of an inference', ''),
    'train_flops': ('FLOPs of a training step', ''),
    'seconds_per_step': ('time of a training step', 's'),
    'predicted_bytes': ('memory predicted', 'B'),
    'peak_growth_bytes': ('memory measured in training', 'B'),
    'data_price': ('price of external data', ''),
}


def chart(summary: Mapping[str, Any], bands: Mapping[str, Any], schedules: Mapping[str, Any]) -> dict[str, Any]:
    """Numbers for the plots, scores in the metric's printed unit.

    Args:
      summary: as in summary.json.
      bands: learning curves, as research.report.summary.bands gives them.
      schedules: variant -> (positions, learning rates).

    Returns:
      metric, its name; unit: of its differences, '' or 'points'; higher: is better; seeds.
      points: a list of {name, role, kind, mean, low, high, costs, intervals}: kind as `forest_data.kind` has it, bounds those
        of the baseline's mean plus the paired difference, costs and intervals by key, a measured one that of the program.
      costs: a list of {key, label, unit}; pareto: key -> {range, log, ticks, front, named}, the last two lists of names;
        scores: {range, ticks, unit} of the other axis.
      differences: a list of {name, kind, null, mean, interval, values by seed}; spread: {range, ticks} of these values.
      curves: metric -> {unit, lines: variant -> {x, mean, spread}}; validation: the metric to show first; rates: variant ->
        {x, y}; palette.
    """
    score, points = tables.unit(summary), _points(summary)
    batches = {batch for variant in summary['variants'] for batch in variant['latency']}
    labels = _COSTS | {f'latency_{batch}': (f'latency, batch {batch}', 's') for batch in sorted(batches, key=int)}
    known = {key for point in points for key, value in point['costs'].items() if value is not None}
    if 'data_price' in known:
        for point in points:  # a variant without external data has spent nothing
            point['costs']['data_price'] = point['costs']['data_price'] or 0.0
    costs = [{'key': key, 'label': label, 'unit': unit} for key, (label, unit) in labels.items() if key in known]
    middle = next(point['mean'] for point in points if point['role'] == BASELINE)
    middle = np.median([0.0, *_known(point['mean'] for point in points)]) if middle is None else middle
    unit = '%' if score.name else ''
    low, high = forest_data.robust([[bound - middle for bound in _span(point)] for point in points])
    differences = [forest_data.difference(contrast, score) for contrast in summary['contrasts']]
    spread = forest_data.robust([_known([*row['values'], *(row['interval'] or ())]) for row in differences])
    # What decides may be read at the end alone, as chrF is.
    deciding = 'validation/' + summary['metric'].split('/', 1)[-1]
    return {
        'metric': summary['metric'],
        'unit': score.name.strip(),
        'higher': summary['higher_is_better'],
        'points': points,
        'costs': costs,
        'pareto': {cost['key']: _pareto(points, cost, summary['higher_is_better']) for cost in costs},
        'scores': {
            'range': [middle + low, middle + high],
            'ticks': axes.scores(middle + low, middle + high, unit),
            'unit': unit,
        },
        'seeds': summary['seeds'],
        'differences': differences,
        'spread': {'range': list(spread), 'ticks': axes.scores(*spread, score.name.strip(), sign=True)},
        'curves': {metric: _curves(by_variant, words.unit(metric, ())) for metric, by_variant in bands.items()},
        'validation': next((metric for metric in (deciding, 'validation/loss') if metric in bands), deciding),
        'rates': {name: dict(zip('xy', schedule, strict=True)) for name, schedule in schedules.items()},
        'palette': PALETTE,
    }


def _points(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    score, contrasts = tables.unit(summary), tables.against_baseline(summary)
    baseline = next(variant['mean'] for variant in summary['variants'] if variant['name'] == BASELINE)
    points = []
    for variant in summary['variants']:
        name = variant['name']
        contrast = contrasts.get(name, {})
        low, high = contrast.get('interval') or (None, None)
        pooled = {key: entry['value'] for key, entry in variant['pooled'].items()}
        latency = {f'latency_{batch}': quantiles['p50'] for batch, quantiles in variant['latency'].items()}
        points.append(
            {
                'name': name,
                'role': name if name in (BASELINE, NULL) else 'variant',
                'kind': forest_data.kind(contrast['verdict']) if contrast else 'none',
                'mean': score.scaled(variant['mean']),
                'low': None if low is None or baseline is None else score.scaled(baseline + low),
                'high': None if high is None or baseline is None else score.scaled(baseline + high),
                'costs': {key: variant['cost'].get(key) for key in _COSTS} | pooled | latency,
                'intervals': {key: entry['interval'] for key, entry in variant['pooled'].items() if entry['interval']},
            }
        )
    return points


def _pareto(points: Sequence[Mapping[str, Any]], cost: Mapping[str, Any], higher: bool) -> dict[str, Any]:
    """The axis of one cost, the front on it, and the points to be named: all, or those that matter."""
    key = cost['key']
    shown = _shown(points, key)
    if not shown:
        return {'range': [0.0, 1.0], 'log': False, 'ticks': [], 'front': [], 'named': []}
    values = [point['costs'][key] for point in shown]
    low, high = min(values) / _BARS, max(values) * _BARS
    bars = [min(max(bound, low), high) for point in shown for bound in point['intervals'].get(key, ())]
    best = [point['name'] for point in front([point for point in shown if point['role'] != NULL], key, higher)]
    few = len(shown) <= _MOST_NAMES
    first = [BASELINE, *best]
    named = [p['name'] for p in shown if few or p['name'] in first or p['kind'] in ('better', 'worse')]
    named.sort(key=lambda name: name not in first)
    return {**axes.axis([*values, *bars], cost['unit']), 'front': best, 'named': named}


def _known(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _span(point: Mapping[str, Any]) -> list[float]:
    return _known(point[key] for key in ('mean', 'low', 'high'))


def rates(schedules: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Each distinct learning-rate curve, as a line of block characters, and the names of the variants that use it."""
    curves: dict[str, list[str]] = {}
    for name, (positions, values) in schedules.items():
        drawn = np.interp(np.linspace(positions[0], positions[-1], _CURVE), positions, values)
        curves.setdefault(words.curve(drawn.tolist()), []).append(name)
    return [(curve, ', '.join(names)) for curve, names in curves.items()]


def samples(workdir: Path, study: Mapping[str, Any], home: Path) -> list[dict[str, Any]]:
    """Images generated during training by the runs of the first seed.

    Returns:
      A list of {name, seed, grids} in the order of the variants, grids a list of {label, path, data}: path relative to
      `home`, data in base64; evenly spaced over the run if there are many. Variants without samples are left out.
    """
    drawn = []
    for name, runs in study['runs'].items():
        seed = str(study['seeds'][0])
        folder = workdir / 'runs' / runs.get(seed, '') / 'samples'
        pictures = sorted(folder.glob('*.png'), key=lambda file: (len(file.stem), file.stem)) if seed in runs else []
        picked = sorted({round(i) for i in np.linspace(0, len(pictures) - 1, min(len(pictures), _MOST_GRIDS))})
        grids = [{'label': pictures[i].stem, **embedded(pictures[i], home)} for i in picked]
        if grids:
            drawn.append({'name': name, 'seed': seed, 'grids': grids})
    return drawn


def embedded(file: Path, home: Path) -> dict[str, str]:
    """A picture for a page: its path relative to `home`, and its data in base64."""
    return {
        'path': urllib.parse.quote(os.path.relpath(file, home)),
        'data': base64.b64encode(file.read_bytes()).decode(),
    }


def pareto(chart: Mapping[str, Any], workdir: Path) -> None:
    """Draws `pareto.png` and `pareto.pdf`: a panel for each of two costs, with a line through the Pareto front.

    Args:
      chart: as `chart` makes it.
      workdir: where to write.
    """
    costs = [cost for cost in chart['costs'] if cost['key'] in _PANELS] or chart['costs'][:1]
    with drawing.figure(4.6 * max(len(costs), 1) + 0.4, 3.6, workdir / 'pareto') as figure:
        for number, cost in enumerate(costs):
            panel = figure.add_subplot(
                1, len(costs), number + 1, xlabel=cost['label'], ylabel='' if number else chart['metric']
            )
            _panel(panel, chart, cost['key'])
        figure.draw_without_rendering()  # which settles where the panels are
        figure.set_layout_engine('none')
        for panel, cost in zip(figure.axes, costs, strict=True):
            drawing.label(panel, *_labels(chart, cost['key']))


def front(points: list[Mapping[str, Any]], cost: str, higher: bool) -> list[Mapping[str, Any]]:
    """The points that no other point beats at the same or a lower cost, sorted by cost."""
    best, kept = None, []
    sign = 1 if higher else -1
    for point in sorted(points, key=lambda p: (p['costs'][cost], -sign * p['mean'])):
        if best is None or sign * point['mean'] > best:
            best = sign * point['mean']
            kept.append(point)
    return kept


def _curves(curves: Mapping[str, Any], score: words.Unit) -> dict[str, Any]:
    lines = {
        name: {'x': curve['x'], **{key: [score.scaled(value) for value in curve[key]] for key in ('mean', 'spread')}}
        for name, curve in curves.items()
    }
    return {'unit': '%' if score.name else '', 'lines': lines}


def _panel(panel, chart: Mapping[str, Any], cost: str) -> None:
    layout, points = chart['pareto'][cost], _shown(chart['points'], cost)
    drawing.ticks(panel.xaxis, layout)
    drawing.ticks(panel.yaxis, chart['scores'])
    best = [point for name in layout['front'] for point in points if point['name'] == name]
    steps = [point['costs'][cost] for point in best], [point['mean'] for point in best]
    panel.step(*steps, where='post', color=drawing.LINE, linewidth=1.2, zorder=1)
    for point in points:
        colour = drawing.KINDS.get(point['kind'], drawing.SOFT) if point['role'] == 'variant' else drawing.INK
        x, y, outside = point['costs'][cost], *_inside(point['mean'], chart['scores']['range'])
        marker = {'low': 'v', 'high': '^'}.get(outside, 's' if point['role'] == BASELINE else 'o')
        filled = 'white' if point['role'] == NULL else colour
        panel.plot(x, y, marker, color=colour, markersize=5, markerfacecolor=filled, clip_on=False)
        if not outside and point['low'] is not None:
            panel.plot([x, x], [point['low'], point['high']], color=colour, linewidth=1.2, alpha=0.5)
        if cost in point['intervals']:
            panel.plot(point['intervals'][cost], [y, y], color=colour, linewidth=1.2, alpha=0.5)


def _labels(chart: Mapping[str, Any], cost: str) -> tuple[list[tuple[float, float, str, bool]], list[tuple[float, float]]]:
    """The labels to write, those that matter most first, and the places of all points, as `drawing.label` takes them."""
    labels, places, named = {}, [], chart['pareto'][cost]['named']
    for point in _shown(chart['points'], cost):
        y, outside = _inside(point['mean'], chart['scores']['range'])
        text = drawing.short(point['name']) + (f' {axes.label(point["mean"], chart["scores"]["unit"])}' if outside else '')
        labels[point['name']] = (point['costs'][cost], y, text, bool(outside) or cost in point['intervals'])
        places.append((point['costs'][cost], y))
    return [labels[name] for name in named], places


def _shown(points: Sequence[Mapping[str, Any]], cost: str) -> list[Mapping[str, Any]]:
    return [point for point in points if point['mean'] is not None and point['costs'].get(cost) is not None]


def _inside(value: float, shown: Sequence[float]) -> tuple[float, str]:
    """The nearest value on an axis, and where the value itself lies: '', 'low' or 'high'."""
    low, high = shown
    return (low, 'low') if value < low else (high, 'high') if value > high else (value, '')
