"""Tables of one's own by the names of their columns: numbers or image files, with classes, yes-or-no answers or numbers.

`data.label` names the target. A column of texts or whole numbers holds classes, one of floats numbers; 'price:number' reads
whole numbers as numbers too. Several names, 'a,b,c', are yes-or-no columns of 0 and 1.

`data.features` names columns of numbers, () all but the label and the group. `data.image` names a column of image files, paths
relative to the table's folder (research/data/image_files.py says how they are decoded and left out, and that their content
decides the cut; tables without images are cut by position). `data.group` names a column of groups.
"""

import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from research.catalogue import ConfigError, nearest
from research.data import arrays, folders, image_files, tables, texts
from research.data.dataset import Column, Store

if TYPE_CHECKING:
    import pyarrow

_NUMBER = ':number'
# A range of this share of the values is rounding of 64 bits; so many different values are enough of any column.
_ROUNDING, _FINE = 1e-13, 4096
_EXPECTED = (
    f'expected a table ({", ".join(tables.KINDS)}, or a folder as datasets saves it), or a folder with train.csv and test.csv.'
)


def load(config: Mapping[str, Any], whole: bool = False) -> Store:
    """The columns of the table `config['path']`: the fields 'features' float32 [N, F] or 'image', 'label' int32 or float32 [N]
    or 'labels' uint8 [N, K], and 'group' int32 [N].

    Args:
      config: `config.data`; reads `path`, `label`, `features`, `image`, `group`, `resize`, `crop` and `bad_files`.
      whole: see `image_files.decode`.

    Raises:
      ConfigError: no such table or column, values that are missing or of another kind, what `image_files.decode` refuses.
    """
    if not config['path']:
        raise ConfigError(f"data.name is 'table', and data.path is empty: {_EXPECTED}")
    given = pathlib.Path(config['path']).expanduser()
    files = tables.parts(given, _is_table, _EXPECTED)
    read = {part: tables.read(where) for part, where in files.items()}
    where = {part: str(file) for part, file in files.items()}
    target, names = _target(where, read, config['label'])
    group, groups = _groups(where, read, config['group'])
    beside = {part: {**target[part], **group[part]} for part in read}
    if config['image']:
        store = _with_images(given, files, read, beside, config, whole)
    else:
        chosen = _features(where['train'], read['train'], config)
        of_numbers = {part: _numbers(where[part], table, chosen, 'data.features') for part, table in read.items()}
        parts = {part: {'features': of_numbers[part], **fields} for part, fields in beside.items()}
        store = arrays.from_arrays('table', parts, config['resize'], config['crop'])
    if 'label' in store.arrays and store.classes is not None:
        folders.check_classes(f"'{given}'", names, store.arrays['label'][: store.parts['train'].stop])
        store = dataclasses.replace(store, classes=len(names))
    return dataclasses.replace(store, class_names=names, group_names=groups)


def _is_table(where: pathlib.Path) -> bool:
    return where.suffix in tables.KINDS if where.is_file() else any(where.glob('*.arrow'))


def _named(where: str, table: 'pyarrow.Table', name: str, field: str) -> Any:
    """A column, as pyarrow has it, without missing values; a blank text of a CSV is one."""
    if name not in table.column_names:
        raise ConfigError(f"{where} has no column '{name}'.{nearest(name, table.column_names)} {field} names it.")
    values = table[name]
    if values.null_count:
        _refuse(where, name, np.flatnonzero(values.is_null().to_numpy()), 'no value')
    if _kind(table, name) == 'text' and (blank := [row for row, text in enumerate(values.to_pylist()) if not text.strip()]):
        _refuse(where, name, np.array(blank), 'no value')
    return values


def _refuse(where: str, name: str, rows: np.ndarray, what: str) -> None:
    told = ', '.join(map(str, rows[:5].tolist())) + ', ...' * (len(rows) > 5)
    raise ConfigError(
        f"{where}: {len(rows)} rows have {what} in the column '{name}', counted from 0: {told}. Fill them, or leave them out."
    )


