"""Names in configs -> constructors, and errors that help whoever mistyped one.

A catalogue is a dict literal `{name: 'module:attribute'}`; entries are imported when asked for. Any name that
contains a colon is an import path of the user's own (`my_paper.nets:TinyResNet`), looked up as it stands.
"""

import difflib
import functools
import importlib
import inspect
import pathlib
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any


class ConfigError(ValueError):
    """Bad input. Its message says what was wrong, what was expected and what to do; `launch.py` exits with 2."""


# What other libraries call a field, or a value -> ours.
_SYNONYMS = {
    **dict.fromkeys(('activation', 'dropout', 'norm', 'widths'), 'model.{}'),
    **dict.fromkeys(('momentum', 'nesterov'), 'optimizer.{}'),
    **dict.fromkeys(('arch', 'architecture', 'backbone', 'network', 'net'), 'model.name'),
    **dict.fromkeys(('pretrained', 'checkpoint', 'weights'), 'model.init_from'),
    **dict.fromkeys(('epoch', 'epochs', 'num_epochs', 'max_epochs', 'num_train_epochs', 'duration'), 'study.budget'),
    **dict.fromkeys(('steps', 'num_steps', 'max_steps', 'train_steps', 'iterations'), 'study.budget'),
    **dict.fromkeys(('seed', 'num_seeds', 'random_seed'), 'study.seeds'),
    **dict.fromkeys(('device', 'accelerator'), 'study.platform'),
    **dict.fromkeys(('gpus', 'num_gpus', 'num_devices'), 'train.devices'),
    **dict.fromkeys(('amp', 'fp16', 'bf16', 'mixed_precision', 'dtype', 'half'), 'train.precision'),
    **dict.fromkeys(('lr', 'rate', 'step_size'), 'optimizer.learning_rate'),
    **dict.fromkeys(('wd', 'l2'), 'optimizer.weight_decay'),
    **dict.fromkeys(('opt', 'optim'), 'optimizer.name'),
    **dict.fromkeys(('beta1', 'betas'), 'optimizer.b1'),
    'beta2': 'optimizer.b2',
    **dict.fromkeys(('grad_clip', 'gradient_clip', 'clip_grad_norm', 'max_grad_norm', 'clip_norm'), 'optimizer.clip.name'),
    'ema': 'optimizer.average.name',
    **dict.fromkeys(('scheduler', 'lr_scheduler', 'lr_schedule'), 'schedule.name'),
    **dict.fromkeys(('warmup_steps', 'warmup_epochs'), 'schedule.warmup'),
    **dict.fromkeys(('bs', 'train_batch_size'), 'data.batch_size'),
    'dataset': 'data.name',
    **dict.fromkeys(('root', 'data_dir', 'data_path'), 'data.path'),
    **dict.fromkeys(('val_split', 'val_size', 'val_fraction'), 'data.validation'),
    **dict.fromkeys(('grad_accum', 'gradient_accumulation', 'gradient_accumulation_steps'), 'gradient.micro_batch'),
}
_OTHER_VALUES = {
    **dict.fromkeys(('cuda', 'rocm', 'nvidia'), 'gpu'),
    **dict.fromkeys(('acc', 'top1'), 'accuracy'),
    'fid': 'frechet',
    **dict.fromkeys(('bf16', 'bfloat'), 'bfloat16'),
    **dict.fromkeys(('fp16', 'half'), 'float16'),
    **dict.fromkeys(('fp32', 'single'), 'float32'),
    **dict.fromkeys(('cross_entropy', 'ce'), 'softmax'),
    **dict.fromkeys(('bce', 'binary_cross_entropy'), 'sigmoid'),
    'swish': 'silu',
    'beta1': 'b1',
    'beta2': 'b2',
}


def nearest(name: str, valid: Iterable[str]) -> str:
    """` Did you mean 'x'?` when something close is valid, else the whole list of valid names; see `near`."""
    valid = sorted(filter(None, map(str, valid)))
    if close := near(str(name), valid):
        return f" Did you mean '{close}'?"
    return f' Valid: {", ".join(valid)}.' if valid else ''


