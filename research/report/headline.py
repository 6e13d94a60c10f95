"""What a reader must see first: one sentence counted from the verdicts, and the warnings that stand before it."""

import collections
import math
from collections.abc import Mapping, Sequence
from typing import Any

from research.report import earlier, tables, words
from research.report.forest_data import GROUPS, kind

# Kind of a verdict -> what one change does, what several do.
_VERBS = {
    'better': ('helps', 'help'),
    'worse': ('hurts', 'hurt'),
    'failed': ('failed', 'failed'),
    'equivalent': ('is equivalent to the baseline', 'are equivalent to the baseline'),
    'none': ('shows no effect', 'show no effect'),
    'same': ('has the same numbers at another cost', 'have the same numbers at another cost'),
    'nothing': ('did nothing', 'did nothing'),
    'few': ('has too few seeds for a claim', 'have too few seeds for a claim'),
}


def headline(summary: Mapping[str, Any]) -> str:
    """One sentence: how many changes help, hurt, and show no effect at which resolution."""
    contrasts = [contrast for contrast in summary['contrasts'] if not contrast['null']]
    if not contrasts:
        return 'The baseline ran alone: there is nothing to compare.'
    if not summary['seeds']:
        return 'No seed has a result in every variant yet.'
    if len(contrasts) == 1:
        return _single(contrasts[0], summary)
    by_kind = collections.defaultdict(list)
    for contrast in contrasts:
        by_kind[kind(contrast['verdict'])].append(contrast)
    plain = {contrast['name'] for contrast in tables.against_baseline(summary).values()}
    noun = 'changes' if all(contrast['name'] in plain for contrast in contrasts) else 'comparisons'
    seeds, total = len(summary['seeds']), len(contrasts)
    if by_kind.keys() == {'few'}:
        are = 'seed is' if seeds == 1 else 'seeds are'
        return f'{seeds} {are} too few for a claim: the differences of {total} {noun} are shown as they are, untested.'
    shown = [_clause(name, by_kind[name], total, summary) for name in ('worse', 'better') if by_kind[name]]
    absent = [verb for name, verb in (('better', 'to help'), ('worse', 'to hurt')) if not by_kind[name]]
    shown += [f'none is shown {" or ".join(absent)}'] * bool(absent)
    rest = [
        _clause(name, by_kind[name], total, summary) for name in GROUPS if name not in ('better', 'worse') and by_kind[name]
    ]
    return '; '.join([f'Of {total} {noun}, {", ".join(shown)}', *rest]) + '.'


def warnings(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(in a few words, in full) of what must be known before the first number."""
    used, planned, added = summary['seeds'], summary['planned_seeds'], summary['added_seeds']
    found = []
    if len(used) < len(planned):
        found.append(
            (
                f'{len(used)} of {len(planned)} seeds are in',
                f'{len(used)} of {len(planned)} seeds have a result in every variant: the study is still going, or was '
                'stopped. Everything below rests on these seeds alone.',
            )
        )
    if added:
        found.append(
            (
                f'{_many(len(added), "seed")} added later',
                f'{len(added)} seeds were added after a report was read: p-values do not account for this.',
            )
        )
    found += [('the question was changed when there were results', sentence) for sentence in earlier.sentences(summary)]
    found += [
        (
            'pairs were run under different conditions',
            f'{contrast["name"]}: the two halves of a pair were run under other conditions, {_parts(contrast["mismatch"])}.',
        )
        for contrast in summary['contrasts']
        if contrast['mismatch']
    ]
    return found + _of_runs(summary)


def _of_runs(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    found = []
    if summary['tuning'] and (errors := sum(p['failed'] for v in summary['tuning']['variants'] for p in v['points'])):
        found.append(
            (
                f'{_many(errors, "run")} of tuning ended in an error',
                f'{_many(errors, "run")} of tuning ended in an error: every variant gets the same number of points, so the '
                'study does not go on before they are done.',
            )
        )
    if summary['stalled']:
        told = [f'{run["variant"]}, seed {run["seed"]} ({run["message"]})' for run in summary['stalled']]
        short = f'{_many(len(told), "run")} did not learn'
        found.append((short, f'{short}: {"; ".join(told)}.'))
    if count := len(summary['problems']):
        found.append(
            (
                f'{_many(count, "unreadable record")}',
                f'{count} records were torn or foreign and count as absent; they are listed below.',
            )
        )
    null = tables.null(summary)
    if null and null['p_value'] is not None and null['p_value'] <= summary['alpha']:
        found.append(
            (
                'the null variant differs as well',
                'The null variant differs from the baseline by more than chance would have it, as one in '
                f'{1 / summary["alpha"]:.0f} does: hold every other difference to its size.',
            )
        )
    return found


def _many(count: int, noun: str) -> str:
    return f'{count} {noun}{"s" * (count != 1)}'


def _parts(mismatch: Mapping[str, Sequence[int]]) -> str:
    return ', '.join(f'{part} (seeds {words.seeds(seeds)})' for part, seeds in mismatch.items())


def _single(contrast: Mapping[str, Any], summary: Mapping[str, Any]) -> str:
    found, score = kind(contrast['verdict']), tables.unit(summary)
    what = contrast['verdict'] if found in ('failed', 'other') else _VERBS[found][0] + _scope(found, [contrast], summary)
    said = f'{tables.title(contrast)} {what}'
    if contrast['difference'] is None:
        return f'{said}.'
    interval = contrast['interval']
    reach = f' ({words.level(summary["alpha"])} interval {score.span(interval)})' if interval else ''
    return f'{said}: {summary["metric"]} {score.difference(contrast["difference"])}{score.name}{reach}.'


def _clause(found: str, contrasts: Sequence[Mapping[str, Any]], total: int, summary: Mapping[str, Any]) -> str:
    count = len(contrasts)
    number = f'all {count}' if count == total else str(count)
    if found == 'other':
        return f'{number} ended otherwise ({", ".join(sorted({contrast["verdict"] for contrast in contrasts}))})'
    return f'{number} {_VERBS[found][count > 1]}{_scope(found, contrasts, summary)}'


def _scope(found: str, contrasts: Sequence[Mapping[str, Any]], summary: Mapping[str, Any]) -> str:
    """How finely a group was resolved, or the margin that it is held to."""
    score = tables.unit(summary)
    unit = score.name or f' {summary["metric"]}'
    if found == 'equivalent':
        return f' within {score.value(summary["margin"])}{unit}'
    if found in ('better', 'worse'):
        inside = sum(bool(contrast['within_margin']) for contrast in contrasts)
        count = f'{inside} ' if inside < len(contrasts) else ''
        return f' ({count}by less than the margin)' * bool(inside)
    known = [score.scaled(contrast['detectable']) for contrast in contrasts if contrast['detectable']]
    if found != 'none' or not known:
        return ''
    digits = max(0, -math.floor(math.log10(min(known))))
    low, high = (f'{bound:.{digits}f}' for bound in (min(known), max(known)))
    return f' at a resolution of {low if low == high else f"{low} to {high}"}{unit}'
