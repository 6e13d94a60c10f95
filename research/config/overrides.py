"""Configs as nested dicts, dotted overrides, and all checks that need only research/config/base.py.

Nothing here imports jax, so a misspelt key is reported at once.
"""

import ast
import copy
import functools
import math
from collections.abc import Mapping
from typing import Any

from research.catalogue import ConfigError, nearest
from research.config import base, files
from research.config.files import ConfigFile, Misfit

# Fields that accept another type than that of their default.
_ALSO = {'study.seeds': tuple, 'data.streaming': bool}
# Dicts whose keys are chosen by the study.
_WHOLE = ('study.variants', 'study.contrasts', 'study.tune.space')
_CHOICES = {
    'data.streaming': ('auto', True, False),
    'study.score': ('last', 'best'),
    'study.keep': ('scored', 'all'),
    'study.platform': ('', 'cpu', 'gpu', 'tpu'),
    'data.batch.coupling': ('none', 'linear', 'sqrt'),
    'train.precision': ('float32', 'bfloat16', 'float16'),
    'train.matmul_precision': ('default', 'high', 'highest'),
    'train.remat': ('none', 'products', 'block'),
}
_AT_LEAST = {
    'data.batch_size': 0,
    'data.eval_batch_size': 1,
    'data.validation': 0,
    'data.test': 0,
    'data.resize': 0,
    'data.crop': 0,
    'data.examples': 0,
    'data.reference_size': 1,
    'data.workers': 0,
    'data.split_seed': 0,
    'data.redraw': 0,
    'model.num_classes': 0,
    'gradient.micro_batch': 0,
    'optimizer.learning_rate': 0,
    'optimizer.weight_decay': 0,
    'train.devices': 0,
    'study.margin': 0,
}
# Fields of pairs: a pattern over parameter paths, and a factor.
_PAIRS = ('optimizer.rate_multipliers', 'optimizer.decay_multipliers')
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
    if not 0 < study['alpha'] < 1:
        raise Misfit('study.alpha', f"'study.alpha' is {study['alpha']!r}, expected a level between 0 and 1, such as 0.05.")
    split, slash, metric = study['metric'].partition('/')
    if split not in ('test', 'validation') or not slash:
        raise Misfit('study.metric', f"'study.metric' is '{study['metric']}', expected 'test/NAME', such as 'test/accuracy'.")
    if metric.endswith(_LOWER_IS_BETTER) and study['higher_is_better']:
        message = f"'study.metric' is '{study['metric']}', but 'study.higher_is_better' is True; set it to False."
        raise Misfit('study.metric', message)
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


def _check_variant(name: str, overrides: Any) -> None:
    if name in ('baseline', 'null'):
        raise Misfit(name, f"Variant '{name}': this name is taken; 'baseline' is the config itself, 'null' comes by itself.")
    _check_title('Variant', name)
    if not isinstance(overrides, Mapping):
        raise Misfit(name, f"Variant '{name}' is {overrides!r}, expected a dict of dotted overrides.")
    for key in flatten(overrides):
        if key.partition('.')[0] == 'study' or key == 'train.seed':
            raise Misfit(key, f"Variant '{name}' overrides '{key}', which belongs to the whole study.")


def _check_contrast(name: str, weights: Any, members: set[str]) -> None:
    if name == 'null':
        raise Misfit(name, "Contrast 'null': this name is taken by the null variant, which has a contrast of its own.")
    _check_title('Contrast', name)
    if not isinstance(weights, Mapping) or not weights:
        raise Misfit(name, f"Contrast '{name}' is {weights!r}, expected a dict of weights over variants.")
    for member, weight in weights.items():
        if member not in members:
            raise Misfit(member, f"Contrast '{name}' names no variant of this study: '{member}'.{nearest(member, members)}")
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not math.isfinite(weight) or not weight:
            raise Misfit(name, f"Contrast '{name}': the weight of '{member}' is {weight!r}, expected a number other than 0.")
    if abs(sum(weights.values())) > 1e-9:
        raise Misfit(name, f"Contrast '{name}': its weights sum to {sum(weights.values()):g}, expected 0.")


