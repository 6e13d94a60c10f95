"""Records on disk -> summary.json, results.jsonl, report.md, .html, .csv, .tex, and plots as .png and .pdf."""

import json
import os
import shlex
import urllib.parse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2

from research import files
from research.config import overrides
from research.report import (
    augmented,
    classes,
    data_cards,
    earlier,
    examples,
    figures,
    forest,
    forest_data,
    headline,
    records,
    screen,
    tables,
    training,
    trials,
    words,
)
from research.report.records import BASELINE
from research.report.summary import bands, content, read_evaluations

_TEMPLATES = {
    'html': {'autoescape': True},
    'md': {'finalize': words.markdown},
    'tex': {
        'finalize': words.latex,
        'variable_start_string': '<<',
        'variable_end_string': '>>',
        'block_start_string': '<%',
        'block_end_string': '%>',
        'comment_start_string': '<#',
        'comment_end_string': '#>',
    },
}
_ELSEWHERE = ('--workdir', '--config.study.seeds', '--report', '--plan', '--stale')


def write(
    workdir: str | os.PathLike[str], remembers: bool = True, folder: str | os.PathLike[str] | None = None
) -> dict[str, Any]:
    """Rebuilds every report file from the records in `workdir` and returns the content of summary.json.

    The first report also saves the study's seeds in study.json as `reported_seeds`, so that later reports can count the
    seeds that were added after it.

    Args:
      workdir: of the study.
      remembers: whether study.json may be written; not while a launch is at work, which writes it itself.
      folder: that the report is written into, made if missing; None = `workdir`.

    Raises:
      ConfigError: there is no study in `workdir`.
      OSError: a file cannot be written: the disk is full, or the folder is read-only.
    """
    read = records.read(workdir)
    folder = read.workdir if folder is None else Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    curves = read_evaluations(read)
    summary = content(read, curves)
    records.write_results(read, folder)
    files.write(folder / 'summary.json', records.dumps(summary, indent=1))
    chart = json.loads(records.dumps(figures.chart(summary, bands(curves), read.study.get('schedules', {}))))
    chart['forest'] = forest_data.forest(summary, chart)
    confused = classes.draw(read, summary['classes'], folder)
    page = _page(read, summary, chart, folder)
    picture = folder / f'{classes.PICTURE}.png'
    page['confusion'] = {'told': confused, **figures.embedded(picture, folder)} if confused else {}
    for suffix, options in _TEMPLATES.items():
        environment = jinja2.Environment(
            loader=jinja2.PackageLoader('research.report', '.'),
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
            **options,
        )
        files.write(folder / f'report.{suffix}', environment.get_template(f'report.{suffix}.jinja').render(page))
    files.write(folder / 'report.csv', tables.spreadsheet(summary))
    forest.draw(page['forest'], chart, page['level'], folder)
    figures.pareto(chart, folder)
    if remembers and summary['seeds'] and 'reported_seeds' not in read.study:
        study = read.study | {'reported_seeds': read.study['seeds']}
        files.write(read.workdir / 'study.json', json.dumps(study, indent=1))
    return summary


