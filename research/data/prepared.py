"""Data sets that TFDS finds, prepares and versions, without TensorFlow.

They are prepared once, under `TFDS_DATA_DIR` or `~/tensorflow_datasets`: TFDS's records, and all examples decoded, because
decoding 70,000 PNG files takes ten seconds per launch.
"""

import contextlib
import dataclasses
import fcntl
import io
import json
import os
import pathlib
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import PIL.Image
import tensorflow_datasets as tfds

from research.catalogue import ConfigError, nearest
from research.data import dataset, idx, without_tensorflow

# Where a system package may have put idx files.
_IDX_FOLDERS = {'fashion_mnist': '/usr/share/datasets/fashion-mnist', 'mnist': '/usr/share/datasets/mnist'}

_MODES = {1: 'L', 3: 'RGB', 4: 'RGBA'}

_ELSE = (
    'Prepare it where it can be (`--prepare`) and copy TFDS_DATA_DIR here, or name a function of your own, '
    "'my_paper.data:load'."
)


@dataclasses.dataclass(frozen=True)
class Records:
    """TFDS's records as a source: an example is decoded when it is read, {'image': uint8 [H, W, C], 'label': int32 []}.

    Attributes:
      parts: TFDS's data sources of training and test data, with encoded images.
      image, label: names of the features.
      mode: Pillow's name for the channels.
      num_classes: number of classes.
    """

    parts: tuple[Sequence[Mapping[str, Any]], ...]
    image: str
    label: str
    mode: str
    num_classes: int

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        for part in self.parts:
            if index < len(part):
                break
            index -= len(part)
        example = part[index]
        image = np.asarray(PIL.Image.open(io.BytesIO(example[self.image])).convert(self.mode))
        return {'image': image[..., None] if image.ndim == 2 else image, 'label': np.int32(example[self.label])}


def load(name: str, path: str, cut: Mapping[str, Any], beside: Iterable[str] = ()) -> dataset.Dataset:
    """A data set by TFDS's name, prepared first if it is not; see `research.data.sources.load`.

    Args:
      name: in TFDS's catalogue, maybe with its config (`emnist/balanced`).
      path: folder with files that the user provides: the four idx files of `mnist` or `fashion_mnist`, or TFDS's manual
        downloads. Empty: the system's idx files, else a download.
      cut: see `research.data.order.split`.
      beside: names of other data that the user may have meant.

    Raises:
      ConfigError: see `research.data.sources.load`.
    """
    path = os.path.expanduser(path)
    builder = _find(name, path, beside)
    version = pathlib.Path(builder.data_dir)
    decoded = version / 'decoded'
    if not decoded.exists():
        with _alone(pathlib.Path(_data_dir()) / f'.{name.replace("/", "_")}.lock'):
            if not decoded.exists():  # unless another process has prepared it meanwhile
                _generate(builder, name, path)
                _decode(_records(version, name), name, decoded)
    content = json.loads((decoded / 'content.json').read_text())
    arrays = {field: np.load(decoded / f'{field}.npy', mmap_mode='r') for field in ('image', 'label')}
    records = _records(version, name)
    return dataset.assemble(
        name,
        records,
        arrays,
        dataset.splits(content['train'], len(records), cut),
        content['checksum'],
        classes=content['num_classes'],
        sums=np.load(decoded / 'moments.npy'),
    )


def _data_dir() -> str:
    return os.path.expanduser(os.environ.get('TFDS_DATA_DIR') or '~/tensorflow_datasets')


