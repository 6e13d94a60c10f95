"""Checks named groups of a config against the signatures of their constructors, before data is read or programs compiled."""

import functools
import inspect
import operator
import re
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from research import augment, catalogue, compress, durations, gradients, models, optim, tasks
from research.augment import resize
from research.catalogue import ConfigError, nearest, nearest_key
from research.config import ranges
from research.config.files import Misfit
from research.config.overrides import defaults, flatten
from research.data import batch_sizes, curation, external, imbalance, pair_tokens, sampling, sources, tokenizer
from research.gradients import freezing
from research.layers import activation, conv, norm
from research.optim import averaging, clipping, optimizers, schedules
from research.train import parallel

_SEQUENCES = (Sequence, tuple, list)
# Examples of a run so long that no share of it rounds to 0.
_ENDLESS = 10**18
# Types of defaults that a value of a config can equal.
_PLAIN = (bool, int, float, str, tuple, list, Mapping, types.NoneType)
# Letters of a type that a message spells out.
_READABLE = 60


class Group(NamedTuple):
    """What a named group may contain.

    Attributes:
      kind: what it names, for messages.
      entries: the catalogue.
      given: arguments of the constructor that the caller supplies.
      own: fields of research/config/base.py that are not passed to the constructor.
    """

    kind: str
    entries: Mapping[str, str]
    given: tuple[str, ...] = ()
    own: tuple[str, ...] = ()


GROUPS = {
    'task': Group('task', tasks.TASKS, ('facts',)),
    'data.batch': Group('batch size', batch_sizes.SIZES, batch_sizes.GIVEN, ('coupling',)),
    'data.imbalance': Group('imbalance', imbalance.IMBALANCES, imbalance.GIVEN),
    'data.sampling': Group('sampler', sampling.SAMPLERS, sampling.GIVEN),
    'data.tokenizer': Group('tokenizer', tokenizer.TOKENIZERS, tokenizer.GIVEN),
    'data.targets': Group('targets', pair_tokens.TARGETS, ('sources', 'targets')),
    'data.target_tokenizer': Group('tokenizer', pair_tokens.TOKENIZERS, tokenizer.GIVEN),
    'augment.resize': Group('resize', resize.RESIZES, resize.GIVEN),
    'model': Group('model', models.MODELS, ('axis_name', 'remat'), ('init_from',)),
    'compress': Group('compression', compress.COMPRESSIONS, ('params', 'masks')),
    'gradient': Group('gradient', gradients.GRADIENTS, own=gradients.OWN),
    'gradient.freeze': Group('freezing', freezing.FREEZES, ('convert',)),
    'optimizer': Group('optimizer', optimizers.entries(), optimizers.GIVEN, optimizers.OWN),
    'optimizer.clip': Group('clip', clipping.CLIPS),
    'optimizer.average': Group('average', averaging.AVERAGES, averaging.GIVEN),
    'schedule': Group('schedule', schedules.SCHEDULES, ('position', 'total', 'convert'), ('warmup',)),
}

_AUGMENTATION = Group('augmentation', augment.AUGMENTATIONS, augment.GIVEN)

# Arguments of a network that name a layer, with what the network supplies itself.
_NORM = Group('norm layer', norm.NORMS, ('use_running_average', 'axis_name'))
_LAYERS = {
    'norm': _NORM,
    'discriminator_norm': _NORM,
    'attention_norm': _NORM,
    'conv': Group('convolution', conv.CONVS, conv.GIVEN),
}


# Model of a task with a generator and a discriminator.
_GENERATOR = Group('generative model', models.GENERATORS, ('axis_name',), models.OWN)


