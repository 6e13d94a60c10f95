"""Low-rank factorization: a large layer becomes two thin ones, down to few dimensions and up again.

Idea: the singular values of trained kernels fall off, so a product of two thin matrices loses little.

Source: Denton et al. 2014 (Exploiting linear structure within convolutional networks, section 3.2); Jaderberg et al. 2014,
scheme 1, here with filters across channels. Config: {'model.low_rank': 0.25}, in every family: the rank as a share of
the full rank. Layers of 2**16 weights or more are factorized; grouped convolutions, squeeze-and-excitation and layers that
would not shrink stay whole. Pretrained weights (model.init_from) are factorized by singular value decomposition, the best
approximation of that rank.

Cost: one more matrix per layer. Claim: 2 times fewer FLOPs for under 1 point on ImageNet from a trained network (Denton et
al.). Clashes: structured pruning removes channels that the factors hide.
"""

import math
from collections.abc import Sequence

import numpy as np

from research.catalogue import ConfigError

LARGE = 2**16


def rank(shape: Sequence[int], share: float) -> int:
    """Rank of a kernel `[..., C, D]`, seen as the matrix `[... C, D]`; 0 if it stays whole.

    Raises:
      ConfigError: a share outside [0, 1].
    """
    if not 0 <= share <= 1:
        raise ConfigError(f'low_rank is {share}, expected a share of the rank from 0 (whole layers) to 1.')
    rows, columns = math.prod(shape[:-1]), shape[-1]
    if not share or rows * columns < LARGE:
        return 0
    thin = max(1, round(share * min(rows, columns)))
    return thin if thin * (rows + columns) < rows * columns else 0


def factors(kernel: np.ndarray, rank: int) -> tuple[np.ndarray, np.ndarray]:
    """Kernels `[..., C, rank]` and `[rank, D]` whose product is nearest to `kernel` `[..., C, D]` (Eckart and Young 1936)."""
    u, s, v = np.linalg.svd(kernel.reshape(-1, kernel.shape[-1]), full_matrices=False)
    root = np.sqrt(s[:rank])
    first, last = u[:, :rank] * root, root[:, None] * v[:rank]
    return first.reshape(*kernel.shape[:-1], rank), last
