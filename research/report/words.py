"""Numbers and contrasts as text, and escaping for the formats of the report."""

import dataclasses
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from markupsafe import Markup

from research.report import unchanged

MISSING = '–'
# What to say of the time of a single seed, where every variant may have been the first of its program.
WARMING = 'includes warm-up'
_PREFIXES = ('', 'k', 'M', 'G', 'T', 'P', 'E')
_BLOCKS = '▁▂▃▄▅▆▇█'
_DIGITS = ('Zero', 'One', 'Two', 'Three', 'Four', 'Five', 'Six', 'Seven', 'Eight', 'Nine')
# The last character that the font encoding T1 is sure to cover; XeLaTeX and LuaLaTeX, which know \Umathcode, take any.
_T1 = 0x17F
_LATEX = {
    **{character: '\\' + character for character in '{}$&#_%'},
    '\\': r'\textbackslash{}',
    '^': r'\^{}',
    '~': r'\~{}',
    '<': r'\textless{}',
    '>': r'\textgreater{}',
    '|': r'\textbar{}',
    '"': r'\textquotedbl{}',
    '`': r'\textasciigrave{}',
    '−': r'\ensuremath{-}',
    '×': r'\ensuremath{\times}',
    '±': r'\ensuremath{\pm}',
    '∞': r'\ensuremath{\infty}',
    'µ': r'\ensuremath{\mu}',
    '–': '--',
}


@dataclasses.dataclass(frozen=True)
class Unit:
    """How scores of one metric are printed: accuracies in percentage points, others unchanged.

    Attributes:
      scale: factor from score to printed number.
      name: ' points' or ''.
      decimals: digits after the decimal point.
    """

    scale: float
    name: str
    decimals: int

    def of(self, metric: str) -> str:
        """'test/accuracy in points'."""
        return f'{metric} in{self.name}' if self.name else metric

    def scaled(self, score: float | None) -> float | None:
        """A score in this unit."""
        return None if score is None else score * self.scale

    def value(self, score: float | None) -> str:
        """'98.61'."""
        return MISSING if score is None else _minus(f'{score * self.scale:.{self.decimals}f}')

    def difference(self, score: float | None) -> str:
        """'+0.28': the sign is always shown, 0 gets a plus."""
        if score is None:
            return MISSING
        rounded = round(score * self.scale, self.decimals) + 0.0  # which makes 0 of -0
        return _minus(f'{rounded:+.{self.decimals}f}')

    def span(self, interval: Sequence[float] | None) -> str:
        """'−0.14 to +0.70'."""
        return MISSING if interval is None else f'{self.difference(interval[0])} to {self.difference(interval[1])}'


def unit(metric: str, spreads: Iterable[float | None]) -> Unit:
    """The unit of a metric; metrics other than accuracies get two digits of their smallest spread over seeds."""
    if metric.endswith('accuracy'):
        return Unit(100.0, ' points', 2)
    known = [spread for spread in spreads if spread]
    return Unit(1.0, '', min(8, max(0, 1 - math.floor(math.log10(min(known))))) if known else 4)


