"""`frugal upload`: the runs of a study to Weights & Biases or MLflow, after the fact, from its records.

A run is named `variant/seed` and grouped by variant. It brings its config, its curve by step, its final metrics and costs. One
more run, `report`, brings the report and its table. Where the runs go is for the libraries' own settings to say: WANDB_MODE,
WANDB_ENTITY, MLFLOW_TRACKING_URI.
"""

import json
import math
import os
import types
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from research.catalogue import ConfigError, nearest
from research.config import overrides
from research.report import records, tables
from research.report.summary import content, read_evaluations

_REPORTS = ('report.html', 'report.md', 'report.csv', 'summary.json', 'study.json')
_PARAMETER = 500  # characters of a value, the least that any MLflow server takes
_AT_ONCE = 100  # values in a request to MLflow


class Run(NamedTuple):
    """A run with a result.

    Attributes:
      name: 'variant/seed'.
      id: of the run, the same in every upload of it.
      config: dotted key -> value.
      curve: (step, {name: value}) of each evaluation.
      final: {name: value}: metrics, and costs as 'cost/NAME'.
      status: 'finished', 'diverged' or 'failed'.
    """

    name: str
    variant: str
    id: str
    config: dict[str, Any]
    curve: list[tuple[int, dict[str, float]]]
    final: dict[str, float]
    status: str


def upload(target: str, workdir: str | os.PathLike[str]) -> str:
    """Uploads every run with a result; returns what to tell the user.

    Args:
      target: 'wandb' or 'mlflow'.
      workdir: of the study.

    Raises:
      ConfigError: no such target, its library is not installed or refuses, or there is no study in `workdir`.
    """
    if target not in TARGETS:
        raise ConfigError(f"Nothing is uploaded to '{target}'.{nearest(target, TARGETS)}")
    read = records.read(workdir)
    try:
        sent = TARGETS[target](read)
    except ImportError as error:
        raise ConfigError(f"'{target}' is not installed ({error}): pip install 'frugal-jax[{target}]'.") from error
    except Exception as error:
        if type(error).__module__.partition('.')[0] != target:
            raise
        raise ConfigError(f'{target}: {error}') from error  # its own: no login, no server, a store that it does not take
    return f'Uploaded {sent}.'


def runs(read: records.Records) -> Iterator[Run]:
    """The runs of a study that have a result, variant by variant."""
    for variant, by_seed in read.results.items():
        for seed, result in by_seed.items():
            config = overrides.flatten(records.config(read.workdir, result['id']))
            lines = records.evaluations(read.workdir, result['id'])
            final = result['metrics'] | {f'cost/{key}': value for key, value in result['cost'].items()}
            curve = [(line['step'], _numbers(line)) for line in lines]
            yield Run(f'{variant}/{seed}', variant, result['id'], config, curve, _numbers(final), result['status'])


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    finite = {k: v for k, v in values.items() if isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v)}
    return {key: value for key, value in finite.items() if key != 'step'}


def _to_wandb(read: records.Records) -> str:
    import wandb

    project = read.study['study']
    count = 0
    for run in runs(read):
        # The same id again is the same run again, whose steps W&B then has already.
        with wandb.init(
            project=project, name=run.name, group=run.variant, id=run.id, config=run.config, resume='allow'
        ) as sent:
            for step, values in run.curve:
                sent.log(values, step=step)
            sent.summary.update(run.final | {'status': run.status})
        count += 1
    with wandb.init(project=project, name='report', id=f'report-{project}', job_type='report', resume='allow') as sent:
        lines = tables.lines(content(read, read_evaluations(read)))
        sent.log({'table': wandb.Table(list(lines[0]), [list(line.values()) for line in lines])})
        for path in _reports(read):
            sent.save(path, base_path=read.workdir, policy='now')
    return f'{count} runs of {read.workdir} to the W&B project {project}'


def _to_mlflow(read: records.Records) -> str:
    import mlflow

    mlflow.set_experiment(read.study['study'])
    count = kept = 0
    for run in runs(read):
        if _known(mlflow, run.id):
            kept += 1
            continue
        tags = {'frugal': run.id, 'variant': run.variant, 'status': run.status}
        with mlflow.start_run(run_name=run.name, tags=tags) as sent:
            _send(mlflow, sent.info.run_id, run)
        count += 1
    known = [report.info.run_id for report in _known(mlflow, 'report')]
    with mlflow.start_run(known[0] if known else None, run_name='report', tags={'frugal': 'report'}):
        for path in _reports(read):
            mlflow.log_artifact(path)
    there = f'; {kept} were there' if kept else ''
    return f'{count} runs of {read.workdir} to the MLflow experiment {read.study["study"]}{there}'


def _known(mlflow: types.ModuleType, name: str) -> list[Any]:
    return mlflow.search_runs(filter_string=f"tags.frugal = '{name}'", output_format='list')


def _send(mlflow: types.ModuleType, to: str, run: Run) -> None:
    last = run.curve[-1][0] if run.curve else 0
    values = [(name, value, step) for step, line in [*run.curve, (last, run.final)] for name, value in line.items()]
    metrics = [mlflow.entities.Metric(name, value, 0, step) for name, value, step in values]
    told = {key: json.dumps(value)[:_PARAMETER] for key, value in run.config.items()}
    params = [mlflow.entities.Param(key, value) for key, value in told.items()]
    client = mlflow.MlflowClient()
    for first in range(0, max(len(metrics), len(params)), _AT_ONCE):
        client.log_batch(to, metrics=metrics[first : first + _AT_ONCE], params=params[first : first + _AT_ONCE])


def _reports(read: records.Records) -> list[Path]:
    return [path for name in _REPORTS if (path := read.workdir / name).exists()]


TARGETS: dict[str, Callable[[records.Records], str]] = {'wandb': _to_wandb, 'mlflow': _to_mlflow}
