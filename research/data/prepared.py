"""Data sets that TFDS finds, prepares and versions, without TensorFlow.

They are prepared once, under `TFDS_DATA_DIR` or `~/tensorflow_datasets`: TFDS's records, and all examples decoded beside them,
because decoding 70,000 PNG files takes ten seconds per launch. Training reads the decoded arrays alone, memory-mapped. Of texts
`prepared_texts` has the rest.
"""

import contextlib
import importlib
import io
import os
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import PIL.Image
import tensorflow_datasets as tfds

from research.catalogue import ConfigError, nearest
from research.data import arrays, dataset, decoded, idx, images, prepared_texts, without_tensorflow

# Where a system package may have put idx files.
_IDX_FOLDERS = {'fashion_mnist': '/usr/share/datasets/fashion-mnist', 'mnist': '/usr/share/datasets/mnist'}

_MODES = {1: 'L', 3: 'RGB', 4: 'RGBA'}

_ELSE = (
    'Prepare it where it can be (`--prepare`) and copy TFDS_DATA_DIR here, or name a function of your own, '
    "'my_paper.data:load'."
)

# TFDS imports its older builders group by group, up to the first that lacks a package (h5py); these come behind it.
_GROUPS = ('question_answering', 'summarization', 'text', 'text_simplification', 'translate')


def load(config: Mapping[str, Any], beside: Iterable[str] = (), whole: bool = False) -> dataset.Store:
    """A source by TFDS's name, prepared first if it is not; see `research.data.sources.load`.

    Args:
      config: `config.data`; reads `name` (in TFDS's catalogue, maybe with its config: `emnist/balanced`), `path` (folder with
        files that the user provides: the four idx files of `mnist` or `fashion_mnist`, or TFDS's manual downloads; empty: the
        system's idx files, else a download), `label`, `resize` and `crop`, and of texts `text` and `pair`.
      beside: names of other data that the user may have meant.
      whole: compare the checksum of everything, not of a sample; of texts everything is compared anyway.

    Raises:
      ConfigError: see `research.data.sources.load`.
    """
    name, path = config['name'], os.path.expanduser(config['path'])
    builder = _find(name, path, beside)
    version = pathlib.Path(builder.data_dir)
    texts = prepared_texts.columns(builder.info.features, builder.info.supervised_keys, config)
    told = texts or {field: config[field] for field in ('label', 'resize', 'crop')}
    folder = version / '-'.join(['decoded', *(f'{field}={value}' for field, value in told.items() if value)])
    if not folder.exists():
        with decoded.alone(decoded.home() / f'.{name.replace("/", "_")}.lock'):
            if not folder.exists():  # unless another process has prepared it meanwhile
                _generate(builder, name, path)
                _decode(version, config, texts, folder)
    return _read_texts(folder, name) if texts else _read(folder, name, whole)


def _find(name: str, path: str, beside: Iterable[str]) -> tfds.core.DatasetBuilder:
    """The builder behind a name; its `data_dir` differs by version and content."""
    if path and not pathlib.Path(path).is_dir():
        raise ConfigError(f"data.path='{path}' is not a folder. Expected one with the files of '{name}'.")
    if name in _IDX_FOLDERS:
        parts = idx.find(pathlib.Path(path or _IDX_FOLDERS[name]))
        if parts:
            return idx.Builder(name, parts, str(decoded.home()))
        if path:
            names = [name for pair in idx.FILES.values() for name in pair]
            raise ConfigError(f"data.path='{path}' holds none of {', '.join(names)} (or the same with .gz).")
    for group in _GROUPS:
        with contextlib.suppress(ImportError):
            importlib.import_module(f'tensorflow_datasets.{group}')
    try:
        return tfds.builder(name, data_dir=str(decoded.home()), file_format='array_record')
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


def _decode(version: pathlib.Path, config: Mapping[str, Any], texts: Mapping[str, str], folder: pathlib.Path) -> None:
    """Decodes every example of a prepared version once into a temporary folder, then renames it to `folder`."""
    name = config['name']
    builder = tfds.builder_from_directory(version)
    image, label = ('', '') if texts else _columns(builder.info, name, config['label'])
    parts = [part for part in dataset.PARTS if part in builder.info.splits]
    if 'train' not in parts:
        raise ConfigError(f"'{name}' has the splits {sorted(builder.info.splits)}, expected 'train' among them. {_ELSE}")
    decoders = None if texts else {image: tfds.decode.SkipDecoding()}
    try:
        records = {part: builder.as_data_source(part, decoders=decoders) for part in parts}
    except NotImplementedError as error:
        raise ConfigError(
            f"'{name}' is stored in {version} in a format that needs TensorFlow. Remove it and prepare it "
            'again, or set another TFDS_DATA_DIR.'
        ) from error

    def fill(aside: pathlib.Path) -> dict[str, Any]:
        if texts:
            return prepared_texts.write(name, builder.info.features, records, texts, aside)
        return _write_images(builder.info.features, records, image, label, config, aside)

    decoded.write(folder, fill)


