"""A data set for the trainer: examples of named fields, by index, and which indices may be read."""

import dataclasses
import hashlib
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np

from research.catalogue import ConfigError
from research.data import order

Arrays = Mapping[str, np.ndarray]

# The trainer adds these to each batch.
RESERVED = ('valid', 'position')

# The facts that are numbers, see `Dataset.facts`.
NUMBERS = ('counts', 'mean', 'std')

_EXPECTED = "{'train': part, 'test': part}, each part (images, labels) or {field: array [N, ...]}"


class Field(NamedTuple):
    """One named part of an example.

    Attributes:
      shape, dtype: of one example.
      fill: value of an empty row (-1), broadcast to `shape`.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    fill: Any = 0


class Examples(Protocol):
    """Random access: `examples[i]` is {field: array of one example}. Picklable, for reader processes."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Mapping[str, Any]: ...


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Examples of named fields, training examples first, then test examples.

    Attributes:
      name: as in the config.
      source: decodes one example at a time; what streaming reads.
      splits: 'train', 'validation' and 'test' -> int64 indices into `source`, sorted and disjoint. Nothing outside them
        is ever read.
      checksum: hash of the content of all fields, the same wherever and however they were stored.
      arrays: every example decoded, {field: [N, *shape]}, in the order of `source`; may be memory-mapped.
      fields: what an example consists of.
      facts: for tasks and models, plain hashable Python values. If field 'label' is int32 [N]: 'classes' (labels are in
        [0, classes)) and 'counts' (training examples of each class). If field 'image' is uint8 or float32
        [N, H, W, C]: 'mean' and 'std' of the training split, a float per channel, in the unit of the images. Those in
        `NUMBERS` reach a program as constants and are not part of its compile key; the others are.
    """

    name: str
    source: Examples
    splits: Mapping[str, np.ndarray]
    checksum: str
    arrays: Arrays
    fields: Mapping[str, Field]
    facts: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class InMemory:
    """Decoded arrays as a source, {field: [N, ...]}."""

    arrays: Arrays

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values())))

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        return {name: array[index] for name, array in self.arrays.items()}


def from_arrays(name: str, parts: Mapping[str, Any], cut: Mapping[str, Any]) -> Dataset:
    """A data set in memory.

    Args:
      name: as in the config.
      parts: 'train' and 'test' -> (images [N, H, W] or [N, H, W, C] uint8 or float32, labels [N] whole numbers), or
        {field: [N, ...] bool, whole numbers or floats}. 64 bits become 32. Field 'image' gets a channel axis if it has
        none; a 'label' of whole numbers [N] is the class of an example.
      cut: `validation`, `examples` and `split_seed`, see `order.split`.

    Raises:
      ConfigError: a part is missing, or its arrays do not fit each other.
    """
    if not isinstance(parts, Mapping) or set(parts) != {'train', 'test'}:
        returned = sorted(parts) if isinstance(parts, Mapping) else type(parts).__name__
        raise ConfigError(f"Data '{name}' returned {returned}, expected {_EXPECTED}.")
    train, test = (_checked(f"Data '{name}'", part, parts[part]) for part in ('train', 'test'))
    if set(train) != set(test):
        raise ConfigError(
            f"Data '{name}': the training data has the fields {sorted(train)}, the test data {sorted(test)}. "
            f'Expected the same of both; {sorted(set(train) ^ set(test))} is in one alone.'
        )
    for field, array in train.items():
        ours, theirs = ((a.dtype.name, a.shape[1:]) for a in (array, test[field]))
        if ours != theirs:
            raise ConfigError(
                f"Data '{name}': one example of field '{field}' is {ours[0]} {ours[1]} in the training data, {theirs[0]} "
                f'{theirs[1]} in the test data. Expected the same of both.'
            )
    arrays = {field: np.concatenate([array, test[field]]) for field, array in train.items()}
    source = InMemory(arrays)
    return assemble(
        name,
        source,
        arrays,
        splits(len(InMemory(train)), len(source), cut),
        checksum(arrays),
        classes=int(arrays['label'].max()) + 1 if _is_class(arrays) else None,
        sums=moments(arrays['image']) if _is_image(arrays) else None,
    )


def splits(train: int, n: int, cut: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """`Dataset.splits` of n examples, the first `train` of them training data, cut by `order.split`."""
    training, validation = order.split(train, **cut)
    return {'train': training, 'validation': validation, 'test': np.arange(train, n)}


def assemble(
    name: str,
    source: Examples,
    arrays: Arrays,
    splits: Mapping[str, np.ndarray],
    checksum: str,
    classes: int | None = None,
    sums: np.ndarray | None = None,
) -> Dataset:
    """A `Dataset` of checked arrays.

    Args:
      name, source, arrays, splits, checksum: see `Dataset`.
      classes: number of classes; None if 'label' is not a class.
      sums: the `moments` of field 'image'; None without images.
    """
    training = splits['train']
    facts: dict[str, Any] = {}
    if classes is not None:
        facts['classes'] = classes
        facts['counts'] = tuple(np.bincount(arrays['label'][training], minlength=classes).tolist())
    if sums is not None:
        height, width = arrays['image'].shape[1:3]
        facts['mean'], facts['std'] = _mean_and_std(sums[training], height * width)
    fields = {field: Field(array.shape[1:], array.dtype) for field, array in arrays.items()}
    return Dataset(name, source, splits, checksum, arrays, fields, facts)


def take(dataset: Dataset, rows: np.ndarray, streaming: bool) -> dict[str, np.ndarray]:
    """Some examples as arrays on the host.

    Args:
      dataset: where they are read from.
      rows: indices into `dataset.source`, int [N] or [N, k]; -1 is empty.
      streaming: whether to read them from `source`, one by one, instead of `arrays`. The result is the same.

    Returns:
      {field: [*rows.shape, *shape]}, with the field's fill in rows of -1.
    """
    if streaming:
        return decoded(dataset.source, dataset.fields, rows)
    taken = {name: dataset.arrays[name][rows] for name in dataset.fields}
    for name, field in dataset.fields.items():
        taken[name][rows == -1] = field.fill
    return taken


def decoded(source: Examples, fields: Mapping[str, Field], rows: np.ndarray) -> dict[str, np.ndarray]:
    """Reads rows, int of any shape, one by one: {field: [*rows.shape, *shape]}, with the field's fill in rows of -1."""
    rows = np.asarray(rows)
    arrays = {name: np.full((*rows.shape, *f.shape), f.fill, f.dtype) for name, f in fields.items()}
    for place in np.ndindex(rows.shape):
        if rows[place] != -1:
            example = source[int(rows[place])]
            for name, array in arrays.items():
                array[place] = example[name]
    return arrays


