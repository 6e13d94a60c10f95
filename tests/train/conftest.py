"""Programs are compiled once for all the tests here: one session, and jax's cache for programs that come out the same."""

import jax
import pytest

from research.train.experiment import Session


@pytest.fixture(scope='session', autouse=True)
def compilation_cache(tmp_path_factory):
    """Two configs whose evaluation is the same program compile it once."""
    options = {
        'jax_compilation_cache_dir': str(tmp_path_factory.mktemp('xla')),
        'jax_persistent_cache_min_compile_time_secs': 0,
        'jax_persistent_cache_min_entry_size_bytes': -1,
    }
    before = {name: getattr(jax.config, name) for name in options}
    for name, value in options.items():
        jax.config.update(name, value)
    yield
    for name, value in before.items():
        jax.config.update(name, value)


@pytest.fixture(scope='session')
def session():
    return Session()
