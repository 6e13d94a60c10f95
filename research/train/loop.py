"""Trains one run: dispatch chunk i, read chunk i-1; evaluate, checkpoint and record where they are due.

The loop stops at boundaries alone (an evaluation, a checkpoint, the end), so between them the device never waits.
"""

import contextlib
import dataclasses
import pathlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from research import cost
from research.train import calendar, divergence, evaluation, privacy
from research.train.checkpoint import Checkpoints, save_variables
from research.train.clock import Clock
from research.train.experiment import Experiment
from research.train.feed import Feed
from research.train.progress import Diverged, Progress, check_finite, observed
from research.train.record import Metrics, Outcome
from research.train.state import State, Variables

# A chunk lasts about this long: often enough to show progress and to hear a signal, rarely enough to cost nothing.
_CHUNK_SECONDS = 2.0


class Stopped(Exception):  # noqa: N818 - not an error: the run goes on from its checkpoint
    """Somebody asked the run to stop; its state is saved."""


def train(
    experiment: Experiment,
    directory: pathlib.Path,
    progress: Callable[[int, int, float | None], None],
    stop: Callable[[], bool],
) -> Outcome:
    """Trains, or goes on from the last checkpoint, to the end of the budget.

    Args:
      directory: of the run; gets metrics.jsonl, checkpoints/ and scored/.
      progress: told (steps done, examples done, steps a second) about every two seconds.
      stop: asked after every chunk; True saves the state and raises Stopped.

    Raises:
      Stopped: the same call goes on from here.
    """
    return _Run(experiment, directory, progress, stop).run()


