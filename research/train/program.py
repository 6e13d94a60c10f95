"""Compiled functions, and what a process keeps between runs."""

import dataclasses
import functools
from collections.abc import Callable, Hashable, Mapping
from typing import Any

import jax
import numpy as np

from research import data, optim, tasks
from research.layers import formulation
from research.train import chunks, compilation, memory, parallel, steps
from research.train.clock import Clock
from research.train.phases import Phase
from research.train.state import State


class Compiled:
    """A function compiled at its first call and never again: another shape is an error, not a recompilation.

    Attributes:
      rate: calls' steps a second, as last measured; None before the first.
    """

    def __init__(self, engine, function: Callable[..., Any], donate: tuple[int, ...] = (), options: Any = None):
        self.jitted = engine.jit(function, donate)
        self.options = options
        self.executable: Any = None
        self.rate: float | None = None

    def prepare(self, clock: Clock, *args: Any) -> None:
        """Compiles for arguments like these; a second call does nothing."""
        if self.executable is None:
            before, hits = clock.seconds['compile'], compilation.hits()
            with clock.measure('compile'):
                self.executable = self.jitted.lower(*args).compile(self.options)
            if compilation.hits() > hits:
                clock.seconds['cached'] += clock.seconds['compile'] - before

    def __call__(self, clock: Clock, *args: Any) -> Any:
        self.prepare(clock, *args)
        return self.executable(*args)


@dataclasses.dataclass
class Program:
    """What every run with the same compile key shares: a step and its compiled functions.

    Attributes:
      chunk: phase -> the compiled training chunk, (state, Chunk) -> (state, sums); made when first asked for, kept for the
        process.
      evaluate: (Variables, data, Block) -> (sums, rows).
      final: (state, constants, Background) -> (params, collections); None where these are the state's own.
      predict: (params that are seen, collections, inputs) -> outputs on one device; compiled by batch size.
      written: (params that are seen, collections, batches {field: [n, B, ...]}) -> texts {name: [n, B, ...]} on one device;
        None where none are written.
      samples: Variables -> rows that the task shows; None where nothing is generated.
      write: (Variables, data, Block) -> rows; None where no texts are written.
      shapes: the state's, on one device.
    """

    step: steps.Step
    init: Compiled
    chunk: Callable[[Phase], Compiled]
    evaluate: Compiled
    final: Compiled | None
    predict: Callable[..., Any]
    written: Callable[..., Any] | None
    samples: Compiled | None
    write: Compiled | None
    shapes: State

    @property
    def engine(self) -> parallel.Jit | parallel.Pmap:
        """Where the program runs."""
        return self.step.engine

    @property
    def seen(self) -> Any:
        """Shapes of the parameters that the network sees."""
        return jax.eval_shape(self.step.weights, self.shapes.params, self.shapes.masks)


@dataclasses.dataclass
class Session:
    """What a process keeps between runs.

    Attributes:
      programs: by compile key, static facts of the data, shapes of constants, and how many examples stand on the devices.
      stores, datasets: sources, and what is cut from them, by the fields of `config.data` that tell them apart.
      placed, fitting: what lies on devices, and whether data were too large for it, with a sentence why.
      fits: what a memory budget has chosen, by compile key.
    """

    programs: dict[Hashable, Program] = dataclasses.field(default_factory=dict)
    stores: dict[Hashable, data.Store] = dataclasses.field(default_factory=dict)
    datasets: dict[Hashable, data.Dataset] = dataclasses.field(default_factory=dict)
    placed: dict[Hashable, Any] = dataclasses.field(default_factory=dict)
    fitting: dict[Hashable, tuple[bool, str]] = dataclasses.field(default_factory=dict)
    fits: dict[str, memory.Fit] = dataclasses.field(default_factory=dict)
    _kept: dict[int, np.ndarray] = dataclasses.field(default_factory=dict)

    def kept(self, dataset: data.Dataset) -> np.ndarray:
        """Rows that stand on the devices, rising: what any data set cut so far from the same source may read.

        A later one that reads others makes it all rows, so load every data set of a study before the first is placed.
        """
        if id(dataset.arrays) not in self._kept:
            cuts = [other for other in self.datasets.values() if other.arrays is dataset.arrays]
            self._kept[id(dataset.arrays)] = np.unique(np.concatenate([rows for cut in cuts for rows in cut.splits.values()]))
        kept, count = self._kept[id(dataset.arrays)], len(next(iter(dataset.arrays.values())))
        if len(kept) < count and not all(np.isin(rows, kept, assume_unique=True).all() for rows in dataset.splits.values()):
            kept = self._kept[id(dataset.arrays)] = np.arange(count)
        return kept

    def program(self, config: Mapping[str, Any], dataset: data.Dataset, key: str, kept: int) -> Program:
        """The program of a config with this compile key; static facts of the data and shapes of constants tell programs apart.

        Args:
          kept: examples that stand on the devices.
        """
        facts = tuple(sorted((name, fact) for name, fact in dataset.facts.items() if name not in data.NUMBERS))
        constants = tasks.create(config['task'], dataset.facts).constants
        shapes = tuple(sorted((name, np.shape(values)) for name, values in constants.items()))
        if (key, facts, shapes, kept) not in self.programs:
            self.programs[key, facts, shapes, kept] = create(config, dataset)
        return self.programs[key, facts, shapes, kept]


def create(config: Mapping[str, Any], dataset: data.Dataset) -> Program:
    """The program of a config; nothing is compiled."""
    step = steps.create(config, dataset, parallel.create(config['train']['engine'], config['train']['devices']))
    platform = step.engine.devices[0].platform
    options = formulation.compiler_options(platform)
    if config['train']['deterministic'] and platform == 'gpu':
        options['xla_gpu_deterministic_ops'] = True

    def precise(function, *bound):
        def at_precision(*arguments):
            with jax.default_matmul_precision(config['train']['matmul_precision']):
                return function(*bound, *arguments)

        return at_precision

    def compiled(function, *bound, donate=()):
        return Compiled(step.engine, precise(function, *bound), donate, options or None)

    def in_turn(seen, collections, batches):
        return jax.lax.map(lambda batch: step.written(seen, collections, batch), batches)

    shapes = state_shapes(config, step)
    fits = 'reference' not in shapes.collections and not optim.averages(shapes.opt_state)
    return Program(
        step=step,
        init=Compiled(step.engine, step.init),
        chunk=functools.cache(lambda phase: compiled(chunks.train_chunk, step, phase, donate=(0,))),
        evaluate=compiled(step.evaluate),
        final=None if fits else compiled(step.final),
        predict=jax.jit(precise(step.predict), compiler_options=options or None),
        written=jax.jit(precise(in_turn), compiler_options=options or None) if step.write else None,
        samples=compiled(step.samples) if step.samples else None,
        write=compiled(step.write) if step.write else None,
        shapes=shapes,
    )


def state_shapes(config: Mapping[str, Any], step: steps.Step) -> State:
    """The shapes of the state before the first step."""
    return jax.eval_shape(step.init, jax.random.key(0), optim.hyperparameters(config), {})
