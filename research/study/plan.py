"""Config + variants x seeds -> runs, programs and cost; refuses what is wrong before anything compiles."""

import contextlib
import dataclasses
import pathlib
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import rich.console
import rich.table

from research import cost
from research.catalogue import ConfigError, nearest
from research.study import identity, names, overrides, records
from research.study.source import Misfit, Source
from research.train import experiment as experiments
from research.train.clock import Clock
from research.train.experiment import Experiment, Session
from research.train.feed import Feed

# What one finished run leaves on disk beside its variables (config, metrics, result, correctness), and their files.
_RECORD_BYTES, _RECORD_FILES, _VARIABLE_FILES = 44_000, 6, 12


@dataclasses.dataclass(frozen=True)
class Run:
    """One variant at one seed."""

    variant: str
    seed: int
    config: Mapping[str, Any]
    id: str
    key: str


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
    """

    config: Mapping[str, Any]
    source: Source
    question: str
    variants: Mapping[str, Mapping[str, Any]]
    contrasts: Mapping[str, Mapping[str, float]]
    runs: list[Run]

    @property
    def study(self) -> Mapping[str, Any]:
        """The group `config.study`."""
        return self.config['study']

    @property
    def seeds(self) -> tuple[int, ...]:
        """The study's seeds in their order."""
        return overrides.seeds_of(self.study)


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
    seeds = overrides.seeds_of(study)
    resolved = {name: overrides.apply(config, changed) for name, changed in variants.items()}
    same: dict[str, str] = {}
    for name, variant in resolved.items():
        with _located(source, name):
            names.check(variant)
        other = same.setdefault(identity.run_id(variant), name)
        if other != name:
            raise ConfigError(
                f"{source.at(name, name)}Variant '{name}' is the same as '{other}': nothing that it overrides changes the "
                'numbers of a run. Remove it.'
            )
    keys = {name: identity.compile_key(variant) for name, variant in resolved.items()}
    runs = []
    for seed in seeds:
        for name, variant in resolved.items():
            seeded = {**variant, 'train': {**variant['train'], 'seed': seed}}
            runs.append(Run(name, seed, seeded, identity.run_id(seeded), keys[name]))
    contrasts = study['contrasts'] or {name: {name: 1, 'baseline': -1} for name in study['variants']}
    return Plan(config, source, _question(question), variants, contrasts, runs)


def _question(docstring: str) -> str:
    """The paragraph that opens with 'Question:', or else the first one."""
    paragraphs = [' '.join(p.split()) for p in docstring.split('\n\n')]
    asked = next((p for p in paragraphs if p.startswith('Question:')), paragraphs[0])
    return asked.removeprefix('Question:').strip()


def verify(plan: Plan, session: Session) -> dict[str, Experiment]:
    """Builds every variant once, compiling nothing: names, arguments, durations, data.

    Returns:
      variant -> experiment at the first seed.

    Raises:
      ConfigError: with the variant's name in front.
    """
    built, checked = {}, set()
    for run in plan.runs[: len(plan.variants)]:
        with _located(plan.source, run.variant):
            built[run.variant] = experiments.build(run.config, session, run.key)
            if run.key not in checked:
                _check_built(built[run.variant])
            checked.add(run.key)
    return built


def prepare(plan: Plan, session: Session) -> None:
    """Fetches, checks and prepares the data of every variant."""
    for run in plan.runs[: len(plan.variants)]:
        with _located(plan.source, run.variant):
            experiments.load_data(run.config, session)


def _check_built(experiment: Experiment) -> None:
    """What only data and outputs can tell."""
    config, task, program = experiment.config, experiment.program.task, experiment.program
    classes, study = experiment.dataset.num_classes, config['study']
    if experiment.num_classes < classes:
        raise Misfit('model.num_classes', f"'model.num_classes' is {experiment.num_classes}, but the data has {classes}.")
    if not len(experiment.dataset.splits['validation']) and (study['score'] == 'best' or study['metric'][:5] != 'test/'):
        raise Misfit('data.validation', "'data.validation' is 0, but this study reads the validation split: give it examples.")
    images = jnp.zeros((2, *experiment.dataset.example_shape))
    batch = {'label': jnp.zeros(2, jnp.int32), 'mask': jnp.ones(2)}
    sums = jax.eval_shape(
        lambda params, collections: task.sums(program.predict(params, collections, images), batch),
        program.shapes.params,
        program.shapes.collections,
    )
    split, _, metric = study['metric'].partition('/')
    metrics = task.metrics(dict.fromkeys(sums, 1.0))
    if metric not in metrics:
        near = nearest(study['metric'], (f'{split}/{name}' for name in metrics))
        raise Misfit('study.metric', f"'study.metric' is '{study['metric']}'.{near}")


@contextlib.contextmanager
def _located(source: Source, variant: str) -> Iterator[None]:
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


