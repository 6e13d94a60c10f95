"""Builds every variant once, and compiles nothing: what only data and outputs can tell is refused here."""

from collections.abc import Iterable, Mapping

import numpy as np

from research import durations, tasks
from research.catalogue import nearest
from research.config.files import Misfit, located
from research.study.plan import Plan
from research.train import experiment as experiments
from research.train import flops, parallel
from research.train.experiment import Experiment
from research.train.program import Session


def verify(plan: Plan, session: Session) -> dict[str, Experiment]:
    """Builds every variant, and point of tuning, once, compiling nothing: names, arguments, durations, data.

    Returns:
      name -> experiment at the first seed; of a variant, or of one at a point ('adam, point 3').

    Raises:
      ConfigError: with the variant's name in front.
    """
    built: dict[str, Experiment] = {}
    metrics: dict[str, list[str]] = {}
    for run in plan.firsts:
        with located(plan.source, run.variant):
            built[run.name] = experiments.build(run.config, session, run.key)
            _check_built(built[run.name], run.key, metrics)
    return built


def other_tests(built: Mapping[str, Experiment]) -> list[str]:
    """A sentence where variants are scored on other test examples of the baseline's data than the baseline is."""
    baseline = built['baseline']
    test = baseline.dataset.splits['test']
    others = [
        name
        for name, experiment in built.items()
        if experiment.dataset.name == baseline.dataset.name and not np.array_equal(experiment.dataset.splits['test'], test)
    ]
    if not others:
        return []
    are, their = ('is', 'its') if len(others) == 1 else ('are', 'their')
    return [
        f'{", ".join(others)} {are} scored on other test examples than the baseline: {their} scores cannot be compared with it.'
    ]


def devices(plan: Plan) -> None:
    """Refuses more devices than there are, and batches that these cannot share; reads no data.

    Raises:
      ConfigError: with the variant's name in front.
    """
    for run in plan.firsts:
        train, data = run.config['train'], run.config['data']
        with located(plan.source, run.variant):
            engine = parallel.create(train['engine'], train['devices'])
            parallel.check_shares(engine, data['eval_batch_size'])


def load(stages: Iterable[Plan], session: Session, whole: bool = False) -> None:
    """Loads the data of every variant; before anything is built, so that one copy of them serves all.

    Args:
      whole: compare prepared data with their checksum, which reads all of them.

    Raises:
      ConfigError: with the variant's name in front.
    """
    for plan in stages:
        for run in plan.firsts:
            with located(plan.source, run.variant):
                experiments.load_data(run.config, session, whole)
                if tasks.generative(run.config):  # the judge learns from all training examples
                    experiments.load_data({**run.config, 'data': {**run.config['data'], 'examples': 0}}, session)


def _check_built(experiment: Experiment, key: str, known: dict[str, list[str]]) -> None:
    """What only data and outputs can tell; `known` keeps the metrics of a program by its compile key, this run's `key`."""
    config, program = experiment.config, experiment.program
    classes, study = program.step.task.outputs or experiment.dataset.facts.get('classes', 0), config['study']
    if experiment.num_classes < classes:
        raise Misfit('model.num_classes', f"'model.num_classes' is {experiment.num_classes}, but the data has {classes}.")
    steers = study['score'] == 'best' or study['metric'][:5] != 'test/' or experiment.watchers
    if steers and not len(experiment.dataset.splits['validation']):
        raise Misfit('data.validation', "'data.validation' is 0, but this study reads the validation split: give it examples.")
    split, _, metric = study['metric'].partition('/')
    if key not in known:
        known[key] = program.step.metric_names(program.shapes)
        own = any(':' in config[group]['name'] for group in ('task', 'model', 'compress', 'gradient'))
        if own or config['augment']['names']:
            # Code of the user's own, and augmentations, are traced once here, so that mistakes show before anything compiles.
            flops.train(config, experiment.dataset, experiment.batch_size, experiment.total)
    metrics = known[key]
    if 'loss' not in metrics:
        raise Misfit('task.name', f"The task has the metrics {', '.join(metrics)}: expected a 'loss' among them.")
    _check_resize(experiment)
    if metric not in metrics:
        near = nearest(study['metric'], (f'{split}/{name}' for name in metrics))
        raise Misfit('study.metric', f"'study.metric' is '{study['metric']}'.{near}")


def _check_resize(experiment: Experiment) -> None:
    """Refuses inputs that would not be whole by the end of the run."""
    group, total = experiment.config['augment']['resize'], experiment.total
    if group['name'] != 'progressive' or 'until' not in group:
        return
    end = durations.examples(group['until'], experiment.batch_size, experiment.epoch, total)
    if end > total:
        raise Misfit(
            'augment.resize.until',
            f"'augment.resize.until' is '{group['until']}', {end} examples, and the run ends after {total}: the network would "
            "never see whole inputs. Set it to a part of the run, such as '0.8run'.",
        )
