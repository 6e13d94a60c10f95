"""Inference latency of every variant, measured interleaved after all training."""

import pathlib
from typing import Any

from research import cost
from research.report import records
from research.study.plan import Plan, Run
from research.train import checkpoint, record
from research.train import experiment as experiments
from research.train.program import Session

# Each round calls every variant once, in a new order.
_ROUNDS = 60


def measure(workdir: pathlib.Path, plan: Plan, session: Session, anew: bool) -> None:
    """Times the inference of every variant, interleaved, with nothing else running, and writes latency.json.

    Args:
      anew: whether something was trained; otherwise complete measurements are kept.
    """
    trained: dict[str, Run] = {}
    for run in plan.runs:
        if run.variant != 'null' and (workdir / 'runs' / run.id / 'scored').exists():
            trained.setdefault(run.variant, run)
    known = records.derived(workdir / 'latency.json')
    if not anew and all(str(batch) in known.get(name, ()) for batch in plan.study['latency'] for name in trained):
        return
    latency: dict[str, dict[str, Any]] = {}
    for batch in plan.study['latency']:
        calls = {name: _inference(workdir, run, session, batch) for name, run in trained.items()}
        for name, quantiles in cost.interleaved(calls, rounds=_ROUNDS).items():
            latency.setdefault(name, {})[str(batch)] = quantiles
    record.write_json(workdir / 'latency.json', latency)


def _inference(workdir: pathlib.Path, run: Run, session: Session, batch: int) -> tuple[Any, tuple[Any, ...]]:
    experiment = experiments.build(run.config, session, run.key)
    variables = checkpoint.load_variables(workdir / 'runs' / run.id / 'scored')
    collections = {k: v for k, v in variables.items() if k != 'params'}
    return experiment.program.predict, (variables['params'], collections, experiment.program.step.inputs(batch))
