"""Which example is at which position: pure functions of seed and position only.

A position counts examples since the start of the run; epochs are concatenated, so a batch may span two and is never
ragged. Host, batch size, reader and restart only select positions, so the state of the data is one integer.
An epoch's order is the stable argsort of Philox's raw bits, which NumPy freezes (NEP 19), unlike
`Generator.permutation`. Philox: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3".
"""

import functools
import operator

import numpy as np

from research.catalogue import ConfigError

# Examples sorted at once: 16 million take 128 MB and about two seconds.
BLOCK = 1 << 24

# The top word of Philox's counter separates streams with the same key. Blocks of an epoch use 1, 2, 3, ...
_EPOCH, _SPLIT, _TEST, RANKS, KEPT, _ROUNDS, _SUBSET, ELSEWHERE = 0, *((1 << 63) + i for i in range(7))


def indices(seed: int, start: int, stop: int, n: int) -> np.ndarray:
    """The examples at positions `start` to `stop` of a run.

    Each epoch `[e * n, (e + 1) * n)` holds every example once. More than `BLOCK` examples are shuffled as whole blocks
    and then inside each block.

    Args:
      seed: 0 <= seed < 2**64; see `redrawn` for the null variant's.
      start, stop: positions, 0 <= start <= stop, without upper limit.
      n: number of examples, at least 1.

    Returns:
      int64 [stop - start], values in [0, n).

    Raises:
      ValueError: a position below 0, stop before start, or no examples.
    """
    seed, start, stop, n = (operator.index(value) for value in (seed, start, stop, n))
    if not 0 <= start <= stop or n < 1:
        raise ValueError(f'Expected 0 <= start <= stop and n >= 1, got start={start}, stop={stop}, n={n}.')
    parts = []
    while start < stop:
        epoch, first = divmod(start, n)
        last = min(n, first + stop - start)
        parts.append(_slice(seed, epoch, first, last, n))
        start += last - first
    return np.concatenate(parts) if parts else np.empty(0, np.int64)


def subset(seed: int, step: int, size: int, n: int) -> np.ndarray:
    """`size` of n examples, drawn for one step alone: each subset is as likely, and each order of it.

    Numbers below the largest multiple of n in 64 bits, modulo n, are drawn until `size` different ones have come. So small
    subsets cost no more for large n.

    Args:
      seed: 0 <= seed < 2**64.
      step: 0 <= step < 2**64.
      size: 0 <= size <= n.
      n: number of examples, at least 1.

    Returns:
      int64 [size], values in [0, n), all different.

    Raises:
      ValueError: more examples than there are.
    """
    if not 0 <= size <= n:
        raise ValueError(f'Expected 0 <= size <= n, got size={size}, n={n}.')
    bits = _philox(seed, step, _SUBSET)
    last, drawn = np.uint64(2**64 - 1 - 2**64 % n), np.empty(0, np.int64)
    while True:
        words = bits.random_raw(2 * size)
        drawn = np.concatenate([drawn, (words[words <= last] % np.uint64(n)).astype(np.int64)])
        _, first = np.unique(drawn, return_index=True)
        if len(first) >= size:
            return drawn[np.sort(first)[:size]]


def position(index: int | np.ndarray, start: int, batch_size: int, host: int = 0, hosts: int = 1) -> int | np.ndarray:
    """The position of the `index`-th example that one host reads.

    Of each global batch of B, host h of H reads rows [h * B / H, (h + 1) * B / H).

    Args:
      index: number of the host's example, counted from `start`; an int, or an int64 array of any shape.
      start: position of the first example of the first global batch.
      batch_size: B, over all hosts.
      host, hosts: h and H.

    Returns:
      An int, or int64 of the shape of `index`.

    Raises:
      ConfigError: B is not a multiple of H.
    """
    if batch_size < 1 or batch_size % hosts or not 0 <= host < hosts:
        raise ConfigError(f'data.batch_size={batch_size} on host {host} of {hosts}: expected a multiple of {hosts}.')
    rows = batch_size // hosts
    return start + index // rows * batch_size + host * rows + index % rows


def redrawn(seed: int, redraw: int) -> int:
    """The seed of the data order of a run: `seed` itself, or for `redraw` above 0 (the null variant) another order."""
    return operator.index(seed) + (operator.index(redraw) << 32)