def _write_images(
    features: Any, records: Mapping[str, Any], image: str, label: str, config: Mapping[str, Any], folder: pathlib.Path
) -> dict[str, Any]:
    """Images and labels of all parts, end to end; returns what `_read` has to know beside them."""
    name, mode, count = config['name'], _MODES[features[image].shape[-1]], sum(map(len, records.values()))
    pixels, labels = None, np.empty(count, np.int32)
    for index, example in enumerate(example for of_part in records.values() for example in of_part):
        try:
            fitted = images.fit(PIL.Image.open(io.BytesIO(example[image])).convert(mode), config['resize'], config['crop'])
        except ValueError as error:
            raise ConfigError(f"'{name}': {error}. Set data.resize, or a smaller data.crop.") from error
        array = np.asarray(fitted).reshape(fitted.height, fitted.width, -1)
        if pixels is None:
            pixels = np.lib.format.open_memmap(folder / 'image.npy', 'w+', array.dtype, (count, *array.shape))
        if array.shape != pixels.shape[1:]:
            raise ConfigError(
                f"'{name}' has images of {pixels.shape[1:]} and of {array.shape}, expected one size. Set data.resize, the "
                'shorter side after antialiasing, and data.crop, the side of the square that is kept.'
            )
        pixels[index], labels[index] = array, example[label]
    pixels.flush()
    np.save(folder / 'label.npy', labels)
    np.save(folder / 'moments.npy', arrays.moments(pixels))
    return {
        'train': len(records['train']),  # all that older versions wrote, and read
        'parts': {part: len(of_part) for part, of_part in records.items()},
        'num_classes': features[label].num_classes,
        'checksum': arrays.checksum({'image': dataset.Column(pixels), 'label': dataset.Column(labels)}),
    }


def _columns(info: tfds.core.DatasetInfo, name: str, label: str) -> tuple[str, str]:
    """The names of the image and the label among the features; `label` is the user's choice, or ''."""
    kinds = {key: type(feature) for key, feature in info.features.items()} if hasattr(info.features, 'items') else {}
    image, usual = info.supervised_keys or ('image', 'label')
    if kinds.get(image) != tfds.features.Image or info.features[image].np_dtype != np.uint8:
        raise ConfigError(
            f"'{name}' is neither texts nor a classification of uint8 images; its features are {info.features}. {_ELSE}"
        )
    classes, label = sorted(key for key, kind in kinds.items() if kind == tfds.features.ClassLabel), label or usual
    if not classes:
        raise ConfigError(f"'{name}' has no column of classes; its features are {info.features}. {_ELSE}")
    if label not in classes:
        raise ConfigError(f"'{name}' has no column of classes '{label}'. Set data.label to one of: {', '.join(classes)}.")
    return image, label


def _read_texts(folder: pathlib.Path, name: str) -> dataset.Store:
    try:
        return prepared_texts.read(folder, name)
    except ValueError as error:
        raise decoded.damaged(folder, name, str(error)) from error


def _read(folder: pathlib.Path, name: str, whole: bool) -> dataset.Store:
    """What `_decode` wrote, memory-mapped and compared with what it noted."""
    content, read = decoded.read(folder, name, ('image', 'label', 'moments'))
    count, sums = len(read['label']), np.asarray(read.pop('moments'))
    try:
        sizes = content.get('parts') or {'train': content['train'], 'test': count - content['train']}
        ends = np.cumsum([0, *sizes.values()]).tolist()
        classes = content['num_classes']
    except (KeyError, TypeError, AttributeError) as error:
        raise decoded.damaged(folder, name, f'content.json is damaged: {error}') from error
    if count != ends[-1]:
        raise decoded.damaged(folder, name, 'label.npy holds another number of examples than were written')
    columns = {field: dataset.Column(array) for field, array in read.items()}
    if whole and arrays.checksum(columns) != content['checksum']:
        raise decoded.damaged(folder, name, 'image.npy or label.npy is damaged: its content is another than was written')
    parts = {part: range(*ends[i : i + 2]) for i, part in enumerate(sizes)}
    return dataset.Store(name, columns, parts, content['checksum'], classes, sums)
