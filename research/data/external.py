"""Data from elsewhere, added to the training split.

Idea: more examples help if they are of the same kind; their price and their faults belong beside what they gain.

Source: data cards as Pushkarna et al. 2022 (Data cards: purposeful and transparent dataset documentation).

Config: {'data.external': ({'name': 'my_paper.data:load', 'path': 'scans', 'price': 0.02, 'licence': 'CC BY 4.0'},)}

A source is a mapping. 'name', 'path' and 'label' are as `data.name`, `data.path` and `data.label`; its training part is read
and resized as the main data are. 'labels' is a table {their class: our class}; without it classes have the same names, or the
same numbers where the source has no names. Groups, tags and yes-or-no columns are joined by name, or by number where neither
side has names; a source may bring groups that the main data have not. 'count' takes so many examples, drawn by
`data.split_seed`. 'weight' is the source's share of an epoch; without it each example is seen once. 'price' is of one example.

Nothing goes into validation or test, and `data.examples` and `data.imbalance` are of the main data alone. Training examples
that are copies of a validation or test example are removed, of the main data too (research/data/duplicates.py).

Cost: reading, and the search for copies, once. Claim: none; the report shows what each source gained, and its price. Effect:
+1.16 points (0.96 to 1.36) by 6,000 images beside 3,000 of Fashion-MNIST, though 10 % of their labels are wrong (ten seeds,
configs/external.py). Clashes: `weight` with another `data.sampling` and with `data.pack`.
"""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from research.catalogue import ConfigError, nearest
from research.data import order, spans
from research.data.arrays import checksum as of_arrays
from research.data.dataset import Column, External, Store

_KEYS: Mapping[str, tuple[type, ...]] = {
    'name': (str,),
    'path': (str,),
    'label': (str,),
    'labels': (Mapping,),
    'count': (int,),
    'weight': (int, float),
    'price': (int, float),
    'licence': (str,),
}
_TAGS = ('tags', spans.WORD_TAGS)
# Fields whose numbers or columns have names, which other data may have in another order.
_NAMED = ('label', 'labels', 'group', *_TAGS)


def check(config: Mapping[str, Any]) -> None:
    """Refuses what shows without reading data.

    Args:
      config: `config.data`.

    Raises:
      ConfigError: with the number of the source, from 1.
    """
    for number, source in enumerate(config['external'], 1):
        where = f"'data.external', source {number}"
        if not isinstance(source, Mapping) or not source.get('name'):
            raise ConfigError(f"{where} is {source!r}, expected a mapping with a 'name', such as {{'name': 'mnist'}}.")
        for key, value in source.items():
            if key not in _KEYS:
                raise ConfigError(f"{where} has the key '{key}'.{nearest(key, _KEYS)}")
            if isinstance(value, bool) or not isinstance(value, _KEYS[key]):
                expected = {Mapping: 'a mapping', str: 'a text', int: 'a number'}[_KEYS[key][0]]
                raise ConfigError(f"{where}: '{key}' is {value!r}, expected {expected}.")
        if not 1 <= source.get('count', 1) < 2**31:
            raise ConfigError(f"{where}: 'count' is {source['count']}, expected at least 1 example.")
        if not 0 <= source.get('price', 0) < np.inf:
            raise ConfigError(f"{where}: 'price' is {source['price']}, expected a price of one example, at least 0.")
        if 'count' in source and 'weight' in source:
            raise ConfigError(f"{where} has 'count' and 'weight': expected one of them, examples or a share of an epoch.")
    weights = [source['weight'] for source in config['external'] if 'weight' in source]
    if not all(0 < weight <= 1 for weight in weights) or sum(weights) > 1:
        raise ConfigError(
            f"'data.external' has the weights {', '.join(f'{weight:g}' for weight in weights)}: expected shares of an epoch, "
            'each above 0, that sum to at most 1.'
        )
    if weights and (config['sampling']['name'] != 'shuffled' or config['pack']):
        other = 'data.pack to False' if config['pack'] else "data.sampling.name to 'shuffled'"
        raise ConfigError(f"'data.external' has a weight, which is a rule of its own for what an epoch holds: set {other}.")