def moments(images: np.ndarray) -> np.ndarray:
    """Per example the sum and the sum of squares of each channel, float64 [N, 2, C], exact for uint8 images [N, H, W, C].

    Stored with prepared data, they give the mean of any subset without reading an image.
    """
    sums = np.empty((len(images), 2, images.shape[-1]))
    for first in range(0, len(images), 1024):  # all at once float64 would take eight times the memory of the images
        pixels = images[first : first + 1024].astype(np.float64)
        sums[first : first + 1024, 0] = pixels.sum((1, 2))
        sums[first : first + 1024, 1] = (pixels**2).sum((1, 2))
    return sums


def checksum(arrays: Arrays) -> str:
    """SHA-256 of shapes, dtypes and content, the first 16 hexadecimal digits; of names too, unless they are image and label."""
    classic = set(arrays) == {'image', 'label'}  # hashed without names, as recorded in finished runs
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f'{"" if classic else repr(name)}{array.shape}{array.dtype.str}'.encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:16]


def _is_class(arrays: Arrays) -> bool:
    return 'label' in arrays and arrays['label'].ndim == 1 and arrays['label'].dtype == np.int32


def _is_image(arrays: Arrays) -> bool:
    return 'image' in arrays and arrays['image'].ndim == 4 and arrays['image'].dtype in (np.uint8, np.float32)


