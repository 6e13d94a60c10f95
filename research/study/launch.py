"""The door: from flags to an exit status."""

import pathlib
import shlex
import signal
import sys
from collections.abc import Mapping

import rich.console

from research.catalogue import ConfigError
from research.study import overrides

OK, FAILED, REFUSED = 0, 1, 2


def launch(config: str, workdir: str, changes: Mapping[str, str], mode: str = 'run', stale: str = '') -> int:
    """Runs, plans, prepares or reports a study.

    Args:
      config: 'FILE' or 'FILE:ARG'; may be empty for mode 'report'.
      workdir: DIR.
      changes: dotted key -> text, from --config.KEY=VALUE.
      mode: 'run', 'plan', 'prepare' or 'report'.
      stale: '', 'rerun' or 'keep': what becomes of finished runs whose code has changed.

    Returns:
      The exit status: 0, 1 when a run failed, 2 for bad input, 128 + signal when stopped by one.
    """
    try:
        return _launch(config, pathlib.Path(workdir), changes, mode, stale)
    except ConfigError as error:
        print(f'error: {error}', file=sys.stderr)
        return REFUSED
    except OSError as error:
        if mode != 'report':
            raise
        print(f"error: cannot write the report: {error.strerror}: '{error.filename or workdir}'.", file=sys.stderr)
        return REFUSED
    except KeyboardInterrupt:  # outside of training, which has a handler of its own: nothing to save
        print('Stopped; the same command goes on from here.', file=sys.stderr)
        return 128 + signal.SIGINT


def _launch(spec: str, workdir: pathlib.Path, changes: Mapping[str, str], mode: str, stale: str) -> int:
    if mode == 'report':
        return _report(workdir)
    parsed = {key: overrides.parse_flag(key, text) for key, text in changes.items()}
    overrides.load(spec, parsed)  # what the text of the config shows is refused before jax is imported
    from research.study import plan

    study = plan.make(spec, parsed)  # ... and what signatures show before the rest is
    from research.study import budget, execute, identity, latency
    from research.train import compilation
    from research.train.experiment import Session, load_data

    session = Session()
    if mode == 'prepare':
        plan.prepare(study, session)
        print(f'The data of {study.study["name"]} is ready: {", ".join(sorted(d.name for d in session.datasets.values()))}')
        return OK
    if mode == 'plan':
        execute.own_platform(study)
        execute.own_study(workdir, study)
        compilation.enable_cache()
        plan.show(budget.in_examples(study, workdir, session), workdir, session, _console(120))
        return OK
    with execute.claim(workdir, study):
        for name in compilation.enable_cache():
            print(f'Removed a truncated entry of the compilation cache: {name}')
        study = budget.in_examples(study, workdir, session)
        built = plan.verify(study, session)
        fingerprints = {
            run.variant: identity.fingerprint([run.config], load_data(run.config, session).checksum)
            for run in study.runs[: len(built)]
        }
        done, problems = execute.finished(workdir, study)
        for problem in problems:
            print(problem, file=sys.stderr)
        notes = execute.settle_stale(done, fingerprints, stale)
        execute.write_study(workdir, study, built, _command(spec, workdir, changes), notes + problems)
        try:
            failed = execute.execute(workdir, study, session, done, fingerprints)
        except execute.Interrupted as stopped:
            print(f'Stopped by {stopped}; everything is saved, the same command goes on from here.')
            return 128 + stopped.number
        latency.measure(workdir, study, session, anew=len(done) < len(study.runs))
        _report(workdir)
    return FAILED if failed else OK


def _command(spec: str, workdir: pathlib.Path, changes: Mapping[str, str]) -> str:
    flags = [f'--config={spec}', f'--workdir={workdir}', *(f'--config.{key}={text}' for key, text in changes.items())]
    return shlex.join(['python', 'launch.py', *flags])


def _report(workdir: pathlib.Path) -> int:
    from research.study import report

    summary = report.write(workdir)
    _console(100).print(report.table(summary))
    print(f'Report: {workdir / "report.html"} (also report.md, .csv, .tex, pareto.png)')
    return OK


def _console(width: int) -> rich.console.Console:
    """The terminal's own width, or one that the tables fit where output goes to a file."""
    return rich.console.Console(width=None if sys.stdout.isatty() else width)
