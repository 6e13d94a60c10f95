"""The plan of a study: every run with its cost, program and learning rate, before anything is trained."""

import contextlib
import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import rich.console
import rich.markup
import rich.table

from research import cost
from research.report import figures, records, words
from research.study.measure import costs, schedules, trial
from research.study.plan import Plan
from research.study.verify import verify
from research.train.clock import Clock
from research.train.evaluation import variables_of
from research.train.experiment import Experiment
from research.train.program import Session

# Bytes and files that a finished run leaves besides its variables (config, metrics, result, correctness); files of these.
_RECORD_BYTES, _RECORD_FILES, _VARIABLE_FILES = 44_000, 6, 12
_LABELS = ('run', 'variant', '')
_COLUMNS = ('run', 'variant', 'seed', 'parameters', 'GFLOPs/step', 'GMACs/step', 'MFLOPs/example', 'peak MB', 'seconds', '')


@dataclasses.dataclass(frozen=True)
class Prediction:
    """Of one program: seconds a step and where they come from, peak bytes by the compiler's count, seconds to compile, and what
    a run leaves on disk: variables and pictures."""

    seconds_per_step: float
    source: str
    peak_bytes: int
    compile_seconds: float
    kept_bytes: int
    kept_files: int


def predict(experiment: Experiment, key: str, known: list[Mapping[str, Any]]) -> Prediction:
    """Compiles the training program, and times three steps unless there are records of the same program."""
    clock, program = Clock(), experiment.program
    took = trial(experiment, clock)
    seen = [r['cost']['seconds_per_step'] for r in known if r.get('key') == key and r['status'] == 'finished']
    if seen:
        seconds, source = float(np.median(seen)), f'{len(seen)} finished runs'
    else:
        took(1)
        seconds, source = took(3) / 3, '3 timed steps'
    variables = variables_of(program.shapes)
    kept_bytes, kept_files = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(variables)), _VARIABLE_FILES
    if program.samples is not None:
        pictures = sum(rows.size for rows in jax.tree.leaves(jax.eval_shape(program.step.samples, variables)))
        evaluations = -(-experiment.total // experiment.eval_every)
        kept_bytes, kept_files = kept_bytes + evaluations * pictures, kept_files + evaluations
    return Prediction(
        seconds,
        source,
        cost.memory(experiment.prepared())['total'],
        clock.seconds['compile'],
        kept_bytes,
        kept_files,
    )


def show(plan: Plan, before: Plan | None, workdir: pathlib.Path, session: Session, console: rich.console.Console) -> None:
    """Prints every run with what it will cost, the programs to compile, disk and files. Trains nothing.

    Times come from finished runs of the same program in `workdir`, else from three timed steps; the table says which.

    Args:
      plan: the study; where tuning is not over, with its variants as they are written.
      before: the runs of tuning, None in a study that does not tune.
    """
    stages = [stage for stage in (before, plan) if stage is not None]
    built = {name: experiment for stage in stages for name, experiment in verify(stage, session).items()}
    known = [record for stage in stages for record in recorded(stage, workdir)]
    runs = [run for stage in stages for run in stage.runs]
    counted: dict[str, dict[str, Any]] = {}
    predicted: dict[str, Prediction] = {}
    for run in (run for stage in stages for run in stage.firsts):
        if run.key not in counted:
            counted[run.key] = costs(built[run.name])
            predicted[run.key] = predict(built[run.name], run.key, known)
    _head(plan, before, {name: built[name] for name in plan.variants}, console)
    done = {record['id'] for record in known if record['status'] != 'failed'}
    table = rich.table.Table()
    for column in _COLUMNS:
        table.add_column(column, justify='left' if column in _LABELS else 'right')
    untuned = before is not None and plan.tuning is None
    seconds = {'tuning': 0.0, 'training': 0.0}
    for run in runs:
        count, guess, steps = counted[run.key], predicted[run.key], built[run.name].steps
        took = guess.seconds_per_step * steps
        seconds['training' if run.point is None else 'tuning'] += 0.0 if run.id in done else took
        table.add_row(
            'after tuning' if untuned and run.point is None else run.id,
            rich.markup.escape(run.name),
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
    disk = sum(predicted[run.key].kept_bytes + _RECORD_BYTES for run in runs)
    files = sum(predicted[run.key].kept_files + _RECORD_FILES for run in runs)
    compiling = sum(p.compile_seconds for p in predicted.values())
    tuning = f'Tuning: about {seconds["tuning"] / 60:.1f} min. ' if before is not None else ''
    console.print(
        f'{len(predicted)} training programs to compile ({compiling:.0f} s just now, cached for the study). {tuning}'
        f'Training: about {seconds["training"] / 60:.1f} min. Disk: about {disk / 1e6:.0f} MB in {files} files.'
    )
    console.print('peak MB is what the compiler counts for the training program: the scratch of library kernels comes on top.')


def _head(plan: Plan, before: Plan | None, built: Mapping[str, Experiment], console: rich.console.Console) -> None:
    """What there is: variants, their points of tuning, and each learning rate that is different."""

    def say(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    say(f'{plan.study["name"]}: {len(plan.variants)} variants x {len(plan.seeds)} seeds = {len(plan.runs)} runs')
    for name, overridden in plan.variants.items():
        say(f'  {name}: ' + (', '.join(f'{k}={v!r}' for k, v in overridden.items()) or 'the config itself'))
    if before is not None:
        tuning = before.tuning
        say(
            f'before them {tuning["points"]} points a variant x {len(before.seeds)} seeds = {len(before.runs)} runs of tuning, '
            f'on {tuning["metric"]} over {tuning["budget"]}'
        )
        for name, entries in tuning['variants'].items():
            say(f'  {name}: ' + '; '.join(words.settings(entry['values']) for entry in entries))
    for why in dict.fromkeys(experiment.why for experiment in built.values() if experiment.why):
        say(why)
    say('learning rate over the run' + (', before tuning' if before is not None and plan.tuning is None else ''))
    for curve, owners in figures.rates(schedules(built)):
        say(f'  {curve}: {owners}')


def recorded(plan: Plan, workdir: pathlib.Path) -> list[dict[str, Any]]:
    """Results of the planned runs; a launch keeps torn and foreign ones aside, a plan only looks."""
    study = {'study': plan.study['name'], 'metric': plan.study['metric']}
    results = []
    for run in plan.runs:
        with contextlib.suppress(records.BadRecord):
            results.append(records.read_result(workdir / 'runs' / run.id / 'result.json', study, run.variant, run.seed))
    return [result for result in results if result is not None]
