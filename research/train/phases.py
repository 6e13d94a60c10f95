"""What is fixed in a program and yet changes during a run: batch size, input side, frozen layers. Each set is a phase.

A phase is a program of its own, compiled once. Its changes are read off the position, which counts examples, or off the
level of a watcher of the validation score; the order of the data knows nothing of it.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

from research import augment, catalogue, data, durations, gradients, models
from research.augment import resize
from research.data import batch_sizes
from research.gradients import freezing
from research.train import parallel


class Phase(NamedTuple):
    """What a training program has fixed.

    Attributes:
      batch_size: B, examples a step, over all devices.
      micro_batches: n, in which the gradient of a step is added up.
      side: height (or length) of the inputs that the network sees; 0 is as they are.
      frozen: top-level names of parameters that do not learn.
    """

    batch_size: int
    micro_batches: int
    side: int
    frozen: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Phases:
    """The phases of a run.

    Attributes:
      at: (position, level of the watcher of the batch size) -> Phase.
      changes: positions at which the position alone begins another phase, rising.
      rungs: one phase for every batch size that may come.
    """

    at: Callable[[int, int], Phase]
    changes: tuple[int, ...]
    rungs: tuple[Phase, ...]

    def next_change(self, position: int) -> int | None:
        """The first change behind a position."""
        return next((change for change in self.changes if change > position), None)

    def spans(self, total: int) -> list[tuple[Phase, int]]:
        """(phase, steps) in their order over `total` examples, at level 0; a run has one step at least."""
        spans, position = [], 0
        while (steps := (total - position) // (phase := self.at(position, 0)).batch_size) > 0:
            change = self.next_change(position)
            if change is not None:
                steps = min(steps, -(-(change - position) // phase.batch_size))
            spans.append((phase, steps))
            position += steps * phase.batch_size
        return spans or [(phase, 1)]


def create(config: Mapping[str, Any], dataset: data.Dataset, batch_size: int, step: Any, total: int) -> Phases:
    """The phases of a run.

    Args:
      config: the whole config; reads `data.batch`, `augment.resize`, `gradient.freeze` and `gradient.micro_batch`.
      batch_size: examples of the first step.
      step: a research.train.steps.Step; its network tells the full side, and which layers may freeze.
      total: examples of the run.

    Raises:
      ConfigError: a name, argument or duration that does not fit.
    """

    def convert(text: str) -> int:
        return durations.examples(text, batch_size, len(dataset.splits['train']), total)

    full, micro = resize.side_of(step.inputs(1)), config['gradient']['micro_batch']
    sizes = batch_sizes.create({**config['data'], 'batch_size': batch_size}, convert)
    sides = resize.create(config['augment'], full, convert)
    freeze = freezing.create(config['gradient'], convert)
    args, kwargs = step.inputs(2)
    layers = models.layers(step.module, *args, **kwargs) if freeze.changes else ()

    def phase(size: int, position: int) -> Phase:
        side = sides.at(position)
        return Phase(
            batch_size=size,
            micro_batches=-(-size // micro) if micro else 1,
            side=0 if side == full else side,
            frozen=freezing.frozen(layers, freeze.at(position)),
        )

    def at(position: int, level: int) -> Phase:
        return phase(sizes.at(position, level), position)

    if freeze.changes and not at(freeze.changes[-1], 0).frozen:
        raise catalogue.ConfigError(
            f'gradient.freeze freezes none of {len(layers)} layers (the last one always learns): take a larger share.'
        )
    changes = tuple(sorted({*sizes.changes, *sides.changes, *freeze.changes}))
    return Phases(at, changes, tuple(phase(size, 0) for size in sizes.rungs))


def check(experiment: Any) -> None:
    """Refuses, at every size that may come, what devices cannot share, what a network or an average of weights cannot take, and
    padding that norm layers would see.

    Args:
      experiment: a research.train.experiment.Experiment; nothing of it is compiled.

    Raises:
      ConfigError: with what to change.
    """
    program, config = experiment.program, experiment.config
    parallel.check_shares(program.engine, config['data']['eval_batch_size'])
    spans = experiment.phases.spans(experiment.total)
    _check_growth(experiment, spans)
    for phase in dict.fromkeys([*(phase for phase, _ in spans), *experiment.phases.rungs]):
        gradients.create(config['gradient'], phase.micro_batches)
        if experiment.averaging is not None:
            experiment.averaging(0, 0, phase.batch_size)
        size = -(-phase.batch_size // phase.micro_batches)
        parallel.check_shares(program.engine, size)
        augment.check_pairs(config['augment'], size, len(program.engine.devices))
        if phase.batch_size % phase.micro_batches and 'batch_stats' in program.shapes.collections:
            raise catalogue.ConfigError(
                f'gradient.micro_batch {config["gradient"]["micro_batch"]} does not divide a batch of {phase.batch_size}: its '
                'padding would enter the statistics of batch normalization. Choose a divisor, or another norm layer.'
            )
        if phase.side:
            try:
                jax.eval_shape(
                    functools.partial(_predicted, program.step, phase.side),
                    *(program.seen, program.shapes.collections, program.step.inputs(2)),
                )
            except Exception as error:
                raise catalogue.ConfigError(
                    f"Model '{config['model']['name']}' cannot take inputs of side {phase.side}, which augment.resize makes: "
                    f'{str(error).splitlines()[0]}'
                ) from error


def _check_growth(experiment: Any, spans: list[tuple[Phase, int]]) -> None:
    """Refuses a batch that grows to more than the budget still holds: the rest of it would train nothing."""
    position = sum(phase.batch_size * steps for phase, steps in spans)
    last, size, left = spans[-1][0].batch_size, experiment.phases.at(position, 0).batch_size, experiment.total - position
    if last <= left < size:
        raise catalogue.ConfigError(
            f'data.batch grows to {size} examples where {left} of {experiment.total} are left, which would train nothing: take '
            'an earlier milestone, a smaller factor or a ceiling.'
        )


def _predicted(step: Any, side: int, params: Any, collections: Any, inputs: Any) -> Any:
    return step.predict(params, collections, resize.resized(inputs, side))
