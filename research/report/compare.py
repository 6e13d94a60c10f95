"""Several studies of one question side by side: the same change on other data, another network, another machine."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from research.catalogue import ConfigError
from research.config import overrides
from research.report import records, tables, words
from research.report.records import BASELINE
from research.report.summary import content, read_evaluations

# Fields of a baseline that say what is compared with what, not how; those of `_ELSEWHERE` may differ without a word.
_OF_THE_STUDY = ('study.budget', 'study.score', 'study.alpha', 'study.margin')
_ELSEWHERE = ('data.path', 'data.bad_files', 'data.workers', 'data.checksum', 'data.streaming', 'train.checkpoint_every')


class Study(NamedTuple):
    """One of the studies.

    Attributes:
      name: of its folder, or the folder itself where two have the same name.
      summary: what its records come to now; changes: variant -> its overrides.
      baseline: dotted key -> value, every field of it.
    """

    name: str
    summary: Mapping[str, Any]
    changes: Mapping[str, Mapping[str, Any]]
    baseline: Mapping[str, Any]


def read(folders: Sequence[str | os.PathLike[str]]) -> list[Study]:
    """The studies in these folders; nothing is written.

    Raises:
      ConfigError: fewer than two, a folder without a study, or studies of different metrics.
    """
    paths = [Path(folder) for folder in folders]
    if len({path.resolve() for path in paths}) < max(2, len(paths)):
        raise ConfigError('frugal compare DIR DIR... sets two or more studies side by side: name a folder for each, once.')
    names = [path.resolve().name for path in paths]
    studies = [_read(path, name if names.count(name) == 1 else str(path)) for path, name in zip(paths, names, strict=True)]
    first = studies[0]
    for other in studies[1:]:
        if any(other.summary[key] != first.summary[key] for key in ('metric', 'higher_is_better')):
            raise ConfigError(
                f"'{first.name}' is decided by {first.summary['metric']}, '{other.name}' by {other.summary['metric']}: their "
                'differences have no common unit.'
            )
    return studies


def _read(path: Path, name: str) -> Study:
    found = records.read(path)
    study = found.study
    config = overrides.flatten(overrides.apply(study['config'], study['variants'].get(BASELINE, {})))
    baseline = json.loads(json.dumps(overrides.flatten(overrides.defaults()) | config))  # an older record lacks new fields
    return Study(name, content(found, read_evaluations(found)), study['variants'], baseline)


def notes(studies: Sequence[Study]) -> list[str]:
    """What a reader must know before the table: fields in which baselines differ, and names of more than one change."""
    told = []
    for key in dict.fromkeys(key for study in studies for key in study.baseline if _compared(key)):
        values = {study.name: json.dumps(study.baseline[key]) for study in studies if key in study.baseline}
        if len(set(values.values())) > 1 or len(values) < len(studies):
            told.append(f'{key}: {_by_value(values)}')
    if told:
        told = ['The baselines are not the same; each difference is from the baseline of its own study.', *told]
    for variant in _variants(studies):
        changes = {study.name: json.dumps(study.changes[variant]) for study in studies if variant in study.changes}
        if variant != BASELINE and len(set(changes.values())) > 1:
            told.append(f"'{variant}' is not the same change everywhere: {_by_value(changes)}")
    return told


def rows(studies: Sequence[Study]) -> list[dict[str, Any]]:
    """One per variant and study that has it: {variant, study, mean, spread, n, difference, interval, p_corrected, verdict,
    note}; the difference and what follows it are None for a baseline, and where a study does not ask."""
    compared = ('difference', 'interval', 'p_corrected', 'verdict', 'note')
    found = []
    for variant in _variants(studies):
        for study in studies:
            own = next((v for v in study.summary['variants'] if v['name'] == variant), None)
            if own is None:
                continue
            contrast = tables.against_baseline(study.summary).get(variant, {})
            entries = {'mean': own['mean'], 'spread': own['spread'], 'n': len(study.summary['seeds'])}
            found.append({'variant': variant, 'study': study.name, **entries, **{key: contrast.get(key) for key in compared}})
    return found


def table(studies: Sequence[Study]) -> Any:
    """`rows` for a terminal, under each variant a row a study: a rich.table.Table."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    summary = studies[0].summary
    score = words.unit(summary['metric'], [v['spread'] for study in studies for v in study.summary['variants']])
    caption = f'{score.of(summary["metric"])}. Differences are from the baseline of the same study; p after Holm in each study.'
    printed = Table(box=box.SIMPLE_HEAD, caption=Text(caption), caption_justify='left')
    for heading, whole in (('study', True), ('difference', True), ('p', True), ('verdict', False)):
        printed.add_column(heading, no_wrap=whole)
    before = None
    for row in rows(studies):
        if before != row['variant']:
            printed.add_row(Text(before := row['variant'], style='bold'))
        if row['difference'] is None:
            spread = f' ± {score.value(row["spread"])}' if row['spread'] is not None else ''
            cells = [f'{score.value(row["mean"])}{spread} over {row["n"]} seed{"s" * (row["n"] != 1)}', '', '']
        else:
            verdict = f'{row["verdict"]} ({row["note"]})' if row['note'] else row['verdict']
            difference = f'{score.difference(row["difference"])} ({score.span(row["interval"])})'
            cells = [difference, words.probability(row['p_corrected']), verdict]
        printed.add_row(*map(Text, (f'  {row["study"]}', *cells)))
    return printed


def _by_value(values: Mapping[str, str]) -> str:
    """'64 (a, b), 128 (c)' from study -> value."""
    return ', '.join(
        f'{value} ({", ".join(n for n in values if values[n] == value)})' for value in dict.fromkeys(values.values())
    )


def _variants(studies: Sequence[Study]) -> list[str]:
    return list(dict.fromkeys(variant['name'] for study in studies for variant in study.summary['variants']))


def _compared(key: str) -> bool:
    return key in _OF_THE_STUDY or not key.startswith('study.') and key not in _ELSEWHERE
