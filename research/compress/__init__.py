"""Stage 2: `(params, masks) -> params that are seen`. The same function serves training, evaluation and cost.

A compression is that function. One that keeps something from the optimizer is a class: its constructor takes the config's
arguments, `split(rng, params) -> (params that the optimizer updates, masks)` is called once, and a call is the function.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from research import catalogue

COMPRESSIONS = {
    'none': 'research.compress:none',
    'lora': 'research.compress.lora:Lora',
}


class Compression(NamedTuple):
    """Stage 2 of a run.

    Attributes:
      weights: (params, masks) -> params that are seen.
      split: (rng, the network's params) -> (params, masks); None where the optimizer updates all of them.
    """

    weights: Callable[[Any, Any], Any]
    split: Callable[[Any, Any], tuple[Any, Any]] | None


def none(params, masks):
    """The parameters as they are."""
    del masks
    return params


def create(config: Mapping[str, Any]) -> Compression:
    """The compression named by `config.compress`, its keyword arguments bound."""
    if inspect.isclass(catalogue.resolve('compression', config['name'], COMPRESSIONS)):
        made = catalogue.build('compression', config, COMPRESSIONS)
        return Compression(made, made.split)
    return Compression(catalogue.bind('compression', config, COMPRESSIONS, ('params', 'masks')), None)
