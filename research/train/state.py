"""Everything that a training step reads and writes."""

from typing import Any

import flax.struct
import jax


@flax.struct.dataclass
class State:
    """The state of one run.

    Attributes:
      step: int32 [], updates done.
      rng: the seed's typed key; never split, only folded (research.train.step.example_keys).
      params: what the optimizer updates.
      collections: every other collection of the model: batch statistics, the reference of virtual batch normalization.
      opt_state: of the optax chain.
      masks: of the compression in stage 2; {} where it has none.
    """

    step: jax.Array
    rng: jax.Array
    params: Any
    collections: Any
    opt_state: Any
    masks: Any
