"""Independent batches: the examples of each step are drawn from the whole training split, whatever other steps have drawn.

Idea: an observer of one step learns little of an example that was probably not in it. This amplification of privacy is proven
for batches that are drawn anew, not for the slices of a shuffled epoch.

Source: Wang, Balle and Kasiviswanathan 2019 (Subsampled Renyi differential privacy and analytical moments accountant).

Config: {'data.sampling.name': 'without_replacement'}

Cost: a draw of B numbers a step. An "epoch" of n examples leaves out about a third of them, and takes others twice or more.
Claim: the bound that `dp_sgd` needs; nothing for accuracy. Clashes: `data.batch`, because the first batch size says which
positions belong to one draw.

No example is twice in a batch. The next batch may have it again.
"""

import dataclasses

import numpy as np

from research.data import order
from research.data.dataset import Dataset


@dataclasses.dataclass(frozen=True, eq=False)
class WithoutReplacement:
    """A sampler: positions [s * B, (s + 1) * B) hold B different rows, drawn for step s alone.

    Attributes:
      rows: of the source, int64 [n] or [n, k]. A position takes one entry, of one or k rows; -1 is empty.
      batch_size: B, over all hosts; at most n.
    """

    rows: np.ndarray
    batch_size: int

    def __call__(self, seed: int, start: int, stop: int) -> np.ndarray:
        """The entries at positions `start` to `stop`: int64 [stop - start] or [stop - start, k]."""
        size, first = self.batch_size, start // self.batch_size
        steps = range(first, -(-stop // size)) if stop > start else ()
        drawn = [order.subset(seed, step, size, len(self.rows)) for step in steps]
        return self.rows[np.concatenate([np.empty(0, np.int64), *drawn])[start - first * size :][: stop - start]]


def create(dataset: Dataset, batch_size: int) -> WithoutReplacement:
    """A draw of its own for each step, of `batch_size` examples of the training split."""
    return WithoutReplacement(dataset.splits['train'], batch_size)
