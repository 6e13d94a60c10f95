"""Configs as nested dicts, dotted overrides, and all checks that need only research/config/base.py.

Nothing here imports jax, so a misspelt key is reported at once.
"""

import ast
import copy
import functools
import math
from collections.abc import Mapping
from typing import Any

from research.catalogue import ConfigError, key_of, nearest, nearest_key
from research.config import base, files, ranges
from research.config.files import ConfigFile, Misfit

# Fields that accept another type than that of their default.
_ALSO = {'study.seeds': tuple, 'data.streaming': bool}
# Dicts whose keys are chosen by the study.
_WHOLE = ('study.variants', 'study.contrasts', 'study.tune.space')
_CHOICES = {
    'data.streaming': ('auto', True, False),
    'data.personal': ('keep', 'mask', 'drop'),
    'study.score': ('last', 'best'),
    'study.keep': ('scored', 'all'),
    'study.platform': ('', 'cpu', 'gpu', 'tpu'),
    'data.batch.coupling': ('none', 'linear', 'sqrt'),
    'train.precision': ('float32', 'bfloat16', 'float16'),
    'train.matmul_precision': ('default', 'high', 'highest'),
    'train.remat': ('none', 'products', 'block'),
}
# Fields of pairs: a pattern over parameter paths, and a factor.
_PAIRS = ('optimizer.rate_multipliers', 'optimizer.decay_multipliers')
# Letters of a name in tables, plots and folders.
_LONGEST_NAME = 100
# A plan of as many is made in seconds.
_MOST_RUNS = 100_000
# jax.random.key silently drops all but the lower 32 bits of a seed.
_SEEDS = 2**32
# Suffixes of metrics where lower is better.
_LOWER_IS_BETTER = ('loss', 'frechet')


def defaults() -> dict[str, Any]:
    """research/config/base.py as a nested dict."""
    return copy.deepcopy(_base())


@functools.cache
def _base() -> dict[str, Any]:
    return base.get_config().to_dict()


def load(spec: str, changes: Mapping[str, Any]) -> tuple[dict[str, Any], ConfigFile, str]:
    """Reads a config file and applies the changes of the command line.

    Args:
      spec: 'FILE' or 'FILE:ARG', as in --config=FILE:ARG; the file may be anywhere.
      changes: dotted key -> value.

    Returns:
      (config as a nested dict, its ConfigFile, the docstring of the file).

    Raises:
      ConfigError: a bad key or value, with its file and line, or its flag.
    """
    config, path, question = files.read(spec)
    origin = ConfigFile(path, changes)
    try:
        config = apply(apply(defaults(), config), changes)
        config['study']['name'] = config['study']['name'] or path.stem
        check(config)
    except Misfit as misfit:
        raise ConfigError(f'{origin.at(misfit.key)}{misfit}') from misfit
    for name, overrides in config['study']['variants'].items():
        try:
            check_values(apply(config, overrides))
        except Misfit as misfit:
            raise ConfigError(f"{origin.at(misfit.key, name)}Variant '{name}': {misfit}") from misfit
    return config, origin, question


def flatten(tree: Mapping[str, Any], prefix: str = '') -> dict[str, Any]:
    """Nested dict -> {dotted key: value}; empty dicts are kept as values."""
    flat = {}
    for key, value in tree.items():
        if isinstance(value, Mapping) and value and prefix + key not in _WHOLE:
            flat |= flatten(value, f'{prefix}{key}.')
        else:
            flat[prefix + key] = value
    return flat


def check(config: Mapping[str, Any]) -> None:
    """Checks the group `study` and the values of the baseline.

    Raises:
      Misfit: with what was expected.
    """
    check_values(config)
    study = config['study']
    if config['train']['seed']:
        raise Misfit('train.seed', f"'train.seed' is {config['train']['seed']}, but a study sets it from 'study.seeds'.")
    split, slash, metric = study['metric'].partition('/')
    if split not in ('test', 'validation') or not slash:
        raise Misfit('study.metric', f"'study.metric' is '{study['metric']}', expected 'test/NAME', such as 'test/accuracy'.")
    if metric.endswith(_LOWER_IS_BETTER) and study['higher_is_better']:
        message = f"'study.metric' is '{study['metric']}', but 'study.higher_is_better' is True; set it to False."
        raise Misfit('study.metric', message)
    if study['name']:  # else that of its file
        _check_title('study.name', 'Study', study['name'])
    _check_count(study)
    try:
        seeds = seeds_of(study)
    except TypeError:
        seeds = ()
    if not seeds or len(set(seeds)) != len(seeds) or not all(0 <= seed < _SEEDS for seed in seeds):
        raise Misfit(
            'study.seeds',
            f"'study.seeds' is {study['seeds']!r}, expected a count from 1, or distinct whole numbers from 0 below 2**32.",
        )
    for name, overrides in study['variants'].items():
        _check_variant(name, overrides)
    for name, weights in study['contrasts'].items():
        _check_contrast(name, weights, {'baseline', *study['variants']})


