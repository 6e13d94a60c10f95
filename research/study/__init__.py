"""What is asked: a config is a study, an override is a variant, a record is a number with its cost and uncertainty."""

from typing import Any


def load(workdir: str, variant: str, seed: int) -> tuple[Any, dict[str, Any]]:
    """A trained model as it was scored.

    Args:
      workdir: of the study.
      variant: 'baseline', 'null' or the name of a variant.
      seed: of the run.

    Returns:
      (linen module, variables): `module.apply(variables, inputs)` gives the scored outputs; inputs are standardized as in
      training (facts 'mean' and 'std' of `research.data.load(...)`).

    Raises:
      ConfigError: no such variant or seed, or a run that is not finished.
    """
    from research.study import trained

    return trained.load(workdir, variant, seed)
