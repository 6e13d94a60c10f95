"""Records -> summary.json: all numbers of the report and none of its sentences. Differences are paired by seed."""

import dataclasses
import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from research.report import classes, conditions, costs, earlier, statistics, trials, unchanged
from research.report.records import BASELINE, HITS, NULL, Records, correct, dumps, evaluations, score
from research.report.times import Evaluations, Times

# What the summary copies from study.json.
_PLANNED = (
    'study',
    'question',
    'metric',
    'higher_is_better',
    'alpha',
    'margin',
    'budget',
    'budget_note',
    'score',
    'rules',
)


def read_evaluations(records: Records) -> Evaluations:
    """variant -> seed -> lines of metrics.jsonl, for the seeds that every variant has."""
    return {
        variant: {seed: evaluations(records.workdir, by_seed[seed]['id']) for seed in records.seeds}
        for variant, by_seed in records.results.items()
    }


def content(records: Records, curves: Evaluations) -> dict[str, Any]:
    """`summarize` as summary.json keeps it."""
    return json.loads(dumps(summarize(records, curves)))


def summarize(records: Records, curves: Evaluations) -> dict[str, Any]:
    """The summary of a study's records: plain JSON values, which may still include NaN and infinity.

    Returns:
      study, question, metric, higher_is_better, alpha, margin, budget, budget_note, score, rules: as planned.
      seeds: those for which every variant has a result; everything below uses these seeds only.
      planned_seeds; added_seeds: those that were added after a report was read.
      contrasts: a list of {name, weights, null, n, failed, errors, difference, interval, p_value, p_corrected, verdict, note,
        spread, detectable, descriptive, ..., crossed_interval, differences, time_to_quality, cost, mismatch}.
      changes: of the question after there were results, see `earlier.changes`.
      asked_before: a list of {name, weights, metric, until, gone, n, difference, p_value}: contrasts of earlier questions,
        which count in the correction if they have a p-value.
      variants: a list of {name, overrides, scores, mean, spread, failed, cost, pooled, gap, membership, observed,
        train_seconds_interval, latency, time_to_quality}; `pooled` are the measured costs of its program, see `costs.pooled`.
      tuning: {points, seeds, metric, budget, read_test, variants}, the last a list of {name, space, points, chosen,
        train_seconds, compile_seconds} with a point's {values, score, runs, diverged, failed}; None if nothing was tuned.
      classes, groups: how each fares, see `classes.summarize` and `classes.groups`; None for tasks without.
      unfinished, stalled, problems, fingerprints, elsewhere, strangers: what a reader must know about the records; where they
        were made under other conditions, see `conditions`.
    """
    study, seeds = records.study, records.seeds
    scores = {
        variant: np.array([score(by_seed[seed], study['metric']) for seed in seeds])
        for variant, by_seed in records.results.items()
    }
    times, before = Times(records, curves), earlier.contrasts(records)
    pooled = costs.pooled(records, study['alpha'])
    reported = study.get('reported_seeds')
    return {
        **{key: study.get(key) for key in _PLANNED},
        'seeds': seeds,
        'planned_seeds': study['seeds'],
        'added_seeds': [] if reported is None else [seed for seed in seeds if seed not in reported],
        'contrasts': _contrasts(records, scores, times, before),
        'changes': earlier.changes(study),
        'asked_before': [
            {**{key: value for key, value in test._asdict().items() if key != 'comparison'}, **_tested(test.comparison)}
            for test in before
        ],
        'variants': [
            {
                'name': variant,
                'overrides': study['variants'][variant],
                'scores': scores[variant].tolist(),
                **_moments(scores[variant]),
                'cost': costs.of_variant(records, variant),
                'pooled': pooled[variant],
                'gap': _gap(records, variant),
                'membership': _membership(records, variant),
                'observed': _observed(records, variant),
                'train_seconds_interval': costs.interval(costs.by_seed(records, variant, 'train_seconds'), study['alpha']),
                'latency': records.latency.get(variant, {}),
                'time_to_quality': times.median(variant),
            }
            for variant in study['variants']
        ],
        'tuning': trials.summarize(records),
        'classes': classes.summarize(records),
        'groups': classes.groups(records),
        **_not_learned(records),
        'problems': records.problems,
        'fingerprints': conditions.fingerprints(records),
        'elsewhere': conditions.elsewhere(records),
        'strangers': records.strangers,
    }


