"""Sessions of tests, and their end."""

import contextlib
import gc

import jax

from research.train.program import Session


@contextlib.contextmanager
def cleared():
    """A session, let go at the end: thousands of executables in one process exhaust what the system maps into its memory."""
    session = Session()
    yield session
    session.programs.clear()
    jax.clear_caches()
    gc.collect()
