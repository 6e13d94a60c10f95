"""Tokens kept on disk: a second launch, and each process of a study, reads them memory-mapped instead of encoding texts again.

They lie in `files.cache('tokens')`; what filters find (research/data/curation.py) lies beside them. An entry is a folder of
arrays, named by a hash of all that they are made of. It is written to a temporary folder and renamed, and compared with its
checksums whenever it is read; what is missing or damaged is made anew.
"""

import contextlib
import hashlib
import json
import os
import pathlib
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from research import files
from research.data import spans, tokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# Letters of a source. Fewer take two seconds at most, and leave no files.
_LEAST = 1_000_000

# Bytes of all entries; beyond them, those that were read longest ago are removed.
_MOST = 10 << 30


def rows(
    arrays: Mapping[str, Any], splits: Mapping[str, np.ndarray], config: Mapping[str, Any], checksum: str
) -> tuple[dict[str, np.ndarray], Mapping[str, np.ndarray], 'Tokenizer']:
    """`tokenizer.rows`, with what it returns and raises, kept for the next time where the texts are many.

    Args:
      arrays, splits, config: its own.
      checksum: of the source, which tells other texts apart.
    """
    made = tokenizer.fitted(learned(arrays, splits, config, checksum), config)
    return *coded(made, arrays, splits, config, checksum), made


def learned(
    arrays: Mapping[str, Any], splits: Mapping[str, np.ndarray], config: Mapping[str, Any], checksum: str
) -> 'Tokenizer':
    """`tokenizer.learned`, kept likewise; `checksum` tells other texts apart."""
    # A file, and a function of one's own, may be another than the last time.
    if _few(arrays) or config['tokenizer']['name'] not in tokenizer.TRAINED:
        return tokenizer.learned(arrays, splits, config)
    import tokenizers

    def learn() -> dict[str, np.ndarray]:
        return {'json': np.frombuffer(tokenizer.learned(arrays, splits, config).to_str().encode(), np.uint8)}

    json_of = kept([*_source(checksum), {**config['tokenizer']}, _hash(splits['train'])], learn)['json']
    return tokenizers.Tokenizer.from_str(bytes(json_of).decode())


def coded(
    made: 'Tokenizer', arrays: Mapping[str, Any], splits: Mapping[str, np.ndarray], config: Mapping[str, Any], checksum: str
) -> tuple[dict[str, np.ndarray], Mapping[str, np.ndarray]]:
    """`tokenizer.coded`, kept likewise; `checksum` tells other texts apart."""
    if _few(arrays):
        return tokenizer.coded(made, arrays, splits, config)

    def encode() -> dict[str, np.ndarray]:
        tokens, found = tokenizer.coded(made, arrays, splits, config)
        return tokens | {f'split-{split}': of_split for split, of_split in found.items()}

    key = [*_source(checksum), made.to_str(), config['pack'], {split: _hash(of_split) for split, of_split in splits.items()}]
    read_back = kept(key, encode)
    found = {split: np.array(read_back.pop(f'split-{split}')) for split in splits}
    return read_back, found


def _few(arrays: Mapping[str, Any]) -> bool:
    return sum(len(text) for name in (tokenizer.TEXT, tokenizer.PAIR) if name in arrays for text in arrays[name][:]) < _LEAST


def _source(checksum: str) -> list[str]:
    import tokenizers

    code = _hash(pathlib.Path(file).read_bytes() for file in (tokenizer.__file__, spans.__file__, __file__))
    return [code, tokenizers.__version__, checksum]


def _hash(content: Iterable[bytes] | np.ndarray) -> str:
    digest = hashlib.sha256()
    for part in [np.ascontiguousarray(content).data] if isinstance(content, np.ndarray) else content:
        digest.update(part)
    return digest.hexdigest()


def kept(key: Any, make: Callable[[], dict[str, np.ndarray]], name: str = 'tokens') -> dict[str, np.ndarray]:
    """What `make` returns, from its entry in `files.cache(name)` if there is one, else made and kept."""
    folder = files.cache(name)
    entry = folder / hashlib.sha256(json.dumps(key, sort_keys=True, default=repr).encode()).hexdigest()[:32]
    try:
        return _read(entry)
    except (OSError, ValueError, TypeError, AttributeError):  # none, or a damaged one
        shutil.rmtree(entry, ignore_errors=True)
    made = make()
    with contextlib.suppress(OSError):  # no room or no right to write, or another process was first
        _write(entry, made)
        _shrink(folder)
    return made


def _read(entry: pathlib.Path) -> dict[str, np.ndarray]:
    sums = json.loads((entry / 'sums.json').read_text())
    if {*sums} != {path.stem for path in entry.glob('*.npy')} or sums != {name: _sum(entry, name) for name in sums}:
        raise ValueError('another content than was written')
    with contextlib.suppress(OSError):  # where it is another's, who may read alone
        os.utime(entry)  # for `_shrink`
    return {name: np.load(entry / f'{name}.npy', mmap_mode='r') for name in sums}


def _sum(entry: pathlib.Path, name: str) -> str:
    with open(entry / f'{name}.npy', 'rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()


def _write(entry: pathlib.Path, made: Mapping[str, np.ndarray]) -> None:
    entry.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix='.', dir=entry.parent, ignore_cleanup_errors=True) as name:
        aside = pathlib.Path(name)
        for field, array in made.items():
            np.save(aside / f'{field}.npy', array)
        (aside / 'sums.json').write_text(json.dumps({field: _sum(aside, field) for field in made}))
        aside.rename(entry)


def _shrink(folder: pathlib.Path) -> None:
    """Keeps the newest entry and those that were read last; also removes what a kill left, as it grows old."""
    entries = [entry for entry in folder.iterdir() if entry.is_dir()]
    size = 0
    for place, entry in enumerate(sorted(entries, key=lambda entry: -entry.stat().st_mtime)):
        size += sum(file.stat().st_size for file in entry.iterdir())
        if place and size > _MOST:
            shutil.rmtree(entry, ignore_errors=True)