def _target(
    where: Mapping[str, str], read: Mapping[str, 'pyarrow.Table'], label: str
) -> tuple[dict[str, dict[str, np.ndarray]], tuple[str, ...]]:
    """(part -> field 'label' or 'labels'; names of the classes or of the yes-or-no columns)."""
    columns = read['train'].column_names
    label = label or 'label' * ('label' in columns)
    if not label:
        raise ConfigError(f"{where['train']} has no column 'label'. Set data.label to one of: {', '.join(columns)}.")
    names = _targets(columns, label)
    if len(names) > 1:
        return {part: {'labels': _answers(where[part], table, names)} for part, table in read.items()}, names
    if names[0] != label:
        return {part: {'label': _numbers(where[part], table, names, 'data.label')[:, 0]} for part, table in read.items()}, ()
    values = {part: _named(where[part], table, label, 'data.label').to_pylist() for part, table in read.items()}
    kind = next((type(value) for of_part in values.values() for value in of_part), None)
    if kind not in (str, int, float, bool):
        raise ConfigError(f"{where['train']}: the column '{label}' is of {kind}, expected texts, whole numbers or numbers.")
    numbers, names = texts.numbered(where['train'], values)
    for part in read if not names else ():
        _refuse_collapsed(where[part], label, np.array(values[part], np.float64))
    return {part: {'label': of_part} for part, of_part in numbers.items()}, names


def _targets(columns: Sequence[str], label: str) -> tuple[str, ...]:
    """The columns that `data.label` names."""
    if label in columns:
        return (label,)
    several = tuple(name.strip() for name in label.split(','))
    return several if len(several) > 1 else (label.removesuffix(_NUMBER),)


def _answers(where: str, table: 'pyarrow.Table', names: Sequence[str]) -> np.ndarray:
    """uint8 [N, K] of 0 and 1."""
    found = _numbers(where, table, names, 'data.label')
    for name, values in zip(names, found.T, strict=True):
        if len(rows := np.flatnonzero(~np.isin(values, (0, 1)))):
            _refuse(where, name, rows, 'neither 0 nor 1')
    return found.astype(np.uint8)


def _groups(
    where: Mapping[str, str], read: Mapping[str, 'pyarrow.Table'], name: str
) -> tuple[dict[str, dict[str, np.ndarray]], tuple[str, ...]]:
    """(part -> field 'group', {} without one; names of the groups of all parts, in their order)."""
    if not name:
        return {part: {} for part in read}, ()
    values = {part: _named(where[part], table, name, 'data.group').to_pylist() for part, table in read.items()}
    names = sorted(
        {value for of_part in values.values() for value in of_part}, key=lambda value: (isinstance(value, str), value)
    )
    number = {value: i for i, value in enumerate(names)}
    found = {part: {'group': np.array([number[v] for v in of_part], np.int32)} for part, of_part in values.items()}
    return found, tuple(map(str, names))


