"""Records on disk -> summary.json, results.jsonl, report.md, .html, .csv, .tex, pareto.png and .pdf. Reads records only."""

import csv
import io
import json
import os
import shlex
from collections.abc import Mapping
from typing import Any

import jinja2
from markupsafe import Markup

from research.study import figures, overrides, records, words
from research.study.summary import BASELINE, COSTS, NULL, bands, read_evaluations, summarize

_COSTS = {
    'train_seconds': 'training seconds', 'parameters': 'parameters', 'inference_flops': 'FLOPs an example (inference)',
    'train_flops': 'FLOPs a training step', 'seconds_per_step': 'seconds a training step', 'predicted_bytes': 'memory predicted (bytes)',
    'peak_bytes': 'memory at its peak (bytes)',
}
_TEMPLATES = {
    'html': {'autoescape': True},
    'md': {'finalize': words.markdown},
    'tex': {'finalize': words.latex, 'variable_start_string': '<<', 'variable_end_string': '>>', 'block_start_string': '<%',
            'block_end_string': '%>', 'comment_start_string': '<#', 'comment_end_string': '#>'},
}


def write(workdir: str | os.PathLike[str]) -> dict[str, Any]:
    """Rebuilds every report file in `workdir` from its records and returns what summary.json holds.

    The first report also enters the study's seeds into study.json as `reported_seeds`, so that later reports can count
    the seeds that were added after somebody had read one.

    Raises:
      ConfigError: there is no study in `workdir`.
    """
    read = records.read(workdir)
    curves = read_evaluations(read)
    summary = json.loads(records.dumps(summarize(read, curves)))
    records.write_results(read)
    records.write(read.workdir / 'summary.json', records.dumps(summary, indent=1))
    page = _page(read, summary, curves)
    for suffix, options in _TEMPLATES.items():
        environment = jinja2.Environment(loader=jinja2.PackageLoader('research.study', '.'), trim_blocks=True, lstrip_blocks=True,
                                         keep_trailing_newline=True, undefined=jinja2.StrictUndefined, **options)
        records.write(read.workdir / f'report.{suffix}', environment.get_template(f'report.{suffix}.jinja').render(page))
    records.write(read.workdir / 'report.csv', _csv(summary))
    figures.pareto(page['chart'], read.workdir)
    if summary['seeds'] and 'reported_seeds' not in read.study:
        records.write(read.workdir / 'study.json', json.dumps({**read.study, 'reported_seeds': read.study['seeds']}, indent=1))
    return summary


def table(summary: Mapping[str, Any]):
    """The table for a terminal of 100 columns: a rich.table.Table."""
    from rich.table import Table
    from rich.text import Text

    score = _unit(summary)
    found = Table(title=Text(words.null(_null(summary), score, summary)), title_justify='left', title_style='dim', width=100,
                  caption=Text(f'{summary["metric"]}{score.name and " in" + score.name}, {len(summary["seeds"])} seeds, '
                               f'{words.level(summary["alpha"])} intervals, p after Holm'), caption_justify='left')
    for heading in ('variant', 'mean ± sd', 'difference', 'p', 'verdict', 'params', 'time'):
        found.add_column(heading, overflow='fold')
    for name, variant, contrast in _rows(summary):
        better = (contrast or {}).get('verdict', '')
        style = 'green' if better.startswith('better') else 'red' if better.startswith(('worse', 'failed')) else ''
        found.add_row(*(Text(cell) for cell in (
            name, _mean(variant, score), _difference(contrast, score), words.probability(contrast and contrast['p_corrected']))),
            Text(_verdict(contrast), style=style), Text(words.quantity(variant and variant['cost'].get('parameters'))),
            Text(_time_ratio(contrast) if contrast else words.duration(variant and variant['cost'].get('train_seconds'))))
    return found


