"""What is left out of the data because of what it is: copies, junk, wrong labels, bad translations, personal data.

A filter is a function `(examples, labels, main) -> bool [N]`, True where a training example is to be removed. It gets images
[N, H, W, C] or texts [N], classes int32 [N] or None, and bool [N], True where an example is of the main data. `data.filters`
names them, in the order in which they look at what is left; one of your own goes by its import path. Their modules are their
cards. `data.clean` names those that judge a pair by itself, and looks at each split: before the filters, and for validation and
test too. Of sentence pairs, training pairs with a sentence of validation or test are always left out.

What they find is kept on disk, by the content of the data and the code, as tokens are (research/data/token_cache.py).
"""

import dataclasses
import hashlib
import importlib.metadata
import json
import math
import pathlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from research import catalogue
from research.data import duplicates, pairs, personal, spans, token_cache

if TYPE_CHECKING:
    from research.data.dataset import Store

# Those that `data.clean` may name: no test is made easier by them.
RULES = {
    **{name: f'research.data.pairs:{name}' for name in ('empty', 'short', 'long', 'ratio', 'script', 'markup', 'identical')},
    'duplicates': 'research.data.duplicates:repeated',
}
FILTERS = {
    **RULES,
    'label_suspects': 'research.data.label_suspects:suspects',
    'quality': 'research.data.quality:junk',
}
# Of the first step, which removes copies of validation and test examples.
LEAKED = 'in validation or test'
# Of the step that removes what `personal` finds something in.
DROPPED = 'personal data'
# What of a source's row in the card is told beside the steps.
_GIVEN = ('name', 'licence', 'price', 'weight', 'seconds')


def curated(
    store: 'Store', splits: Mapping[str, np.ndarray], config: Mapping[str, Any]
) -> tuple['Store', dict[str, np.ndarray], dict[str, Any]]:
    """The splits, with external rows in training, without what rules and filters find.

    Args:
      store: of the data, see `research.data.external.join`.
      splits: its cut; the main data's training rows under 'train'.
      config: `config.data`; reads `clean`, `filters`, `personal`, `target_tokenizer` and `targets`.

    Returns:
      (the store, its texts masked where that is asked for; split -> int64 [N] rows, rising; the data card, {}
      where nothing is asked for: 'steps', their names; 'sources', a list of {name, licence, price, weight, rows, bytes,
      seconds, removed: {step: count}, kept}, the main data first, with the bytes of its rows before filters in memory and the
      seconds that reading took in this process; 'seconds', step -> what it took when its finds were made; 'personal',
      kind -> how many were masked in the texts of the final splits; 'scored', 'validation' and 'test' -> {rule: count} of what
      `data.clean` left out of them).

    Raises:
      ConfigError: data that a filter cannot read; settings of sentence pairs for other data; a pair with an empty side; the
        main data, a source with a weight, or a split, of which nothing is left.
    """
    of_pairs = pairs.texts_in(store.arrays)
    if not of_pairs:
        _refuse_of_pairs(store, config)
    if not store.external and not config['clean'] and not config['filters'] and config['personal'] == 'keep' and not of_pairs:
        return store, {**splits}, {}
    given = store
    store, finds, seconds = _masked(store, config['personal'])
    ranges = [source.rows for source in store.external]
    rows = np.concatenate([splits['train'], *(np.arange(one.start, one.stop) for one in ranges)])
    origin = np.repeat(np.arange(1 + len(ranges)), [len(splits['train']), *map(len, ranges)])
    sizes, steps = np.bincount(origin, minlength=1 + len(ranges)), {}
    held = [_bytes(given, rows[origin == number]) for number in range(len(sizes))]
    if of_pairs:
        _refuse_empty(store, {**splits, 'train': rows}, config)
    cleaned, removed = _cleaned(store, splits, config)
    scored = np.concatenate([cleaned['validation'], cleaned['test']])
    finders = dict(_steps(store, scored, config))
    if config['personal'] == 'drop':
        finders = {DROPPED: None, **finders}
    for step, find in finders.items():
        if find is None:
            found = finds[rows].any(1)
        else:
            found, seconds[step] = _found(step, find, store, rows, scored, origin == 0)
        steps[step] = np.bincount(origin[found], minlength=len(sizes)).tolist()
        rows, origin = rows[~found], origin[~found]
    kept = np.bincount(origin, minlength=len(sizes)).tolist()
    sources = [{'name': store.name, 'licence': '', 'price': 0.0, 'weight': 0.0, 'seconds': store.seconds}]
    sources += [{key: getattr(source, key) for key in _GIVEN} for source in store.external]
    for number, source in enumerate(sources):
        source |= {
            'rows': int(sizes[number]),
            'bytes': held[number],
            'removed': {step: counts[number] for step, counts in steps.items()},
        }
        source['kept'] = kept[number]
        if source['rows'] and not source['kept'] and (source['weight'] or not number):
            raise catalogue.ConfigError(
                f"data.filters remove all {source['rows']} training examples of '{source['name']}' "
                f'({_told(source["removed"])}): expected some to be left. '
                'Leave a filter out, or look at the data.'
            )
    counts = {}
    if finds is not None:
        counts = dict(zip(personal.NAMES, finds[np.concatenate([rows, scored])].sum(0).tolist(), strict=True))
    card = {'steps': [*steps], 'sources': sources, 'seconds': seconds, 'personal': counts}
    return store, {**cleaned, 'train': rows}, card | ({'scored': removed} if config['clean'] else {})


