"""Config files, overrides and their checks: everything that can be refused before jax is imported.

Configs are plain nested dicts from here on; `train.experiment` is handed a locked ConfigDict.
"""

import ast
import copy
import importlib.util
import pathlib
import sys
import traceback
from collections.abc import Mapping
from typing import Any

from configs import base
from research.catalogue import ConfigError, nearest

# Fields whose default shows only one of the types that they take.
_ALSO = {'study.seeds': tuple, 'study.latency': tuple}


def defaults() -> dict[str, Any]:
    """configs/base.py as a nested dict."""
    return base.get_config().to_dict()


def load(spec: str) -> tuple[dict[str, Any], pathlib.Path, str]:
    """Reads a config file.

    Args:
      spec: 'FILE' or 'FILE:ARG', as in --config=FILE:ARG; the file may lie anywhere.

    Returns:
      (config as a nested dict, the file's path, the docstring of the file).

    Raises:
      ConfigError: no such file, no get_config, an error inside it (with file and line), an unknown key or a wrong type.
    """
    name, _, arg = spec.partition(':')
    path = pathlib.Path(name).expanduser()
    if not path.is_file():
        siblings = sorted(str(p) for p in path.parent.glob('*.py')) if path.parent.is_dir() else []
        raise ConfigError(f"No config file '{name}'.{nearest(name, siblings)}")
    module_spec = importlib.util.spec_from_file_location(f'frugal_config_{path.stem}', path)
    module = importlib.util.module_from_spec(module_spec)
    sys.path.insert(0, str(path.parent.resolve()))  # a paper's own modules lie beside its config
    try:
        module_spec.loader.exec_module(module)
        config = module.get_config(arg).to_dict()
    except Exception as error:
        lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path)]
        where = f'{path}:{lines[-1]}' if lines else str(path)
        hint = nearest(str(error.name), defaults()) if isinstance(error, AttributeError) and error.name else ''
        if isinstance(error, AttributeError) and not hint:
            hint = nearest(str(error).strip('\'"'), defaults())
        raise ConfigError(f'{where}: {type(error).__name__}: {error}.{hint}') from error
    finally:
        sys.path.pop(0)
    check(config, Source(path))
    config['study']['name'] = config['study']['name'] or path.stem
    return config, path, (module.__doc__ or '').strip()


class Source:
    """Finds the line of a config file that mentions a key, for error messages."""

    def __init__(self, path: pathlib.Path):
        self.path, self.lines = path, path.read_text().splitlines()

    def at(self, key: str) -> str:
        """'FILE:LINE: ' of the first line with the whole dotted key, else with its last part, else of the file."""
        for needle in (key, key.rpartition('.')[2]):
            for number, line in enumerate(self.lines, start=1):
                if needle in line:
                    return f'{self.path}:{number}: '
        return f'{self.path}: '


def flatten(tree: Mapping[str, Any], prefix: str = '') -> dict[str, Any]:
    """Nested dict -> {dotted key: value}; empty dicts stay values."""
    flat = {}
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f'{prefix}{key}.')
        else:
            flat[prefix + key] = value
    return flat


def check(config: Mapping[str, Any], source: 'Source | None' = None) -> None:
    """Checks groups, fields and their types against configs/base.py, and the variants' shape.

    Keyword arguments of named groups are checked against signatures later, by whoever owns the constructor.

    Raises:
      ConfigError: with the nearest valid key, and file and line where known.
    """

    def refuse(key: str, message: str):
        raise ConfigError(f'{source.at(key) if source else ""}{message}')

    def walk(node, valid, path):
        if not isinstance(node, Mapping):
            refuse(path, f"'{path}' is {node!r}, expected a group with the keys {', '.join(sorted(valid))}.")
        for key in valid:
            if key not in node:
                refuse(path, f"'{path}' lost its field '{key}': set single fields, do not replace the whole group.")
        for key, value in node.items():
            dotted = f'{path}.{key}' if path else key
            if key in valid and isinstance(valid[key], Mapping) and dotted not in ('study.variants', 'study.contrasts'):
                walk(value, valid[key], dotted)
            elif key in valid:
                wrong = _type_error(dotted, valid[key], value)
                if wrong:
                    refuse(dotted, wrong)
            elif 'name' not in valid or path == 'study' or path == 'train':
                refuse(dotted, f"Unknown key '{dotted}'.{nearest(dotted, [*flatten(defaults())])}")

    walk(config, defaults(), '')
    study = config['study']
    for name, overrides in study['variants'].items():
        if not isinstance(overrides, Mapping):
            refuse(name, f"Variant '{name}' is {overrides!r}, expected a dict of dotted overrides.")
        if name in ('baseline', 'null'):
            refuse(name, f"Variant '{name}': this name is taken; 'baseline' is the config itself, 'null' comes by itself.")
        for key in overrides:
            if key.startswith('study.') or key == 'train.seed':
                refuse(key, f"Variant '{name}' overrides '{key}', which belongs to the whole study.")
        try:
            apply(config, overrides)
        except ConfigError as error:
            key = next((k for k in overrides if f"'{k}'" in str(error)), name)
            refuse(key, f"Variant '{name}': {error}")
    members = {'baseline', *study['variants']}
    for name, weights in study['contrasts'].items():
        if not isinstance(weights, Mapping) or not weights:
            refuse(name, f"Contrast '{name}' is {weights!r}, expected a dict of weights over variants.")
        for member in weights:
            if member not in members:
                refuse(member, f"Contrast '{name}' names no variant of this study: '{member}'.{nearest(member, members)}")
        if abs(sum(weights.values())) > 1e-9:
            refuse(name, f"Contrast '{name}': its weights sum to {sum(weights.values()):g}, expected 0.")
    seeds = seeds_of(study)
    if not seeds or len(set(seeds)) != len(seeds) or min(seeds) < 0:
        refuse('study.seeds', f"'study.seeds' is {study['seeds']!r}, expected a count from 1 or distinct seeds from 0.")