def quantity(value: float | None, suffix: str = '') -> str:
    """Three digits and a decimal prefix: 25000 -> '25 k', 4194304 with 'B' -> '4.19 MB'."""
    if value is None:
        return MISSING
    step = min(len(_PREFIXES) - 1, max(0, int(math.log10(abs(value)) // 3))) if value else 0
    number = value / 1000**step
    if abs(float(f'{number:.3g}')) >= 1000 and step + 1 < len(_PREFIXES):
        step, number = step + 1, number / 1000
    return _minus(f'{number:.3g} {_PREFIXES[step]}{suffix}'.strip())


def duration(seconds: float | None) -> str:
    """Three digits in a suitable unit: '3.02 ms', '2.01 s', '1.5 h'."""
    if seconds is None:
        return MISSING
    for size, name in ((3600, 'h'), (60, 'min'), (1, 's'), (1e-3, 'ms')):
        if abs(seconds) >= size * (2 if size > 1 else 1):
            return f'{seconds / size:.3g} {name}'
    return f'{seconds * 1e6:.3g} µs' if seconds else '0 s'


def probability(p: float | None) -> str:
    """'0.0039', two digits."""
    return MISSING if p is None else f'{p:.2g}'


def ratio(entry: Mapping[str, Any] | None) -> str:
    """'×1.02 (0.99 to 1.04)' from {ratio, interval}."""
    if not entry:
        return MISSING
    interval = entry.get('interval')
    return f'×{entry["ratio"]:.3g}' + (f' ({interval[0]:.3g} to {interval[1]:.3g})' if interval else '')


def weights(contrast: Mapping[str, float]) -> str:
    """{'both': 1, 'a': -1, 'b': -0.5} -> 'both − a − 0.5 b'."""
    text = ' '.join(f'{"−" if w < 0 else "+"} {"" if abs(w) == 1 else f"{abs(w):g} "}{name}' for name, w in contrast.items())
    return text.removeprefix('+ ')


def seeds(numbers: Sequence[int]) -> str:
    """[0, 1, 2, 5] -> '0–2, 5'."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ', '.join(f'{run[0]}–{run[-1]}' if len(run) > 1 else str(run[0]) for run in runs) or 'none'


def settings(values: Mapping[str, Any]) -> str:
    """{'optimizer.learning_rate': 0.05} -> 'optimizer.learning_rate 0.05'; None stands for the default."""
    return ', '.join(f'{key} {"by default" if value is None else value}' for key, value in values.items())


def observation(value: float | None, share: bool) -> str:
    """'34 %' for a share, else three digits."""
    return MISSING if value is None else f'{100 * value:.3g} %' if share else quantity(value)


def share(value: float) -> str:
    """'62 %', '0.3 %', '< 0.1 %' for a share."""
    return f'{100 * value:.{0 if value >= 0.01 else 1}f} %' if value >= 0.001 else '< 0.1 %'


def curve(values: Sequence[float]) -> str:
    """Numbers as block characters scaled from lowest to highest: '▁▅█▅▁ 0 to 0.05'; '▅▅▅▅▅ 0.05' if all are equal."""
    low, high = min(values), max(values)
    if not high > low:
        return f'{_BLOCKS[4] * len(values)} {low:.3g}'
    blocks = ''.join(_BLOCKS[round((value - low) / (high - low) * (len(_BLOCKS) - 1))] for value in values)
    return f'{blocks} {low:.3g} to {high:.3g}'


def level(alpha: float) -> str:
    """0.05 -> '95 %'."""
    return f'{100 * (1 - alpha):g} %'


def answer(contrast: Mapping[str, Any], score: Unit, summary: Mapping[str, Any]) -> str:
    """One sentence: the result of a contrast, the scope of the claim, and the cost in training time."""
    if contrast['failed']:
        return f'{contrast["failed"]} of {contrast["n"]} seeds did not finish with a number, so there is no mean to compare.'
    if not contrast['n']:
        return 'No seed has a result in every variant yet.'
    verdict, difference = contrast['verdict'], score.difference(contrast['difference']) + score.name
    is_pair = sorted(contrast['weights'].values()) == [-1, 1]
    cost = _time(contrast['cost'].get('train_seconds')) if is_pair else ''
    if contrast['unchanged']:
        return unchanged.sentence(contrast, cost, summary)
    interval = f'{level(summary["alpha"])} interval {score.span(contrast["interval"])}'
    if contrast['descriptive']:
        why = f'{contrast["n"]}; {contrast["note"]}'
        described = f', descriptive {interval}' if contrast['interval'] else ''
        return f'Too few seeds for a claim ({why}): so far {difference}{described}{cost}.'
    note = f'; {contrast["note"]}' if contrast['note'] else ''
    reach = f'{interval}, over training seeds, on this test set'
    if contrast['crossed_interval']:
        reach += f'; over other test examples too: {score.span(contrast["crossed_interval"])}'
    margin = f'within the margin of {score.value(summary["margin"])}{score.name}'
    if contrast['equivalence_interval']:
        margin += f' ({level(2 * summary["alpha"])} interval {score.span(contrast["equivalence_interval"])})'
    if verdict.startswith(('better', 'worse')):
        size = score.value(abs(contrast['difference'])) + score.name
        verb = (
            _verb(summary['metric'], summary['higher_is_better'], contrast['difference']) + size
            if is_pair
            else f'Comes to {difference}'
        )
        return f'{verb}{", " + margin if contrast["within_margin"] else ""} ({reach}){cost}{note}.'
    if verdict == 'equivalent':
        return f'The difference of {difference} lies {margin} ({reach}){cost}.'
    text = f'Differs by {difference} ({reach}){cost}'
    if contrast['detectable'] is not None:
        text += f'; this study could have detected {score.value(contrast["detectable"])}{score.name}'
    return f'{text}{note}.'


def _verb(metric: str, higher_is_better: bool, difference: float) -> str:
    if higher_is_better:
        return 'Gains ' if difference > 0 else 'Loses '
    return f'Raises {metric} by ' if difference > 0 else f'Lowers {metric} by '


def time_to_quality(time: Mapping[str, Any] | None, signs: Mapping[str, Any] | None) -> str:
    """'2 s, 25 k examples, read every 3.9 k (9 of 10 reached it; sooner in 7, later in 1, p 0.07)'; `signs` is of the pairs."""
    if not time:
        return MISSING
    known = f'{time["reached"]} of {time["n"]} reached it'
    if signs:
        known += f'; sooner in {signs["faster"]}, later in {signs["slower"]}'
        known += '' if signs['p_value'] is None else f', p {probability(signs["p_value"])}'
    if time['examples'] is None:
        return f'∞ ({known})'
    grid = f', read every {quantity(time["grid"])}' if time['grid'] else ''
    return f'{duration(time["seconds"])}, {quantity(time["examples"])} examples{grid} ({known})'


def null(contrast: Mapping[str, Any] | None, score: Unit, summary: Mapping[str, Any]) -> str:
    """What the null variant says about the noise of the study, printed above the table."""
    if contrast is None:
        return 'This study was run without its null variant, so how much of a difference means nothing is not known.'
    if contrast['difference'] is None:
        return f'Null variant (only the data order redrawn): {contrast["verdict"]}.'
    if contrast['unchanged']:
        return 'Null variant: redrawing the data order changed no bit, so how much of a difference means nothing is not known.'
    p = '' if contrast['p_value'] is None else f', p {probability(contrast["p_value"])}'
    difference = score.difference(contrast['difference']) + score.name
    interval = f', {level(summary["alpha"])} interval {score.span(contrast["interval"])}' if contrast['interval'] else ''
    return (
        f'Null variant (the baseline with only its data order redrawn): {difference}{interval}{p}. '
        'This is what a change that does nothing looks like here.'
    )


def _time(entry: Mapping[str, Any] | None) -> str:
    if not entry:
        return ''
    percent = f', for {abs(_percent(entry["ratio"]))} % {"more" if entry["ratio"] > 1 else "less"} training time'
    if 'interval' not in entry:
        return percent
    low, high = entry['interval']
    span = _minus(f' ({_percent(low):+d} to {_percent(high):+d} %)')
    return (', at no measurable difference in training time' if low <= 1 <= high else percent) + span


def _percent(factor: float) -> int:
    return round(100 * (factor - 1))


def _minus(text: str) -> str:
    return text.replace('-', '−')


def markdown(value: Any) -> Any:
    """Text escaped for markdown, including table cells."""
    if isinstance(value, Markup):
        return value
    text = re.sub(r'\s+', ' ', str(value)).strip().replace('&', '&amp;').replace('<', '&lt;').replace('>', '&gt;')
    text = re.sub(r'([\\`*_\[\]|~$]|^[#+=-](?=[\s#=-]|$))', r'\\\1', text)
    return re.sub(r'^(\d+)([.)]\s)', r'\1\\\2', text)


def latex(value: Any) -> Any:
    """Text escaped for LaTeX; where pdflatex has no letter, the number of the character stands."""
    if isinstance(value, Markup):
        return value
    return ''.join(map(_letter, re.sub(r'\s+', ' ', str(value))))


def _letter(character: str) -> str:
    if character in _LATEX or ord(character) <= _T1 and character.isprintable():
        return _LATEX.get(character, character)
    number = f'U+{ord(character):04X}'
    return rf'\ifdefined\Umathcode {character}\else {number}\fi{{}}' if character.isprintable() else number


def macro(name: str, taken: set[str]) -> str:
    """A unique LaTeX macro name of letters only, added to `taken`: 'adam_2' -> 'AdamTwo'."""
    parts = re.findall(r'[A-Za-z]+|[0-9]', name.encode('ascii', 'ignore').decode())
    letters = ''.join(_DIGITS[int(part)] if part.isdigit() else part[0].upper() + part[1:] for part in parts) or 'Unnamed'
    unique = letters
    while unique in taken:
        unique += 'X'
    taken.add(unique)
    return unique


def spreadsheet(value: Any) -> Any:
    """A cell that a spreadsheet reads as text, never as a formula."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ('=', '+', '-', '@', '\t', '\r') else value
