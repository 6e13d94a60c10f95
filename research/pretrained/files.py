"""`.safetensors` files on disk, alone or in a folder, and the `config.json` beside them."""

import contextlib
import dataclasses
import functools
import hashlib
import json
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import safetensors
from safetensors import numpy as tensors_of

from research.catalogue import ConfigError
from research.config import files as configs

# The texts by which PyTorch's libraries know their own files.
FORMAT = {'format': 'pt'}
# The text that holds a network of this package: arguments of its constructor.
NETWORK = 'frugal'
_WHOLE, _INDEX = 'model.safetensors', 'model.safetensors.index.json'


@dataclasses.dataclass(frozen=True)
class Stored:
    """Weights on disk, whose tensors are not read yet.

    Attributes:
      where: for messages.
      names: of the tensors.
      read: () -> every tensor by name.
      texts: the file's metadata.
      config: the `config.json` beside; {} without one.
      network: where this package wrote them, arguments of the network's constructor, with its 'name' where that is known;
        else None.
    """

    where: str
    names: frozenset[str]
    read: Callable[[], dict[str, np.ndarray]]
    texts: Mapping[str, str] = dataclasses.field(default_factory=dict)
    config: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    network: Mapping[str, Any] | None = None


def stored(path: pathlib.Path) -> Stored:
    """What a file, or a folder with a `model.safetensors` or its index, holds.

    Raises:
      ConfigError: no such file, it is not safetensors, or there are several of which none is the model's by its name.
    """
    files, names, texts = _files(path), set(), {}
    for file in files:
        with _explained(file), safetensors.safe_open(file, 'np') as opened:
            names |= set(opened.keys())
            texts |= opened.metadata() or {}
    network = configs.plain('', json.loads(texts.pop(NETWORK))) if NETWORK in texts else None
    read = functools.partial(_read, files)
    return Stored(str(path), frozenset(names), read, texts, _config(files[0].with_name('config.json')), network)


def _read(files: list[pathlib.Path]) -> dict[str, np.ndarray]:
    tensors = {}
    for file in files:
        with _explained(file):
            tensors |= tensors_of.load_file(file)
    return tensors


def _config(path: pathlib.Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise ConfigError(f"'{path}', beside the weights, is not JSON ({error}). Fetch it again, or remove it.") from error
    return config if isinstance(config, dict) else {}


@contextlib.contextmanager
def _explained(file: pathlib.Path) -> Iterator[None]:
    try:
        yield
    except safetensors.SafetensorError as error:
        raise ConfigError(
            f"'{file}' is not a safetensors file ({error}). Weights in another format (.pth, .bin) are converted where they "
            'come from: safetensors.torch.save_file(model.state_dict(), PATH).'
        ) from error


def digest(path: pathlib.Path) -> str:
    """12 hexadecimal digits over the content of the files that `stored` reads."""
    digests = [hashlib.sha256(file.read_bytes()).digest() for file in _files(path)]
    return hashlib.sha256(b''.join(digests)).hexdigest()[:12]


def _files(path: pathlib.Path) -> list[pathlib.Path]:
    """The file, or of a folder the one that the libraries write: the model, its parts by their index, or the only one."""
    if not path.is_dir():
        if not path.exists():
            raise ConfigError(f"No weights at '{path}': expected a .safetensors file, or a folder with a {_WHOLE} in it.")
        return [path]
    if (path / _WHOLE).exists():
        return [path / _WHOLE]
    if (path / _INDEX).exists():
        parts = sorted({path / part for part in _config(path / _INDEX)['weight_map'].values()})
        if lost := [part.name for part in parts if not part.exists()]:
            raise ConfigError(
                f"'{path / _INDEX}' names {', '.join(lost)}, missing in that folder. Fetch the rest of the weights."
            )
        return parts
    files = sorted(path.glob('*.safetensors'))
    if len(files) != 1:
        found = f'{", ".join(file.name for file in files)}: name one of them' if files else 'no .safetensors file'
        raise ConfigError(f"No weights at '{path}': expected a {_WHOLE} or a {_INDEX} in the folder, and it holds {found}.")
    return files


def write(path: pathlib.Path, tensors: Mapping[str, np.ndarray], texts: Mapping[str, str]) -> None:
    """Writes tensors and texts by name; the file is there whole or not at all, in folders made for it where they are missing.

    Raises:
      ConfigError: the path is a folder.
    """
    if path.is_dir():
        raise ConfigError(f"'{path}' is a folder: name the file to write, such as '{path / _WHOLE}'.")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f'{path.name}.partial')
    tensors_of.save_file({name: np.asarray(tensor, order='C') for name, tensor in tensors.items()}, partial, dict(texts))
    partial.replace(path)
