"""Trains one run: dispatch chunk i, read chunk i-1; evaluate, checkpoint and record where they are due.

The loop stops at boundaries alone (an evaluation, a checkpoint, the end), so between them the device never waits.
"""

import dataclasses
import pathlib
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from research import cost, gradients
from research.optim.plateau import START, Plateau, watch
from research.train import divergence, samples
from research.train import experiment as experiments
from research.train.checkpoint import Checkpoints, save_variables
from research.train.clock import Clock
from research.train.experiment import Experiment
from research.train.feed import Feed
from research.train.record import Metrics

# A chunk lasts about this long: often enough to show progress and to hear a signal, rarely enough to cost nothing.
_CHUNK_SECONDS = 2.0
# Of a state, or in its place for an evaluation: what `evaluate` takes.
_VARIABLES = ('params', 'masks', 'collections')
# Norms of the gradients of this many last steps are kept, to be shown when a run diverges.
_NORMS = 10


class Stopped(Exception):  # noqa: N818 - not an error: the run goes on from its checkpoint
    """Somebody asked the run to stop; its state is saved."""


@dataclasses.dataclass
class Outcome:
    """What a run came to.

    Attributes:
      status: 'finished' or 'diverged'.
      message: what happened, for a run that diverged or never learnt.
      metrics: 'test/accuracy' and so on; no seconds.
      cost: seconds, steps, bytes.
      correct: bool [test examples]; None for a run that diverged, where validation decides and test is not read, and for a
        task that knows no right or wrong.
      observed: 'clip/steps' and so on, means over the steps of the run.
      diverged: where and how, see research.train.divergence; None for a run that did not.
    """

    status: str
    message: str | None
    metrics: dict[str, float]
    cost: dict[str, float]
    correct: np.ndarray | None
    observed: dict[str, float]
    diverged: dict[str, Any] | None = None


@dataclasses.dataclass
class _Progress:
    """Where the loop stands; all of it is in every checkpoint."""

    step: int = 0
    position: int = 0  # examples done
    batch_size: int = 0  # of the last step
    sums: dict[str, float] = dataclasses.field(default_factory=dict)  # over the steps since the last evaluation
    observed: dict[str, float] = dataclasses.field(default_factory=dict)  # over all steps
    norms: list[float] = dataclasses.field(default_factory=list)  # of the gradients of the last steps
    train: dict[str, float] = dataclasses.field(default_factory=dict)  # metrics of the last full interval
    first_loss: float | None = None  # of training, in the first interval ...
    first_step: int = 0  # ... which ended here
    best: float | None = None
    best_step: int = 0
    watched: dict[str, list[Any]] = dataclasses.field(default_factory=dict)  # watchers of the validation score

    @property
    def levels(self) -> dict[str, int]:
        return {name: Plateau(*self.watched[name]).level if name in self.watched else 0 for name in START}


