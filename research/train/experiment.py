"""One run, wired: data, model, weights, loss, gradient, optimizer, each by one call."""

import dataclasses
import functools
import re
import types
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from research import catalogue, cost, data, durations, models, optim, pretrained, tasks
from research.data import batch_sizes, order
from research.layers import formulation
from research.optim import plateau
from research.tasks.generation import Generation
from research.train import adversarial, chunks, feed, memory, parallel, phases, step
from research.train.clock import Clock
from research.train.phases import Phase, Phases
from research.train.state import State

# Long enough for the mean over a run whose length is not known yet.
_MANY_STEPS = 10_000
# From this many examples batch statistics of averaged weights are taken.
_STATISTICS_ROWS = 2048
_KINDS: dict[type, types.ModuleType] = {tasks.Task: step, Generation: adversarial}


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
            with clock.measure('compile'):
                self.executable = self.jitted.lower(*args).compile(self.options)

    def __call__(self, clock: Clock, *args: Any) -> Any:
        self.prepare(clock, *args)
        return self.executable(*args)


@dataclasses.dataclass
class Program:
    """What every run with the same compile key shares: module, stages and compiled functions.

    Attributes:
      kind: research.train.step, or the file beside it that trains for this task.
      chunk: phase -> the compiled training chunk; made when first asked for, kept for the process.
      final: what an evaluation needs of a state; None where that is the state as it is.
      predict: (params that are seen, collections, inputs) -> outputs on one device; compiled by batch size.
      inputs: B -> what an inference of B examples takes, zeros.
      samples: (params, masks, collections) -> images uint8 [N, H, W, C]; None where nothing is generated.
      shapes: the state's, on one device.
    """

    kind: types.ModuleType
    module: nn.Module
    task: tasks.Task | Generation
    engine: parallel.Jit | parallel.Pmap
    stages: step.Stages | adversarial.Players
    init: Compiled
    chunk: Callable[[Phase], Compiled]
    evaluate: Compiled
    final: Compiled | None
    predict: Callable[..., Any]
    inputs: Callable[[int], jax.Array]
    samples: Compiled | None
    shapes: State