def _check_count(study: Mapping[str, Any]) -> None:
    """Refuses more runs than anyone waits for, before any is listed."""
    variants, seeds = 1 + study['null'] + len(study['variants']), study['seeds']
    runs = variants * (seeds if isinstance(seeds, int) else len(seeds))
    if runs > _MOST_RUNS:
        raise Misfit(
            'study.seeds',
            f"'study.seeds' is {seeds if isinstance(seeds, int) else len(seeds):,}, which makes {runs:,} runs of {variants} "
            f'variants: expected at most {_MOST_RUNS:,} runs.',
        )
    tune = study['tune']
    if (runs := tune['points'] * variants * len(tune['seeds'])) > _MOST_RUNS:
        raise Misfit('study.tune.points', f"'study.tune' makes {runs:,} runs of tuning: expected at most {_MOST_RUNS:,}.")


def _check_variant(name: str, overrides: Any) -> None:
    if name in ('baseline', 'null'):
        raise Misfit(name, f"Variant '{name}': this name is taken; 'baseline' is the config itself, 'null' comes by itself.")
    _check_title(name, 'Variant', name)
    if not isinstance(overrides, Mapping):
        raise Misfit(name, f"Variant '{name}' is {overrides!r}, expected a dict of dotted overrides.")
    for key in flatten(overrides):
        if key.partition('.')[0] == 'study' or key == 'train.seed':
            raise Misfit(key, f"Variant '{name}' overrides '{key}', which belongs to the whole study.")


def _check_contrast(name: str, weights: Any, members: set[str]) -> None:
    if name == 'null':
        raise Misfit(name, "Contrast 'null': this name is taken by the null variant, which has a contrast of its own.")
    _check_title(name, 'Contrast', name)
    if not isinstance(weights, Mapping) or not weights:
        raise Misfit(name, f"Contrast '{name}' is {weights!r}, expected a dict of weights over variants.")
    for member, weight in weights.items():
        if member not in members:
            raise Misfit(member, f"Contrast '{name}' names no variant of this study: '{member}'.{nearest(member, members)}")
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not math.isfinite(weight) or not weight:
            raise Misfit(name, f"Contrast '{name}': the weight of '{member}' is {weight!r}, expected a number other than 0.")
    if abs(sum(weights.values())) > 1e-9:
        raise Misfit(name, f"Contrast '{name}': its weights sum to {sum(weights.values()):g}, expected 0.")


def _check_title(key: str, kind: str, name: str) -> None:
    if name != name.strip() or not name or not name.isprintable() or len(name) > _LONGEST_NAME:
        raise Misfit(
            key,
            f'{kind} {name[:_LONGEST_NAME]!r}: expected a name of 1 to {_LONGEST_NAME} printable characters without blanks '
            'around it, for tables and plots.',
        )


def check_values(config: Mapping[str, Any]) -> None:
    """Checks ranges and choices; the types are already checked.

    Raises:
      Misfit: with the nearest valid value.
    """
    flat = flatten(config)
    for key, choices in _CHOICES.items():
        if flat[key] not in choices:
            raise Misfit(key, f"'{key}' is '{flat[key]}'.{nearest(flat[key], choices)}")
    for key, allowed in ranges.FIELDS.items():
        if expected := ranges.outside(flat[key], allowed):
            raise Misfit(key, f"'{key}' is {flat[key]!r}, expected {expected}.")
    for key in ranges.DURATIONS:
        ranges.check_duration(key, flat[key])
    for key in _PAIRS:
        if not all(_is_pair(pair) for pair in flat[key]):
            raise Misfit(key, f"'{key}' is {flat[key]!r}, expected pairs (pattern, factor from 0), such as (('head/*', 0.1),).")


def _is_pair(pair: Any) -> bool:
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        return False
    pattern, factor = pair
    return (
        isinstance(pattern, str) and isinstance(factor, int | float) and not isinstance(factor, bool) and 0 <= factor < math.inf
    )


