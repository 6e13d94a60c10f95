"""Keys for modules that draw as linen does, by `make_rng`: flax.linen.Dropout, or any layer of one's own.

Such a layer has one key a batch, so what an example draws depends on its place in the batch. research.layers.dropout has one
key an example: another batch size, micro-batches or devices under pmap leave its masks as they are.
"""

import contextlib
from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import Any

import flax.linen as nn
import jax
from flax.core import Scope
from flax.errors import InvalidRngError

# Names by network and call: the variants of a study share networks, and a trace of a large one takes a second.
_KNOWN: dict[Hashable, tuple[str, ...]] = {}


def names(
    module: nn.Module, inputs: Any, options: Mapping[str, Any], call: Callable[[dict[str, jax.Array]], Any]
) -> tuple[str, ...]:
    """The random streams that a network and its layers ask for in a call, sorted; found once a process.

    Args:
      module, inputs, options: what tells calls apart; of the inputs only their shapes.
      call: rngs -> anything.

    Raises:
      InvalidRngError: as `_asked` does.
    """
    one = module, str(jax.tree.map(jax.numpy.shape, inputs)), tuple(options.items())
    try:
        hash(one)
    except TypeError:  # a field of one's own, such as an array
        return _asked(call)
    if one not in _KNOWN:
        _KNOWN[one] = _asked(call)
    return _KNOWN[one]


def _asked(call: Callable[[dict[str, jax.Array]], Any]) -> tuple[str, ...]:
    """The names of streams that a call asks for, sorted.

    It is traced and not computed, again until it asks for no new stream, because one that is there may lead to another
    (`has_rng`).

    Raises:
      InvalidRngError: a transformation such as `nn.scan` keeps a stream from the layer that asks for it.
    """
    given: set[str] = set()
    while True:
        with _listening() as asked:
            try:
                jax.eval_shape(call, {name: jax.random.key(0) for name in sorted(given)})
            except InvalidRngError:
                if asked <= given:
                    raise
        if asked <= given:
            return tuple(sorted(asked))
        given |= asked


@contextlib.contextmanager
def _listening() -> Iterator[set[str]]:
    """The names of streams that modules ask for meanwhile; `make_rng` goes through `has_rng` too."""
    asked, has_rng = set(), Scope.has_rng
    Scope.has_rng = lambda scope, name: asked.add(name) or has_rng(scope, name)
    try:
        yield asked
    finally:
        Scope.has_rng = has_rng