@dataclasses.dataclass
class Session:
    """What a process keeps between runs: programs by compile key, data sets, and their copies on the devices."""

    programs: dict[str, Program] = dataclasses.field(default_factory=dict)
    datasets: dict[str, data.Dataset] = dataclasses.field(default_factory=dict)
    placed: dict[str, Any] = dataclasses.field(default_factory=dict)
    plans: dict[str, memory.Plan] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class Experiment:
    """One run, ready to train.

    Attributes:
      total: examples of the whole run.
      epoch: examples of the training split.
      rates: position in examples -> learning rate, before what watchers make of it.
      averaging: (position, size of the step) -> weight of the new parameters in the average; None where there is none.
      phases: position and level -> what a program has fixed.
      watchers: 'rate', 'size' -> how many evaluations without a better score move its level by one.
      placed: data on the devices: 'image', 'label' (resident), 'mean', 'std'.
      reference: the reference batch as stored [R, H, W, C], on the devices.
      statistics: examples that batch statistics of averaged weights are taken from, as stored [K, B, H, W, C]; K is 0 where
        nothing is averaged, or there are none.
      memory_plan: what `train.memory_budget` has chosen; None without one.
      judge: what an evaluation needs beside the data, 'judge': a classifier, on the devices; {} for most tasks.
      judge_name: which classifier that is; '' without one.
      weights: that training starts from, on the devices; {} where all are drawn.
    """

    config: Mapping[str, Any]
    dataset: data.Dataset
    program: Program
    total: int
    epoch: int
    rates: Callable[[Any], np.ndarray]
    averaging: Callable[..., np.ndarray] | None
    phases: Phases
    watchers: Mapping[str, int]
    placed: Any
    reference: Any
    statistics: Any
    memory_plan: memory.Plan | None = None
    judge: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    judge_name: str = ''
    weights: Any = dataclasses.field(default_factory=dict)

    @property
    def seed(self) -> int:
        """Of the run: initial weights and draws."""
        return self.config['train']['seed']

    @property
    def batch_size(self) -> int:
        """Examples of the first step."""
        return self.phases.at(0, 0).batch_size

    @property
    def largest(self) -> Phase:
        """The phase whose program holds most at once."""
        phases = {phase for phase, _ in self.phases.spans(self.total)} | {*self.phases.rungs}
        full = self.dataset.example_shape[0]
        return max(phases, key=lambda p: (-(-p.batch_size // p.micro_batches) * (p.side or full) ** 2, -len(p.frozen), p))

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
        """The config's, or else the data's."""
        return self.config['model']['num_classes'] or self.dataset.num_classes

    @property
    def order_seed(self) -> int:
        """Seed of the data order: the run's, or another draw for the null variant."""
        return order.redrawn(self.seed, self.config['data']['redraw'])

    def controls(self, positions: np.ndarray, size: int, levels: Mapping[str, int]) -> dict[str, np.ndarray]:
        """What changes from step to step: float64 [S] each.

        Args:
          positions: of each step's first example [S].
          size: examples of these steps' batches.
          levels: of the watchers.
        """
        rates = self.rates(positions) * plateau.reduced(self.config['schedule'], levels['rate'])
        coupling = self.config['data']['batch']['coupling']
        found = {'learning_rate': batch_sizes.coupled(rates, size, self.batch_size, coupling)}
        return found if self.averaging is None else found | {'average_weight': self.averaging(positions, size)}

    def prepared(self) -> Any:
        """The executable of the training program that takes most memory; nothing is computed."""
        program, phase = self.program, self.largest
        chunk = program.chunk(phase)
        if chunk.executable is None:
            arguments = feed.Feed(self).chunk(0, 0, 1, phase.batch_size, plateau.START)
            chunk.prepare(Clock(), program.engine.shaped(program.shapes), *arguments)
        return chunk.executable

    def init(self, clock: Clock) -> State:
        """The state before the first step, on the devices."""
        numbers = {k: np.float32(v) for k, v in optim.hyperparameters(self.config).items()}
        engine = self.program.engine
        return self.program.init(clock, engine.replicate(jax.random.key(self.seed)), engine.replicate(numbers), self.weights)


def load_data(config: Mapping[str, Any], session: Session) -> data.Dataset:
    """The run's data, read once a process."""
    shared = {
        k: v for k, v in config['data'].items() if k not in ('batch_size', 'eval_batch_size', 'redraw', 'workers', 'streaming')
    }
    key = repr(sorted(shared.items()))
    if key not in session.datasets:
        session.datasets[key] = data.load(config['data'])
    return session.datasets[key]


def build(config: Mapping[str, Any], session: Session, key: str) -> Experiment:
    """Wires a run; compiles nothing.

    Args:
      config: resolved, checked; nested mappings.
      session: keeps what runs share.
      key: the compile key (research.study.identity.compile_key).

    Raises:
      ConfigError: a name, argument or duration that does not fit.
    """
    dataset = load_data(config, session)
    if config['train']['memory_budget']:
        return _within_budget(config, dataset, session, key)
    epoch, batch = len(dataset.splits['train']), _batch_size(config, dataset)
    if batch < 1 or config['data']['eval_batch_size'] < 1:
        raise catalogue.ConfigError('data.batch_size and data.eval_batch_size are examples a step: expected at least 1.')
    if key not in session.programs:
        session.programs[key] = _program(config, dataset)
    program = session.programs[key]
    total = _budget(config, dataset, epoch)
    rates = optim.schedule(config, total, epoch, per_step=batch)
    averaging = optim.average_weight(config, total, epoch, per_step=batch)
    durations.examples(config['train']['eval_every'], batch, epoch, total)
    checkpoint_every(config, batch, epoch, total)
    experiment = Experiment(
        config=config,
        dataset=dataset,
        program=program,
        total=total,
        epoch=epoch,
        rates=rates,
        averaging=averaging,
        phases=phases.create(config, dataset, batch, program.module, total),
        watchers=_watchers(config),
        placed=None,
        reference=None,
        statistics=None,
    )
    phases.check(experiment)
    return dataclasses.replace(experiment, weights=_weights(experiment, session), **_place(experiment, session))


def _within_budget(config: Mapping[str, Any], dataset: data.Dataset, session: Session, key: str) -> Experiment:
    """The run with the micro-batch and rematerialization that fit; programs that were only looked at are let go."""

    def built(micro_batch: int, policy: str) -> tuple[Experiment, str]:
        gradient, train = {**config['gradient'], 'micro_batch': micro_batch}, {'memory_budget': '', 'remat': policy}
        changed = {**config, 'gradient': gradient, 'train': {**config['train'], **train}}
        name = f'{key} {micro_batch} {policy}'
        return build(changed, session, name), name

    if config['gradient']['micro_batch'] or config['train']['remat'] != 'none':
        raise catalogue.ConfigError(
            "train.memory_budget chooses gradient.micro_batch and train.remat: leave them at 0 and 'none', or it at ''."
        )
    if key not in session.plans:
        session.plans[key] = _plan(config, dataset, built)
    chosen = session.plans[key]
    experiment, kept = built(chosen.micro_batch, chosen.remat)
    for name in [name for name in session.programs if name.startswith(f'{key} ') and name != kept]:
        del session.programs[name]
    return dataclasses.replace(experiment, memory_plan=chosen)


def _plan(config: Mapping[str, Any], dataset: data.Dataset, built: Callable[[int, str], tuple[Experiment, str]]) -> memory.Plan:
    """Micro-batch and rematerialization for `train.memory_budget`, read off the programs of the runs that `built` gives."""
    batch, epoch = _batch_size(config, dataset), len(dataset.splits['train'])
    convert = functools.partial(durations.examples, batch_size=batch, epoch=epoch, total=_budget(config, dataset, epoch))
    rungs = batch_sizes.create({**config['data'], 'batch_size': batch}, convert).rungs
    whole, engine = max(rungs), parallel.create(config['train']['engine'], config['train']['devices'])
    for rung in rungs:
        parallel.check_shares(engine, rung)

    @functools.cache
    def need(size: int, policy: str) -> memory.Need:
        experiment, _ = built(0 if size == whole else size, policy)
        peak = memory.predicted(cost.memory(experiment.prepared()), experiment.program.engine.devices[0].platform)
        return memory.Need(peak, memory.time(train_flops(experiment.config, dataset, experiment.total)[0], size))

    shares, least = len(engine.devices) if engine.axis_name else 1, 2 if config['gradient']['noise_scale'] else 1
    sizes, remats = memory.candidates(rungs, shares, least), models.rematerializes(config['model']['name'])
    return memory.fit(config['train']['memory_budget'], sizes, whole, remats, need)


def checkpoint_every(config: Mapping[str, Any], batch: int, epoch: int, total: int) -> tuple[int | None, float | None]:
    """`train.checkpoint_every` as (examples, None) or (None, seconds)."""
    text = config['train']['checkpoint_every']
    if re.fullmatch(r'[0-9]*\.?[0-9]+s', text):
        return None, float(text[:-1])
    return max(1, durations.examples(text, batch, epoch, total)), None


def _batch_size(config: Mapping[str, Any], dataset: data.Dataset) -> int:
    return config['data']['batch_size'] or len(dataset.splits['train'])


def _budget(config, dataset, epoch) -> int:
    text, batch = config['study']['budget'], _batch_size(config, dataset)
    if match := re.fullmatch(r'([0-9]*\.?[0-9]+(?:e\+?[0-9]+)?)flops', text):
        return max(1, int(float(match[1]) / train_flops(config, dataset, batch * _MANY_STEPS)[0])) * batch
    total = durations.examples(text, batch, epoch)
    if total < 1:
        raise catalogue.ConfigError(
            f"study.budget '{text}' trains nothing: expected at least one step, such as '500st' or '20ep'."
        )
    return total


def _watchers(config: Mapping[str, Any]) -> dict[str, int]:
    """Whose patience with the validation score moves what."""
    found = {}
    if (patience := plateau.patience(config['schedule'])) is not None:
        found['rate'] = patience
    if (patience := batch_sizes.patience(config['data'])) is not None:
        found['size'] = patience
    return found


def _place(experiment: Experiment, session: Session) -> dict[str, Any]:
    """Data on the devices: one copy a data set and engine, whatever the number of runs."""
    config, dataset, engine = experiment.config, experiment.dataset, experiment.program.engine
    mean, std = (np.asarray(v, np.float32).reshape(1, 1, 1, -1) for v in dataset.normalize)
    key = f'{id(dataset)} {type(engine).__name__} {len(engine.devices)} {config["data"]["streaming"]}'
    if key not in session.placed:
        arrays = {} if config['data']['streaming'] else dataset.resident()
        session.placed[key] = engine.replicate({**arrays, 'mean': mean, 'std': std})
    count = config['data']['reference_size']
    shapes, blocks = experiment.program.shapes, 0
    if optim.averages(shapes.opt_state) and 'batch_stats' in shapes.collections:
        blocks = max(1, min(_STATISTICS_ROWS, experiment.epoch) // count)
    rows = dataset.splits['train'][
        order.indices(config['train']['seed'] + (zlib.crc32(b'reference') << 32), 0, count * (1 + blocks), experiment.epoch)
    ]
    if config['data']['streaming']:
        images = np.stack([dataset.source[int(i)]['image'] for i in rows])
    else:
        images = dataset.resident()['image'][rows]
    statistics = images[count:].reshape(blocks, count, *images.shape[1:])
    return {
        'placed': session.placed[key],
        'reference': engine.replicate(images[:count]),
        'statistics': engine.replicate(statistics),
    }


def _weights(experiment: Experiment, session: Session) -> dict[str, Any]:
    """Weights to start from, read once a process for a network and an engine."""
    config, program = experiment.config, experiment.program
    path = config['model']['init_from']
    if not path:
        return {}
    image, engine = program.inputs(1).shape, program.engine
    key = f'{sorted(config["model"].items())} {image} {type(engine).__name__} {len(engine.devices)}'
    if key not in session.placed:
        found = pretrained.weights(program.module, config['model']['name'], path, image)
        session.placed[key] = engine.replicate(found)
    return session.placed[key]


def kind_of(task: Any) -> types.ModuleType:
    """What trains for a task: research.train.step, or a file beside it with the same names in it."""
    if type(task) not in _KINDS:
        expected = ' or '.join(f'a {kind.__module__}.{kind.__name__}' for kind in _KINDS)
        raise catalogue.ConfigError(f'task.name makes a {type(task).__name__}, expected {expected}.')
    return _KINDS[type(task)]


def _program(config: Mapping[str, Any], dataset: data.Dataset) -> Program:
    engine = parallel.create(config['train']['engine'], config['train']['devices'])
    task = tasks.create(config['task'])
    kind = kind_of(task)
    module, stages, inputs = kind.create(config, dataset, task, engine.axis_name)
    init = functools.partial(kind.initial_state, module, stages, inputs(2))
    platform = engine.devices[0].platform
    options = formulation.compiler_options(platform)
    if config['train']['deterministic'] and platform == 'gpu':
        options['xla_gpu_deterministic_ops'] = True

    def precise(function, *bound):
        def at_precision(*arguments):
            with jax.default_matmul_precision(config['train']['matmul_precision']):
                return function(*bound, *arguments)

        return at_precision

    def compiled(function, *bound, donate=()):
        return Compiled(engine, precise(function, stages, engine, *bound), donate, options or None)

    shapes = jax.eval_shape(init, jax.random.key(0), optim.hyperparameters(config), {})
    fits = 'reference' not in shapes.collections and not optim.averages(shapes.opt_state)
    return Program(
        kind=kind,
        module=module,
        task=task,
        engine=engine,
        stages=stages,
        init=Compiled(engine, init),
        chunk=functools.cache(lambda phase: compiled(chunks.train_chunk, phase, donate=(0,))),
        evaluate=compiled(kind.evaluate),
        final=None if fits else compiled(kind.final),
        predict=jax.jit(precise(stages.predict), compiler_options=options or None),
        inputs=inputs,
        samples=compiled(kind.samples) if hasattr(kind, 'samples') else None,
        shapes=shapes,
    )


def train_flops(config: Mapping[str, Any], dataset: data.Dataset, total: int) -> tuple[int, int]:
    """FLOPs and multiply-adds of one training step over the whole batch, as if on one device: the mean over the run."""
    task = tasks.create(config['task'])
    module, stages, inputs = kind_of(task).create(config, dataset, task, None)
    init = functools.partial(kind_of(task).initial_state, module, stages, inputs(2))
    state = jax.eval_shape(init, jax.random.key(0), optim.hyperparameters(config), {})
    spans = phases.create(config, dataset, _batch_size(config, dataset), module, total).spans(total)
    counts = {phase: _step_flops(config, dataset, stages, state, phase) for phase, _ in spans}
    steps = sum(steps for _, steps in spans)
    mean = sum(counts[phase][1] * steps for phase, steps in spans) // steps
    return 2 * mean, mean


def _step_flops(config, dataset, stages, state, phase: Phase) -> tuple[int, int]:
    shape = jax.ShapeDtypeStruct
    channels = shape((1, 1, 1, dataset.example_shape[-1]), jnp.float32)
    n = phase.micro_batches
    rows = (n, -(-phase.batch_size // n)) if n > 1 else (phase.batch_size,)
    batch = {
        'image': shape((*rows, *dataset.example_shape), dataset.dtype),
        'label': shape(rows, jnp.int32),
        'mask': shape(rows, jnp.float32),
        'position': shape((*rows, 2), jnp.uint32),
    }
    reference = shape((config['data']['reference_size'], *dataset.example_shape), jnp.float32)
    controls = {'learning_rate': shape((), jnp.float32)}
    function = functools.partial(stages.step, stages, parallel.Jit(jax.devices()[:1]), phase)
    return cost.count(function, state, batch, {'mean': channels, 'std': channels}, reference, controls)


def inference_flops(experiment: Experiment) -> tuple[int, int]:
    """FLOPs and multiply-adds of one example's inference, with the weights that are seen."""
    stages, state = experiment.program.stages, experiment.program.shapes

    def predict(params, masks, collections, inputs):
        return stages.predict(stages.weights(params, masks), collections, inputs)

    return cost.count(predict, state.params, state.masks, state.collections, experiment.program.inputs(1))
