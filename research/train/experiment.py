"""One run, wired: data, model, weights, loss, gradient, optimizer, each by one call."""

import dataclasses
import functools
import re
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from research import augment, catalogue, compress, cost, data, durations, gradients, models, optim, tasks
from research.data import order
from research.train import parallel, step
from research.train.clock import Clock
from research.train.state import State

# Index, rate and sum buffers of a chunk have one size, so that every chunk is the same program.
_CHUNK_STEPS, _CHUNK_ROWS = 1024, 1 << 20


class Compiled:
    """A function compiled at its first call and never again: another shape is an error, not a recompilation."""

    def __init__(self, engine, function: Callable[..., Any], donate: tuple[int, ...] = ()):
        self.jitted = engine.jit(function, donate)
        self.executable: Any = None

    def prepare(self, clock: Clock, *args: Any) -> None:
        """Compiles for arguments like these; a second call does nothing."""
        if self.executable is None:
            with clock.measure('compile'):
                self.executable = self.jitted.lower(*args).compile()

    def __call__(self, clock: Clock, *args: Any) -> Any:
        self.prepare(clock, *args)
        return self.executable(*args)


@dataclasses.dataclass
class Program:
    """What every run with the same compile key shares: module, stages and compiled functions.

    Attributes:
      predict: (params that are seen, collections, images) -> outputs on one device; compiled by batch size.
      shapes: the state's, on one device.
      rate: steps a second, as last measured; None before the first chunk.
    """

    module: nn.Module
    task: tasks.Task
    engine: parallel.Jit | parallel.Pmap
    stages: step.Stages
    init: Compiled
    chunk: Compiled
    evaluate: Compiled
    refresh: Compiled | None
    predict: Callable[..., Any]
    shapes: State
    rate: float | None = None


