"""Entry point: from flags to an exit status."""

import pathlib
import shlex
import signal
import sys
from collections.abc import Mapping
from typing import Any

from research import files
from research.catalogue import ConfigError
from research.config import overrides
from research.report import console

OK, FAILED, REFUSED = 0, 1, 2


def launch(
    config: str,
    workdir: str,
    changes: Mapping[str, str],
    mode: str = 'run',
    stale: str = '',
    plan: str = '',
    into: str = '',
) -> int:
    """Runs, plans, prepares or reports a study.

    Args:
      config: 'FILE' or 'FILE:ARG'; may be empty for mode 'report'.
      workdir: DIR.
      changes: dotted key -> text, from --config.KEY=VALUE.
      mode: 'run', 'plan', 'prepare' or 'report'.
      stale: '', 'rerun' or 'keep': what to do with finished runs whose code has changed.
      plan: in mode 'plan', 'runs' prints a line a run in place of a variant, 'examples' draws what augmentation does instead.
      into: the folder that mode 'report' writes into; '' = `workdir`.

    Returns:
      The exit status: 0, 1 if a run failed, 2 for bad input, 128 + signal number if stopped by a signal.
    """
    try:
        return _launch(config, pathlib.Path(workdir), changes, mode, stale, plan, into)
    except ConfigError as error:
        print(f'error: {error}', file=sys.stderr)
        return REFUSED
    except OSError as error:
        if mode != 'report' or isinstance(error, BrokenPipeError):
            raise
        where = error.filename or into or workdir
        print(
            f"error: cannot write the report: {error.strerror}: '{where}'. --report=FOLDER writes elsewhere.", file=sys.stderr
        )
        return REFUSED
    except KeyboardInterrupt:  # outside of training, which has its own handler: nothing to save
        print('Stopped; the same command goes on from here.', file=sys.stderr)
        return 128 + signal.SIGINT


def planned(spec: str, changes: Mapping[str, Any]) -> tuple[Any, Any]:
    """The plan of a study, and of its tuning or None; `changes` are dotted key -> value. Raises ConfigError."""
    overrides.load(spec, changes)  # errors in the text of the config are reported before jax is imported
    from research.study import plan, tuning

    study = plan.make(spec, changes)  # ... and errors against signatures before the rest is
    return study, tuning.before(study)


def trained(study: Any, before: Any, workdir: pathlib.Path, command: str, stale: str = '') -> tuple[int, dict[str, Any]]:
    """Trains what is not finished, and writes the report.

    Args:
      study, before: of `planned`.
      command: that repeats this.
      workdir, stale: as in `launch`.

    Returns:
      How many runs failed, and the content of summary.json.

    Raises:
      ConfigError: bad input.
      research.study.execute.Interrupted: SIGTERM or SIGINT; everything is saved, the same call goes on.
    """
    from research.report import pages
    from research.study import folder, verify
    from research.train import compilation
    from research.train.program import Session

    session = Session()
    with folder.claim(workdir, study):
        for name in compilation.enable_cache():
            print(f'Removed a truncated entry of the compilation cache: {name}')
        verify.load([stage for stage in (before, study) if stage is not None], session)
        return _train(study, before, workdir, session, stale, command), pages.write(workdir)


def command(spec: str, workdir: pathlib.Path, changes: Mapping[str, Any]) -> str:
    """The command line of a launch; `changes` are dotted key -> value."""
    program = ['python', 'launch.py'] if pathlib.Path(sys.argv[0]).name == 'launch.py' else ['frugal']
    flags = [f'--config.{key}={overrides.flag(key, value)}' for key, value in changes.items()]
    return shlex.join([*program, f'--config={spec}', f'--workdir={workdir}', *flags])


