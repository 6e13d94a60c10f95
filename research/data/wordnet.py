"""WordNet 3.0's glosses: 'a separate and self-contained entity' is a noun.Tops, one of 45 lexical classes.

Some 117,000 texts of about 12 words, a class has 42 to 14,435. `data.path` is the folder of data.noun, data.verb, data.adj and
data.adv (Debian: wordnet-base).

Source: G. A. Miller, "WordNet: a lexical database for English", 1995.
"""

import pathlib

import numpy as np

from research.catalogue import ConfigError
from research.data import order

_FILES = ('data.noun', 'data.verb', 'data.adj', 'data.adv')

_OF_NOUNS = 'Tops act animal artifact attribute body cognition communication event feeling food group location motive object'
_OF_NOUNS += ' person phenomenon plant possession process quantity relation shape state substance time'
_OF_VERBS = 'body change cognition communication competition consumption contact creation emotion motion perception possession'
_OF_VERBS += ' social stative weather'
# The lexicographer files, by number.
CLASSES = (
    *('adj.all', 'adj.pert', 'adv.all'),
    *(f'noun.{name}' for name in _OF_NOUNS.split()),
    *(f'verb.{name}' for name in _OF_VERBS.split()),
    'adj.ppl',
)


def glosses(path: str) -> dict[str, dict[str, np.ndarray]]:
    """{'train', 'test'} -> {'text': N texts, no two alike, 'label': int32 [N]}; of each class a quarter, 150 at most, is test.

    Raises:
      ConfigError: a file is missing.
    """
    folder, found = pathlib.Path(path).expanduser(), {}
    if missing := [name for name in _FILES if not (folder / name).is_file()]:
        raise ConfigError(f"data.path='{path}' has no {missing[0]}: expected WordNet's folder (Debian: wordnet-base).")
    for name in _FILES:
        for line in (folder / name).read_text('ascii').splitlines():
            if not line.startswith('  '):  # the licence
                synset, _, gloss = line.partition(' | ')
                found.setdefault(gloss.strip(), int(synset.split()[1]))
    texts, labels = np.array([*found], object), np.array([*found.values()], np.int32)
    shuffled = order.indices(0, 0, len(texts), len(texts))
    of_class = [shuffled[labels[shuffled] == label] for label in range(labels.max() + 1)]
    test = np.sort(np.concatenate([rows[: min(len(rows) // 4, 150)] for rows in of_class]))
    rows = {'train': np.setdiff1d(shuffled, test), 'test': test}
    return {part: {'text': texts[of_part], 'label': labels[of_part]} for part, of_part in rows.items()}


def texts(path: str) -> dict[str, dict[str, np.ndarray]]:
    """The same without classes: {'train', 'test'} -> {'text': N texts}."""
    return {part: {'text': fields['text']} for part, fields in glosses(path).items()}