@dataclasses.dataclass
class Session:
    """What a process keeps between runs: programs by compile key, data sets, and their copies on the devices."""

    programs: dict[str, Program] = dataclasses.field(default_factory=dict)
    datasets: dict[str, data.Dataset] = dataclasses.field(default_factory=dict)
    placed: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class Experiment:
    """One run, ready to train.

    Attributes:
      total: examples of the whole run; `steps` of them in batches.
      rates: position in examples -> learning rate.
      chunk_steps: S, the capacity of a chunk.
      placed: data on the devices: 'image', 'label' (resident), 'mean', 'std'.
      reference: the reference batch as stored [R, H, W, C], on the devices.
    """

    config: Mapping[str, Any]
    dataset: data.Dataset
    program: Program
    total: int
    steps: int
    rates: Callable[[Any], np.ndarray]
    chunk_steps: int
    placed: Any
    reference: Any

    @property
    def seed(self) -> int:
        """Of the run: initial weights and draws."""
        return self.config['train']['seed']

    @property
    def batch_size(self) -> int:
        """Examples a step."""
        return self.config['data']['batch_size']

    @property
    def num_classes(self) -> int:
        """The config's, or else the data's."""
        return self.config['model']['num_classes'] or self.dataset.num_classes

    @property
    def order_seed(self) -> int:
        """Seed of the data order: the run's, or another draw for the null variant."""
        return order.redrawn(self.seed, self.config['data']['redraw'])

    def init(self, clock: Clock) -> State:
        """The state before the first step, on the devices."""
        numbers = {k: np.float32(v) for k, v in optim.hyperparameters(self.config).items()}
        engine = self.program.engine
        return self.program.init(clock, engine.replicate(jax.random.key(self.seed)), engine.replicate(numbers))


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
    if key not in session.programs:
        session.programs[key] = _program(config, dataset)
    program = session.programs[key]
    epoch, batch = len(dataset.splits['train']), config['data']['batch_size']
    if batch < 1 or config['data']['eval_batch_size'] < 1:
        raise catalogue.ConfigError('data.batch_size and data.eval_batch_size are examples a step: expected at least 1.')
    total = _budget(config, dataset, epoch)
    reference_rows = dataset.splits['train'][
        order.indices(config['train']['seed'] + (zlib.crc32(b'reference') << 32), 0, config['data']['reference_size'], epoch)
    ]
    experiment = Experiment(
        config=config,
        dataset=dataset,
        program=program,
        total=total,
        steps=max(1, total // batch),
        rates=optim.schedule(config, total, epoch),
        chunk_steps=max(1, min(_CHUNK_STEPS, _CHUNK_ROWS // batch)),
        placed=None,
        reference=None,
    )
    durations.examples(config['train']['eval_every'], batch, epoch, total)
    checkpoint_every(config, epoch, total)
    return dataclasses.replace(experiment, **_place(experiment, session, reference_rows))


def checkpoint_every(config: Mapping[str, Any], epoch: int, total: int) -> tuple[int | None, float | None]:
    """`train.checkpoint_every` as (examples, None) or (None, seconds)."""
    text = config['train']['checkpoint_every']
    if re.fullmatch(r'[0-9]*\.?[0-9]+s', text):
        return None, float(text[:-1])
    return max(1, durations.examples(text, config['data']['batch_size'], epoch, total)), None


def _budget(config, dataset, epoch) -> int:
    text = config['study']['budget']
    if match := re.fullmatch(r'([0-9]*\.?[0-9]+(?:e\+?[0-9]+)?)flops', text):
        return max(1, int(float(match[1]) / train_flops(config, dataset)[0])) * config['data']['batch_size']
    total = durations.examples(text, config['data']['batch_size'], epoch)
    if total < 1:
        raise catalogue.ConfigError(
            f"study.budget '{text}' trains nothing: expected at least one step, such as '500st' or '20ep'."
        )
    return total


def _place(experiment: Experiment, session: Session, reference_rows: np.ndarray) -> dict[str, Any]:
    """Data on the devices: one copy a data set and engine, whatever the number of runs."""
    config, dataset, engine = experiment.config, experiment.dataset, experiment.program.engine
    mean, std = (np.asarray(v, np.float32).reshape(1, 1, 1, -1) for v in dataset.normalize)
    key = f'{id(dataset)} {type(engine).__name__} {len(engine.devices)} {config["data"]["streaming"]}'
    if key not in session.placed:
        arrays = {} if config['data']['streaming'] else dataset.resident()
        session.placed[key] = engine.replicate({**arrays, 'mean': mean, 'std': std})
    reference = np.stack([dataset.source[int(i)]['image'] for i in reference_rows])
    return {'placed': session.placed[key], 'reference': engine.replicate(reference)}


def _program(config: Mapping[str, Any], dataset: data.Dataset) -> Program:
    batches = (config['data']['batch_size'], config['data']['eval_batch_size'])
    engine = parallel.create(config['train']['engine'], config['train']['devices'], *batches)
    task = tasks.create(config['task'])
    module, stages = _stages(config, dataset, task, engine.axis_name)
    init = functools.partial(_initial_state, module, stages, _sample(dataset))

    def precise(function, *bound):
        def at_precision(*arguments):
            with jax.default_matmul_precision(config['train']['matmul_precision']):
                return function(*bound, *arguments)

        return at_precision

    return Program(
        module=module,
        task=task,
        engine=engine,
        stages=stages,
        init=Compiled(engine, init),
        chunk=Compiled(engine, precise(step.train_chunk, stages, engine), donate=(0,)),
        evaluate=Compiled(engine, precise(step.evaluate, stages, engine)),
        refresh=Compiled(engine, precise(step.refresh, stages, engine)) if stages.refresh else None,
        predict=jax.jit(precise(stages.predict)),
        shapes=jax.eval_shape(init, jax.random.key(0), optim.hyperparameters(config)),
    )


def _stages(config, dataset, task, axis_name) -> tuple[nn.Module, step.Stages]:
    group = config['model']
    kwargs = {k: v for k, v in group.items() if k not in ('name', 'num_classes')}
    module = models.create(group['name'], group['num_classes'] or dataset.num_classes, axis_name=axis_name, **kwargs)
    collections = set(jax.eval_shape(module.init, jax.random.key(0), _sample(dataset))) - {'params'}
    # Named one by one: `mutable=True` would make any call a reference pass.
    running = sorted(collections - {'reference'})

    def refresh(seen, collections, reference):
        # Nothing random in it: not training.
        _, new = module.apply({'params': seen, **collections}, reference, train=False, mutable=['reference'])
        return {**collections, **new}

    def apply(seen, collections, images, reference, positions, rng):
        if 'reference' in collections:
            collections = refresh(seen, collections, reference)
        variables = {'params': seen, **collections, 'example': {'position': positions, 'rng': rng}}
        outputs, new = module.apply(variables, images, train=True, mutable=running)
        return outputs, jax.lax.stop_gradient({**collections, **new})

    stages = step.Stages(
        augment=augment.create(config['augment']),
        weights=compress.create(config['compress']),
        apply=apply,
        predict=lambda seen, collections, images: module.apply({'params': seen, **collections}, images, train=False),
        refresh=refresh if 'reference' in collections else None,
        sums=task.sums,
        correct=task.correct,
        gradient=gradients.create(config['gradient']),
        update=optim.create(config),
    )
    return module, stages


def _sample(dataset: data.Dataset) -> jax.Array:
    return jnp.zeros((2, *dataset.example_shape), jnp.float32)


def _initial_state(module: nn.Module, stages: step.Stages, sample: jax.Array, rng: jax.Array, numbers: Any) -> State:
    variables = module.init(step.key_of(rng, 'init'), sample)
    params = variables['params']
    return State(
        step=jnp.int32(0),
        rng=rng,
        params=params,
        collections={k: v for k, v in variables.items() if k != 'params'},
        opt_state=optim.inject(stages.update.init(params), **numbers),
        masks={},
    )


def train_flops(config: Mapping[str, Any], dataset: data.Dataset) -> tuple[int, int]:
    """FLOPs and multiply-adds of one training step over the whole batch, as if on one device."""
    module, stages = _stages(config, dataset, tasks.create(config['task']), None)
    batch = config['data']['batch_size']
    shape = jax.ShapeDtypeStruct
    state = jax.eval_shape(
        functools.partial(_initial_state, module, stages, _sample(dataset)), jax.random.key(0), optim.hyperparameters(config)
    )
    channels = shape((1, 1, 1, dataset.example_shape[-1]), jnp.float32)
    arguments = {
        'image': shape((batch, *dataset.example_shape), dataset.dtype),
        'label': shape((batch,), jnp.int32),
        'mask': shape((batch,), jnp.float32),
        'position': shape((batch, 2), jnp.uint32),
        'data': {'mean': channels, 'std': channels},
        'reference': shape((config['data']['reference_size'], *dataset.example_shape), jnp.float32),
    }
    function = functools.partial(step.train_step, stages, parallel.Jit(jax.devices()[:1]))
    return cost.count(function, state, arguments, shape((), jnp.float32))


def inference_flops(experiment: Experiment) -> tuple[int, int]:
    """FLOPs and multiply-adds of one example's inference, with the weights that are seen."""
    stages, state = experiment.program.stages, experiment.program.shapes

    def predict(params, masks, collections, image):
        return stages.predict(stages.weights(params, masks), collections, image)

    image = jax.ShapeDtypeStruct((1, *experiment.dataset.example_shape), jnp.float32)
    return cost.count(predict, state.params, state.masks, state.collections, image)
