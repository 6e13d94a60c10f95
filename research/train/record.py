"""What a run leaves on disk: config.json, metrics.jsonl, TensorBoard events, and at the very end result.json."""

import json
import os
import pathlib
import shutil
from collections.abc import Mapping
from typing import Any

from tensorboardX import SummaryWriter


def write_json(path: pathlib.Path, content: Any) -> None:
    """Writes whole or not at all: a kill leaves the old file or the new one, never half of one."""
    aside = path.with_name(f'.{path.name}')  # one launch at a time writes here, and overwrites what a kill left
    with open(aside, 'w') as file:
        json.dump(content, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)


class Metrics:
    """metrics.jsonl, one line an evaluation, and the same as TensorBoard events in `tensorboard/` beside it."""

    def __init__(self, path: pathlib.Path, position: int):
        """Keeps the lines up to `position` (0: none), the point that a run goes on from, and drops what came after."""
        self.path = path
        kept = [row for row in self._read() if row['position'] <= position] if position else []
        aside = path.with_suffix('.aside')
        aside.write_text(''.join(json.dumps(row) + '\n' for row in kept))
        aside.replace(path)
        events = path.parent / 'tensorboard'
        if not kept:
            shutil.rmtree(events, ignore_errors=True)  # of an attempt that was given up
        self._events = SummaryWriter(logdir=str(events), purge_step=kept[-1]['step'] + 1 if kept else None)

    def _read(self) -> list[dict[str, Any]]:
        rows = []
        for line in self.path.read_text().splitlines() if self.path.exists() else []:
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError:
                break  # the line that a kill cut short
        return rows

    def append(self, row: Mapping[str, Any]) -> None:
        """Adds a line."""
        with open(self.path, 'a') as file:
            file.write(json.dumps(row) + '\n')
        for name in row.keys() - {'step', 'position'}:
            self._events.add_scalar(name, row[name], row['step'])
        self._events.flush()

    def close(self) -> None:
        """Ends the writer of events."""
        self._events.close()
