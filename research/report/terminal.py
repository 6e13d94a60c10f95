"""The table of results in a terminal: grouped and sorted as in the report, with the cause of each run that did not finish."""

from collections.abc import Iterator, Mapping
from typing import Any

from rich.text import Text

from research.report import forest_data, tables, words
from research.report.console import Column, Line, Listing
from research.report.records import NULL

_STYLES = {'better': 'green', 'worse': 'red', 'failed': 'red'}
_MESSAGE = 200


def table(summary: Mapping[str, Any]) -> Listing:
    """The baseline, the null below it, then every contrast by verdict and effect. Takes summary.json as a dict."""
    columns = [
        Column('variant'),
        Column('difference', 0),
        Column(f'{words.level(summary["alpha"])} interval', 1),
        Column('p', 3),
        Column('mean ± sd', 4),
        Column('time', 2),
        Column('its interval', 5),
        Column('parameters', 6),
    ]
    first, *others = tables.rows(summary)
    null = [tables.Row(NULL, v, tables.null(summary)) for v in summary['variants'] if v['name'] == NULL]
    lines: list[Line | Text] = []
    for row in (first, *null):
        lines += [_line(row, summary), *_causes(row, summary)]
    by_name = {row.contrast['name']: row for row in others if row.contrast}
    groups: dict[str, list[tables.Row]] = {}
    for contrast in forest_data.in_order(summary):
        groups.setdefault(forest_data.kind(contrast['verdict']), []).append(by_name[contrast['name']])
    for kind, rows in groups.items():
        notes = {_note(row, kind) for row in rows}
        shared = notes.pop() if len(notes) == 1 else ''
        lines.append(Text(forest_data.GROUPS[kind] + (f' ({shared})' if shared else ''), 'bold'))
        for row in rows:
            lines.append(_line(row, summary, '  ', _STYLES.get(kind, '')))
            if not shared and _note(row, kind):
                lines.append(Text(f'    {_note(row, kind)}', 'dim'))
            lines += _causes(row, summary)
    return Listing(columns, [*lines, Text(_caption(summary), 'dim')])


def _line(row: tables.Row, summary: Mapping[str, Any], indent: str = '', style: str = '') -> Line:
    score, spread, ratio = tables.unit(summary), row.variant.get('spread'), row.contrast.get('cost', {}).get('train_seconds')
    time, _, its_interval = words.ratio(ratio).partition(' ')
    if not row.contrast:
        time = words.duration(row.cost.get('train_seconds'))
    cells = [
        indent + row.name,
        score.difference(row.contrast.get('difference')) if row.contrast else '',
        score.span(row.contrast['interval']) if row.contrast.get('interval') else '',
        words.probability(row.contrast.get('p_value' if row.name == NULL else 'p_corrected')) if row.contrast else '',
        score.value(row.variant.get('mean')) + (f' ± {score.value(spread)}' if spread is not None else ''),
        time,
        its_interval.strip('()'),
        words.quantity(row.cost.get('parameters')),
    ]
    return Line(cells, style)


def _note(row: tables.Row, kind: str) -> str:
    """What the row's verdict says beyond the heading of its group."""
    verdict, note = row.contrast['verdict'], row.contrast['note']
    beyond = verdict if kind == 'other' else verdict.partition('(')[2].removesuffix(')') or verdict.partition(', ')[2]
    return '; '.join(filter(None, (beyond, note)))


def _causes(row: tables.Row, summary: Mapping[str, Any]) -> Iterator[Text]:
    """A line for each cause for which runs of the row's variant did not finish."""
    causes: dict[str, list[Mapping[str, Any]]] = {}
    for run in summary['unfinished']:
        if row.variant and run['variant'] == row.name:
            message = ((run['message'] or '').splitlines() or [''])[0][:_MESSAGE]
            causes.setdefault(f'{run["status"]}: {message}', []).append(run)
    for cause, runs in causes.items():
        seeds = words.seeds([run['seed'] for run in runs])
        more = f' and {len(runs) - 1} more' if len(runs) > 1 else ''
        yield Text(f'    {"seeds" if more else "seed"} {seeds} {cause} (runs/{runs[0]["id"]}{more})', 'red')


def _caption(summary: Mapping[str, Any]) -> str:
    score, seeds, level = tables.unit(summary), len(summary['seeds']), words.level(summary['alpha'])
    timed = 'training seconds'
    if seeds == 1:
        timed += f', of one seed: {words.WARMING}'
    noise = ' null: only the data order is redrawn, which is what a change that does nothing looks like.'
    return (
        f'{score.of(summary["metric"])}, {seeds} seed{"s" * (seeds != 1)}, {level} intervals, p after Holm. '
        f"time: {timed}, × the baseline's.{noise if tables.null(summary) else ''}"
    )
