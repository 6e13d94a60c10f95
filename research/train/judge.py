"""The classifier that judges generated images by its features: trained once a study and data set, by the same loop as any run.

Its config is configs/base.py with `OVERRIDES` and the study's data, whole: no variant, seed or budget of the study reaches it,
so that all runs are judged alike. Its accuracy on the examples that it judges with is one of their metrics.
"""

import hashlib
import json
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp

from research.tasks import generation
from research.train import checkpoint, loop
from research.train import experiment as experiments
from research.train.experiment import Session

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
}
# Fields of the study's data that the judge shares.
DATA = ('name', 'path', 'validation', 'split_seed', 'eval_batch_size')


def trained(config: Mapping[str, Any], session: Session, folder: pathlib.Path, stop: Callable[[], bool]) -> dict[str, Any]:
    """The judge of a data set, from `folder` if it is there, or else trained and kept there.

    Args:
      config: configs/base.py with `OVERRIDES` and the fields `DATA` of the study's data.
      session: keeps data and programs.
      folder: of the study's judges; one launch at a time writes here.
      stop: as of `loop.train`.

    Returns:
      {'variables', 'mean', 'std'}, what `adversarial.evaluate` finds in `data['judge']`.

    Raises:
      Stopped: training is saved; the same call goes on from there.
    """
    content = {k: v for k, v in config['data'].items() if k != 'path'}
    experiment = experiments.build(config, session, f'judge {content}')
    content |= {'checksum': experiment.dataset.checksum, **{k: v for k, v in config.items() if k != 'data'}}
    name = hashlib.sha256(json.dumps(content, sort_keys=True, default=list).encode()).hexdigest()[:12]
    kept, aside = folder / name, folder / f'.{name}'
    if not kept.exists():
        aside.mkdir(parents=True, exist_ok=True)
        outcome = loop.train(experiment, aside, lambda *done: None, stop)
        if outcome.status != 'finished':
            raise RuntimeError(f'the classifier that judges has {outcome.status}: {outcome.message}')
        checkpoint.remove(aside / 'checkpoints')
        aside.rename(kept)
    mean, std = (jnp.asarray(v, jnp.float32).reshape(1, 1, 1, -1) for v in experiment.dataset.normalize)
    return {'variables': checkpoint.load_variables(kept / 'scored'), 'mean': mean, 'std': std}
