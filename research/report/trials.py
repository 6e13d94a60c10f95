"""Results of tuning, from records to the report's table. No verdict uses these runs."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from research.report import words
from research.report.records import Records, score


def point_score(results: Sequence[Mapping[str, Any]], metric: str, higher: bool) -> float:
    """The score of a tuning point: the mean over its runs, the worst possible if one diverged, NaN without runs."""
    if not results:
        return math.nan
    mean = float(np.mean([score(result, metric) for result in results]))
    return mean if math.isfinite(mean) else -math.inf if higher else math.inf


def best(scores: Sequence[float], higher: bool) -> int:
    """Index of the best score, the first one if several are equal."""
    return int(np.argmax(scores) if higher else np.argmin(scores))


def summarize(records: Records) -> dict[str, Any] | None:
    """The settings and scores of each tuning point; None if the study does not tune."""
    study = records.study.get('tuning')
    if not study:
        return None
    variants = []
    for name, trials in records.trials.items():
        results = [list(by_seed.values()) for by_seed in trials]
        once = {result['id']: result['cost'] for point in results for result in point}  # points may be the same run
        variants.append(
            {
                'name': name,
                'space': study['space'][name],
                'points': [
                    {
                        'values': entry['values'],
                        'score': point_score(point, study['metric'], records.study['higher_is_better']),
                        'runs': len(point),
                        **{status: sum(result['status'] == status for result in point) for status in ('diverged', 'failed')},
                    }
                    for entry, point in zip(study['variants'][name], results, strict=True)
                ],
                'chosen': study['chosen'].get(name),
                **{key: sum(cost.get(key, 0.0) for cost in once.values()) for key in ('train_seconds', 'compile_seconds')},
            }
        )
    read = [name for trials in records.trials.values() for runs in trials for r in runs.values() for name in r['metrics']]
    return {
        **{key: study[key] for key in ('points', 'seeds', 'metric', 'budget')},
        'read_test': any(name.startswith('test/') for name in read),
        'variants': variants,
    }


def table(summary: Mapping[str, Any]) -> dict[str, Any] | None:
    """headings, rows of text and caption: each variant as written and at its best point; None without tuning."""
    tuning = summary['tuning']
    if not tuning:
        return None
    unit, number, metric = words.unit(tuning['metric'], ()), tuning['points'], tuning['metric']
    columns = {
        'variant': lambda v: v['name'],
        'space': lambda v: _space(v['space']),
        'as written': lambda v: words.settings(v['points'][0]['values']),
        unit.of(metric): lambda v: _worth(v['points'][0], unit),
        'best point': _best_point,
        f'{unit.of(metric)} there': lambda v: words.MISSING if v['chosen'] is None else _worth(v['points'][v['chosen']], unit),
        'points tried': lambda v: f'{sum(point["runs"] > 0 for point in v["points"])} of {number}',
        'of them diverged': lambda v: str(sum(point['diverged'] > 0 for point in v['points'])),
        'training time, all points': lambda v: words.duration(v['train_seconds']),
        'compile time, all points': lambda v: words.duration(v['compile_seconds']),
    }
    test = 'but its runs did read the test split' if tuning['read_test'] else 'and its runs did not read the test split'
    return {
        'headings': list(columns),
        'rows': [[cell(variant) for cell in columns.values()] for variant in tuning['variants']],
        'caption': f'{number} points a variant: the variant as it is written, and {number - 1} of one quasi-random sequence '
        f'(Halton, scrambled), the same for every variant, mapped to its space. A point is worth the mean of {metric} over '
        f'seeds {words.seeds(tuning["seeds"])} at a budget of {tuning["budget"]}, and nothing where a seed diverged. Tuning '
        f'enters no verdict, {test}: every difference below rests on the final runs alone, of seeds '
        f'{words.seeds(summary["planned_seeds"])}.',
    }


def _worth(point: Mapping[str, Any], unit: words.Unit) -> str:
    return 'diverged' if point['diverged'] else unit.value(point['score'])


def _best_point(variant: Mapping[str, Any]) -> str:
    chosen = variant['chosen']
    if not chosen:
        return words.MISSING if chosen is None else 'as written'
    return words.settings(variant['points'][chosen]['values'])


def _space(entries: Mapping[str, Sequence[Any]]) -> str:
    """{'optimizer.learning_rate': ('log', 0.001, 1)} -> 'optimizer.learning_rate 0.001 to 1 (log)'."""
    return ', '.join(f'{key} {low:g} to {high:g} ({kind})' for key, (kind, low, high) in entries.items())