def _cleaned(
    store: 'Store', splits: Mapping[str, np.ndarray], config: Mapping[str, Any]
) -> tuple[dict[str, np.ndarray], dict[str, dict[str, int]]]:
    """(validation and test without what the rules of `data.clean` find; {split: {rule: how many}})."""
    cleaned = {split: splits[split] for split in ('validation', 'test')}
    removed: dict[str, dict[str, int]] = {split: {} for split, rows in cleaned.items() if len(rows)}
    for split in removed:
        for name in config['clean']:
            rows = cleaned[split]
            find = catalogue.resolve('rule', name, RULES)
            found, _ = _found(name, find, store, rows, np.zeros(0, np.int64), np.ones(len(rows), bool))
            cleaned[split], removed[split][name] = rows[~found], int(found.sum())
        if not len(cleaned[split]):
            raise catalogue.ConfigError(
                f"data.clean leaves out all {len(splits[split])} {split} examples of '{store.name}' "
                f'({_told(removed[split])}): expected some to be left. Leave a rule out, or look at the data.'
            )
    return cleaned, removed


def _refuse_of_pairs(store: 'Store', config: Mapping[str, Any]) -> None:
    """Raises ConfigError for settings of sentence pairs; rules look at other texts themselves, which may have two lines."""
    for field, plain in (('target_tokenizer', 'shared'), ('targets', 'given')):
        if (name := config[field]['name']) != plain:
            raise catalogue.ConfigError(
                f"data.{field} is '{name}', and '{store.name}' has no sentence pairs, whose targets it is for: set "
                f"data.{field}.name to '{plain}', or choose such data (data.name 'parallel')."
            )
    for name in (*config['clean'], *config['filters']) if store.moments is not None else ():
        if catalogue.resolve('filter', name, FILTERS).__module__ == pairs.__name__:
            raise catalogue.ConfigError(
                f"The rule '{name}' looks at sentence pairs, and '{store.name}' has images: leave it out of data.clean and "
                "data.filters, or choose data.name 'parallel'."
            )


def _told(counts: Mapping[str, int]) -> str:
    return ', '.join(f'{step}: {count}' for step, count in counts.items())


def _refuse_empty(store: 'Store', splits: Mapping[str, np.ndarray], config: Mapping[str, Any]) -> None:
    for split, rows in splits.items():
        if len(rows) and 'empty' not in (*config['clean'], *(config['filters'] if split == 'train' else ())):
            # A reader counts from the first row of a file, which is a part; a split may be cut from the training part.
            first = next(part.start for part in store.parts.values() if rows[0] in part)
            pairs.refuse_empty(store.name, split, rows - first, {side: store.arrays[side][rows] for side in pairs.SIDES})


def spent(card: Mapping[str, Any]) -> float:
    """What the examples of a data card cost, those that a filter removed among them; 0 of {}."""
    return sum(source['price'] * source['rows'] for source in card.get('sources', ()))


def examples(store: 'Store', rows: np.ndarray) -> np.ndarray:
    """Images [N, H, W, C], or texts [N], of which both of a pair are one.

    Raises:
      ConfigError: data with neither.
    """
    if store.moments is not None:
        return store.arrays['image'][rows]
    if pairs.texts_in(store.arrays):
        return pairs.joined(*(store.arrays[side][rows] for side in pairs.SIDES))
    if 'text' in store.arrays:
        texts = [store.arrays[field][rows] for field in ('text', 'pair') if field in store.arrays]
        return np.array(['\n'.join(pair) for pair in zip(*texts, strict=True)], object)
    raise catalogue.ConfigError(
        f"data.external and data.filters look at images or texts, and '{store.name}' has the fields "
        f'{", ".join(sorted(store.arrays))}: set them to (), or choose other data.'
    )


