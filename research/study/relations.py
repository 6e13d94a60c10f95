"""What fields ask of each other, as far as it shows without the data."""

import collections
import functools
from collections.abc import Callable, Mapping
from typing import Any

from research import augment, catalogue, durations, optim, tasks
from research.augment import resize
from research.catalogue import nearest
from research.config.files import Misfit
from research.data import batch_sizes
from research.gradients import freezing
from research.optim import averaging, schedules
from research.train import memory

# Examples of a run whose budget tells none: a share of it is never rounded to nothing.
_MANY = 10**12


def check(config: Mapping[str, Any]) -> None:
    """Checks the metric, micro-batches, mixed neighbours, the memory budget, and what follows the position in the run.

    Args:
      config: resolved; its fields, names and arguments checked (research.config.signatures).

    Raises:
      ConfigError: with what was expected; a Misfit if one key is to blame.
    """
    if ':' not in config['task']['name']:
        _check_metric(config)
    _check_batches(config)
    if config['gradient']['name'] == 'selective_backprop' and (paired := augment.paired(config['augment'])):
        raise Misfit(
            'augment.names',
            f"augmentation '{paired[0]}' mixes neighbours, which selective backpropagation parts: leave one of the two out.",
        )
    if 'group_dro' in config['task'] and config['task']['group_dro']:
        if paired := augment.paired(config['augment']):
            raise Misfit(
                'augment.names', f"augmentation '{paired[0]}' mixes two groups, and task.group_dro weighs each: leave one out."
            )
        if config['data']['sampling']['name'] == 'group_balanced':
            raise Misfit('data.sampling.name', "'group_balanced' and task.group_dro correct the same imbalance: leave one out.")
    if text := config['train']['memory_budget']:
        memory.parse(text)
    _check_lengths(config)


def _check_metric(config: Mapping[str, Any]) -> None:
    """Holds `study.metric` against the metrics of a task of ours, which are the same for all data."""
    task, (split, _, name) = tasks.create(config['task'], facts={}), config['study']['metric'].partition('/')
    known = [*task.metrics(collections.defaultdict(lambda: 1.0)), *task.judged]
    if name not in known:
        near = catalogue.near(name, known)
        told = nearest(f'{split}/{near}' if near else name, [f'{split}/{metric}' for metric in known])
        raise Misfit('study.metric', f"'study.metric' is '{config['study']['metric']}'.{told}")


def _check_batches(config: Mapping[str, Any]) -> None:
    batch, micro, grows = (
        config['data']['batch_size'],
        config['gradient']['micro_batch'],
        config['data']['batch']['name'] == 'grow',
    )
    if batch and not grows and micro > batch:
        raise Misfit(
            'gradient.micro_batch',
            f"'gradient.micro_batch' is {micro}, more than the {batch} examples of 'data.batch_size': expected a part of them.",
        )
    if config['gradient']['noise_scale'] and not config['train']['memory_budget'] and (not micro or micro == batch):
        raise Misfit(
            'gradient.noise_scale',
            "'gradient.noise_scale' compares micro-batches: set 'gradient.micro_batch' to half of 'data.batch_size' or less.",
        )


def _check_lengths(config: Mapping[str, Any]) -> None:
    """Builds what follows the position, wherever its durations and the budget say enough."""
    batch = config['data']['batch_size']
    number, unit = durations.parse(config['study']['budget'], ('s', 'flops'))
    total = round(number * {'st': batch, 'ex': 1}.get(unit, 0))

    def build(group: Mapping[str, Any], entries: Mapping[str, str], create: Callable[[int], Any], *more: str) -> None:
        if ':' in group['name']:
            return
        arguments = catalogue.arguments(catalogue.resolve('', group['name'], entries), group)
        texts = [text for value in arguments.values() for text in (value if isinstance(value, tuple) else (value,))]
        units = {durations.parse(text)[1] for text in (*texts, *more) if durations.is_one(text)}
        if total and 'ep' not in units and (batch or 'st' not in units):
            create(total)
        elif units <= {'run'}:
            create(_MANY)

    def convert(total: int) -> Callable[[str], int]:
        return functools.partial(durations.examples, batch_size=batch, total=total)

    step, schedule, average = batch or 1, config['schedule'], config['optimizer']['average']
    build(schedule, schedules.SCHEDULES, lambda t: optim.schedule(config, t, per_step=step), schedule['warmup'])
    build(average, averaging.AVERAGES, lambda t: optim.average_weight(config, t, per_step=step))
    build(config['gradient']['freeze'], freezing.FREEZES, lambda t: freezing.create(config['gradient'], convert(t)))
    build(config['augment']['resize'], resize.RESIZES, lambda t: resize.create(config['augment'], 1, convert(t)))
    if batch:
        build(config['data']['batch'], batch_sizes.SIZES, lambda t: batch_sizes.create(config['data'], convert(t)))
