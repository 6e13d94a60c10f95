"""What a study asked so far, kept in study.json, so that a question that had results is never forgotten.

Who changes the metric, the variants or the seeds after reading results may stop where chance was kind. The report says when
that was done, and its correction counts every contrast that the folder ever asked (research.report.earlier).
"""

import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

from research.report import records
from research.report.records import BASELINE, NULL

# What steers a verdict, of study.json; `runs` also tells a change of the baseline's config, which is in no other field.
_FIELDS = ('metric', 'higher_is_better', 'alpha', 'margin', 'budget', 'score', 'seeds', 'variants', 'contrasts', 'runs')


def so_far(
    workdir: pathlib.Path, content: Mapping[str, Any], earlier: Mapping[str, Any], settled: bool
) -> list[dict[str, Any]]:
    """The questions of a workdir, oldest first; the last is the one of `content`.

    A question that is asked anew counts once, and one that had no result when it was changed is forgotten.

    Args:
      content: study.json as it is about to be written.
      earlier: study.json as it stands; {} if it is missing or damaged, and then the runs on disk tell what they can.
      settled: False while variants are still tuned, which asks nothing yet.

    Returns:
      A list of {date, metric, higher_is_better, alpha, margin, budget, score, seeds, variants, contrasts, runs}; all but the
      last also have `had`, the ids of their runs that had a result when the next question was asked; `recovered` is True in one
      that was read from runs alone.
    """
    past = earlier['asked'] if 'asked' in earlier else _before(workdir, content, earlier)
    now = {key: content[key] for key in _FIELDS}
    if not settled or (past and _same(past[-1], now)):
        return past
    for question in past[-1:]:
        had = _with_results(workdir, question)
        past = [*past[:-1], *([{**question, 'had': had}] if had else [])]
    if past and _same(past[-1], now):
        return past
    return [*past, {'date': time.strftime('%Y-%m-%d'), **now}]


def another_baseline(questions: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the last question has other runs of the baseline than the one before it at the same seeds."""
    if len(questions) < 2:
        return False
    old, new = (question['runs'].get(BASELINE, {}) for question in questions[-2:])
    return any(old[seed] != new[seed] for seed in old.keys() & new.keys())


def _same(question: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    return all(question[key] == now[key] for key in _FIELDS)


def _with_results(workdir: pathlib.Path, question: Mapping[str, Any]) -> list[str]:
    """Ids of runs that have a result, or had one when the last report was written and are gone since."""
    path = workdir / 'results.jsonl'
    reported = path.read_text() if path.exists() else ''
    ids = [run for by_seed in question['runs'].values() for run in by_seed.values()]
    return [run for run in ids if run in reported or (workdir / 'runs' / run / 'result.json').exists()]


def _before(workdir: pathlib.Path, content: Mapping[str, Any], earlier: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The question of a study.json that kept no list yet, or else what the runs on disk tell of one that is lost."""
    if all(key in earlier for key in _FIELDS):
        return [{'date': _date(workdir / 'study.json'), **{key: earlier[key] for key in _FIELDS}}]
    runs: dict[str, dict[str, str]] = {}
    found = sorted((workdir / 'runs').glob('*/result.json'), key=lambda path: path.stat().st_mtime)
    for path in found:
        result = records.derived(path, {'id': str, 'variant': str, 'seed': int, 'study': str})
        if result and result['study'] == content['study'] and 'tuning_point' not in result:
            runs.setdefault(result['variant'], {})[str(result['seed'])] = result['id']
    if BASELINE not in runs:
        return []
    return [
        {
            **{key: content[key] for key in _FIELDS},
            'date': _date(found[-1]),
            'recovered': True,
            'seeds': sorted({int(seed) for by_seed in runs.values() for seed in by_seed}),
            'variants': {name: content['variants'].get(name, {}) for name in runs},
            'contrasts': {name: {name: 1, BASELINE: -1} for name in runs if name not in (BASELINE, NULL)},
            'runs': runs,
        }
    ]


def _date(path: pathlib.Path) -> str:
    return time.strftime('%Y-%m-%d', time.localtime(path.stat().st_mtime))
