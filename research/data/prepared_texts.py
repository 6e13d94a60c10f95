"""Texts of TFDS's data sets: the columns that are read, and what is kept of them beside the records, one Parquet file."""

import json
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from research.catalogue import ConfigError, nearest
from research.data import arrays, dataset, images, texts

_OWN = "A function of your own, 'my_paper.data:load', can leave rows out."


def columns(features: Any, supervised: Any, config: Mapping[str, Any]) -> dict[str, str]:
    """Field of an example ('text', maybe 'pair' and 'label') -> its feature; {} of data that have images, or no texts.

    Args:
      features: of the builder; those at the top that are `Text`, and the classes and single numbers, can be columns.
      supervised: its `supervised_keys`, which say what is meant where the config does not.
      config: `config.data`; reads `name`, `text` ('text', its default, may be another column where there is one alone), `pair`,
        `label`, `resize` and `crop`.

    Raises:
      ConfigError: no such column, or several that may be meant.
    """
    of = dict(features.items()) if hasattr(features, 'items') else {}
    found = sorted(key for key, feature in of.items() if type(feature) is tfds.features.Text and not feature.shape)
    if not found or any(type(feature) is tfds.features.Image for feature in of.values()):
        return {}
    name, text, usual = config['name'], config['text'], [*(supervised or ())]
    if config['resize'] or config['crop']:
        images.fit_all(f"Data '{name}'", None, config['resize'], config['crop'])
    if text == 'text' and text not in found:
        text = next((key for key in usual[:1] if key in found), found[0] if len(found) == 1 else text)
    for field, column in (('text', text), ('pair', config['pair'])):
        if column and column not in found:
            raise ConfigError(
                f"'{name}' has no column of texts '{column}'.{nearest(column, found)} Set data.{field} to one of: "
                f'{", ".join(found)}.'
            )
    chosen = {'text': text, 'pair': config['pair'], 'label': _label(name, of, config['label'], usual[1:])}
    return {field: column for field, column in chosen.items() if column}


def _label(name: str, of: Mapping[str, Any], asked: str, usual: list[Any]) -> str:
    """The column of classes or numbers; '' for none."""
    classes = sorted(key for key, feature in of.items() if type(feature) is tfds.features.ClassLabel)
    numbers = {key for key, feature in of.items() if feature.shape == () and np.dtype(feature.np_dtype).kind in 'biuf'}
    valid = sorted(numbers)
    if asked:
        if asked not in valid:
            raise ConfigError(
                f"'{name}' has no column of classes or numbers '{asked}'.{nearest(asked, valid)} data.label names it; '' "
                'is the usual one.'
            )
        return asked
    if meant := [key for key in (*usual, 'label') if key in valid]:
        return meant[0]
    if len(classes) > 1:
        raise ConfigError(f"'{name}' has several columns of classes. Set data.label to one of: {', '.join(classes)}.")
    return classes[0] if classes else ''


def write(
    name: str, features: Any, records: Mapping[str, Iterable[Any]], named: Mapping[str, str], folder: pathlib.Path
) -> dict[str, Any]:
    """Writes `texts.parquet`: all parts end to end.

    Args:
      name: for messages.
      features: of the builder.
      records: part -> its examples.
      named: what `columns` returns.
      folder: is there.

    Returns:
      What `read` has to know beside the file.

    Raises:
      ConfigError: an empty text, bytes that are no UTF-8, a label that the training part has not.
    """
    import pyarrow
    from pyarrow import parquet

    parts = {part: {field: [] for field in named} for part in records}
    for part, examples in records.items():
        for example in examples:
            for field, key in named.items():
                parts[part][field].append(example[key])
    for part, fields in parts.items():
        for field in {*named} & {*dataset.TEXTS}:
            where = f"'{name}': '{named[field]}' of '{part}'"
            try:
                values = [value.decode() if isinstance(value, bytes) else value for value in fields[field]]
                fields[field] = texts.checked(where, values)
            except UnicodeDecodeError as error:
                raise ConfigError(f'{where} is no UTF-8: {error}. {_OWN}') from error
            except ConfigError as error:
                raise ConfigError(f'{error} {_OWN}') from error
    classes = _number(name, features[named['label']], parts) if 'label' in named else None
    read = {field: dataset.Column(*(fields[field] for fields in parts.values())) for field in named}
    table = {
        field: pyarrow.array(column[:], pyarrow.large_string() if field in dataset.TEXTS else None)
        for field, column in read.items()
    }
    parquet.write_table(pyarrow.table(table), folder / 'texts.parquet')
    sizes = {part: len(fields['text']) for part, fields in parts.items()}
    return {'parts': sizes, 'num_classes': classes, 'checksum': arrays.checksum(read)}


def _number(name: str, feature: Any, parts: Mapping[str, dict[str, Any]]) -> int | None:
    """Puts arrays in the place of labels; returns the number of classes, None of floats."""
    if type(feature) is tfds.features.ClassLabel:
        for fields in parts.values():
            fields['label'] = np.array(fields['label'], np.int32)
        return feature.num_classes
    given = {part: np.array(fields['label']).tolist() for part, fields in parts.items()}
    labels, _ = texts.numbered(f"'{name}'", given, hidden=-1)
    for part, fields in parts.items():
        fields['label'] = labels[part]
    return int(labels['train'].max()) + 1 if labels['train'].dtype == np.int32 else None


def read(folder: pathlib.Path, name: str) -> dataset.Store:
    """What `write` wrote, compared with its checksum.

    Raises:
      ValueError: which file is damaged.
    """
    import pyarrow
    from pyarrow import parquet

    try:
        content = json.loads((folder / 'content.json').read_text())
        sizes, classes, checksum = content['parts'], content['num_classes'], content['checksum']
        ends = np.cumsum([0, *sizes.values()]).tolist()
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f'content.json is damaged: {error}') from error
    parts = {part: range(*ends[i : i + 2]) for i, part in enumerate(sizes)}
    try:
        table = parquet.read_table(folder / 'texts.parquet')
        columns = {
            field: dataset.Column(*(table[field][rows.start : rows.stop].to_numpy() for rows in parts.values()))
            for field in table.column_names
        }
    except (OSError, ValueError, pyarrow.ArrowException) as error:
        raise ValueError(f'texts.parquet is damaged: {error}') from error
    if len(table) != ends[-1] or arrays.checksum(columns) != checksum:
        raise ValueError('texts.parquet is damaged: its content is another than was written')
    return dataset.Store(name, columns, parts, checksum, classes, None)