def join(store: Store, config: Mapping[str, Any], read: Callable[[Mapping[str, Any]], Store]) -> Store:
    """The store with the rows of `config['external']` behind its own; they belong to none of its parts.

    Args:
      store: the main data.
      config: `config.data`.
      read: (`config.data` with the name, path and label of a source) -> its store.

    Raises:
      ConfigError: fields or classes that do not fit the main data.
    """
    if not config['external']:
        return store
    check(config)
    added, sources, end = [], [], len(next(iter(store.arrays.values())))
    for number, source in enumerate(config['external'], 1):
        where = f"'data.external', source {number}, '{source['name']}'"
        theirs = read(
            {**config, 'path': '', 'label': '', **{key: source[key] for key in ('name', 'path', 'label') if key in source}}
        )
        rows = _rows(where, theirs, source.get('count'), config['split_seed'])
        fitting, groups = _fitting(where, store, theirs, rows, source)
        store = dataclasses.replace(store, group_names=groups)
        added.append((theirs, rows, fitting))
        told = ' '.join(filter(None, (source['name'], pathlib.PurePath(source.get('path', '')).name)))
        given = told, source.get('licence', ''), float(source.get('price', 0)), float(source.get('weight', 0))
        sources.append(External(range(end, end + len(rows)), *given, theirs.seconds))
        end += len(rows)
    arrays = {
        field: Column(*column.parts, *(of_source[field] for _, _, of_source in added)) for field, column in store.arrays.items()
    }
    moments = store.moments
    if moments is not None:
        moments = np.concatenate([moments, *(theirs.moments[rows] for theirs, rows, _ in added)])
    sums = [store.checksum, *(theirs.checksum for theirs, _, _ in added)]
    # The names of both sides decide what numbers mean, and are in no other checksum.
    mapped = [of_arrays({field: Column(of[field]) for field in _NAMED if field in of}) for _, _, of in added]
    checksum = hashlib.sha256(
        json.dumps([sums, mapped, [loud(source) for source in config['external']], config['split_seed']]).encode()
    ).hexdigest()[:16]
    return dataclasses.replace(store, arrays=arrays, moments=moments, checksum=checksum, external=tuple(sources))


def loud(source: Mapping[str, Any]) -> dict[str, Any]:
    """What of a source can change a run's numbers."""
    return {key: value for key, value in source.items() if key not in ('path', 'price', 'licence')}


def _rows(where: str, theirs: Store, count: int | None, split_seed: int) -> np.ndarray:
    """Rows of the training part of a source, or `count` of them, rising."""
    part = theirs.parts['train']
    if count is None:
        return np.arange(part.start, part.stop)
    if count > len(part):
        raise ConfigError(f"{where}: 'count' is {count}, and it has {len(part)} training examples. Take fewer.")
    return part.start + np.sort(order.drawn(split_seed, len(part), order.ELSEWHERE)[:count])


