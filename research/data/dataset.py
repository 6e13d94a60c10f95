"""A data set for the trainer: examples of named fields, by row, and which rows may be read."""

import dataclasses
import hashlib
import math
import mmap
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import numpy as np

from research.catalogue import ConfigError
from research.data import curation, imbalance, order, pair_tokens, pairs, spans, token_cache, tokenizer

# The trainer adds these to each batch.
RESERVED = ('valid', 'position')

# The facts that are numbers, see `Dataset.facts`.
NUMBERS = ('counts', 'group_counts', 'label_mean', 'label_std', 'mean', 'padding', 'std', 'token_bytes', 'token_counts')

# Fields of a source that are texts.
TEXTS = (tokenizer.TEXT, tokenizer.PAIR)

# Parts that a source may have.
PARTS = ('train', 'test', 'validation')


class Field(NamedTuple):
    """One named part of an example.

    Attributes:
      shape, dtype: of one example.
      fill: value of an empty row (-1), broadcast to `shape`.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    fill: Any = 0


class External(NamedTuple):
    """A source whose rows stand behind the main data's, see research/data/external.py."""

    rows: range
    name: str
    licence: str
    price: float
    weight: float
    seconds: float = 0.0


class Column:
    """Arrays [N_i, *shape] end to end, read as one [N, *shape]. Nothing is copied, so the arrays may be memory-mapped."""

    def __init__(self, *parts: np.ndarray):
        self.parts = parts
        self.shape = (sum(map(len, parts)), *parts[0].shape[1:])
        self.dtype = parts[0].dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> np.ndarray:
        """[*rows.shape, *shape] of whole numbers in [0, N); a slice or a single number as NumPy takes it."""
        rows = rows if isinstance(rows, np.ndarray) else np.arange(len(self))[rows]
        out, first = None, 0
        for part in self.parts:
            inside = (rows >= first) & (rows < first + len(part))
            if inside.all():
                return np.asarray(part[rows - first])
            out = np.empty((*rows.shape, *self.shape[1:]), self.dtype) if out is None else out
            out[inside] = part[rows[inside] - first]
            first += len(part)
        return out

    def expect_random_reads(self) -> None:
        """Tells the system not to read ahead in memory-mapped files: for each row of 12 kB it would fetch 128 kB."""
        for part in self.parts:
            owner: Any = part
            while isinstance(owner, np.ndarray):
                owner = owner.base
            if isinstance(owner, mmap.mmap) and hasattr(mmap, 'MADV_RANDOM'):
                owner.madvise(mmap.MADV_RANDOM)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[:], dtype)


Arrays = Mapping[str, Column]


