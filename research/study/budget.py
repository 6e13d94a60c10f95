"""Budgets are rewritten before anything is built, so that the rest of the code knows examples alone.

A budget in seconds or FLOPs becomes a number of examples; a budget in bytes becomes a micro-batch size and a remat policy,
chosen once for each program. Data from a loader function get their checksum: other content is another run.
"""

import dataclasses
import functools
import pathlib
import re
from collections.abc import Callable, Mapping
from typing import Any

from research import cost, durations, models
from research.catalogue import ConfigError
from research.config import overrides
from research.config.files import located
from research.data import Dataset, batch_sizes
from research.report import records
from research.study import identity
from research.study.measure import beside_training, timed, trial
from research.study.plan import Plan, Run, the_same
from research.study.verify import verify
from research.train import experiment as experiments
from research.train import flops, judge, memory, parallel, record
from research.train.clock import Clock
from research.train.experiment import Experiment
from research.train.program import Session

# Steps are timed over at least this long.
_SECONDS = 2.0
# Long enough for the mean over a run whose length is not known yet.
_MANY_STEPS = 10_000
_SECONDS_TEXT, _FLOPS_TEXT = re.compile(r'([0-9]*\.?[0-9]+)s'), re.compile(r'([0-9]*\.?[0-9]+(?:e\+?[0-9]+)?)flops')


def settle(plan: Plan, workdir: pathlib.Path, session: Session) -> Plan:
    """The plan with every budget rewritten; any other plan as it is.

    A clock that ended runs would make them unrepeatable, and the schedule could not know its end. So the step rate of each
    program is measured first, kept in DIR/budget.json, and every launch of the study trains that many examples.

    Raises:
      ConfigError: with the variant's name in front.
    """
    runs = []
    rates: dict[str, float] = {}
    for run in plan.runs:
        with located(plan.source, run.variant):
            runs.append(_with_flops(within_memory(_with_checksum(run, session), session), session, rates))
    _refuse_twins(plan, runs)
    plan = dataclasses.replace(plan, runs=runs)
    if not any(_SECONDS_TEXT.fullmatch(run.config['study']['budget']) for run in runs):
        return plan
    # What would be refused is refused before anything is timed.
    verify(dataclasses.replace(plan, runs=[_settled(run, 'study', budget='1st') for run in runs]), session)
    path = workdir / 'budget.json'
    pinned = {key: n for key, n in records.derived(path).items() if isinstance(n, int)}
    return dataclasses.replace(plan, runs=[_with_seconds(run, session, pinned, path) for run in runs])


def _refuse_twins(plan: Plan, runs: list[Run]) -> None:
    """Raises ConfigError where data of one's own turn out to be the same, so that two variants are the same runs."""
    owners: dict[str, str] = {}
    for run in runs:
        other = owners.setdefault(run.id, run.name)
        if other != run.name:
            raise ConfigError(f'{plan.source.at(run.variant, run.variant)}{the_same(run.name, other)}')


def _settled(run: Run, group: str, **fields: Any) -> Run:
    """The run trained with other fields in a group."""
    return dataclasses.replace(run, config=_with(run.config, group, fields))


def _asked(run: Run, group: str, **fields: Any) -> Run:
    """The run asked for, and trained, with other fields in a group: another id."""
    asked = _with(run.asked, group, fields)
    return dataclasses.replace(run, config=_with(run.config, group, fields), asked=asked, id=identity.run_id(asked))


