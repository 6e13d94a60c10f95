"""Balanced sampling: rare classes, or groups, are seen more often than they occur.

Idea: each class has a fixed part of an epoch, in proportion to a power of its size: with the power 0 all classes are seen
equally often, with 1/2 frequent ones still more often, and 1 would be the data as they are.

Sources: `class_balanced` and `square_root` Kang et al. 2020 (Decoupling representation and classifier for long-tailed
recognition, section 3), the second as in Mikolov et al. 2013; `group_balanced` Idrissi et al. 2022 (Simple data balancing
achieves competitive worst-group accuracy).

Config: {'data.sampling.name': 'class_balanced'}, and likewise 'square_root' and 'group_balanced'

Cost: none in a step; an epoch is as long as before, and leaves out some examples of frequent classes. Claim: on ImageNet-LT
45.1 % accuracy by `class_balanced` and 46.8 % by `square_root` instead of 44.4 %, where features and classifier learn together
(ResNeXt-50, the repository of Kang et al. 2020); groups balanced by sampling compete with group DRO (Idrissi et al. 2022).

Effect on balanced accuracy: `class_balanced` +1.12 points (0.61 to 1.66), `square_root` +0.97 (0.45 to 1.50) (a long tail of
Fashion-MNIST, ratio 100, ten seeds, configs/imbalance.py).

The papers draw with replacement. Here a class has the same number of places in every epoch, and takes its examples in turn:
none comes again before all of its class have come. Clashes: `task.class_weights` corrects the same imbalance a second time.
"""

import dataclasses
import functools
import math

import numpy as np

from research.catalogue import ConfigError
from research.data import order
from research.data.dataset import Dataset


@dataclasses.dataclass(frozen=True, eq=False)
class Balanced:
    """A sampler with a fixed number of places for each class in every epoch of N.

    Attributes:
      members: of each class its rows of the source, int64 [N_c].
      quotas: of each class its places in an epoch; they add up to N.
    """

    members: tuple[np.ndarray, ...]
    quotas: tuple[int, ...]

    def __call__(self, seed: int, start: int, stop: int) -> np.ndarray:
        """The rows at positions `start` to `stop`: int64 [stop - start]."""
        n, parts = sum(self.quotas), [np.empty(0, np.int64)]
        while start < stop:
            epoch, first = divmod(start, n)
            last = min(n, first + stop - start)
            parts.append(_epoch(self, seed, epoch)[first:last])
            start += last - first
        return np.concatenate(parts)


@functools.lru_cache(maxsize=2)
def _epoch(sampler: Balanced, seed: int, epoch: int) -> np.ndarray:
    """The rows of a whole epoch, int64 [N]; kept, since batches ask for it piece by piece."""
    rows = []
    for stream, (members, quota) in enumerate(zip(sampler.members, sampler.quotas, strict=True)):
        rows.append(members[order.rounds(seed, epoch * quota, (epoch + 1) * quota, len(members), stream)])
    n = sum(sampler.quotas)
    return np.concatenate(rows)[order.indices(seed, epoch * n, (epoch + 1) * n, n)]


def class_balanced(dataset: Dataset, batch_size: int) -> Balanced:
    """An epoch has equally many places for every class."""
    del batch_size
    return _balanced(dataset, 'label', 0.0)


def square_root(dataset: Dataset, batch_size: int) -> Balanced:
    """The places of a class are in proportion to the square root of its size."""
    del batch_size
    return _balanced(dataset, 'label', 0.5)


def group_balanced(dataset: Dataset, batch_size: int) -> Balanced:
    """An epoch has equally many places for every group, by the field 'group'."""
    del batch_size
    return _balanced(dataset, 'group', 0.0)


def quotas(counts: np.ndarray, power: float) -> np.ndarray:
    """Places of each class in an epoch.

    Args:
      counts: examples of each class, int64 [K], at least 1.
      power: from 0 to 1, so that each has a place.

    Returns:
      int64 [K], as many as there are examples, in proportion to `counts ** power`; what rounding down leaves over goes to the
      largest remainders.
    """
    return _places(counts**power, counts.sum())


def _places(shares: np.ndarray, n: int) -> np.ndarray:
    """n places in proportion to `shares`, int64 [K]."""
    ideal = n * shares / shares.sum()
    places = np.floor(ideal).astype(np.int64)
    places[np.argsort(places - ideal, kind='stable')[: n - places.sum()]] += 1
    return places


def by_source(dataset: Dataset) -> Balanced:
    """For each external source with a weight that share of an epoch's places; the other rows have what is left.

    Raises:
      ConfigError: a share of which no examples are left.
    """
    rest, names, members, shares = dataset.splits['train'], [], [], []
    for source in dataset.external:
        if source.weight:
            inside = (rest >= source.rows.start) & (rest < source.rows.stop)
            names.append(source.name)
            members.append(rest[inside])
            shares.append(source.weight)
            rest = rest[~inside]
    left = max(0.0, 1 - math.fsum(shares))
    if len(rest) or left > 1e-9:  # weights such as three of 1 / 3 sum to 1 but for rounding
        names, members, shares = [*names, dataset.name], [*members, rest], [*shares, left]
    for name, rows, share in zip(names, members, shares, strict=True):
        if not len(rows):
            raise ConfigError(
                f"'{name}' has a share of {share:g} of an epoch, and no training examples are left of it. Leave a filter of "
                "data.filters out, or change the weights of 'data.external'."
            )
    return Balanced(tuple(members), tuple(_places(np.array(shares), len(dataset.splits['train'])).tolist()))


def _balanced(dataset: Dataset, field: str, power: float) -> Balanced:
    rows = dataset.splits['train']
    shape, dtype = dataset.fields[field][:2] if field in dataset.fields else (None, None)
    if rows.ndim > 1:
        raise ConfigError(
            f"data.sampling balances by the field '{field}' of one row a position, and data '{dataset.name}' has "
            f"{rows.shape[1]} rows at each. Set data.sampling.name to 'shuffled', or choose other data."
        )
    if shape != () or dtype.kind not in 'iu':
        raise ConfigError(
            f"data.sampling balances by the field '{field}', a whole number for each example, and data '{dataset.name}' has "
            + (f'{dtype} {shape} of it' if field in dataset.fields else f'the fields {", ".join(sorted(dataset.fields))}')
            + ". Set data.sampling.name to 'shuffled', or choose other data."
        )
    _, kind, counts = np.unique(dataset.arrays[field][rows], return_inverse=True, return_counts=True)
    members = np.split(rows[np.argsort(kind, kind='stable')], np.cumsum(counts)[:-1])
    return Balanced(tuple(members), tuple(quotas(counts, power).tolist()))
