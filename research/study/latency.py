"""Inference latency of every variant, measured interleaved after all training."""

import pathlib
from typing import Any

from research import cost
from research.report import records
from research.study.plan import Plan, Run
from research.train import checkpoint, record
from research.train import experiment as experiments
from research.train.program import Session

# Each round calls every program once, in a new order.
_ROUNDS = 60


def measure(workdir: pathlib.Path, plan: Plan, session: Session, anew: bool) -> None:
    """Times the inference of every variant, interleaved, with nothing else running, and writes latency.json.

    Variants whose inference is the same program, as where training alone differs, share one measurement: theirs would differ
    by noise. Each is kept under the id of a run, which knows nothing of what its variant is called.

    Args:
      anew: whether something was trained; otherwise complete measurements are kept.
    """
    trained: dict[str, Run] = {}
    for run in plan.runs:
        if (workdir / 'runs' / run.id / 'scored').exists():
            trained.setdefault(run.variant, run)
    batches = [str(batch) for batch in plan.study['latency']]
    known = records.derived(workdir / 'latency.json')
    if not anew and all(batch in known.get(run.id, ()) for batch in batches for run in trained.values()):
        return
    latency: dict[str, dict[str, Any]] = {run.id: {} for run in trained.values()}
    for batch in batches:
        calls: dict[str, Any] = {}
        owners: dict[str, list[str]] = {}
        for run in trained.values():
            function, arguments = _inference(workdir, run, session, int(batch))
            program = function.lower(*arguments).as_text()
            calls.setdefault(program, (function, arguments))
            owners.setdefault(program, []).append(run.id)
        for program, quantiles in cost.interleaved(calls, rounds=_ROUNDS).items():
            for owner in owners[program]:
                latency[owner][batch] = quantiles
    record.write_json(workdir / 'latency.json', latency)


def _inference(workdir: pathlib.Path, run: Run, session: Session, batch: int) -> tuple[Any, tuple[Any, ...]]:
    experiment = experiments.build(run.config, session, run.key)
    variables = checkpoint.load_variables(workdir / 'runs' / run.id / 'scored')
    collections = {k: v for k, v in variables.items() if k != 'params'}
    return experiment.program.predict, (variables['params'], collections, experiment.program.step.inputs(batch))