def _with(config: Mapping[str, Any], group: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    return {**config, group: {**config[group], **fields}}


def _with_checksum(run: Run, session: Session) -> Run:
    """Data of one's own are known by their content."""
    if not identity.own_data(run.config) or run.config['data']['checksum']:
        return run
    run = _asked(run, 'data', checksum=experiments.load_data(run.config, session).checksum)
    return dataclasses.replace(run, key=identity.compile_key(run.config))


def _with_flops(run: Run, session: Session, rates: dict[str, float]) -> Run:
    """`rates` keeps the FLOPs of an example by compile key."""
    match = _FLOPS_TEXT.fullmatch(run.config['study']['budget'])
    if not match:
        return run
    dataset = experiments.load_data(run.config, session)
    batch = experiments.batch_size(run.config, dataset)
    if run.key not in rates:
        rates[run.key] = flops.per_example(run.config, dataset, batch, batch * _MANY_STEPS)
    steps = int(float(match[1]) / rates[run.key] / batch)
    if not steps:
        raise _too_short(run, f'{rates[run.key] * batch:.3g} FLOPs')
    return _settled(run, 'study', budget=f'{steps * batch}ex')


def _too_short(run: Run, step: str) -> ConfigError:
    return ConfigError(f"study.budget '{run.config['study']['budget']}' holds no step, which takes {step}: take a longer one.")


def _with_seconds(run: Run, session: Session, pinned: dict[str, int], path: pathlib.Path) -> Run:
    """Examples measured on this machine are part of the run's id; `pinned` is what stands in `path`."""
    text = run.config['study']['budget']
    match = _SECONDS_TEXT.fullmatch(text)
    if not match:
        return run
    key = f'{run.key} {text}'  # tuning may have a budget of its own
    if key not in pinned:
        experiment = experiments.build(_settled(run, 'study', budget='1st').config, session, run.key)
        seconds = _seconds_per_step(experiment)
        pinned[key] = int(float(match[1]) / seconds) * experiment.batch_size
        if not pinned[key]:
            raise _too_short(run, f'{seconds:.3g} s here')
        if path.parent.exists():
            record.write_json(path, pinned)
    return _asked(run, 'study', budget=f'{pinned[key]}ex')


def _seconds_per_step(experiment: Experiment) -> float:
    seconds, steps = timed(*trial(experiment, Clock()), _SECONDS)
    return seconds / steps


def within_memory(run: Run, session: Session) -> Run:
    """The run with the micro-batch, rematerialization and batch of evaluation that fit `train.memory_budget`, if it has one.

    Raises:
      ConfigError: nothing fits, or the config chooses one of the first two itself.
    """
    if not run.config['train']['memory_budget']:
        return run
    if run.key not in session.fits:
        session.fits[run.key] = _fit(run.config, session)
    chosen = session.fits[run.key]
    key = f'{run.key} {chosen.micro_batch} {chosen.remat} {chosen.evaluation_batch}'
    return dataclasses.replace(run, config=_fitted(run.config, *chosen), key=key, memory_plan=chosen)


def _fitted(config: Mapping[str, Any], micro_batch: int, remat: str, _: Any, evaluation_batch: int) -> dict[str, Any]:
    config = _with(config, 'train', {'memory_budget': '', 'remat': remat})
    config = _with(config, 'gradient', {'micro_batch': micro_batch})
    return _with(config, 'data', {'eval_batch_size': evaluation_batch})


def _fit(config: Mapping[str, Any], session: Session) -> memory.Fit:
    """What fits `train.memory_budget`, read off programs; those that were only looked at are let go."""
    if config['gradient']['micro_batch'] or config['train']['remat'] != 'none':
        raise ConfigError(
            "train.memory_budget chooses gradient.micro_batch and train.remat: leave them at 0 and 'none', or it at ''."
        )
    limit, resolve = config['train']['memory_budget'], functools.partial(overrides.apply, overrides.defaults())
    memory.parse(limit)  # refused before anything compiles
    dataset = experiments.load_data(config, session)
    batch, total, rungs = _sizes(config, dataset)
    whole, engine = max(rungs), parallel.create(config['train']['engine'], config['train']['devices'])
    for rung in rungs:
        parallel.check_shares(engine, rung)
    platform, copies = engine.devices[0].platform, 2 if config['study']['score'] == 'best' else 1
    shares, least = len(engine.devices) if engine.axis_name else 1, 2 if config['gradient']['noise_scale'] else 1
    sizes, remats = memory.candidates(rungs, shares, least), models.rematerializes(config['model']['name'])
    looked_at = dataclasses.replace(session, programs={})  # which are let go

    def built(size: int, policy: str, evaluation: int) -> Experiment:
        micro = 0 if size == whole else size
        changed = _with(_fitted(config, micro, policy, None, evaluation), 'study', {'budget': f'{total}ex'})
        return experiments.build(changed, looked_at, f'{size} {policy} {evaluation}')

    @functools.cache
    def between(evaluation: int) -> int:
        experiment = judge.shaped(built(sizes[-1], 'none', evaluation), resolve, looked_at)
        return memory.beside(beside_training(experiment))

    @functools.cache
    def need(size: int, policy: str) -> memory.Need:
        experiment = built(size, policy, evaluation)
        train = cost.memory(experiment.prepared())
        step = flops.train(experiment.config, dataset, batch, total)[0]
        return memory.Need(memory.predicted(train, between(evaluation), copies, platform), memory.time(step, size))

    evaluation = memory.evaluation_batch(limit, config['data']['eval_batch_size'], shares, between)
    return memory.fit(limit, sizes, whole, remats, need)._replace(evaluation_batch=evaluation)


def _sizes(config: Mapping[str, Any], dataset: Dataset) -> tuple[int, int, tuple[int, ...]]:
    """Examples of the first step, examples of the run, and every batch size of the run."""
    batch, epoch, text = experiments.batch_size(config, dataset), len(dataset.splits['train']), config['study']['budget']
    unknown = _SECONDS_TEXT.fullmatch(text) or _FLOPS_TEXT.fullmatch(text)  # settled after this
    total = durations.examples(f'{_MANY_STEPS}st' if unknown else text, batch, epoch)
    convert: Callable[[str], int] = functools.partial(durations.examples, batch_size=batch, epoch=epoch, total=total)
    return batch, total, batch_sizes.create({**config['data'], 'batch_size': batch}, convert).rungs
