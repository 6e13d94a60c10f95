"""The conditions under which runs were made, and where these differ within a study: told, never refused.

A result has `fingerprint` (code, versions, data), `numerics` (what else changes bits: device, instruction set, XLA flags,
cores) and `environment` (commit, packages and the like), each a flat dict; older records lack the last two.
"""

from collections.abc import Mapping
from typing import Any

from research.report.records import Records

# A variant may have its own data, initial weights and imported code.
_OWN = ('fork', 'data', 'weights')


def mismatch(records: Records, weights: Mapping[str, float]) -> dict[str, list[int]]:
    """Part of fingerprint or numerics, or the judge -> seeds whose runs differ in it, though a contrast pairs them."""
    differing: dict[str, list[int]] = {}
    for seed in records.seeds:
        conditions = [_conditions(records.results[variant][seed]) for variant in weights]
        for key in sorted(key for key in set().union(*conditions) if key.partition(' ')[0] not in _OWN):
            if len({str(one[key]) for one in conditions if key in one}) > 1:
                differing.setdefault(key, []).append(seed)
    return differing


def fingerprints(records: Records) -> dict[str, int]:
    """Part of fingerprint or numerics -> how many different values the study's runs have."""
    made = [_conditions(result) for runs in records.results.values() for result in runs.values()]
    return {key: len({str(one[key]) for one in made if key in one}) for key in sorted(set().union(*made) - {'judge'})}


def elsewhere(records: Records) -> dict[str, dict[str, dict[str, list[int]]]]:
    """Rules, or part of numerics or environment, in which runs differ -> value -> variant -> seeds, the most common first."""
    found: dict[str, dict[str, dict[str, list[int]]]] = {}
    for variant, runs in records.results.items():
        for seed, result in runs.items():
            rules = {'rules': result['rules']} if 'rules' in result else {}
            for key, value in {**rules, **result.get('environment', {}), **result.get('numerics', {})}.items():
                found.setdefault(key, {}).setdefault(str(value), {}).setdefault(variant, []).append(seed)
    return {
        key: dict(sorted(values.items(), key=lambda item: -sum(map(len, item[1].values()))))
        for key, values in found.items()
        if len(values) > 1
    }


def _conditions(result: Mapping[str, Any]) -> dict[str, Any]:
    """A part that a record of an older version lacks is not known to differ; files that one run alone executes do not."""
    flat: dict[str, Any] = {}
    for key, value in result['fingerprint'].items():
        flat |= {f'{key} {part}': one for part, one in value.items()} if isinstance(value, dict) else {key: value}
    return {**flat, **result.get('numerics', {}), 'judge': result.get('judge')}
