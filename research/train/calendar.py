"""When something is due in a run: pure functions of the position, which counts examples."""

import dataclasses

from research.train.experiment import Experiment, checkpoint_every
from research.train.phases import Phases


@dataclasses.dataclass(frozen=True)
class Calendar:
    """The dates of one run.

    Attributes:
      total: examples of the run.
      phases: whose changes are dates too.
      eval_every: examples between evaluations.
      checkpoint_every: examples between checkpoints; None where seconds tell.
      checkpoint_seconds: between checkpoints; None where examples tell.
    """

    total: int
    phases: Phases
    eval_every: int
    checkpoint_every: int | None
    checkpoint_seconds: float | None

    def over(self, position: int, level: int) -> bool:
        """Whether the budget holds no further step; a run has one at least."""
        return position > 0 and position + self.phases.at(position, level).batch_size > self.total

    def boundary(self, position: int) -> int:
        """The next position at which something is due; a segment ends with the first step that reaches it."""
        following = [self.total]
        for every in (self.eval_every, self.checkpoint_every):
            if every:
                following.append((position // every + 1) * every)
        if (change := self.phases.next_change(position)) is not None:
            following.append(change)
        if self.checkpoint_every and position == 0:
            # The first step is saved too: a disk that cannot hold a checkpoint shows now, not after an hour.
            following.append(1)
        return min(following)

    def steps(self, position: int, boundary: int, size: int) -> int:
        """How many steps of `size` examples lead from a position to the boundary, but not beyond the budget; one at least."""
        return max(1, min(-(-(boundary - position) // size), (self.total - position) // size))

    def evaluates(self, position: int, size: int) -> bool:
        """Whether an evaluation is due after a step of `size` examples that ended at a position."""
        return crossed(self.eval_every, position, size)

    def saves(self, step: int, position: int, size: int) -> bool:
        """Whether a checkpoint is due by examples after step `step`."""
        return self.checkpoint_every is not None and (step == 1 or crossed(self.checkpoint_every, position, size))


def crossed(every: int, position: int, size: int) -> bool:
    """Whether the last step, of `size` examples up to a position, reached a multiple of `every`."""
    return position // every > (position - size) // every


def of(experiment: Experiment) -> Calendar:
    """The calendar of a run."""
    config, batch, epoch, total = experiment.config, experiment.batch_size, experiment.epoch, experiment.total
    examples, seconds = checkpoint_every(config, batch, epoch, total)
    return Calendar(
        total=total,
        phases=experiment.phases,
        eval_every=experiment.eval_every,
        checkpoint_every=max(batch, examples) if examples else None,
        checkpoint_seconds=seconds,
    )