class _Run:
    def __init__(self, experiment: Experiment, directory: pathlib.Path, progress, stop):
        self.experiment, self.directory, self.progress, self.stop = experiment, directory, progress, stop
        self.program, self.config, self.clock = experiment.program, experiment.config, Clock()
        self.task, self.engine, self.feed = self.program.step.task, self.program.engine, Feed(experiment)
        self.evaluator, self.calendar = evaluation.Evaluator(experiment, self.feed, self.clock), calendar.of(experiment)
        self.checkpoints = Checkpoints((directory / 'checkpoints').absolute())
        self.at = Progress()
        self.metrics: Metrics | None = None
        self.state: Any = None
        self.best: Any = None  # variables of the best evaluation, where the study scores these
        self.scores_best = self.config['study']['score'] == 'best'
        self.saved_at, self.saved_step = time.monotonic(), None
        self.higher = self.config['study']['higher_is_better']
        self.writes = self._writes()  # whether evaluations score texts that the network writes
        self.measured: set[Any] = set()  # phases whose memory was measured
        self.peak_bytes: int | None = None

    def run(self) -> Outcome:
        """Everything from the first step, or the last checkpoint, to the outcome."""
        try:
            with self.clock.measure('checkpoint'):
                state = self._restore()
            self.metrics = Metrics(self.directory / 'metrics.jsonl', self.at.position)
            try:
                outcome = self._train(state)
            except Diverged as diverged:
                outcome = self._explained(diverged)
        finally:
            if self.metrics is not None:
                self.metrics.close()
            self.feed.close()
            self.checkpoints.close()
        return outcome

    def _writes(self) -> bool:
        if self.program.write is None:
            return False
        decides = self.config['study']['metric'].partition('/')[2] in self.task.writing.scores
        return self.task.writing.always or decides and bool(self.scores_best or self.experiment.watchers)

    def _phase(self, position: int) -> Any:
        return self.experiment.phases.at(position, self.at.levels['size'])

    def _over(self, position: int) -> bool:
        return self.calendar.over(position, self.at.levels['size'])

    @contextlib.contextmanager
    def _memory(self, state: State) -> Iterator[None]:
        """Measures what the first steps of each phase take, the state that they begin with among it.

        Steps alone lie inside: an evaluation may take more than they do, and the compiler takes more than a small network.
        """
        if (phase := self._phase(self.at.position)) in self.measured:
            yield
            return
        self.measured.add(phase)
        if (compiled := self.program.chunk(phase)).executable is None:
            chunk = self.feed.chunk(self.at.step, self.at.position, 1, phase.batch_size, self.at.levels)
            compiled.prepare(self.clock, state, chunk)
        own = cost.held(state)
        with cost.peak_memory() as peak:
            yield
        if peak['since'] == 'block':
            self.peak_bytes = max(self.peak_bytes or 0, peak['bytes'] - peak['before'] + own)

    def _train(self, state: State) -> Outcome:
        while not self._over(self.at.position):
            state = self._warmed(state)
            with self._memory(state), self.clock.measure('train'):
                state = self._segment(state, self.calendar.boundary(self.at.position))
            over = self._over(self.at.position)
            if over or self.calendar.evaluates(self.at.position, self.at.batch_size):
                self._evaluate(state)
                over = self._over(self.at.position)  # a smaller batch may still fit
            stopping = not over and self.stop()
            if stopping or not over and self._checkpoint_due():  # at the end what is scored is saved on its own
                self._save(state)
            if stopping:
                self.checkpoints.close()
                raise Stopped
        return self._finish(state)

    def _warmed(self, state: State) -> State:
        """The state before the first step, made anew after two calls of a program that this process has not run yet.

        The first call pays for libraries and memory, and would be in the time of whoever is first; the second tells the rate.
        """
        compiled = self.program.chunk(phase := self._phase(self.at.position))
        if self.at.position or compiled.rate is not None:
            return state
        chunk = self.feed.chunk(0, 0, 1, phase.batch_size, self.at.levels)
        for _ in range(2):
            start = time.perf_counter()
            state, sums = compiled(self.clock, state, chunk)
            self.engine.read(sums)  # waits
            compiled.rate = 1 / (time.perf_counter() - start)
        return jax.block_until_ready(self.experiment.init(self.clock))

    def _segment(self, state: State, boundary: int) -> State:
        """Trains to the boundary; chunk i is on its way before the sums of chunk i-1 are read."""
        phase = self._phase(self.at.position)
        compiled, size = self.program.chunk(phase), phase.batch_size
        first, position, waiting, start = self.at.step, self.at.position, None, time.perf_counter()
        step, ended = first, [start]
        while (going := position < boundary and not self._over(position)) or waiting is not None:
            sent = None
            if going:
                left = self.calendar.steps(position, boundary, size)
                steps = min(left, self.feed.capacity(size), _chunk_steps(compiled.rate))
                asked = time.perf_counter()
                chunk = self.feed.chunk(step, position, steps, size, self.at.levels)
                if ended:  # the devices had nothing to do since then
                    self.clock.seconds['waited'] += time.perf_counter() - max(asked, ended[0])
                state, sums = compiled(self.clock, state, chunk)
                ended = _noted(sums)
                self.state = state  # where a divergence is looked for
                step, position, sent = step + steps, position + steps * size, (steps, size, sums)
            if waiting is not None:
                self._read(*waiting)
                # Over the whole segment: some backends compute before they return from a dispatch, so that what passed
                # since the last reading may have been the next chunk's time.
                compiled.rate = (self.at.step - first) / max(time.perf_counter() - start, 1e-9)
                self.progress(self.at.step, self.at.position, compiled.rate)
                if self.stop() or self._seconds_are_over():
                    boundary = position
            waiting = sent
        return state

    def _read(self, steps: int, size: int, sums: Any) -> None:
        """Waits for a chunk, checks its losses and gradients and adds up its sums."""
        sums = {k: np.asarray(v, np.float64)[:steps] for k, v in self.engine.read(sums).items()}
        check_finite(self.at, size, sums, lambda position: self._controls(self.at.step, position, size)['learning_rate'])
        self.at.advance(steps, size, sums)

    def _controls(self, step: int, position: int, size: int) -> dict[str, float]:
        controls = self.experiment.controls(np.array([position]), np.array([step]), size, self.at.levels)
        return {name: float(values[0]) for name, values in controls.items()}

    def _checkpoint_due(self) -> bool:
        return self.calendar.saves(self.at.step, self.at.position, self.at.batch_size) or self._seconds_are_over()

    def _seconds_are_over(self) -> bool:
        seconds = self.calendar.checkpoint_seconds
        return seconds is not None and time.monotonic() - self.saved_at >= seconds

    def _restore(self) -> State:
        state = self.experiment.init(self.clock)
        like = self.engine.host(state)
        best = evaluation.variables_of(like)._asdict() if self.scores_best else {}
        restored = self.checkpoints.restore({'state': like, 'best': best})
        if restored is None:
            return state
        tree, meta = restored
        self.at = Progress(**meta['progress'])
        self.clock.seconds |= meta['seconds']
        self.saved_step = self.at.step
        self.best = Variables(**tree['best']) if self.at.best is not None else None
        return self.engine.replicate(tree['state'])

    def _save(self, state: State) -> None:
        with self.clock.measure('checkpoint'):
            meta = {'progress': dataclasses.asdict(self.at), 'seconds': self.clock.seconds}
            host, best = self.engine.host(state), {}
            if self.scores_best:
                best = (self.best if self.best is not None else evaluation.variables_of(host))._asdict()
            self.checkpoints.save(self.at.step, {'state': host, 'best': best}, meta, wait=self.at.step == 1)
            self.saved_at, self.saved_step = time.monotonic(), self.at.step

    def _evaluate(self, state: State) -> None:
        """Reads the validation split; nothing else ever steers a run."""
        with self.clock.measure('evaluate'):
            variables = self.evaluator.final(state)
            metrics, _ = self.evaluator.score(variables, 'validation', writes=self.writes)
            self.evaluator.show(variables, self.directory, self.at.step)
        train = {f'train/{k}': v for k, v in self.task.metrics(self.at.sums).items()}
        seen = self.at.interval(train)
        controls = self._controls(self.at.step - 1, self.at.position - self.at.batch_size, self.at.batch_size)
        row = {'step': self.at.step, 'position': self.at.position, **train, **metrics, **seen, **controls}
        row |= {'batch_size': self.at.batch_size, 'train_seconds': self.clock.seconds['train']}
        if not np.isfinite(metrics.get('validation/loss', 0.0)):
            raise Diverged(f'validation loss is {metrics["validation/loss"]} after step {self.at.step}')
        self.metrics.append(row)
        score = metrics.get(self.config['study']['metric'].replace('test/', 'validation/'))
        self.at.watch(self.experiment.watchers, score, self.higher)
        better = self.at.best is None or (score > self.at.best if self.higher else score < self.at.best)
        if self.scores_best and better:
            self.at.best, self.at.best_step = score, self.at.step
            self.best = self.engine.host(variables)

    def _finish(self, state: State) -> Outcome:
        """Scores on the test split, read here and only here, unless validation decides; keeps the variables scored with."""
        with self.clock.measure('evaluate'):
            scored = self.evaluator.final(state) if self.best is None else self.engine.replicate(self.best)
            decides = self.config['study']['metric'].startswith('test/')
            test, rows = self.evaluator.score(scored, 'test', writes=True) if decides else ({}, {})
            validation, others = self.evaluator.score(scored, 'validation', writes=True)
            fitted = self.evaluator.fitted(scored, *(('test', rows) if decides else ('validation', others)))
        if not np.isfinite(test.get('test/loss', 0.0)):
            raise Diverged(f'test loss is {test["test/loss"]} after step {self.at.step}')
        if self.config['study']['keep'] == 'all':
            self._save(state)
        with self.clock.measure('checkpoint'):
            host = self.engine.host(scored)
            seen = self.program.step.weights(host.params, host.masks)
            save_variables(self.directory / 'scored', {'params': seen, **host.collections})
            self.checkpoints.close()
        metrics = {**test, **validation, **self.at.train, **fitted}
        message = self.at.stalled() if self.task.falls else None
        return Outcome('finished', message, metrics, self._cost(), rows, observed(self.at.observed))

    def _explained(self, diverged: Diverged) -> Outcome:
        step, position = diverged.at or (self.at.step, self.at.position)
        where = {'step': step, 'checkpoint_step': self.saved_step, 'gradient_norms': diverged.norms}
        if diverged.at is not None:
            phase = self._phase(self.at.position)
            chunk = self.feed.chunk(step, position, 1, phase.batch_size, self.at.levels)
            with self.clock.measure('evaluate'):
                where['layer'] = divergence.locate(self.experiment, phase, *self.engine.host((self.state, chunk)))
        message = f'{diverged}; {divergence.sentence(where)}'
        return Outcome('diverged', message, {}, self._cost(), {}, observed(self.at.observed), where)

    def _cost(self) -> dict[str, float]:
        seconds = {f'{kind}_seconds': s for kind, s in self.clock.seconds.items()}
        return {
            **seconds,
            'seconds_per_step': self.clock.seconds['train'] / max(self.at.step, 1),
            'steps': self.at.step,
            'examples': self.at.position,
            'scored_step': self.at.best_step or self.at.step,
            **privacy.spent(self.config, self.experiment.epoch, self.experiment.batch_size, self.at.step),
            **({} if self.peak_bytes is None else {'peak_growth_bytes': self.peak_bytes}),
        }


def _noted(sums: Any) -> list[float]:
    """A list that gets the time at which arrays are computed; until then it is empty."""
    ended: list[float] = []

    def wait():
        with contextlib.suppress(Exception):  # whoever reads the sums is told
            jax.block_until_ready(sums)
        ended.append(time.perf_counter())

    threading.Thread(target=wait, daemon=True).start()
    return ended


def _chunk_steps(rate: float | None) -> int:
    return max(1, int(_CHUNK_SECONDS * rate)) if rate else 1