def namesake(module: str) -> str:
    """What to do about a module of the user's own that is named as this package and so is never found; '' if there is none."""
    own = pathlib.Path(__file__).parent
    if module.partition('.')[0] == own.name:
        for path in (pathlib.Path(place, name) for place in sys.path for name in (own.name, f'{own.name}.py')):
            if path.exists() and not path.samefile(own):
                return f"'{own.name}' is Frugal's own package, which hides '{path}': give that another name."
    return ''


def near(name: str, valid: Iterable[str], cutoff: float = 0.6) -> str:
    """The closest of the valid names: it differs in case, hyphens and underscores, or is ours for what other libraries call so,
    or differs in few letters; '' if there is none."""
    spelt = {_plain(v): v for v in sorted(valid, reverse=True)}
    for wanted in (_plain(name), _plain(_VALUES.get(_plain(name), ''))):
        if wanted and wanted in spelt:
            return spelt[wanted]
    close = difflib.get_close_matches(_plain(name), spelt, n=1, cutoff=cutoff)
    return spelt[close[0]] if close else ''


def nearest_key(key: str, fields: Iterable[str]) -> str:
    """` Did you mean 'x'?` for a dotted key: by its last part, in its own group and then in the others.

    Args:
      key: that does not exist.
      fields: dotted keys that do; an argument of a constructor may exist beside them.
    """
    fields = sorted(fields)
    group, _, last = key.rpartition('.')
    meant = _FIELDS.get(_plain(last), '').format(last)
    if meant and meant != key and (meant in fields or meant.rpartition('.')[0] != group):
        return f" Did you mean '{meant}'?"
    own = {field.rpartition('.')[2]: field for field in fields if group and field.rpartition('.')[0] == group}
    same = [field for field in fields if _plain(field.rpartition('.')[2]) == _plain(last)]
    parts = {field.rpartition('.')[2]: field for field in fields}
    found = (
        own.get(near(last, own))
        or max(same, key=lambda field: difflib.SequenceMatcher(None, key, field).ratio(), default='')
        or (not own and near(key, fields, 0.75))
        or parts.get(near(last, parts, 0.75), '')
    )
    if found:
        return f" Did you mean '{found}'?"
    if own:
        return f" None has a near name; '{group}' has: {', '.join(sorted(own))}."
    return f' No field has a near name; the groups are: {", ".join(sorted({field.partition(".")[0] for field in fields}))}.'


def _plain(name: str) -> str:
    """A name less what spellings of it differ in."""
    return name.lower().translate(dict.fromkeys(map(ord, '-_ ')))


_FIELDS = {_plain(name): ours for name, ours in _SYNONYMS.items()}
_VALUES = {_plain(name): ours for name, ours in _OTHER_VALUES.items()}


def resolve(kind: str, name: str, entries: Mapping[str, str]) -> Callable[..., Any]:
    """The constructor behind `name`: a key of `entries`, or an import path `module:attribute`.

    Args:
      kind: what is looked up, for the message ('model', 'optimizer', 'norm layer').
      name: the name in the config.
      entries: the catalogue, name -> 'module:attribute'.

    Raises:
      ConfigError: unknown name, or an import path that does not lead to a callable.
    """
    if ':' not in name and name not in entries:
        module, dot, function = name.rpartition('.')
        if dot and module and function:
            raise ConfigError(f"Unknown {kind} '{name}'. An import path has a colon: did you mean '{module}:{function}'?")
        raise ConfigError(f"Unknown {kind} '{name}'.{nearest(name, entries)}")
    module_name, _, attribute = (name if ':' in name else entries[name]).partition(':')
    try:
        target = functools.reduce(getattr, attribute.split('.'), importlib.import_module(module_name))
    except (ImportError, AttributeError, ValueError) as error:
        hint = namesake(module_name) or "Expected 'module:attribute'; is it on PYTHONPATH?"
        raise ConfigError(f"Cannot import {kind} '{name}': {error}. {hint}") from error
    if not callable(target):
        raise ConfigError(f"{kind} '{name}' is a {type(target).__name__}, expected something that can be called.")
    return target