@dataclasses.dataclass(frozen=True)
class Prediction:
    """Of one program: seconds a step and where they come from, peak bytes by the compiler's count, seconds to compile."""

    seconds_per_step: float
    source: str
    peak_bytes: int
    compile_seconds: float
    variable_bytes: int


def trial(experiment: Experiment, clock: Clock) -> Callable[[int], float]:
    """Compiles the training program; returns `steps -> seconds` that a chunk of them takes, on a state that nobody keeps."""
    program, feed, phase = experiment.program, Feed(experiment), experiment.phases.at(0, 0)
    state = experiment.init(clock)
    *arguments, first, one = feed.chunk(0, 0, 1, phase.batch_size, dict.fromkeys(('rate', 'size'), 0))
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


def predict(experiment: Experiment, key: str, known: list[Mapping[str, Any]]) -> Prediction:
    """Compiles the training program, and times three steps unless records of the same program tell."""
    clock, program = Clock(), experiment.program
    took = trial(experiment, clock)
    seen = [r['cost']['seconds_per_step'] for r in known if r.get('key') == key and r['status'] == 'finished']
    if seen:
        seconds, source = float(np.median(seen)), f'{len(seen)} finished runs'
    else:
        took(1)
        seconds, source = took(3) / 3, '3 timed steps'
    variable_bytes = sum(
        x.size * x.dtype.itemsize for x in jax.tree.leaves((program.shapes.params, program.shapes.collections))
    )
    return Prediction(
        seconds,
        source,
        cost.memory(program.chunk(experiment.phases.at(0, 0)).executable)['total'],
        clock.seconds['compile'],
        variable_bytes,
    )


def show(plan: Plan, workdir: pathlib.Path, session: Session, console: rich.console.Console) -> None:
    """Prints every run with what it will cost, the programs to compile, disk and files. Trains nothing.

    Times come from finished runs of the same program in `workdir`, else from three timed steps; the table says which.
    """
    built = verify(plan, session)
    known = _records(plan, workdir)
    counted: dict[str, dict[str, int]] = {}
    predicted: dict[str, Prediction] = {}
    for run in plan.runs[: len(built)]:
        if run.key not in counted:
            counted[run.key] = costs(built[run.variant])
            predicted[run.key] = predict(built[run.variant], run.key, known)
    console.print(f'{plan.study["name"]}: {len(plan.variants)} variants x {len(plan.seeds)} seeds = {len(plan.runs)} runs')
    for name, overridden in plan.variants.items():
        console.print(
            f'  {name}: ' + (', '.join(f'{k}={v!r}' for k, v in overridden.items()) or 'the config itself'), markup=False
        )
    done = {record['id'] for record in known if record['status'] != 'failed'}
    table = rich.table.Table()
    for column in (
        'run',
        'variant',
        'seed',
        'parameters',
        'GFLOPs/step',
        'GMACs/step',
        'MFLOPs/example',
        'peak MB',
        'seconds',
        '',
    ):
        table.add_column(column, justify='right' if column not in ('run', 'variant', '') else 'left')
    seconds = 0.0
    for run in plan.runs:
        count, guess, steps = counted[run.key], predicted[run.key], built[run.variant].steps
        took = guess.seconds_per_step * steps
        seconds += 0.0 if run.id in done else took
        table.add_row(
            run.id,
            rich.markup.escape(run.variant),
            str(run.seed),
            f'{count["parameters"]:,}',
            f'{count["train_flops"] / 1e9:.3g}',
            f'{count["train_multiply_adds"] / 1e9:.3g}',
            f'{count["inference_flops"] / 1e6:.3g}',
            f'{guess.peak_bytes / 1e6:.1f}',
            f'{took:.1f}',
            'finished' if run.id in done else f'from {guess.source}',
        )
    console.print(table)
    disk = sum(predicted[run.key].variable_bytes + _RECORD_BYTES for run in plan.runs)
    files = len(plan.runs) * (_RECORD_FILES + _VARIABLE_FILES)
    compiling = sum(p.compile_seconds for p in predicted.values())
    console.print(
        f'{len(predicted)} training programs to compile ({compiling:.0f} s just now, cached for the study). '
        f'Training: about {seconds / 60:.1f} min. Disk: about {disk / 1e6:.0f} MB in {files} files.'
    )
    console.print('peak MB is what the compiler counts for the training program: the scratch of library kernels comes on top.')


def _records(plan: Plan, workdir: pathlib.Path) -> list[dict[str, Any]]:
    """Results of the planned runs; a launch keeps torn and foreign ones aside, a plan only looks."""
    study = {'study': plan.study['name'], 'metric': plan.study['metric']}
    found = []
    for run in plan.runs:
        with contextlib.suppress(records.BadRecord):
            found.append(records.read_result(workdir / 'runs' / run.id / 'result.json', study, run.variant, run.seed))
    return [result for result in found if result is not None]