def check(config: Mapping[str, Any]) -> None:
    """Checks every named group: its name, its keyword arguments and their types.

    Args:
      config: resolved, its fields checked.

    Raises:
      ConfigError: with the nearest valid field or argument; a Misfit if one key is to blame.
    """
    _check_group('task', config['task'], GROUPS['task'])
    if ':' not in config['task']['name']:
        tasks.create(config['task'], facts={})  # refuses more than its signature shows
    groups = _groups(config)
    for path, group in groups.items():
        _check_group(path, _node(config, path.split('.')), group)
    _check_augmentations(config['augment'])
    if config['model']['name'] in groups['model'].entries:  # arguments of a fork's own model are not layers of ours
        for key, group in _LAYERS.items():
            if (layer := config['model'].get(key)) is not None:
                _check_group(f'model.{key}', {'name': layer} if isinstance(layer, str) else layer, group)
        if (name := config['model'].get('activation')) is not None:
            _resolve('model.activation', 'activation', name, activation.ACTIVATIONS)
    _check_data(config['data'])
    _resolve('train.engine', 'engine', config['train']['engine'], parallel.ENGINES)
    optim.create(config)  # checks more than signatures; needed for every config, because programs are shared


def as_called(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config with one spelling for each constructor call, so that configs that build the same things are equal.

    Arguments at the constructor's default are left out, a catalogue's name replaces its import path, and a duration of 0 has
    one unit.

    Args:
      config: resolved, and accepted by `check`.
    """
    called, groups = _zeros(config), _groups(config)
    for path, group in groups.items():
        *above, last = path.split('.')
        layers = _LAYERS if config['model']['name'] in group.entries else {}
        parent = _node(called, above)
        parent[last] = _call(parent[last], group, layers)
    calls = {key: _call(call, _AUGMENTATION, {}) for key, call in augment.groups(config['augment']).items()}
    called['augment'] = {
        **{key: value for key, value in called['augment'].items() if key in augment.OWN},
        **calls,
        'names': tuple(call['name'] for call in calls.values()),
    }
    return called


def _zeros(value: Any) -> Any:
    """A copy in which every duration of 0 is '0st'."""
    if isinstance(value, Mapping):
        return {key: _zeros(item) for key, item in value.items()}
    try:
        return value if durations.examples(value, _ENDLESS, _ENDLESS, _ENDLESS) else '0st'
    except ConfigError:  # no duration
        return value


def _call(node: Any, group: Group, layers: Mapping[str, Group]) -> Any:
    """A name and those of its arguments that are not the constructor's defaults; `layers` are arguments that name something."""
    if not isinstance(node, str | Mapping):
        return node
    node = {'name': node} if isinstance(node, str) else node
    constructor = catalogue.resolve(group.kind, node['name'], group.entries)
    named, _ = catalogue.parameters(constructor, (*group.given, *group.own))
    result = {'name': next((name for name, target in group.entries.items() if target == node['name']), node['name'])}
    for key, value in node.items():
        default = named[key].default if key in named else inspect.Parameter.empty
        if key in layers:
            value, default = (_call(layer, layers[key], {}) for layer in (value, default))
        if key != 'name' and not (isinstance(default, _PLAIN) and value == default):
            result[key] = value
    return result


def _groups(config: Mapping[str, Any]) -> dict[str, Group]:
    """Path of each named group -> what it may contain."""
    return GROUPS | ({'model': _GENERATOR} if tasks.generative(config) else {})


def _node(config: Mapping[str, Any], path: Sequence[str]) -> Any:
    return functools.reduce(operator.getitem, path, config)


def _check_augmentations(config: Mapping[str, Any]) -> None:
    """The names, and what stands beside them: the arguments of each."""
    names = config['names']
    if wrong := [name for name in names if not isinstance(name, str)]:
        raise Misfit(
            'augment.names', f"'augment.names' has {wrong[0]!r} in it, expected names, such as ('pad_crop', 'cutout')."
        )
    for name in names:
        _resolve('augment.names', _AUGMENTATION.kind, name, _AUGMENTATION.entries)
    keys = [catalogue.key_of(name) for name in names]
    if twice := next((key for key in keys if keys.count(key) > 1), ''):
        raise Misfit(
            'augment.names', f"'augment.names' has '{twice}' twice, whose arguments would be the same: expected it once."
        )
    for key in config:
        if key not in (*augment.OWN, *keys):
            known = [f'augment.{known}' for known in (*augment.OWN, *keys)]
            named = " Add it to 'augment.names'." if key in augment.AUGMENTATIONS else nearest_key(f'augment.{key}', known)
            raise Misfit(f'augment.{key}', f"'augment.{key}': 'augment.names' does not name '{key}'.{named}")
    for key in keys:
        arguments = config.get(key, {})
        if not isinstance(arguments, Mapping) or 'name' in arguments:
            raise Misfit(
                f'augment.{key}',
                f"'augment.{key}' is {arguments!r}, expected arguments of it, such as 'augment.{key}.ARGUMENT'.",
            )
    for key, group in augment.groups(config).items():
        _check_group(f'augment.{key}', group, _AUGMENTATION)


def _check_data(config: Mapping[str, Any]) -> None:
    """Of the group `data`, what shows without the data."""
    fields = defaults()
    for key in config:
        if key not in fields['data']:
            raise Misfit(f'data.{key}', f"Unknown key 'data.{key}'.{nearest_key(f'data.{key}', flatten(fields))}")
    name = config['name']
    if ':' in name or '.' in name.strip('./'):
        loader = _resolve('data.name', 'data', name, sources.ARRAYS)
        try:
            catalogue.check('data', name, loader, {'path': config['path']})
        except ConfigError as error:
            raise Misfit('data.name', f'{error} Expected a function load(path).') from error
    elif not re.fullmatch(r'\w+(/[\w-]+)?', name):
        raise Misfit(
            'data.name',
            f"'data.name' is '{name}', expected a name such as 'digits' or 'emnist/balanced', or a function of your own, "
            "'my_paper.data:load'.",
        )
    try:
        external.check(config)
    except ConfigError as error:
        raise Misfit('data.external', str(error)) from error
    for field, kind, known in (('clean', 'rule', curation.RULES), ('filters', 'filter', curation.FILTERS)):
        for name_in in config[field]:
            if not isinstance(name_in, str):
                raise Misfit(f'data.{field}', f"'data.{field}' has {name_in!r} in it, expected names, such as ('duplicates',).")
            if field == 'clean' and name_in not in known:
                raise Misfit('data.clean', f"'data.clean' has '{name_in}', which is no rule.{nearest(name_in, known)}")
            _resolve(f'data.{field}', kind, name_in, known)
    if twice := {*config['clean']} & {*config['filters']}:
        raise Misfit(
            'data.filters',
            f"'data.filters' has '{min(twice)}', which data.clean applies to every split: name it in one of them.",
        )
    if 0 < config['target_length'] < 3:
        raise Misfit(
            'data.target_length',
            f"'data.target_length' is {config['target_length']}, expected 0, or at least 3 tokens: [CLS], one, [SEP].",
        )
    for field in ('validation', 'test'):
        if (share := config[field]) >= 1 and share != int(share):
            raise Misfit(
                f'data.{field}', f"'data.{field}' is {share}, expected a fraction below 1 or a whole number of examples."
            )


def _check_group(path: str, config: Mapping[str, Any], group: Group) -> None:
    if not isinstance(config.get('name'), str):
        raise Misfit(path, f"'{path}' is {dict(config)!r}, expected a 'name' in it.{nearest('', group.entries)}")
    name = config['name']
    constructor = _resolve(f'{path}.name', group.kind, name, group.entries)
    named, open_ended = catalogue.parameters(constructor, group.given)
    kwargs = {key: value for key, value in config.items() if key not in ('name', *group.own)}
    for key, value in kwargs.items():
        if key not in named and (key in group.given or not open_ended):
            fields = [field for field in flatten(defaults()) if not field.startswith(f'{path}.')]
            hint = nearest_key(f'{path}.{key}', [*fields, *(f'{path}.{field}' for field in ('name', *named, *group.own))])
            if not named and f"'{path}." not in hint:
                hint = f" It takes none; is '{path}.name' as you want it?"
            raise Misfit(f'{path}.{key}', f"Unknown key '{path}.{key}': {group.kind} '{name}' takes no such argument.{hint}")
        if key in named and (expected := _expected(named[key], value)):
            raise Misfit(f'{path}.{key}', f"'{path}.{key}' is {value!r}{expected}")
        if name in group.entries and key in named:
            _check_value(f'{path}.{key}', group.kind, name, named[key].default, value)
    missing = [key for key, parameter in named.items() if parameter.default is parameter.empty and key not in kwargs]
    if missing:
        given = f' Its caller passes {", ".join(group.given)}.' if group.given else ''
        raise Misfit(f'{path}.name', f"{group.kind} '{name}' needs '{path}.{missing[0]}'; set it beside the name.{given}")


def _check_value(key: str, kind: str, name: str, default: Any, value: Any) -> None:
    """Holds an argument against its range, and one whose default is a duration, or durations, against these."""
    if expected := ranges.argument(kind, name, key.rpartition('.')[2], value):
        raise Misfit(key, f"'{key}' is {value!r}, expected {expected}.")
    one = isinstance(default, str)
    if not default or not all(map(durations.is_one, (default,) if one else default if isinstance(default, tuple) else (None,))):
        return
    for text in (value,) if one else value:
        try:
            durations.parse(text)
        except ConfigError as error:
            raise Misfit(key, f"'{key}': {error}") from error


def _resolve(key: str, kind: str, name: str, entries: Mapping[str, str]) -> Callable[..., Any]:
    try:
        return catalogue.resolve(kind, name, entries)
    except ConfigError as error:
        raise Misfit(key, str(error)) from error


def _expected(parameter: inspect.Parameter, value: Any) -> str:
    """How a sentence about `value` goes on if the parameter's annotation or default rules it out; else ''."""
    hint = parameter.annotation
    if hint is parameter.empty or not _says_something(hint):
        hint = _type_of(parameter.default)
    if _fits(hint, value) or value is parameter.default:
        return ''
    if typing.get_origin(hint) is typing.Literal:
        return f'.{nearest(str(value), typing.get_args(hint))}'
    texts = [
        h.__name__ if isinstance(h, type) and not typing.get_args(h) else str(h)
        for h in _alternatives(hint)
        if h is types.NoneType or _says_something(h)
    ]
    text = re.sub(r'[a-zA-Z_]+[.]', '', ' or '.join(texts)).replace('NoneType', 'None')
    if len(text) > _READABLE:  # a union of everything that is an array
        default = parameter.default
        text = f'{len(default)} values' if isinstance(default, tuple) else type(default).__name__
    such = '' if parameter.default is parameter.empty else f', such as {parameter.default!r}'
    return f' ({type(value).__name__}), expected {text}{such}.'


def _alternatives(hint: Any) -> tuple[Any, ...]:
    return typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)


