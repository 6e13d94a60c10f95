"""Scores a whole split: sums added up over batches, divided once."""

import pathlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from research.train import membership, pictures
from research.train.clock import Clock
from research.train.experiment import Experiment
from research.train.feed import Feed
from research.train.progress import add
from research.train.state import Block, State, Variables

Predict = Callable[[Any, Block], tuple[Mapping[str, Any], Mapping[str, Any]]]


def score(blocks: Iterable[tuple[Any, Block]], predict: Predict, task: Any) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Metrics over a whole split, and what was kept of each example of it; neither where it is empty.

    Args:
      blocks: (data, Block on the host) each, see `Feed.blocks`.
      predict: (data, Block) -> (sums [E], rows [E, B, ...]); compiled, or any function of the host, such as one that asks
        another runtime's session.
      task: research.tasks.Task or Generation; its `metrics` and `judge` are used.
    """
    total: dict[str, float] = {}

    def rows(data, block):
        sums, found = predict(data, block)
        add(total, {name: np.asarray(values, np.float64)[: block.batches] for name, values in sums.items()})
        return found

    whole = _gathered(blocks, rows)
    return ({**task.metrics(total), **task.judge(whole)}, whole) if total else ({}, {})


def _gathered(blocks: Iterable[tuple[Any, Block]], rows_of: Callable[[Any, Block], Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """What `rows_of` gives of each block, {name: [E, B, ...]}, as {name: [N, ...]} of the examples of all."""
    kept: dict[str, list[np.ndarray]] = {}
    for data, block in blocks:
        for name, values in rows_of(data, block).items():
            kept.setdefault(name, []).append(np.asarray(values)[block.valid > 0])
    return {name: np.concatenate(values) for name, values in kept.items()}


def variables_of(state: State) -> Variables:
    """What is evaluated where nothing is averaged."""
    return Variables(state.params, state.masks, state.collections)


class Evaluator:
    """Evaluations of one run, by its compiled program."""

    def __init__(self, experiment: Experiment, feed: Feed, clock: Clock):
        self.experiment, self.program, self.feed, self.clock = experiment, experiment.program, feed, clock
        self.task, self.engine, self.splits = self.program.step.task, self.program.engine, experiment.dataset.splits

    def final(self, state: State) -> Variables:
        """The variables for evaluation: averaged weights, and statistics that fit them."""
        if self.program.final is None:
            return variables_of(state)
        constants, background = self.experiment.data['constants'], self.experiment.background
        params, collections = self.program.final(self.clock, state, constants, background)
        return Variables(params, state.masks, collections)

    def score(
        self, variables: Variables, name: str, rows: np.ndarray | None = None, writes: bool = False
    ) -> tuple[dict[str, float], dict[str, np.ndarray]]:
        """'name/...': metrics over the split of this name, or over these rows of the data set; and what was kept of each.

        Args:
          writes: score the texts too that the network writes for the split, where the task has such.
        """

        def compiled(function):
            return lambda data, block: self.engine.read(function(self.clock, variables, data, self.engine.replicate(block)))

        rows = self.splits[name] if rows is None else rows
        metrics, kept = score(self.feed.blocks(rows), compiled(self.program.evaluate), self.task)
        if writes and self.program.write is not None and metrics:
            kept |= _gathered(self.feed.blocks(rows), compiled(self.program.write))
            metrics |= self.task.writing.score(kept, self.experiment.dataset, name)
        return {f'{name}/{metric}': value for metric, value in metrics.items()}, kept

    def fitted(self, variables: Variables, split: str, others: Mapping[str, np.ndarray]) -> dict[str, float]:
        """'fitted/...': metrics on training examples as in an evaluation, without augmentation; as many as the split has.

        Args:
          others: what was kept of each example of the split.
        """
        if not self.task.fits:
            return {}
        rows = self.splits['train']
        places = np.linspace(0, len(rows) - 1, min(len(rows), len(self.splits[split]))).astype(int)
        metrics, kept = self.score(variables, 'fitted', rows[places])
        told = {'fitted/membership_auc': membership.auc(kept['loss'], others['loss'])} if 'loss' in others else {}
        return {**metrics, **told}

    def show(self, variables: Variables, directory: pathlib.Path, step: int) -> None:
        """Writes what the task shows of its samples into DIRECTORY/NAME/STEP.png."""
        if self.program.samples is not None:
            rows = self.engine.read(self.program.samples(self.clock, variables))
            for name, picture in self.task.show({k: np.asarray(v) for k, v in rows.items()}).items():
                pictures.write(directory / name, step, picture)
