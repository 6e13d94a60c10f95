"""What a run came to, and its files: config.json, metrics.jsonl, TensorBoard events, and at the very end result.json."""

import dataclasses
import json
import pathlib
import shutil
from collections.abc import Mapping
from typing import Any

import numpy as np
from tensorboardX import SummaryWriter

from research import files

# Folder of TensorBoard events, in that of the run.
EVENTS = 'tensorboard'


def write_json(path: pathlib.Path, content: Any) -> None:
    """Writes JSON atomically: a kill leaves either the old file or the new one. Raises OSError."""
    files.write(path, json.dumps(content, indent=1), sync=True)


@dataclasses.dataclass
class Outcome:
    """What a run came to.

    Attributes:
      status: 'finished' or 'diverged'.
      message: what happened, for a run that diverged or never learnt.
      metrics: 'test/accuracy' and so on; no seconds.
      cost: seconds, steps, bytes.
      kept: of each test example, see `Task.rows`; {} for a run that diverged, and where validation decides and test is not
        read.
      observed: 'clip/steps' and so on, means over the steps of the run.
      diverged: where and how, see research.train.divergence; None for a run that did not.
    """

    status: str
    message: str | None
    metrics: dict[str, float]
    cost: dict[str, float]
    kept: dict[str, np.ndarray]
    observed: dict[str, float]
    diverged: dict[str, Any] | None = None

    @property
    def correct(self) -> np.ndarray | None:
        """bool [test examples]; None where nothing was kept, and for a task that knows no right or wrong."""
        return self.kept.get('correct')


class Metrics:
    """metrics.jsonl, one line per evaluation, and the same values as TensorBoard events in `tensorboard/` next to it."""

    def __init__(self, path: pathlib.Path, position: int):
        """Keeps the lines up to `position`, where the run resumes (0 keeps none), and drops the later ones."""
        self.path = path
        kept = [row for row in files.read_metrics(path) if row['position'] <= position] if position else []
        files.write(path, ''.join(json.dumps(row) + '\n' for row in kept))
        events = path.parent / EVENTS
        if not kept:
            shutil.rmtree(events, ignore_errors=True)  # left by an abandoned attempt
        self._events = SummaryWriter(logdir=str(events), purge_step=kept[-1]['step'] + 1 if kept else None)

    def append(self, row: Mapping[str, Any]) -> None:
        """Appends one evaluation."""
        with open(self.path, 'a') as file:
            file.write(json.dumps(row) + '\n')
        for name in row.keys() - {'step', 'position'}:
            self._events.add_scalar(name, row[name], row['step'])
        self._events.flush()

    def close(self) -> None:
        """Closes the event writer."""
        self._events.close()
