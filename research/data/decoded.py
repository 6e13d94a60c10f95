"""Folders of arrays that were decoded once: written aside and renamed, read memory-mapped, compared with what was written.

They lie under `TFDS_DATA_DIR`, or `~/tensorflow_datasets`. Any of them may be removed: it is then made again.
"""

import contextlib
import fcntl
import json
import os
import pathlib
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from research.catalogue import ConfigError
from research.data import arrays

# Examples whose content is compared with what was written, at every launch.
SAMPLE = 64


def home() -> pathlib.Path:
    """The folder of all prepared data."""
    return pathlib.Path(os.path.expanduser(os.environ.get('TFDS_DATA_DIR') or '~/tensorflow_datasets'))


@contextlib.contextmanager
def alone(lock: pathlib.Path) -> Iterator[None]:
    """One process at a time; the kernel frees the lock of one that dies."""
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        file = lock.open('w')
    except OSError as error:
        raise ConfigError(f'Cannot write {lock}: {error}. Set TFDS_DATA_DIR to a folder that can be written.') from error
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def write(folder: pathlib.Path, fill: Callable[[pathlib.Path], Mapping[str, Any]]) -> None:
    """Has `fill` write into a temporary folder, adds what it returns as content.json, and renames it to `folder`."""
    aside = folder.with_name(f'{folder.name}.incomplete')
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    (aside / 'content.json').write_text(json.dumps(fill(aside)))
    aside.rename(folder)


def damaged(folder: pathlib.Path, name: str, what: str) -> ConfigError:
    """What to do about a folder of data `name` that is not as it was written."""
    return ConfigError(
        f"{folder / what}. Remove {folder} and give the same command again: '{name}' is then decoded anew from its source."
    )


def read(folder: pathlib.Path, name: str, fields: Iterable[str]) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """(content.json, field -> its memory-mapped array [N, ...]); of field 'image' a sample is compared with 'moments'.

    Raises:
      ConfigError: which file is damaged.
    """
    try:
        content = json.loads((folder / 'content.json').read_text())
        content['checksum']
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise damaged(folder, name, f'content.json is damaged: {error}') from error
    found = {}
    for field in fields:
        try:
            found[field] = np.load(folder / f'{field}.npy', mmap_mode='r')
        except (OSError, ValueError, EOFError) as error:
            raise damaged(folder, name, f'{field}.npy is damaged: {error}') from error
    count = len(found['moments'])
    if any(len(array) != count for array in found.values()):
        files = [f'{field}.npy' for field in found]
        raise damaged(folder, name, f'{", ".join(files[:-1])} and {files[-1]} hold other numbers of examples than were written')
    sample = np.unique(np.linspace(0, count - 1, SAMPLE).astype(int))
    if not np.array_equal(arrays.moments(found['image'][sample]), found['moments'][sample]):
        raise damaged(folder, name, 'image.npy is damaged: its pixels are others than were written')
    return content, found
