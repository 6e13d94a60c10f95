"""What a training step reads and writes, and what a compiled chunk or evaluation takes, as named tuples.

Letters: S steps a chunk, E batches an evaluation, B examples a batch, R examples of the reference batch, K blocks of examples
that statistics are taken from.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.struct
import jax


@flax.struct.dataclass
class State:
    """The state of one run.

    Attributes:
      step: int32 [], updates done.
      rng: the seed's typed key; never split, only folded (research.layers.example).
      params: what the optimizer updates.
      collections: every other collection of the model: batch statistics, the reference of virtual batch normalization.
      opt_state: of the optax chain.
      masks: what the compression in stage 2 keeps from the optimizer; {} for nothing.
    """

    step: jax.Array
    rng: jax.Array
    params: Any
    collections: Any
    opt_state: Any
    masks: Any


class Variables(NamedTuple):
    """The parts of a State that `evaluate` takes."""

    params: Any
    masks: Any
    collections: Any


class Learnt(NamedTuple):
    """The parts of a State that an update changes."""

    params: Any
    collections: Any
    opt_state: Any


class Background(NamedTuple):
    """Examples beside the batches, as stored.

    Attributes:
      reference: the reference batch of virtual batch normalization, {field: [R, ...]}.
      statistics: what batch statistics of averaged weights are taken from, {field: [K, R, ...]}; K is 0 where nothing is
        averaged, or there are none.
    """

    reference: Mapping[str, Any]
    statistics: Mapping[str, Any]


class Chunk(NamedTuple):
    """What `chunks.train_chunk` takes beside the state.

    Attributes:
      data: {'examples': {field: [N, ...]}, 'constants': {name: arrays}}.
      reference: as in Background.
      rows: int32 [S, B], places in data['examples']; [S, B, k] where a position takes several, -1 for none.
      starts: uint32 [S, 2], halves of the position of each step's first example.
      controls: float32 [S] each: the learning rate, and whatever else changes from step to step.
      first: int32 [], the step that the state should be at.
      steps: int32 [], how many of the S are done.
    """

    data: Mapping[str, Any]
    reference: Mapping[str, Any]
    rows: Any
    starts: Any
    controls: Mapping[str, Any]
    first: Any
    steps: Any


class Block(NamedTuple):
    """Batches of an evaluation, padded to full ones; every example counts once.

    Attributes:
      rows: int32 [E, B], places in data['examples'].
      numbers: int32 [E, B], rows of the data set; they key whatever is drawn for an evaluation.
      valid: float32 [E, B], 0 on padding.
      batches: int32 [], how many of the E hold examples.
      first: int32 [], the place of the first example among all those evaluated.
    """

    rows: Any
    numbers: Any
    valid: Any
    batches: Any
    first: Any
