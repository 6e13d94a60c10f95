"""Where a run's seconds went. Work is waited for before a clock is read: jax returns before it has computed."""

import contextlib
import time
from collections.abc import Iterator


class Clock:
    """Adds up seconds by kind: 'train', 'compile', 'evaluate', 'checkpoint'; 'cached', those of 'compile' in which the
    persistent cache was read and nothing compiled; and 'waited', those of 'train' in which batches were made while the devices
    had nothing to do. The sums are part of every checkpoint."""

    def __init__(self, seconds: dict[str, float] | None = None):
        kinds = ('train', 'waited', 'compile', 'cached', 'evaluate', 'checkpoint')
        self.seconds = dict.fromkeys(kinds, 0.0) | (seconds or {})

    @contextlib.contextmanager
    def measure(self, kind: str) -> Iterator[None]:
        """Adds the time spent inside to `kind`; compilation inside counts as 'compile' alone."""
        compiled, start = self.seconds['compile'], time.perf_counter()
        try:
            yield
        finally:
            inside = self.seconds['compile'] - compiled if kind != 'compile' else 0.0
            self.seconds[kind] += time.perf_counter() - start - inside
