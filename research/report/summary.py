"""Records -> summary.json: every number of the report, and none of its sentences. All differences are paired by seed."""

import dataclasses
import math
import numbers
from collections.abc import Mapping
from typing import Any

import numpy as np

from research.report import statistics, trials, words
from research.report.records import BASELINE, NULL, Records, correct, evaluations, score

# How a variant's cost comes out of its seeds: sizes are the same in each, compilation is paid once and shared by later
# seeds, memory has to suffice for the hungriest seed, and times and the growth of memory scatter.
COSTS = {
    'parameters': np.mean,
    'train_flops': np.mean,
    'train_multiply_adds': np.mean,
    'inference_flops': np.mean,
    'inference_multiply_adds': np.mean,
    'predicted_bytes': np.max,
    'peak_bytes': np.max,
    'peak_growth_bytes': np.mean,
    'train_seconds': np.mean,
    'compile_seconds': np.sum,
    'evaluate_seconds': np.mean,
    'checkpoint_seconds': np.mean,
    'seconds_per_step': np.mean,
    'examples': np.mean,
    'steps': np.mean,
}
COUNTED = ('parameters', 'train_flops', 'inference_flops')
MEASURED = ('train_seconds', 'seconds_per_step', 'peak_growth_bytes')

Evaluations = Mapping[str, Mapping[int, list[dict[str, float]]]]


def read_evaluations(records: Records) -> Evaluations:
    """variant -> seed -> lines of metrics.jsonl, for the seeds that every variant has."""
    return {
        variant: {seed: evaluations(records.workdir, found[seed]['id']) for seed in records.seeds}
        for variant, found in records.results.items()
    }