class _Diverged(Exception):  # noqa: N818
    """With the step whose loss or gradient is not finite, its position, and norms; none where an evaluation showed it."""

    def __init__(self, message: str, at: tuple[int, int] | None = None, norms: list[float] | None = None):
        super().__init__(message)
        self.at, self.norms = at, norms or []


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
        self.engine, self.feed = self.program.engine, Feed(experiment)
        self.checkpoints = Checkpoints((directory / 'checkpoints').absolute())
        self.at = _Progress()
        self.metrics: Metrics | None = None
        self.state: Any = None
        self.best: Any = None  # variables of the best evaluation, where the study scores these
        batch, epoch, total = experiment.batch_size, experiment.epoch, experiment.total
        self.eval_every = experiment.eval_every
        examples, self.checkpoint_seconds = experiments.checkpoint_every(self.config, batch, epoch, total)
        self.checkpoint_every = max(batch, examples) if examples else None
        self.saved_at, self.saved_step = time.monotonic(), None
        self.higher = self.config['study']['higher_is_better']

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

    def _phase(self, position: int) -> Any:
        return self.experiment.phases.at(position, self.at.levels['size'])

    def _over(self, position: int) -> bool:
        """Whether the budget holds no further step; a run has one at least."""
        return position > 0 and position + self._phase(position).batch_size > self.experiment.total

    def _compile(self, state: Any) -> None:
        """Before memory is measured: the compiler takes more of it than a small network, and only in its first run."""
        phase = self._phase(self.at.position)
        if self._over(self.at.position) or self.program.chunk(phase).executable is not None:
            return
        arguments = self.feed.chunk(self.at.step, self.at.position, 1, phase.batch_size, self.at.levels)
        self.program.chunk(phase).prepare(self.clock, state, *arguments)
        data, indices, mask, *_ = next(self.feed.blocks('train'))
        arguments = self.engine.replicate((indices, mask, np.int32(0), np.int32(0)))
        self.program.evaluate.prepare(self.clock, state.params, state.masks, state.collections, data, *arguments)

    def _run(self, state: Any) -> Outcome:
        self.metrics = Metrics(self.directory / 'metrics.jsonl', self.at.position)
        try:
            return self._train(state)
        except _Diverged as diverged:
            return self._explained(diverged)

    def _train(self, state: Any) -> Outcome:
        while not self._over(self.at.position):
            with self.clock.measure('train'):
                state = self._segment(state, self._boundary())
            over = self._over(self.at.position)
            if over or self._crossed(self.eval_every):
                self._evaluate(state)
                over = self._over(self.at.position)  # a smaller batch may still fit
            stopping = not over and self.stop()
            if stopping or self._checkpoint_due(over):
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
        self.saved_step = self.at.step
        self.best = tree['best'] if self.at.best is not None else None
        return self.engine.replicate(tree['state'])

    def _boundary(self) -> int:
        """The next position at which something is due; a segment ends with the first step that reaches it."""
        position, following = self.at.position, [self.experiment.total]
        for every in (self.eval_every, self.checkpoint_every):
            if every:
                following.append((position // every + 1) * every)
        if (change := self.experiment.phases.next_change(position)) is not None:
            following.append(change)
        if self.checkpoint_every and position == 0:
            # The first step is saved too: a disk that cannot hold a checkpoint shows now, not after an hour.
            following.append(1)
        return min(following)

    def _crossed(self, every: int) -> bool:
        """Whether the last step reached a multiple of `every` examples."""
        return self.at.position // every > (self.at.position - self.at.batch_size) // every

    def _segment(self, state: Any, boundary: int) -> Any:
        """Trains to the boundary; chunk i is on its way before the sums of chunk i-1 are read."""
        phase = self._phase(self.at.position)
        chunk, size = self.program.chunk(phase), phase.batch_size
        first, position, waiting, start = self.at.step, self.at.position, None, time.perf_counter()
        step = first
        while (going := position < boundary and not self._over(position)) or waiting is not None:
            sent = None
            if going:
                # To the boundary, but not beyond the budget.
                left = max(1, min(-(-(boundary - position) // size), (self.experiment.total - position) // size))
                steps = min(left, self.feed.capacity(size), self._chunk_steps(chunk))
                state, sums = chunk(self.clock, state, *self.feed.chunk(step, position, steps, size, self.at.levels))
                self.state = state  # where a divergence is looked for
                step, position, sent = step + steps, position + steps * size, (steps, size, sums)
            if waiting is not None:
                self._read(*waiting)
                # Over the whole segment: some backends compute before they return from a dispatch, so that what passed
                # since the last reading may have been the next chunk's time.
                chunk.rate = (self.at.step - first) / max(time.perf_counter() - start, 1e-9)
                self.progress(self.at.step, self.at.position, chunk.rate)
                if self.stop() or self._checkpoint_due_by_time():
                    boundary = position
            waiting = sent
        return state

    def _chunk_steps(self, chunk: Any) -> int:
        return max(1, int(_CHUNK_SECONDS * chunk.rate)) if chunk.rate else 1

    def _read(self, steps: int, size: int, sums: Any) -> None:
        """Waits for a chunk, checks its losses and gradients and adds up its sums."""
        sums = {k: np.asarray(v, np.float64)[:steps] for k, v in self.engine.host(sums).items()}
        norms = sums['gradient/norm']
        watched = {name: values for name, values in sums.items() if '/' not in name} | {'gradient': norms}
        finite = np.isfinite(list(watched.values())).all(axis=0)
        if not finite.all():
            bad = int(np.argmin(finite))
            at = self.at.step + bad, self.at.position + bad * size
            rate = float(self.experiment.controls(np.array(at[1:]), size, self.at.levels)['learning_rate'][0])
            what = next(name for name, values in watched.items() if not np.isfinite(values[bad]))
            before = [*self.at.norms, *norms[: bad + 1].tolist()][-_NORMS:]
            message = f'{what.replace("_", " ")} is {watched[what][bad]} at step {at[0]}, learning rate {rate:.3g}'
            raise _Diverged(message, at, before)
        observed = {k: v for k, v in sums.items() if '/' in k}
        _add(self.at.sums, {**sums, 'steps': np.ones(steps)})
        _add(self.at.observed, {**observed, 'steps': np.ones(steps)})
        self.at.norms = [*self.at.norms, *norms.tolist()][-_NORMS:]
        self.at.step, self.at.position, self.at.batch_size = self.at.step + steps, self.at.position + steps * size, size

    def _checkpoint_due(self, over: bool) -> bool:
        if over:
            return False  # what is scored is saved on its own
        if self.checkpoint_every:
            return self.at.step == 1 or self._crossed(self.checkpoint_every)
        return self._checkpoint_due_by_time()

    def _checkpoint_due_by_time(self) -> bool:
        return self.checkpoint_seconds is not None and time.monotonic() - self.saved_at >= self.checkpoint_seconds

    def _save(self, state: Any) -> None:
        with self.clock.measure('checkpoint'):
            meta = {'progress': dataclasses.asdict(self.at), 'seconds': self.clock.seconds}
            tree = {'state': self.engine.host(state), 'best': self._best_variables(state)}
            self.checkpoints.save(self.at.step, tree, meta, wait=self.at.step == 1)
            self.saved_at, self.saved_step = time.monotonic(), self.at.step

    def _best_variables(self, state: Any) -> Any:
        if self.config['study']['score'] != 'best':
            return {}
        return self.best if self.best is not None else self._variables(self.engine.host(state))

    def _evaluate(self, state: Any) -> None:
        """Reads the validation split; nothing else ever steers a run."""
        with self.clock.measure('evaluate'):
            variables = self._final(state)
            metrics, _ = self._split(variables, 'validation')
            self._sample(variables)
        train = {f'train/{k}': v for k, v in self.program.task.metrics(self.at.sums).items()}
        self.at.train, observed = train, _observed(self.at.sums)
        if self.at.first_loss is None:
            self.at.first_loss, self.at.first_step = train['train/loss'], self.at.step
        self.at.sums = {}
        last = np.array([self.at.position - self.at.batch_size])
        controls = self.experiment.controls(last, self.at.batch_size, self.at.levels)
        row = {'step': self.at.step, 'position': self.at.position, **train, **metrics, **observed}
        row |= {name: float(values[0]) for name, values in controls.items()}
        row |= {'batch_size': self.at.batch_size, 'train_seconds': self.clock.seconds['train']}
        if not np.isfinite(metrics.get('validation/loss', 0.0)):
            raise _Diverged(f'validation loss is {metrics["validation/loss"]} after step {self.at.step}')
        self.metrics.append(row)
        score = metrics.get(self.config['study']['metric'].replace('test/', 'validation/'))
        for name, patience in self.experiment.watchers.items():
            watched = Plateau(*self.at.watched.get(name, Plateau()))
            self.at.watched[name] = list(watch(watched, score, self.higher, patience))
        if self.config['study']['score'] == 'best':
            better = self.at.best is None or (score > self.at.best if self.higher else score < self.at.best)
            if better:
                self.at.best, self.at.best_step = score, self.at.step
                self.best = self.engine.host(variables)

    def _sample(self, variables: Mapping[str, Any]) -> None:
        if self.program.samples is not None:
            images = self.program.samples(self.clock, *(variables[k] for k in _VARIABLES))
            samples.write(self.directory / 'samples', self.at.step, np.asarray(self.engine.host(images)))

    def _final(self, state: Any) -> dict[str, Any]:
        """The variables for evaluation: averaged weights, and statistics that fit them."""
        if self.program.final is None:
            return self._variables(state)
        experiment = self.experiment
        params, collections = self.program.final(
            self.clock, state, experiment.placed, experiment.reference, experiment.statistics
        )
        return dict(zip(_VARIABLES, (params, state.masks, collections), strict=True))

    def _variables(self, state: Any) -> dict[str, Any]:
        return {name: getattr(state, name) for name in _VARIABLES}

    def _split(self, variables: Mapping[str, Any], split: str) -> tuple[dict[str, float], dict[str, np.ndarray]]:
        """Metrics over a whole split, and what was found of each example of it; neither where it is empty."""
        params, masks, collections = (variables[k] for k in _VARIABLES)
        total: dict[str, float] = {}
        found: dict[str, list[np.ndarray]] = {}
        for data, indices, mask, batches, first in self.feed.blocks(split):
            arguments = self.engine.replicate((indices, mask, np.int32(batches), np.int32(first)))
            sums, rows = self.engine.host(self.program.evaluate(self.clock, params, masks, collections, data, *arguments))
            _add(total, {k: np.asarray(v, np.float64)[:batches] for k, v in sums.items()})
            for name, values in rows.items():
                found.setdefault(name, []).append(np.asarray(values)[mask > 0])
        if not total:
            return {}, {}
        whole = {name: np.concatenate(values) for name, values in found.items()}
        metrics = {**self.program.task.metrics(total), **self.program.task.judge(whole)}
        return {f'{split}/{k}': v for k, v in metrics.items()}, whole

    def _finish(self, state: Any) -> Outcome:
        """Scores on the test split, read here and only here, unless validation decides; keeps the variables scored with."""
        with self.clock.measure('evaluate'):
            scored = self._final(state) if self.best is None else self.engine.replicate(self.best)
            decides = self.config['study']['metric'].startswith('test/')
            test, rows = self._split(scored, 'test') if decides else ({}, {})
            validation, _ = self._split(scored, 'validation')
        if not np.isfinite(test.get('test/loss', 0.0)):
            raise _Diverged(f'test loss is {test["test/loss"]} after step {self.at.step}')
        if self.config['study']['keep'] == 'all':
            self._save(state)
        with self.clock.measure('checkpoint'):
            host = self.engine.host(scored)
            seen = self.program.stages.weights(host['params'], host['masks'])
            save_variables(self.directory / 'scored', {'params': seen, **host['collections']})
            self.checkpoints.close()
        metrics = {**test, **validation, **self.at.train}
        return Outcome('finished', self._stalled(), metrics, self._cost(), rows.get('correct'), _observed(self.at.observed))

    def _stalled(self) -> str | None:
        first, last = self.at.first_loss, self.at.train.get('train/loss')
        if not self.program.task.falls or first is None or last < first or self.at.step == self.at.first_step:
            return None
        return f'stalled: the training loss was {first:.4g} in the first interval and {last:.4g} in the last'

    def _explained(self, diverged: _Diverged) -> Outcome:
        step, position = diverged.at or (self.at.step, self.at.position)
        found = {'step': step, 'checkpoint_step': self.saved_step, 'gradient_norms': diverged.norms}
        if diverged.at is not None:
            phase = self._phase(self.at.position)
            chunk = self.feed.chunk(step, position, 1, phase.batch_size, self.at.levels)
            with self.clock.measure('evaluate'):
                found['layer'] = divergence.locate(self.experiment, phase, *self.engine.host((self.state, chunk)))
        message = f'{diverged}; {divergence.sentence(found)}'
        return Outcome('diverged', message, {}, self._cost(), None, _observed(self.at.observed), found)

    def _cost(self) -> dict[str, float]:
        seconds = {f'{kind}_seconds': s for kind, s in self.clock.seconds.items()}
        return {
            **seconds,
            'seconds_per_step': self.clock.seconds['train'] / max(self.at.step, 1),
            'steps': self.at.step,
            'examples': self.at.position,
            'scored_step': self.at.best_step or self.at.step,
        }


def _add(total: dict[str, float], sums: Mapping[str, np.ndarray]) -> None:
    """Adds up strictly from left to right, so that how steps fell into chunks does not show in the last bits."""
    for name, values in sums.items():
        total[name] = float(np.cumsum([total.get(name, 0.0), *values])[-1])


def _observed(total: Mapping[str, float]) -> dict[str, float]:
    """Means over steps of what steps observe; the noise scale is a ratio of such means, not the mean of a ratio."""
    means = {name: value / total['steps'] for name, value in total.items() if '/' in name}
    return gradients.with_noise_scale(means)