def _features(where: str, table: 'pyarrow.Table', config: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the columns of numbers, those of the config or all that are left."""
    targets = _targets(table.column_names, config['label'] or 'label')
    if config['features']:
        if told := [name for name in map(str, config['features']) if name in targets]:
            raise ConfigError(
                f"data.features has '{told[0]}', which data.label names too: a network would read what it is to predict. Leave "
                'it out of data.features.'
            )
        return tuple(map(str, config['features']))
    left = [name for name in table.column_names if name not in (*targets, config['group'])]
    for name in left:
        if _kind(table, name) != 'text' or len(bad := _not_numbers(table[name].to_pylist())) >= len(table) / 2:
            continue
        found = (
            f'be a column of numbers, but for {len(bad)} rows such as {bad[0]} (counted from 0). Mend them'
            if bad
            else ('be a column of numbers, but they are written as texts. Write them without quotes')
        )
        raise ConfigError(f"{where}: '{name}' would {found}, or set data.features to the columns that are meant.")
    chosen = tuple(name for name in left if _kind(table, name) == 'number')
    if not chosen:
        raise ConfigError(
            f'{where} has no column of numbers beside its label: its columns are {", ".join(table.column_names)}. Set '
            "data.image to a column of image files, or data.name to 'texts'."
        )
    return chosen


def _kind(table: 'pyarrow.Table', name: str) -> str:
    from pyarrow import types

    kind = table.schema.field(name).type
    if types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind) or types.is_decimal(kind):
        return 'number'
    return 'text' if types.is_string(kind) or types.is_large_string(kind) else 'other'


def _not_numbers(values: Sequence[Any]) -> list[int]:
    """Rows of texts that are no numbers."""
    bad = []
    for row, value in enumerate(values):
        try:
            float(value)
        except (TypeError, ValueError):
            bad.append(row)
    return bad


def _numbers(where: str, table: 'pyarrow.Table', names: Sequence[str], field: str) -> np.ndarray:
    """float32 [N, F], all finite."""
    columns = []
    for name in names:
        values = _named(where, table, name, field)
        if (kind := _kind(table, name)) != 'number' and (bad := _not_numbers(values.to_pylist())):
            _refuse(where, name, np.array(bad), 'no number')
        elif kind == 'other':
            _refuse(where, name, np.arange(len(table)), 'no number')
        given = values.to_numpy().astype(np.float64)
        columns.append(given.astype(np.float32))
        if len(rows := np.flatnonzero(~np.isfinite(columns[-1]))):
            _refuse(where, name, rows, 'no finite number')
        _refuse_collapsed(where, name, given)
    return np.stack(columns, 1)


def _refuse_collapsed(where: str, name: str, values: np.ndarray) -> None:
    """Raises ConfigError where most of the different values, float64 [N], are the same in float32.

    Neither for a column that is constant but for rounding, nor for one so dense that what is left is fine enough.
    """
    low, high = values.min(initial=np.inf), values.max(initial=-np.inf)
    if high - low <= _ROUNDING * max(abs(low), abs(high)):
        return
    different, left = len(np.unique(values)), len(np.unique(values.astype(np.float32)))
    if left < min(different / 2, _FINE):
        raise ConfigError(
            f"{where}: the column '{name}' has {different} different values from {low:g} to {high:g}, of which 32 bits leave "
            f'{left}. Subtract an offset first, such as {low:.17g}.'
        )


def _with_images(
    given: pathlib.Path,
    files: Mapping[str, pathlib.Path],
    read: Mapping[str, 'pyarrow.Table'],
    beside: Mapping[str, Mapping[str, np.ndarray]],
    config: Mapping[str, Any],
    whole: bool,
) -> Store:
    """The images of all parts, and what stands beside those that could be decoded."""
    if config['features']:
        raise ConfigError('data.image and data.features are both set: a network reads one of them, leave the other empty.')
    root, paths = given if given.is_dir() else given.parent, []
    for part, table in read.items():
        values = _named(str(files[part]), table, config['image'], 'data.image').to_pylist()
        if bad := [row for row, value in enumerate(values) if not isinstance(value, str) or not value.strip()]:
            _refuse(str(files[part]), config['image'], np.array(bad), 'no path of a file')
        folder = files[part] if files[part].is_dir() else files[part].parent
        paths += [os.path.relpath(folder / value, root) for value in values]
    found = image_files.decode(f"'{given}'", root, paths, config, whole)
    ends = np.cumsum([0, *map(len, read.values())])
    parts = dict(
        zip(read, (range(*np.searchsorted(found.rows, ends[i : i + 2]).tolist()) for i in range(len(read))), strict=True)
    )
    image_files.warn_of_copies(f"'{given}'", parts, found.keys)
    fields = {
        field: Column(np.concatenate([of_part[field] for of_part in beside.values()])[found.rows]) for field in beside['train']
    }
    checksum = image_files.checksum(found, fields)
    classes = 0 if 'label' in fields and fields['label'].dtype == np.int32 else None
    columns = {'image': Column(found.pixels), **fields}
    return Store('table', columns, parts, checksum, classes, found.moments, keys=found.keys)
