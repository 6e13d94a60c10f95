"""What lies on the devices beside the state: data, the reference batch, weights to start from.

`experiment` is a research.train.experiment.Experiment whose program is known.
"""

import math
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from research import cost, optim, pretrained
from research.data import Dataset, take
from research.data.dataset import Column
from research.train.parallel import Jit, Pmap
from research.train.program import Session
from research.train.state import Background

# Of the free memory, what data may take: a step needs the rest.
_SHARE = 0.5
# Rows copied at once.
_BLOCK = 4096

# From this many examples batch statistics of averaged weights are taken.
_STATISTICS_ROWS = 2048


def streams(
    config: Mapping[str, Any], dataset: Dataset, engine: Jit | Pmap, kept: np.ndarray, session: Session
) -> tuple[bool, str]:
    """Whether a run reads its data batch by batch, and a sentence why; '' where the config says so.

    Args:
      kept: rows that would stand on the devices.
      session: keeps the answer, as data that have been placed leave less room for the next to ask.
    """
    streaming = config['data']['streaming']
    if streaming != 'auto':
        return streaming, ''
    key = _key(dataset, engine, kept)
    if key not in session.fitting:
        session.fitting[key] = _too_large(dataset, engine, kept)
    return session.fitting[key]


def _too_large(dataset: Dataset, engine: Jit | Pmap, kept: np.ndarray) -> tuple[bool, str]:
    size = len(kept) * sum(math.prod(field.shape) * field.dtype.itemsize for field in dataset.fields.values())
    devices = engine.devices
    room = cost.room(devices[0])
    size *= len(devices) if devices[0].platform == 'cpu' else 1  # host devices share one memory
    if room is None or size <= _SHARE * room:
        return False, ''
    return True, (
        f'{dataset.name} is streamed: it takes {size / 2**20:,.0f} MiB on the devices, more than {_SHARE:.0%} of the '
        f'{room / 2**20:,.0f} MiB that are free.'
    )


def examples(dataset: Dataset, engine: Jit | Pmap, kept: np.ndarray, session: Session) -> Any:
    """The kept rows on the devices, {field: [len(kept), ...]}: one copy of a source and engine, whatever the number of runs.

    On CPU a memory-mapped file is itself that copy where all of it is kept.
    """
    key = _key(dataset, engine, kept)
    if key not in session.placed:
        columns = {name: dataset.arrays[name] for name in dataset.fields}
        whole = all(len(kept) == len(column) and len(column.parts) == 1 for column in columns.values())
        host = {name: column.parts[0] if whole else _aligned(column, kept) for name, column in columns.items()}
        session.placed[key] = engine.replicate(host, may_alias=True)
    return session.placed[key]


def _key(dataset: Dataset, engine: Jit | Pmap, kept: np.ndarray) -> tuple[Any, ...]:
    return id(dataset.arrays), len(kept), type(engine).__name__, len(engine.devices)


def _aligned(column: Column, rows: np.ndarray) -> np.ndarray:
    """Rows of a column, in memory that a device of the host takes over without a copy (XLA wants 64 bytes)."""
    size = len(rows) * math.prod(column.shape[1:]) * column.dtype.itemsize
    memory = np.empty(size + 64, np.uint8)
    out = memory[-memory.ctypes.data % 64 :][:size].view(column.dtype).reshape(len(rows), *column.shape[1:])
    for first in range(0, len(rows), _BLOCK):
        out[first : first + _BLOCK] = column[rows[first : first + _BLOCK]]
    return out


def background(experiment: Any) -> Background:
    """The reference batch, and blocks for statistics where averaged weights need such; drawn by the seed."""
    config, dataset, shapes = experiment.config, experiment.dataset, experiment.program.shapes
    count, blocks = config['data']['reference_size'], 0
    if optim.averages(shapes.opt_state) and 'batch_stats' in shapes.collections:
        blocks = max(1, min(_STATISTICS_ROWS, experiment.epoch) // count)
    seed = config['train']['seed'] + (zlib.crc32(b'reference') << 32)
    taken = take(dataset, experiment.sampler(seed, 0, count * (1 + blocks)))
    reference = {name: values[:count] for name, values in taken.items()}
    statistics = {name: values[count:].reshape(blocks, count, *values.shape[1:]) for name, values in taken.items()}
    return experiment.program.engine.replicate(Background(reference, statistics))


def weights(experiment: Any, session: Session) -> dict[str, Any]:
    """Weights to start from, read once a process for a network, a tokenizer and an engine."""
    config, program, tokenizer = experiment.config, experiment.program, experiment.dataset.tokenizer
    path = config['model']['init_from']
    if not path:
        return {}
    shape, engine = program.step.inputs(1)[0][0].shape, program.engine
    key = f'{sorted(config["model"].items())} {shape} {type(engine).__name__} {len(engine.devices)}', tokenizer
    if key not in session.placed:
        loaded = pretrained.weights(program.step.module, config['model']['name'], path, shape, tokenizer)
        session.placed[key] = engine.replicate(loaded)
    return session.placed[key]
