"""Inference latency of every variant, measured interleaved after all training.

Where a task has texts written, such as translations, it is the time until all texts of a batch are written, the mean over a few
batches of the test split: how long one sentence takes hangs on what a network makes of it.
"""

import pathlib
from typing import Any

import numpy as np

from research import cost
from research.data import take
from research.report import records
from research.study.plan import Plan, Run
from research.train import checkpoint, record
from research.train import experiment as experiments
from research.train.program import Session

# Each round calls every program once, in a new order; a call that writes texts writes so many batches of them.
_ROUNDS, _BATCHES = 60, 8


def measure(workdir: pathlib.Path, plan: Plan, session: Session, anew: bool) -> None:
    """Times the inference of every variant, interleaved, with nothing else running, and writes latency.json.

    Variants whose inference is the same program, as where training alone differs, share one measurement: theirs would differ
    by noise. Texts are written for as long as the weights say, so each variant has its own. All are kept under the id of a run,
    which knows nothing of what its variant is called.

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
        parts: dict[str, int] = {}
        owners: dict[str, list[str]] = {}
        for run in trained.values():
            function, arguments, count = _inference(workdir, run, session, int(batch))
            program = run.id if count > 1 else function.lower(*arguments).as_text()
            parts[program] = count
            calls.setdefault(program, (function, arguments))
            owners.setdefault(program, []).append(run.id)
        rounds = _ROUNDS // max(parts.values(), default=1)
        for program, quantiles in cost.interleaved(calls, rounds=rounds).items():
            for owner in owners[program]:
                per_batch = {name: value / parts[program] for name, value in quantiles.items() if name != 'n'}
                latency[owner][batch] = {**quantiles, **per_batch}
    record.write_json(workdir / 'latency.json', latency)


def _inference(workdir: pathlib.Path, run: Run, session: Session, batch: int) -> tuple[Any, tuple[Any, ...], int]:
    """What is timed, its arguments, and how many batches it takes."""
    experiment = experiments.build(run.config, session, run.key)
    variables = checkpoint.load_variables(workdir / 'runs' / run.id / 'scored')
    collections = {k: v for k, v in variables.items() if k != 'params'}
    program, dataset = experiment.program, experiment.dataset
    if program.written:
        batches = take(dataset, np.resize(dataset.splits['test'], (_BATCHES, batch)))
        return program.written, (variables['params'], collections, batches), _BATCHES
    return program.predict, (variables['params'], collections, program.step.inputs(batch)), 1
