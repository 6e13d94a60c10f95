"""MNIST's own file format, idx (LeCun et al. 1998), and a TFDS builder over four such files.

An idx file is: two zero bytes, a type (8: uint8), the number of dimensions, each size as a big-endian int32, the data.
"""

import gzip
import hashlib
import math
import pathlib
import struct
import zlib
from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
import tensorflow_datasets as tfds

from research.catalogue import ConfigError

Parts: TypeAlias = dict[str, tuple[pathlib.Path, pathlib.Path]]  # 'train' and 'test' -> (images, labels)

FILES = {
    'train': ('train-images-idx3-ubyte', 'train-labels-idx1-ubyte'),
    'test': ('t10k-images-idx3-ubyte', 't10k-labels-idx1-ubyte'),
}


def read(path: pathlib.Path, dimensions: int) -> np.ndarray:
    """The content of an idx file, gzipped if its name ends in `.gz`.

    Args:
      path: the file.
      dimensions: expected number: 3 for images, 1 for labels.

    Returns:
      uint8 [N, H, W] or [N].

    Raises:
      ConfigError: not an idx file, or truncated or too long.
    """
    try:
        content = path.read_bytes()
        content = gzip.decompress(content) if path.suffix == '.gz' else content
    except (OSError, EOFError, zlib.error) as error:
        raise ConfigError(f'Cannot read {path}: {error}. Fetch the file again.') from error
    magic = bytes([0, 0, 8, dimensions])
    if content[:4] != magic:
        raise ConfigError(
            f'{path} starts with the bytes {content[:4].hex()}, expected {magic.hex()} (idx, uint8, {dimensions} '
            'dimensions). Is it the right file, and is it gzipped without `.gz` in its name?'
        )
    header = 4 + 4 * dimensions
    sizes = struct.unpack(f'>{dimensions}I', content[4:header]) if len(content) >= header else (math.inf,)
    promised = header + math.prod(sizes)
    if len(content) != promised:
        raise ConfigError(f'{path} holds {len(content)} bytes, expected {promised} for sizes {sizes}. Fetch the file again.')
    return np.frombuffer(content, np.uint8, offset=header).reshape(sizes)


def find(folder: pathlib.Path) -> Parts | None:
    """The files in `folder`, gzipped or not; None if none of the four is there, a ConfigError if only some are."""
    names = [name for pair in FILES.values() for name in pair]
    paths = [path for name in names for path in (folder / name, folder / f'{name}.gz') if path.is_file()]
    present = {path.name.removesuffix('.gz'): path for path in paths}
    missing = [name for name in names if name not in present]
    if missing and present:
        raise ConfigError(f'{folder} lacks {", ".join(missing)} (or the same with .gz). Expected all four.')
    return {part: (present[images], present[labels]) for part, (images, labels) in FILES.items()} if present else None


class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Prepares idx files. The prepared version is named by a hash of the files, so other files are other data."""

    VERSION = tfds.core.Version('1.0.0')

    def __init__(self, name: str, parts: Parts, data_dir: str):
        content = hashlib.sha256()
        for path in (path for pair in parts.values() for path in pair):
            content.update(path.read_bytes())
        self.name = f'{name}_{content.hexdigest()[:12]}'
        self.parts = parts
        super().__init__(data_dir=data_dir, file_format='array_record')

    def _info(self) -> tfds.core.DatasetInfo:
        labels = read(self.parts['train'][1], 1)
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(
                {
                    'image': tfds.features.Image(shape=(None, None, 1), dtype=np.uint8),
                    'label': tfds.features.ClassLabel(num_classes=int(labels.max()) + 1),
                }
            ),
            supervised_keys=('image', 'label'),
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        return {part: self._generate_examples(*paths) for part, paths in self.parts.items()}

    def _generate_examples(self, image_path: pathlib.Path, label_path: pathlib.Path) -> Iterator[tuple[int, dict[str, Any]]]:
        images, labels = read(image_path, 3), read(label_path, 1)
        if len(images) != len(labels):
            raise ConfigError(f'{image_path} holds {len(images)} images, {label_path} {len(labels)} labels. Are they a pair?')
        for index, (image, label) in enumerate(zip(images, labels, strict=True)):
            yield index, {'image': image[..., None], 'label': label}
