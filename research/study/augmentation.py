"""What augmentation does to the first examples of a run: a picture for each list of augmentations in a study."""

import pathlib
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from research import augment, data
from research.augment import contact_sheet
from research.layers.example import example_keys
from research.report import augmented
from research.study.plan import Plan
from research.train import pictures
from research.train.experiment import Experiment

_EXAMPLES = 32


def write(workdir: pathlib.Path, plan: Plan, built: Mapping[str, Experiment], anew: bool = True) -> list[pathlib.Path]:
    """Writes augmented/VARIANT.png for the first variant of each list of augmentations of images; returns their paths.

    Args:
      plan, built: the study, and its experiments by variant.
      anew: whether pictures that are there are drawn again.
    """
    names = [name for name in augmented.owners(plan.config, plan.variants) if augment.shows(built[name].dataset.fields)]
    paths = {name: augmented.picture(workdir, name) for name in names}
    for name, path in paths.items():
        if anew or not path.exists():
            pictures.write(path.parent, path.stem, sheet(built[name]))
    return [*paths.values()]


def sheet(experiment: Experiment) -> np.ndarray:
    """The first examples of a run, each as it is stored and below it as its first step sees it: uint8 [H, W, 3]."""
    count = min(_EXAMPLES, experiment.batch_size)
    examples = data.take(experiment.dataset, experiment.sampler(experiment.order_seed, 0, count))
    positions = jnp.stack([jnp.zeros(count, jnp.uint32), jnp.arange(count, dtype=jnp.uint32)], -1)
    keys = example_keys(jax.random.key(experiment.seed), 'augment', positions)
    return contact_sheet.draw(experiment.program.step.augment, keys, positions, examples)
