"""Runs of a study as weights to start from: 'WORKDIR:VARIANT:SEED' names the variables that a run was scored with."""

import hashlib
import json
import pathlib
import re
from typing import Any, NamedTuple

import numpy as np
import orbax.checkpoint as ocp
from flax.traverse_util import flatten_dict

from research.catalogue import ConfigError, nearest
from research.config import files as configs
from research.pretrained.files import Stored


class Reference(NamedTuple):
    """A run by its study's folder, variant and seed."""

    workdir: pathlib.Path
    variant: str
    seed: int


def parse(path: str) -> Reference | None:
    """'WORKDIR:VARIANT:SEED' as a reference; None where `path` is of another form, or there is a file of this name."""
    match = re.fullmatch(r'(.+):([^:/]+):(\d+)', path)
    if not match or pathlib.Path(path).expanduser().exists():
        return None
    return Reference(pathlib.Path(match[1]).expanduser(), match[2], int(match[3]))


def find(run: Reference) -> pathlib.Path:
    """The folder of a finished run.

    Raises:
      ConfigError: no such study, variant or seed, or a run that is not finished.
    """
    workdir, variant, seed = run
    study = _record(workdir / 'study.json', ('runs',))
    if study is None:
        raise ConfigError(f"No study in '{workdir}': study.json is missing. Run it first, or check the folder.")
    runs = study['runs']
    if variant not in runs:
        raise ConfigError(f"No variant '{variant}' in '{workdir}'.{nearest(variant, runs)}")
    if str(seed) not in runs[variant]:
        raise ConfigError(f"No seed {seed} of '{variant}' in '{workdir}'.{nearest(str(seed), runs[variant])}")
    directory = workdir / 'runs' / runs[variant][str(seed)]
    result = _record(directory / 'result.json', ('status',))
    if result is None:
        raise ConfigError(f"'{variant}', seed {seed}, is not finished in '{workdir}'. Launch the study again to finish it.")
    if result['status'] != 'finished':
        raise ConfigError(f"'{variant}', seed {seed}, has {result['status']} and left no model ({result.get('message')}).")
    return directory


def _record(path: pathlib.Path, keys: tuple[str, ...]) -> dict[str, Any] | None:
    try:
        record = json.loads(path.read_bytes())
        if lost := [key for key in keys if key not in record]:
            raise ValueError(f'no {lost[0]} in it')
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, TypeError) as error:
        raise ConfigError(f"'{path}' cannot be read ({error}). Launch the study again; its finished runs are kept.") from error
    return record


def stored(run: Reference) -> Stored:
    """What a finished run was scored with; raises as `find` does."""
    directory = find(run)
    try:
        group = configs.plain('model', json.loads((directory / 'config.json').read_bytes())['model'])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _unreadable(directory / 'config.json', error) from error
    network = {key: value for key, value in group.items() if key not in ('num_classes', 'init_from')}
    where = f'{run.workdir}:{run.variant}:{run.seed}'
    return Stored(where, frozenset(), lambda: _flat(directory), network=network)


def variables(directory: pathlib.Path) -> Any:
    """The variables in the folder that a finished run was scored with.

    Raises:
      ConfigError: they are not there, or cannot be read.
    """
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            return checkpointer.restore(directory.absolute())
    except Exception as error:  # whatever orbax and its storage make of a torn file
        raise _unreadable(directory, error) from error


def _unreadable(path: pathlib.Path, error: Exception) -> ConfigError:
    """What to say of a part of a run's folder."""
    why = (str(error).splitlines() or [''])[0]
    return ConfigError(
        f'{path} cannot be read ({type(error).__name__}: {why:.200}). Remove {path.parent} and launch the study again: the run '
        'is then done anew.'
    )


def _flat(directory: pathlib.Path) -> dict[str, np.ndarray]:
    """The variables of a run's folder, by path."""
    return {'/'.join(path): np.asarray(leaf) for path, leaf in flatten_dict(variables(directory / 'scored')).items()}


def digest(run: Reference) -> str:
    """12 hexadecimal digits over the numbers of a run's variables; raises as `find` does."""
    content = hashlib.sha256()
    for name, leaf in sorted(_flat(find(run)).items()):
        content.update(f'{name} {leaf.dtype} {leaf.shape} '.encode() + leaf.tobytes())
    return content.hexdigest()[:12]