def _contrasts(
    records: Records, scores: Mapping[str, np.ndarray], times: Times, before: list[earlier.Earlier]
) -> list[dict[str, Any]]:
    """The null contrast first, uncorrected; then those of the study, corrected together with what was asked before."""
    study = records.study
    options = {key: study[key] for key in ('margin', 'higher_is_better', 'alpha')}
    weights = {NULL: {NULL: 1, BASELINE: -1}} if NULL in study['variants'] else {}
    weights |= study['contrasts']
    compared = {
        name: _compare(
            statistics.contrast(scores, w), options | {'step': _step(records, w), 'unchanged': unchanged.verdict(records, w)}
        )
        for name, w in weights.items()
    }
    corrected = [name for name in weights if name != NULL]
    family = [*(compared[name] for name in corrected), *(test.comparison for test in before)]
    compared |= zip(corrected, statistics.corrected(family)[: len(corrected)], strict=True)
    return [
        {
            'name': name,
            'weights': dict(w),
            'null': name == NULL,
            **dataclasses.asdict(compared[name]),
            **_failures(records, w, compared[name]),
            'note': '; '.join(filter(None, [compared[name].note, *([] if compared[name].failed else _idle(records, w))])),
            'differences': statistics.contrast(scores, w).tolist(),
            'crossed_interval': _crossed(records, w) if not compared[name].failed else None,
            'time_to_quality': times.compare(w),
            'cost': costs.ratios(records, w, study['alpha']),
            'mismatch': conditions.mismatch(records, w),
        }
        for name, w in weights.items()
    ]


def _not_learned(records: Records) -> dict[str, list[dict[str, Any]]]:
    """`unfinished`: runs that diverged or failed; `stalled`: runs that finished without learning."""
    runs = [(variant, seed, result) for variant, by_seed in records.results.items() for seed, result in by_seed.items()]
    return {
        'unfinished': [
            {'variant': variant, 'seed': seed, **{key: result.get(key) for key in ('id', 'status', 'message', 'diverged')}}
            for variant, seed, result in runs
            if result['status'] != 'finished'
        ],
        'stalled': [
            {'variant': variant, 'seed': seed, 'message': result['message']}
            for variant, seed, result in runs
            if result['status'] == 'finished' and (result.get('message') or '').startswith('stalled')
        ],
    }


def bands(curves: Evaluations) -> dict[str, dict[str, dict[str, list[float]]]]:
    """metric -> variant -> {x: positions, mean, spread}: over the seeds, at the positions that all seeds reached."""
    result: dict[str, dict[str, dict[str, list[float]]]] = {}
    for variant, runs in curves.items():
        by_seed = [{line['position']: line for line in lines} for lines in runs.values()]
        shared = sorted(set.intersection(*map(set, by_seed))) if by_seed else []
        keys = by_seed[0][shared[0]] if shared else ()
        for key in keys:
            if '/' not in key:
                continue
            values = np.array([[lines[position].get(key, math.nan) for position in shared] for lines in by_seed], np.float64)
            result.setdefault(key, {})[variant] = {
                'x': shared,
                'mean': values.mean(0).tolist(),
                'spread': (values.std(0, ddof=1) if len(by_seed) > 1 else np.zeros(len(shared))).tolist(),
            }
    return result


def _compare(differences: np.ndarray, options: Mapping[str, Any]) -> statistics.Comparison:
    if differences.size:
        return statistics.compare_differences(differences, **options)
    return statistics.Comparison(0, 0, descriptive=True, verdict='too few seeds', **options)


def _tested(comparison: statistics.Comparison) -> dict[str, Any]:
    return {key: getattr(comparison, key) for key in ('n', 'difference', 'p_value')}


