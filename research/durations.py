"""Durations: texts that say how long something lasts, `'500st'`, `'5ep'`, `'0.3run'`, `'1000ex'` -> a count of examples.

Examples are the unit because a changed batch size or accumulation leaves them right.
"""

import re

from research.catalogue import ConfigError

_PATTERN = re.compile(r'([0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]+)?)(st|ep|run|ex)')


def examples(text: str, batch_size: int, epoch: int | None = None, total: int | None = None) -> int:
    """How many examples a duration lasts, rounded to the nearest whole one (ties to even).

    Args:
      text: a number, not negative, and its unit: `st` training steps, `ep` epochs, `run` fractions of the run, `ex` examples.
      batch_size: examples a step.
      epoch: examples an epoch; needed by `ep` alone.
      total: examples of the run; needed by `run` alone.

    Raises:
      ConfigError: no such duration (a bare number is none: it does not say of what), or a unit with nothing to refer to.
    """
    match = _PATTERN.fullmatch(text.strip()) if isinstance(text, str) else None
    if match is None:
        raise ConfigError(
            f"{text!r} is no duration. Expected a number and its unit, as in '500st' (steps), '5ep' (epochs), "
            "'0.3run' (fraction of the run) or '1000ex' (examples)."
        )
    number, unit = float(match[1]), match[2]
    one = {'st': batch_size, 'ep': epoch, 'run': total, 'ex': 1}[unit]
    if number and one is None:
        known = {'ep': 'the length of an epoch', 'run': 'the length of the run'}[unit]
        raise ConfigError(f"'{text}' needs {known}, not known here; give it in steps ('500st') or examples ('1000ex').")
    return round(number * one) if number else 0
