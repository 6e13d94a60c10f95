"""Which rows of the source a run trains on, position by position."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np

from research import catalogue
from research.data import balanced, order, repeated
from research.data.dataset import Dataset

Sampler: TypeAlias = Callable[[int, int, int], np.ndarray]
"""(seed, start, stop) -> rows of the source at positions `start` to `stop` of a run.

Rows are int64 [stop - start], or [stop - start, k] if a position takes k rows; -1 is empty, other rows are in the training
split. A row depends only on the seed and the position, so hosts, readers and restarts may ask for any part. A sampler is
picklable, for reader processes, and made for each run.
"""


SAMPLERS = {
    'class_balanced': 'research.data.balanced:class_balanced',
    'group_balanced': 'research.data.balanced:group_balanced',
    'shuffled': 'research.data.sampling:shuffled',
    'square_root': 'research.data.balanced:square_root',
    'without_replacement': 'research.data.without_replacement:create',
}
# What a config may not set: a sampler gets the data set, and the examples of the first step over all hosts.
GIVEN = ('dataset', 'batch_size')


@dataclasses.dataclass(frozen=True, eq=False)
class Shuffled:
    """A sampler: each epoch holds every row once, in the order of `order.indices`.

    Attributes:
      rows: of the source, int64 [n] or [n, k]. A position takes one entry, of one or k rows; -1 is empty.
    """

    rows: np.ndarray

    def __call__(self, seed: int, start: int, stop: int) -> np.ndarray:
        """The entries at positions `start` to `stop`: int64 [stop - start] or [stop - start, k]."""
        return self.rows[order.indices(seed, start, stop, len(self.rows))]


def shuffled(dataset: Dataset, batch_size: int) -> Sampler:
    """Every example of the training split once an epoch, in a new order each; external sources with a weight by theirs."""
    del batch_size
    if any(source.weight for source in dataset.external):
        return balanced.by_source(dataset)
    return Shuffled(dataset.splits['train'])


def create(config: Mapping[str, Any], dataset: Dataset, batch_size: int) -> Sampler:
    """The sampler of a run.

    Args:
      config: `config.data`.
      dataset: its training split is sampled.
      batch_size: examples of the first step, over all hosts.
    """
    sampler = catalogue.build('sampler', config['sampling'], SAMPLERS, dataset=dataset, batch_size=batch_size)
    return repeated.create(sampler, config['repeats'], batch_size) if config['repeats'] > 1 else sampler


def batches(sampler: Sampler, seed: int, start: int, steps: int, batch_size: int, host: int = 0, hosts: int = 1) -> np.ndarray:
    """One host's rows of `steps` global batches from position `start` on.

    Args:
      sampler: see `Sampler`.
      seed: of the order.
      start: position of the first example of the first batch, over all hosts.
      steps: number of batches.
      batch_size: B, over all hosts.
      host, hosts: of each batch, host h of H gets [h * B / H, (h + 1) * B / H).

    Returns:
      int64 [steps, B / hosts] or [steps, B / hosts, k].

    Raises:
      ConfigError: B is not a multiple of hosts.
    """
    places = order.position(np.arange(steps * batch_size // hosts), 0, batch_size, host, hosts)
    rows = sampler(seed, start, start + steps * batch_size)[places]
    return rows.reshape(steps, batch_size // hosts, *rows.shape[1:])
