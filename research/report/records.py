"""A study's records on disk: reading, checking, and setting bad ones aside.

    DIR/study.json             the study: variants, seeds, contrasts, resolved config, environment, what was asked before
    DIR/runs/ID/result.json    result of one run; the source of truth, written atomically
    DIR/runs/ID/config.json    its resolved config; a budget in seconds is given there in examples
    DIR/runs/ID/metrics.jsonl  one line per evaluation
    DIR/runs/ID/correct.npy    packed bits: which test examples were classified correctly
    DIR/runs/ID/examples.json  a few texts of the test split, with what the network said
    DIR/latency.json           {run id: {batch size: {p10, p50, p90}}} of one run a variant, seconds
    DIR/results.jsonl          derived from every valid result.json, one line per run

Nothing here needs jax, so a report takes no longer than reading its files.
"""

import dataclasses
import functools
import json
import math
import numbers
import os
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from research import files
from research.catalogue import ConfigError

# Two variants that every study may have without naming them.
BASELINE, NULL = 'baseline', 'null'
# Metrics that are the mean of what `correct` reads.
HITS = ('test/accuracy', 'test/exact_match')
STATUSES = ('finished', 'diverged', 'failed')
_STUDY = {
    'study': str,
    'metric': str,
    'higher_is_better': bool,
    'alpha': float,
    'margin': float,
    'seeds': list,
    'variants': dict,
    'contrasts': dict,
    'config': dict,
    'runs': dict,
}
_RESULT = {
    'id': str,
    'variant': str,
    'seed': int,
    'study': str,
    'status': str,
    'metrics': dict,
    'cost': dict,
    'fingerprint': dict,
}
_LINE = ('id', 'variant', 'seed', 'status', 'metrics', 'cost', 'fingerprint')


class BadRecord(ValueError):
    """A record that is corrupt or belongs to another run or study; the message says why."""


@dataclasses.dataclass(frozen=True)
class Records:
    """The records of a study on disk.

    Attributes:
      workdir: the study's folder.
      study: study.json.
      results: variant -> seed -> result.json, for every planned run with a valid one.
      problems: path and reason of each record that was ignored.
      trials: variant -> point of tuning -> seed -> result.json; no verdict uses them.
      latency: variant -> batch size -> quantiles in seconds; empty if it was not measured.
      strangers: run folders of no run that the study asks or asked for.
    """

    workdir: Path
    study: dict[str, Any]
    results: dict[str, dict[int, dict[str, Any]]]
    problems: list[dict[str, str]]
    trials: dict[str, list[dict[int, dict[str, Any]]]]
    latency: dict[str, dict[str, dict[str, float]]]
    strangers: int

    @functools.cached_property
    def seeds(self) -> list[int]:
        """The planned seeds for which every variant has a result, in the study's order."""
        return [seed for seed in self.study['seeds'] if all(seed in by_seed for by_seed in self.results.values())]


def read(workdir: str | os.PathLike[str]) -> Records:
    """Reads every record of the study in `workdir`; corrupt and foreign ones are listed in `problems` and ignored.

    Raises:
      ConfigError: there is no study in `workdir`, or its study.json cannot be read.
    """
    workdir = Path(workdir)
    study = read_study(workdir)
    problems: list[dict[str, str]] = []
    owned = {run for question in study.get('asked', []) for runs in question['runs'].values() for run in runs.values()}

    def read_runs(variant: str, runs: Mapping[str, str], metric: str) -> dict[int, dict[str, Any]]:
        results = {}
        for seed, run in runs.items():
            owned.add(run)
            path = workdir / 'runs' / run / 'result.json'
            try:
                result = read_result(path, {'study': study['study'], 'metric': metric}, variant, int(seed))
            except BadRecord as bad:
                problems.append({'path': str(path.relative_to(workdir)), 'reason': str(bad)})
            else:
                if result is not None:
                    results[int(seed)] = result
        return results

    results = {variant: read_runs(variant, study['runs'].get(variant, {}), study['metric']) for variant in study['variants']}
    tuning = study.get('tuning') or {'variants': {}}
    trials = {
        variant: [read_runs(variant, entry['runs'], tuning['metric']) for entry in entries]
        for variant, entries in tuning['variants'].items()
    }
    try:
        measured = _mapping(workdir / 'latency.json', {}) or {}
    except BadRecord as bad:
        measured = {}
        problems.append({'path': 'latency.json', 'reason': str(bad)})
    owners = {variant: next((run for run in runs.values() if run in measured), None) for variant, runs in study['runs'].items()}
    latency = {variant: measured[run] for variant, run in owners.items() if run is not None}
    present = set(os.listdir(workdir / 'runs')) if (workdir / 'runs').is_dir() else set()
    return Records(workdir, study, results, problems, trials, latency, len(present - owned))


