"""Fair tuning: before variants are compared, each is tuned with the same number of points of one quasi-random sequence.

Idea: which of two optimizers looks better depends on how long each was tuned, so every variant, the baseline too, gets the
same points of the unit cube, mapped to its own space; the first point is the variant as it is written. Points are scored on
the validation split, over seeds of their own that enter no verdict; the test split is read by the final runs alone.

Config: study.tune = {'points': 8, 'space': {'optimizer.learning_rate': ('log', 1e-3, 1.0),
                                             'adam': {'optimizer.learning_rate': ('log', 1e-5, 1e-2)}}}

Sources: Choi et al. 2019 (On empirical comparisons of optimizers for deep learning: the search space decides the ranking);
Sivaprasad et al. 2020 (Optimizer benchmarking needs to account for hyperparameter tuning); Bousquet et al. 2017 (Critical
hyper-parameters: no random, no cry: quasi-random points); Halton 1960, scrambled as in Owen 2017, by scipy.

Cost: points x tuning seeds runs a variant. Points that move only traced numbers (learning rate, decay, clipping norm) share
the variant's program. A sequence that is made longer begins with the same points, whose runs are kept.
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import Any

from research.catalogue import ConfigError, nearest
from research.config import overrides, signatures
from research.config.files import Misfit, located
from research.report.records import BASELINE, NULL
from research.report.trials import best, point_score
from research.study import identity, relations
from research.study.plan import Plan, expand, seeded

KINDS = ('log', 'linear', 'int')
# Seed of the scrambling; changing it changes every study's points.
_SEQUENCE = 0
# Significant digits of a point, so that a table and a command line show all of it.
_DIGITS = 4


def points(config: Mapping[str, Any], variants: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """variant -> overrides of each of its points; the first one changes nothing. The null variant follows the baseline."""
    from scipy.stats import qmc  # slow to import, and only tuning needs it

    spaces = {name: _space(config['study']['tune']['space'], name) for name in variants if name != NULL}
    keys = sorted({key for space in spaces.values() for key in space})
    cube = qmc.Halton(len(keys), scramble=True, rng=_SEQUENCE).random(config['study']['tune']['points'] - 1)
    rows = [dict(zip(keys, row.tolist(), strict=True)) for row in cube]
    return {
        name: [{}, *({key: _value(*space[key], row[key]) for key in space} for row in rows)] for name, space in spaces.items()
    }


def _space(declared: Mapping[str, Any], variant: str) -> Mapping[str, tuple[str, float, float]]:
    """A variant's own space if it has one, else the common one."""
    if isinstance(declared.get(variant), Mapping):
        return declared[variant]
    return {key: entry for key, entry in declared.items() if not isinstance(entry, Mapping)}


def _value(kind: str, low: float, high: float, share: float) -> float:
    """The value at a share between 0 and 1 of the way from `low` to `high`."""
    if kind == 'int':
        return min(low + int(share * (high - low + 1)), high)
    value = low * (high / low) ** share if kind == 'log' else low + (high - low) * share
    return min(max(float(f'{value:.{_DIGITS}g}'), low), high)


def check(config: Mapping[str, Any], variants: Mapping[str, Any]) -> None:
    """Refuses seeds that a verdict uses, and spaces that are empty or invalid.

    Raises:
      Misfit: with what was expected.
    """
    tune, field = config['study']['tune'], 'study.tune.space'
    if tune['points'] < 2:
        raise Misfit(
            'study.tune.points',
            f"'study.tune.points' is {tune['points']}, expected 0 (no tuning), or at least 2: the first point is the variant "
            'as it is written.',
        )
    seeds = tune['seeds'] if _whole(tune['seeds']) else ()
    if not seeds or len(set(seeds)) < len(seeds):
        message = f"'study.tune.seeds' is {tune['seeds']!r}, expected distinct whole numbers from 0 below 2**32."
        raise Misfit('study.tune.seeds', message)
    if shared := sorted({*seeds} & {*overrides.seeds_of(config['study'])}):
        raise Misfit(
            'study.tune.seeds',
            f"'study.tune.seeds' has {shared[0]}, which 'study.seeds' has too, but what a variant was tuned with enters no "
            'verdict. Choose other seeds, such as (1000,).',
        )
    own = {name: space for name, space in tune['space'].items() if isinstance(space, Mapping)}
    for name in own:
        if name not in variants or name == NULL:
            valid = [v for v in variants if v != NULL]
            raise Misfit(name, f"'{field}' names no variant that is tuned: '{name}'.{nearest(name, valid)}")
    for name in variants:
        space = _space(tune['space'], name)
        if not space and name != NULL:
            raise Misfit(
                field, f"'{field}' has nothing for '{name}', such as {{'optimizer.learning_rate': ('log', 1e-3, 1.0)}}."
            )
        for key, entry in space.items():
            if key.partition('.')[0] == 'study' or key == 'train.seed':
                raise Misfit(key, f"'{field}' has '{key}', which belongs to the whole study.")
            if not _fits(entry):
                raise Misfit(
                    key,
                    f"'{field}' has {entry!r} for '{key}', expected (kind, low, high) with low < high and a kind of "
                    f"{', '.join(KINDS)}, such as ('log', 1e-3, 1.0); 'log' wants numbers above 0, 'int' whole ones.",
                )


