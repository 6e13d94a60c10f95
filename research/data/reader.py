"""Streaming: Grain decodes, batches and prefetches, in threads or in processes of its own.

It never shuffles, filters, repeats or shards: element i of its source is the example that `order` puts at the i-th
position, so a stream has no state of its own and starts anywhere.
"""

import dataclasses
import functools
import multiprocessing
import multiprocessing.connection
import multiprocessing.util
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from research.data import order
from research.data.dataset import Arrays, Dataset, Source

_THREADS = 4  # of a reader without processes; decoding and reading let go of Python's lock
_AHEAD = 2  # batches that each thread or process may be ahead
_LAST_WORDS = 0.5  # seconds


def stream(
    dataset: Dataset, seed: int, start: int, batch_size: int, host: int = 0, hosts: int = 1, workers: int = 0
) -> Iterator[Arrays]:
    """Training batches from a position on, without end; equal to gathering `order.batches` from resident data.

    Args:
      dataset: its training split is read.
      seed: of the order.
      start: position of the first example of the first batch, over all hosts.
      batch_size: B, over all hosts.
      host, hosts: which rows of each batch to read, see `order.position`.
      workers: processes that read and decode; 0 for threads here. The batches are the same. Processes want a script with
        an `if __name__ == '__main__'` guard.

    Returns:
      Iterator of {'image': [B / hosts, H, W, C], 'label': int32 [B / hosts]}. Its `close()` ends the processes; they end
      with this process in any case.

    Raises:
      ConfigError: batch_size is not a multiple of hosts.
    """
    order.position(0, start, batch_size, host, hosts)
    pick = functools.partial(_shuffled, dataset.splits['train'], seed, start, batch_size, host, hosts)
    return _read(_Picked(dataset.source, pick, sys.maxsize), batch_size // hosts, workers)


def read(dataset: Dataset, examples: np.ndarray, batch_size: int, workers: int = 0) -> Iterator[Arrays]:
    """Batches of the given examples (indices into `dataset.source`, int [N]) in their order; the last may be smaller."""
    return _read(_Picked(dataset.source, examples.__getitem__, len(examples)), batch_size, workers)


@dataclasses.dataclass(frozen=True)
class _Picked:
    """A source whose element i is `source[pick(i)]`."""

    source: Source
    pick: Callable[[int], int]
    size: int

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        return self.source[int(self.pick(index))]


def _shuffled(examples: np.ndarray, seed: int, start: int, batch_size: int, host: int, hosts: int, index: int) -> int:
    position = order.position(index, start, batch_size, host, hosts)
    return examples[order.indices(seed, position, position + 1, len(examples))[0]]


def _read(source: _Picked, batch_size: int, workers: int) -> Iterator[Arrays]:
    import grain  # a second, which resident data do without
    from absl import flags

    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # Grain's processes ask
    batched = grain.MapDataset.source(source).batch(batch_size)
    if not workers:
        return iter(batched.to_iter_dataset(grain.ReadOptions(num_threads=_THREADS, prefetch_buffer_size=_THREADS * _AHEAD)))
    reader = batched.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=_AHEAD)).mp_prefetch(
        grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=_AHEAD), worker_init_fn=_leave_promptly
    )
    # Through pipes: a killed process leaves its shared memory behind, and nothing tells whose it was.
    return iter(grain.experimental.WithOptionsIterDataset(reader, grain.experimental.DatasetOptions(min_shm_size=sys.maxsize)))


def _leave_promptly(worker: int, workers: int) -> None:
    """Ends this process when its parent is gone, even killed, and soon after it is told to stop.

    What it still holds is of no use then, but Python would wait until somebody has read it.
    """

    def follow() -> None:
        multiprocessing.connection.wait([multiprocessing.parent_process().sentinel])
        os._exit(1)

    def hurry() -> None:
        last_words = threading.Timer(_LAST_WORDS, os._exit, [1])  # an exception may be on its way to the parent
        last_words.daemon = True
        last_words.start()

    threading.Thread(target=follow, daemon=True).start()
    multiprocessing.util.Finalize(None, hurry, exitpriority=100)
