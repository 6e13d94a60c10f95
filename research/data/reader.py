"""Streaming: Grain decodes, batches and prefetches, in threads or in separate processes.

It never shuffles, filters, repeats or shards: element i of its source is the sampler's i-th position. So a stream has no
state of its own and can start anywhere.
"""

import contextlib
import dataclasses
import functools
import multiprocessing
import multiprocessing.connection
import os
import pathlib
import re
import secrets
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from multiprocessing import resource_tracker, shared_memory

import numpy as np

from research.data import order
from research.data.dataset import Arrays, Dataset, Examples, Field, decoded
from research.data.sampling import Sampler

_THREADS = 4  # of a reader without processes; decoding and reading release Python's lock
_AHEAD = 2  # batches that each thread or process may be ahead
_SHARED_MEMORY = pathlib.Path('/dev/shm')
_OWNED = 'frugal_{}'  # by a process


def stream(
    dataset: Dataset, sampler: Sampler, seed: int, start: int, batch_size: int, host: int = 0, hosts: int = 1, workers: int = 0
) -> Iterator[Arrays]:
    """Endless training batches from a position on; equal to gathering `sampling.batches` from resident data.

    Args:
      dataset: where rows are read from.
      sampler: which rows, see `sampling.Sampler`.
      seed: of the order.
      start: position of the first example of the first batch, over all hosts.
      batch_size: B, over all hosts.
      host, hosts: which rows of each batch to read, see `order.position`.
      workers: processes that read and decode; 0 for threads in this one. The batches are the same. Processes need a script
        with an `if __name__ == '__main__'` guard.

    Returns:
      Iterator of {field: [B / hosts, *shape]}, or {field: [B / hosts, k, *shape]} if a position takes k rows, with the
      field's fill in rows of -1. Its `close()` ends the processes; they also end with this process.

    Raises:
      ConfigError: batch_size is not a multiple of hosts.
    """
    order.position(0, start, batch_size, host, hosts)
    pick = functools.partial(_sampled, sampler, seed, start, batch_size, host, hosts)
    return _read(_Picked(dataset.source, dataset.fields, pick, sys.maxsize), batch_size // hosts, workers)


def read(dataset: Dataset, rows: np.ndarray, batch_size: int, workers: int = 0) -> Iterator[Arrays]:
    """Batches of the given rows in order; the last may be smaller.

    Args:
      dataset: where rows are read from.
      rows: indices into `dataset.source`, int [N] or [N, k]; -1 is empty.
      batch_size: B.
      workers: see `stream`.

    Returns:
      Iterator of {field: [B, *shape]} or {field: [B, k, *shape]}, with the field's fill in rows of -1.
    """
    return _read(_Picked(dataset.source, dataset.fields, rows.__getitem__, len(rows)), batch_size, workers)


@dataclasses.dataclass(frozen=True)
class _Picked:
    """A source whose element i is the examples in the rows `pick(i)`, a number or [k]."""

    source: Examples
    fields: Mapping[str, Field]
    pick: Callable[[int], np.ndarray]
    size: int

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Arrays:
        return decoded(self.source, self.fields, self.pick(index))


def _sampled(sampler: Sampler, seed: int, start: int, batch_size: int, host: int, hosts: int, index: int) -> np.ndarray:
    position = order.position(index, start, batch_size, host, hosts)
    return sampler(seed, position, position + 1)[0]


def _read(source: _Picked, batch_size: int, workers: int) -> Iterator[Arrays]:
    import grain  # takes a second, which resident data save
    from absl import flags

    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # Grain's processes check
    batched = grain.MapDataset.source(source).batch(batch_size)
    if not workers:
        return iter(batched.to_iter_dataset(grain.ReadOptions(num_threads=_THREADS, prefetch_buffer_size=_THREADS * _AHEAD)))
    _remove_stale_memory()
    # By default Python's names contain no owner, so leftovers of a killed reader would look like memory in use.
    multiprocessing.current_process()._config['semprefix'] = f'/{_OWNED.format(os.getpid())}'
    return iter(
        batched.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=_AHEAD)).mp_prefetch(
            grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=_AHEAD), worker_init_fn=_follow_parent
        )
    )


def _follow_parent(worker: int, workers: int) -> None:
    """Ends this process as soon as its parent is gone, even killed, and names its shared memory after the parent."""
    parent = multiprocessing.parent_process()
    for number in (signal.SIGINT, signal.SIGTERM):  # sent to the whole group; the parent handles it
        signal.signal(number, signal.SIG_IGN)

    def wait() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    def name() -> str:
        # Python registers the memory after creating it: a process that ends in between would leak it.
        name = f'/{_OWNED.format(parent.pid)}-{secrets.token_hex(8)}'
        resource_tracker.register(name, 'shared_memory')
        return name

    threading.Thread(target=wait, daemon=True).start()
    shared_memory._make_filename = name


def _remove_stale_memory() -> None:
    """Removes shared memory of readers that were killed together with Python's resource tracker."""
    for path in _SHARED_MEMORY.glob(f'*{_OWNED.format("*")}'):
        owner = re.fullmatch(rf'(?:sem\.)?{_OWNED.format("([0-9]+)")}-.*', path.name)
        if owner and not pathlib.Path('/proc', owner[1]).exists():
            with contextlib.suppress(OSError):  # another user's, or removed meanwhile
                path.unlink()
