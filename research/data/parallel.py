"""Parallel texts: sentences and their translations, from tables, line by line, translation memories and message catalogues.

`data.text` names the source side and `data.pair` the target side, by column or language. `data.path` is

| | with | sides |
|---|---|---|
| `pairs.tsv`, or a folder with `train.tsv`, `test.tsv` | .tsv, .csv, .jsonl, .parquet, or what `datasets` saves | columns |
| a folder with `train.en`, `train.de`, `test.en`, `test.de` | a sentence a line, the n-th of both a pair | ends of the names |
| `memory.tmx`, or a folder with `train.tmx`, `test.tmx` | translation units of TMX | languages; 'de' takes 'de-DE' too |
| any other folder | `.mo` and `.po` of gettext, at any depth | English, or what programs have; the translation's language |

Each side is a text without ends of lines: white space becomes one space. Without a test part `data.test` cuts by a hash of the
source sentence, so that equal sources stay on one side and a pair stays where it is when others are added.

English and German from Debian's packages, 79,888 pairs:

    for p in libreoffice-l10n-de gcc-12-locales inkscape gimp-data digikam-data freeciv-data; do
      apt-get download $p && dpkg-deb -x ${p}_*.deb catalogues
    done

and 189,459 with krita-l10n, gnucash-common, kstars-data, marble-data, evolution-common, vlc-l10n, wesnoth-1.16-data, scribus,
darktable, git, gettext, lyx-common, okular, abiword-common, gnumeric-common, audacity-data, hugin-data, anjuta-common, apt,
aptitude-common, bash, bash-doc, binutils-common, coreutils, diffutils, dpkg, e2fsprogs, findutils, gedit-common, glade,
gnome-control-center-data, gnupg-l10n, grep, grisbi-common, gthumb-data, libglib2.0-data, libgtk-3-common, libgtk2.0-common,
nautilus-data, pidgin-data, rawtherapee-data, rhythmbox-data, sed, synaptic, tar, totem-common, util-linux-locales,
vim-runtime and wget;

with {'data.name': 'parallel', 'data.path': 'catalogues', 'data.text': 'en', 'data.pair': 'de', 'data.test': 0.05}.
"""

import itertools
import pathlib
import xml.etree.ElementTree as ET
from typing import Any

from research.catalogue import ConfigError, nearest
from research.data import catalogues, tables
from research.data.dataset import PARTS
from research.data.pairs import SIDES, SOURCE, TARGET

# Elements of TMX that hold the markup of the document that was translated.
_NATIVE = ('bpt', 'ept', 'it', 'ph', 'ut', 'sub')
_LANG = '{http://www.w3.org/XML/1998/namespace}lang'


def load(path: str, text: str, pair: str) -> dict[str, dict[str, Any]]:
    """part -> {'source': N texts, 'target': N texts}.

    Args:
      path, text, pair: of `config.data`, see above.

    Raises:
      ConfigError: no such files, columns or languages, sides of unequal length, a file that is torn.
    """
    if not path or not pair or text == pair:
        raise ConfigError(
            f"data.name is 'parallel', with data.path '{path}', data.text '{text}' and data.pair '{pair}': expected a file or "
            "a folder, and the columns or languages of the source and of the target, such as 'en' and 'de'."
        )
    given = pathlib.Path(path).expanduser()
    by_line = {part: [given / f'{part}.{side}' for side in (text, pair)] for part in PARTS}
    if any(map(pathlib.Path.is_file, by_line['train'])):
        return {part: _lines(files) for part, files in by_line.items() if any(map(pathlib.Path.is_file, files))}
    tables_there = any(map(_readable, (given, *given.glob('train.*'), given / 'train')))
    if not tables_there and (found := catalogues.files(given)):
        return {'train': dict(zip(SIDES, catalogues.read(found, pair), strict=True))}
    ends = sorted(file.suffix[1:] for file in given.glob('train.*'))
    files = tables.parts(
        given,
        _readable,
        f'expected train.{text} and train.{pair}, a table ({", ".join(tables.KINDS)}) or .tmx, or a folder with train.tsv (and '
        f'test.tsv) or with catalogues (.mo, .po). It has {", ".join(f"train.{end}" for end in ends) or "none of them"}.'
        f'{nearest(pair, ends) if ends else ""}',
    )
    return {
        part: _units(where, text, pair) if where.suffix == '.tmx' else _columns(where, text, pair)
        for part, where in files.items()
    }


def _readable(where: pathlib.Path) -> bool:
    return where.is_dir() and any(where.glob('*.arrow')) or where.is_file() and where.suffix in (*tables.KINDS, '.tmx')


def _lines(files: list[pathlib.Path]) -> dict[str, list[str]]:
    sides = []
    for file in files:
        if not file.is_file():
            others = sorted(other.name for other in file.parent.glob(f'{file.stem}.*'))
            raise ConfigError(f"{file.parent} has no '{file.name}', only {', '.join(others)}.{nearest(file.name, others)}")
        try:
            sides.append(file.read_text('utf-8').removesuffix('\n').split('\n'))  # by no other sign that a text may hold
        except UnicodeDecodeError as error:
            raise ConfigError(f'{file} is no UTF-8: {error.reason} at byte {error.start}. Convert it.') from error
    counts = [*map(len, sides)]
    if counts[0] != counts[1]:
        raise ConfigError(
            f'{files[0]} has {counts[0]} lines, and {files[1].name} has {counts[1]}: expected as many, the n-th of both a pair.'
        )
    return dict(zip(SIDES, sides, strict=True))


def _columns(where: pathlib.Path, text: str, pair: str) -> dict[str, list[str]]:
    table, sides = tables.read(where), {}
    for side, name in ((SOURCE, text), (TARGET, pair)):
        if name not in table.column_names:
            raise ConfigError(
                f"{where} has no column '{name}' for the {side}.{nearest(name, table.column_names)} data.text "
                'names the source, data.pair the target.'
            )
        sides[side] = ['' if value is None else value for value in table[name].to_pylist()]
    return sides


def _units(where: pathlib.Path, text: str, pair: str) -> dict[str, list[str]]:
    sides: dict[str, list[str]] = {SOURCE: [], TARGET: []}
    seen: set[str] = set()
    try:
        for _, unit in ET.iterparse(where):
            if _plain(unit) != 'tu':
                continue
            said = {
                version.get(_LANG, version.get('lang', '')): _said(segment)
                for version in unit
                for segment in version
                if _plain(segment) == 'seg'
            }
            seen |= {*said}
            found = [sorted(catalogues.matching(language, said)) for language in (text, pair)]
            if all(found):
                for side, names in zip(SIDES, found, strict=True):
                    sides[side].append(said[names[0]])
            unit.clear()  # or the whole file would be in memory
    except ET.ParseError as error:
        raise ConfigError(f'{where} is torn, or no TMX: {error}. Fetch it again.') from error
    for language in (text, pair):
        if not catalogues.matching(language, seen):
            raise ConfigError(f"{where} has no '{language}', only {', '.join(sorted(seen))}.{nearest(language, seen)}")
    if not sides[SOURCE]:
        raise ConfigError(f"{where} has no unit with both '{text}' and '{pair}'.")
    return sides


def _plain(element: ET.Element) -> str:
    """The name of an element without its namespace."""
    return element.tag.rpartition('}')[2]


def _said(segment: ET.Element) -> str:
    """The text of a segment without the markup of its document."""
    inside = ((_said(part) if _plain(part) not in _NATIVE else '', part.tail or '') for part in segment)
    return ''.join([segment.text or '', *itertools.chain.from_iterable(inside)])
