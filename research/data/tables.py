"""Tables from files: TSV, CSV, JSONL, Parquet, and folders that Hugging Face's `datasets` has saved; where their parts lie."""

import pathlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from research.catalogue import ConfigError
from research.data.dataset import PARTS

if TYPE_CHECKING:  # imported where a table is read: 0.2 s
    import pyarrow


def parts(given: pathlib.Path, readable: Callable[[pathlib.Path], bool], expected: str) -> dict[str, pathlib.Path]:
    """Part -> its file or folder; a path that is one itself is the training part.

    Args:
      given: `data.path`.
      readable: whether a file or folder is a part.
      expected: end of the message where there is none.

    Raises:
      ConfigError: no training part, or two files of a part.
    """
    if given.is_file():
        return {'train': given}
    found: dict[str, pathlib.Path] = {}
    for part in PARTS:
        files = [where for where in (given / part, *sorted(given.glob(f'{part}.*'))) if readable(where)]
        if len(files) > 1:
            raise ConfigError(f"{given} has several '{part}': {', '.join(file.name for file in files)}. Leave one of them.")
        if files:
            found[part] = files[0]
    if not found and readable(given):
        return {'train': given}
    if 'train' not in found:
        raise ConfigError(f"data.path='{given}': {expected}")
    return found


def read(where: pathlib.Path) -> 'pyarrow.Table':
    """The table in a file, by its suffix, or in a folder of `.arrow` files.

    Raises:
      ConfigError: another kind of file, or a broken one.
    """
    import pyarrow

    try:
        return _saved(where) if where.is_dir() else KINDS[where.suffix](where)
    except KeyError as error:
        raise ConfigError(f"{where} ends in '{where.suffix}', expected {', '.join(KINDS)} or .txt.") from error
    except (pyarrow.ArrowException, OSError) as error:
        raise ConfigError(f'{where} cannot be read: {error}') from error


def _delimited(delimiter: str) -> Callable[[pathlib.Path], 'pyarrow.Table']:
    def read(where):
        from pyarrow import csv

        # A text of TSV may hold quotes; one of CSV is quoted where it holds commas or ends of lines.
        parse = csv.ParseOptions(delimiter=delimiter, quote_char=delimiter == ',' and '"', newlines_in_values=delimiter == ',')
        return csv.read_csv(where, parse_options=parse, convert_options=csv.ConvertOptions(strings_can_be_null=False))

    return read


def _lines(where: pathlib.Path) -> 'pyarrow.Table':
    from pyarrow import json

    return json.read_json(where)


def _parquet(where: pathlib.Path) -> 'pyarrow.Table':
    from pyarrow import parquet

    return parquet.read_table(where)


def _saved(where: pathlib.Path) -> 'pyarrow.Table':
    import pyarrow

    # `datasets` leaves what `map` and the like have made beside the data.
    files = [file for file in sorted(where.glob('*.arrow')) if not file.name.startswith('cache-')]
    return pyarrow.concat_tables(pyarrow.ipc.open_stream(file).read_all() for file in files)


KINDS: Mapping[str, Callable[[pathlib.Path], Any]] = {
    '.tsv': _delimited('\t'),
    '.csv': _delimited(','),
    '.jsonl': _lines,
    '.parquet': _parquet,
}