def _launch(spec: str, workdir: pathlib.Path, changes: Mapping[str, str], mode: str, stale: str, plan: str, into: str) -> int:
    parsed = {key: overrides.parse_flag(key, text) for key, text in changes.items()}
    if mode == 'report':
        return _report(spec, workdir, parsed, into)
    study, before = planned(spec, parsed)
    from research.study import augmentation, budget, execute, folder, preview, tuning, verify
    from research.train import compilation
    from research.train.program import Session

    if mode == 'run':
        try:
            failed, summary = trained(study, before, workdir, command(spec, workdir, parsed), stale)
        except execute.Interrupted as stopped:
            print(f'Stopped by {stopped}; everything is saved, the same command goes on from here.')
            return 128 + stopped.number
        _show(summary, workdir)
        return FAILED if failed else OK
    session, stages = Session(), [stage for stage in (before, study) if stage is not None]
    if mode == 'prepare':
        verify.load(stages, session, whole=True)
        print(f'The data of {study.study["name"]} is ready: {", ".join(sorted(d.name for d in session.datasets.values()))}')
        return OK
    folder.own_platform(study)
    folder.own_study(workdir, study)
    compilation.enable_cache()
    verify.load(stages, session)
    if plan == 'examples':
        drawn = augmentation.write(workdir, study, verify.verify(budget.settle(study, workdir, session), session))
        if not drawn:
            raise ConfigError("No variant augments pictures: set 'augment.names', such as ('pad_crop', 'flip_horizontal').")
        print(*drawn, sep='\n')
        return OK
    if before is not None:
        before = budget.settle(before, workdir, session)
        tuned = tuning.after(study, before, preview.recorded(before, workdir))
        study = tuned if tuned.runs else study
    preview.show(budget.settle(study, workdir, session), before, workdir, session, console.Terminal(140), plan == 'runs')
    return OK


def _train(study: Any, before: Any, workdir: pathlib.Path, session: Any, stale: str, command: str) -> int:
    """Tunes if the study asks for it, then trains; returns how many runs failed."""
    from research.study import augmentation, budget, execute, folder, identity, latency, plan, tuning, verify
    from research.train.experiment import load_data

    def standing(stage: plan.Plan) -> tuple[dict[str, Any], dict[str, Any], list[str]]:
        """The fingerprints of a stage's runs by variant, its results by run id, and notes for the report."""
        first = {run.variant: run for run in reversed(stage.firsts)}
        fingerprints = {
            name: identity.fingerprint(run.config, load_data(run.config, session).checksum) for name, run in first.items()
        }
        done, problems = folder.finished(workdir, stage)
        for problem in problems:
            print(problem, file=sys.stderr)
        return fingerprints, done, folder.settle_stale(done, fingerprints, stale) + problems

    environment = identity.environment(workdir, study.source.path)
    study = budget.settle(study, workdir, session)
    built = verify.verify(study, session)  # what would be refused after tuning is refused before it
    notes = [*dict.fromkeys(experiment.why for experiment in built.values() if experiment.why), *verify.other_tests(built)]
    for why in notes:
        print(why)
    if before is not None:
        before = budget.settle(before, workdir, session)
        verify.verify(before, session)
        fingerprints, done, more = standing(before)
        notes += more
        if len(done) < len(before.runs):
            folder.write_study(workdir, tuning.after(study, before, []), built, command, notes, environment)
            if failed := execute.execute(workdir, before, session, done, fingerprints, environment):
                print(f'{failed} runs of tuning failed, so nothing is compared yet; the same command tries them again.')
                return failed
        study = tuning.after(study, before, folder.finished(workdir, before)[0].values())
        study = budget.settle(study, workdir, session)
        built = verify.verify(study, session)
    fingerprints, done, more = standing(study)
    folder.write_study(workdir, study, built, command, notes + more, environment)
    failed = execute.execute(workdir, study, session, done, fingerprints, environment)
    anew = len(done) < len(study.runs)
    latency.measure(workdir, study, session, anew)
    augmentation.write(workdir, study, built, anew)
    return failed


def _report(spec: str, workdir: pathlib.Path, changes: Mapping[str, Any], into: str) -> int:
    from research.report import pages, records
    from research.study import rejudge

    study = records.read_study(workdir)
    judged = rejudge.changed(study, changes)
    if spec and (keys := rejudge.differs(study, spec, changes)):
        print(f'{spec} is no longer as it was run in {", ".join(keys)}; the report tells what was run.')
    if into:
        if judged:
            raise ConfigError(
                f'--report=FOLDER leaves the study as it is: {", ".join(judged)} is judged anew by --report alone.'
            )
        _show(pages.write(workdir, remembers=False, folder=into), pathlib.Path(into))
        return OK
    with files.lock(workdir / files.LOCK) as free:  # a launch that is at work writes study.json itself
        if judged:
            if not free:
                raise ConfigError(f"Another launch is at work in '{workdir}': {', '.join(judged)} can change when it is done.")
            rejudge.rewrite(workdir, study, judged)
        _show(pages.write(workdir, remembers=free), workdir)
    return OK


def _show(summary: Mapping[str, Any], folder: pathlib.Path) -> None:
    from research.report import terminal

    console.Terminal(100).print(terminal.table(summary))
    print(f'Report: {folder / "report.html"} (also report.md, .csv, .tex, forest.png)')
