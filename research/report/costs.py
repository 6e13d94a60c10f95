"""Costs of a variant, combined over its seeds, and their ratios to the baseline, paired by seed."""

import math
import numbers
from collections.abc import Mapping
from typing import Any

import numpy as np

from research.report import statistics
from research.report.records import BASELINE, Records

# How the costs of seeds are combined: sizes are equal in all seeds, compilation is paid once and shared by later seeds, memory
# must suffice for the seed that needs most; times vary, and measured memory has outliers, where a process first uses something.
COSTS = {
    'parameters': np.mean,
    'trained_parameters': np.mean,
    'padding': np.mean,
    'data_price': np.mean,
    'train_flops': np.mean,
    'train_multiply_adds': np.mean,
    'inference_flops': np.mean,
    'inference_multiply_adds': np.mean,
    'predicted_bytes': np.max,
    'peak_growth_bytes': np.median,
    'train_seconds': np.mean,
    'waited_seconds': np.mean,
    'compile_seconds': np.sum,
    'cached_seconds': np.sum,
    'evaluate_seconds': np.mean,
    'checkpoint_seconds': np.mean,
    'seconds_per_step': np.mean,
    'examples': np.mean,
    'steps': np.mean,
    'epsilon': np.max,
    'delta': np.max,
}
COUNTED = ('parameters', 'train_flops', 'inference_flops')
MEASURED = ('train_seconds', 'seconds_per_step', 'peak_growth_bytes')


def by_seed(records: Records, variant: str, key: str) -> np.ndarray:
    """One value per seed, NaN if a run did not finish or lacks the value: float64 [seeds].

    Memory of variants that share a training program is the median over them: theirs would differ by noise.
    """
    values = []
    for seed in records.seeds:
        own = records.results[variant][seed]
        pool = [own]
        if key == 'peak_growth_bytes':
            pool = [r for r in (runs[seed] for runs in records.results.values()) if _program(r) == _program(own)]
        known = [r['cost'][key] for r in pool if r['status'] == 'finished' and isinstance(r['cost'].get(key), numbers.Real)]
        values.append(np.median(known) if known and own['status'] == 'finished' else math.nan)
    return np.array(values, np.float64)


def _program(result: Mapping[str, Any]) -> str:
    return result.get('key', result['id'])


def of_variant(records: Records, variant: str) -> dict[str, Any]:
    """Cost -> one value for all seeds; costs that no finished run has are left out.

    `uncounted`, where there are such: names of operations that FLOPs leave out though they cost something.
    """
    cost: dict[str, Any] = {}
    results = [records.results[variant][seed] for seed in records.seeds]
    if names := {name for result in results for name in result['cost'].get('uncounted', ())}:
        cost['uncounted'] = sorted(names)
    for key, combine in COSTS.items():
        values = by_seed(records, variant, key)
        values = values[np.isfinite(values)]
        if values.size:
            value = float(combine(values))
            cost[key] = int(value) if value.is_integer() and not key.endswith('seconds') else value
    return cost


def ratios(records: Records, weights: Mapping[str, float], alpha: float) -> dict[str, dict[str, Any]]:
    """Cost -> {ratio, interval}: the product of the variants' costs raised to their weights, paired by seed."""
    result = {}
    for key in COUNTED + MEASURED:
        with np.errstate(divide='ignore', invalid='ignore'):
            logs = {variant: np.log(by_seed(records, variant, key)) for variant in weights}
            differences = statistics.contrast(logs, weights)
        if not differences.size or not np.isfinite(differences).all():
            continue
        compared = statistics.compare_differences(differences, alpha=alpha)
        result[key] = {'ratio': math.exp(compared.difference)}
        if key in MEASURED and compared.interval:
            result[key]['interval'] = [math.exp(bound) for bound in compared.interval]
    return result


def pooled(records: Records, alpha: float) -> dict[str, dict[str, dict[str, Any]]]:
    """Variant -> measured cost -> {value, interval} over all runs of its training program.

    Variants that share a program differ in such a cost by noise alone, so each gets the same value. `interval` is that of the
    ratio to the program of the baseline, paired by seed, times the value; None for this program itself, or a single seed.
    """
    programs = {
        variant: frozenset(_program(results[seed]) for seed in records.seeds) for variant, results in records.results.items()
    }
    result: dict[str, dict[str, dict[str, Any]]] = {variant: {} for variant in programs}
    for key in MEASURED:
        each = {variant: by_seed(records, variant, key) for variant in programs}
        known = {v: values for v, values in each.items() if values.size and np.isfinite(values).all()}
        shared = {v: np.mean([known[w] for w in known if programs[w] == programs[v]], axis=0) for v in known}
        for variant, values in shared.items():
            entry = result[variant][key] = {'value': float(COSTS[key](values)), 'interval': None}
            if BASELINE in shared and programs[variant] != programs[BASELINE] and min(*values, *shared[BASELINE]) > 0:
                logs = np.log(values / shared[BASELINE])
                bounds = interval(logs, alpha)
                entry['interval'] = bounds and [entry['value'] * math.exp(bound - logs.mean()) for bound in bounds]
    return result


def interval(values: np.ndarray, alpha: float) -> list[float] | None:
    """[low, high] of the mean of values [seeds] at 1 - alpha; None with fewer than 2 seeds or a value that is not finite."""
    if values.size < 2 or not np.isfinite(values).all():
        return None
    return list(statistics.compare_differences(values, alpha=alpha).interval)
