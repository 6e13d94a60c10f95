"""Streaming: threads that read batches ahead.

A batch is a gather of the rows at its positions, from arrays that may be memory-mapped; NumPy copies them without Python's
lock. A stream has no state of its own and can start anywhere.
"""

import collections
import concurrent.futures
import itertools
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from research.data import order, sampling
from research.data.dataset import Dataset, take
from research.data.sampling import Sampler

_AHEAD = 4  # batches that a thread may be ahead


def stream(
    dataset: Dataset, sampler: Sampler, seed: int, start: int, batch_size: int, host: int = 0, hosts: int = 1, workers: int = 1
) -> Iterator[Mapping[str, np.ndarray]]:
    """Endless training batches from a position on; equal to gathering `sampling.batches` from resident data.

    Args:
      dataset: where rows are read from.
      sampler: which rows, see `sampling.Sampler`.
      seed: of the order.
      start: position of the first example of the first batch, over all hosts.
      batch_size: B, over all hosts.
      host, hosts: which rows of each batch to read, see `order.position`.
      workers: threads; the batches are the same.

    Returns:
      Iterator of {field: [B / hosts, *shape]}, or {field: [B / hosts, k, *shape]} if a position takes k rows, with the
      field's fill in rows of -1. Its `close()` ends the threads.

    Raises:
      ConfigError: batch_size is not a multiple of hosts.
    """
    order.position(0, start, batch_size, host, hosts)

    def batch(index: int) -> Mapping[str, np.ndarray]:
        [rows] = sampling.batches(sampler, seed, start + index * batch_size, 1, batch_size, host, hosts)
        return take(dataset, rows)

    return _ahead(batch, itertools.count(), workers)


def read(dataset: Dataset, rows: np.ndarray, batch_size: int, workers: int = 1) -> Iterator[Mapping[str, np.ndarray]]:
    """Batches of the given rows in order; the last may be smaller.

    Args:
      dataset: where rows are read from.
      rows: int [N] or [N, k]; -1 is empty.
      batch_size: B.
      workers: see `stream`.

    Returns:
      Iterator of {field: [B, *shape]} or {field: [B, k, *shape]}, with the field's fill in rows of -1.
    """
    return _ahead(lambda first: take(dataset, rows[first : first + batch_size]), range(0, len(rows), batch_size), workers)


def _ahead(
    batch: Callable[[int], Mapping[str, np.ndarray]], indices: Iterator[int] | range, workers: int
) -> Iterator[Mapping[str, np.ndarray]]:
    """`batch(i)` of each index in order, computed by threads ahead of time."""
    pool, indices = concurrent.futures.ThreadPoolExecutor(workers, 'reader'), iter(indices)
    try:
        pending = collections.deque(pool.submit(batch, i) for i in itertools.islice(indices, workers * _AHEAD))
        while pending:
            yield pending.popleft().result()
            pending.extend(pool.submit(batch, i) for i in itertools.islice(indices, 1))
    finally:
        pool.shutdown(cancel_futures=True)