def seeds_of(study: Mapping[str, Any]) -> tuple[int, ...]:
    """`study.seeds`, a count or a tuple, as a tuple."""
    seeds = study['seeds']
    return tuple(range(seeds)) if isinstance(seeds, int) else tuple(int(s) for s in seeds)


def _type_error(key: str, default: Any, value: Any) -> str:
    kinds = (type(default), *((_ALSO[key],) if key in _ALSO else ()))
    if isinstance(value, list):
        value = tuple(value)
    if isinstance(value, bool) != isinstance(default, bool) or not isinstance(
        value, kinds + ((int,) if float in kinds else ())
    ):
        expected = ' or '.join(k.__name__ for k in kinds)
        return f"'{key}' is {value!r} ({type(value).__name__}), expected {expected}, such as {default!r}."
    return ''


def _coerce(default: Any, value: Any) -> Any:
    """1e3 over an int is 1000, 1 over a float is 1.0, a list over a tuple is a tuple; anything else stays for `check`."""
    if isinstance(value, list):
        return tuple(value)
    if isinstance(default, bool) or isinstance(value, bool):
        return value
    if isinstance(default, int) and isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(default, float) and isinstance(value, int):
        return float(value)
    return value


def apply(config: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Returns `config` with dotted overrides applied.

    Overriding `GROUP.name` with another name drops the keyword arguments that belonged to the old one; the fields of
    configs/base.py stay. Names are applied first, so the order of the dict does not matter.

    Raises:
      ConfigError: a key that does not exist, or a wrong type.
    """
    config, valid = copy.deepcopy(dict(config)), defaults()
    flat = flatten(overrides)
    for key in sorted(flat, key=lambda k: (not k.endswith('.name'), k.count('.') if k.endswith('.name') else 0)):
        value = flat[key]
        *parents, leaf = key.split('.')
        node, fields, named = config, valid, False
        for parent in parents:
            named = 'name' in node and parents[0] not in ('study', 'train')
            if parent not in node and not named or parent in node and not isinstance(node[parent], Mapping | str):
                raise ConfigError(f"Unknown key '{key}'.{nearest(key, flatten(valid))}")
            if not isinstance(node.get(parent), Mapping) and isinstance(fields, Mapping) and parent in fields:
                raise ConfigError(f"Unknown key '{key}': '{parent}' is a single value.{nearest(key, flatten(valid))}")
            if not isinstance(node.get(parent), Mapping):
                # A keyword argument given in short ('batch') becomes a group of its own, with that as its name.
                node[parent] = {'name': node[parent]} if isinstance(node.get(parent), str) else {}
            node, fields = node[parent], fields.get(parent, {}) if isinstance(fields, Mapping) else {}
        if leaf in fields:
            value = _coerce(fields[leaf], value)
            wrong = _type_error(key, fields[leaf], value)
            if wrong:
                raise ConfigError(wrong)
        elif not parents or parents[0] in ('study', 'train') or not ('name' in node or leaf == 'name' or len(parents) > 1):
            raise ConfigError(f"Unknown key '{key}'.{nearest(key, flatten(valid))}")
        if leaf == 'name' and node.get('name') != value:
            for old in [k for k in node if k not in fields]:
                del node[old]
        node[leaf] = tuple(value) if isinstance(value, list) else value
    return config


def parse(text: str) -> Any:
    """A value from the command line: a Python literal (1e-3, (1, 2), True, 'text'), else the text itself."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def parse_flag(key: str, text: str) -> Any:
    """`parse`, but where configs/base.py has a string the text stays text, so that a budget of 20 is refused by its own rule."""
    return text if isinstance(flatten(defaults()).get(key), str) else parse(text)
