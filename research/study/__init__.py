"""What is asked: a config is a study, an override is a variant, a record is a number with its cost and uncertainty."""

import os
from collections.abc import Mapping
from typing import Any


def run(config: str | os.PathLike[str] | Mapping[str, Any], workdir: str | os.PathLike[str], **overrides: Any) -> Any:
    """Runs a study, or what is not finished of it, as the command does.

    Args:
      config: 'FILE' or 'FILE:ARG', the name of a study that comes along ('quickstart'), or a ConfigDict.
      workdir: where runs and report go.
      **overrides: of the config, by dotted keys: `run('quickstart', 'runs/q', **{'study.seeds': 6})`.

    Returns:
      A research.study.result.Summary: the content of summary.json, with `table()`; a notebook shows the report.

    Raises:
      ConfigError: bad input, as the command words it.
      KeyboardInterrupt: SIGINT or SIGTERM; everything is saved, the same call goes on.
    """
    from research.study import result

    return result.run(config, workdir, overrides)


def load(workdir: str, variant: str, seed: int) -> Any:
    """A trained model as it was scored.

    Args:
      workdir: of the study.
      variant: 'baseline', 'null' or the name of a variant.
      seed: of the run.

    Returns:
      A research.study.trained.Trained. Its `predict(inputs)` takes inputs as the data are stored (uint8 images, say) and gives
      probabilities, computed as the run was scored; `fill(texts)` says what may stand at each `[MASK]`. It unpacks into (linen
      module, variables): `module.apply(variables, inputs)` gives outputs in float32, for inputs that are standardized as in
      training.

    Raises:
      ConfigError: no such variant or seed, or a run that is not finished.
    """
    from research.study import trained

    return trained.load(workdir, variant, seed)
