"""What augmentation does to the first examples of a run: a picture for each list of augmentations in a study."""

import pathlib
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from research import data
from research.layers.example import example_keys
from research.report import augmented
from research.study.plan import Plan
from research.train import pictures
from research.train.experiment import Experiment

# Examples, in rows of so many, and pixels that the side of a small one has about.
_EXAMPLES, _ACROSS, _SIDE = 32, 8, 64


def write(workdir: pathlib.Path, plan: Plan, built: Mapping[str, Experiment], anew: bool = True) -> list[pathlib.Path]:
    """Writes augmented/VARIANT.png for the first variant of each list of augmentations of images; returns their paths.

    Args:
      plan, built: the study, and its experiments by variant.
      anew: whether pictures that are there are drawn again.
    """
    names = [name for name in augmented.owners(plan.config, plan.variants) if 'image' in built[name].dataset.fields]
    paths = {name: augmented.picture(workdir, name) for name in names}
    for name, path in paths.items():
        if anew or not path.exists():
            pictures.write(path.parent, path.stem, sheet(built[name]))
    return [*paths.values()]


def sheet(experiment: Experiment) -> np.ndarray:
    """The first examples of a run as uint8 [H, W, 3], each as it is stored and below it as its first step sees it."""
    count = min(_EXAMPLES, experiment.batch_size)
    rows = experiment.sampler(experiment.order_seed, 0, count)
    examples = data.take(experiment.dataset, rows)
    positions = jnp.stack([jnp.zeros(count, jnp.uint32), jnp.arange(count, dtype=jnp.uint32)], -1)
    keys = example_keys(jax.random.key(experiment.seed), 'augment', positions)
    batch = {**examples, 'valid': jnp.ones(count), 'position': positions}
    seen = jax.jit(experiment.program.step.augment)(keys, batch)['image']
    stored = examples['image'].astype(np.float32)
    least, most = min(stored.min(), 0), max(stored.max(), np.finfo(np.float32).tiny)
    pairs = np.stack([stored, np.asarray(seen, np.float32)], 1)
    pairs = np.clip((pairs - least) / (most - least) * 255, 0, 255).round().astype(np.uint8)
    return _grid(pairs if pairs.shape[-1] >= 3 else pairs[..., :1].repeat(3, -1))


def _grid(pairs: np.ndarray) -> np.ndarray:
    """Images uint8 [N, 2, H, W, C] in pairs one above the other, as one [H', W', 3] with white lines between pairs."""
    scale = max(1, round(_SIDE / pairs.shape[2]))
    pairs = pairs[..., :3].repeat(scale, 2).repeat(scale, 3)
    count, _, height, width, _ = pairs.shape
    tiles = pairs.reshape(count, 2 * height, width, 3)
    tiles = np.pad(tiles, ((0, -count % _ACROSS), (0, 6), (0, 2), (0, 0)), constant_values=255)
    down = len(tiles) // _ACROSS
    grid = tiles.reshape(down, _ACROSS, *tiles.shape[1:]).transpose(0, 2, 1, 3, 4)
    return grid.reshape(down * tiles.shape[1], _ACROSS * tiles.shape[2], 3)
