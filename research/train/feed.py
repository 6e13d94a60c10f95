"""Arguments of the compiled chunk and of the evaluation: index rows into resident data, or streamed data with its rows.

Either way the program gathers `data['image'][indices[i]]`, so that the same config read both ways gives the same bits.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from research.data import order, reader
from research.train.experiment import Experiment

# Streamed examples of one call are stacked on the device; this bounds them.
_STREAM_BYTES = 64 << 20


class Feed:
    """Batches of one run, from any position on. Its only state is a stream's place, which `chunk` corrects by itself."""

    def __init__(self, experiment: Experiment):
        self.experiment, self.dataset = experiment, experiment.dataset
        self.data_config, self.engine = experiment.config['data'], experiment.program.engine
        self.resident = not self.data_config['streaming']
        example = int(np.prod(self.dataset.example_shape)) * np.dtype(self.dataset.dtype).itemsize
        self._bound = max(1, _STREAM_BYTES // example)
        self._stream: Iterator[Any] | None = None
        self._next = -1

    @property
    def capacity(self) -> int:
        """Steps that one chunk can hold."""
        steps = self.experiment.chunk_steps
        return steps if self.resident else max(1, min(steps, self._bound // self.experiment.batch_size))

    def chunk(self, first: int, steps: int) -> tuple[Any, ...]:
        """What `step.train_chunk` takes behind the state, for `steps` steps from step `first`, on the devices."""
        experiment, batch, capacity = self.experiment, self.experiment.batch_size, self.capacity
        starts = np.arange(first, first + steps, dtype=np.int64) * batch
        rates = np.zeros(capacity, np.float32)
        rates[:steps] = experiment.rates(starts)
        halves = np.zeros((capacity, 2), np.uint32)
        halves[:steps] = np.stack([starts >> 32, starts & 0xFFFFFFFF], axis=-1)
        indices = np.zeros((capacity, batch), np.int32)
        if self.resident:
            train = self.dataset.splits['train']
            rows = order.batches(experiment.order_seed, first * batch, steps, batch, len(train))
            indices[:steps], data = train[rows], experiment.placed
        else:
            indices[:steps] = np.arange(steps * batch).reshape(steps, batch)
            data = self._placed(self._batches(first * batch, steps), capacity * batch)
        return data, experiment.reference, *self.engine.replicate((indices, halves, rates, np.int32(steps)))

    def blocks(self, split: str) -> Iterator[tuple[Any, np.ndarray, np.ndarray, int]]:
        """A whole split as (data, indices [E, B], mask [E, B], batches): each example once, padding masked.

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
            yield data, indices.reshape(capacity, size), mask.reshape(capacity, size), -(-len(block) // size)

    def close(self) -> None:
        """Ends the reader's threads or processes."""
        if self._stream is not None and hasattr(self._stream, 'close'):
            self._stream.close()
        self._stream = None

    def _batches(self, position: int, steps: int) -> list[Any]:
        if self._stream is None or position != self._next:
            self.close()
            config = self.data_config
            self._stream = reader.stream(
                self.dataset, self.experiment.order_seed, position, config['batch_size'], workers=config['workers']
            )
        self._next = position + steps * self.experiment.batch_size
        return [next(self._stream) for _ in range(steps)]

    def _placed(self, batches: list[Any], capacity: int) -> Any:
        arrays = {}
        for name in ('image', 'label'):
            rows = np.concatenate([b[name] for b in batches])
            arrays[name] = np.zeros((capacity, *rows.shape[1:]), rows.dtype)
            arrays[name][: len(rows)] = rows
        return {**self.experiment.placed, **self.engine.replicate(arrays)}
