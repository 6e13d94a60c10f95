"""What a private run (gradient 'dp_sgd') asks of the rest of a config, which noise it gets, and what it has given away."""

from collections.abc import Iterable, Mapping
from typing import Any

from research import augment, catalogue, gradients, tasks
from research.config.files import Misfit
from research.gradients import accounting, dp_sgd


def is_private(config: Mapping[str, Any]) -> bool:
    """Whether a run is to be differentially private."""
    return catalogue.resolve('gradient', config['gradient']['name'], gradients.GRADIENTS) is dp_sgd.create


def check(config: Mapping[str, Any], collections: Iterable[str]) -> None:
    """Refuses what epsilon would not be true beside.

    Args:
      config: resolved.
      collections: names of what the network keeps beside its parameters.

    Raises:
      Misfit: with what to set in its place.
    """
    if not is_private(config):
        return
    data = config['data']
    refusals = {
        'data.sampling.name': (
            data['sampling']['name'] != 'without_replacement',
            'counts on batches that are drawn anew in every step, and there is no such bound for the batches of a shuffled '
            "epoch: set data.sampling.name to 'without_replacement'.",
        ),
        'data.batch.name': (
            data['batch']['name'] != 'constant',
            "needs batches of one size, because each draws that many examples: set data.batch.name to 'constant'.",
        ),
        'data.repeats': (
            data['repeats'] > 1,
            'clips a row at a time, and an example in several rows moves the sum several times as far: set data.repeats to 1.',
        ),
        'data.filters': (
            bool(data['filters'] or data['external']),
            'hides one example among others that stay the same, and what filters remove hangs on all of them: leave '
            'data.filters and data.external empty, and filter the data before.',
        ),
        'data.clean': (
            bool(data['clean']),
            'hides one example among others that stay the same, and what rules leave out hangs on all of them: leave '
            'data.clean empty, and clean the data before.',
        ),
        'data.imbalance.name': (
            data['imbalance']['name'] != 'none',
            'hides one example among others that stay the same, and how many of a class stay hangs on all of them: set '
            "data.imbalance.name to 'none'.",
        ),
        'data.pack': (data['pack'], 'hides a row, and a row of data.pack has several texts: set it to False.'),
        'data.targets.name': (
            data['targets']['name'] != 'given',
            "hides one example, and a teacher that was trained on it may tell: set data.targets.name to 'given'.",
        ),
        'data.pair': (
            data['pair'] == 'next',
            "hides a row, and with data.pair 'next' a text is in several rows: set it to ''.",
        ),
        'augment.names': (
            bool(augment.paired(config['augment'])),
            'clips the gradient of one example, and mixup and CutMix train on two at once: take another augmentation.',
        ),
        'task.name': (
            tasks.generative(config),
            'trains one network, and a generator learns through a discriminator: take another task.',
        ),
        'gradient.noise_scale': (
            config['gradient']['noise_scale'],
            'never adds up gradients that are not clipped, which gradient.noise_scale measures: set it to False.',
        ),
        'train.precision': (
            config['train']['precision'] == 'float16',
            'cannot hide a step that loss scaling skips for the sake of one example: take bfloat16 or float32.',
        ),
    }
    for key, (wrong, why) in refusals.items():
        if wrong:
            raise Misfit(key, f"gradient 'dp_sgd' {why}")
    if kept := sorted(collections):
        raise Misfit(
            'model.norm.name',
            f"gradient 'dp_sgd' cannot hide what this network keeps of its examples beside its parameters ({', '.join(kept)}), "
            "which no noise is added to: set model.norm.name to 'layer' or 'group', whose statistics are of one example.",
        )


def settled(config: Mapping[str, Any], key: str, examples: int, batch_size: int, steps: int) -> tuple[Mapping[str, Any], str]:
    """The config with `gradient.noise_multiplier` for its `gradient.epsilon` and with its delta, and a compile key that tells
    noises apart, which the length of the run decides too; of a run that is not private as they are.

    Args:
      config: resolved.
      key: its compile key.
      examples: n, of the training split.
      batch_size: B; more than n are refused elsewhere.
      steps: of the whole run.

    Raises:
      Misfit: both an epsilon and a noise multiplier, or no noise for this epsilon.
      ConfigError: dp-accounting is not installed.
    """
    if not is_private(config) or batch_size > examples:
        return config, key
    group = config['gradient']
    wanted = catalogue.arguments(dp_sgd.create, group)
    noise, delta = wanted['noise_multiplier'], wanted['delta'] or 1 / (10 * examples)
    if wanted['epsilon'] and 'noise_multiplier' in group:
        raise Misfit(
            'gradient.noise_multiplier',
            f'gradient.epsilon {wanted["epsilon"]} asks for the noise that it needs, but gradient.noise_multiplier is set: '
            'leave one of them out.',
        )
    if wanted['epsilon']:
        noise = accounting.noise_multiplier_for(wanted['epsilon'], examples, batch_size, steps, delta)
    elif noise:
        accounting.library()  # missing, it is missed now
    group = {**group, 'epsilon': 0.0, 'delta': delta, 'noise_multiplier': noise}
    return {**config, 'gradient': group}, f'{key} noise {noise}'


def spent(config: Mapping[str, Any], examples: int, batch_size: int, steps: int) -> dict[str, float]:
    """Epsilon, delta and the noise multiplier after so many steps; {} of a run that is not private, or has no noise.

    Args:
      config: from `settled`.
      examples, batch_size: as of `settled`.
      steps: done.
    """
    if not is_private(config):
        return {}
    noise, delta = config['gradient']['noise_multiplier'], config['gradient']['delta']
    if not noise:
        return {}
    epsilon = accounting.epsilon(examples, batch_size, steps, noise, delta)
    return {'epsilon': epsilon, 'delta': delta, 'noise_multiplier': noise}
