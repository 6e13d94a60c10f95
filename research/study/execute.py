"""Runs what is not finished in DIR, seed by seed in the order of `Plan.drawn`, and keeps what a report needs."""

import contextlib
import dataclasses
import errno
import io
import json
import pathlib
import signal
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from research import cost, files, models, pretrained
from research.config import overrides
from research.report import examples
from research.study import identity, trained
from research.study.display import Display
from research.study.folder import NO_ROOM, RULES
from research.study.measure import costs
from research.study.plan import Plan, Run
from research.train import checkpoint, judge, loop, record
from research.train import experiment as experiments
from research.train.program import Session


class Interrupted(Exception):  # noqa: N818
    """SIGTERM or SIGINT: everything is saved, the same command goes on."""

    def __init__(self, number: int):
        super().__init__(signal.Signals(number).name)
        self.number = number


def execute(
    workdir: pathlib.Path,
    plan: Plan,
    session: Session,
    done: dict[str, Any],
    fingerprints: Mapping[str, Mapping[str, Any]],
    environment: Mapping[str, Any],
) -> int:
    """Trains every run that is not done; returns how many failed.

    Args:
      done: run id -> result.
      fingerprints: by variant; environment: of this launch. Each result keeps its own.

    Raises:
      Interrupted: a signal; everything is saved.
      Exception: what failed in the baseline, which every contrast needs, or in three runs in a row with the same message.
    """
    todo = [run for run in plan.drawn if run.id not in done]
    if plan.study['keep'] == 'scored':
        for i in done:
            checkpoint.remove(workdir / 'runs' / i / 'checkpoints')  # where a kill came between the result and this
    failures: list[str] = []
    row = 0
    with _signals() as caught, Display(len(plan.runs), todo) as progress:
        runner = _Runner(workdir, plan, session, environment, lambda: bool(caught))
        for run in todo:
            if caught:
                raise Interrupted(caught[0])
            progress.begin(run)
            try:
                result = runner.one(run, fingerprints[run.variant], progress)
            except loop.Stopped:
                raise Interrupted(caught[0]) from None
            except Exception as error:
                if isinstance(error, OSError) and error.errno in (*NO_ROOM, errno.EPIPE):
                    raise  # no fault of the run's: a full disk, or nobody reads what is printed
                message = f'{type(error).__name__}: {error}'
                row = row + 1 if failures and failures[-1] == message else 1
                failures.append(message)
                runner.failed(run, message, fingerprints[run.variant])
                progress.end(run, f'failed: {(message.splitlines() or [message])[0]:.200}')
                if run.variant == 'baseline' or row == 3:
                    raise
            else:
                row = 0
                progress.end(run, result['status'])
        if caught:
            raise Interrupted(caught[0])
    return len(failures)