def split(
    n: int, validation: float, examples: int, split_seed: int, keys: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Splits the training data, the same for every seed of a study.

    Subsets nest: fewer `examples` are a subset of more, and the validation part does not depend on `examples`.

    Args:
      n: examples in the training data.
      validation: a fraction of n if below 1, else a count.
      examples: training examples to use; 0 for all but the validation part.
      split_seed: 0 <= split_seed < 2**64; which permutation is split.
      keys: see `cut_test`.

    Returns:
      (train, validation): sorted int64 arrays of examples, disjoint.

    Raises:
      ConfigError: no training examples left, or fewer than `examples`.
    """
    order, count = _order(_SPLIT, 'data.validation', n, validation, split_seed, keys)
    if not 0 <= examples <= n - count:
        raise ConfigError(f'data.examples={examples}: expected 0 (all) to {n - count}, {n} less {count} of validation.')
    return np.sort(order[count : count + examples] if examples else order[count:]), np.sort(order[:count])


def cut_test(n: int, test: float, split_seed: int, keys: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Cuts a test split out of training data that come without one; the draw is another than that of `split`.

    With keys an example is cut by its own key, whatever other examples there are: a fraction is a chance, and a count takes the
    smallest draws. Equal keys are never parted, so a count may take a few more.

    Args:
      n: examples in the training data.
      test: a fraction of n if below 1, else a count.
      split_seed: 0 <= split_seed < 2**64.
      keys: uint64 [n], hashes of the examples' content; None: the draw is by position.

    Returns:
      (train, test): sorted int64 arrays of examples, disjoint.

    Raises:
      ConfigError: no training examples left.
    """
    order, count = _order(_TEST, 'data.test', n, test, split_seed, keys)
    return np.sort(order[count:]), np.sort(order[:count])


def _order(stream: int, field: str, n: int, share: float, split_seed: int, keys: np.ndarray | None) -> tuple[np.ndarray, int]:
    """(int64 [n], examples in the order in which they are cut; how many of the first are)."""
    count = _count(field, n, share)
    if keys is None:
        return _permutation(split_seed, 0, n, stream), count
    draws = _draws(keys, split_seed, stream)
    order = np.argsort(draws, kind='stable')
    if share < 1:
        count = int((draws < int(share * 2.0**64)).sum())
    elif count:
        count = int((draws <= draws[order[count - 1]]).sum())
    if count == n:
        raise ConfigError(f'{field}={share} leaves none of {n} training examples. Cut fewer, or change data.split_seed.')
    return order, count


def _draws(keys: np.ndarray, split_seed: int, stream: int) -> np.ndarray:
    """uint64 [n]: for each seed and stream another draw of the same key, by the mixer of SplitMix64 (Steele et al. 2014)."""
    first = np.random.Philox(key=np.array([split_seed, 0], np.uint64), counter=np.array([0, 0, 0, stream], np.uint64))
    mixed = keys.astype(np.uint64) + first.random_raw(1)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return mixed ^ (mixed >> np.uint64(31))


def _count(field: str, n: int, share: float) -> int:
    """Examples that a share of n is: a fraction below 1, or a count."""
    count = round(share * n) if 0 <= share < 1 else operator.index(int(share))
    if count != share and share >= 1 or share < 0:
        raise ConfigError(f'{field}={share}: expected a fraction below 1 or a whole number of examples.')
    if count >= n:
        raise ConfigError(f'{field}={share} leaves none of {n} training examples. Cut fewer than {n}.')
    return count


def drawn(split_seed: int, n: int, purpose: int) -> np.ndarray:
    """A permutation of n things that is the same for every seed of a study, read-only int64 [n].

    Args:
      split_seed: 0 <= split_seed < 2**64.
      n: how many.
      purpose: `RANKS` of the classes, `KEPT`, which examples stay where classes are thinned, or `ELSEWHERE`, which come from an
        external source.
    """
    return _permutation(split_seed, 0, n, purpose)


def rounds(seed: int, start: int, stop: int, n: int, stream: int) -> np.ndarray:
    """Like `indices`, for many rounds through few examples at once: round i is the order of a row of one stream's bits.

    Args:
      seed, start, stop, n: as of `indices`.
      stream: a whole number from 0; each has an order of its own.

    Returns:
      int64 [stop - start], values in [0, n); places [i * n, (i + 1) * n) hold every example once.
    """
    first, last = start // n, -(-stop // n)
    steps = -(-n // 4)  # of Philox's counter, each of four words
    counter = np.array([first * steps, 0, 0, _ROUNDS], np.uint64)
    bits = np.random.Philox(key=np.array([seed, stream], np.uint64), counter=counter).random_raw((last - first) * 4 * steps)
    order = np.argsort(bits.reshape(last - first, 4 * steps)[:, :n], axis=1, kind='stable')
    return order.ravel()[start - first * n : stop - first * n]


def elsewhere(groups: np.ndarray) -> np.ndarray:
    """Of each example one of another group, any of them as likely, drawn once: int64 [N].

    Args:
      groups: whole numbers [N], of two groups at least; or of no examples.
    """
    if not len(groups):
        return np.arange(0)
    rows = np.argsort(groups, kind='stable')
    _, first, size = np.unique(groups[rows], return_index=True, return_counts=True)
    first, size = np.repeat(first, size), np.repeat(size, size)
    place = indices(0, 0, len(rows), len(rows)) * (len(rows) - size) // len(rows)
    found = np.empty_like(rows)
    found[rows] = rows[place + size * (place >= first)]
    return found


def _slice(seed: int, epoch: int, first: int, last: int, n: int) -> np.ndarray:
    """Positions [first, last) inside an epoch, int64."""
    if n <= BLOCK:
        return _permutation(seed, epoch, n, _EPOCH)[first:last]
    blocks = _permutation(seed, epoch, -(-n // BLOCK), _EPOCH)
    sizes = np.minimum(BLOCK, n - blocks * BLOCK)
    ends = np.cumsum(sizes)
    parts = []
    while first < last:
        at = int(np.searchsorted(ends, first, side='right'))
        begin, end = int(ends[at] - sizes[at]), int(min(ends[at], last))
        block = int(blocks[at])
        parts.append(block * BLOCK + _permutation(seed, epoch, int(sizes[at]), 1 + block)[first - begin : end - begin])
        first = end
    return np.concatenate(parts)


@functools.lru_cache(maxsize=4)
def _permutation(seed: int, epoch: int, size: int, stream: int) -> np.ndarray:
    """A fixed permutation of `range(size)`, read-only int64 [size]."""
    order = np.argsort(_philox(seed, epoch, stream).random_raw(size), kind='stable')
    order.flags.writeable = False
    return order


def _philox(seed: int, number: int, stream: int) -> np.random.Philox:
    """The bits of an epoch or a step; streams of the same numbers have nothing in common."""
    return np.random.Philox(key=np.array([seed, number], np.uint64), counter=np.array([0, 0, 0, stream], np.uint64))
