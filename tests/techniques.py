"""Every technique, a row each: what it is set to, what switches it off, and when it must change nothing.

tests/train/test_techniques.py demands of every row that it trains, resumes bit for bit, is gone when it is off, and
equals what theory says. A new technique needs a row here and no new test.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp

# A plain run that compiles fast: what every row is laid over.
BASELINE = {
    'data.batch_size': 32,
    'data.eval_batch_size': 100,
    'model.widths': (4,),
    'model.hidden': (),
    'optimizer.learning_rate': 0.0625,
    'train.devices': 1,
    'train.eval_every': '20st',
    'study.budget': '60st',
}


class Technique(NamedTuple):
    """One row; all of it dotted overrides.

    Attributes:
      name: for test ids.
      on: over the baseline.
      off: over `on`; then program and bits are the baseline's.
      neutral: over `on`; then 3 steps in float64 are within 1e-10 of ...
      equals: ... the baseline with these overrides; {} is the baseline itself.
    """

    name: str
    on: Mapping[str, Any]
    off: Mapping[str, Any]
    neutral: Mapping[str, Any]
    equals: Mapping[str, Any] = {}


# One batch is the whole training split, and the reference batch is the same examples.
_ONE_BATCH = {'data.examples': 32, 'data.reference_size': 32}

TECHNIQUES = (
    Technique(
        'clip',
        on={'optimizer.clip.name': 'global_norm', 'optimizer.clip.max_norm': 0.5},
        off={'optimizer.clip.name': 'none'},
        neutral={'optimizer.clip.max_norm': float('inf')},
    ),
    Technique(
        'weight_decay',
        on={'optimizer.weight_decay': 0.01},
        off={'optimizer.weight_decay': 0.0},
        neutral={'optimizer.weight_decay': 0.0},
    ),
    Technique(
        'sgd',
        on={'optimizer.name': 'sgd'},
        off={'optimizer.name': 'momentum'},
        neutral={},
        equals={'optimizer.momentum': 0.0},
    ),
    Technique(
        'adam',
        on={'optimizer.name': 'adam', 'optimizer.learning_rate': 2.0**-6},
        off={'optimizer.name': 'momentum', 'optimizer.learning_rate': 2.0**-4},
        # Beside a huge eps the root of the second moment is nothing, and rate / eps is sgd's rate.
        neutral={'optimizer.b1': 0.0, 'optimizer.eps': 2.0**40, 'optimizer.learning_rate': 2.0**36},
        equals={'optimizer.name': 'sgd'},
    ),
    Technique(
        'cosine_with_warmup',
        on={'schedule.name': 'cosine', 'schedule.warmup': '0.1run'},
        off={'schedule.name': 'constant', 'schedule.warmup': '0st'},
        neutral={'schedule.alpha': 1.0, 'schedule.warmup': '0st'},
    ),
    Technique(
        'exponential',
        on={'schedule.name': 'exponential', 'schedule.decay_rate': 0.3},
        off={'schedule.name': 'constant'},
        neutral={'schedule.decay_rate': 1.0},
    ),
    Technique(
        'virtual_batch_norm',
        on={'model.norm.name': 'virtual_batch'},
        off={'model.norm.name': 'batch'},
        neutral={'model.norm.example_weight': 0.0, **_ONE_BATCH},
        equals=_ONE_BATCH,
    ),
    Technique(
        'ghost_batch_norm',
        on={'model.norm.name': 'ghost_batch', 'model.norm.virtual_batch_size': 12},  # the last group is smaller
        off={'model.norm.name': 'batch'},
        neutral={'model.norm.virtual_batch_size': 32},
    ),
    Technique(
        'sigmoid_loss',
        on={'task.loss': 'sigmoid'},
        off={'task.loss': 'softmax'},
        neutral={},
        equals={'task.loss': 'techniques:yes_or_no'},
    ),
    Technique(
        'streaming',
        on={'data.streaming': True},
        off={'data.streaming': False},
        neutral={},
    ),
    Technique(
        'pmap',
        on={'train.engine': 'pmap', 'train.devices': 4},
        off={'train.engine': 'jit', 'train.devices': 1},
        neutral={},
    ),
)


def yes_or_no(logits, labels):
    """Sigmoid cross-entropy as its definition reads: of each class, the logarithm of the probability of the right answer."""
    right = jnp.where(jnp.arange(logits.shape[-1])[None] == labels[:, None], logits, -logits)
    return -jnp.log(1 / (1 + jnp.exp(-right))).sum(-1)