def seeds_of(study: Mapping[str, Any]) -> tuple[int, ...]:
    """`study.seeds`, a count or a tuple, as a tuple. Raises TypeError if it contains anything but integers."""
    seeds = study['seeds']
    if isinstance(seeds, int):
        return tuple(range(seeds))
    if any(isinstance(seed, bool) or not isinstance(seed, int) for seed in seeds):
        raise TypeError('seeds are whole numbers')
    return tuple(seeds)


def apply(config: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Returns `config` with dotted overrides applied.

    Overriding `GROUP.name` with another name drops the keyword arguments of the old one; fields of base.py stay. Likewise
    `augment.names` drops those of what it no longer names.
    Names are applied first, so the order of the dict does not matter. Keyword arguments of named groups are not checked
    here but in `research.config.signatures`.

    Raises:
      Misfit: a key that does not exist, or a wrong type.
    """
    config, valid = copy.deepcopy(dict(config)), defaults()
    flat = flatten(overrides)
    for key in sorted(flat, key=lambda k: (k != 'augment.names', k.rpartition('.')[2] != 'name', k.count('.'))):
        value, (*parents, leaf) = files.plain(key, flat[key]), key.split('.')
        node, fields, named = config, valid, False
        for depth, part in enumerate(key.split('.')):
            # A key that is not in research/config/base.py is an argument of a named group, or part of one.
            if part not in fields and not named or not part:
                raise Misfit(key, f"Unknown key '{key}'.{nearest_key(key, flatten(valid))}")
            if depth == len(parents):
                break
            whole = '.'.join(parents[: depth + 1])
            if whole in _WHOLE or not isinstance(fields.get(part, {}), Mapping):
                raise Misfit(key, f"Unknown key '{key}': '{whole}' is a single value.{nearest(key, [whole])}")
            if not isinstance(node.get(part), Mapping):
                # A keyword argument given as a string ('batch') becomes a group with that name.
                node[part] = {'name': node[part]} if isinstance(node.get(part), str) else {}
            node, fields = node[part], fields.get(part, {})
            named = not fields or not {'name', 'names'}.isdisjoint(fields) and part != 'study'
        if leaf in fields:
            value = _coerce(fields[leaf], value)
            _check_type(key, fields[leaf], value)
        if leaf == 'name' and node.get('name') != value:
            for old in [k for k in node if k not in fields and named]:
                del node[old]
        if key == 'augment.names':
            kept = {key_of(name) for name in value if isinstance(name, str)}
            for old in [k for k in node if k not in fields and k not in kept]:
                del node[old]
        node[leaf] = value
    return config


def _check_type(key: str, default: Any, value: Any) -> None:
    if isinstance(default, Mapping) and key not in _WHOLE:
        field = 'name' if 'name' in default else next(iter(flatten(default)))
        raise Misfit(key, f"'{key}' is {value!r}, expected fields of it, such as '{key}.{field}'.")
    kinds = (type(default), *((_ALSO[key],) if key in _ALSO else ()))
    if isinstance(value, bool) and bool not in kinds or not isinstance(value, kinds):
        expected = ' or '.join(k.__name__ for k in kinds)
        raise Misfit(key, f"'{key}' is {value!r} ({type(value).__name__}), expected {expected}, such as {default!r}.")
    if key == 'study.latency' and not all(type(size) is int and size > 0 for size in value):
        raise Misfit(key, f"'{key}' is {value!r}, expected batch sizes from 1, such as {default!r}.")


def _coerce(default: Any, value: Any) -> Any:
    """Turns 1e3 into 1000 for an int field, 1 into 1.0 for a float field, and 'a,b' into names for a field that has none by
    default; `_check_type` handles the rest."""
    if default == () and isinstance(value, str):
        return tuple(filter(None, value.split(',')))
    if isinstance(default, bool) or isinstance(value, bool):
        return value
    if isinstance(default, int) and isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(default, float) and isinstance(value, int):
        return float(value)
    return value


def parse(text: str) -> Any:
    """A value from the command line: a Python literal (1e-3, (1, 2), True, 'text'), or else the text itself."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text


def parse_flag(key: str, text: str) -> Any:
    """Like `parse`, but a string field keeps its text, so that a budget of '20' is refused as a string."""
    return text if isinstance(flatten(defaults()).get(key), str) and key not in _ALSO else parse(text)


def flag(key: str, value: Any) -> str:
    """Text that `parse_flag` reads back as `value`."""
    return value if isinstance(value, str) and parse_flag(key, value) == value else repr(value)
