"""Config + variants x seeds -> runs; refuses what the config and signatures show to be wrong, and reads no data."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from research.catalogue import ConfigError
from research.config import overrides, signatures
from research.config.files import ConfigFile, located
from research.study import identity, relations
from research.train import memory


@dataclasses.dataclass(frozen=True)
class Run:
    """One variant at one seed.

    Attributes:
      config: as it is trained, budgets in examples (research.study.budget).
      asked: as it was asked for, which is what identifies the run and stands in its record.
      point: of tuning; None for a run that enters a verdict.
      memory_plan: what `train.memory_budget` chose (research.study.budget); None without one.
    """

    variant: str
    seed: int
    config: Mapping[str, Any]
    asked: Mapping[str, Any]
    id: str
    key: str
    point: int | None = None
    memory_plan: memory.Fit | None = None

    @property
    def name(self) -> str:
        """What it is a run of: 'adam', or 'adam, point 3'."""
        return self.variant if self.point is None else f'{self.variant}, point {self.point}'


@dataclasses.dataclass(frozen=True)
class Plan:
    """A study, resolved.

    Attributes:
      config: of the baseline, nested.
      source: where its values stand, for messages.
      question: from the docstring of the config file.
      variants: name -> overrides, 'baseline' first, then 'null' unless switched off.
      contrasts: name -> {variant: weight}; the null is not among them.
      runs: seed by seed, every variant of a seed before the next seed, so that times are paired as scores are; trained in the
        order of `drawn`.
      tuning: what study.json says about it, see research.study.tuning; None in a study that does not tune.
    """

    config: Mapping[str, Any]
    source: ConfigFile
    question: str
    variants: Mapping[str, Mapping[str, Any]]
    contrasts: Mapping[str, Mapping[str, float]]
    runs: list[Run]
    tuning: Mapping[str, Any] | None = None

    @property
    def study(self) -> Mapping[str, Any]:
        """The group `config.study`."""
        return self.config['study']

    @property
    def seeds(self) -> tuple[int, ...]:
        """The study's seeds in their order."""
        return overrides.seeds_of(self.study)

    @property
    def drawn(self) -> list[Run]:
        """The runs in the order in which they are trained: seed by seed, in an order of the variants drawn anew each seed.

        Who is always first pays for everybody's first touch. The draw is the id, a hash of config and seed, so that neither a
        variant's name nor one that is added moves the others.
        """
        number = {seed: index for index, seed in enumerate(self.seeds)}
        return sorted(self.runs, key=lambda run: (number[run.seed], run.id))

    @property
    def firsts(self) -> list[Run]:
        """The runs of the first seed: everything that there is a run of, once."""
        return [run for run in self.runs if run.seed == self.runs[0].seed]


def make(spec: str, changes: Mapping[str, Any]) -> Plan:
    """Resolves the runs of a config file under the command line's changes; reads no data.

    Args:
      spec, changes: as in `overrides.load`.

    Raises:
      ConfigError: a key, name or argument that does not exist or fit, two variants that are the same runs, or two contrasts
        that are the same test.
    """
    config, source, question = overrides.load(spec, changes)
    study = config['study']
    variants: dict[str, Any] = {'baseline': {}}
    if study['null']:
        variants['null'] = {'data.redraw': config['data']['redraw'] + 1}
    variants |= study['variants']
    resolved = {name: overrides.apply(config, changed) for name, changed in variants.items()}
    same: dict[str, str] = {}
    for name, variant in resolved.items():
        with located(source, name):
            signatures.check(variant)
            relations.check(variant)
        other = same.setdefault(identity.unread(variant), name)
        if other != name:
            raise ConfigError(f'{source.at(name, name)}{the_same(name, other)}')
    seeds = overrides.seeds_of(study)
    return Plan(config, source, _question(question), variants, _contrasts(study, source), expand(resolved, seeds))


def _contrasts(study: Mapping[str, Any], source: ConfigFile) -> dict[str, Mapping[str, float]]:
    """Each variant against the baseline, then those that the study names; one of these that asks the same is refused.

    A contrast under a variant's name may only be that variant's own, which it then states again.
    """
    contrasts: dict[str, Mapping[str, float]] = {name: {name: 1, 'baseline': -1} for name in study['variants']}
    for name, weights in study['contrasts'].items():
        other = next((known for known, taken in contrasts.items() if _same_test(weights, taken)), None)
        if other not in (None, name):
            raise ConfigError(
                f"{source.at(name)}Contrast '{name}' asks the same as '{other}', and each counts in the correction. Remove it; "
                'every variant is compared with the baseline without being named.'
            )
        if name in contrasts and other is None:
            raise ConfigError(
                f"{source.at(name)}Contrast '{name}': this name is taken by the variant's own contrast with the baseline. "
                'Choose another one.'
            )
        contrasts[name] = weights
    return contrasts


def _same_test(one: Mapping[str, float], other: Mapping[str, float]) -> bool:
    """Whether the weights of two contrasts are equal up to a factor, which may be negative."""
    if one.keys() != other.keys():
        return False
    factor = next(one[name] / other[name] for name in one)
    return all(math.isclose(one[name], factor * other[name]) for name in one)


def the_same(name: str, other: str) -> str:
    """What to say of two variants whose runs are the same."""
    return f"Variant '{name}' is the same as '{other}': nothing that it overrides changes the numbers of a run. Remove it."


def expand(resolved: Mapping[str, Mapping[str, Any]], seeds: Sequence[int]) -> list[Run]:
    """The runs of a study, seed by seed; `resolved` is variant -> config."""
    by_variant = [seeded(name, config, seeds) for name, config in resolved.items()]
    return [run for runs in zip(*by_variant, strict=True) for run in runs]


def seeded(variant: str, config: Mapping[str, Any], seeds: Sequence[int], point: int | None = None) -> list[Run]:
    """One run a seed of a variant's resolved config."""
    key, runs = identity.compile_key(config), []
    for seed, run_id in zip(seeds, identity.run_ids(config, seeds), strict=True):
        own = {**config, 'train': {**config['train'], 'seed': seed}}
        runs.append(Run(variant, seed, own, own, run_id, key, point))
    return runs


def _question(docstring: str) -> str:
    """The paragraph that opens with 'Question:', or else the first one."""
    paragraphs = [' '.join(p.split()) for p in docstring.split('\n\n')]
    asked = next((p for p in paragraphs if p.startswith('Question:')), paragraphs[0])
    return asked.removeprefix('Question:').strip()