def _whole(seeds: Any) -> bool:
    return all(isinstance(seed, int) and not isinstance(seed, bool) and 0 <= seed < 2**32 for seed in seeds)


def _fits(entry: Any) -> bool:
    if not isinstance(entry, tuple) or len(entry) != 3 or entry[0] not in KINDS:
        return False
    kind, *bounds = entry
    types = int if kind == 'int' else int | float
    if any(isinstance(bound, bool) or not isinstance(bound, types) or not math.isfinite(bound) for bound in bounds):
        return False
    return bounds[0] < bounds[1] and (kind != 'log' or bounds[0] > 0)


def before(plan: Plan) -> Plan | None:
    """The tuning runs: every point of every variant, scored on the validation split; None if nothing is tuned.

    Runs are ordered by seed, then by point, then by variant.

    Raises:
      ConfigError: what `check` refuses, a point that is invalid for a variant, two variants that are equal at a point.
    """
    tune = plan.study['tune']
    if not tune['points']:
        return None
    with located(plan.source, BASELINE):
        check(plan.config, plan.variants)
    told = {
        'metric': f'validation/{plan.study["metric"].partition("/")[2]}',
        'budget': tune['budget'] or plan.study['budget'],
        'seeds': tune['seeds'],
    }
    config = {**plan.config, 'study': {**plan.study, **told}}
    overrides_of = points(plan.config, plan.variants)
    tried: dict[str, list[dict[str, Any]]] = {name: [] for name in overrides_of}
    owner: dict[str, str] = {}
    runs = []
    for point in range(tune['points']):
        for name, changes in overrides_of.items():
            with located(plan.source, name):
                resolved = overrides.apply(config, {**plan.variants[name], **changes[point]})
                overrides.check_values(resolved)
                signatures.check(resolved)
                relations.check(resolved)
            other = owner.setdefault(identity.unread(resolved), name)
            if other != name:
                raise ConfigError(
                    f"{plan.source.at(name, name)}Variant '{name}' is the same as '{other}' at point {point} of tuning: it "
                    "differs in nothing but what is tuned. Remove it, or give it a space of its own in 'study.tune.space'."
                )
            flat = overrides.flatten(resolved)
            values = {key: flat.get(key) for key in changes[-1]}
            if values not in [entry['values'] for entry in tried[name]]:  # points of whole numbers may come twice
                runs += seeded(name, resolved, tune['seeds'], point)
            tried[name].append({'overrides': changes[point], 'values': values})
    order = {seed: number for number, seed in enumerate(tune['seeds'])}
    return dataclasses.replace(
        plan,
        config=config,
        runs=sorted(runs, key=lambda run: order[run.seed]),
        tuning={
            'points': tune['points'],
            **told,
            'space': {name: _space(tune['space'], name) for name in tried},
            'variants': tried,
        },
    )


def after(plan: Plan, before: Plan, results: Iterable[Mapping[str, Any]]) -> Plan:
    """The study with every variant at its best point; it has no runs while tuning runs are missing.

    Args:
      plan: the variants as written.
      before: the tuning runs, from `before`.
      results: their results on disk; a failed run counts as missing.
    """
    ids = {(run.variant, run.point, run.seed): run.id for run in before.runs}
    tried = {}
    for name, entries in before.tuning['variants'].items():
        values = [entry['values'] for entry in entries]
        tried[name] = [
            {**entry, 'runs': {str(seed): ids[name, values.index(entry['values']), seed] for seed in before.seeds}}
            for entry in entries
        ]
    tuning = {**before.tuning, 'variants': tried, 'chosen': {}}
    done = {result['id']: result for result in results if result['status'] != 'failed'}
    if not all(run.id in done for run in before.runs):
        return dataclasses.replace(plan, runs=[], tuning=tuning)
    higher, variants = plan.study['higher_is_better'], dict(plan.variants)
    for name, entries in tried.items():
        scores = [
            point_score([done[run] for run in entry['runs'].values()], before.study['metric'], higher) for entry in entries
        ]
        tuning['chosen'][name] = best(scores, higher)
        variants[name] = {**variants[name], **entries[tuning['chosen'][name]]['overrides']}
    if NULL in variants:
        variants[NULL] = {**variants[BASELINE], **variants[NULL]}
    resolved = {name: overrides.apply(plan.config, changes) for name, changes in variants.items()}
    return dataclasses.replace(plan, variants=variants, runs=expand(resolved, plan.seeds), tuning=tuning)
