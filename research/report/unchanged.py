"""Contrasts that are 0 bit for bit: their variants trained to the same losses, scores and answers in every seed.

Equal scores may be chance, equal training losses are not. Such a contrast needs no test, and no correction counts it.
"""

import collections
import functools
import json
from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from research.config.overrides import flatten
from research.report import costs
from research.report.records import BASELINE, Records, correct, evaluations
from research.report.sign_flips import TIE
from research.report.statistics import DID_NOTHING, OTHER_COST

# Metrics; other values with a slash are observations of the steps, which a change may add without changing a number.
_SPLITS = ('train/', 'validation/', 'test/', 'fitted/')
# Costs that are the same in every run of a program, by name.
_COUNTED = {
    'parameters': 'parameters',
    'train_flops': 'FLOPs a training step',
    'inference_flops': 'FLOPs an inference',
    'predicted_bytes': 'predicted memory',
}
# Start of an override's key -> why it can leave every bit as it is.
_CAUSES = {
    'data.batch.': 'the batch size never changed',
    'data.reference_size': 'only virtual batch normalization takes a reference batch',
    'gradient.micro_batch': 'one micro-batch held the whole batch',
    'model.low_rank': 'low_rank found no layer of 65,536 weights or more that it makes smaller',
    'optimizer.weight_decay': 'the decay was lost in rounding',
    'schedule.': 'the learning rate was the same in every step',
    'train.deterministic': 'every operation was deterministic already',
    'train.matmul_precision': 'matrix products had this precision already',
    'train.memory_budget': 'the whole batch fits the budget',
}


def is_zero(workdir: Path, runs: Sequence[Sequence[Mapping[str, Any]]], weights: Sequence[float]) -> bool:
    """Whether a contrast is 0 whatever its variants are worth, because in every seed equal runs cancel.

    Args:
      runs: result.json of each variant and seed, [variants][seeds]; a run that did not finish equals none.
      weights: of the variants.
    """
    by_seed = list(zip(*runs, strict=True))
    # The results alone tell almost always, and are in memory.
    return bool(by_seed) and all(
        _cancel(map(identity, results), weights)
        for identity in (_result, functools.partial(_recorded, workdir))
        for results in by_seed
    )


def verdict(records: Records, weights: Mapping[str, float]) -> str:
    """'did nothing', or 'same numbers, other cost' if the counted costs differ; '' for a contrast that needs a test."""
    runs = [[records.results[variant][seed] for seed in records.seeds] for variant in weights]
    if not is_zero(records.workdir, runs, list(weights.values())):
        return ''
    costs_of = {variant: costs.of_variant(records, variant) for variant in weights}
    known = [key for key in _COUNTED if all(key in cost for cost in costs_of.values())]
    return DID_NOTHING if all(_cancel([costs_of[v][key] for v in weights], weights.values()) for key in known) else OTHER_COST


def idle(overrides: Mapping[str, Any], observed: Mapping[str, float]) -> list[str]:
    """What a variant asked for and never happened in any step of any seed, by what its steps observed."""
    clips = any(key.startswith('optimizer.clip.') for key in flatten(overrides))
    return ['clipping acted on 0 % of steps'] if clips and observed.get('clip/steps') == 0 else []


def sentence(contrast: Mapping[str, Any], time: str, summary: Mapping[str, Any]) -> str:
    """The result of a contrast that is 0 bit for bit.

    Args:
      time: what it cost in training time, ', for 30 % more training time' or ''.
    """
    every = f'in each of {contrast["n"]} seeds' if contrast['n'] > 1 else 'in its one seed'
    by_name = {variant['name']: variant for variant in summary['variants']}
    baseline, *others = (by_name[name] for name in sorted(contrast['weights'], key=lambda name: name != BASELINE))
    if len(others) > 1 or baseline['name'] != BASELINE:
        return f'Runs that are equal bit for bit cancel {every}, so this is 0 and no correction counts it.'
    overrides = flatten(others[0]['overrides'])
    said = ', '.join(f'{key} {value}' for key, value in overrides.items())
    text = f"Every loss, score and answer equals the baseline's bit for bit {every}, so no correction counts it. It sets {said}"
    if contrast['verdict'] == OTHER_COST:
        costs_of = [(name, others[0]['cost'].get(key), baseline['cost'].get(key)) for key, name in _COUNTED.items()]
        ratios = [f'×{mine / its:.3g} {name}' for name, mine, its in costs_of if mine and its and mine != its]
        return f'{text}: {", ".join(ratios)}{time}.'
    causes = [why for start, why in _CAUSES.items() if any(key.startswith(start) for key in overrides)]
    why = '; '.join([contrast['note']] if contrast['note'] else causes)
    return f'{text}.{f" Likely cause: {why}." if why else ""}'


def _cancel(values: Iterable[Hashable | None], weights: Iterable[float]) -> bool:
    """Whether the weights of equal values sum to 0; None equals nothing."""
    total: dict[Hashable | None, float] = collections.defaultdict(float)
    for value, weight in zip(values, weights, strict=True):
        total[value] += weight
    return None not in total and all(abs(weight) < TIE for weight in total.values())


def _result(result: Mapping[str, Any]) -> str | None:
    """The final metrics; None of a run that did not finish."""
    return json.dumps(_metrics(result['metrics']), sort_keys=True) if result['status'] == 'finished' else None


def _recorded(workdir: Path, result: Mapping[str, Any]) -> tuple[str, bytes] | None:
    """The metrics of every evaluation, and the answers where they are kept; None without a training loss."""
    lines = [_metrics(line) for line in evaluations(workdir, result['id'])]
    answers = correct(workdir, result)
    if not any('train/loss' in line for line in lines):
        return None
    return json.dumps(lines, sort_keys=True), b'' if answers is None else answers.tobytes()


def _metrics(values: Mapping[str, Any]) -> dict[str, Any]:
    """JSON keeps every bit of a float."""
    return {key: value for key, value in values.items() if key.startswith(_SPLITS) or key == 'position'}
