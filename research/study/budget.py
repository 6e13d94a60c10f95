"""A budget of seconds, made repeatable: measured once a program on this machine, then pinned as examples."""

import dataclasses
import pathlib
import re

from research.report import records
from research.study import identity
from research.study.plan import Plan, Run, trial, verify
from research.train import experiment as experiments
from research.train import record
from research.train.clock import Clock
from research.train.experiment import Experiment, Session
from research.train.feed import Feed

# Steps are timed over at least this long.
_SECONDS = 2.0


def in_examples(plan: Plan, workdir: pathlib.Path, session: Session) -> Plan:
    """The plan with `study.budget = '60s'` turned into examples for each run; any other plan as it is.

    A clock that ended runs would make them unrepeatable, and the schedule could not know its end. So the step rate of each
    program is measured first, kept in DIR/budget.json, and every launch of the study trains that many examples.
    """
    match = re.fullmatch(r'([0-9]*\.?[0-9]+)s', plan.study['budget'])
    if not match:
        return plan
    verify(dataclasses.replace(plan, runs=[_with(run, '1st') for run in plan.runs]), session)
    path = workdir / 'budget.json'
    pinned = {key: n for key, n in records.derived(path).items() if isinstance(n, int)}
    runs = []
    for run in plan.runs:
        key = f'{run.key} {plan.study["budget"]}'  # tuning may have a budget of its own
        if key not in pinned:
            experiment = experiments.build(_with(run, '1st').config, session, run.key)
            steps = float(match[1]) / _seconds_per_step(experiment)
            pinned[key] = max(1, int(steps)) * experiment.batch_size
            if workdir.exists():
                record.write_json(path, pinned)
        runs.append(_with(run, f'{pinned[key]}ex'))
    return dataclasses.replace(plan, runs=runs)


def _with(run: Run, budget: str) -> Run:
    config = {**run.config, 'study': {**run.config['study'], 'budget': budget}}
    return dataclasses.replace(run, config=config, id=identity.run_id(config))


def _seconds_per_step(experiment: Experiment) -> float:
    took, capacity, steps = trial(experiment, Clock()), Feed(experiment).capacity(experiment.batch_size), 1
    while (seconds := took(steps)) < _SECONDS and steps < capacity:
        steps = min(capacity, steps * 4)
    return seconds / steps
