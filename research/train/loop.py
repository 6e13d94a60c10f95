"""Trains one run: dispatch chunk i, read chunk i-1; evaluate, checkpoint and record where they are due.

The loop stops at boundaries alone (an evaluation, a checkpoint, the end), so between them the device never waits.
"""

import dataclasses
import pathlib
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from research import cost, durations
from research.train import experiment as experiments
from research.train.checkpoint import Checkpoints, save_variables
from research.train.clock import Clock
from research.train.experiment import Experiment
from research.train.feed import Feed
from research.train.record import Metrics

# A chunk lasts about this long: often enough to show progress and to hear a signal, rarely enough to cost nothing.
_CHUNK_SECONDS = 2.0


class Stopped(Exception):  # noqa: N818 - not an error: the run goes on from its checkpoint
    """Somebody asked the run to stop; its state is saved."""


@dataclasses.dataclass
class Outcome:
    """What a run came to.

    Attributes:
      status: 'finished' or 'diverged'.
      message: what happened, for a run that diverged.
      metrics: 'test/accuracy' and so on; no seconds.
      cost: seconds, steps, bytes.
      correct: bool [test examples], None for a run that diverged.
    """

    status: str
    message: str | None
    metrics: dict[str, float]
    cost: dict[str, float]
    correct: np.ndarray | None


@dataclasses.dataclass
class _Progress:
    """Where the loop stands; all of it is in every checkpoint."""

    step: int = 0
    sums: dict[str, float] = dataclasses.field(default_factory=dict)  # over the steps since the last evaluation
    train: dict[str, float] = dataclasses.field(default_factory=dict)  # metrics of the last full interval
    best: float | None = None
    best_step: int = 0


class _Diverged(Exception):  # noqa: N818
    pass


def train(
    experiment: Experiment,
    directory: pathlib.Path,
    progress: Callable[[int, float | None], None],
    stop: Callable[[], bool],
) -> Outcome:
    """Trains, or goes on from the last checkpoint, to the end of the budget.

    Args:
      directory: of the run; gets metrics.jsonl, checkpoints/ and scored/.
      progress: told (steps done, steps a second) about every two seconds.
      stop: asked after every chunk; True saves the state and raises Stopped.

    Raises:
      Stopped: the same call goes on from here.
    """
    return _Run(experiment, directory, progress, stop).run()


