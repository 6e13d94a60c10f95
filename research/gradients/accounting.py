"""What differentially private training gives away: epsilon from the noise, and the noise for an epsilon, by dp-accounting.

Letters: n examples of the training split, B examples of a batch, T steps, z the noise multiplier, C the clip norm.

Two training splits are neighbours if they differ in one example that is replaced, so n is public and B / n is fixed. Each step
draws B of n examples without replacement. Replacing one of them moves the sum of the clipped gradients by up to 2 C, once C out
and once C in, while the noise has a standard deviation of z C: the library, which counts noise in units of this distance, gets
z / 2. A z of others, who count neighbours by adding or removing an example and draw each by a coin of its own, is half as far.

Source: Wang, Balle and Kasiviswanathan 2019 (Subsampled Renyi differential privacy and analytical moments accountant, theorem
27 of the extended version), composed over T steps. It is an upper bound: the true epsilon is lower.
"""

import functools
from typing import Any

from research.catalogue import ConfigError
from research.config.files import Misfit

# The range of noise multipliers searched, as powers of two: epsilon falls from millions to almost 0.
_LEAST, _MOST = -6, 20
# Of the power: the noise is at most 0.1 % more than needed, and never less.
_PRECISION = 1e-3


@functools.lru_cache(maxsize=64)
def epsilon(examples: int, batch_size: int, steps: int, noise_multiplier: float, delta: float) -> float:
    """Epsilon at `delta` of T steps, each with B of n examples; takes half a second.

    Raises:
      ConfigError: dp-accounting is not installed.
    """
    return float(_accountant().compose(_event(examples, batch_size, noise_multiplier), steps).get_epsilon(delta))


@functools.lru_cache(maxsize=64)
def noise_multiplier_for(epsilon: float, examples: int, batch_size: int, steps: int, delta: float) -> float:
    """The least z whose epsilon, over T steps at `delta`, is at most `epsilon`; takes seconds.

    Raises:
      Misfit: no noise gives this epsilon.
      ConfigError: dp-accounting is not installed.
    """
    dp = library()
    try:
        power = dp.calibrate_dp_mechanism(
            _accountant,
            lambda power: dp.SelfComposedDpEvent(_event(examples, batch_size, 2.0**power), steps),
            epsilon,
            delta,
            dp.ExplicitBracketInterval(_LEAST, _MOST),
            tol=_PRECISION,
        )
    except ValueError as error:  # both ends of the bracket are on one side
        raise Misfit(
            'gradient.epsilon',
            f'No noise multiplier from 2^{_LEAST} to 2^{_MOST} gives an epsilon of {epsilon:g} at a delta of {delta:.3g} over '
            f'{steps} steps of {batch_size} of {examples} examples: set gradient.epsilon to a number such as 3.0.',
        ) from error
    return 2.0**power


def _event(examples: int, batch_size: int, noise_multiplier: float) -> Any:
    dp = library()
    return dp.SampledWithoutReplacementDpEvent(examples, batch_size, dp.GaussianDpEvent(noise_multiplier / 2))


def _accountant() -> Any:
    dp = library()
    return dp.rdp.RdpAccountant(neighboring_relation=dp.NeighboringRelation.REPLACE_ONE)


def library() -> Any:
    """dp-accounting, which is asked for by a private run alone.

    Raises:
      ConfigError: it is not installed.
    """
    try:
        import dp_accounting  # takes a second
    except ImportError as error:
        raise ConfigError(
            "gradient 'dp_sgd' says what epsilon training comes to, and dp-accounting, which computes it, is not installed: "
            "pip install 'frugal-jax[privacy]'."
        ) from error
    return dp_accounting