def _mean_and_std(sums: np.ndarray, pixels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    mean, square = sums.sum(0) / (len(sums) * pixels)
    std = np.sqrt(np.maximum(square - mean**2, 0))
    return tuple(mean.tolist()), tuple(np.where(std > 0, std, 1.0).tolist())  # a constant channel is only shifted


def _checked(data: str, part: str, given: Any) -> dict[str, np.ndarray]:
    """One part in its stored form, {field: [N, ...]}; messages begin with `data`."""
    if isinstance(given, Mapping):
        return _checked_fields(data, part, given)
    if not isinstance(given, tuple | list) or len(given) != 2:
        raise ConfigError(
            f"{data}: '{part}' is a {type(given).__name__}, expected (images, labels) or {{field: array [N, ...]}}."
        )
    images, labels = map(np.asarray, given)
    images = images[..., None] if images.ndim == 3 else images
    if images.ndim != 4 or images.dtype not in (np.uint8, np.float32):
        raise ConfigError(
            f'{data}: {part} images are {images.dtype} {images.shape}, expected uint8 or float32 [N, H, W] or [N, H, W, C].'
        )
    if labels.shape != images.shape[:1] or labels.dtype.kind not in 'iu' or not len(labels) or labels.min() < 0:
        raise ConfigError(
            f'{data}: {part} labels are {labels.dtype} {labels.shape} beside {len(images)} images, '
            'expected one whole number of at least 0 for each image.'
        )
    return {'image': images, 'label': labels.astype(np.int32)}


def _checked_fields(data: str, part: str, given: Mapping[str, Any]) -> dict[str, np.ndarray]:
    if not given:
        raise ConfigError(f"{data}: '{part}' is an empty mapping, expected at least one field, {{field: array [N, ...]}}.")
    arrays = {name: _stored(data, part, name, values) for name, values in given.items()}
    sizes = {name: len(array) for name, array in arrays.items()}
    if len(set(sizes.values())) > 1 or 0 in sizes.values():
        raise ConfigError(
            f"{data}: the fields of '{part}' have {sizes} examples. Expected the same number in each, and at least one: "
            'the first axis of an array counts the examples.'
        )
    return arrays


def _stored(data: str, part: str, name: str, values: Any) -> np.ndarray:
    where = f"{data}: field '{name}' of '{part}'"
    if not isinstance(name, str) or name in RESERVED:
        raise ConfigError(
            f'{where} has a name that it cannot have: expected a text other than {", ".join(map(repr, RESERVED))}, which '
            'the trainer adds to each batch. Rename the field.'
        )
    try:
        array = np.asarray(values)
    except ValueError as error:  # rows of several lengths
        raise ConfigError(f'{where} is not an array: {error}. Expected rows of one shape: pad them.') from error
    if array.dtype.kind not in 'biuf' or array.dtype.itemsize > 8:
        raise ConfigError(
            f'{where} is {array.dtype} {array.shape}, expected bool, whole numbers or floats. Turn texts into numbers, and '
            'pad rows of several lengths to one.'
        )
    if not array.ndim:
        raise ConfigError(f'{where} is a single {array.dtype}, expected an array [N, ...] with a row for each example.')
    is_class = name == 'label' and array.ndim == 1 and array.dtype.kind in 'iu'
    # Devices compute in 32 bits.
    dtype = np.dtype(np.int32) if is_class else np.dtype(f'{array.dtype.kind}{min(array.dtype.itemsize, 4)}')
    if array.dtype.kind in 'iu' and array.size:
        low, high = 0 if is_class else np.iinfo(dtype).min, np.iinfo(dtype).max
        if array.min() < low or array.max() > high:
            raise ConfigError(
                f'{where} is in {array.min()} to {array.max()}, expected {low} to {high}'
                f'{", classes. Give the field another name if it is something else" if is_class else ""}.'
            )
    array = array.astype(dtype, copy=False)
    return array[..., None] if name == 'image' and array.ndim == 3 and dtype in (np.uint8, np.float32) else array
