"""Files that are written whole or not at all, and metrics.jsonl, whose last line a kill may have cut short. Needs no jax."""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# In a study's folder: held by the launch that is at work there.
LOCK = '.lock'


def write(path: Path, content: str | bytes, sync: bool = False) -> None:
    """Writes to a temporary file beside `path` and renames it, so that no reader ever sees half a file.

    Args:
      path: of the file; its folder exists.
      content: text is encoded as UTF-8.
      sync: flush to disk before the rename, so that the file also survives a crash of the machine.

    Raises:
      OSError: the file cannot be written; the old file is untouched and no temporary file is left behind.
    """
    # With the process id, because a report may be rebuilt while a launch writes one.
    temporary = path.with_name(f'.{path.name}.tmp-{os.getpid()}')
    try:
        with open(temporary, 'wb') as file:
            file.write(content.encode() if isinstance(content, str) else content)
            if sync:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def cache(name: str) -> Path:
    """A folder for what can be made again at any time, under XDG_CACHE_HOME (~/.cache)."""
    return Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache') / 'frugal' / name


@contextlib.contextmanager
def lock(path: Path) -> Iterator[bool]:
    """Holds a lock file for the block; False where another holds it.

    Raises:
      OSError: the file cannot be made.
    """
    with open(path, 'a') as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The evaluations in a metrics.jsonl, sorted by position (in examples); [] if there is no such file.

    If a restart repeated an evaluation, the later line counts. Lines cut short by a kill are skipped.
    """
    try:
        text = path.read_text(errors='replace')
    except FileNotFoundError:
        return []
    by_position = {}
    for line in text.splitlines():
        try:
            evaluation = json.loads(line)
            by_position[evaluation['position']] = evaluation
        except (ValueError, KeyError, TypeError):
            continue
    return [by_position[position] for position in sorted(by_position)]