def _page(read: records.Records, summary: Mapping[str, Any], curves) -> dict[str, Any]:
    """Everything that the templates print, as text, and `chart`, which plots are drawn from."""
    study, score, rows = read.study, _unit(summary), _rows(summary)
    contrasts = [contrast for contrast in summary['contrasts'] if not contrast['null']]
    level, used, planned = words.level(summary['alpha']), summary['seeds'], summary['planned_seeds']
    score_name = f'{summary["metric"]}{score.name and " in" + score.name}'
    return {
        'title': summary['study'], 'question': summary['question'] or '', 'metric': score_name, 'level': level,
        'state': f'{len(used)} of {len(planned)} seeds ({words.seeds(used)}). Budget: {summary["budget"]}'
                 f'{" (" + summary["budget_note"] + ")" if summary["budget_note"] else ""}. Scored: the {summary["score"]} parameters'
                 f'{" on validation" if summary["score"] == "best" else ""}. Rules {summary["rules"]}.',
        'notices': _notices(summary),
        'answers': [{'name': c['name'], 'verdict': c['verdict'], 'kind': c['verdict'].split()[0].strip(',') if c['verdict'] else '',
                     'sentence': words.answer(c, score, summary)} for c in contrasts],
        'scope': f'Differences are paired by seed, against the baseline unless the name of a contrast says otherwise; {level} intervals. '
                 f'Verdicts hold after Holm\'s correction for {len(contrasts)} contrasts.',
        'differences': {
            'headings': ['variant', 'field', 'baseline', 'here'],
            'rows': [[v['name'], key, _setting(study['config'], key), json.dumps(value)]
                     for v in summary['variants'] for key, value in v['overrides'].items()],
        },
        'config': [f'{key} = {json.dumps(value)}' for key, value in overrides.flatten(study['config']).items()],
        'null': words.null(_null(summary), score, summary),
        'quality': _quality(rows, score, summary), 'cost': _cost_table(rows, summary), 'macros': _macros(rows, score),
        'unfinished': [[u['variant'], u['seed'], u['status'], u['message'] or ''] for u in summary['unfinished']],
        'problems': [[problem['path'], problem['reason']] for problem in summary['problems']],
        'notes': [*study.get('notes', []), *_notes(summary)],
        'environment': [(key, value) for key, value in study.get('environment', {}).items()],
        'command': study.get('command', ''), 'commands': _commands(study), 'chart': _chart(summary, score, score_name, study, curves),
    }


def _unit(summary: Mapping[str, Any]) -> words.Unit:
    return words.unit(summary['metric'], [variant['spread'] for variant in summary['variants']])


def _null(summary: Mapping[str, Any]) -> Mapping[str, Any] | None:
    return next((contrast for contrast in summary['contrasts'] if contrast['null']), None)


def _rows(summary: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any] | None, Mapping[str, Any] | None]]:
    """Name, variant and contrast of each row: variants beside their difference from the baseline, then other contrasts."""
    plain = {name: c for c in summary['contrasts'] for name in c['weights'] if c['weights'] == {name: 1, BASELINE: -1}}
    rows = [(v['name'], v, plain.get(v['name'])) for v in summary['variants'] if v['name'] != NULL]
    shown = {id(contrast) for contrast in plain.values()}
    return rows + [(f'{c["name"]}: {words.weights(c["weights"])}', None, c) for c in summary['contrasts'] if id(c) not in shown]


def _mean(variant, score: words.Unit) -> str:
    if variant is None or variant['mean'] is None:
        return '–'
    return score.value(variant['mean']) + (f' ± {score.value(variant["spread"])}' if variant['spread'] is not None else '')


def _difference(contrast, score: words.Unit) -> str:
    if not contrast or contrast['difference'] is None:
        return '–'
    return f'{score.difference(contrast["difference"])} ({score.span(contrast["interval"])})'


def _verdict(contrast) -> str:
    return '–' if not contrast else contrast['verdict'] + (f' ({contrast["note"]})' if contrast['note'] else '')


def _time_ratio(contrast) -> str:
    return words.ratio(contrast['cost'].get('train_seconds')) if contrast else '–'


