"""Stage 4: ways to get from a loss to its gradient."""

from collections.abc import Callable, Mapping
from typing import Any

from research import catalogue

GRADIENTS = {
    'plain': 'research.gradients.plain:create',
}


def create(config: Mapping[str, Any]) -> Callable[..., Any]:
    """`(loss_fn(params, batch) -> (scalar, aux)) -> (params, batch) -> (gradient, aux)`, named by `config.gradient`."""
    return catalogue.build('gradient', config, GRADIENTS)
