"""Real launches, watched: `python watched.py EVENTS FLAGS...` is `frugal` as it is, telling at once what it is doing.

An event is a line: what, and a step.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
import xla_cache

ROOT = pathlib.Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from research.study.display import Display  # noqa: E402
from research.train import checkpoint, loop  # noqa: E402
from research.train.feed import Feed  # noqa: E402


@dataclasses.dataclass(frozen=True)
class Study:
    """A study of seed 0 without null and latencies, its config in `folder`.

    Every launch of it is the same command.
    """

    folder: pathlib.Path
    changes: Mapping[str, Any]
    workdir: pathlib.Path

    def launch(self, *flags: str) -> 'Launch':
        """Starts it, or goes on with it."""
        changes = {'study.seeds': 1, 'study.null': False, 'study.latency': (), **self.changes}
        lines = [f'config.{key} = {value!r}' for key, value in changes.items()]
        body = '\n    '.join(['config = base.get_config(arg)', *lines, 'return config'])
        config = self.folder / 'watched_study.py'
        config.write_text(f"from research.config import base\n\n\ndef get_config(arg=''):\n    {body}\n")
        return Launch(self.folder, f'--config={config}', f'--workdir={self.workdir}', *flags)

    def finish(self, *flags: str) -> 'Launch':
        """Lets it run to its end."""
        launch = self.launch(*flags)
        assert launch.wait() == 0, launch.output()
        return launch

    @property
    def runs(self) -> dict[tuple[str, int], pathlib.Path]:
        """Folders of its runs by variant and seed."""
        study = json.loads((self.workdir / 'study.json').read_text())
        return {(v, int(s)): self.workdir / 'runs' / run for v, runs in study['runs'].items() for s, run in runs.items()}

    @property
    def run(self) -> pathlib.Path:
        """Folder of the baseline's run at seed 0."""
        return self.runs['baseline', 0]

    def saving(self) -> bool:
        """Whether a checkpoint is half written."""
        return any(self.workdir.glob('runs/*/checkpoints/*.orbax-checkpoint-tmp*'))

    def bits(self) -> tuple[Any, ...]:
        """What the run comes to: metrics, correctness, curve without its seconds, variables that it was scored with."""
        curve = [json.loads(line) for line in (self.run / 'metrics.jsonl').read_text().splitlines()]
        variables = jax.tree_util.tree_leaves_with_path(checkpoint.load_variables(self.run / 'scored'))
        return (
            json.loads((self.run / 'result.json').read_text())['metrics'],
            (self.run / 'correct.npy').read_bytes(),
            [{k: v for k, v in row.items() if k != 'train_seconds'} for row in curve],
            {jax.tree_util.keystr(path): np.asarray(leaf).tobytes() for path, leaf in variables},
        )


class Launch:
    """A launch in a process, and a session, of its own."""

    def __init__(self, folder: pathlib.Path, *flags: str):
        self.events_file, self.log = folder / f'events.{time.monotonic_ns()}', folder / f'log.{time.monotonic_ns()}'
        self.events_file.touch()
        inherited = os.environ.get('XLA_FLAGS', '').split()
        one_device = ' '.join(flag for flag in inherited if 'host_platform_device_count' not in flag)
        with open(self.log, 'w') as log:
            self.process = subprocess.Popen(
                [sys.executable, __file__, str(self.events_file), *flags],
                cwd=ROOT,
                env=os.environ | {'XLA_FLAGS': one_device},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def events(self) -> list[tuple[str, int]]:
        """What it has told so far."""
        return [(what, int(step)) for what, step in map(str.split, self.events_file.read_text().splitlines())]

    def last(self, what: str) -> int | None:
        """The step of the last event of a kind."""
        return next((step for kind, step in reversed(self.events()) if kind == what), None)

    def until(self, reached: Callable[[], bool], timeout: float = 240.0) -> None:
        """Waits for something, a millisecond at a time."""
        deadline = time.monotonic() + timeout
        while not reached():
            assert self.process.poll() is None, f'it ended by itself:\n{self.output()}'
            assert time.monotonic() < deadline, f'it never came:\n{self.events()[-3:]}\n{self.output()}'
            time.sleep(0.001)

    def reach(self, step: int) -> None:
        """Waits until a step has been read."""
        self.until(lambda: (self.last('read') or 0) >= step)

    def kill(self) -> None:
        """kill -9, of this process alone."""
        self.process.kill()
        self.process.wait()

    def wait(self) -> int:
        """The exit status, once it is over."""
        return self.process.wait(timeout=240)

    def output(self) -> str:
        """What it printed."""
        return self.log.read_text()

    def survivors(self, timeout: float = 10.0) -> list[str]:
        """Processes of its session that are still there after some seconds."""
        deadline = time.monotonic() + timeout
        while found := self._session():
            if time.monotonic() > deadline:
                break
            time.sleep(0.1)
        return found

    def _session(self) -> list[str]:
        found = []
        for stat in pathlib.Path('/proc').glob('[0-9]*/stat'):
            with contextlib.suppress(OSError):  # it ended meanwhile
                name, _, rest = stat.read_text().rpartition(') ')
                state, _, _, session = rest.split()[:4]
                if int(session) == self.process.pid and state != 'Z':
                    found.append(name)
        return found


def _watch(path: str) -> None:
    out = os.open(path, os.O_WRONLY | os.O_APPEND)

    def tell(what: str, step: int) -> None:
        os.write(out, f'{what} {step}\n'.encode())

    def before(owner, name: str, what: str, step: Callable[..., int]) -> None:
        wrapped = getattr(owner, name)

        def watched(*args, **kwargs):
            tell(what, step(*args))
            return wrapped(*args, **kwargs)

        setattr(owner, name, watched)

    def restore(self, like):
        found = restored(self, like)
        tell('restored', found[1]['progress']['step'] if found else 0)
        return found

    restored, checkpoint.Checkpoints.restore = checkpoint.Checkpoints.restore, restore
    before(Feed, 'chunk', 'chunk', lambda self, first, *where: first)
    before(Feed, 'blocks', 'evaluation', lambda self, rows: -1)
    before(Display, 'step', 'read', lambda self, total, step, *_: step)
    before(checkpoint.Checkpoints, 'save', 'save', lambda self, step, *_: step)
    before(loop, 'save_variables', 'scored', lambda *_: -1)
    before(checkpoint, 'remove', 'remove', lambda *_: -1)


if __name__ == '__main__':
    events = sys.argv.pop(1)
    from research import cli

    xla_cache.write_whole_entries()
    _watch(events)
    cli.main()