def _fitting(
    where: str, ours: Store, theirs: Store, rows: np.ndarray, source: Mapping[str, Any]
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """(rows of a source in the fields, classes, tags and groups of the main data; the names of all groups)."""
    told = [
        {name: f'{array.dtype} {array.shape[1:]}' for name, array in sorted(store.arrays.items())} for store in (ours, theirs)
    ]
    if told[0] != told[1]:
        ours_told, theirs_told = (', '.join(f'{name} {what}' for name, what in one.items()) for one in told)
        raise ConfigError(
            f"{where}: an example is {theirs_told}, and one of '{ours.name}' is {ours_told}. Expected the same of both: set "
            'data.resize and data.crop for another size, and turn grey into colour, or colour into grey, in a loader function.'
        )
    arrays = {name: column[rows] for name, column in theirs.arrays.items()}
    if ours.classes is not None:
        arrays['label'] = _classes(where, ours, theirs, arrays['label'], source.get('labels'))
    elif 'labels' in source:
        raise ConfigError(f"{where} has a table of 'labels', and '{ours.name}' has no classes. Leave it out.")
    names = ours.class_names, theirs.class_names
    if 'labels' in arrays and any(names):
        arrays['labels'] = arrays['labels'][:, np.argsort(_by_name(where, 'yes-or-no columns', *names, range(len(names[1]))))]
    for field in arrays.keys() & {*_TAGS}:
        if any(names):
            tags = arrays[field]
            numbers = _by_name(where, 'tags', *names, np.unique(tags[tags >= 0]))
            arrays[field] = np.where(tags < 0, tags, numbers[tags]).astype(tags.dtype)
    groups = ours.group_names
    if 'group' in arrays and (groups or theirs.group_names):
        occurring = np.unique(arrays['group'])
        brought = [theirs.group_names[number] for number in occurring] if theirs.group_names else []
        groups = (*groups, *(name for name in brought if groups and name not in groups))
        arrays['group'] = _by_name(where, 'groups', groups, theirs.group_names, occurring)[arrays['group']]
    return arrays, groups


def _by_name(where: str, what: str, ours: Sequence[str], theirs: Sequence[str], occurring: Sequence[int]) -> np.ndarray:
    """The place among our names of each of theirs, int32 [K]; 0 of those that do not occur."""
    if not ours or not theirs:
        raise ConfigError(
            f'{where} has {what} {_listed(theirs) if theirs else "without names"}, and those of the main data are '
            f'{_listed(ours) if ours else "without names"}: expected names on both sides, or on neither. Read the other from a '
            'table too.'
        )
    if unknown := [theirs[number] for number in occurring if theirs[number] not in ours]:
        raise ConfigError(f'{where} has the {what} {_listed(unknown)}, which are none of {_listed(ours)}: rename them.')
    found = np.zeros(len(theirs), np.int32)
    found[occurring] = [ours.index(theirs[number]) for number in occurring]
    return found


def _classes(where: str, ours: Store, theirs: Store, labels: np.ndarray, table: Mapping[str, str] | None) -> np.ndarray:
    """Labels of theirs as classes of ours: int32 [N]."""
    if theirs.classes is None:
        raise ConfigError(f"{where} has no classes, and '{ours.name}' has. Name its column of classes as 'label'.")
    if hidden := int((labels < 0).sum()):
        raise ConfigError(f'{where}: {hidden} examples have no label. Leave them out.')
    own = [*ours.class_names] or [*map(str, range(ours.classes))]
    names = [*theirs.class_names] or [*map(str, range(theirs.classes))]
    occurring = np.unique(labels).tolist()
    table = table and {str(name): str(of_ours) for name, of_ours in table.items()}
    if table is None:
        by_number = not theirs.class_names
        table = {name: own[number] if by_number and number < len(own) else name for number, name in enumerate(names)}
    elif wrong := sorted({*table} - {*names}):
        raise ConfigError(f"{where}: 'labels' has {_listed(wrong)}, which are none of its classes.{nearest(wrong[0], names)}")
    elif holes := [names[number] for number in occurring if names[number] not in table]:
        raise ConfigError(f"{where}: 'labels' says nothing of {_listed(holes)}. Expected a class of ours for each of theirs.")
    if unknown := sorted({table[names[number]] for number in occurring} - {*own}):
        raise ConfigError(
            f"{where} has the classes {_listed(unknown)}, which '{ours.name}' has not. It has {_listed(own)}: map each by "
            "'labels', {their class: our class}."
        )
    found = np.zeros(len(names), np.int32)
    found[occurring] = [own.index(table[names[number]]) for number in occurring]
    return found[labels]


def _listed(names: Sequence[str]) -> str:
    return ', '.join(map(repr, names[:20])) + (f' and {len(names) - 20} more' if len(names) > 20 else '')