def _find(name: str, path: str, beside: Iterable[str]) -> tfds.core.DatasetBuilder:
    """The builder behind a name; its `data_dir` differs by version and content."""
    if path and not pathlib.Path(path).is_dir():
        raise ConfigError(f"data.path='{path}' is not a folder. Expected one with the files of '{name}'.")
    if name in _IDX_FOLDERS:
        parts = idx.find(pathlib.Path(path or _IDX_FOLDERS[name]))
        if parts:
            return idx.Builder(name, parts, _data_dir())
        if path:
            names = [name for pair in idx.FILES.values() for name in pair]
            raise ConfigError(f"data.path='{path}' holds none of {', '.join(names)} (or the same with .gz).")
    try:
        return tfds.builder(name, data_dir=_data_dir(), file_format='array_record')
    except tfds.core.registered.DatasetNotFoundError as error:
        raise ConfigError(
            f"Unknown data '{name}'.{nearest(name, {*beside, *tfds.core.registered.list_imported_builders()})} "
            "A function of your own goes by its import path, 'my_paper.data:load'."
        ) from error
    except (ValueError, ImportError) as error:
        raise ConfigError(f"TFDS cannot build '{name}': {error}. {_ELSE}") from error


def _generate(builder: tfds.core.DatasetBuilder, name: str, path: str) -> None:
    """TFDS's own preparation, which writes to a temporary folder and renames it."""
    try:
        with without_tensorflow.standing_in(builder):
            builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=path or None))
    except ConfigError:
        raise
    except Exception as error:  # code of a data set may raise anything; the message adds its name and what to do
        files = 'Put its four idx files into a folder and name it as data.path. ' if name in _IDX_FOLDERS else ''
        raise ConfigError(f"TFDS could not prepare '{name}' here: {type(error).__name__}: {error}. {files}{_ELSE}") from error


def _records(version: pathlib.Path, name: str) -> Records:
    """Reads a prepared version from its folder alone, so that reader processes need nothing else."""
    builder = tfds.builder_from_directory(version)
    features = builder.info.features
    image, label = builder.info.supervised_keys or ('image', 'label')
    kinds = [type(features[key]) for key in (image, label) if key in features]
    if kinds != [tfds.features.Image, tfds.features.ClassLabel] or features[image].np_dtype != np.uint8:
        raise ConfigError(f"'{name}' is not a classification of uint8 images; its features are {features}. {_ELSE}")
    splits = ['train', 'test' if 'test' in builder.info.splits else 'validation']
    if not set(splits) <= set(builder.info.splits):
        raise ConfigError(f"'{name}' has the splits {sorted(builder.info.splits)}, expected 'train' and 'test'. {_ELSE}")
    try:
        parts = tuple(builder.as_data_source(split, decoders={image: tfds.decode.SkipDecoding()}) for split in splits)
    except NotImplementedError as error:
        raise ConfigError(
            f"'{name}' is stored in {version} in a format that needs TensorFlow. Remove it and prepare it "
            'again, or set another TFDS_DATA_DIR.'
        ) from error
    return Records(parts, image, label, _MODES[features[image].shape[-1]], features[label].num_classes)


def _decode(records: Records, name: str, folder: pathlib.Path) -> None:
    """Decodes every example once into a temporary folder, then renames it to `folder`."""
    aside = folder.with_name('decoded.incomplete')
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    first = records[0]['image']
    images = np.lib.format.open_memmap(aside / 'image.npy', 'w+', first.dtype, (len(records), *first.shape))
    labels = np.empty(len(records), np.int32)
    for index in range(len(records)):
        example = records[index]
        if example['image'].shape != first.shape:
            raise ConfigError(
                f"'{name}' has images of {first.shape} and of {example['image'].shape}, expected one size. {_ELSE}"
            )
        images[index], labels[index] = example['image'], example['label']
    images.flush()
    np.save(aside / 'label.npy', labels)
    np.save(aside / 'moments.npy', dataset.moments(images))
    (aside / 'content.json').write_text(
        json.dumps(
            {
                'train': len(records.parts[0]),
                'num_classes': records.num_classes,
                'checksum': dataset.checksum({'image': images, 'label': labels}),
            }
        )
    )
    aside.rename(folder)


@contextlib.contextmanager
def _alone(lock: pathlib.Path) -> Iterator[None]:
    """One process at a time; the kernel frees the lock of one that dies."""
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        file = lock.open('w')
    except OSError as error:
        raise ConfigError(f'Cannot write {lock}: {error}. Set TFDS_DATA_DIR to a folder that can be written.') from error
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
