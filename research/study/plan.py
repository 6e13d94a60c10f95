"""Config + variants x seeds -> runs, programs and cost; refuses what is wrong before anything compiles."""

import contextlib
import dataclasses
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from research import cost
from research.catalogue import ConfigError, nearest
from research.config import overrides, signatures
from research.config.files import ConfigFile, Misfit
from research.optim.plateau import START
from research.study import identity
from research.train import experiment as experiments
from research.train.clock import Clock
from research.train.experiment import Experiment, Session
from research.train.feed import Feed


@dataclasses.dataclass(frozen=True)
class Run:
    """One variant at one seed.

    Attributes:
      point: of tuning; None for a run that enters a verdict.
    """

    variant: str
    seed: int
    config: Mapping[str, Any]
    id: str
    key: str
    point: int | None = None

    @property
    def name(self) -> str:
        """What it is a run of: 'adam', or 'adam, point 3'."""
        return self.variant if self.point is None else f'{self.variant}, point {self.point}'


@dataclasses.dataclass(frozen=True)
class Plan:
    """A study, resolved.

    Attributes:
      config: of the baseline, nested.
      source: where its values stand, for messages.
      question: from the docstring of the config file.
      variants: name -> overrides, 'baseline' first, then 'null' unless switched off.
      contrasts: name -> {variant: weight}; the null is not among them.
      runs: seed by seed, every variant of a seed before the next seed, so that times are paired as scores are.
      tuning: what study.json says about it, see research.study.tuning; None in a study that does not tune.
    """

    config: Mapping[str, Any]
    source: ConfigFile
    question: str
    variants: Mapping[str, Mapping[str, Any]]
    contrasts: Mapping[str, Mapping[str, float]]
    runs: list[Run]
    tuning: Mapping[str, Any] | None = None

    @property
    def study(self) -> Mapping[str, Any]:
        """The group `config.study`."""
        return self.config['study']

    @property
    def seeds(self) -> tuple[int, ...]:
        """The study's seeds in their order."""
        return overrides.seeds_of(self.study)

    @property
    def firsts(self) -> list[Run]:
        """The runs of the first seed: everything that there is a run of, once."""
        return [run for run in self.runs if run.seed == self.runs[0].seed]


def make(spec: str, changes: Mapping[str, Any]) -> Plan:
    """Resolves the runs of a config file under the command line's changes; reads no data.

    Args:
      spec, changes: as in `overrides.load`.

    Raises:
      ConfigError: a key, name or argument that does not exist or fit, or two variants that are the same runs.
    """
    config, source, question = overrides.load(spec, changes)
    study = config['study']
    variants: dict[str, Any] = {'baseline': {}}
    if study['null']:
        variants['null'] = {'data.redraw': config['data']['redraw'] + 1}
    variants |= study['variants']
    resolved = {name: overrides.apply(config, changed) for name, changed in variants.items()}
    same: dict[str, str] = {}
    for name, variant in resolved.items():
        with located(source, name):
            signatures.check(variant)
        other = same.setdefault(identity.run_id(variant), name)
        if other != name:
            raise ConfigError(
                f"{source.at(name, name)}Variant '{name}' is the same as '{other}': nothing that it overrides changes the "
                'numbers of a run. Remove it.'
            )
    contrasts = study['contrasts'] or {name: {name: 1, 'baseline': -1} for name in study['variants']}
    return Plan(config, source, _question(question), variants, contrasts, expand(resolved, overrides.seeds_of(study)))


def expand(resolved: Mapping[str, Mapping[str, Any]], seeds: Sequence[int]) -> list[Run]:
    """The runs of a study, seed by seed; `resolved` is variant -> config."""
    by_variant = [seeded(name, config, seeds) for name, config in resolved.items()]
    return [run for runs in zip(*by_variant, strict=True) for run in runs]


def seeded(variant: str, config: Mapping[str, Any], seeds: Sequence[int], point: int | None = None) -> list[Run]:
    """One run a seed of a variant's resolved config."""
    key, runs = identity.compile_key(config), []
    for seed in seeds:
        own = {**config, 'train': {**config['train'], 'seed': seed}}
        runs.append(Run(variant, seed, own, identity.run_id(own), key, point))
    return runs


def _question(docstring: str) -> str:
    """The paragraph that opens with 'Question:', or else the first one."""
    paragraphs = [' '.join(p.split()) for p in docstring.split('\n\n')]
    asked = next((p for p in paragraphs if p.startswith('Question:')), paragraphs[0])
    return asked.removeprefix('Question:').strip()


