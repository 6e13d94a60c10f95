"""Texts from files: lines of a `.txt`, folders of `.txt` by class, tables (TSV, CSV, JSONL, Parquet), what `datasets` saves.

A path is a file, which is the training part, or a folder with a file or a folder for each part: `train.tsv`, `test.tsv`,
`validation.tsv`, or `train/`, `test/`, `validation/`, each with a folder of `.txt` files a class, or as `datasets` saves it. A
`.txt` file, or a folder of them and of nothing else, has no classes: each line with a word in it is a text. For
`data.pair='next'` lines 1 and 2, 3 and 4 and so on of a document are pairs; a blank line ends it, as the file's end does. A
table's columns may be words and their tags, or questions, contexts and answers too, see research/data/spans.py.
"""

import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from research.catalogue import ConfigError, nearest
from research.data import spans, tables

if TYPE_CHECKING:  # imported where a table is read: 0.2 s
    import pyarrow


def load(
    path: str, text: str, pair: str, label: str, group: str = ''
) -> tuple[dict[str, dict[str, Any]], tuple[str, ...], tuple[str, ...]]:
    """(part -> {'text': N texts, 'pair': N texts where a column is named, 'label': int32 [N], float32 of a column of floats,
    'group': int32 [N] where a column is named}; names of the classes, of the groups, () where there are none).

    Of pairs of lines 'document', int32 [N], too. Columns of words and tags, and of answers, are as of `spans.read`.

    Classes are the labels of the training part, in the order of their names or numbers.

    Args:
      path: see above.
      text, pair: columns of a table; `pair` '' for none, and 'next' of a `.txt`. A folder by class has no columns.
      label: the column of classes or numbers; '' for 'label', if there is one.
      group: the column of groups, by name or number; '' for none.

    Raises:
      ConfigError: no such files or columns, rows without a text or a label, bytes that are no UTF-8, a class that training has
        not, and a number that is not finite.
    """
    if not path:
        raise ConfigError("data.name is 'texts', and data.path is empty: expected a file or a folder.")
    given = pathlib.Path(path).expanduser()
    files = tables.parts(
        given,
        _readable,
        f'expected a file ({", ".join(tables.KINDS)}, .txt), or a folder with train.tsv (and test.tsv), with train/ '
        '(and test/), or with a folder of .txt files for each class.',
    )
    read = {part: _read(where, text, pair, label, group) for part, where in files.items()}
    if not group:
        return *_with_classes(given, read), ()
    grouped = {part: table.pop('group') for part, table in read.items()}
    names = sorted({str(name) for of_part in grouped.values() for name in of_part})
    parts, classes = _with_classes(given, read)
    for part, of_part in grouped.items():
        parts[part]['group'] = np.array([names.index(str(name)) for name in of_part], np.int32)
    return parts, classes, tuple(names)


def _with_classes(given: pathlib.Path, read: dict[str, dict[str, Any]]) -> tuple[dict[str, dict[str, Any]], tuple[str, ...]]:
    """Parts with numbers in the place of labels, and the names of the classes."""
    if marked := spans.read(str(given), read, numbered):
        return marked
    if bare := [part for part, table in read.items() if 'label' not in table]:
        if len(bare) < len(read):
            raise ConfigError(f'{given}: the {bare[0]} part has no labels, and another has: give them to all, or to none.')
        return read, ()
    numbers, names = numbered(str(given), {part: table['label'] for part, table in read.items()})
    return {part: {**table, 'label': numbers[part]} for part, table in read.items()}, names


