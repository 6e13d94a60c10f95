"""Where a run stands: counters and sums that are part of every checkpoint, and pure functions of them."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from research import gradients
from research.optim.plateau import START, Plateau, watch

# Norms of the gradients of this many last steps are kept, to be shown when a run diverges.
_NORMS = 10


class Diverged(Exception):  # noqa: N818 - a result, not an error
    """With the step whose loss or gradient is not finite, its position, and norms; none where an evaluation showed it."""

    def __init__(self, message: str, at: tuple[int, int] | None = None, norms: list[float] | None = None):
        super().__init__(message)
        self.at, self.norms = at, norms or []


@dataclasses.dataclass
class Progress:
    """Where the loop stands; all of it is in every checkpoint.

    Attributes:
      position: examples done.
      batch_size: of the last step.
      sums: over the steps since the last evaluation.
      observed: sums over all steps of what steps observe.
      norms: of the gradients of the last steps.
      train: metrics of the last full interval between evaluations.
      first_loss, first_step: of training in the first interval, and where that ended.
      best, best_step: the best validation score, and where it was.
      watched: watchers of the validation score, by name.
    """

    step: int = 0
    position: int = 0
    batch_size: int = 0
    sums: dict[str, float] = dataclasses.field(default_factory=dict)
    observed: dict[str, float] = dataclasses.field(default_factory=dict)
    norms: list[float] = dataclasses.field(default_factory=list)
    train: dict[str, float] = dataclasses.field(default_factory=dict)
    first_loss: float | None = None
    first_step: int = 0
    best: float | None = None
    best_step: int = 0
    watched: dict[str, list[Any]] = dataclasses.field(default_factory=dict)

    @property
    def levels(self) -> dict[str, int]:
        """Of the watchers."""
        return {name: Plateau(*self.watched[name]).level if name in self.watched else 0 for name in START}

    def advance(self, steps: int, size: int, sums: Mapping[str, np.ndarray]) -> None:
        """Adds `steps` steps of `size` examples with these sums [steps]."""
        add(self.sums, {**sums, 'steps': np.ones(steps)})
        add(self.observed, {**{k: v for k, v in sums.items() if '/' in k}, 'steps': np.ones(steps)})
        self.norms = [*self.norms, *sums['gradient/norm'].tolist()][-_NORMS:]
        self.step, self.position, self.batch_size = self.step + steps, self.position + steps * size, size

    def interval(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """Ends an interval between evaluations, with its training metrics; returns what its steps observed."""
        self.train, seen = dict(metrics), observed(self.sums)
        if self.first_loss is None:
            self.first_loss, self.first_step = metrics['train/loss'], self.step
        self.sums = {}
        return seen

    def watch(self, watchers: Mapping[str, tuple[int, float]], score: float | None, higher: bool) -> None:
        """Shows a validation score to the watchers, name -> (patience, min_delta)."""
        for name, patience in watchers.items():
            self.watched[name] = list(watch(Plateau(*self.watched.get(name, Plateau())), score, higher, *patience))

    def stalled(self) -> str | None:
        """What to say of a run whose training loss has not fallen."""
        first, last = self.first_loss, self.train.get('train/loss')
        if first is None or last < first or self.step == self.first_step:
            return None
        return f'stalled: the training loss was {first:.4g} in the first interval and {last:.4g} in the last'


def check_finite(at: Progress, size: int, sums: Mapping[str, np.ndarray], rate_at: Callable[[int], float]) -> None:
    """Raises Diverged at the first step of a chunk of which a sum or the gradient is not finite.

    Args:
      at: before these steps.
      size: examples of a step.
      sums: float64 [steps] each.
      rate_at: position -> learning rate, for the message.
    """
    watched = {name: values for name, values in sums.items() if '/' not in name} | {'gradient': sums['gradient/norm']}
    finite = np.isfinite(list(watched.values())).all(axis=0)
    if finite.all():
        return
    bad = int(np.argmin(finite))
    step, position = at.step + bad, at.position + bad * size
    what = next(name for name, values in watched.items() if not np.isfinite(values[bad]))
    norms = [*at.norms, *sums['gradient/norm'][: bad + 1].tolist()][-_NORMS:]
    message = f'{what.replace("_", " ")} is {watched[what][bad]} at step {step}, learning rate {rate_at(position):.3g}'
    raise Diverged(message, (step, position), norms)


def add(total: dict[str, float], sums: Mapping[str, np.ndarray]) -> None:
    """Adds up strictly from left to right, so that how steps fell into chunks does not show in the last bits."""
    for name, values in sums.items():
        total[name] = float(np.cumsum([total.get(name, 0.0), *values])[-1])


def observed(total: Mapping[str, float]) -> dict[str, float]:
    """Means over steps of what steps observe; the noise scale is a ratio of such means, not the mean of a ratio."""
    means = {name: value / total['steps'] for name, value in total.items() if '/' in name}
    return gradients.with_noise_scale(means)
