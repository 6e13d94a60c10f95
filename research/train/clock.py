"""Where a run's seconds went. Work is waited for before a clock is read: jax returns before it has computed."""

import contextlib
import time
from collections.abc import Iterator


class Clock:
    """Adds up seconds by kind: 'train', 'compile', 'evaluate', 'checkpoint'; and 'cached', those of 'compile' in which the
    persistent cache was read and nothing compiled. The sums are part of every checkpoint."""

    def __init__(self, seconds: dict[str, float] | None = None):
        self.seconds = {'train': 0.0, 'compile': 0.0, 'cached': 0.0, 'evaluate': 0.0, 'checkpoint': 0.0} | (seconds or {})

    @contextlib.contextmanager
    def measure(self, kind: str) -> Iterator[None]:
        """Adds the time spent inside to `kind`; compilation inside counts as 'compile' alone."""
        compiled, start = self.seconds['compile'], time.perf_counter()
        try:
            yield
        finally:
            inside = self.seconds['compile'] - compiled if kind != 'compile' else 0.0
            self.seconds[kind] += time.perf_counter() - start - inside
