"""What a folder asked before it asked what it asks now: the changes, and the contrasts that its correction goes on counting.

research.study.asked keeps the questions in study.json.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from research.report import records, statistics, unchanged, words
from research.report.records import BASELINE, Records
from research.report.sign_flips import seeds_needed

_VALUES = ('metric', 'higher_is_better', 'alpha', 'margin', 'budget', 'score', 'seeds')


class Earlier(NamedTuple):
    """A contrast that had a test in an earlier question and has none in the present one.

    Attributes:
      name, weights, metric: as they were asked.
      until: the date on which the question was changed.
      comparison: from its records, uncorrected, and without a p-value if they are equal bit for bit; if they are gone, a
        p-value of 1, so that it counts and helps nothing.
      gone: whether they are.
    """

    name: str
    weights: Mapping[str, float]
    metric: str
    until: str
    comparison: statistics.Comparison
    gone: bool


def changes(study: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What was changed after there were results, change by change.

    Returns:
      A list of {date, recovered, values, variants, contrasts, config}: values maps a field to [old, new]; variants and
      contrasts map 'added', 'removed' and 'changed' to names; config says that the baseline is another one.
    """
    found = []
    for old, new in itertools.pairwise(study.get('asked', [])):
        shared = old['runs'].get(BASELINE, {}).keys() & new['runs'].get(BASELINE, {}).keys()
        found.append(
            {
                'date': new['date'],
                'recovered': old.get('recovered', False),
                'values': {key: [old[key], new[key]] for key in _VALUES if old[key] != new[key]},
                'variants': _moves(old['variants'], new['variants']),
                'contrasts': _moves(*({n: w for n, w in q['contrasts'].items() if n not in q['variants']} for q in (old, new))),
                # The fields that are part of a run's id make other runs as well, and are named themselves.
                'config': not {'metric', 'budget', 'score'} & {key for key in _VALUES if old[key] != new[key]}
                and any(old['runs'][BASELINE][seed] != new['runs'][BASELINE][seed] for seed in shared),
            }
        )
    return found


def contrasts(read: Records) -> list[Earlier]:
    """The contrasts of earlier questions that had seeds enough for a test, the latest first.

    One that the study still asks of the same runs, or of more, is not among them. Another metric, other runs or fewer seeds
    make it another test.
    """
    study, asked = read.study, read.study.get('asked', [])
    known = [(study['metric'], _runs(study, weights, study['seeds'])) for weights in study['contrasts'].values()]
    found = []
    for old, new in reversed(list(itertools.pairwise(asked))):
        for name, weights in old['contrasts'].items():
            runs = [old['runs'].get(variant, {}) for variant in weights]
            seeds = [seed for seed in old['seeds'] if all(by_seed.get(str(seed)) in old['had'] for by_seed in runs)]
            test = (old['metric'], _runs(old, weights, seeds))
            if len(seeds) < seeds_needed(1, old['alpha']) or any(_holds(other, test) for other in known):
                continue
            known.append(test)
            compared = _compared(read, old, weights, seeds)
            gone = statistics.Comparison(
                len(seeds), 0, 0.0, p_value=1.0, equivalence=1.0 if old['margin'] else None, spread=0.0
            )
            found.append(Earlier(name, weights, old['metric'], new['date'], compared or gone, compared is None))
    return found


def sentences(summary: Mapping[str, Any]) -> list[str]:
    """The changes, and what the correction counts beside the study as it stands; for the report's first page."""
    said = [_change(change) for change in summary['changes']]
    if before := [test for test in summary['asked_before'] if test['p_value'] is not None]:
        told = ', '.join(f'{test["name"]} ({_known(test, summary)})' for test in before)
        said.append(f'The correction also counts what this folder asked before: {told}.')
    return said


def correction(summary: Mapping[str, Any]) -> str:
    """How many contrasts the verdicts are corrected for: those that have a p-value."""
    now = sum(contrast['p_value'] is not None for contrast in summary['contrasts'] if not contrast['null'])
    before = sum(test['p_value'] is not None for test in summary['asked_before'])
    if not now:
        return 'No contrast has a p-value, so there is nothing to correct.'
    also = f', {before} of which the folder asked before' if before else ''
    return f"Verdicts hold after Holm's correction for {now + before} contrast{'s' if now + before > 1 else ''}{also}."


def _runs(question: Mapping[str, Any], weights: Mapping[str, float], seeds: Sequence[int]) -> list[tuple[float, set[str]]]:
    """Weight and run ids of each variant of a contrast: what makes it the same test under whatever names."""
    return [(w, {question['runs'].get(v, {}).get(str(seed), '') for seed in seeds}) for v, w in weights.items()]


def _holds(other: tuple[str, list], test: tuple[str, list]) -> bool:
    """Whether a test weighs the same runs as `test`, perhaps of more seeds."""
    if other[0] != test[0] or len(other[1]) != len(test[1]):
        return False
    return all(any(w == weight and runs <= more for w, more in other[1]) for weight, runs in test[1])


def _compared(
    read: Records, question: Mapping[str, Any], weights: Mapping[str, float], seeds: Sequence[int]
) -> statistics.Comparison | None:
    """From the records on disk, None if one of them is gone."""
    runs = {}
    for variant in weights:
        paths = [read.workdir / 'runs' / question['runs'][variant][str(seed)] / 'result.json' for seed in seeds]
        runs[variant] = [records.derived(path, {'id': str, 'status': str, 'metrics': dict}) for path in paths]
        if not all(runs[variant]):
            return None
    scores = {variant: [records.score(result, question['metric']) for result in results] for variant, results in runs.items()}
    options = {key: question[key] for key in ('margin', 'higher_is_better', 'alpha')}
    if unchanged.is_zero(read.workdir, list(runs.values()), list(weights.values())):
        options['unchanged'] = statistics.DID_NOTHING
    return statistics.compare_differences(statistics.contrast(scores, weights), **options)


def _moves(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, list[str]]:
    moves = {
        'added': [name for name in new if name not in old],
        'removed': [name for name in old if name not in new],
        'changed': [name for name in new if name in old and old[name] != new[name]],
    }
    return {kind: names for kind, names in moves.items() if names}


def _change(change: Mapping[str, Any]) -> str:
    moved = [f'{what} {kind}: {", ".join(names)}' for what in ('variants', 'contrasts') for kind, names in change[what].items()]
    if change['recovered']:
        lost = (
            f'study.json was missing or damaged on {change["date"]} and was written anew. What was asked before is known from '
        )
        return f'{lost}the runs on disk alone{"; " + "; ".join(moved) if moved else ""}.'
    values = [f'{key} from {_value(key, old)} to {_value(key, new)}' for key, (old, new) in change['values'].items()]
    config = ['the config of the baseline'] if change['config'] else []
    return (
        f'Changed on {change["date"]}, when there were results already: {"; ".join([*values, *moved, *config])}. '
        'A verdict may owe something to the choice.'
    )


def _value(key: str, value: Any) -> str:
    return words.seeds(value) if key == 'seeds' else str(value)


def _known(test: Mapping[str, Any], summary: Mapping[str, Any]) -> str:
    known = ['its records are gone' if test['gone'] else f'p {words.probability(test["p_value"])}']
    known += [f'by {test["metric"]}'] * (test['metric'] != summary['metric'])
    known += [f'over {test["n"]} seeds'] * (test['n'] != len(summary['seeds']))
    return ' '.join(known)
