"""The data sets by name.

A name is `digits`, `unicode_names`, `spam_assassin`, `wordnet`, files of one's own (`images` in a folder by class,
`table` with named columns, `texts`, `parallel`, `arrays` of NumPy: see folders.py, columns.py, texts.py, parallel.py and
array_files.py of research/data), one in TFDS's catalogue (images: `fashion_mnist`, `mnist`, `cifar10`, `emnist/balanced`;
texts: `glue/sst2`, `imdb_reviews`), or the import path `my_paper.data:load` of a function

    def load(path):
        return {'train': (images, labels), 'test': (images, labels)}

with `path` as in `config.data.path`, images uint8 or float32 [N, H, W] or [N, H, W, C] and labels whole numbers [N]. Data of
other fields are a mapping instead of each pair, with the same fields in both:

        {'tokens': whole numbers [N, T], 'mask': bool [N, T], 'label': whole numbers [N]}

Fields 'image' and 'label' mean the same as in a pair; the others are for the task. A field 'text' of N texts, and 'pair' of
second ones, become the fields 'tokens', 'mask' and, with pairs, 'segments' (see data.tokenizer); 'source' and 'target', of
sentences and their translations, rows of tokens too (research/data/pair_tokens.py); whole numbers [N] as 'document' beside
pairs say which belong together, for `task.next_sentence`; as 'group', which examples are scored together (`data.group` is the
name of the field where it has another). A part 'validation' may be there, and 'test' may be missing (see
data.official_validation and data.test in research/config/base.py). Arrays may be memory-mapped files
(`numpy.load(file, mmap_mode='r')`): they are not read into memory as a whole. See `arrays.from_arrays`.
"""

import collections
import dataclasses
import sys
import time
from collections.abc import Mapping
from typing import Any
from unicodedata import ucd_3_2_0 as database

import numpy as np

from research import catalogue
from research.data import arrays, columns, dataset, external, folders, order, parallel, texts, wordnet

ARRAYS = {
    'arrays': 'research.data.array_files:load',
    'digits': 'research.data.sources:digits',
    'unicode_names': 'research.data.sources:unicode_names',
    'spam_assassin': 'research.data.spam_assassin:mails',
    'wordnet': 'research.data.wordnet:glosses',
    'wordnet_texts': 'research.data.wordnet:texts',
}

# Names of data that are files of the user's own, at data.path.
FILES = ('arrays', 'images', 'parallel', 'table', 'texts')

# What numbers of classes stand for, where a table of the source's says so.
CLASS_NAMES = {
    'unicode_names': (
        *('Cf format', 'Ll lowercase letter', 'Lm modifier letter', 'Lo other letter', 'Lt titlecase letter'),
        *('Lu uppercase letter', 'Mc spacing mark', 'Mn nonspacing mark', 'Nd decimal number', 'Nl letter number'),
        *('No other number', 'Pe close punctuation', 'Po other punctuation', 'Ps open punctuation', 'Sc currency symbol'),
        *('Sk modifier symbol', 'Sm math symbol', 'So other symbol'),
    ),
    'fashion_mnist': (
        *('T-shirt/top', 'Trouser', 'Pullover', 'Dress', 'Coat', 'Sandal', 'Shirt', 'Sneaker', 'Bag', 'Ankle boot'),
    ),
    'spam_assassin': ('ham', 'spam'),
    'wordnet': wordnet.CLASSES,
}

# Beginnings of names that say no more than a number.
_NUMBERED = ('CJK UNIFIED', 'CJK COMPATIBILITY IDEOGRAPH', 'HANGUL SYLLABLE')

# Fields of `config.data` that tell sources apart, and those that tell cuts of one apart.
READ = ('name', 'path', 'text', 'pair', 'label', 'features', 'image', 'group', 'resize', 'crop', 'bad_files')
CUT = (
    *('validation', 'official_validation', 'test', 'examples', 'imbalance', 'external', 'clean', 'filters', 'split_seed'),
    *('personal', 'tokenizer', 'target_tokenizer', 'length', 'target_length', 'pack', 'targets'),
)


def read(config: Mapping[str, Any], whole: bool = False) -> dataset.Store:
    """All examples of a config's source, prepared first if necessary.

    Args:
      config: `config.data`; of its fields those in `READ` are read.
      whole: compare prepared data with their checksum, which reads all of them.

    Raises:
      ConfigError: unknown name, missing or broken files, or data that cannot be prepared here.
    """
    began = time.perf_counter()
    return dataclasses.replace(_read(config, whole), seconds=time.perf_counter() - began)


