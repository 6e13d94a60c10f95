"""Live progress: the current run, steps per second, time left for the whole study. A bar on a terminal, else lines."""

import sys
import time
from typing import Any

import rich.console
import rich.progress

# Share of the first run after which its speed is used to estimate the others.
_TELLING = 0.05
# Seconds between lines without a terminal.
_QUIET = 10.0


class Display:
    """Shows the progress of a study; times are estimated from the runs of this launch, by variant if possible."""

    def __init__(self, total: int, todo: list[Any]):
        self._todo, self._total, self._done = list(todo), total, total - len(todo)
        self._seconds: dict[str, list[float]] = {}
        self._began = self._printed = time.monotonic()
        self._fraction = 0.0
        self._live = None
        if sys.stdout.isatty():
            columns = (
                '{task.description}',
                rich.progress.BarColumn(),
                rich.progress.MofNCompleteColumn(),
                '{task.fields[left]}',
            )
            self._live = rich.progress.Progress(*columns, transient=True)
            self._bar = self._live.add_task('', total=total, completed=self._done, left='')

    def __enter__(self) -> 'Display':
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: Any) -> None:
        if self._live:
            self._live.stop()

    def begin(self, run: Any) -> None:
        """A run starts."""
        self._run, self._began, self._fraction = run, time.monotonic(), 0.0
        self._show('starting')

    def step(self, total: int, step: int, position: int, rate: float | None) -> None:
        """A run has done `step` steps and `position` of `total` examples, at `rate` steps per second."""
        self._fraction = position / total
        where = f'step {step}, {self._fraction:.0%}'
        self._show(f'{where}, {rate:.0f} steps/s' if rate else where)

    def end(self, run: Any, status: str) -> None:
        """A run ends."""
        self._seconds.setdefault(run.variant, []).append(time.monotonic() - self._began)
        self._todo.remove(run)
        self._done += 1
        self._fraction = 0.0
        if status != 'finished':
            self._line(f'{run.name}, seed {run.seed}: {status} (runs/{run.id})')
        self._show('')

    def left(self) -> float | None:
        """Estimated seconds until the study is done; None while it is too early to tell."""
        seen = [s for seconds in self._seconds.values() for s in seconds]
        if not seen and self._fraction < _TELLING:
            return None
        # Before the first run is done, the current one is used; it includes compilation, so the estimate is high.
        mean = sum(seen) / len(seen) if seen else (time.monotonic() - self._began) / self._fraction
        # The last run of a variant is the best estimate, because the first one includes compilation.
        guess = sum(self._seconds[r.variant][-1] if r.variant in self._seconds else mean for r in self._todo)
        return guess * (1 - self._fraction / max(len(self._todo), 1))

    def _show(self, what: str) -> None:
        left = self.left()
        left = '' if left is None else f'about {int(left) // 60} min {int(left) % 60:02d} s left'
        text = f'{self._run.name}, seed {self._run.seed}' + (f': {what}' if what else '')
        if self._live:
            self._live.update(self._bar, description=rich.markup.escape(text), completed=self._done, left=left)
        elif time.monotonic() - self._printed >= _QUIET:
            self._line(f'[{self._done}/{self._total} runs] {text}' + (f'; {left}' if left else ''))

    def _line(self, text: str) -> None:
        self._printed = time.monotonic()
        if self._live:
            self._live.console.print(rich.markup.escape(text))
        else:
            print(text, flush=True)