def summarize(records: Records, curves: Evaluations) -> dict[str, Any]:
    """The summary of what is on disk: plain JSON values, with NaN and infinity still in it.

    Returns:
      study, question, metric, higher_is_better, alpha, margin, budget, budget_note, score, rules: as planned.
      seeds: those that every variant has a result for; the only ones that anything below rests on.
      planned_seeds; added_seeds: those that came in after a report was read.
      contrasts: a list of {name, weights, null, n, failed, errors, difference, interval, p_value, p_corrected, verdict, note,
        spread, detectable, descriptive, ..., crossed_interval, differences, time_to_quality, cost, mismatch}.
      variants: a list of {name, overrides, scores, mean, spread, failed, cost, observed, train_seconds_interval, latency,
        time_to_quality}.
      tuning: {points, seeds, metric, budget, read_test, variants}, the last a list of {name, space, points, chosen,
        train_seconds, compile_seconds} with a point's {values, score, runs, diverged, failed}; None where nothing was tuned.
      unfinished, stalled, problems, fingerprints, strangers: what a reader has to know about the records.
    """
    study, seeds = records.study, records.seeds
    scores = {
        variant: np.array([score(found[seed], study['metric']) for seed in seeds]) for variant, found in records.results.items()
    }
    times = _Times(records, curves)
    options = {key: study[key] for key in ('margin', 'higher_is_better', 'alpha')}
    weights = {NULL: {NULL: 1, BASELINE: -1}} if NULL in study['variants'] else {}
    weights |= study['contrasts']
    compared = {name: _compare(statistics.contrast(scores, w), options) for name, w in weights.items()}
    corrected = [name for name in weights if name != NULL]
    compared |= zip(corrected, statistics.corrected([compared[name] for name in corrected]), strict=True)
    reported = study.get('reported_seeds')
    return {
        **{
            key: study.get(key)
            for key in (
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
        },
        'seeds': seeds,
        'planned_seeds': study['seeds'],
        'added_seeds': [] if reported is None else [seed for seed in seeds if seed not in reported],
        'contrasts': [
            {
                'name': name,
                'weights': dict(w),
                'null': name == NULL,
                **dataclasses.asdict(compared[name]),
                **_failures(records, w, compared[name]),
                'differences': statistics.contrast(scores, w).tolist(),
                'crossed_interval': _crossed(records, w) if not compared[name].failed else None,
                'time_to_quality': times.compare(w),
                'cost': _cost_ratios(records, w, study['alpha']),
                'mismatch': _mismatch(records, w),
            }
            for name, w in weights.items()
        ],
        'variants': [
            {
                'name': variant,
                'overrides': study['variants'][variant],
                'scores': scores[variant].tolist(),
                **_moments(scores[variant]),
                'cost': _cost(records, variant),
                'observed': _observed(records, variant),
                'train_seconds_interval': _interval(_costs(records, variant, 'train_seconds'), study['alpha']),
                'latency': records.latency.get(variant, {}),
                'time_to_quality': times.median(variant),
            }
            for variant in study['variants']
        ],
        'tuning': trials.summarize(records),
        'unfinished': [
            {'variant': variant, 'seed': seed, **{key: result.get(key) for key in ('status', 'message', 'diverged')}}
            for variant, found in records.results.items()
            for seed, result in found.items()
            if result['status'] != 'finished'
        ],
        'stalled': [
            {'variant': variant, 'seed': seed, 'message': result['message']}
            for variant, found in records.results.items()
            for seed, result in found.items()
            if result['status'] == 'finished' and (result.get('message') or '').startswith('stalled')
        ],
        'problems': records.problems,
        'fingerprints': _fingerprints(records),
        'strangers': records.strangers,
    }


def bands(curves: Evaluations) -> dict[str, dict[str, dict[str, list[float]]]]:
    """metric -> variant -> {x: positions, mean, spread}: over the seeds, at the positions that every seed reached."""
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


class _Times:
    """Time to quality on validation, in examples and in training seconds; a run that did not finish is a miss."""

    def __init__(self, records: Records, curves: Evaluations):
        self.alpha, self.higher = records.study['alpha'], records.study['higher_is_better']
        self.metric = 'validation/' + records.study['metric'].split('/', 1)[-1]
        self.curves = {
            (unit, variant): [self._curve(lines, unit, records.results[variant][seed]) for seed, lines in runs.items()]
            for variant, runs in curves.items()
            for unit in ('position', 'train_seconds')
        }
        baseline = self.curves['position', BASELINE]
        self.target = statistics.target(baseline, self.higher) if baseline else math.nan

    def _curve(self, lines, unit, result):
        points = [(line[unit], line[self.metric]) for line in lines if unit in line and line.get(self.metric) is not None]
        return np.array(points if points and result['status'] == 'finished' else [(0, math.nan)], np.float64)

    def _reached(self, unit, variant):
        return np.array([statistics.time_to_quality(curve, self.target, self.higher) for curve in self.curves[unit, variant]])

    def median(self, variant: str) -> dict[str, Any]:
        examples, seconds = self._reached('position', variant), self._reached('train_seconds', variant)
        if not examples.size:
            return {}
        return {
            'metric': self.metric,
            'target': self.target,
            'n': examples.size,
            'reached': int(np.isfinite(examples).sum()),
            'examples': float(np.median(examples)),
            'seconds': float(np.median(seconds)),
        }

    def compare(self, weights: Mapping[str, float]) -> dict[str, Any]:
        """Of one variant against another; other contrasts have no time to quality."""
        if sorted(weights.values()) != [-1, 1] or not self.curves['position', BASELINE]:
            return {}
        variant, reference = sorted(weights, key=weights.get, reverse=True)
        compared = {
            name: dataclasses.asdict(
                statistics.compare_times(self._reached(unit, reference), self._reached(unit, variant), self.alpha)
            )
            for name, unit in (('examples', 'position'), ('seconds', 'train_seconds'))
        }
        return {'metric': self.metric, 'target': self.target, **compared}


def _compare(differences: np.ndarray, options: Mapping[str, Any]) -> statistics.Comparison:
    if differences.size:
        return statistics.compare_differences(differences, **options)
    return statistics.Comparison(0, 0, descriptive=True, verdict='too few seeds', **options)


def _failures(records: Records, weights: Mapping[str, float], compared: statistics.Comparison) -> dict[str, Any]:
    """`errors`: seeds in which a run of the contrast ended in an error, the rest of `failed` diverged; and the verdict."""
    errors = sum(any(records.results[v][seed]['status'] == 'failed' for v in weights) for seed in records.seeds)
    verdict = words.failure(compared.n, compared.failed - errors, errors) if errors else compared.verdict
    return {'errors': errors, 'verdict': verdict}


def _moments(scores: np.ndarray) -> dict[str, Any]:
    failed = int(np.sum(~np.isfinite(scores)))
    whole = scores.size and not failed
    return {
        'mean': float(scores.mean()) if whole else None,
        'failed': failed,
        'spread': float(scores.std(ddof=1)) if whole and scores.size > 1 else None,
    }


def _costs(records: Records, variant: str, key: str) -> np.ndarray:
    """One value a seed, NaN where a run did not finish or has no such number: float64 [seeds]."""
    found = [records.results[variant][seed] for seed in records.seeds]
    values = [_with_growth(r['cost']).get(key) if r['status'] == 'finished' else None for r in found]
    return np.array([value if isinstance(value, numbers.Real) else math.nan for value in values], np.float64)


def _with_growth(cost: Mapping[str, Any]) -> Mapping[str, Any]:
    """Adds what the run itself took; a peak since the process began says nothing about it."""
    peak, before = cost.get('peak_bytes'), cost.get('peak_before_bytes')
    known = cost.get('peak_since') == 'block' and isinstance(peak, numbers.Real) and isinstance(before, numbers.Real)
    return {**cost, 'peak_growth_bytes': peak - before} if known else cost


def _cost(records: Records, variant: str) -> dict[str, float | int]:
    cost = {}
    for key, combine in COSTS.items():
        values = _costs(records, variant, key)
        values = values[np.isfinite(values)]
        if values.size:
            value = float(combine(values))
            cost[key] = int(value) if value.is_integer() and not key.endswith('seconds') else value
    return cost


def _observed(records: Records, variant: str) -> dict[str, float]:
    """What steps observed, as means over the seeds that finished; only what every one of them has."""
    found = [records.results[variant][seed] for seed in records.seeds]
    found = [result.get('observed') or {} for result in found if result['status'] == 'finished']
    keys = [key for key in found[0] if all(key in observed for observed in found)] if found else []
    return {key: float(np.mean([math.nan if o[key] is None else o[key] for o in found])) for key in keys}


def _cost_ratios(records: Records, weights: Mapping[str, float], alpha: float) -> dict[str, dict[str, Any]]:
    """Cost -> {ratio, interval}: the product of the variants' costs to the power of their weights, paired by seed."""
    ratios = {}
    for key in COUNTED + MEASURED:
        with np.errstate(divide='ignore', invalid='ignore'):
            logs = {variant: np.log(_costs(records, variant, key)) for variant in weights}
            differences = statistics.contrast(logs, weights)
        if not differences.size or not np.isfinite(differences).all():
            continue
        compared = statistics.compare_differences(differences, alpha=alpha)
        ratios[key] = {'ratio': math.exp(compared.difference)}
        if key in MEASURED and compared.interval:
            ratios[key]['interval'] = [math.exp(bound) for bound in compared.interval]
    return ratios


def _interval(values: np.ndarray, alpha: float) -> list[float] | None:
    if values.size < 2 or not np.isfinite(values).all():
        return None
    return list(statistics.compare_differences(values, alpha=alpha).interval)


def _crossed(records: Records, weights: Mapping[str, float]) -> list[float] | None:
    """The interval over seeds and test examples; None where correctness was not kept or is not what decides."""
    if records.study['metric'] != 'test/accuracy' or len(records.seeds) < 2:
        return None
    hits = {
        variant: [correct(records.workdir, records.results[variant][seed]) for seed in records.seeds] for variant in weights
    }
    rows = [row for found in hits.values() for row in found]
    if any(row is None for row in rows) or len({row.size for row in rows}) > 1:
        return None
    return list(statistics.crossed_interval(statistics.contrast(hits, weights), records.study['alpha']))


def _mismatch(records: Records, weights: Mapping[str, float]) -> list[str]:
    """Parts of the fingerprint, and the judge, in which the runs of one seed differ: those pairs were not made under one sky.

    A variant may have its own data, weights to start from, and code by import path of its own; that is what it is a variant of.
    """
    differing = set()
    for seed in records.seeds:
        results = [records.results[variant][seed] for variant in weights]
        prints = [{**result['fingerprint'], 'judge': result.get('judge')} for result in results]
        differing |= {key for found in prints for key in found if any(other.get(key) != found[key] for other in prints)}
    differing -= {'fork', 'data', 'weights'}
    return sorted(differing)


def _fingerprints(records: Records) -> dict[str, int]:
    """Part of the fingerprint -> how many different values the study's runs have."""
    found = [result['fingerprint'] for runs in records.results.values() for result in runs.values()]
    return {key: len({str(f.get(key)) for f in found}) for key in sorted({key for f in found for key in f})}
