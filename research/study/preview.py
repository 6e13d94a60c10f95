"""The plan of a study: what each variant costs, before anything is trained."""

import contextlib
import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
import rich.console
from rich.text import Text

from research import cost
from research.report import data_cards, figures, records, words
from research.report.console import Column, Line, Listing
from research.study.measure import costs, schedules, step_seconds, trial
from research.study.plan import Plan, Run
from research.study.verify import verify
from research.train.clock import Clock
from research.train.evaluation import variables_of
from research.train.experiment import Experiment
from research.train.program import Session

# Bytes and files that a finished run leaves besides its variables (config, metrics, result, correctness); files of these.
_RECORD_BYTES, _RECORD_FILES, _VARIABLE_FILES = 44_000, 6, 12
# Seconds that a small run takes besides steps and evaluations: it is built, saved and recorded (quickstart, 2 cores).
_AROUND = 0.4
# Classes whose examples are counted.
_MOST_CLASSES = 20
_COUNTS = ('parameters', 'train_flops', 'train_multiply_adds', 'inference_flops')
_REST = (
    'Times come from finished runs of the same program, else from steps timed just now; evaluations are guessed from their '
    'FLOPs. Not in them: reading data, latency, the report. peak is what the compiler counts for the training program: the '
    'scratch of library kernels comes on top.'
)


@dataclasses.dataclass(frozen=True)
class Prediction:
    """Of one program.

    Attributes:
      counts: as research.study.measure.costs.
      seconds_per_step, source: and where they come from.
      evaluate_seconds: of all evaluations of a run.
      peak_bytes: by the compiler's count.
      compile_seconds: of the training program.
      kept_bytes, kept_files: that a run leaves on disk besides its records: variables and pictures.
    """

    counts: Mapping[str, Any]
    seconds_per_step: float
    source: str
    evaluate_seconds: float
    peak_bytes: int
    compile_seconds: float
    kept_bytes: int
    kept_files: int


def predict(experiment: Experiment, key: str, known: list[Mapping[str, Any]]) -> Prediction:
    """Compiles the training program, and times a few steps unless there are records of the same program."""
    clock, program, counts = Clock(), experiment.program, costs(experiment)
    timing = trial(experiment, clock)
    seen = [r['cost']['seconds_per_step'] for r in known if r.get('key') == key and r['status'] == 'finished']
    if seen:
        seconds, source = float(np.median(seen)), f'{len(seen)} finished run{"s" * (len(seen) > 1)}'
    else:
        seconds, steps = step_seconds(*timing)
        source = f'{steps} timed steps'
    variables, evaluations = variables_of(program.shapes), -(-experiment.total // experiment.eval_every)
    kept_bytes, kept_files = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(variables)), _VARIABLE_FILES
    if program.samples is not None:
        pictures = sum(rows.size for rows in jax.tree.leaves(jax.eval_shape(program.step.samples, variables)))
        kept_bytes, kept_files = kept_bytes + evaluations * pictures, kept_files + evaluations
    validation, test = (len(experiment.dataset.splits[split]) for split in ('validation', 'test'))
    evaluated = (evaluations + 1) * validation + 2 * test  # test, and as many training examples, at the end
    share = counts['inference_flops'] / max(counts['train_flops'], 1)
    return Prediction(
        counts=counts,
        seconds_per_step=seconds,
        source=source,
        evaluate_seconds=evaluated * share * seconds,
        peak_bytes=cost.memory(experiment.prepared())['total'],
        compile_seconds=clock.seconds['compile'],
        kept_bytes=kept_bytes,
        kept_files=kept_files,
    )


