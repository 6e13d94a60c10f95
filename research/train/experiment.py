"""One run, wired: data, program, schedule, phases, weights, each by one call."""

import contextlib
import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from research import catalogue, data, durations, optim, pretrained, tasks
from research.augment import resize
from research.data import batch_sizes, external, order, sampling
from research.optim import plateau
from research.train import feed, parallel, phases, placing, privacy
from research.train.clock import Clock
from research.train.phases import Phase, Phases
from research.train.program import Program, Session
from research.train.state import Background, State


@dataclasses.dataclass
class Experiment:
    """One run, ready to train.

    Attributes:
      total: examples of the whole run.
      epoch: rows of the training split.
      sampler: (seed, start, stop) -> rows, see research.data.sampling.
      streaming: whether batches are read from the host one by one; `why` says so where the config left it open.
      kept: rows of the data that stand on the devices, rising; place i of the examples there is row kept[i].
      rates: position in examples -> learning rate, before what watchers make of it.
      averaging: (position, updates done, size of the step) -> weight of the new parameters in the average; None where there is
        none.
      phases: position and level -> what a program has fixed.
      watchers: 'rate', 'size' -> how many evaluations in a row move its level by one if the score fails to gain how much.
      data: on the devices, {'examples': {field: [N, ...]}, 'constants': {name: arrays}}; no examples where they are streamed.
      background: the reference batch, and examples for statistics, on the devices.
      weights: that training starts from, on the devices; {} where all are drawn.
      judge_name: which classifier judges, among the constants as 'judge'; '' without one.
    """

    config: Mapping[str, Any]
    dataset: data.Dataset
    program: Program
    total: int
    epoch: int
    sampler: sampling.Sampler
    streaming: bool
    why: str
    kept: np.ndarray
    rates: Callable[[Any], np.ndarray]
    averaging: Callable[..., np.ndarray] | None
    phases: Phases
    watchers: Mapping[str, tuple[int, float]]
    data: Any = None
    background: Background | None = None
    weights: Any = dataclasses.field(default_factory=dict)
    judge_name: str = ''

    @property
    def seed(self) -> int:
        """Of the run: initial weights and draws."""
        return self.config['train']['seed']

    @property
    def order_seed(self) -> int:
        """Seed of the data order: the run's, or another draw for the null variant."""
        return order.redrawn(self.seed, self.config['data']['redraw'])

    @property
    def batch_size(self) -> int:
        """Examples of the first step."""
        return self.phases.at(0, 0).batch_size

    @property
    def largest(self) -> Phase:
        """The phase whose program holds most at once."""
        every = {phase for phase, _ in self.phases.spans(self.total)} | {*self.phases.rungs}
        full = resize.side_of(self.program.step.inputs(1))
        return max(every, key=lambda p: (-(-p.batch_size // p.micro_batches) * (p.side or full) ** 2, -len(p.frozen), p))

    @property
    def steps(self) -> int:
        """Of the whole run, unless a watcher changes the batch size."""
        return sum(steps for _, steps in self.phases.spans(self.total))

    @property
    def eval_every(self) -> int:
        """Examples between evaluations on the validation split."""
        text = self.config['train']['eval_every']
        return max(self.batch_size, durations.examples(text, self.batch_size, self.epoch, self.total))

    @property
    def num_classes(self) -> int:
        """The config's, or else the task's or the data's; 0 where none has any."""
        return self.config['model']['num_classes'] or self.program.step.task.outputs or self.dataset.facts.get('classes', 0)

    def controls(
        self, positions: np.ndarray, updates: np.ndarray, size: int, levels: Mapping[str, int]
    ) -> dict[str, np.ndarray]:
        """What changes from step to step: float64 [S] each.

        Args:
          positions: of each step's first example [S].
          updates: done before each step [S].
          size: examples of these steps' batches.
          levels: of the watchers.
        """
        rates = self.rates(positions) * plateau.reduced(self.config['schedule'], levels['rate'])
        coupling = self.config['data']['batch']['coupling']
        controls = {'learning_rate': batch_sizes.coupled(rates, size, self.batch_size, coupling)}
        return controls if self.averaging is None else controls | {'average_weight': self.averaging(positions, updates, size)}

    def prepared(self) -> Any:
        """The executable of the training program that takes most memory; nothing is computed."""
        program, phase = self.program, self.largest
        compiled = program.chunk(phase)
        if compiled.executable is None:
            with contextlib.closing(feed.Feed(self)) as reader:
                chunk = reader.chunk(0, 0, 1, phase.batch_size, plateau.START)
                compiled.prepare(Clock(), program.engine.shaped(program.shapes), chunk)
        return compiled.executable

    def init(self, clock: Clock) -> State:
        """The state before the first step, on the devices."""
        numbers = {k: np.float32(v) for k, v in optim.hyperparameters(self.config).items()}
        engine = self.program.engine
        return self.program.init(clock, engine.replicate(jax.random.key(self.seed)), engine.replicate(numbers), self.weights)


def load_data(config: Mapping[str, Any], session: Session, whole: bool = False) -> data.Dataset:
    """The run's data, read once a process, whatever is cut from them; `whole` as in `research.data.read`.

    Raises:
      ConfigError: data that cannot be had, or other data than `data.checksum` names.
    """
    group = {**config['data'], **pretrained.tokenizers(config)}

    def read(group: Mapping[str, Any]) -> data.Store:
        source = tuple(str(group[field]) for field in data.READ)
        if source not in session.stores:
            session.stores[source] = data.read(group, whole)
        return session.stores[source]

    source = tuple(str(group[field]) for field in data.READ)
    if group['external']:
        source = (*source, str(group['external']), group['split_seed'])
        if source not in session.stores:
            session.stores[source] = external.join(read(group), group, read)
    key = (*source, *(str(group[field]) for field in data.CUT))
    if key not in session.datasets:
        session.datasets[key] = data.cut(session.stores[source] if group['external'] else read(group), group)
    dataset, expected = session.datasets[key], group['checksum']
    if expected and dataset.checksum != expected:
        raise catalogue.ConfigError(
            f"data.checksum is '{expected}', and the data '{dataset.name}' has {dataset.checksum}: it is other data. "
            "Check data.path, or set data.checksum to ''."
        )
    return dataset


def build(config: Mapping[str, Any], session: Session, key: str) -> Experiment:
    """Wires a run; compiles nothing. Budgets in seconds, FLOPs or bytes are rewritten before (research.study.budget).

    Args:
      config: resolved, checked; nested mappings.
      session: keeps what runs share.
      key: the compile key (research.study.identity.compile_key).

    Raises:
      ConfigError: a name, argument or duration that does not fit.
    """
    dataset = load_data(config, session)
    epoch, batch = len(dataset.splits['train']), batch_size(config, dataset)
    if batch < 1 or config['data']['eval_batch_size'] < 1:
        raise catalogue.ConfigError('data.batch_size and data.eval_batch_size are examples a step: expected at least 1.')
    total = budget(config, dataset)
    config, key = privacy.settled(config, key, epoch, batch, max(1, total // batch))
    kept, engine = session.kept(dataset), parallel.create(config['train']['engine'], config['train']['devices'])
    streaming, why = placing.streams(config, dataset, engine, kept, session)
    program = session.program(config, dataset, key, 0 if streaming else len(kept))
    privacy.check(config, program.shapes.collections)
    durations.examples(config['train']['eval_every'], batch, epoch, total)
    checkpoint_every(config, batch, epoch, total)
    experiment = Experiment(
        config=config,
        dataset=dataset,
        program=program,
        total=total,
        epoch=epoch,
        sampler=sampling.create(config['data'], dataset, batch),
        streaming=streaming,
        why=why,
        kept=kept,
        rates=optim.schedule(config, total, epoch, per_step=batch),
        averaging=optim.average_weight(config, total, epoch, per_step=batch),
        phases=phases.create(config, dataset, batch, program.step, total),
        watchers=_watchers(config),
    )
    phases.check(experiment)
    _check_steps(experiment)
    experiment.data = {
        'examples': {} if streaming else placing.examples(dataset, program.engine, kept, session),
        'constants': program.engine.replicate(_constants(experiment)),
    }
    experiment.background = placing.background(experiment)
    experiment.weights = placing.weights(experiment, session)
    return experiment


def _constants(experiment: Experiment) -> dict[str, Any]:
    """The constants of the task, with its durations in examples of this run."""
    task = tasks.create(experiment.config['task'], experiment.dataset.facts)
    lengths = experiment.batch_size, experiment.epoch, experiment.total
    lasting = {name: np.float32(durations.examples(text, *lengths)) for name, text in task.durations.items()}
    return {**task.constants, **lasting}


def batch_size(config: Mapping[str, Any], dataset: data.Dataset) -> int:
    """Examples of the first step."""
    return config['data']['batch_size'] or len(dataset.splits['train'])


def budget(config: Mapping[str, Any], dataset: data.Dataset) -> int:
    """`study.budget` in examples.

    Raises:
      ConfigError: no duration, or one that trains nothing.
    """
    total = durations.examples(config['study']['budget'], batch_size(config, dataset), len(dataset.splits['train']))
    if total < 1:
        raise catalogue.ConfigError(
            f"study.budget '{config['study']['budget']}' trains nothing: expected at least one step, such as '500st' or '20ep'."
        )
    return total


def _check_steps(experiment: Experiment) -> None:
    """Refuses a step larger than the budget or than an epoch: it would train beyond the one, and on the other twice."""
    text, largest = experiment.config['study']['budget'], max(phase.batch_size for phase in experiment.phases.rungs)
    if experiment.batch_size > experiment.total:
        raise catalogue.ConfigError(
            f"A step takes {experiment.batch_size} examples, more than the {experiment.total} of study.budget '{text}': take a "
            'smaller data.batch_size or a longer budget.'
        )
    if largest > experiment.epoch:
        raise catalogue.ConfigError(
            f'A step takes {largest} examples, more than the {experiment.epoch} of an epoch: take a smaller data.batch_size '
            '(0 is all of them at once).'
        )


def checkpoint_every(config: Mapping[str, Any], batch: int, epoch: int, total: int) -> tuple[int | None, float | None]:
    """`train.checkpoint_every` as (examples, None) or (None, seconds)."""
    text = config['train']['checkpoint_every']
    if re.fullmatch(r'[0-9]*\.?[0-9]+s', text):
        return None, float(text[:-1])
    return max(1, durations.examples(text, batch, epoch, total)), None


def _watchers(config: Mapping[str, Any]) -> dict[str, tuple[int, float]]:
    """Whose patience with the validation score moves what."""
    patience = {'rate': plateau.patience(config['schedule']), 'size': batch_sizes.patience(config['data'])}
    return {name: found for name, found in patience.items() if found is not None}