def verify(plan: Plan, session: Session) -> dict[str, Experiment]:
    """Builds every variant, and point of tuning, once, compiling nothing: names, arguments, durations, data.

    Returns:
      name -> experiment at the first seed; of a variant, or of one at a point ('adam, point 3').

    Raises:
      ConfigError: with the variant's name in front.
    """
    built: dict[str, Experiment] = {}
    metrics: dict[str, list[str]] = {}
    for run in plan.firsts:
        with located(plan.source, run.variant):
            built[run.name] = experiments.build(run.config, session, run.key)
            _check_built(built[run.name], run.key, metrics)
    return built


def prepare(plan: Plan, session: Session) -> None:
    """Fetches, checks and prepares the data of every variant."""
    for run in plan.firsts:
        with located(plan.source, run.variant):
            experiments.load_data(run.config, session)


def _check_built(experiment: Experiment, key: str, known: dict[str, list[str]]) -> None:
    """What only data and outputs can tell; `known` keeps the metrics of a program by its compile key, this run's `key`."""
    config, program = experiment.config, experiment.program
    classes, study = experiment.dataset.num_classes, config['study']
    if experiment.num_classes < classes:
        raise Misfit('model.num_classes', f"'model.num_classes' is {experiment.num_classes}, but the data has {classes}.")
    steers = study['score'] == 'best' or study['metric'][:5] != 'test/' or experiment.watchers
    if steers and not len(experiment.dataset.splits['validation']):
        raise Misfit('data.validation', "'data.validation' is 0, but this study reads the validation split: give it examples.")
    split, _, metric = study['metric'].partition('/')
    if key not in known:
        known[key] = program.kind.metric_names(program.stages, program.task, program.inputs, program.shapes)
    metrics = known[key]
    if metric not in metrics:
        near = nearest(study['metric'], (f'{split}/{name}' for name in metrics))
        raise Misfit('study.metric', f"'study.metric' is '{study['metric']}'.{near}")


@contextlib.contextmanager
def located(source: ConfigFile, variant: str) -> Iterator[None]:
    """Says where in the config the cause of an error stands; what a fork's own code raises becomes an error of the config."""
    inside, prefix = ('', '') if variant in ('baseline', 'null') else (variant, f"Variant '{variant}': ")
    try:
        yield
    except Misfit as misfit:
        raise ConfigError(f'{source.at(misfit.key, inside)}{prefix}{misfit}') from misfit
    except ConfigError as error:
        raise ConfigError(f'{source.mentions(str(error), inside)}{prefix}{error}') from error
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        frame = ([f for f in frames if 'site-packages' not in f.filename] or frames)[-1]
        text = f'{type(error).__name__}: {" ".join(str(error).split())} ({frame.filename}:{frame.lineno})'
        raise ConfigError(f'{source.at(inside, inside)}{prefix}building it failed with {text}') from error


def costs(experiment: Experiment) -> dict[str, int]:
    """What can be counted without running: parameters, FLOPs and multiply-adds."""
    train, inference = (
        experiments.train_flops(experiment.config, experiment.dataset, experiment.total),
        experiments.inference_flops(experiment),
    )
    return {
        'parameters': cost.parameters({'params': experiment.program.shapes.params}),
        'train_flops': train[0],
        'train_multiply_adds': train[1],
        'inference_flops': inference[0],
        'inference_multiply_adds': inference[1],
    }


def schedules(built: Mapping[str, Experiment]) -> dict[str, tuple[list[int], list[float]]]:
    """name -> (positions in examples, learning rates), over the run."""
    found = {}
    for name, experiment in built.items():
        positions = np.unique(np.linspace(0, experiment.total - 1, 101).astype(int))
        found[name] = positions.tolist(), np.asarray(experiment.rates(positions), float).tolist()
    return found


def trial(experiment: Experiment, clock: Clock) -> Callable[[int], float]:
    """Compiles the training program; returns `steps -> seconds` that a chunk of them takes, on a state that nobody keeps."""
    program, feed, phase = experiment.program, Feed(experiment), experiment.phases.at(0, 0)
    state = experiment.init(clock)
    *arguments, first, one = feed.chunk(0, 0, 1, phase.batch_size, START)
    feed.close()
    chunk = program.chunk(phase)
    chunk.prepare(clock, state, *arguments, first, one)

    def took(steps: int) -> float:
        nonlocal state
        count = program.engine.replicate(np.int32(steps))
        start = time.perf_counter()
        state, sums = chunk(clock, state, *arguments, first, count)
        jax.block_until_ready(sums)
        return time.perf_counter() - start

    return took
