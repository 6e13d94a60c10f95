"""The persistent compilation cache, and care for what jax leaves in it.

jax writes entries non-atomically and never overwrites one: an entry that a kill cut short means a warning and a full
recompilation at every later launch. So each launch checks the entries that were written since the last check.
"""

import collections
import os
import pathlib
import zlib

import jax

from research import files

_ZSTANDARD_MAGIC = b'\x28\xb5\x2f\xfd'
_events: collections.Counter[str] = collections.Counter()
jax.monitoring.register_event_listener(lambda event, **_: _events.update([event]))


def hits() -> int:
    """Programs that the cache has served to this process."""
    return _events['/jax/compilation_cache/cache_hits']


def directory() -> pathlib.Path:
    """JAX_COMPILATION_CACHE_DIR, or `files.cache('xla')`."""
    return pathlib.Path(os.environ.get('JAX_COMPILATION_CACHE_DIR') or files.cache('xla'))


def enable_cache() -> list[str]:
    """Turns the cache on, for programs of any size; returns the names of truncated entries, which were removed.

    Without a folder that can be written it stays off.
    """
    folder = directory()
    removed = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        removed = remove_truncated(folder)
    except OSError:
        jax.config.update('jax_compilation_cache_dir', None)  # jax reads the variable too, and would warn at each program
    else:
        jax.config.update('jax_compilation_cache_dir', str(folder))
        jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)
        jax.config.update('jax_persistent_cache_min_entry_size_bytes', -1)
    return removed


def remove_truncated(folder: pathlib.Path) -> list[str]:
    """Removes truncated entries among those written since the last check; returns their names."""
    checked = folder / '.checked'
    since = checked.stat().st_mtime if checked.exists() else 0.0
    aside = folder / f'.checked.{os.getpid()}'
    aside.touch()  # before the check: what another launch writes meanwhile belongs to the next one
    removed = [e.name for e in sorted(folder.glob('*-cache')) if e.stat().st_mtime >= since and not whole(e)]
    for name in removed:
        (folder / name).unlink(missing_ok=True)
    aside.replace(checked)
    return removed


def whole(entry: pathlib.Path) -> bool:
    """Whether an entry can be unpacked to its end, as far as can be told here."""
    content = entry.read_bytes()
    unpacker, failure = zlib.decompressobj(), zlib.error
    if content.startswith(_ZSTANDARD_MAGIC):
        try:
            import zstandard  # jax packs with it where it is installed
        except ImportError:
            return True
        unpacker, failure = zstandard.ZstdDecompressor().decompressobj(), zstandard.ZstdError
    try:
        unpacker.decompress(content)
    except failure:
        return False
    return unpacker.eof
