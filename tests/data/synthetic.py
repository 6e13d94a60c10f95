"""Small made-up data for tests, and loaders as a paper would have them."""

import gzip
import pathlib
import struct

import numpy as np

TRAIN, TEST = 53, 17
BASE = {'path': '', 'label': '', 'group': '', 'resize': 0, 'crop': 0}
BASE |= {
    'validation': 0,
    'official_validation': False,
    'test': 0,
    'examples': 0,
    'split_seed': 0,
    'imbalance': {'name': 'none'},
    'external': (),
    'clean': (),
    'filters': (),
    'target_tokenizer': {'name': 'shared'},
    'targets': {'name': 'given'},
    'pack': False,
    'personal': 'keep',
}


def images(count: int, seed: int, size: int = 6) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, size, size), np.uint8)


def labels(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 10, count).astype(np.uint8)


def load(path: str) -> dict:
    return {'train': (images(TRAIN, 1), labels(TRAIN, 2)), 'test': (images(TEST, 3), labels(TEST, 4))}


def texts(count: int, seed: int) -> dict:
    """Token rows of several lengths, padded to 5."""
    draw = np.random.default_rng(seed)
    mask = np.arange(5) < draw.integers(1, 6, (count, 1))
    return {'tokens': draw.integers(1, 99, (count, 5)) * mask, 'mask': mask, 'label': draw.integers(0, 3, count)}


def load_texts(path: str) -> dict:
    return {'train': texts(TRAIN, 1), 'test': texts(TEST, 2)}


def write_idx(path: pathlib.Path, array: np.ndarray) -> None:
    content = bytes([0, 0, 8, array.ndim]) + struct.pack(f'>{array.ndim}I', *array.shape) + array.tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == '.gz' else content)


def write_folder(folder: pathlib.Path) -> pathlib.Path:
    """Four idx files as of MNIST, two of them gzipped."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = load('')
    write_idx(folder / 'train-images-idx3-ubyte.gz', parts['train'][0])
    write_idx(folder / 'train-labels-idx1-ubyte', parts['train'][1])
    write_idx(folder / 't10k-images-idx3-ubyte', parts['test'][0])
    write_idx(folder / 't10k-labels-idx1-ubyte.gz', parts['test'][1])
    return folder