def _check_title(kind: str, name: str) -> None:
    if not name.strip() or not name.isprintable():
        raise Misfit(name, f'{kind} {name!r}: expected a name of printable characters, for tables and plots.')


def check_values(config: Mapping[str, Any]) -> None:
    """Checks ranges and choices; the types are already checked.

    Raises:
      Misfit: with the nearest valid value.
    """
    flat = flatten(config)
    for key, choices in _CHOICES.items():
        if flat[key] not in choices:
            raise Misfit(key, f"'{key}' is '{flat[key]}'.{nearest(flat[key], choices)}")
    for key, least in _AT_LEAST.items():
        if not flat[key] >= least:
            raise Misfit(key, f"'{key}' is {flat[key]!r}, expected at least {least}.")
    for key in _PAIRS:
        if not all(_is_pair(pair) for pair in flat[key]):
            raise Misfit(key, f"'{key}' is {flat[key]!r}, expected pairs (pattern, factor from 0), such as (('head/*', 0.1),).")


def _is_pair(pair: Any) -> bool:
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        return False
    pattern, factor = pair
    return isinstance(pattern, str) and isinstance(factor, int | float) and not isinstance(factor, bool) and factor >= 0


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

    Overriding `GROUP.name` with another name drops the keyword arguments of the old one; fields of base.py stay.
    Names are applied first, so the order of the dict does not matter. Keyword arguments of named groups are not checked
    here but in `research.config.signatures`.

    Raises:
      Misfit: a key that does not exist, or a wrong type.
    """
    config, valid = copy.deepcopy(dict(config)), defaults()
    flat = flatten(overrides)
    for key in sorted(flat, key=lambda k: (k.rpartition('.')[2] != 'name', k.count('.'))):
        value, (*parents, leaf) = files.plain(key, flat[key]), key.split('.')
        node, fields, named = config, valid, False
        for depth, part in enumerate(key.split('.')):
            # A key that is not in research/config/base.py is an argument of a named group, or part of one.
            if part not in fields and not named or not part:
                raise Misfit(key, f"Unknown key '{key}'.{nearest(key, flatten(valid))}")
            if depth == len(parents):
                break
            whole = '.'.join(parents[: depth + 1])
            if whole in _WHOLE or not isinstance(fields.get(part, {}), Mapping):
                raise Misfit(key, f"Unknown key '{key}': '{whole}' is a single value.{nearest(key, flatten(valid))}")
            if not isinstance(node.get(part), Mapping):
                # A keyword argument given as a string ('batch') becomes a group with that name.
                node[part] = {'name': node[part]} if isinstance(node.get(part), str) else {}
            node, fields = node[part], fields.get(part, {})
            named = not fields or 'name' in fields and part != 'study'
        if leaf in fields:
            value = _coerce(fields[leaf], value)
            _check_type(key, fields[leaf], value)
        if leaf == 'name' and node.get('name') != value:
            for old in [k for k in node if k not in fields and named]:
                del node[old]
        node[leaf] = value
    return config


def _check_type(key: str, default: Any, value: Any) -> None:
    if isinstance(default, Mapping) and key not in _WHOLE:
        raise Misfit(key, f"'{key}' is {value!r}, expected fields of it, such as {next(iter(flatten(default, f'{key}.')))!r}.")
    kinds = (type(default), *((_ALSO[key],) if key in _ALSO else ()))
    if isinstance(value, bool) and bool not in kinds or not isinstance(value, kinds):
        expected = ' or '.join(k.__name__ for k in kinds)
        raise Misfit(key, f"'{key}' is {value!r} ({type(value).__name__}), expected {expected}, such as {default!r}.")
    if key == 'study.latency' and not all(type(size) is int and size > 0 for size in value):
        raise Misfit(key, f"'{key}' is {value!r}, expected batch sizes from 1, such as {default!r}.")


def _coerce(default: Any, value: Any) -> Any:
    """Turns 1e3 into 1000 for an int field and 1 into 1.0 for a float field; `_check_type` handles the rest."""
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
