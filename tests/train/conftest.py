"""Programs are compiled once where they come out the same: jax's cache, for all the tests here; a session, for a module."""

import jax
import pytest
from sessions import cleared


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


@pytest.fixture(scope='module')
def session():
    with cleared() as session:
        yield session