def show(
    plan: Plan,
    before: Plan | None,
    workdir: pathlib.Path,
    session: Session,
    console: rich.console.Console,
    by_run: bool = False,
) -> None:
    """Prints the totals of a study, then what each variant will cost. Trains nothing.

    Args:
      plan: the study; where tuning is not over, with its variants as they are written.
      before: the runs of tuning, None in a study that does not tune.
      by_run: a line for every run in place of every variant.
    """
    stages = [stage for stage in (before, plan) if stage is not None]
    built = {name: experiment for stage in stages for name, experiment in verify(stage, session).items()}
    known = [record for stage in stages for record in recorded(stage, workdir)]
    preview = _Preview(plan, before, built, {record['id'] for record in known if record['status'] != 'failed'})
    for run in (run for stage in stages for run in stage.firsts):
        if run.key not in preview.predicted:
            preview.predicted[run.key] = predict(built[run.name], run.key, known)
    for line in preview.totals():
        console.print(line, markup=False, highlight=False)
    console.print(preview.listing(by_run))
    for line in preview.settings():
        console.print(line, markup=False, highlight=False, soft_wrap=True)


@dataclasses.dataclass
class _Preview:
    """A study (`plan`, `before`), its experiments by name, the ids of runs that are done, and predictions by compile key."""

    plan: Plan
    before: Plan | None
    built: Mapping[str, Experiment]
    done: set[str]
    predicted: dict[str, Prediction] = dataclasses.field(default_factory=dict)

    @property
    def runs(self) -> list[Run]:
        return [run for stage in (self.before, self.plan) if stage is not None for run in stage.runs]

    def seconds(self, run: Run) -> float:
        """Of its steps; 0 if it is done."""
        return 0.0 if run.id in self.done else self.predicted[run.key].seconds_per_step * self.built[run.name].steps

    def totals(self) -> list[str]:
        plan, todo, programs = self.plan, [run for run in self.runs if run.id not in self.done], self.predicted.values()
        compiled = sum(one.compile_seconds for one in programs)
        tuning, training = (sum(self.seconds(run) for run in todo if (run.point is None) == final) for final in (False, True))
        parts = {
            **({'tuning': tuning} if self.before is not None else {}),
            'training': training,
            'evaluations': sum(self.predicted[run.key].evaluate_seconds for run in todo),
            f'{_AROUND} s a run to build and save it': _AROUND * len(todo),
            'compilation at most': compiled if todo else 0.0,
        }
        disk = sum(self.predicted[run.key].kept_bytes + _RECORD_BYTES for run in self.runs)
        files = sum(self.predicted[run.key].kept_files + _RECORD_FILES for run in self.runs)
        finished = f', {len(self.runs) - len(todo)} finished' if len(todo) < len(self.runs) else ''
        return [
            f'{plan.study["name"]}: {len(plan.variants)} variants x {len(plan.seeds)} seeds = {len(plan.runs)} runs{finished}',
            f'{len(programs)} training programs to compile: {words.duration(compiled)} just now, cached for the study',
            *([f'Tuning: about {words.duration(tuning)}'] if self.before is not None else []),
            f'Training: about {words.duration(training)}',
            f'Wall time: about {words.duration(sum(parts.values()))} = '
            + ' + '.join(f'{words.duration(seconds)} ({name})' for name, seconds in parts.items()),
            f'Disk: about {words.quantity(disk, "B")} in {files} files',
            _REST,
            '',
        ]

    def listing(self, by_run: bool) -> Listing:
        """A line for each variant and point of tuning, or else for each run."""
        own = (Column('run'), Column('seed')) if by_run else (Column('runs', 2),)
        headings = {'each': 1, 'in all': 3, 'peak': 2, 'parameters': 5, 'FLOPs/step': 6, 'MACs/step': 8, 'FLOPs/example': 7}
        columns = [Column('variant'), *own, *(Column(*pair) for pair in headings.items()), Column('time from', 4)]
        groups: dict[Any, list[Run]] = {}
        for run in self.runs:
            groups.setdefault(run.id if by_run else run.name, []).append(run)
        return Listing(columns, [*(Line(self._cells(runs, by_run)) for runs in groups.values()), Text('')])

    def _cells(self, runs: Sequence[Run], by_run: bool) -> list[str]:
        """Of runs that differ in their seed alone."""
        first, one = runs[0], self.predicted[runs[0].key]
        open_ = self.before is not None and self.plan.tuning is None and first.point is None
        own = ['after tuning' if open_ else first.id, str(first.seed)] if by_run else [str(len(runs))]
        left = sum(map(self.seconds, runs))
        return [
            first.name,
            *own,
            words.duration(one.seconds_per_step * self.built[first.name].steps),
            words.duration(left) if left else 'finished',
            words.quantity(one.peak_bytes, 'B'),
            *(words.quantity(one.counts[key]) for key in _COUNTS),
            one.source,
        ]

    def settings(self) -> list[str]:
        """What each variant overrides, the points of tuning, and each learning rate that is different."""
        plan, tuning = self.plan, None if self.before is None else self.before.tuning
        lines = [
            f'{name}: ' + (', '.join(f'{k}={v!r}' for k, v in overridden.items()) or 'the config itself')
            for name, overridden in plan.variants.items()
        ]
        if tuning is not None:
            lines.append(
                f'before them {tuning["points"]} points a variant x {len(self.before.seeds)} seeds = {len(self.before.runs)} '
                f'runs of tuning, on {tuning["metric"]} over {tuning["budget"]}'
            )
            for name, entries in tuning['variants'].items():
                lines.append(f'  {name}: ' + '; '.join(words.settings(entry['values']) for entry in entries))
        built = {name: self.built[name] for name in plan.variants}
        shapes = {name: experiment.program.shapes for name, experiment in built.items()}
        lines += [f'{n} trains {words.quantity(cost.parameters(s.params))} parameters' for n, s in shapes.items() if s.masks]
        padded: dict[str, list[str]] = {}
        for name, facts in ((name, experiment.dataset.facts) for name, experiment in built.items()):
            if 'padding' in facts:
                padded.setdefault(f'{facts["padding"]:.0%}', []).append(name)
        lines += [f'{share} of the places in rows of tokens are padding: {", ".join(names)}' for share, names in padded.items()]
        lines += _class_counts(built)
        lines += data_cards.lines({name: experiment.dataset.card for name, experiment in built.items()})
        lines += dict.fromkeys(experiment.why for experiment in built.values() if experiment.why)
        lines.append('learning rate over the run' + (', before tuning' if tuning is not None and plan.tuning is None else ''))
        return [*lines, *(f'  {curve}: {owners}' for curve, owners in figures.rates(schedules(built)))]