def _page(read: records.Records, summary: Mapping[str, Any], chart: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The variables of the templates, as text; `folder` is where links begin."""
    study = read.study
    baseline = overrides.apply(study['config'], study['variants'][BASELINE])  # tuning may have changed it
    score, level, warnings = tables.unit(summary), words.level(summary['alpha']), headline.warnings(summary)
    quality, cost, differing = tables.quality(summary), tables.cost(summary), _differing(study, baseline)
    titles = [row['title'] for row in chart['forest']['rows']]
    home = urllib.parse.quote(os.path.relpath(read.workdir / 'runs', folder))
    runs = {
        variant: {seed: f'{home}/{urllib.parse.quote(run["id"])}/' for seed, run in by_seed.items()}
        for variant, by_seed in read.results.items()
    }
    return {
        'chart': chart,
        'forest': screen.forest(summary, chart, runs, differing),
        'title': summary['study'],
        'question': summary['question'] or '',
        'metric': score.of(summary['metric']),
        'level': level,
        'state': _state(summary),
        'headline': headline.headline(summary),
        'warnings': '; '.join(dict.fromkeys(short for short, _ in warnings)),
        'notices': [sentence for _, sentence in warnings],
        'scope': f'Differences are paired by seed, against the baseline unless the name of a contrast says otherwise; {level} '
        f'intervals. {earlier.correction(summary)}',
        'differences': {
            'headings': ['variant', 'field', 'baseline', 'here'],
            'rows': differing,
        },
        'config': [f'{key} = {json.dumps(value)}' for key, value in overrides.flatten(baseline).items()],
        'null': words.null(tables.null(summary), score, summary),
        'quality': quality,
        'cost': cost,
        'shown': {
            'quality': screen.linked(screen.varying(screen.ordered(quality, titles), same=False), runs),
            'cost': screen.varying(screen.ordered(cost, titles)),
        },
        'data': data_cards.table(study.get('data', {})),
        'tuning': trials.table(summary),
        'observed': training.observed(summary),
        'rates': figures.rates(study.get('schedules', {})),
        'augmented': augmented.read(read.workdir, study, folder),
        'classes': classes.class_table(summary['classes']),
        'groups': classes.group_table(summary['groups']),
        'samples': figures.samples(read.workdir, study, folder),
        'examples': examples.read(read),
        'latex': tables.latex(summary),
        'unfinished': training.unfinished(summary),
        'problems': [[problem['path'], problem['reason']] for problem in summary['problems']],
        'notes': [*study.get('notes', []), *_notes(summary)],
        'environment': _environment(study, summary),
        'command': study.get('command', ''),
        'commands': commands(read.workdir, study),
    }


def _state(summary: Mapping[str, Any]) -> str:
    used, planned = summary['seeds'], summary['planned_seeds']
    note = f' ({summary["budget_note"]})' if summary['budget_note'] else ''
    scored = 'best parameters on validation' if summary['score'] == 'best' else 'last parameters'
    tuned = f' Tuned: each variant over the same {summary["tuning"]["points"]} points.' if summary['tuning'] else ''
    return (
        f'{len(used)} of {len(planned)} seeds ({words.seeds(used)}). Budget: {summary["budget"]}{note}. '
        f'Scored: the {scored}.{tuned} Rules {summary["rules"]}.'
    )


def _environment(study: Mapping[str, Any], summary: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """What the last launch had, then what runs had that differ: the most common value, and who had another."""
    rows = list(study.get('environment', {}).items())
    for key, values in summary['elsewhere'].items():
        common, *others = values
        told = [
            f'{value}: ' + ', '.join(f'{name} {words.seeds(seeds)}' for name, seeds in values[value].items())
            for value in others
        ]
        rows.append((f'{key}, by run', f'{common}; but {"; ".join(told)}'))
    return rows


def _notes(summary: Mapping[str, Any]) -> list[str]:
    notes = []
    several = [f'{count} of {part}' for part, count in summary['fingerprints'].items() if count > 1]
    if several:
        notes.append(f'The runs of this study do not share one fingerprint: there are {", ".join(several)}.')
    if not all(contrast['exact'] for contrast in summary['contrasts']):
        notes.append('Above 20 seeds p-values rest on 65,536 drawn sign patterns in place of all.')
    if summary['strangers']:
        notes.append(f'{summary["strangers"]} run folders belong to no run of this study as it stands, and were left out.')
    return notes


def _differing(study: Mapping[str, Any], baseline: Mapping[str, Any]) -> list[list[str]]:
    """(variant, field, baseline's, here) of each field that differs from `baseline`, as tuning left both."""
    tuned, rows = study['variants'][BASELINE], []
    for name, changes in study['variants'].items():
        here = {key: json.dumps(value) for key, value in changes.items()}
        if hidden := [key for key in tuned if key not in here]:  # what tuning changed in the baseline alone
            config = overrides.apply(study['config'], changes)
            here |= {key: _setting(config, key) for key in hidden}
        rows += [[name, key, _setting(baseline, key), text] for key, text in here.items() if text != _setting(baseline, key)]
    return rows


def _setting(config: Mapping[str, Any], key: str) -> str:
    """The baseline's value of a dotted key, as JSON."""
    value: Any = config
    for part in key.split('.'):
        if not isinstance(value, Mapping) or part not in value:
            return words.MISSING
        value = value[part]
    return json.dumps(value)


def commands(workdir: Path, study: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The command that repeats each run alone, as the baseline of a one-seed study in its own folder.

    A budget in seconds became a number of examples on the machine that ran it; the command uses that number.

    Returns:
      A list of {name: variant, seed, id, command}.
    """
    kept = [word for word in shlex.split(study.get('command', '')) if not word.startswith(_ELSEWHERE)]
    alone = ['--config.study.variants={}', '--config.study.contrasts={}', '--config.study.null=False']
    alone += ['--config.study.tune.points=0'] * bool(study.get('tuning'))  # the tuned values are among the changes
    repeat = []
    for variant, runs in study['runs'].items():
        changes = [f'--config.{key}={overrides.flag(key, value)}' for key, value in study['variants'][variant].items()]
        for seed, run in runs.items():
            own = [f'--workdir=again/{run}', f'--config.study.seeds=({seed},)']
            made = records.config(workdir, run)
            pinned = made['study'].get('budget') if made else None
            if pinned and pinned != study.get('budget'):
                own.append(f'--config.study.budget={pinned}')  # the last occurrence of a flag wins
            command = shlex.join([*kept, *own, *alone, *changes])
            repeat.append({'name': variant, 'seed': seed, 'id': run, 'command': command})
    return repeat