def key_of(name: str) -> str:
    """Where a config has the arguments of one of several names: 'cutout' for itself, 'flip' for 'my_paper.augment:flip'."""
    return name.rpartition(':')[2].rpartition('.')[2]


def parameters(constructor: Callable[..., Any], given: Iterable[str] = ()) -> tuple[dict[str, inspect.Parameter], bool]:
    """What a config may hand to `constructor` beside `given`: the named parameters, and whether it takes any others too."""
    try:
        signature = inspect.signature(constructor, eval_str=True)  # annotations may be texts
    except (NameError, SyntaxError, AttributeError, TypeError):
        signature = inspect.signature(constructor)
    except ValueError:  # C code that does not tell
        return {}, True
    # A linen module fills in `parent` and `name` by itself.
    linen = sys.modules.get('flax.linen')
    whole = constructor.func if isinstance(constructor, functools.partial) else constructor
    implied = ('parent', 'name') if linen and inspect.isclass(whole) and issubclass(whole, linen.Module) else ()
    named = {
        n: p
        for n, p in signature.parameters.items()
        if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) and n not in {*given, *implied}
    }
    return named, any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values())


def check(
    kind: str,
    name: str,
    constructor: Callable[..., Any],
    kwargs: Mapping[str, Any],
    given: Iterable[str] = (),
    fields: Iterable[str] = (),
) -> None:
    """Checks keyword arguments against a signature, before anything is called.

    Args:
      kind, name: for the message.
      constructor: what will be called.
      kwargs: keyword arguments from the config.
      given: names that the caller fills in itself; they may not come from the config.
      fields: other valid keys of the same group, as candidates for the nearest one.

    Raises:
      ConfigError: an unknown argument (with the nearest valid one) or a missing one.
    """
    named, open_ended = parameters(constructor, given)
    for key in kwargs:
        if key not in named and (key in set(given) or not open_ended):
            raise ConfigError(f"{kind} '{name}' takes no argument '{key}'.{nearest(key, [*named, *fields])}")
    missing = [n for n, p in named.items() if p.default is p.empty and n not in kwargs]
    if missing:
        raise ConfigError(f"{kind} '{name}' needs {', '.join(repr(m) for m in missing)}; set it beside the name.")


def arguments(function: Callable[..., Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """What `function` would get of a group: its own defaults, and over them what the config says."""
    named = {
        n: p.default for n, p in inspect.signature(function).parameters.items() if p.default is not inspect.Parameter.empty
    }
    return named | {key: value for key, value in config.items() if key in named}


def named(kind: str, config: str | Mapping[str, Any], entries: Mapping[str, str]) -> Mapping[str, Any]:
    """A group that may be a name alone, 'batch' for {'name': 'batch'}, as a mapping.

    Raises:
      ConfigError: a mapping without a name.
    """
    config = {'name': config} if isinstance(config, str) else config
    if 'name' not in config:
        raise ConfigError(f"{kind} {dict(config)} has no 'name'.{nearest('', entries)}")
    return config


def build(kind: str, config: Mapping[str, Any], entries: Mapping[str, str], **given: Any) -> Any:
    """Resolves `config['name']`, checks the other keys against its signature, and calls it with them and `given`."""
    kwargs = {key: value for key, value in config.items() if key != 'name'}
    constructor = resolve(kind, config['name'], entries)
    check(kind, config['name'], constructor, kwargs, given)
    return constructor(**kwargs, **given)


def bind(kind: str, config: Mapping[str, Any], entries: Mapping[str, str], given: Iterable[str]) -> Callable[..., Any]:
    """Like `build` for plain functions: binds the config's keyword arguments; `given` are the arguments still to come."""
    kwargs = {key: value for key, value in config.items() if key != 'name'}
    function = resolve(kind, config['name'], entries)
    check(kind, config['name'], function, kwargs, given)
    return functools.partial(function, **kwargs)
