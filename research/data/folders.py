"""Images of one's own in a folder by class: DIR/CLASS/*.png, or DIR/train/CLASS/*.png with DIR/test (and DIR/validation).

Folders inside a class are read too; 'val' and 'valid' are other names for 'validation'. Classes are the folders of the training
part, sorted by name. Files whose names begin with a dot, or end in something else than `image_files.SUFFIXES`, are ignored.
How files become pixels is said in research/data/image_files.py.

Without DIR/test, `data.test` cuts a test split by a hash of each picture, and `data.validation` likewise: a file stays on its
side when others are added, and copies of a picture are never on both.
"""

import collections
import os
import pathlib
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from research.catalogue import ConfigError
from research.data import image_files
from research.data.dataset import Column, Store

_PARTS = {'train': 'train', 'test': 'test', **dict.fromkeys(('validation', 'val', 'valid'), 'validation')}
_LIKE_PARTS = (*_PARTS, 'training', 'testing')
_EXPECTED = 'DIR/CLASS/*.png, or DIR/train/CLASS/*.png and DIR/test/CLASS/*.png'


def load(config: Mapping[str, Any], whole: bool = False) -> Store:
    """The images of the folder `config['path']`, decoded once; see `image_files.decode` for the other arguments.

    Raises:
      ConfigError: no such folder or classes, folders that look like parts, groups, one class alone, a class without images,
        names that differ in case alone.
    """
    if not config['path']:
        raise ConfigError(f"data.name is 'images', and data.path is empty: expected a folder, {_EXPECTED}.")
    if config['label']:
        raise ConfigError(f"data.label is '{config['label']}', but images have their folders as classes: leave it empty.")
    if config['group']:
        raise ConfigError(
            f"data.group is '{config['group']}', but images by folder have no groups: leave it empty, or list the files in a "
            "table, data.name='table', with data.image and data.group."
        )
    root = pathlib.Path(config['path']).expanduser()
    if not root.is_dir():
        raise ConfigError(f"data.path='{root}' is not a folder. Expected {_EXPECTED}.")
    parts = {part: _classes(root, where) for part, where in _parts(root).items()}
    names = _names(root, parts)
    listed = [(part, names.index(name), file) for part, by in parts.items() for name, files in by.items() for file in files]
    found = image_files.decode(f"'{root}'", root, [file for _, _, file in listed], config, whole)
    label = np.array([listed[row][1] for row in found.rows], np.int32)
    sizes = collections.Counter(listed[row][0] for row in found.rows)
    ends = np.cumsum([0, *(sizes[part] for part in parts)]).tolist()
    rows = {part: range(*ends[i : i + 2]) for i, part in enumerate(parts)}
    check_classes(f"'{root}'", names, label[rows['train'].start : rows['train'].stop])
    image_files.warn_of_copies(f"'{root}'", rows, found.keys)
    columns = {'image': Column(found.pixels), 'label': Column(label)}
    checksum = image_files.checksum(found, {'label': columns['label']})
    return Store('images', columns, rows, checksum, len(names), found.moments, names, keys=found.keys)


def _folders(where: pathlib.Path) -> dict[str, pathlib.Path]:
    return {entry.name: entry for entry in sorted(where.iterdir()) if entry.is_dir() and not entry.name.startswith('.')}


def _parts(root: pathlib.Path) -> dict[str, pathlib.Path]:
    """Part -> its folder, 'train' first."""
    found = _folders(root)
    if 'train' not in found or any(map(_is_image, os.listdir(found['train']))):  # a class may be called so
        if found and all(name.casefold() in _LIKE_PARTS and _holds_folders(where) for name, where in found.items()):
            raise ConfigError(
                f"data.path='{root}' has the folders {', '.join(found)}, which would be classes and look like parts: expected "
                f"{_EXPECTED}. Name parts 'train', 'test' and 'validation', or the classes otherwise."
            )
        return {'train': root}
    if others := sorted(found.keys() - _PARTS.keys()):
        raise ConfigError(
            f"data.path='{root}' has the folders 'train' and '{others[0]}': expected either {_EXPECTED}. Move '{others[0]}' "
            'elsewhere.'
        )
    named = collections.Counter(_PARTS[name] for name in found)
    if named['validation'] > 1:
        raise ConfigError(f"data.path='{root}' has several folders for validation, {', '.join(found)}: leave one of them.")
    return {part: found[name] for part in ('train', 'test', 'validation') for name in found if _PARTS[name] == part}


def _holds_folders(where: pathlib.Path) -> bool:
    """Whether there are folders in it and nothing else."""
    return all(entry.is_dir() for entry in where.iterdir() if not entry.name.startswith('.')) and bool(_folders(where))


def _classes(root: pathlib.Path, where: pathlib.Path) -> dict[str, list[str]]:
    """Class -> its files relative to `root`, sorted by name."""
    found = {}
    for name, folder in _folders(where).items():
        found[name] = sorted(
            os.path.join(below, file)
            for base, _, files in os.walk(folder, followlinks=True)
            for below in [os.path.relpath(base, root)]
            for file in files
            if _is_image(file)
        )
        if not found[name]:
            raise ConfigError(
                f"The class '{name}' in {where} has no images ({', '.join(image_files.SUFFIXES)}): add some, or remove it."
            )
    if not found:
        raise ConfigError(f'{where} has no folders of classes. Expected {_EXPECTED}.')
    return found


def _is_image(file: str) -> bool:
    return file.lower().endswith(image_files.SUFFIXES) and not file.startswith('.')


def _names(root: pathlib.Path, parts: Mapping[str, Mapping[str, Any]]) -> tuple[str, ...]:
    """The classes of the training part, which has all of them."""
    alike: dict[str, str] = {}
    for name in sorted({name for by in parts.values() for name in by}):
        if other := alike.get(name.casefold()):
            raise ConfigError(f"'{root}' has the classes '{other}' and '{name}', which differ in case alone: rename one.")
        alike[name.casefold()] = name
    names = (*parts['train'],)
    for part, by in parts.items():
        if unseen := [name for name in by if name not in names]:
            raise ConfigError(
                f"'{root}': the {part} part has the class '{unseen[0]}', which the training part has not: no network can learn "
                'it. Move some of its images into the training part, or leave it out.'
            )
    return names


def check_classes(data: str, names: tuple[str, ...], labels: np.ndarray) -> None:
    """Of the training part, int [N], once broken files are left out; messages begin with `data`.

    Raises:
      ConfigError: one class alone, or a class without an example. Of a single one it warns.
    """
    if len(names) < 2:
        raise ConfigError(f"{data} has one class alone, '{names[0]}': expected at least two.")
    counts = np.bincount(labels, minlength=len(names))
    if empty := [names[i] for i in np.flatnonzero(counts == 0)]:
        raise ConfigError(f"{data}: no training example of the class '{empty[0]}' can be decoded. Mend them, or leave it out.")
    if single := [names[i] for i in np.flatnonzero(counts == 1)]:
        warnings.warn(
            f"{data} has one training example alone of {len(single)} classes, such as '{single[0]}', which is too few to learn "
            'from and to test on.',
            stacklevel=3,
        )
