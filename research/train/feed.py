"""Arguments of the compiled chunk and of the evaluation: index rows into resident data, or streamed data with its rows.

Either way the program gathers `data['image'][indices[i]]`, so that the same config read both ways gives the same bits.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from research.data import order, reader

# Index, control and sum buffers of a chunk have one size, so that every chunk of a phase is the same program.
_CHUNK_STEPS, _CHUNK_ROWS = 1024, 1 << 20
# Streamed examples of one call are stacked on the device; this bounds them.
_STREAM_BYTES = 64 << 20


class Feed:
    """Batches of one run, from any position on. Its only state is a stream's place, which `chunk` corrects by itself."""

    def __init__(self, experiment: Any):
        self.experiment, self.dataset = experiment, experiment.dataset
        self.data_config, self.engine = experiment.config['data'], experiment.program.engine
        self.resident = not self.data_config['streaming']
        example = int(np.prod(self.dataset.example_shape)) * np.dtype(self.dataset.dtype).itemsize
        self._bound = max(1, _STREAM_BYTES // example)
        self._stream: Iterator[Any] | None = None
        self._place = (-1, 0)  # position and batch size that the stream goes on with

    def capacity(self, batch_size: int) -> int:
        """Steps that one chunk can hold."""
        steps = max(1, min(_CHUNK_STEPS, _CHUNK_ROWS // batch_size))
        return steps if self.resident else max(1, min(steps, self._bound // batch_size))

    def chunk(self, first: int, position: int, steps: int, batch_size: int, levels: Mapping[str, int]) -> tuple[Any, ...]:
        """What `chunks.train_chunk` takes behind the state, for `steps` steps from step `first` on, at a position."""
        experiment, capacity = self.experiment, self.capacity(batch_size)
        starts = position + np.arange(steps, dtype=np.int64) * batch_size
        controls = {}
        for name, values in experiment.controls(starts, batch_size, levels).items():
            controls[name] = np.zeros(capacity, np.float32)
            controls[name][:steps] = values
        halves = np.zeros((capacity, 2), np.uint32)
        halves[:steps] = np.stack([starts >> 32, starts & 0xFFFFFFFF], axis=-1)
        indices = np.zeros((capacity, batch_size), np.int32)
        if self.resident:
            train = self.dataset.splits['train']
            rows = order.batches(experiment.order_seed, position, steps, batch_size, len(train))
            indices[:steps], data = train[rows], experiment.placed
        else:
            indices[:steps] = np.arange(steps * batch_size).reshape(steps, batch_size)
            data = self._placed(self._batches(position, steps, batch_size), capacity * batch_size)
        return data, experiment.reference, *self.engine.replicate((indices, halves, controls, np.int32(first), np.int32(steps)))

    def blocks(self, split: str) -> Iterator[tuple[Any, np.ndarray, np.ndarray, int, int]]:
        """A whole split as (data, indices [E, B], mask [E, B], batches, first): each example once, padding masked.

        One shape for every split, so that one compiled evaluation serves all; streamed data come in bounded blocks.
        """
        rows, size = self.dataset.splits[split], self.data_config['eval_batch_size']
        batches = -(-max(len(self.dataset.splits[s]) for s in ('validation', 'test')) // size)
        capacity = batches if self.resident else max(1, min(batches, self._bound // size))
        for first in range(0, len(rows), capacity * size):
            block = rows[first : first + capacity * size]
            indices, mask = np.zeros(capacity * size, np.int32), np.zeros(capacity * size, np.float32)
            mask[: len(block)] = 1
            if self.resident:
                indices[: len(block)], data = block, self.experiment.placed
            else:
                indices[: len(block)] = np.arange(len(block))
                examples = reader.read(self.dataset, block, size, workers=self.data_config['workers'])
                data = self._placed(list(examples), len(mask))
            data = {**data, **self.experiment.judge}
            yield data, indices.reshape(capacity, size), mask.reshape(capacity, size), -(-len(block) // size), first

    def close(self) -> None:
        """Ends the reader's threads or processes."""
        if self._stream is not None and hasattr(self._stream, 'close'):
            self._stream.close()
        self._stream = None

    def _batches(self, position: int, steps: int, batch_size: int) -> list[Any]:
        if self._stream is None or (position, batch_size) != self._place:
            self.close()
            workers = self.data_config['workers']
            self._stream = reader.stream(self.dataset, self.experiment.order_seed, position, batch_size, workers=workers)
        self._place = (position + steps * batch_size, batch_size)
        return [next(self._stream) for _ in range(steps)]

    def _placed(self, batches: list[Any], capacity: int) -> Any:
        arrays = {}
        for name in ('image', 'label'):
            rows = np.concatenate([b[name] for b in batches])
            arrays[name] = np.zeros((capacity, *rows.shape[1:]), rows.dtype)
            arrays[name][: len(rows)] = rows
        return {**self.experiment.placed, **self.engine.replicate(arrays)}