def _quality(rows, score: words.Unit, summary) -> dict[str, Any]:
    level = words.level(summary['alpha'])
    target = next((v['time_to_quality'].get('target') for v in summary['variants'] if v['name'] == BASELINE), None)
    return {
        'headings': ['variant', f'{summary["metric"]}, mean ± sd', f'difference{score.name and " in" + score.name} ({level} interval)',
                     'over other examples too', 'p', 'p, Holm', 'verdict', 'could have detected', 'time to quality'],
        'rows': [[
            name, _mean(variant, score), _difference(contrast, score), score.span(contrast and contrast['crossed_interval']),
            words.probability(contrast and contrast['p_value']), words.probability(contrast and contrast['p_corrected']),
            _verdict(contrast), score.value(contrast and contrast['detectable']), _time_to_quality(variant),
        ] for name, variant, contrast in rows],
        'caption': f'Means over {len(summary["seeds"])} seeds. p: exact sign-flip test over paired seeds. Intervals hold over training '
                   'seeds, on this test set; the wider ones over other test examples as well. Could have detected: the true difference '
                   'that would have been called in four of five studies like this one. Time to quality: median until the '
                   f'validation score first reaches {score.value(target)}, the worst final one among the baseline\'s seeds.',
    }


def _time_to_quality(variant) -> str:
    found = variant and variant['time_to_quality']
    if not found:
        return '–'
    reached = f'{found["reached"]} of {found["n"]} reached it'
    if found['examples'] is None:
        return f'∞ ({reached})'
    return f'{words.duration(found["seconds"])}, {words.quantity(found["examples"])} examples ({reached})'


def _cost_table(rows, summary) -> dict[str, Any]:
    batches = sorted({batch for variant in summary['variants'] for batch in variant['latency']}, key=int)
    body = []
    for name, variant, contrast in rows:
        cost = variant['cost'] if variant else {}
        interval = variant and variant['train_seconds_interval']
        seconds = words.duration(cost.get('train_seconds'))
        body.append([
            name, words.quantity(cost.get('parameters')), words.quantity(cost.get('train_flops')),
            words.quantity(cost.get('train_multiply_adds')), words.quantity(cost.get('inference_flops')),
            words.quantity(cost.get('inference_multiply_adds')), words.quantity(cost.get('predicted_bytes'), 'B'),
            words.quantity(cost.get('peak_bytes'), 'B'),
            f'{seconds} ({words.duration(interval[0])} to {words.duration(interval[1])})' if interval else seconds,
            _time_ratio(contrast), words.duration(cost.get('compile_seconds')),
            *(_latency(variant and variant['latency'].get(batch)) for batch in batches)])
    return {
        'headings': ['variant', 'parameters', 'FLOPs a training step', 'multiply-adds a training step', 'FLOPs an inference',
                     'multiply-adds an inference', 'memory predicted', 'memory at its peak', 'training time', 'training time, ratio',
                     'compile time, all seeds', *(f'latency, batch {batch}' for batch in batches)],
        'rows': body,
        'caption': f'Training time without compilation, mean over seeds with {words.level(summary["alpha"])} interval; its ratio is paired '
                   'by seed. A multiply-add is two FLOPs. FLOPs are of the plain formulation; an inference is one example. '
                   'A variant that shares its program with one before it compiles nothing. Latency: median (10 to 90 % quantile).',
    }


def _latency(found) -> str:
    return f'{words.duration(found["p50"])} ({words.duration(found["p10"])} to {words.duration(found["p90"])})' if found else '–'


def _notices(summary) -> list[str]:
    used, planned = summary['seeds'], summary['planned_seeds']
    notices = []
    if len(used) < len(planned):
        notices.append(f'{len(used)} of {len(planned)} seeds have a result in every variant: the study is still going, or was stopped. '
                       'Everything below rests on these seeds alone.')
    if summary['added_seeds']:
        notices.append(f'{len(summary["added_seeds"])} seeds were added after a report was read: p-values do not account for this.')
    if summary['problems']:
        notices.append(f'{len(summary["problems"])} records were torn or foreign and count as absent; they are listed below.')
    null = _null(summary)
    if null and null['p_value'] is not None and null['p_value'] <= summary['alpha']:
        notices.append('The null variant differs from the baseline by more than chance would have it, as one in '
                       f'{1 / summary["alpha"]:.0f} does: hold every other difference to its size.')
    return notices


