"""The compilation cache: a second process compiles nothing, and what a kill cut short is found and removed."""

import os
import pathlib
import subprocess
import sys
import zlib

import jax
import jax.numpy as jnp
import pytest

from research.train import compilation, parallel
from research.train.clock import Clock
from research.train.program import Compiled

_ROOT = pathlib.Path(__file__).parents[2]
_PROGRAM = """
import research, jax, jax.numpy as jnp
from research.train import compilation

misses = []
jax.monitoring.register_event_listener(lambda event, **_: misses.extend([1] * event.endswith('/cache_misses')))
removed = compilation.enable_cache()
print(float(jax.jit(lambda x: jnp.sum(jnp.sin(x) @ x))(jnp.ones((8, 8)))))
print(compilation.hits(), len(misses), *removed)
"""


def _launch(folder: pathlib.Path) -> tuple[str, int, int, list[str]]:
    """Compiles in a new process; returns the number computed, cache hits, misses, and entries removed."""
    done = subprocess.run(
        [sys.executable, '-c', _PROGRAM],
        cwd=_ROOT,
        env={**os.environ, 'JAX_COMPILATION_CACHE_DIR': str(folder)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert 'Error reading persistent compilation cache' not in done.stderr
    number, counts = done.stdout.splitlines()
    hits, misses, *removed = counts.split()
    return number, int(hits), int(misses), removed


@pytest.mark.long
def test_second_launch_compiles_nothing_and_a_truncated_entry_is_removed_and_named(tmp_path):
    number, hits, misses, removed = _launch(tmp_path)
    assert hits == 0 and misses > 0 and removed == []
    assert _launch(tmp_path) == (number, misses, 0, [])
    entry = max(tmp_path.glob('*-cache'), key=lambda path: path.stat().st_size)
    entry.write_bytes(entry.read_bytes()[:-1])
    assert _launch(tmp_path) == (number, misses - 1, 1, [entry.name])
    assert _launch(tmp_path) == (number, misses, 0, [])


def test_checks_what_is_new_and_nothing_else(tmp_path, monkeypatch):
    old, new = tmp_path / 'old-cache', tmp_path / 'new-cache'
    for entry in (old, new):  # of 2001
        entry.write_bytes(zlib.compress(b'program'))
        os.utime(entry, (1e9, 1e9))
    looked = []
    monkeypatch.setattr(compilation, 'whole', lambda entry: looked.append(entry) or True)
    for expected in ([new, old], []):
        looked.clear()
        assert compilation.remove_truncated(tmp_path) == []
        assert looked == expected
    os.utime(new)
    compilation.remove_truncated(tmp_path)
    assert looked == [new]


@pytest.mark.parametrize('pack', ['zlib', 'zstandard'])
def test_an_entry_is_whole_only_at_its_full_length(tmp_path, pack):
    content = os.urandom(5000)
    packed = zlib.compress(content) if pack == 'zlib' else pytest.importorskip('zstandard').compress(content)
    entry = tmp_path / 'entry-cache'
    for length in (0, 1, 4, 100, len(packed) - 1):
        entry.write_bytes(packed[:length])
        assert not compilation.whole(entry)
    entry.write_bytes(packed)
    assert compilation.whole(entry)


def test_without_a_folder_to_write_the_cache_stays_off(tmp_path):
    blocked = tmp_path / 'file'
    blocked.write_text('')
    _, hits, misses, removed = _launch(blocked / 'xla')
    assert (hits, misses, removed) == (0, 0, [])


def test_what_the_cache_served_is_kept_apart_from_what_was_compiled(monkeypatch):
    hits, clocks = iter((0, 1, 1, 1)), (Clock(), Clock())
    monkeypatch.setattr(compilation, 'hits', lambda: next(hits))
    for clock in clocks:
        Compiled(parallel.Jit(jax.devices()[:1]), jnp.tanh).prepare(clock, jnp.ones(3))
    (served, compiled) = (clock.seconds for clock in clocks)
    assert served['cached'] == served['compile'] > 0 and compiled['compile'] > compiled['cached'] == 0
