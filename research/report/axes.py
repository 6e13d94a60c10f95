"""Axes of the plots: round ticks, each with its unit, on a range that outliers cannot stretch."""

import math
from collections.abc import Callable, Sequence
from typing import Any

_DECIMAL = tuple((1000.0**step, prefix) for step, prefix in enumerate(('', 'k', 'M', 'G', 'T', 'P', 'E')))
# Unit -> (size, name) of the units that its ticks may have, ascending.
_UNITS = {
    '': _DECIMAL,
    'B': tuple((size, f'{prefix}B') for size, prefix in _DECIMAL),
    's': ((1e-6, 'µs'), (1e-3, 'ms'), (1.0, 's'), (60.0, 'min'), (3600.0, 'h')),
}
# An axis whose highest value is this many times its lowest is logarithmic.
_LOG = 10.0
_TICKS = 5


def axis(values: Sequence[float], unit: str, most: int = _TICKS) -> dict[str, Any]:
    """The axis of positive quantities, such as costs.

    Args:
      values: what it must show.
      unit: 's', 'B' or ''.
      most: about how many ticks.

    Returns:
      range: [low, high], a little beyond the values; log: whether it is logarithmic; ticks: a list of [value, text].
    """
    low, high = min(values), max(values)
    if low > 0 and high > _LOG * low:
        beyond = (high / low) ** 0.08
        shown = [low / beyond, high * beyond]
        return {'range': shown, 'log': True, 'ticks': _logarithmic(*shown, _UNITS[unit], most)}
    beyond = 0.1 * (high - low) or 0.2 * abs(high) or 1.0
    shown = [low - beyond, high + beyond]
    return {'range': shown, 'log': False, 'ticks': _linear(*shown, _UNITS[unit], most)}


def scores(low: float, high: float, unit: str, sign: bool = False, most: int = _TICKS) -> list[list[Any]]:
    """Ticks of scores or their differences: a list of [value, text]; percentages where `unit` is '%'."""
    ticks = round_ticks(low, high, most)
    return [[tick, label(tick, unit, sign) if tick or not sign else '0'] for tick in ticks]


def label(value: float, unit: str = '', sign: bool = False) -> str:
    """At most four digits and the unit: '98 %', '−0.5', '+2 points'; 0 has no sign."""
    text = f'{value:{"+" if sign and value else ""}.4g}'.replace('-', '−')
    return f'{text} {unit}'.strip()


def round_ticks(low: float, high: float, most: int = _TICKS) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten between low and high, about `most` of them."""
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [float(f'{number * step:.10g}') for number in range(first, last + 1)]


def ratio_ticks(low: float, high: float, most: int = _TICKS) -> list[float]:
    """Round ratios between low and high, 1 among them, for a logarithmic axis."""
    if high / low < 2.5:
        return [tick for tick in round_ticks(low, high, most) if tick > 0]
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    choices: list[Callable[[int], Sequence[float]]] = [
        lambda d: (10.0**d, 1.5 * 10.0**d, 2 * 10.0**d, 3 * 10.0**d, 5 * 10.0**d, 7 * 10.0**d),
        lambda d: (10.0**d, 2 * 10.0**d, 5 * 10.0**d),
        lambda d: (10.0**d,),
        lambda d: (10.0**d,) if d % 3 == 0 else (),
    ]
    for choose in choices:
        found = [float(f'{tick:.10g}') for decade in decades for tick in choose(decade) if low <= tick <= high]
        if len(found) <= most + 1:
            return found
    return [1.0]


def _linear(low: float, high: float, units: Sequence[tuple[float, str]], most: int) -> list[list[Any]]:
    """All ticks in one unit: the largest that the highest value fills."""
    size, name = max((u for u in units if u[0] * (2 if u[1] in ('min', 'h') else 1) <= high), default=units[0])
    return [[tick * size, label(tick, name)] for tick in round_ticks(low / size, high / size, most) if tick >= 0]


def _logarithmic(low: float, high: float, units: Sequence[tuple[float, str]], most: int) -> list[list[Any]]:
    """1, 2 and 5 of each decade of each unit, thinned to whole decades where they would be too many; none just below a unit."""
    bounds = [*(2 * size if name in ('min', 'h') else size for size, name in units), math.inf]
    for digits in ((1, 2, 5), (1,)):
        found = [
            [digit * 10**decade * size, label(digit * 10**decade, name)]
            for (size, name), start, stop in zip(units, bounds[:-1], bounds[1:], strict=True)
            for decade in range(9)
            for digit in digits
            if max(low, start) <= digit * 10**decade * size <= high and digit * 10**decade * size < stop / 1.5
        ]
        if len(found) <= most + 2:
            return found
    return found[:: math.ceil(len(found) / most)]
