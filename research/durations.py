"""Durations: texts that say how long something lasts, `'500st'`, `'5ep'`, `'0.3run'`, `'1000ex'` -> a count of examples.

Examples are the unit because a changed batch size or accumulation leaves them right.
"""

import re
from collections.abc import Collection

from research.catalogue import ConfigError

_PATTERN = re.compile(r'([0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]+)?)(\s*)([a-zA-Z]+)')
_UNITS = {'st': "'500st' (steps)", 'ep': "'5ep' (epochs)", 'run': "'0.3run' (fraction of the run)", 'ex': "'1000ex' (examples)"}
_OTHERS = {'s': "'60s' (seconds)", 'flops': "'1e12flops' (training FLOPs)"}
# The first letters of what a unit is called elsewhere.
_MEANT = {'epoch': 'ep', 'step': 'st', 'iter': 'st', 'sec': 's', 'exam': 'ex', 'sample': 'ex', 'flop': 'flops', 'run': 'run'}
# More than any run lasts, in whatever unit; a count of examples stays whole in float64.
_LONGEST = 1e15


def parse(text: str, others: Collection[str] = ()) -> tuple[float, str]:
    """The number and the unit of a duration, which may also be one of `others`: 's', 'flops'.

    Raises:
      ConfigError: no such duration (a bare number is none: it does not say of what).
    """
    match = _PATTERN.fullmatch(text.strip()) if isinstance(text, str) else None
    allowed = _UNITS | {unit: _OTHERS[unit] for unit in others}
    if match and not match[2] and match[3] in allowed and float(match[1]) <= (_LONGEST if match[3] != 'flops' else 1e30):
        return float(match[1]), match[3]
    *most, last = allowed.values()
    expected = f'{text!r} is no duration. Expected a number and its unit, as in {", ".join(most)} or {last}.'
    if match and match[3] in allowed and not match[2]:
        expected = f'{text!r} is longer than any run.'
    elif match:
        named = match[3].lower()
        meant = named if named in allowed else next((unit for word, unit in _MEANT.items() if named.startswith(word)), '')
        expected += f" Did you mean '{match[1]}{meant}'?" if meant in allowed else ''
    raise ConfigError(expected)


def is_one(text: object) -> bool:
    """Whether a value is a duration in one of the four units."""
    match = _PATTERN.fullmatch(text) if isinstance(text, str) else None
    return bool(match and not match[2] and match[3] in _UNITS)


def examples(text: str, batch_size: int, epoch: int | None = None, total: int | None = None) -> int:
    """How many examples a duration lasts, rounded to the nearest whole one (ties to even).

    Args:
      text: a number, not negative, and its unit: `st` training steps, `ep` epochs, `run` fractions of the run, `ex` examples.
      batch_size: examples a step.
      epoch: examples an epoch; needed by `ep` alone.
      total: examples of the run; needed by `run` alone.

    Raises:
      ConfigError: no such duration, or a unit with nothing to refer to.
    """
    number, unit = parse(text)
    one = {'st': batch_size, 'ep': epoch, 'run': total, 'ex': 1}[unit]
    if number and one is None:
        known = {'ep': 'the length of an epoch', 'run': 'the length of the run'}[unit]
        raise ConfigError(f"'{text}' needs {known}, not known here; give it in steps ('500st') or examples ('1000ex').")
    return round(number * one) if number else 0
