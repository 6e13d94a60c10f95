"""Stage 2: `(params, masks) -> params that are seen`. The same function serves training, evaluation and cost."""

from collections.abc import Callable, Mapping
from typing import Any

from research import catalogue

COMPRESSIONS = {
    'none': 'research.compress:none',
}


def none(params, masks):
    """The parameters as they are."""
    del masks
    return params


def create(config: Mapping[str, Any]) -> Callable[..., Any]:
    """The compression named by `config.compress`, its keyword arguments bound."""
    return catalogue.bind('compression', config, COMPRESSIONS, ('params', 'masks'))
