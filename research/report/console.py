"""Columns that fit the terminal, and text for terminals that know few characters. Importing this costs nothing but rich."""

import codecs
import io
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions
from rich.text import Text

# What stands for a character that the output's encoding lacks.
_SPELT = {'−': '-', '–': '-', '×': 'x', '±': '+/-', '∞': 'inf', 'µ': 'u', '…': '..'} | dict(
    zip('▁▂▃▄▅▆▇█', '.:-=+*#@', strict=True)
)
_GAP = '  '
# A name is shortened to this many characters before a column is left out for it.
_NAME = 20


class Column(NamedTuple):
    """A heading; of the columns that do not fit, the last in `rank` go first. The first column, the names, always stays."""

    heading: str
    rank: int = 0


class Line(NamedTuple):
    """A cell for each column, in a style of rich."""

    cells: Sequence[str]
    style: str = ''


class Listing:
    """Lines in columns, between them texts over the whole width (headings, notes). Printed by rich, in any width:

    columns that do not fit are left out, long names lose their middle, nothing else is ever cut or broken.
    """

    def __init__(self, columns: Sequence[Column], lines: Sequence[Line | Text]):
        self.columns, self.lines = columns, lines

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        spell = lambda text: legible(text, options.encoding)  # noqa: E731
        table = [[spell(column.heading) for column in self.columns]]
        table += [[spell(cell) for cell in line.cells] for line in self.lines if isinstance(line, Line)]
        widths = [max(map(cell_len, cells)) for cells in zip(*table, strict=True)]
        shown = self._fitting(widths, options.max_width)
        rest = sum(widths[number] + len(_GAP) for number in shown if number)
        widths[0] = min(widths[0], max(options.max_width - rest, 1))
        rows = iter(table)
        yield _row(next(rows), shown, widths, 'bold', spell)
        for line in self.lines:
            if isinstance(line, Line):
                yield _row(next(rows), shown, widths, line.style, spell)
            else:
                text = line.plain.lstrip()
                indent = ' ' * (len(line.plain) - len(text))
                for part in Text(spell(text), line.style).wrap(console, max(options.max_width - len(indent), 1)):
                    yield Text(indent) + part

    def _fitting(self, widths: Sequence[int], room: int) -> list[int]:
        kept = list(range(len(widths)))
        for number in sorted(kept[1:], key=lambda number: -self.columns[number].rank):
            if min(widths[0], _NAME) + sum(widths[n] + len(_GAP) for n in kept[1:]) <= room:
                break
            kept.remove(number)
        return kept


def _row(cells: Sequence[str], shown: Sequence[int], widths: Sequence[int], style: str, spell: Any) -> Text:
    name = _shortened(cells[0], widths[0], spell('…'))
    parts = [name + ' ' * (widths[0] - cell_len(name))]
    parts += [' ' * (widths[number] - cell_len(cells[number])) + cells[number] for number in shown if number]
    return Text(_GAP.join(parts).rstrip(), style, no_wrap=True, overflow='ignore')


def _shortened(name: str, width: int, mark: str) -> str:
    """A name with its middle left out: the ends tell most."""
    if cell_len(name) <= width:
        return name
    keep = len(name)
    while keep and cell_len(name[: keep - keep // 2] + mark + name[len(name) - keep // 2 :]) > width:
        keep -= 1
    return name[: keep - keep // 2] + mark + name[len(name) - keep // 2 :]


class Terminal(Console):
    """Standard output in the terminal's width, or in `width` if it goes elsewhere and COLUMNS says nothing."""

    def __init__(self, width: int):
        super().__init__(width=None if sys.stdout.isatty() or 'COLUMNS' in os.environ else width)

    def on_broken_pipe(self) -> None:
        """Lets the caller end, as for `print`; rich would end the process."""
        raise  # noqa: PLE0704 - rich calls this while it handles the error


def legible(text: str, encoding: str) -> str:
    """The text with what stands for characters that the encoding lacks: in ASCII '−0.14 ± 0.02' is '-0.14 +/- 0.02'."""
    return text.encode(encoding, 'spelt').decode(encoding)


def spell_out() -> None:
    """Lets standard output take any text, whatever its encoding."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors='spelt')


def hang_up() -> None:
    """After a broken pipe: what is still buffered goes nowhere, so that the process ends without a further error."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _spelt(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return ''.join(_SPELT.get(character, '?') for character in error.object[error.start : error.end]), error.end


codecs.register_error('spelt', _spelt)
