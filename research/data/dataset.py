"""A data set as the trainer sees it: examples by number, and which numbers may be read."""

import dataclasses
import hashlib
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from research.catalogue import ConfigError
from research.data import order

Arrays = Mapping[str, np.ndarray]


class Source(Protocol):
    """Random access to examples: `source[i]` is {'image': [H, W, C], 'label': int32 []}. Picklable, for reader processes."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Mapping[str, Any]: ...


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Examples of classification, training examples first, then test examples.

    Attributes:
      name: as in the config.
      source: decodes one example at a time; what streaming reads.
      splits: 'train', 'validation' and 'test' -> int64 indices into `source`, sorted and disjoint. Nothing outside them
        is ever read.
      num_classes: labels are in [0, num_classes).
      example_shape: (H, W, C).
      dtype: of the images.
      normalize: (mean, std) of the training split, one float a channel each, in the unit of the images.
      checksum: hash of the content of all images and labels, the same wherever and however they were stored.
      arrays: every example decoded, 'image' [N, H, W, C] and 'label' int32 [N], in the order of `source`; maybe memory-mapped.
    """

    name: str
    source: Source
    splits: Mapping[str, np.ndarray]
    num_classes: int
    example_shape: tuple[int, ...]
    dtype: np.dtype
    normalize: tuple[tuple[float, ...], tuple[float, ...]]
    checksum: str
    arrays: Arrays

    def resident(self) -> Arrays:
        """All examples, for a gather: {'image': [N, H, W, C], 'label': int32 [N]}."""
        return self.arrays


@dataclasses.dataclass(frozen=True)
class InMemory:
    """Decoded arrays as a source."""

    arrays: Arrays

    def __len__(self) -> int:
        return len(self.arrays['label'])

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        return {name: array[index] for name, array in self.arrays.items()}


def from_arrays(name: str, parts: Mapping[str, tuple[np.ndarray, np.ndarray]], cut: Mapping[str, Any]) -> Dataset:
    """A data set that is in memory.

    Args:
      name: as in the config.
      parts: 'train' and 'test' -> (images [N, H, W] or [N, H, W, C] uint8 or float32, labels [N] whole numbers).
      cut: `validation`, `examples` and `split_seed`, see `order.split`.

    Raises:
      ConfigError: a part is missing, or its arrays do not fit each other.
    """
    if not isinstance(parts, Mapping) or set(parts) != {'train', 'test'}:
        found = sorted(parts) if isinstance(parts, Mapping) else type(parts).__name__
        raise ConfigError(f"Data '{name}' returned {found}, expected {{'train': (images, labels), 'test': (images, labels)}}.")
    images, labels = zip(*(_checked(name, part, *parts[part]) for part in ('train', 'test')), strict=True)
    if images[0].shape[1:] != images[1].shape[1:] or images[0].dtype != images[1].dtype:
        raise ConfigError(
            f"Data '{name}': training images are {images[0].dtype} {images[0].shape[1:]}, test images "
            f'{images[1].dtype} {images[1].shape[1:]}. Expected the same of both.'
        )
    arrays = {'image': np.concatenate(images), 'label': np.concatenate(labels)}
    return assemble(
        name,
        InMemory(arrays),
        arrays,
        len(labels[0]),
        int(arrays['label'].max()) + 1,
        moments(arrays['image']),
        checksum(**arrays),
        cut,
    )


def assemble(
    name: str,
    source: Source,
    arrays: Arrays,
    train: int,
    num_classes: int,
    sums: np.ndarray,
    content: str,
    cut: Mapping[str, Any],
) -> Dataset:
    """A `Dataset` whose first `train` examples are training data, cut as `cut` says (see `order.split`).

    `sums` are the `moments` of the images, `content` is their `checksum`.
    """
    training, validation = order.split(train, **cut)
    shape = arrays['image'].shape[1:]
    return Dataset(
        name=name,
        source=source,
        arrays=arrays,
        num_classes=num_classes,
        example_shape=shape,
        dtype=arrays['image'].dtype,
        splits={'train': training, 'validation': validation, 'test': np.arange(train, len(source))},
        normalize=_mean_and_std(sums[training], shape[0] * shape[1]),
        checksum=content,
    )


def moments(images: np.ndarray) -> np.ndarray:
    """Per example the sum and the sum of squares of each channel, float64 [N, 2, C], exact for uint8 images [N, H, W, C].

    Kept beside prepared data, they give the mean of any subset without reading an image.
    """
    sums = np.empty((len(images), 2, images.shape[-1]))
    for first in range(0, len(images), 1024):  # in float64 the whole would be eight times the images
        pixels = images[first : first + 1024].astype(np.float64)
        sums[first : first + 1024, 0] = pixels.sum((1, 2))
        sums[first : first + 1024, 1] = (pixels**2).sum((1, 2))
    return sums


def checksum(image: np.ndarray, label: np.ndarray) -> str:
    """SHA-256 of shapes, dtypes and content, the first 16 hexadecimal digits."""
    digest = hashlib.sha256()
    for array in (image, label):
        digest.update(f'{array.shape}{array.dtype.str}'.encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:16]


def _mean_and_std(sums: np.ndarray, pixels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    mean, square = sums.sum(0) / (len(sums) * pixels)
    std = np.sqrt(np.maximum(square - mean**2, 0))
    return tuple(mean.tolist()), tuple(np.where(std > 0, std, 1.0).tolist())  # a constant channel is only shifted


def _checked(name: str, part: str, images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    images, labels = np.asarray(images), np.asarray(labels)
    images = images[..., None] if images.ndim == 3 else images
    if images.ndim != 4 or images.dtype not in (np.uint8, np.float32):
        raise ConfigError(
            f"Data '{name}': {part} images are {images.dtype} {images.shape}, "
            'expected uint8 or float32 [N, H, W] or [N, H, W, C].'
        )
    if labels.shape != images.shape[:1] or labels.dtype.kind not in 'iu' or not len(labels) or labels.min() < 0:
        raise ConfigError(
            f"Data '{name}': {part} labels are {labels.dtype} {labels.shape} beside {len(images)} images, "
            'expected one whole number of at least 0 for each image.'
        )
    return images, labels.astype(np.int32)