def _step(records: Records, weights: Mapping[str, float]) -> float:
    """Distance between two possible differences of a contrast of shares of examples; 0 where the examples are not known."""
    examples = {records.results[variant][seed].get('test_examples') for variant in weights for seed in records.seeds}
    known = records.study['metric'] in HITS and len(examples) == 1 and None not in examples
    return min(map(abs, weights.values())) / examples.pop() if known else 0.0


def _failures(records: Records, weights: Mapping[str, float], compared: statistics.Comparison) -> dict[str, Any]:
    """`errors`: seeds in which a run of the contrast raised an error (the rest of `failed` diverged); and the verdict."""
    errors = sum(any(records.results[v][seed]['status'] == 'failed' for v in weights) for seed in records.seeds)
    verdict = _failed(compared.n, compared.failed - errors, errors) if errors else compared.verdict
    return {'errors': errors, 'verdict': verdict}


def _failed(n: int, diverged: int, errors: int) -> str:
    """The verdict if some of n seeds raised an error: 'failed (1 of 10 diverged, 2 ended in an error)'."""
    if not diverged:
        return f'failed ({errors} of {n} ended in an error)'
    return f'failed ({diverged} of {n} diverged, {errors} ended in an error)'


def _idle(records: Records, weights: Mapping[str, float]) -> list[str]:
    """What a variant asked for and its training steps never did; only of a contrast with the baseline."""
    variant, *others = [name for name in weights if name != BASELINE]
    return [] if others else unchanged.idle(records.study['variants'][variant], _observed(records, variant))


def _moments(scores: np.ndarray) -> dict[str, Any]:
    failed = int(np.sum(~np.isfinite(scores)))
    whole = scores.size and not failed
    return {
        'mean': float(scores.mean()) if whole else None,
        'failed': failed,
        'spread': float(scores.std(ddof=1)) if whole and scores.size > 1 else None,
    }


def _gap(records: Records, variant: str) -> dict[str, Any] | None:
    """How much better runs are on training examples than on those they are scored on; None unless every run measured it."""
    metric, sign = records.study['metric'], 1 if records.study['higher_is_better'] else -1
    fitted = f'fitted/{metric.partition("/")[2]}'
    results = [records.results[variant][seed] for seed in records.seeds]
    if not results or any(r['status'] != 'finished' or fitted not in r['metrics'] for r in results):
        return None
    gaps = np.array([sign * (r['metrics'][fitted] - r['metrics'][metric]) for r in results], np.float64)
    return {'mean': float(gaps.mean()), 'interval': costs.interval(gaps, records.study['alpha'])}


def _membership(records: Records, variant: str) -> dict[str, Any] | None:
    """How well losses tell training examples from others, see research.train.membership; None unless every run measured it."""
    results = [records.results[variant][seed] for seed in records.seeds]
    found = np.array([result['metrics'].get('fitted/membership_auc', math.nan) for result in results], np.float64)
    if not found.size or not np.isfinite(found).all():
        return None
    return {'mean': float(found.mean()), 'interval': costs.interval(found, records.study['alpha'])}


def _observed(records: Records, variant: str) -> dict[str, float]:
    """What training steps observed: means over the finished seeds, of the values that all of them have."""
    results = [records.results[variant][seed] for seed in records.seeds]
    observed = [result.get('observed') or {} for result in results if result['status'] == 'finished']
    keys = [key for key in observed[0] if all(key in values for values in observed)] if observed else []
    return {key: float(np.mean([math.nan if o[key] is None else o[key] for o in observed])) for key in keys}


def _crossed(records: Records, weights: Mapping[str, float]) -> list[float] | None:
    """The interval over seeds and test examples; None if correctness was not saved or is not the metric."""
    if records.study['metric'] not in HITS or len(records.seeds) < 2:
        return None
    hits = {
        variant: [correct(records.workdir, records.results[variant][seed]) for seed in records.seeds] for variant in weights
    }
    rows = [row for by_seed in hits.values() for row in by_seed]
    if any(row is None for row in rows) or len({row.size for row in rows}) > 1:
        return None
    return list(statistics.crossed_interval(statistics.contrast(hits, weights), records.study['alpha']))
