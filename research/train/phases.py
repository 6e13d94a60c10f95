"""What is fixed in a program and yet changes during a run: batch size, image side, frozen layers. Each set is a phase.

A phase is a program of its own, compiled once. Its changes are read off the position, which counts examples, or off the
level of a watcher of the validation score; the order of the data knows nothing of it.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple


class Phase(NamedTuple):
    """What a training program has fixed.

    Attributes:
      batch_size: B, examples a step, over all devices.
      micro_batches: n, in which the gradient of a step is added up.
      side: of the images (or the length of sequences) that the network sees; 0 is as they are.
      frozen: top-level names of parameters that do not learn.
    """

    batch_size: int
    micro_batches: int
    side: int
    frozen: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Phases:
    """The phases of a run.

    Attributes:
      at: (position, level of the watcher of the batch size) -> Phase.
      changes: positions at which the position alone begins another phase, rising.
    """

    at: Callable[[int, int], Phase]
    changes: tuple[int, ...]

    def next_change(self, position: int) -> int | None:
        """The first change behind a position."""
        return next((change for change in self.changes if change > position), None)

    def spans(self, total: int) -> list[tuple[Phase, int]]:
        """(phase, steps) in their order over `total` examples, at level 0; a run has one step at least."""
        found, position = [], 0
        while (steps := (total - position) // (phase := self.at(position, 0)).batch_size) > 0:
            change = self.next_change(position)
            if change is not None:
                steps = min(steps, -(-(change - position) // phase.batch_size))
            found.append((phase, steps))
            position += steps * phase.batch_size
        return found or [(phase, 1)]