def _type_of(default: Any) -> Any:
    """The type implied by a default: an int stands for any number, a string for anything that can be named."""
    if isinstance(default, tuple | list):
        return Sequence[_type_of(default[0])] if default else Sequence
    kinds = {bool: bool, int: float, float: float, str: str | Mapping}
    return kinds.get(type(default), Any)


def _says_something(hint: Any) -> bool:
    """Whether a type accepts some values of a config besides None, but not all."""
    if len(_alternatives(hint)) > 1:
        return Any not in _alternatives(hint) and any(map(_says_something, _alternatives(hint)))
    return (typing.get_origin(hint) or hint) in (*_SEQUENCES, bool, int, float, str, dict, Mapping, typing.Literal)


def _fits(hint: Any, value: Any) -> bool:
    """Whether a value has a type; always true if the type says nothing."""
    if not _says_something(hint):
        return True
    if len(_alternatives(hint)) > 1:
        return (
            value is None
            and types.NoneType in _alternatives(hint)
            or any(_fits(h, value) for h in _alternatives(hint) if _says_something(h))
        )
    origin, inside = typing.get_origin(hint) or hint, typing.get_args(hint)
    if origin is typing.Literal:
        return value in inside
    if origin in _SEQUENCES:
        if origin is tuple and inside and Ellipsis not in inside and isinstance(value, tuple) and len(value) != len(inside):
            return False
        same = {h for h in inside if h is not Ellipsis}
        return isinstance(value, tuple) and (len(same) != 1 or all(_fits(*same, v) for v in value))
    if isinstance(value, bool):
        return origin is bool
    return isinstance(value, {float: int | float, dict: Mapping}.get(origin, origin))