def _class_counts(built: Mapping[str, Experiment]) -> list[str]:
    """A line for each distinct cut of the data: training examples by class, the largest first, and the variants that use it."""
    owners: dict[tuple[str, ...], list[str]] = {}
    for name, experiment in built.items():
        dataset = experiment.dataset
        counts = dataset.facts.get('counts', ())
        names = [*dataset.class_names, *map(str, range(len(dataset.class_names), len(counts)))]
        largest = sorted(zip(counts, names, strict=False), key=lambda pair: -pair[0])
        told = [f'{name} {count:,}' for count, name in largest[:_MOST_CLASSES]]
        told += [f'{len(counts) - _MOST_CLASSES} smaller ones'] * (len(counts) > _MOST_CLASSES)
        if counts:
            owners.setdefault((f'{sum(counts):,}', *told), []).append(name)
    return [
        f'{total} training examples: {", ".join(told)}' + f'; {", ".join(names)}' * (len(owners) > 1)
        for (total, *told), names in owners.items()
    ]


def recorded(plan: Plan, workdir: pathlib.Path) -> list[dict[str, Any]]:
    """Results of the planned runs; a launch keeps torn and foreign ones aside, a plan only looks."""
    study = {'study': plan.study['name'], 'metric': plan.study['metric']}
    results = []
    for run in plan.runs:
        with contextlib.suppress(records.BadRecord):
            results.append(records.read_result(workdir / 'runs' / run.id / 'result.json', study, run.variant, run.seed))
    return [result for result in results if result is not None]
