"""How two players are made of a config: their network, an optimizer each, and what they refuse."""

import functools
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from research import augment, catalogue, compress, gradients, models, optim
from research.data import Dataset
from research.optim.paths import reaches, refuse_unmatched
from research.tasks.generation import Generation
from research.train.parallel import Jit, Pmap
from research.train.steps.adversarial import PLAYERS, Adversarial, only
from research.train.steps.network import Descent, bind


def create(config: Mapping[str, Any], dataset: Dataset, task: Generation, engine: Jit | Pmap) -> Adversarial:
    """The step of two players as a config says.

    Raises:
      ConfigError: examples that the network does not make, or a technique that two players cannot follow.
    """
    _check(config)
    module = network(config['model'], 0, axis_name=engine.axis_name)
    bound = bind(module, only(jnp.zeros((2, module.latents))), config['train']['precision'])
    if 'discriminator' in bound.shapes.get('reference', {}):
        raise catalogue.ConfigError(
            "model.discriminator_norm 'virtual_batch' has no reference batch: it is one of latents, for the generator. "
            "Choose 'batch', 'ghost_batch' or 'none'."
        )
    made = jax.eval_shape(module.apply, bound.shapes, jnp.zeros((2, module.latents)))
    task.check(config['model']['name'], made.shape[1:], dataset)
    gradient = functools.partial(gradients.create, config['gradient'])
    params = bound.shapes['params']
    return Adversarial(
        engine=engine,
        task=task,
        fields=dataset.fields,
        network=bound,
        augment=augment.create(config['augment'], dataset.facts, task.optional),
        weights=compress.create(config['compress']).weights,
        descents={player: Descent(engine, gradient, optim.create(_of_player(config, player, params))) for player in PLAYERS},
    )


def network(group: Mapping[str, Any], classes: int, **given: Any) -> nn.Module:
    """The network of the group `config.model`; it knows no classes."""
    del classes
    kwargs = {key: value for key, value in group.items() if key not in models.OWN}
    return catalogue.build('generative model', kwargs, models.GENERATORS, **given)


def _of_player(config: Mapping[str, Any], player: str, params: Any) -> dict[str, Any]:
    """The config with those patterns over parameter paths that reach a player; each has to reach one of the two."""
    optimizer, clip, own = config['optimizer'], config['optimizer']['clip'], {player: params[player]}
    changed = {}
    for field in ('rate_multipliers', 'decay_multipliers'):
        refuse_unmatched(f'optimizer.{field}', (pattern for pattern, _ in optimizer[field]), params)
        changed[field] = tuple(pair for pair in optimizer[field] if reaches(pair[0], own))
    if exclude := clip.get('exclude'):
        refuse_unmatched('optimizer.clip.exclude', exclude, params)
        changed['clip'] = {**clip, 'exclude': tuple(pattern for pattern in exclude if reaches(pattern, own))}
    return {**config, 'optimizer': {**optimizer, **changed}}


def _check(config: Mapping[str, Any]) -> None:
    """Refuses what is for one network."""
    if config['model']['init_from']:
        raise catalogue.ConfigError("Pretrained weights are not supported for GANs: leave model.init_from at ''.")
    if config['model']['num_classes']:
        raise catalogue.ConfigError("'model.num_classes' is of one network, and two players know no classes: leave it at 0.")
    if config['train']['remat'] != 'none':
        raise catalogue.ConfigError(
            f"train.remat '{config['train']['remat']}' is for one network, not for two players: 'none'."
        )
    if config['optimizer']['layer_decay'] != 1:
        raise catalogue.ConfigError('optimizer.layer_decay is for one network, two players have no one order of layers: 1.')
    if compress.create(config['compress']).split:
        raise catalogue.ConfigError(
            f"compress.name '{config['compress']['name']}' is for one network, not for two players: 'none'."
        )
    for group, name, neutral in (('augment', 'resize', 'constant'), ('gradient', 'freeze', 'none')):
        if (chosen := config[group][name]['name']) != neutral:
            raise catalogue.ConfigError(f"{group}.{name} '{chosen}' is for one network, not for two players: '{neutral}'.")
