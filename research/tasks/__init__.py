"""Losses and metrics as sums and counts, so that padding, accumulation and sharding cannot average averages."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from research import catalogue

TASKS = {
    'classification': 'research.tasks.classification:create',
    'generation': 'research.tasks.generation:create',
}


class Task(NamedTuple):
    """What a model is trained and judged by.

    Attributes:
      sums: (outputs [B, ...], batch of [B, ...]) -> {'loss', 'count', ...}: float32 sums over the rows where `batch['mask']`
        is 1; what an evaluation is made of.
      train_sums: the same in training, where `loss / count` is what is trained on.
      losses: (outputs, batch) -> float32 [B], each row's share of the training loss.
      correct: (outputs, batch) -> bool [B], for intervals over examples.
      metrics: sums, added up over batches on the host -> {name: float}, one division each.
      judge: what an evaluation found row by row -> {name: float}; for what is no mean over rows.
      falls: whether a training loss that does not fall means that nothing was learnt.
    """

    sums: Callable[[Any, Mapping[str, Any]], dict[str, Any]]
    train_sums: Callable[[Any, Mapping[str, Any]], dict[str, Any]]
    losses: Callable[[Any, Mapping[str, Any]], Any]
    correct: Callable[[Any, Mapping[str, Any]], Any]
    metrics: Callable[[Mapping[str, float]], dict[str, float]]
    judge: Callable[[Mapping[str, Any]], dict[str, float]] = lambda rows: {}
    falls: bool = True


def check_smoothing(share: float) -> None:
    """Raises ConfigError where `task.label_smoothing` is no share from 0 below 1."""
    if not 0 <= share < 1:
        raise catalogue.ConfigError(f'task.label_smoothing is {share}, expected a share from 0 below 1, such as 0.1.')


def create(config: Mapping[str, Any]) -> Task:
    """The task named by the group `config.task`."""
    return catalogue.build('task', config, TASKS)
