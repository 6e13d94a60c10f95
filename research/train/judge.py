"""The classifier that judges generated images by its features: trained once a study and data set, by the same loop as any run.

Its config is `research.config.base` with `OVERRIDES` and the study's data, whole: no variant, seed or budget of the study
reaches it, so that all runs are judged alike. Its accuracy on the examples that it judges with is one of their metrics.
"""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from research import tasks
from research.data import CUT, READ
from research.tasks import generation
from research.train import checkpoint, loop
from research.train import experiment as experiments
from research.train.experiment import Experiment
from research.train.program import Session

# No study's seed is as large as this by chance.
_SEED = 2**31
OVERRIDES = {
    **{f'model.{key}': value for key, value in generation.JUDGE.items()},
    'data.batch_size': 128,
    'optimizer.learning_rate': 0.1,
    'schedule.name': 'cosine',
    'schedule.warmup': '0.1run',
    'train.seed': _SEED,
    'train.devices': 1,
    'train.eval_every': '1run',
    'study.budget': '3ep',
    'study.metric': 'validation/accuracy',  # the test split is not the judge's to read
}
# Fields of the study's data that the judge shares; the later ones do not change what it learns.
_DATA = (*READ, *(field for field in CUT if field != 'examples'), 'eval_batch_size', 'streaming', 'workers')
_SILENT = dict.fromkeys(('path', 'eval_batch_size', 'streaming', 'workers'))


def equipped(
    experiment: Experiment,
    resolve: Callable[[Mapping[str, Any]], Mapping[str, Any]],
    session: Session,
    folder: pathlib.Path,
    fingerprint: Callable[[Mapping[str, Any], str], Mapping[str, Any]],
    stop: Callable[[], bool],
) -> Experiment:
    """Adds the judge if the task needs one, training it first if missing.

    Args:
      resolve: dotted overrides -> research/config/base.py with them.
      session: keeps data and programs.
      folder: of the study's judges; one launch at a time writes here.
      fingerprint: (config, checksum of the data) -> what its numbers depend on; code or versions that are others make another
        judge.
      stop: as of `loop.train`.

    Raises:
      Stopped: training is saved; the same call goes on from there.
    """
    if not isinstance(experiment.program.step.task, generation.Generation):
        return experiment
    own = _own(experiment, resolve, session)
    config = {**own.config, 'data': {**own.config['data'], **_SILENT}}
    content = json.dumps([config, fingerprint(own.config, own.dataset.checksum)], sort_keys=True, default=list)
    name = hashlib.sha256(content.encode()).hexdigest()[:12]
    kept, aside = folder / name, folder / f'.{name}'
    if not kept.exists():
        aside.mkdir(parents=True, exist_ok=True)
        outcome = loop.train(own, aside, lambda *done: None, stop)
        if outcome.status != 'finished':
            raise RuntimeError(f'the classifier that judges has {outcome.status}: {outcome.message}')
        checkpoint.remove(aside / 'checkpoints')
        aside.rename(kept)
    judge = {'variables': checkpoint.load_variables(kept / 'scored'), **tasks.standardization(own.dataset.facts)}
    return dataclasses.replace(_with(experiment, experiment.program.engine.replicate(judge)), judge_name=name)


def shaped(experiment: Experiment, resolve: Callable[[Mapping[str, Any]], Mapping[str, Any]], session: Session) -> Experiment:
    """Adds the shapes of the judge if the task needs one: enough to compile with; arguments as of `equipped`."""
    if not isinstance(experiment.program.step.task, generation.Generation):
        return experiment
    own = _own(experiment, resolve, session)
    variables = {'params': own.program.shapes.params, **own.program.shapes.collections}
    judge = {'variables': variables, **tasks.standardization(own.dataset.facts)}
    return _with(experiment, experiment.program.engine.shaped(judge))


def _own(experiment: Experiment, resolve: Callable[[Mapping[str, Any]], Mapping[str, Any]], session: Session) -> Experiment:
    """The judge's own run."""
    data = {f'data.{key}': experiment.config['data'][key] for key in _DATA}
    return experiments.build(resolve(OVERRIDES | data), session, f'judge {data}')


def _with(experiment: Experiment, judge: Mapping[str, Any]) -> Experiment:
    constants = {**experiment.data['constants'], 'judge': judge}
    return dataclasses.replace(experiment, data={**experiment.data, 'constants': constants})