class _Run:
    def __init__(self, experiment: Experiment, directory: pathlib.Path, progress, stop):
        self.experiment, self.directory, self.progress, self.stop = experiment, directory, progress, stop
        self.program, self.config, self.clock = experiment.program, experiment.config, Clock()
        self.engine, self.feed = self.program.engine, Feed(experiment)
        self.checkpoints = Checkpoints((directory / 'checkpoints').absolute())
        self.at = _Progress()
        self.metrics: Metrics | None = None
        self.best: Any = None  # variables of the best evaluation, where the study scores these
        batch, epoch = experiment.batch_size, len(experiment.dataset.splits['train'])
        self.eval_steps = max(
            1, round(durations.examples(self.config['train']['eval_every'], batch, epoch, experiment.total) / batch)
        )
        examples, self.checkpoint_seconds = experiments.checkpoint_every(self.config, epoch, experiment.total)
        self.checkpoint_steps = max(1, round(examples / batch)) if examples else None
        self.saved_at = time.monotonic()

    def run(self) -> Outcome:
        """Everything from the first step, or the last checkpoint, to the outcome."""
        try:
            with self.clock.measure('checkpoint'):
                state = self._restore()
            self._compile(state)
            with cost.peak_memory() as peak:
                outcome = self._run(state)
        finally:
            if self.metrics is not None:
                self.metrics.close()
            self.feed.close()
            self.checkpoints.close()
        outcome.cost |= {'peak_bytes': peak['bytes'], 'peak_before_bytes': peak['before'], 'peak_since': peak['since']}
        return outcome

    def _compile(self, state: Any) -> None:
        """Before memory is measured: the compiler takes more of it than a small network, and only in its first run."""
        if self.at.step == self.experiment.steps or self.program.chunk.executable is not None:
            return
        self.program.chunk.prepare(self.clock, state, *self.feed.chunk(self.at.step, 1))
        data, *arguments = next(self.feed.blocks('train'))
        arguments = self.engine.replicate((*arguments[:2], np.int32(0)))
        self.program.evaluate.prepare(self.clock, state.params, state.masks, state.collections, data, *arguments)

    def _run(self, state: Any) -> Outcome:
        self.metrics = Metrics(self.directory / 'metrics.jsonl', self.at.step * self.experiment.batch_size)
        try:
            return self._train(state)
        except _Diverged as diverged:
            return Outcome('diverged', str(diverged), {}, self._cost(), None)

    def _train(self, state: Any) -> Outcome:
        steps = self.experiment.steps
        while self.at.step < steps:
            with self.clock.measure('train'):
                state = self._segment(state, self._boundary())
            if self._evaluation_due():
                state = self._evaluate(state)
            stopping = self.at.step < steps and self.stop()
            if stopping or self._checkpoint_due():
                state = self._refresh(state)
                self._save(state)
            if stopping:
                self.checkpoints.close()
                raise Stopped
        return self._finish(state)

    def _restore(self) -> Any:
        state = self.experiment.init(self.clock)
        like = self.engine.host(state)
        best = self._variables(like) if self.config['study']['score'] == 'best' else {}
        found = self.checkpoints.restore({'state': like, 'best': best})
        if found is None:
            return state
        tree, meta = found
        self.at, self.clock = _Progress(**meta['progress']), Clock(meta['seconds'])
        self.best = tree['best'] if self.at.best is not None else None
        return self.engine.replicate(tree['state'])

    def _boundary(self) -> int:
        """The next step at which something is due."""
        following = [self.experiment.steps, (self.at.step // self.eval_steps + 1) * self.eval_steps]
        if self.checkpoint_steps:
            following.append((self.at.step // self.checkpoint_steps + 1) * self.checkpoint_steps)
            if self.at.step == 0:
                # The first step is saved too: a disk that cannot hold a checkpoint shows now, not after an hour.
                following.append(1)
        return min(following)

    def _segment(self, state: Any, boundary: int) -> Any:
        """Trains to the boundary; chunk i is on its way before the sums of chunk i-1 are read."""
        first, dispatched, waiting, start = self.at.step, self.at.step, None, time.perf_counter()
        while dispatched < boundary or waiting is not None:
            sent = None
            if dispatched < boundary:
                steps = min(boundary - dispatched, self.feed.capacity, self._chunk_steps())
                state, sums = self.program.chunk(self.clock, state, *self.feed.chunk(dispatched, steps))
                dispatched, sent = dispatched + steps, (steps, sums)
            if waiting is not None:
                self._read(*waiting)
                # Over the whole segment: some backends compute before they return from a dispatch, so that what passed
                # since the last reading may have been the next chunk's time.
                self.program.rate = (self.at.step - first) / max(time.perf_counter() - start, 1e-9)
                self.progress(self.at.step, self.program.rate)
                if self.stop() or self._checkpoint_due_by_time():
                    boundary = dispatched
            waiting = sent
        return state

    def _chunk_steps(self) -> int:
        return max(1, int(_CHUNK_SECONDS * self.program.rate)) if self.program.rate else 1

    def _read(self, steps: int, sums: Any) -> None:
        """Waits for a chunk, checks its losses and adds up its sums."""
        sums = {k: np.asarray(v, np.float64)[:steps] for k, v in self.engine.host(sums).items()}
        finite = np.isfinite(sums['loss'])
        if not finite.all():
            step = self.at.step + int(np.argmin(finite))
            rate = float(self.experiment.rates(step * self.experiment.batch_size))
            raise _Diverged(f'loss is {sums["loss"][~finite][0]} at step {step}, learning rate {rate:.3g}')
        _add(self.at.sums, sums)
        self.at.step += steps

    def _evaluation_due(self) -> bool:
        return self.at.step % self.eval_steps == 0 or self.at.step == self.experiment.steps

    def _checkpoint_due(self) -> bool:
        if self.at.step == self.experiment.steps:
            return False  # what is scored is saved on its own
        if self.checkpoint_steps:
            return self.at.step % self.checkpoint_steps == 0 or self.at.step == 1
        return self._checkpoint_due_by_time()

    def _checkpoint_due_by_time(self) -> bool:
        return self.checkpoint_seconds is not None and time.monotonic() - self.saved_at >= self.checkpoint_seconds

    def _save(self, state: Any) -> None:
        with self.clock.measure('checkpoint'):
            meta = {'progress': dataclasses.asdict(self.at), 'seconds': self.clock.seconds}
            tree = {'state': self.engine.host(state), 'best': self._best_variables(state)}
            self.checkpoints.save(self.at.step, tree, meta, wait=self.at.step == 1)
            self.saved_at = time.monotonic()

    def _best_variables(self, state: Any) -> Any:
        if self.config['study']['score'] != 'best':
            return {}
        return self.best if self.best is not None else self._variables(self.engine.host(state))

    def _evaluate(self, state: Any) -> Any:
        """Reads the validation split; nothing else ever steers a run."""
        with self.clock.measure('evaluate'):
            state = self._refresh(state)
            metrics, _ = self._split(self._variables(state), 'validation')
        self.at.train = {f'train/{k}': v for k, v in self.program.task.metrics(self.at.sums).items()}
        self.at.sums = {}
        row = {'step': self.at.step, 'position': self.at.step * self.experiment.batch_size, **self.at.train, **metrics}
        row['learning_rate'] = float(self.experiment.rates((self.at.step - 1) * self.experiment.batch_size))
        row['train_seconds'] = self.clock.seconds['train']
        if not np.isfinite(metrics.get('validation/loss', 0.0)):
            raise _Diverged(f'validation loss is {metrics["validation/loss"]} after step {self.at.step}')
        self.metrics.append(row)
        if self.config['study']['score'] == 'best':
            score = metrics[self.config['study']['metric'].replace('test/', 'validation/')]
            score = score if self.config['study']['higher_is_better'] else -score
            if self.at.best is None or score > self.at.best:
                self.at.best, self.at.best_step = score, self.at.step
                self.best = self._variables(self.engine.host(state))
        return state

    def _refresh(self, state: Any) -> Any:
        """Stored statistics lag the weights by one update; nothing is scored or exported with stale ones."""
        if self.program.refresh is None:
            return state
        collections = self.program.refresh(
            self.clock, state.params, state.masks, state.collections, self.experiment.placed, self.experiment.reference
        )
        return state.replace(collections=collections)

    def _variables(self, state: Any) -> dict[str, Any]:
        return {'params': state.params, 'masks': state.masks, 'collections': state.collections}

    def _split(self, variables: Mapping[str, Any], split: str) -> tuple[dict[str, float], np.ndarray]:
        """Metrics and per-example correctness over a whole split; no metrics where it is empty."""
        params, masks, collections = (variables[k] for k in ('params', 'masks', 'collections'))
        total: dict[str, float] = {}
        correct = []
        for data, indices, mask, batches in self.feed.blocks(split):
            arguments = self.engine.replicate((indices, mask, np.int32(batches)))
            sums, right = self.engine.host(self.program.evaluate(self.clock, params, masks, collections, data, *arguments))
            _add(total, {k: np.asarray(v, np.float64)[:batches] for k, v in sums.items()})
            correct.append(np.asarray(right)[mask > 0])
        metrics = self.program.task.metrics(total) if total else {}
        return {f'{split}/{k}': v for k, v in metrics.items()}, np.concatenate([np.zeros(0, bool), *correct])

    def _finish(self, state: Any) -> Outcome:
        """Scores on the test split, read here and only here, and keeps the variables that it was scored with."""
        scored = self._variables(state)
        if self.best is not None:
            scored = self.engine.replicate(self.best)
        with self.clock.measure('evaluate'):
            test, correct = self._split(scored, 'test')
            validation, _ = self._split(scored, 'validation')
        if not np.isfinite(test['test/loss']):
            raise _Diverged(f'test loss is {test["test/loss"]} after step {self.at.step}')
        if self.config['study']['keep'] == 'all':
            self._save(state)
        with self.clock.measure('checkpoint'):
            host = self.engine.host(scored)
            seen = self.program.stages.weights(host['params'], host['masks'])
            save_variables(self.directory / 'scored', {'params': seen, **host['collections']})
            self.checkpoints.close()
        return Outcome('finished', None, {**test, **validation, **self.at.train}, self._cost(), correct)

    def _cost(self) -> dict[str, float]:
        seconds = {f'{kind}_seconds': s for kind, s in self.clock.seconds.items()}
        return {
            **seconds,
            'seconds_per_step': self.clock.seconds['train'] / max(self.at.step, 1),
            'steps': self.at.step,
            'examples': self.at.step * self.experiment.batch_size,
            'scored_step': self.at.best_step or self.at.step,
        }


def _add(total: dict[str, float], sums: Mapping[str, np.ndarray]) -> None:
    """Adds up strictly from left to right, so that how steps fell into chunks does not show in the last bits."""
    for name, values in sums.items():
        total[name] = float(np.cumsum([total.get(name, 0.0), *values])[-1])
