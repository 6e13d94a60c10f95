"""Trained models back from a study's folder."""

import json
import pathlib
from typing import Any

import flax.linen as nn

from research import models
from research.catalogue import ConfigError, nearest
from research.study import records
from research.train import checkpoint


def load(workdir: str, variant: str, seed: int) -> tuple[nn.Module, dict[str, Any]]:
    """See research.study.load."""
    folder = pathlib.Path(workdir)
    runs = records.read_study(folder)['runs']
    if variant not in runs:
        raise ConfigError(f"No variant '{variant}' in '{workdir}'.{nearest(variant, runs)}")
    if str(seed) not in runs[variant]:
        raise ConfigError(f"No seed {seed} of '{variant}' in '{workdir}'.{nearest(str(seed), runs[variant])}")
    directory = folder / 'runs' / runs[variant][str(seed)]
    if not (directory / 'result.json').exists() or not (directory / 'scored').exists():
        raise ConfigError(f"'{variant}', seed {seed}, is not finished. Launch the study again to finish it.")
    return module(json.loads((directory / 'config.json').read_text())), checkpoint.load_variables(directory / 'scored')


def module(config: dict[str, Any]) -> nn.Module:
    """The network of a run's config.json, which names the number of classes."""
    group = dict(config['model'])
    return models.create(group.pop('name'), group.pop('num_classes'), **group)