@contextlib.contextmanager
def _signals() -> Iterator[list[int]]:
    """Gives the numbers of the signals that came, in place of ending the process."""
    caught: list[int] = []

    def catch(number, _):
        caught.append(number)
        if number == signal.SIGINT:
            signal.signal(number, handlers[number])  # a second Ctrl-C does not wait

    handlers = {number: signal.signal(number, catch) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield caught
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


@dataclasses.dataclass
class _Runner:
    """Trains runs of a plan into DIR/runs; costs are counted once a program."""

    workdir: pathlib.Path
    plan: Plan
    session: Session
    environment: Mapping[str, Any]
    stop: Callable[[], bool]
    counted: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)

    def one(self, run: Run, fingerprint: Mapping[str, Any], progress: Display) -> dict[str, Any]:
        """The result of a run, on disk when this returns. Raises loop.Stopped, and whatever fails in it."""
        directory = self.workdir / 'runs' / run.id
        directory.mkdir(exist_ok=True)
        experiment = experiments.build(run.config, self.session, run.key)
        experiment = judge.equipped(
            experiment, _resolved, self.session, self.workdir / 'judges', identity.fingerprint, self.stop
        )
        _own_checkpoints(directory, run, fingerprint)
        group = run.config['model']
        model = {**group, **pretrained.arguments(group), 'num_classes': experiment.num_classes}
        if models.reads_tokens(group['name']):
            module = experiment.program.step.module
            sizes = ('vocabulary_size', 'target_vocabulary_size')
            model |= {name: getattr(module, name) for name in sizes if hasattr(module, name)}
        if experiment.dataset.tokenizer:
            (directory / trained.TOKENIZER).write_text(experiment.dataset.tokenizer)
        if experiment.dataset.target_tokenizer:
            (directory / trained.TARGET_TOKENIZER).write_text(experiment.dataset.target_tokenizer)
        record.write_json(directory / 'config.json', {**run.asked, 'model': model})
        record.write_json(directory / trained.DATA, trained.described(experiment.dataset))
        outcome = loop.train(experiment, directory, lambda *done: progress.step(experiment.total, *done), self.stop)
        if run.key not in self.counted:
            self.counted[run.key] = costs(experiment)
        # None if the run resumed past its largest phase or never reached it.
        executable = experiment.program.chunk(experiment.largest).executable
        predicted = {'predicted_bytes': cost.memory(executable)['total']} if executable else {}
        result = {
            **self._header(run),
            'status': outcome.status,
            'message': outcome.message,
            'metrics': outcome.metrics,
            'cost': {**self.counted[run.key], **predicted, **outcome.cost},
            'observed': outcome.observed,
            **({'memory_plan': run.memory_plan._asdict()} if run.memory_plan else {}),
            **({'judge': experiment.judge_name} if experiment.judge_name else {}),
            'fingerprint': fingerprint,
        }
        if outcome.diverged is not None:
            result['diverged'] = outcome.diverged
        if outcome.correct is not None:
            result['test_examples'] = len(outcome.correct)
            packed = io.BytesIO()
            np.save(packed, np.packbits(outcome.correct))
            files.write(directory / 'correct.npy', packed.getvalue())
        if outcome.kept:
            result |= experiment.program.step.task.recorded(outcome.kept)
        _keep_examples(directory / examples.FILE, experiment, outcome)
        record.write_json(directory / 'result.json', result)
        if self.plan.study['keep'] == 'scored':
            checkpoint.remove(directory / 'checkpoints')  # after the result: a kill in between costs nothing
        return result

    def failed(self, run: Run, message: str, fingerprint: Mapping[str, Any]) -> None:
        """Keeps the traceback and a result without numbers."""
        directory = self.workdir / 'runs' / run.id
        directory.mkdir(exist_ok=True)
        (directory / 'traceback.txt').write_text(traceback.format_exc())
        result = {**self._header(run), 'status': 'failed', 'message': message, 'metrics': {}, 'cost': {}}
        record.write_json(directory / 'result.json', {**result, 'fingerprint': fingerprint})

    def _header(self, run: Run) -> dict[str, Any]:
        header = {'id': run.id, 'variant': run.variant, 'seed': run.seed, 'study': self.plan.study['name'], 'key': run.key}
        here = {'numerics': identity.numerics(), 'environment': self.environment}
        return {**header, 'rules': RULES, **here, **({} if run.point is None else {'tuning_point': run.point})}


def _resolved(changes: Mapping[str, Any]) -> dict[str, Any]:
    return overrides.apply(overrides.defaults(), changes)


def _keep_examples(path: pathlib.Path, experiment: experiments.Experiment, outcome: record.Outcome) -> None:
    """What the report shows of single texts, from what was kept of the test split when it was scored."""
    told = {}
    if outcome.kept and experiment.dataset.tokenizer:  # which alone tells what the tokens say
        try:
            told = experiment.program.step.task.examples(outcome.kept, experiment.dataset)
        except Exception as error:  # of a task of one's own: the run has ended well, and its result stands
            warnings.warn(f'The report shows no texts of this run: {type(error).__name__}: {error}', stacklevel=1)
    if told:
        record.write_json(path, told)
    else:
        path.unlink(missing_ok=True)  # of an attempt with other code


def _own_checkpoints(directory: pathlib.Path, run: Run, fingerprint: Mapping[str, Any]) -> None:
    """A run goes on only where the same config, code, versions, data and numerics left it; else it begins again."""
    fingerprint = {**fingerprint, 'numerics': identity.numerics()}
    try:
        made, config = (json.loads((directory / name).read_text()) for name in ('fingerprint.json', 'config.json'))
        same = made == fingerprint and not identity.changed(config, run.asked)
    except (OSError, ValueError):
        same = False
    if not same and (directory / 'checkpoints').exists():
        print(f'{run.variant}, seed {run.seed}: begins again, its checkpoint was made by other code or elsewhere ({run.id})')
        checkpoint.remove(directory / 'checkpoints')
    record.write_json(directory / 'fingerprint.json', fingerprint)