def _bytes(store: 'Store', rows: np.ndarray) -> int:
    """Of all fields of some rows, texts as UTF-8."""
    return sum(
        sum(len(text.encode()) for text in column[rows])
        if column.dtype == object
        else len(rows) * column.dtype.itemsize * math.prod(column.shape[1:])
        for column in store.arrays.values()
    )


def _masked(store: 'Store', setting: str) -> tuple['Store', np.ndarray | None, dict[str, float]]:
    """(the store with masked texts; what was masked in each row, int64 [N, K], None where texts are kept; its seconds)."""
    if setting == 'keep':
        return store, None, {}
    fields = [field for field, column in store.arrays.items() if column.dtype == object]
    if not fields or (places := [field for field in spans.FIELDS if field in store.arrays]):
        why = f'{places[0]}, which masks would move' if fields else 'no texts'
        raise catalogue.ConfigError(f"data.personal is '{setting}', and '{store.name}' has {why}: set it to 'keep'.")

    def make() -> dict[str, np.ndarray]:
        found, began = {}, time.perf_counter()
        for field in fields:
            texts, found[f'{field} finds'] = personal.masked(store.arrays[field][:])
            found[field] = np.frombuffer(json.dumps(texts.tolist()).encode(), np.uint8)
        return found | {'seconds': np.array([time.perf_counter() - began])}

    code = hashlib.sha256(pathlib.Path(personal.__file__).read_bytes()).hexdigest()
    kept = token_cache.kept(['masks', code, store.checksum], make, 'filters')
    of_type = type(store.arrays[fields[0]])
    texts = {field: of_type(np.array(json.loads(bytes(kept[field])), object)) for field in fields}
    checksum = hashlib.sha256(f'{store.checksum} masked by {code}'.encode()).hexdigest()[:16]
    finds = sum(np.array(kept[f'{field} finds']) for field in fields)
    return (
        dataclasses.replace(store, arrays={**store.arrays, **texts}, checksum=checksum),
        finds,
        {'personal': kept['seconds'].item()},
    )


def _steps(store: 'Store', scored: np.ndarray, config: Mapping[str, Any]) -> Iterator[tuple[str, Callable[..., np.ndarray]]]:
    for name in config['clean']:
        yield name, catalogue.resolve('rule', name, RULES)
    if pairs.texts_in(store.arrays):
        yield LEAKED, lambda looked_at, labels, main: pairs.leaked(looked_at, examples(store, scored))
    elif store.external or 'duplicates' in config['filters']:

        def leaked(looked_at: np.ndarray, labels: Any, main: Any) -> np.ndarray:
            del labels, main
            found = np.zeros(len(looked_at), bool)
            if len(scored):
                found[duplicates.find(looked_at, examples(store, scored))[0]] = True
            return found

        yield LEAKED, leaked
    for name in config['filters']:
        yield name, catalogue.resolve('filter', name, FILTERS)


def _found(
    step: str, find: Callable[..., np.ndarray], store: 'Store', rows: np.ndarray, scored: np.ndarray, main: np.ndarray
) -> tuple[np.ndarray, float]:
    """(what a filter finds among the rows, bool [N], read from disk where it is there; the seconds that it took to find)."""

    def make() -> dict[str, np.ndarray]:
        began = time.perf_counter()
        labels = store.arrays['label'][rows] if store.classes is not None else None
        found = np.asarray(find(examples(store, rows), labels, main))
        if found.dtype != bool or found.shape != rows.shape:
            raise catalogue.ConfigError(
                f"The filter '{step}' returned {found.dtype} {found.shape}, expected bool [{len(rows)}], True where an example "
                'is to be removed.'
            )
        return {'found': found, 'seconds': np.array([time.perf_counter() - began])}

    if not len(rows):
        return np.zeros(0, bool), 0.0
    if step not in (LEAKED, *FILTERS):  # a function of one's own may be another than the last time
        made = make()
        return made['found'], made['seconds'].item()
    module = sys.modules[FILTERS[step].partition(':')[0]] if step != LEAKED else pairs
    files = [module.__file__, duplicates.__file__, __file__]
    code = hashlib.sha256(b''.join(pathlib.Path(str(file)).read_bytes() for file in files)).hexdigest()
    versions = {name: _version(name) for name in ('numpy', 'scikit-learn', 'cleanlab')}
    read = [hashlib.sha256(np.ascontiguousarray(array).data).hexdigest() for array in (rows, scored, main)]
    kept = token_cache.kept([step, code, versions, store.checksum, read], make, 'filters')
    return np.array(kept['found']), kept['seconds'].item()


def _version(package: str) -> str:
    """'' where it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ''
