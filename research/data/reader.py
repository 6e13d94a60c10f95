"""Streaming: Grain decodes, batches and prefetches, in threads or in processes of its own.

It never shuffles, filters, repeats or shards: element i of its source is the example that `order` puts at the i-th
position, so a stream has no state of its own and starts anywhere.
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
from typing import Any

import numpy as np

from research.data import order
from research.data.dataset import Arrays, Dataset, Source

_THREADS = 4  # of a reader without processes; decoding and reading let go of Python's lock
_AHEAD = 2  # batches that each thread or process may be ahead
_SHARED_MEMORY = pathlib.Path('/dev/shm')
_OWNED = 'frugal_{}'  # by which process


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
    _remove_stale_memory()
    # Python names both after nobody, so what a killed reader leaves could not be told from what others use.
    multiprocessing.current_process()._config['semprefix'] = f'/{_OWNED.format(os.getpid())}'
    return iter(
        batched.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=_AHEAD)).mp_prefetch(
            grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=_AHEAD), worker_init_fn=_follow_parent
        )
    )


def _follow_parent(worker: int, workers: int) -> None:
    """Ends this process as soon as its parent is gone, even killed, and names its shared memory after the parent."""
    parent = multiprocessing.parent_process()
    for number in (signal.SIGINT, signal.SIGTERM):  # sent to the whole group; the parent decides
        signal.signal(number, signal.SIG_IGN)

    def wait() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    def name() -> str:
        # Python tells its tracker after it has made the memory: an end in between would leave it for good.
        name = f'/{_OWNED.format(parent.pid)}-{secrets.token_hex(8)}'
        resource_tracker.register(name, 'shared_memory')
        return name

    threading.Thread(target=wait, daemon=True).start()
    shared_memory._make_filename = name


def _remove_stale_memory() -> None:
    """Removes what readers held that were killed together with Python's own resource tracker."""
    for path in _SHARED_MEMORY.glob(f'*{_OWNED.format("*")}'):
        owner = re.fullmatch(rf'(?:sem\.)?{_OWNED.format("([0-9]+)")}-.*', path.name)
        if owner and not pathlib.Path('/proc', owner[1]).exists():
            with contextlib.suppress(OSError):  # another user's, or removed meanwhile
                path.unlink()
