"""NumPy files of one's own: FILE.npz, or a folder of .npy files, which are memory-mapped and never read as a whole.

An array's name is its part and its field, 'train_image', 'test_label'; without a part, 'image', it is of the training data.
Fields are those of a loader function, see research/data/sources.py.
"""

import pathlib
import zipfile
import zlib
from collections.abc import Mapping

import numpy as np

from research.catalogue import ConfigError
from research.data.dataset import PARTS

_EXPECTED = 'expected a .npz file, or a folder of .npy files such as train_image.npy and train_label.npy'


def load(path: str) -> dict[str, dict[str, np.ndarray]]:
    """Part -> {field: array [N, ...]}.

    Raises:
      ConfigError: no such files, broken ones, pickled objects, and a field with and without its part.
    """
    if not path:
        raise ConfigError(f"data.name is 'arrays', and data.path is empty: {_EXPECTED}.")
    given = pathlib.Path(path).expanduser()
    found: dict[str, dict[str, np.ndarray]] = {}
    for name, array in _arrays(given).items():
        part, _, field = name.partition('_')
        part, field = (part, field) if part in PARTS and field else ('train', name)
        if field in found.setdefault(part, {}):
            raise ConfigError(f"{given} has both '{field}' and 'train_{field}': leave one of them.")
        found[part][field] = array
    if 'train' not in found:
        raise ConfigError(f"data.path='{given}' has no training arrays: {_EXPECTED}.")
    return found


def _arrays(given: pathlib.Path) -> Mapping[str, np.ndarray]:
    """Name -> array, in the order of the names."""
    if given.is_dir():
        return {file.stem: _read(file) for file in sorted(given.glob('*.npy'))}
    if not given.is_file() or given.suffix != '.npz':
        raise ConfigError(f"data.path='{given}': {_EXPECTED}.")
    try:
        file = np.load(given)
        if isinstance(file, np.ndarray):
            raise ConfigError(f'{given} is a single array, by its content a .npy file: {_EXPECTED}.')
        with file:
            return {name: file[name] for name in sorted(file.files)}
    # Damaged bytes end in each of these.
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        raise _unreadable(given, error) from error


def _read(file: pathlib.Path) -> np.ndarray:
    try:
        return np.load(file, mmap_mode='r')
    except (OSError, ValueError, EOFError) as error:
        raise _unreadable(file, error) from error


def _unreadable(file: pathlib.Path, error: Exception) -> ConfigError:
    return ConfigError(f'{file} cannot be read: {error}. Save arrays of numbers with numpy.save, not objects.')