def read_study(workdir: Path) -> dict[str, Any]:
    """study.json, checked. Raises ConfigError if it is missing or corrupt."""
    path = Path(workdir) / 'study.json'
    try:
        study = _mapping(path, _STUDY)
    except BadRecord as bad:
        raise ConfigError(f'{path}: {bad}. Launch the study again; its finished runs are kept.') from bad
    if study is None:
        raise ConfigError(f'No study in {workdir}: study.json is missing. Run it first, or check --workdir.')
    return study


def read_result(path: Path, study: Mapping[str, Any], variant: str, seed: int) -> dict[str, Any] | None:
    """The result of one planned run, None if it has none yet.

    Raises:
      BadRecord: not JSON, a key missing or of the wrong type, or the result of another run or study.
    """
    result = _mapping(path, _RESULT)
    if result is None:
        return None
    expected = {'id': Path(path).parent.name, 'study': study['study'], 'variant': variant, 'seed': seed}
    for key, value in expected.items():
        if result[key] != value:
            raise BadRecord(f'foreign: its {key} is {result[key]!r}, expected {value!r}')
    if result['status'] not in STATUSES:
        raise BadRecord(f'its status is {result["status"]!r}, expected one of {", ".join(STATUSES)}')
    if result['status'] == 'finished' and not isinstance(result['metrics'].get(study['metric']), numbers.Real):
        raise BadRecord(f'it is finished but has no {study["metric"]}')
    return result


def score(result: Mapping[str, Any], metric: str) -> float:
    """The score of a run; NaN if it did not finish."""
    value = result['metrics'].get(metric) if result['status'] == 'finished' else None
    return math.nan if value is None else float(value)


def config(workdir: Path, run: str) -> dict[str, Any]:
    """config.json of one run; {} if it is missing or corrupt."""
    return derived(Path(workdir) / 'runs' / run / 'config.json', {'study': dict})


def derived(path: Path, keys: Mapping[str, type] = types.MappingProxyType({})) -> dict[str, Any]:
    """A JSON object that can be regenerated: {} if it is missing or corrupt, or lacks these keys."""
    try:
        return _mapping(path, keys) or {}
    except (BadRecord, OSError):
        return {}


def set_aside(path: Path) -> Path:
    """Renames a bad record to NAME.bad-1 (-2, ...), so that its run can be repeated; returns the new path."""
    path = Path(path)
    number = 1
    while (aside := path.with_name(f'{path.name}.bad-{number}')).exists():
        number += 1
    return path.rename(aside)


def evaluations(workdir: Path, run: str) -> list[dict[str, float]]:
    """The lines of a run's metrics.jsonl, see `files.read_metrics`; [] if the run has none."""
    return files.read_metrics(Path(workdir) / 'runs' / run / 'metrics.jsonl')


def correct(workdir: Path, result: Mapping[str, Any]) -> np.ndarray | None:
    """Which test examples a run got right: bool [N]; None if that was not saved, or for another number of examples."""
    try:
        examples = int(result['test_examples'])
        packed = np.load(Path(workdir) / 'runs' / result['id'] / 'correct.npy', allow_pickle=False)
        bits = np.unpackbits(packed, count=examples).astype(bool)
    except (OSError, ValueError, KeyError, TypeError, EOFError):
        return None
    return bits if packed.size == -(-examples // 8) else None


def write_results(records: Records, folder: Path) -> None:
    """Rebuilds results.jsonl in `folder`, one line per valid run, seed by seed."""
    lines = [
        dumps({key: by_seed[seed][key] for key in _LINE})
        for seed in records.study['seeds']
        for by_seed in records.results.values()
        if seed in by_seed
    ]
    files.write(folder / 'results.jsonl', ''.join(line + '\n' for line in lines))


def dumps(value: Any, indent: int | None = None) -> str:
    """JSON that every parser accepts: NaN and infinity become null."""
    return json.dumps(_finite(value), indent=indent, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, (float, np.floating)):
        return float(value) if math.isfinite(value) else None
    return value.item() if isinstance(value, np.generic) else value


def _mapping(path: Path, keys: Mapping[str, type]) -> dict[str, Any] | None:
    """A JSON object with these keys, of these types; None if there is no file. Raises BadRecord."""
    try:
        value = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, RecursionError) as error:
        raise BadRecord(f'torn: not JSON ({error})') from error
    if not isinstance(value, dict):
        raise BadRecord(f'a JSON {type(value).__name__}, expected an object')
    for key, kind in keys.items():
        if key not in value:
            raise BadRecord(f"the key '{key}' is missing")
        wanted = numbers.Real if kind is float else kind
        if not isinstance(value[key], wanted) or (kind in (int, float) and isinstance(value[key], bool)):
            raise BadRecord(f"its '{key}' is {value[key]!r:.60}, expected {kind.__name__}")
    return value
