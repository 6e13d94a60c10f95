"""Class imbalance by config: some classes of the training split are thinned, so that remedies can be compared.

Idea: balanced data, made imbalanced in a known way, tell what a remedy wins back. Validation and test stay as they are.

Sources: `long_tail` Cui et al. 2019 (Class-balanced loss based on effective number of samples, section 5.1): counts fall
exponentially from class to class; `step` Buda et al. 2018 (A systematic study of the class imbalance problem, section 3.1): a
share of the classes is rare, and all rare ones have the same number of examples.

Config: {'data.imbalance': {'name': 'long_tail', 'ratio': 100.0}}, {'data.imbalance': {'name': 'step', 'ratio': 10.0}}

Cost: fewer examples an epoch. Claim: with a long tail of ratio 100 the error of a ResNet-32 on CIFAR-10 rises from 6.6 to
29.6 % (Cui et al. 2019, table 2).

`data.split_seed` draws which classes are rare and which examples stay; the same for every seed of a study. Only classes that
occur in the training split are drawn. A larger ratio keeps a part of what a smaller one keeps. `data.examples` is taken before.

The sizes are upper limits. No class loses its last example, so with 50 examples a class the ratio is at most 50. A class that
has fewer than its limit loses nothing, so data that are not balanced can end with another ratio. Clashes: data without classes
are refused.

Letters: N examples, K classes that occur.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from research import catalogue
from research.data import order

IMBALANCES = {
    'none': 'research.data.imbalance:none',
    'long_tail': 'research.data.imbalance:long_tail',
    'step': 'research.data.imbalance:step',
}
# What a config may not set.
GIVEN = ('classes',)


def none(classes: int) -> np.ndarray:
    """Every class may be as large as the largest. Returns the shares by rank, float64 [K]."""
    return np.ones(classes)


def long_tail(classes: int, ratio: float = 100.0) -> np.ndarray:
    """Class sizes fall exponentially, from the largest to 1 / ratio of it. Returns the shares by rank, float64 [K]."""
    return ratio ** -np.linspace(0, 1, classes)


def step(classes: int, ratio: float = 100.0, share: float = 0.5) -> np.ndarray:
    """A `share` of the classes has 1 / ratio of the largest size. Returns the shares by rank, float64 [K].

    Raises:
      ConfigError: no class is rare, or all are.
    """
    rare = round(share * classes)
    if not 0 < rare < classes:
        raise catalogue.ConfigError(
            f'data.imbalance.share is {share}, and the training split has {classes} classes: {rare} would be rare, expected '
            'some but not all. Set the share nearer to 0.5, or choose data with more classes.'
        )
    return np.where(np.arange(classes) < classes - rare, 1.0, 1 / ratio)


def thin(rows: np.ndarray, labels: np.ndarray | None, config: Mapping[str, Any]) -> np.ndarray:
    """Those rows that stay in the training split.

    Args:
      rows: int64 [N], of the training split.
      labels: whole numbers [N], the class of each; None of data without classes.
      config: `config.data`; its imbalance and split_seed are read.

    Returns:
      int64 [n], in the order of `rows`. Of the class of rank r at most `share[r]` times the size of the largest class.

    Raises:
      ConfigError: data without classes, or a step that leaves no class rare or none frequent.
    """
    if config['imbalance']['name'] == 'none':
        return rows
    if labels is None:
        raise catalogue.ConfigError(
            f"data.imbalance is '{config['imbalance']['name']}', and the data have no classes that could be thinned: expected "
            "a field 'label' of whole numbers. Choose other data, or set data.imbalance.name to 'none'."
        )
    _, counts = np.unique(labels, return_counts=True)
    shares = catalogue.build('imbalance', config['imbalance'], IMBALANCES, classes=len(counts))
    rank = order.drawn(config['split_seed'], len(counts), order.RANKS)
    most = np.maximum(np.rint(counts.max() * shares[rank]), 1)
    shuffled = order.drawn(config['split_seed'], len(rows), order.KEPT)
    by_class = shuffled[np.argsort(labels[shuffled], kind='stable')]
    place = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    return rows[np.sort(by_class[place < np.repeat(most, counts)])]