@dataclasses.dataclass(frozen=True)
class Store:
    """All examples of a source, read once a process; data sets are cuts of it.

    Attributes:
      name: as in the config.
      arrays: {field: Column}.
      parts: of `PARTS` those that the source has -> their rows.
      checksum: hash of the content of all fields, the same wherever and however they were stored.
      classes: number of classes; None if 'label' is not a class.
      moments: the `moments` of field 'image'; None without images.
      class_names: of each class, tag or yes-or-no column its name, for reports alone; () where the source knows none.
      group_names: likewise of the numbers in field 'group'.
      keys: uint64 [N], hashes of the examples' content, by which splits are cut; None: they are cut by position.
      external: sources whose rows belong to no part; all of them are for training.
      seconds: that reading took; in no checksum.
    """

    name: str
    arrays: Arrays
    parts: Mapping[str, range]
    checksum: str
    classes: int | None
    moments: np.ndarray | None
    class_names: tuple[str, ...] = ()
    group_names: tuple[str, ...] = ()
    keys: np.ndarray | None = None
    external: tuple[External, ...] = ()
    seconds: float = 0.0


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Examples of named fields, and which of them a run may read.

    Attributes:
      name, arrays, checksum, class_names, group_names: of the `Store`. Texts are rows of tokens here, see
        `research.data.tokenizer.rows`.
      splits: 'train', 'validation' and 'test' -> int64 rows, sorted and disjoint. Nothing outside them is ever read.
      fields: what an example consists of.
      facts: for tasks and models, plain hashable Python values. If field 'label' is int32 [N]: 'classes' (labels are in [0,
        classes)) and 'counts' (training examples of each class). If field 'group' is whole numbers [N]: 'groups', how many
        there are, and 'group_counts', training examples of each, by number. If field 'image' is uint8 or float32 [N, H, W, C]:
        'mean' and 'std' of the training split, a float per channel, in the unit of the images; without images of field
        'features', floats [N, F], 'features' is F, and 'mean' and 'std' are of each. If 'label' is floats [N]: 'label_mean' and
        'label_std' of the training split. If field 'labels' is [N, K]: 'labels' is K. If field 'tags' is whole numbers [N, T],
        or words have tags: 'tags' (they are below it). Of texts: 'vocabulary_size'; 'special_tokens', the numbers of
        `tokenizer.SPECIAL`, None of a missing one; 'continues', which tokens continue a word, bool each; 'token_bytes' of byte
        pairs, UTF-8 bytes of each, 0 of special ones; 'token_counts' in the training split, 0 of special tokens; 'padding', the
        share of places without a token. Of sentence pairs, these but 'token_counts' for the source, 'target_vocabulary_size',
        and 'bos', 'eos' and 'pad', numbers of the target's tokens. Those in `NUMBERS` reach a program as constants and are not
        part of its compile key; the others are.
      tokenizer: of texts, as the text of a `tokenizer.json`; else ''.
      target_tokenizer: of the targets of sentence pairs, where they have one of their own; else ''.
      external: sources of some training rows.
      card: of the training split, what it is made of and what was left out, see `curation.curated`.
      sentences: of sentence pairs 'source' and 'target', a text a row, as it was read or as `data.targets` says; of packed rows
        several lines; else {}.
    """

    name: str
    arrays: Arrays
    checksum: str
    splits: Mapping[str, np.ndarray]
    fields: Mapping[str, Field]
    facts: Mapping[str, Any]
    tokenizer: str = ''
    class_names: tuple[str, ...] = ()
    group_names: tuple[str, ...] = ()
    external: tuple[External, ...] = ()
    card: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    target_tokenizer: str = ''
    sentences: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def cut(store: Store, config: Mapping[str, Any]) -> Dataset:
    """The data set of a config.

    Args:
      config: `config.data`; of its fields those in `research.data.CUT` are read.

    Raises:
      ConfigError: no test split, a cut that leaves nothing or one example, labels that are hidden, or answers other than 0
        and 1.
    """
    splits = _splits(store, config)
    facts: dict[str, Any] = {}
    if store.classes is not None or {'text', 'label'} <= {*store.arrays}:
        for split, rows in splits.items():
            _refuse_hidden(store, split, rows)
    labels = None if store.classes is None else store.arrays['label'][splits['train']]
    splits['train'] = imbalance.thin(splits['train'], labels, config)
    store, splits, card = curation.curated(store, splits, config)
    if store.classes is not None:
        labels = store.arrays['label'][splits['train']]
        facts['classes'] = store.classes
        facts['counts'] = tuple(np.bincount(labels, minlength=store.classes).tolist())
    group = store.arrays.get('group')
    if group is not None and len(group.shape) == 1 and group.dtype.kind in 'iu':
        numbers = np.unique(group[:])
        facts['groups'] = len(numbers)
        if numbers[0] >= 0:
            facts['group_counts'] = tuple(np.bincount(group[splits['train']], minlength=numbers[-1] + 1).tolist())
    if store.moments is not None:
        height, width = store.arrays['image'].shape[1:3]
        facts['mean'], facts['std'] = _mean_and_std(store.moments[splits['train']], height * width)
    elif (features := store.arrays.get('features')) is not None and features.dtype.kind == 'f' and len(features.shape) == 2:
        facts['features'] = features.shape[1]
        facts['mean'], facts['std'] = _of_numbers(features, splits['train'])
    label = store.arrays.get('label')
    if label is not None and label.dtype.kind == 'f' and len(label.shape) == 1:
        (facts['label_mean'],), (facts['label_std'],) = _of_numbers(label, splits['train'])
    if 'labels' in store.arrays and len(store.arrays['labels'].shape) == 2:
        _refuse_other_answers(store, splits)
        facts['labels'] = store.arrays['labels'].shape[1]
    arrays, checksum, saved, of_target, sentences = store.arrays, store.checksum, '', '', {}
    tags = arrays.get('tags', arrays.get(spans.WORD_TAGS))
    if tags is not None and tags.dtype.kind in 'iu' and len(tags.shape) == 2:
        facts['tags'] = max(int(part.max()) for part in tags.parts) + 1
    if tokenizer.TEXT in arrays:
        tokens, splits, made = token_cache.rows(arrays, splits, config, checksum)
        kept = {name: array for name, array in arrays.items() if name not in tokenizer.read(arrays)}
        arrays = kept | {name: Column(array) for name, array in tokens.items()}
        facts |= {**tokenizer.facts(made), 'padding': 1 - float(tokens['mask'].mean())}
        read = tokens['tokens'][splits['train']][tokens['mask'][splits['train']]]
        words = np.bincount(read, minlength=facts['vocabulary_size'])
        words[[number for number in facts['special_tokens'] if number is not None]] = 0
        facts['token_counts'], saved = tuple(words.tolist()), made.to_str()
    elif pairs.texts_in(arrays):
        arrays, checksum = pair_tokens.taught(arrays, splits['train'], config, checksum)
        tokens, sentences, splits, told, (saved, of_target) = pair_tokens.rows(arrays, splits, config, checksum)
        arrays, facts = {**arrays, **{name: Column(array) for name, array in tokens.items()}}, facts | told
    elif config['pack']:
        raise ConfigError(f"data.pack puts several texts in a row, and '{store.name}' has none: set it to False.")
    if saved:
        checksum = hashlib.sha256(f'{checksum} {saved}{of_target}'.encode()).hexdigest()[:16]
    fields = {field: Field(array.shape[1:], array.dtype) for field, array in arrays.items()}
    return Dataset(
        store.name,
        arrays,
        checksum,
        splits,
        fields,
        facts,
        saved,
        store.class_names,
        store.group_names,
        store.external,
        card,
        of_target,
        sentences,
    )


def _splits(store: Store, config: Mapping[str, Any]) -> dict[str, np.ndarray]:
    parts = {part: np.arange(rows.start, rows.stop) for part, rows in store.parts.items()}
    has, training, official = ', '.join(parts), parts['train'], config['official_validation']
    if official and 'validation' not in parts:
        raise ConfigError(
            f"data.official_validation is True, but '{store.name}' has only the parts {has}: set it to False, and "
            'data.validation cuts a validation split out of the training data.'
        )
    keys, seed = store.keys, config['split_seed']
    if config['test']:
        rest, cut_off = order.cut_test(len(training), config['test'], seed, None if keys is None else keys[training])
        training, test = training[rest], training[cut_off]
    elif 'test' in parts:
        test = parts['test']
    elif 'validation' in parts and not official:
        test = parts['validation']  # many data sets call it so
    else:
        raise ConfigError(
            f"'{store.name}' has no test split: its parts are {has}. Set data.test, such as 0.2, to cut one out of the "
            'training data.'
        )
    train, validation = order.split(
        *(len(training), 0 if official else config['validation'], config['examples'], seed),
        None if keys is None else keys[training],
    )
    splits = {'train': training[train], 'validation': parts['validation'] if official else training[validation], 'test': test}
    asked = {split for split in ('test', 'validation') if config[split]}
    if keys is not None:
        asked |= {'train', 'test'} | ({'validation'} if official else set())
    _refuse_single(store.name, splits, asked)
    return splits


def _refuse_single(name: str, splits: Mapping[str, np.ndarray], asked: Collection[str]) -> None:
    """Raises ConfigError where a split that was asked for has one example or none, which says nothing about others."""
    for split, rows in splits.items():
        if len(rows) < 2 and split in asked:
            sizes = ', '.join(f'{len(of_split)} {kind}' for kind, of_split in splits.items())
            raise ConfigError(
                f"The {split} split of '{name}' has {len(rows)} examples ({sizes}), expected at least 2. Add some, or change "
                'data.test, data.validation or data.examples.'
            )


def _refuse_other_answers(store: Store, splits: Mapping[str, np.ndarray]) -> None:
    for split, rows in splits.items():
        answers = store.arrays['labels'][rows]
        if len(bad := np.flatnonzero(((answers != 0) & (answers != 1)).any(1))):
            raise ConfigError(
                f"The field 'labels' of '{store.name}' has {answers[bad[0]].tolist()} at {split} example {bad[0]}: "
                f'{len(bad)} of {len(rows)} have other numbers than 0 and 1. Mend them, or give the field another name.'
            )


def _refuse_hidden(store: Store, split: str, rows: np.ndarray) -> None:
    labels = store.arrays['label'][rows]
    # One number for a text may be -1, but not all of a split.
    hidden = int((labels < 0).sum()) if store.classes is not None else len(labels) * bool((labels == -1).all())
    if hidden:
        cure = (
            'Set data.test, such as 0.2, to cut a test split out of the training data.'
            if split == 'test'
            else ("Leave them out in a loader function of your own, 'my_paper.data:load'.")
        )
        raise ConfigError(
            f"{hidden} of {len(rows)} {split} examples of '{store.name}' have no label (-1): they cannot be scored. {cure}"
        )


def take(dataset: Dataset, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Some examples as arrays on the host.

    Args:
      dataset: where they are read from.
      rows: int [N] or [N, k]; -1 is empty.

    Returns:
      {field: [*rows.shape, *shape]}, with the field's fill in rows of -1.
    """
    taken = {name: dataset.arrays[name][np.maximum(rows, 0)] for name in dataset.fields}
    for name, field in dataset.fields.items():
        taken[name][rows == -1] = field.fill
    return taken


def _mean_and_std(sums: np.ndarray, pixels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    mean, square = sums.sum(0) / (len(sums) * pixels)
    std = np.sqrt(np.maximum(square - mean**2, 0))
    return tuple(mean.tolist()), tuple(np.where(std > 0, std, 1.0).tolist())  # a constant channel is only shifted


def _of_numbers(column: Column, rows: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation of some rows of [N] or [N, F], float64 and block by block."""

    def mean_of(f):
        blocks = (column[rows[i : i + 65536]].reshape(-1, math.prod(column.shape[1:])) for i in range(0, len(rows), 65536))
        return sum(f(block.astype(np.float64)).sum(0) for block in blocks) / len(rows)

    mean = mean_of(lambda block: block)
    std = np.sqrt(mean_of(lambda block: (block - mean) ** 2))
    # A constant column, whose deviation is rounding alone, is only shifted.
    return tuple(mean.tolist()), tuple(np.where(std > 1e-10 * abs(mean), std, 1.0).tolist())