def numbered(
    where: str, labels: Mapping[str, Sequence[Any]], hidden: Any = None
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """(part -> float32 [N] of labels that are floats, else int32 [N], classes in the order of their names or numbers; these
    names, () of floats).

    Args:
      where: messages begin with it.
      labels: part -> N names or numbers; the training part has all classes.
      hidden: what stands for a label that is not told, where it is no class; it becomes -1.

    Raises:
      ConfigError: a class that training has not, and a number that is not finite.
    """
    kinds = {type(value) for values in labels.values() for value in values}
    if float in kinds and kinds <= {float, int}:
        found = {part: np.array(values, np.float32) for part, values in labels.items()}
        for part, values in found.items():
            if bad := np.flatnonzero(~np.isfinite(values)).tolist():
                raise ConfigError(
                    f'{where}: {len(bad)} labels of the {part} part are no finite numbers, the first is at row {bad[0]}. Leave '
                    'their rows out.'
                )
        return found, ()
    names = sorted({*labels['train']}, key=lambda name: (isinstance(name, str), name))
    numbers = {hidden: -1} | {name: number for number, name in enumerate(names)}
    for part, values in labels.items():
        if unseen := sorted({str(name) for name in values if name not in numbers}):
            raise ConfigError(
                f"{where}: the {part} part has {len(unseen)} labels that the training part has not, such as '{unseen[0]}': no "
                'network can learn them. Leave their rows out, or move some into the training part.'
            )
    found = {part: np.array([numbers[name] for name in values], np.int32) for part, values in labels.items()}
    return found, tuple(map(str, names))


def _readable(where: pathlib.Path) -> bool:
    if where.is_file():
        return where.suffix in (*tables.KINDS, '.txt')
    return any(map(any, map(where.glob, ('*.arrow', '*.txt', '*/*.txt'))))


def _read(where: pathlib.Path, text: str, pair: str, label: str, group: str) -> dict[str, Any]:
    bare = where.suffix == '.txt' or where.is_dir() and not any(where.glob('*.arrow'))
    if group and bare:
        raise ConfigError(f"{where} has texts and no columns: expected data.group '', not '{group}'.")
    if where.is_dir() and not any(where.glob('*.arrow')):
        if files := sorted(where.glob('*.txt')):
            return _lines_of(files, pair, label)
        files = sorted(where.glob('*/*.txt'))
        if pair:
            raise ConfigError(f"{where} has folders by class, no columns: expected data.pair '', not '{pair}'.")
        return {'text': [_decoded(file) for file in files], 'label': [file.parent.name for file in files]}
    if where.suffix == '.txt':
        return _lines_of([where], pair, label)
    table = tables.read(where)
    named = {'text': text, 'pair': pair, 'label': label or 'label' * ('label' in table.column_names), 'group': group}
    return {field: _column(where, table, name, field) for field, name in named.items() if name}


def _decoded(file: pathlib.Path) -> str:
    try:
        return file.read_text('utf-8')
    except UnicodeDecodeError as error:
        raise ConfigError(f'{file} is no UTF-8: {error.reason} at byte {error.start}. Convert it, or leave it out.') from error


def _lines_of(files: Sequence[pathlib.Path], pair: str, label: str) -> dict[str, Any]:
    if pair not in ('', 'next') or label:
        raise ConfigError(
            f"{files[0]} has lines, no columns: expected data.label '', and data.pair '' or 'next', not '{label}' and '{pair}'."
        )
    blocks = [block for file in files for block in re.split(r'\n\s*\n', _decoded(file))]
    documents = [[line for line in block.splitlines() if line.strip()] for block in blocks]
    if not pair:
        return {'text': [line for lines in documents for line in lines]}
    # No line is in two pairs: one would be in training, the other in a test.
    pairs = [(*two, number) for number, lines in enumerate(documents) for two in zip(lines[::2], lines[1::2], strict=False)]
    if not pairs:
        raise ConfigError(f"{files[0]}: data.pair is 'next', and no document has two lines; a blank line ends a document.")
    first, second, numbers = zip(*pairs, strict=True)
    return {'text': first, 'pair': second, 'document': np.array(numbers, np.int32)}


def _column(where: pathlib.Path, table: 'pyarrow.Table', name: str, field: str) -> list[Any]:
    if name not in table.column_names:
        raise ConfigError(
            f"{where} has no column '{name}'.{nearest(name, table.column_names)} data.text, data.pair, data.label and "
            'data.group name them.'
        )
    values = table[name].to_pylist()
    blank = field in ('label', 'group')  # an empty cell of a TSV is no class
    if missing := [
        row for row, value in enumerate(values) if value is None or blank and isinstance(value, str) and not value.strip()
    ]:
        raise ConfigError(f"{where}: {len(missing)} rows have no '{name}', the first is row {missing[0]}. Leave them out.")
    return values


def checked(where: str, texts: Sequence[Any]) -> np.ndarray:
    """Texts as an array of str [N]; messages begin with `where`.

    Raises:
      ConfigError: no texts, something else than a text, or an empty one.
    """
    if isinstance(texts, str) or not len(texts):
        raise ConfigError(f'{where} is {f"one text, {texts!r:.40}" if texts else "empty"}: expected a list of texts.')
    for row, text in enumerate(texts):
        if not isinstance(text, str) or not text.strip():
            what = 'empty' if isinstance(text, str) else f'a {type(text).__name__}'
            raise ConfigError(f'{where} is {what} at row {row}, expected a text: leave such rows out.')
    return np.array(texts, object)
