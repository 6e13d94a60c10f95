"""The persistent compilation cache, and care for what jax leaves in it.

jax writes entries non-atomically and never overwrites one: an entry that a kill cut short means a warning and a full
recompilation at every later launch. So entries written since the last clean exit are checked at start.
"""

import contextlib
import os
import pathlib
import zlib
from collections.abc import Iterator

import jax

_ZSTANDARD_MAGIC = b'\x28\xb5\x2f\xfd'


def directory() -> pathlib.Path:
    """JAX_COMPILATION_CACHE_DIR, or a folder under XDG_CACHE_HOME (~/.cache)."""
    cache = pathlib.Path(os.environ.get('XDG_CACHE_HOME') or pathlib.Path.home() / '.cache')
    return pathlib.Path(os.environ.get('JAX_COMPILATION_CACHE_DIR') or cache / 'frugal' / 'xla')


@contextlib.contextmanager
def cache() -> Iterator[list[str]]:
    """Turns the cache on, for programs of any size; yields the names of truncated entries, which were removed.

    Without a folder that can be written it stays off.
    """
    folder = directory()
    clean = folder / '.last-clean-exit'
    try:
        folder.mkdir(parents=True, exist_ok=True)
        since = clean.stat().st_mtime if clean.exists() else 0.0
        removed = [
            entry.name for entry in sorted(folder.glob('*-cache')) if entry.stat().st_mtime >= since and not whole(entry)
        ]
        for name in removed:
            (folder / name).unlink()
    except OSError:
        yield []
        return
    jax.config.update('jax_compilation_cache_dir', str(folder))
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)
    jax.config.update('jax_persistent_cache_min_entry_size_bytes', -1)
    yield removed
    with contextlib.suppress(OSError):
        clean.touch()


def whole(entry: pathlib.Path) -> bool:
    """Whether an entry can be unpacked to its end."""
    content = entry.read_bytes()
    if content.startswith(_ZSTANDARD_MAGIC):
        import zstandard  # jax packs with it where it is installed

        unpacker = zstandard.ZstdDecompressor().decompressobj()
        failure = zstandard.ZstdError
    else:
        unpacker, failure = zlib.decompressobj(), zlib.error
    try:
        unpacker.decompress(content)
    except failure:
        return False
    return unpacker.eof
