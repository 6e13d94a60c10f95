"""A source from arrays: what a loader function returns, checked and brought to its stored form."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from research.catalogue import ConfigError
from research.data import images, pairs, texts
from research.data.dataset import PARTS, RESERVED, TEXTS, Arrays, Column, Store

_EXPECTED = (
    "{'train': part, 'test': part}, each part (images, labels) or {field: array [N, ...]}; 'validation' may be there too"
)


def from_arrays(name: str, parts: Mapping[str, Any], resize: int = 0, crop: int = 0) -> Store:
    """A source in memory, or in memory-mapped arrays, which stay where they are.

    Args:
      name: as in the config.
      parts: 'train', 'test' (may be missing) and 'validation' (may be missing) -> (images [N, H, W] or [N, H, W, C] uint8 or
        float32, labels [N] whole numbers), or {field: [N, ...] bool, whole numbers or floats}. 64 bits become 32. Field
        'image' gets a channel axis if it has none; a 'label' of whole numbers [N] is the class of an example. Fields 'text' and
        'pair' are N texts, of which `dataset.cut` makes rows of tokens; 'source' and 'target' may be texts too.
      resize, crop: of uint8 images, see `research.data.images`; 0 for as they are.

    Raises:
      ConfigError: a part is missing, or its arrays do not fit each other.
    """
    if not isinstance(parts, Mapping) or 'train' not in parts or not set(parts) <= set(PARTS):
        returned = sorted(parts) if isinstance(parts, Mapping) else type(parts).__name__
        raise ConfigError(f"Data '{name}' returned {returned}, expected {_EXPECTED}.")
    checked = {part: _checked(f"Data '{name}'", part, parts[part]) for part in PARTS if part in parts}
    train = checked['train']
    for part, fields in checked.items():
        if set(train) != set(fields):
            raise ConfigError(
                f"Data '{name}': the training data has the fields {sorted(train)}, the {part} data {sorted(fields)}. "
                f'Expected the same of both; {sorted(set(train) ^ set(fields))} is in one alone.'
            )
        if resize or crop:
            fields['image'] = images.fit_all(f"Data '{name}'", fields.get('image'), resize, crop)
        for field, array in train.items():
            ours, theirs = ((a.dtype.name, a.shape[1:]) for a in (array, fields[field]))
            if ours != theirs:
                raise ConfigError(
                    f"Data '{name}': one example of field '{field}' is {ours[0]} {ours[1]} in the training data, {theirs[0]} "
                    f'{theirs[1]} in the {part} data. Expected the same of both.'
                )
    arrays = {field: Column(*(fields[field] for fields in checked.values())) for field in train}
    ends = np.cumsum([0, *(len(next(iter(fields.values()))) for fields in checked.values())]).tolist()
    return Store(
        name,
        arrays,
        {part: range(*ends[i : i + 2]) for i, part in enumerate(checked)},
        checksum(arrays),
        classes=max(int(part.max()) for part in arrays['label'].parts) + 1 if _is_class(arrays) else None,
        moments=_finite_moments(name, checked) if _is_image(arrays) else None,
        keys=pairs.keys(arrays[pairs.SOURCE][:]) if pairs.texts_in(arrays) else None,
    )


def _finite_moments(name: str, parts: Mapping[str, Mapping[str, np.ndarray]]) -> np.ndarray:
    """The moments of the images of all parts; refuses images that hold a NaN or an infinite value."""
    sums = {part: moments(fields['image']) for part, fields in parts.items()}
    for part, of_images in sums.items():
        if len(rows := np.flatnonzero(~np.isfinite(of_images).all((1, 2)))):
            raise ConfigError(
                f"Data '{name}': {len(rows)} of {len(of_images)} {part} images hold NaN or infinite values, the first is at "
                f'index {rows[0]}. Leave these out, or replace the values.'
            )
    return np.concatenate([*sums.values()])


def moments(pixels: np.ndarray) -> np.ndarray:
    """Per example the sum and the sum of squares of each channel, float64 [N, 2, C], exact for uint8 images [N, H, W, C].

    Stored with prepared data, they give the mean of any subset without reading an image.
    """
    sums = np.empty((len(pixels), 2, pixels.shape[-1]))
    for first in range(0, len(pixels), 1024):  # all at once float64 would take eight times the memory of the images
        some = pixels[first : first + 1024].astype(np.float64)
        sums[first : first + 1024, 0] = some.sum((1, 2))
        sums[first : first + 1024, 1] = (some**2).sum((1, 2))
    return sums


def checksum(arrays: Arrays) -> str:
    """SHA-256 of shapes, dtypes and content, the first 16 hexadecimal digits; of names too, unless they are image and label."""
    classic = set(arrays) == {'image', 'label'}  # hashed without names, as recorded in finished runs
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f'{"" if classic else repr(name)}{array.shape}{array.dtype.str}'.encode())
        for part in array.parts:
            digest.update(json.dumps(part.tolist()).encode() if part.dtype == object else np.ascontiguousarray(part).data)
    return digest.hexdigest()[:16]


def _is_class(arrays: Arrays) -> bool:
    return 'label' in arrays and len(arrays['label'].shape) == 1 and arrays['label'].dtype == np.int32


def _is_image(arrays: Arrays) -> bool:
    return 'image' in arrays and len(arrays['image'].shape) == 4 and arrays['image'].dtype in (np.uint8, np.float32)


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
    if 'pair' in given and 'text' not in given:
        raise ConfigError(f"{data}: '{part}' has a field 'pair' and no 'text', which it stands behind. Rename it to 'text'.")
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
    if name in TEXTS:
        return texts.checked(where, values)
    if name in pairs.SIDES and len(values) and isinstance(values[0], str):
        return pairs.checked(where, values)
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
