"""Membership inference: how well the loss of an example tells whether the network was trained on it.

Idea: a network that has learnt its examples by heart has a lower loss on them than on others of the same kind. Whoever can
compute losses then guesses who was among the training data.

Source: Yeom et al. 2018 (Privacy risk in machine learning: analyzing the connection to overfitting, the threshold adversary);
here the area under the ROC curve over all thresholds.

Of every run whose task keeps the loss of each row: the metric 'fitted/membership_auc', 0.5 for an attack that can only guess,
1.0 for one that is always right. Cost: a sort. Claim: none. Clashes: it is one attack and a weak one, so a
value near 0.5 proves no privacy.
"""

import numpy as np


def auc(members: np.ndarray, others: np.ndarray) -> float:
    """The probability that a member's loss [N] is lower than that of another example [M]; half of it where they are equal."""
    ranked = np.sort(others)
    lower, upper = (np.searchsorted(ranked, members, side) for side in ('left', 'right'))
    return 1 - float(np.mean(lower + upper)) / (2 * len(ranked))
