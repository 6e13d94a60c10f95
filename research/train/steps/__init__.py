"""What trains a run, as one frozen value with engine and stages bound: supervised.py for one network, adversarial.py and
players.py for two players. Everything around it (chunks, loop, evaluation, cost) knows the protocol alone.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import flax.linen as nn
import jax

from research import catalogue, tasks
from research.data import Dataset, Field
from research.tasks.generation import Generation
from research.train.parallel import Jit, Pmap
from research.train.phases import Phase
from research.train.state import Background, Block, State, Variables
from research.train.steps import players, supervised
from research.train.steps.network import Inputs

_KINDS = {tasks.Task: supervised, Generation: players}


class Step(Protocol):
    """One way to train. Letters: B examples a batch, E batches an evaluation, R examples of the reference batch.

    Attributes:
      engine: where rows and sums live.
      module: the network.
      task: what it is trained and judged by.
      fields: of the data's examples.
      weights: (params, masks) -> params that are seen (stage 2).
      samples: Variables -> {name: rows} that the task shows; None where nothing is generated.
      write: (Variables, data, Block) -> {name: [E, B, ...]}, texts written for examples; None where the task has none. Else
        `written(seen, collections, batch)` gives those of one batch.
    """

    engine: Jit | Pmap
    module: nn.Module
    task: tasks.Task | Generation
    fields: Mapping[str, Field]
    weights: Callable[[Any, Any], Any]
    samples: Callable[[Variables], dict[str, jax.Array]] | None
    write: Callable[[Variables, Mapping[str, Any], Block], dict[str, jax.Array]] | None

    def inputs(self, count: int) -> Inputs:
        """(args, kwargs) of an inference of `count` examples, zeros."""

    def init(self, rng: jax.Array, numbers: Mapping[str, Any], weights: Mapping[str, Any]) -> State:
        """The state before the first step.

        Args:
          rng: the seed's typed key [].
          numbers: `research.optim.hyperparameters`.
          weights: of `pretrained.weights`, in place of those that are drawn; {} for none.
        """

    def reference(self, examples: Mapping[str, jax.Array], constants: Mapping[str, Any]) -> Any:
        """What `train` takes of the reference batch {field: [R, ...]}; made once a chunk."""

    def train(
        self,
        phase: Phase,
        state: State,
        batch: Mapping[str, jax.Array],
        reference: Any,
        constants: Mapping[str, Any],
        controls: Mapping[str, jax.Array],
    ) -> tuple[State, dict[str, jax.Array]]:
        """One update.

        Args:
          batch: arrays with rows, [B, ...], or [n, B / n, ...] in n micro-batches: the fields as stored, valid, position
            [..., 2].
          reference: of `self.reference`.
          constants: beside the examples: mean and std, class weights, a judge.
          controls: float32 [] each: the learning rate, and whatever else changes from step to step.

        Returns:
          (state, sums over the batch; beside them, under names with a slash, what was observed in this step).
        """

    def updates(
        self,
        phase: Phase,
        state: State,
        batch: Mapping[str, jax.Array],
        reference: Any,
        constants: Mapping[str, Any],
        controls: Mapping[str, jax.Array],
    ) -> Iterator[tuple[Callable[..., Any], Any, Any]]:
        """Yields (loss function, its parameters, collections) of each update of a step; arguments as of `train`."""

    def evaluate(
        self, variables: Variables, data: Mapping[str, Any], block: Block
    ) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
        """({'loss', ...: float32 [E]} sums over each batch, {name: [E, B, ...]} of each example)."""

    def final(self, state: State, constants: Mapping[str, Any], background: Background) -> tuple[Any, Any]:
        """The one notion of what is scored, saved and exported: (params, collections) for evaluation."""

    def predict(self, seen: Any, collections: Any, inputs: Inputs) -> Any:
        """The outputs of an inference."""

    def metric_names(self, shapes: State) -> list[str]:
        """What an evaluation comes to; fails as it would where outputs and task do not fit each other."""


def create(config: Mapping[str, Any], dataset: Dataset, engine: Jit | Pmap) -> Step:
    """The step that a config asks for.

    Raises:
      ConfigError: a name or argument that does not fit, or data without a field that the task reads.
    """
    task = tasks.create(config['task'], dataset.facts)
    kind = _kind_of(task)
    tasks.check_fields(config['task']['name'], task.fields, dataset, config['model']['num_classes'] or task.outputs)
    return kind.create(config, dataset, task, engine)


def _kind_of(task: Any) -> Any:
    """The module that trains for a task.

    Raises:
      ConfigError: a task of another type.
    """
    if type(task) not in _KINDS:
        expected = ' or '.join(f'a {kind.__module__}.{kind.__name__}' for kind in _KINDS)
        raise catalogue.ConfigError(f'task.name makes a {type(task).__name__}, expected {expected}.')
    return _KINDS[type(task)]
