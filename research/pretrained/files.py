"""`.safetensors` files on disk."""

import contextlib
import hashlib
import pathlib
from collections.abc import Iterator, Mapping

import numpy as np
import safetensors
from safetensors import numpy as tensors_of

from research.catalogue import ConfigError


def read(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Every tensor of a file, or of the files of a folder, by name.

    Raises:
      ConfigError: no such file, or it is not safetensors.
    """
    tensors = {}
    for file in _files(path):
        with _explained(file):
            tensors |= tensors_of.load_file(file)
    return tensors


def names(path: pathlib.Path) -> set[str]:
    """Only the names, from the header of each file; raises as `read` does."""
    tensors = set()
    for file in _files(path):
        with _explained(file), safetensors.safe_open(file, 'np') as opened:
            tensors |= set(opened.keys())
    return tensors


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
    """12 hexadecimal digits over the content of the files that `read` reads."""
    digests = [hashlib.sha256(file.read_bytes()).digest() for file in _files(path)]
    return hashlib.sha256(b''.join(digests)).hexdigest()[:12]


def _files(path: pathlib.Path) -> list[pathlib.Path]:
    files = sorted(path.glob('*.safetensors')) if path.is_dir() else [path]
    if not files or not files[0].exists():
        raise ConfigError(f"No weights at '{path}': expected a .safetensors file, or a folder with a model.safetensors in it.")
    return files


def write(path: pathlib.Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Writes tensors by name; the file is there whole or not at all."""
    partial = path.with_name(f'{path.name}.partial')
    tensors_of.save_file({name: np.asarray(tensor, order='C') for name, tensor in tensors.items()}, partial)
    partial.replace(path)
