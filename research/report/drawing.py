"""What the pictures share: style, colours, ticks and labels that do not collide. matplotlib is imported only to draw."""

import contextlib
import io
import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from research import files

INK, SOFT, LINE, GRID, BAND = '#1b1f24', '#57606a', '#a3abb3', '#e3e7ea', '#e4e7eb'
# Kind of a verdict -> colour, as in the page.
KINDS = {'better': '#0072b2', 'worse': '#c44f00', 'equivalent': '#00805d', 'failed': INK}
_STYLE = {
    'font.size': 10,
    'axes.spines.top': False,
    'axes.spines.right': False,
    'axes.edgecolor': LINE,
    'axes.labelcolor': INK,
    'xtick.color': SOFT,
    'ytick.color': SOFT,
    'axes.grid': True,
    'grid.color': GRID,
    'axes.axisbelow': True,
    'pdf.fonttype': 42,
    'text.parse_math': False,
}
# Font size of labels.
_SMALL = 8.5
# Characters of a name in a picture.
_LONGEST = 24
# Dots an inch of the PNG.
_DPI = 160
# Where a label may stand: how far above its point, in points, and on which side; side 0 is over or under it.
_CORNERS = [(10, 1), (10, -1), (-10, 1), (-10, -1)]  # which leave bars free
_PLACES = [(0, 1), (0, -1), (10, 0), (-10, 0), *itertools.product((10, -10, 20, -20, 30, -30, 40, -40, 52, -52), (1, -1))]


@contextlib.contextmanager
def figure(width: float, height: float, path: Path) -> Iterator[Any]:
    """A matplotlib figure of this size in inches, written as PATH.png and PATH.pdf when the block ends."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.backends.backend_pdf import FigureCanvasPdf
    from matplotlib.figure import Figure

    with rc_context(_STYLE):
        drawn = Figure(figsize=(width, height), dpi=_DPI, layout='constrained')
        canvas, png, pdf = FigureCanvasAgg(drawn), io.BytesIO(), io.BytesIO()
        yield drawn
        canvas.print_png(png)  # Figure.savefig would draw twice
        FigureCanvasPdf(drawn).print_pdf(pdf)
        files.write(path.with_suffix('.png'), png.getvalue())
        files.write(path.with_suffix('.pdf'), pdf.getvalue())


def short(name: str) -> str:
    """A name that fits into a picture."""
    return name if len(name) <= _LONGEST else name[: _LONGEST - 1] + '…'


def ticks(axis, layout: Mapping[str, Any]) -> None:
    """Gives a matplotlib axis the range, scale and ticks of `layout`: {range, log, ticks}."""
    name = axis.axis_name
    axis.axes.set(**{f'{name}scale': 'log' if layout.get('log') else 'linear', f'{name}lim': layout['range']})
    axis.set_ticks([value for value, _ in layout['ticks']], [text for _, text in layout['ticks']])
    axis.set_ticks([], minor=True)


def label(axes, labels: Sequence[tuple[float, float, str, bool]], points: Sequence[tuple[float, float]]) -> None:
    """Writes texts beside their points where no other text or point is; text without such a place is left out.

    Args:
      axes: with the points.
      labels: (x, y, text, whether bars cross at the point), the most important first.
      points: (x, y) of all points.
    """
    renderer, size = axes.figure.canvas.get_renderer(), axes.figure.dpi / 72
    frame = axes.get_window_extent(renderer).expanded(1, 1.04)
    radius = 3 * size
    taken = [(x - radius, y - radius, x + radius, y + radius) for x, y in axes.transData.transform(points)] if points else []
    for x, y, text, crossed in labels:
        measured = axes.text(x, y, text, fontsize=_SMALL)
        width, height = measured.get_window_extent(renderer).size
        measured.remove()
        at_x, at_y = axes.transData.transform((x, y))
        for up, side in _CORNERS * crossed + _PLACES:
            across = side * (7 + abs(up) / 4) * size - width * (1 - side) / 2
            left, base = at_x + across, at_y + up * size - height / 2
            box = (left, base, left + width, base + height)
            if frame.x0 > box[0] or box[2] > frame.x1 or frame.y0 > box[1] or box[3] > frame.y1:
                continue
            if not any(a[0] < box[2] and box[0] < a[2] and a[1] < box[3] and box[1] < a[3] for a in taken):
                taken.append(box)
                leader = {'arrowstyle': '-', 'color': LINE, 'linewidth': 0.7, 'relpos': ((1 - side) / 2, 0.5), 'shrinkA': 0}
                axes.annotate(
                    text,
                    (x, y),
                    (across / size, up),
                    textcoords='offset points',
                    va='center',
                    fontsize=_SMALL,
                    bbox={'facecolor': 'white', 'edgecolor': 'none', 'alpha': 0.7, 'pad': 0.5},
                    arrowprops=leader if up and side else None,
                )
                break
