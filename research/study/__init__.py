"""What is asked: a config is a study, an override is a variant, a record is a number with its cost and uncertainty."""

from typing import Any


def load(workdir: str, variant: str, seed: int) -> Any:
    """A trained model as it was scored.

    Args:
      workdir: of the study.
      variant: 'baseline', 'null' or the name of a variant.
      seed: of the run.

    Returns:
      A research.study.trained.Trained. Its `predict(inputs)` takes inputs as the data are stored (uint8 images, say) and gives
      probabilities, computed as the run was scored. It unpacks into (linen module, variables):
      `module.apply(variables, inputs)` gives outputs in float32, for inputs that are standardized as in training.

    Raises:
      ConfigError: no such variant or seed, or a run that is not finished.
    """
    from research.study import trained

    return trained.load(workdir, variant, seed)