def _read(config: Mapping[str, Any], whole: bool) -> dataset.Store:
    if config['name'] == 'images':
        return folders.load(config, whole)
    if config['name'] == 'table':
        return columns.load(config, whole)
    if config['name'] == 'texts':
        parts, names, groups = texts.load(*(config[field] for field in ('path', 'text', 'pair', 'label', 'group')))
        store = arrays.from_arrays('texts', parts, config['resize'], config['crop'])
        return dataclasses.replace(store, class_names=names, group_names=groups)
    if config['name'] == 'parallel':
        parts = parallel.load(*(config[field] for field in ('path', 'text', 'pair')))
        return arrays.from_arrays('parallel', parts, config['resize'], config['crop'])
    if _in_arrays(config['name']):
        if config['label']:
            raise catalogue.ConfigError(
                f"data.label is '{config['label']}', but '{config['name']}' has one column of labels: leave it empty."
            )
        parts = _grouped(config['name'], _parts(config), config['group'])
        store = arrays.from_arrays(config['name'], parts, config['resize'], config['crop'])
        return dataclasses.replace(store, class_names=CLASS_NAMES.get(config['name'], ()))
    if config['group']:
        raise catalogue.ConfigError(
            f"data.group is '{config['group']}', and of '{config['name']}' no groups are read: leave it empty, or read the "
            "data in a loader function of your own, 'my_paper.data:load', that returns a field 'group'."
        )
    from research.data import prepared  # imports TFDS, 0.4 s that the digits save

    store = prepared.load(config, beside=(*ARRAYS, *FILES), whole=whole)
    return dataclasses.replace(store, class_names=CLASS_NAMES.get(config['name'], ()))


def load(config: Mapping[str, Any]) -> dataset.Dataset:
    """The data set of a config: `dataset.cut` of what `read` returns; raises what they raise."""
    return dataset.cut(external.join(read(config), config, read), config)


def digits(path: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """scikit-learn's 1,797 handwritten digits: uint8 [N, 8, 8] in 0..16, labels int64 [N]; 36 test images per class.

    Source: E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI, 1998 (its test part).
    """
    import sklearn.datasets  # takes a second

    if path:
        raise catalogue.ConfigError(f"data.path='{path}': digits come with scikit-learn, not from a path. Leave it empty.")
    images, labels = sklearn.datasets.load_digits(return_X_y=True)
    images = images.reshape(-1, 8, 8).astype(np.uint8)
    shuffled = order.indices(0, 0, len(labels), len(labels))
    test = np.sort(np.concatenate([shuffled[labels[shuffled] == digit][:36] for digit in range(10)]))
    train = np.setdiff1d(shuffled, test)
    return {'train': (images[train], labels[train]), 'test': (images[test], labels[test])}


# Of the general categories, those of fewer characters are left out.
_LEAST = 30


def unicode_names(path: str) -> dict[str, dict[str, Any]]:
    """Names of characters and their general category: 'GREEK SMALL LETTER UPSILON WITH DASIA' is a small letter, Ll.

    12,817 texts of one to thirteen words in 18 classes of 31 to 5,073: those of Unicode 3.2, which Python keeps beside its
    current one, so that they are the same everywhere; ideographs and Hangul syllables, which are numbered, are left out. Every
    fifth of a class, in a shuffled order, is for the test.

    Source: The Unicode Consortium, "The Unicode Standard, Version 3.2", 2002.
    """
    if path:
        raise catalogue.ConfigError(f"data.path='{path}': unicode_names come with Python, not from a path. Leave it empty.")
    named = [(database.name(c, ''), database.category(c)) for c in map(chr, range(sys.maxunicode + 1))]
    named = [(name, kind) for name, kind in named if name and not name.startswith(_NUMBERED)]
    counts = collections.Counter(kind for _, kind in named)
    kinds = sorted(kind for kind, count in counts.items() if count >= _LEAST)
    names = np.array([name for name, kind in named if kind in kinds], object)
    labels = np.array([kinds.index(kind) for _, kind in named if kind in kinds])
    shuffled = order.indices(0, 0, len(labels), len(labels))
    test = np.sort(np.concatenate([shuffled[labels[shuffled] == label][::5] for label in range(len(kinds))]))
    train = np.setdiff1d(shuffled, test)
    return {part: {'text': names[rows], 'label': labels[rows]} for part, rows in (('train', train), ('test', test))}


def _in_arrays(name: str) -> bool:
    return name in ARRAYS or ':' in name


def _grouped(name: str, parts: Any, group: str) -> Any:
    """Parts of fields, of which one of another name becomes 'group'."""
    if not group or not isinstance(parts, Mapping):
        return parts
    for part, fields in parts.items():
        found = sorted(fields) if isinstance(fields, Mapping) else ['image', 'label']
        if group not in found or not isinstance(fields, Mapping):
            raise catalogue.ConfigError(
                f"data.group is '{group}', and the {part} part of data '{name}' has the fields {', '.join(found)}: expected "
                'one more, a whole number for each example, in a mapping {field: array}.'
            )
    return {
        part: {'group' if field == group else field: values for field, values in fields.items()}
        for part, fields in parts.items()
    }


def _parts(config: Mapping[str, Any]) -> Any:
    loader = catalogue.resolve('data', config['name'], ARRAYS)
    catalogue.check('data', config['name'], loader, {'path': config['path']})
    return loader(path=config['path'])
