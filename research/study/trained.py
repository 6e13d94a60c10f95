"""Trained models back from a study's folder."""

import json
import pathlib
from typing import Any

import flax.linen as nn

from research import tasks
from research.catalogue import ConfigError, nearest
from research.config import files
from research.report import records
from research.train import checkpoint
from research.train.steps import players, supervised


def load(workdir: str, variant: str, seed: int) -> tuple[nn.Module, dict[str, Any]]:
    """See research.study.load."""
    folder = pathlib.Path(workdir)
    study = records.read_study(folder)
    runs = study['runs']
    if variant not in runs:
        raise ConfigError(f"No variant '{variant}' in '{workdir}'.{nearest(variant, runs)}")
    if str(seed) not in runs[variant]:
        raise ConfigError(f"No seed {seed} of '{variant}' in '{workdir}'.{nearest(str(seed), runs[variant])}")
    directory = folder / 'runs' / runs[variant][str(seed)]
    result = records.read_result(directory / 'result.json', study, variant, seed)
    if result is None:
        raise ConfigError(f"'{variant}', seed {seed}, is not finished. Launch the study again to finish it.")
    if result['status'] != 'finished':
        raise ConfigError(f"'{variant}', seed {seed}, has {result['status']} and left no model ({result.get('message')}).")
    if 'config_folder' in study:
        files.reach(pathlib.Path(study['config_folder']))  # as at the launch
    return module(json.loads((directory / 'config.json').read_text())), checkpoint.load_variables(directory / 'scored')


def module(config: dict[str, Any]) -> nn.Module:
    """The network of a run's config.json, which names the number of classes."""
    group = files.plain('model', config['model'])
    kind = players if tasks.generative(config) else supervised
    return kind.network({**group, 'init_from': ''}, group['num_classes'])
