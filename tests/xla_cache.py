"""One compilation cache for every test, worker, launch and run of the suite: a program is compiled once and then read."""

import os
import pathlib
import threading

import jax
from jax._src import lru_cache

_BYTES = 1 << 30


def use(folder: pathlib.Path) -> None:
    """Turns it on here and, by way of the environment, in every launch that a test starts."""
    os.environ['JAX_COMPILATION_CACHE_DIR'] = str(folder)
    jax.config.update('jax_compilation_cache_dir', str(folder))
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)
    jax.config.update('jax_persistent_cache_min_entry_size_bytes', -1)
    write_whole_entries()


def write_whole_entries() -> None:
    """jax writes an entry in place: another worker may read a part, and a kill leave one, which means a warning in any test."""

    def put(self, key: str, value: bytes) -> None:
        entry = self.path / f'{key}-cache'
        if not entry.exists():
            aside = self.path / f'{key}.{os.getpid()}.{threading.get_ident()}'
            aside.write_bytes(value)
            aside.replace(entry)

    lru_cache.LRUCache.put = put


def shrink(folder: pathlib.Path) -> None:
    """Removes what was used longest ago, beyond some size."""
    files = sorted(((f.stat(), f) for f in folder.iterdir()), key=lambda entry: -max(entry[0].st_atime, entry[0].st_mtime))
    size = 0
    for stat, file in files:
        size += stat.st_size
        if size > _BYTES:
            file.unlink(missing_ok=True)
