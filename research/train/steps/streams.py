"""Keys for modules that draw as linen does, by `make_rng`: flax.linen.Dropout, or any layer of one's own.

Such a layer has one key a batch, so what an example draws depends on its place in the batch. research.layers.dropout has one
key an example: another batch size, micro-batches or devices under pmap leave its masks as they are.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
from flax.core import Scope
from flax.errors import InvalidRngError


def keys(call: Callable[..., Any], *args: Any, key: Callable[[str], jax.Array]) -> dict[str, jax.Array]:
    """A typed key [] for each stream that modules ask for: `rngs` of `module.apply`; {} where none does.

    Args:
      call: (*args, rngs) -> anything. It is traced and not computed, again until it asks for no new stream, because one that
        is there may lead to another (`has_rng`).
      key: purpose -> typed key [].

    Raises:
      InvalidRngError: a transformation such as `nn.scan` keeps a stream from the layer that asks for it.
    """
    given: set[str] = set()
    while True:
        with _listening() as asked:
            try:
                jax.eval_shape(call, *args, {name: jax.random.key(0) for name in sorted(given)})
            except InvalidRngError:
                if asked <= given:
                    raise
        if asked <= given:
            return {name: key(f'stream {name}') for name in sorted(asked)}
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