def _notes(summary) -> list[str]:
    notes = [f'{c["name"]}: runs paired under one seed differ in {", ".join(c["mismatch"])}.' for c in summary['contrasts'] if c['mismatch']]
    several = [f'{count} of {part}' for part, count in summary['fingerprints'].items() if count > 1]
    if several:
        notes.append(f'The runs of this study do not share one fingerprint: there are {", ".join(several)}.')
    if any(not c['exact'] for c in summary['contrasts']):
        notes.append('Above 20 seeds p-values rest on 65,536 drawn sign patterns in place of all.')
    if summary['strangers']:
        notes.append(f'{summary["strangers"]} run folders belong to no run of this study as it stands, and were left out.')
    return notes


def _setting(config: Mapping[str, Any], key: str) -> str:
    """The baseline's value of a dotted key, '–' where it has none."""
    value: Any = config
    for part in key.split('.'):
        if not isinstance(value, Mapping) or part not in value:
            return '–'
        value = value[part]
    return json.dumps(value)


def _commands(study: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The command that repeats each run alone, as the baseline of a study of one seed in a folder of its own."""
    words_of = shlex.split(study.get('command', ''))
    kept = [word for word in words_of if not word.startswith(('--workdir', '--config.study.seeds', '--report', '--plan'))]
    commands = []
    for variant, runs in study['runs'].items():
        changes = [f'--config.{key}={value if isinstance(value, str) and overrides.parse_flag(key, value) == value else repr(value)}'
                   for key, value in study['variants'][variant].items()]
        for seed, run in runs.items():
            alone = [f'--workdir=again/{run}', f'--config.study.seeds=({seed},)', '--config.study.variants={}',
                     '--config.study.contrasts={}', '--config.study.null=False']
            commands.append({'name': variant, 'seed': seed, 'id': run, 'command': shlex.join([*kept, *alone, *changes])})
    return commands


def _chart(summary, score: words.Unit, score_name: str, study, curves) -> dict[str, Any]:
    """Numbers for the plots, in the metric's printed unit."""
    scaled = lambda value: None if value is None else value * score.scale  # noqa: E731
    mean = {variant['name']: variant['mean'] for variant in summary['variants']}
    interval = {name: c['interval'] for c in summary['contrasts'] for name in c['weights'] if c['weights'] == {name: 1, BASELINE: -1}}
    points = []
    for variant in summary['variants']:
        name, costs = variant['name'], {key: variant['cost'].get(key) for key in _COSTS}
        costs |= {f'latency_{batch}': 1e3 * found['p50'] for batch, found in variant['latency'].items()}
        bounds = interval.get(name) if mean[BASELINE] is not None else None
        points.append({'name': name, 'role': name if name in (BASELINE, NULL) else 'variant', 'mean': scaled(mean[name]), 'costs': costs,
                       'low': bounds and scaled(mean[BASELINE] + bounds[0]), 'high': bounds and scaled(mean[BASELINE] + bounds[1])})
    labels = _COSTS | {f'latency_{b}': f'latency at batch {b} (ms)' for v in summary['variants'] for b in v['latency']}
    chart = {
        'metric': score_name, 'higher': summary['higher_is_better'], 'points': points,
        'costs': [{'key': key, 'label': label} for key, label in labels.items() if any(p['costs'].get(key) is not None for p in points)],
        'seeds': summary['seeds'],
        'differences': [{'name': c['name'], 'null': c['null'], 'mean': scaled(c['difference']),
                         'interval': c['interval'] and [scaled(bound) for bound in c['interval']],
                         'values': [scaled(value) for value in c['differences']]} for c in summary['contrasts']],
        'curves': {metric: _scaled(found, words.unit(metric, ()).scale) for metric, found in bands(curves).items()},
        'validation': 'validation/' + summary['metric'].split('/', 1)[-1],
        'rates': {name: dict(zip('xy', schedule, strict=True)) for name, schedule in study.get('schedules', {}).items()},
        'palette': figures.PALETTE,
    }
    return json.loads(records.dumps(chart))


def _scaled(curves: Mapping[str, Mapping[str, list[float]]], by: float) -> dict[str, dict[str, list[float]]]:
    return {name: {'x': c['x'], **{key: [by * value for value in c[key]] for key in ('mean', 'spread')}} for name, c in curves.items()}


def _macros(rows, score: words.Unit) -> list[list[dict[str, str]]]:
    """For each row its cells in report.tex, each a macro of its own: name, and the text that it stands for."""
    taken: set[str] = set()
    table_rows = []
    for name, variant, contrast in rows:
        low, high = contrast['interval'] if contrast and contrast['interval'] else (None, None)
        cost = variant['cost'] if variant else {}
        cells = {
            'Name': name, 'Mean': score.value(variant and variant['mean']), 'Spread': score.value(variant and variant['spread']),
            'Difference': score.difference(contrast and contrast['difference']), 'Low': score.difference(low),
            'High': score.difference(high), 'P': words.probability(contrast and contrast['p_value']),
            'PHolm': words.probability(contrast and contrast['p_corrected']), 'Verdict': _verdict(contrast),
            'Parameters': words.quantity(cost.get('parameters')), 'Flops': words.quantity(cost.get('train_flops')),
            'MultiplyAdds': words.quantity(cost.get('train_multiply_adds')), 'Seconds': words.duration(cost.get('train_seconds')),
            'Time': _time_ratio(contrast),
        }
        table_rows.append([{'macro': Markup('\\res' + words.macro(f'{name} {key}', taken)), 'text': text} for key, text in cells.items()])
    return table_rows


def _csv(summary) -> str:
    """One line a variant or contrast, numbers unrounded and in the units of the records."""
    lines = []
    plain = {c['name']: c for c in summary['contrasts'] if c['null']}
    null = [(v['name'], v, plain.get(NULL)) for v in summary['variants'] if v['name'] == NULL]
    for name, variant, contrast in null + _rows(summary):
        c, v = contrast or {}, variant or {'cost': {}, 'latency': {}, 'time_to_quality': {}}
        low, high = c.get('interval') or (None, None)
        crossed_low, crossed_high = c.get('crossed_interval') or (None, None)
        time = c.get('cost', {}).get('train_seconds', {})
        time_low, time_high = time.get('interval') or (None, None)
        quality = v['time_to_quality']
        lines.append({
            'name': name, 'mean': v.get('mean'), 'spread': v.get('spread'), 'difference': c.get('difference'), 'low': low, 'high': high,
            'crossed_low': crossed_low, 'crossed_high': crossed_high, 'n': c.get('n'), 'failed': c.get('failed', v.get('failed')),
            'p_value': c.get('p_value'), 'p_corrected': c.get('p_corrected'), 'verdict': c.get('verdict'), 'note': c.get('note'),
            'detectable': c.get('detectable'), **{key: v['cost'].get(key) for key in COSTS},
            'train_time_ratio': time.get('ratio'), 'train_time_ratio_low': time_low, 'train_time_ratio_high': time_high,
            'time_to_quality_examples': quality.get('examples'), 'time_to_quality_seconds': quality.get('seconds'),
            'time_to_quality_reached': quality.get('reached'),
            **{f'latency_{batch}_{q}': found.get(q) for batch, found in v['latency'].items() for q in ('p10', 'p50', 'p90')},
        })
    fields = list(dict.fromkeys(key for line in lines for key in line))
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, fields, lineterminator='\n')
    writer.writeheader()
    writer.writerows({key: words.spreadsheet(value) for key, value in line.items()} for line in lines)
    return buffer.getvalue()
