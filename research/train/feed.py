"""What the compiled chunk and the evaluation take: places in resident data, or streamed data with theirs.

Either way the program gathers `examples[field][rows[i]]`, so that the same config read both ways gives the same bits.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from research.data import reader, sampling
from research.train.state import Block, Chunk

# Index, control and sum buffers of a chunk have one size, so that every chunk of a phase is the same program.
_CHUNK_STEPS, _CHUNK_ROWS = 1024, 1 << 20
# That read ahead, where the config names no number.
_THREADS = 4
# Streamed examples of one call are stacked on the device; this bounds them.
_STREAM_BYTES = 64 << 20


class Feed:
    """Batches of one run, from any position on. Its only state is a stream's place, which `chunk` corrects by itself."""

    def __init__(self, experiment: Any):
        self.experiment, self.dataset = experiment, experiment.dataset
        self.data_config, self.engine = experiment.config['data'], experiment.program.engine
        self.resident, self.workers = not experiment.streaming, self.data_config['workers'] or _THREADS
        if not self.resident:
            for column in self.dataset.arrays.values():
                column.expect_random_reads()
        # Row -> its place on the devices; -1 for row -1.
        self._places = np.full(len(next(iter(self.dataset.arrays.values()))) + 1, -1, np.int32)
        self._places[experiment.kept] = np.arange(len(experiment.kept))
        # Rows that a position takes: () for one, (k,) for several.
        self._several = experiment.sampler(experiment.order_seed, 0, 1).shape[1:]
        example = sum(int(np.prod(f.shape)) * np.dtype(f.dtype).itemsize for f in self.dataset.fields.values())
        self._bound = max(1, _STREAM_BYTES // (example * int(np.prod(self._several))))
        self._stream: Iterator[Any] | None = None
        self._place = (-1, 0)  # position and batch size that the stream goes on with

    def capacity(self, batch_size: int) -> int:
        """Steps that one chunk can hold."""
        steps = max(1, min(_CHUNK_STEPS, _CHUNK_ROWS // batch_size))
        return steps if self.resident else max(1, min(steps, self._bound // batch_size))

    def chunk(self, first: int, position: int, steps: int, batch_size: int, levels: Mapping[str, int]) -> Chunk:
        """What `chunks.train_chunk` takes for `steps` steps from step `first` on, at a position."""
        experiment, capacity = self.experiment, self.capacity(batch_size)
        updates = first + np.arange(steps, dtype=np.int64)
        starts = position + (updates - first) * batch_size
        controls = {}
        for name, values in experiment.controls(starts, updates, batch_size, levels).items():
            controls[name] = np.zeros(capacity, np.float32)
            controls[name][:steps] = values
        halves = np.zeros((capacity, 2), np.uint32)
        halves[:steps] = np.stack([starts >> 32, starts & 0xFFFFFFFF], axis=-1)
        rows = np.zeros((capacity, batch_size, *self._several), np.int32)
        if self.resident:
            batches = sampling.batches(experiment.sampler, experiment.order_seed, position, steps, batch_size)
            rows[:steps] = self._places[batches]
            data = experiment.data
        else:
            places = np.arange(steps * batch_size * int(np.prod(self._several)))
            rows[:steps] = places.reshape(rows[:steps].shape)
            data = self._placed(self._batches(position, steps, batch_size), rows.size)
        told = self.engine.replicate((rows, halves, controls, np.int32(first), np.int32(steps)))
        return Chunk(data, experiment.background.reference, *told)

    def blocks(self, rows: np.ndarray) -> Iterator[tuple[Any, Block]]:
        """These rows of the data set, once each, as (data, Block on the host).

        One shape for every split, so that one compiled evaluation serves all; streamed data come in bounded blocks.
        """
        size, lengths = self.data_config['eval_batch_size'], [len(self.dataset.splits[s]) for s in ('validation', 'test')]
        batches = max(1, -(-max(lengths) // size))
        capacity = batches if self.resident else max(1, min(batches, self._bound // size))
        for first in range(0, len(rows), capacity * size):
            numbers = rows[first : first + capacity * size]
            valid = np.zeros(capacity * size, np.float32)
            valid[: len(numbers)] = 1
            padded = np.zeros((2, capacity * size), np.int32)
            padded[:, : len(numbers)] = self._places[numbers], numbers
            data = self.experiment.data
            if not self.resident:
                padded[0, : len(numbers)] = np.arange(len(numbers))
                examples = reader.read(self.dataset, numbers, size, workers=self.workers)
                data = self._placed(list(examples), len(valid))
            places, numbered, valid = (x.reshape(capacity, size) for x in (*padded, valid))
            yield data, Block(places, numbered, valid, np.int32(-(-len(numbers) // size)), np.int32(first))

    def close(self) -> None:
        """Ends the reader's threads."""
        if self._stream is not None:
            self._stream.close()
        self._stream = None

    def _batches(self, position: int, steps: int, batch_size: int) -> list[Any]:
        if self._stream is None or (position, batch_size) != self._place:
            self.close()
            experiment = self.experiment
            self._stream = reader.stream(
                self.dataset, experiment.sampler, experiment.order_seed, position, batch_size, workers=self.workers
            )
        self._place = (position + steps * batch_size, batch_size)
        return [next(self._stream) for _ in range(steps)]

    def _placed(self, batches: list[Any], capacity: int) -> dict[str, Any]:
        """Streamed batches on the devices, padded to `capacity` rows: as resident data are."""
        examples = {}
        for name, field in self.dataset.fields.items():
            rows = np.concatenate([b[name].reshape(-1, *field.shape) for b in batches])
            examples[name] = np.zeros((capacity, *field.shape), field.dtype)
            examples[name][: len(rows)] = rows
        return {**self.experiment.data, 'examples': self.engine.replicate(examples)}
