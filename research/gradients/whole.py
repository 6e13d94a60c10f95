"""The gradient of the whole batch in one backward pass."""

from collections.abc import Callable
from typing import Any

import jax


def gradient(loss_fn: Callable[..., Any]) -> Callable[..., Any]:
    """(params, collections, batch) -> (gradient of the sum, aux), as in research.gradients."""

    def of(params: Any, collections: Any, batch: Any) -> tuple[Any, dict[str, Any]]:
        gradient, aux = jax.grad(loss_fn, has_aux=True)(params, collections, batch)
        return gradient, {**aux, 'count': aux['sums']['count'], 'observed': {}}

    return of
