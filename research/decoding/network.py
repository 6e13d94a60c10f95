"""A network behind `start` and `step`, as all ways of decoding use it, and what is refused at the door.

Letters: B examples, S tokens of a source or a prompt, V tokens of the vocabulary.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.core import FrozenDict

from research.catalogue import ConfigError


class Network(NamedTuple):
    """A module with its variables, and the tokens that begin and end a text."""

    module: nn.Module
    variables: Any
    bos: int
    eos: int

    def start(self, inputs: jax.Array, mask: jax.Array | None, size: int) -> tuple[Any, jax.Array, jax.Array | None]:
        """What decoding starts from, for inputs `[B, S]`: the state; the token before the first decoded one, int32 `[B]`; and
        of prompts with a mask, whether this is a real token, bool `[B]`, else None: `check_padding` is to know."""
        state, first = self.module.apply(self.variables, inputs, mask, size, method='start')
        if first is None:
            return state, jnp.full(len(inputs), self.bos, jnp.int32), None
        return state, first.astype(jnp.int32), None if mask is None else mask[:, -1]

    def step(self, tokens: jax.Array, state: Any) -> tuple[jax.Array, Any]:
        """Logits `[B, V]` behind tokens `[B]`, in float32 or wider, and the next state.

        Raises:
          ConfigError: `bos` or `eos` is no token of this vocabulary.
        """
        logits, state = self.module.apply(self.variables, tokens, state, method='step')
        for name, token in (('bos', self.bos), ('eos', self.eos)):
            if not 0 <= token < logits.shape[-1]:
                raise ConfigError(
                    f'{name} is {token}, and the network has tokens 0 to {logits.shape[-1] - 1}: give the number that its '
                    'tokenizer uses.'
                )
        return logits.astype(jnp.promote_types(logits.dtype, jnp.float32)), state


def checked(
    module: nn.Module, inputs: jax.Array, mask: jax.Array | None, max_length: int
) -> tuple[nn.Module, jax.Array, jax.Array | None]:
    """A module for which `jax.jit` finds its program again, inputs int32 `[B, S]`, and the mask bool `[B, S]` or None.

    Raises:
      ConfigError: the network cannot be decoded, or there is nothing to decode from, or nothing to decode.
    """
    for method in ('start', 'step'):
        if not hasattr(module, method):
            raise ConfigError(
                f'{type(module).__name__} has no method `{method}`, so it cannot be decoded: give it `start` and `step`, which '
                'research.decoding explains.'
            )
    if max_length < 1:
        raise ConfigError(f'max_length is {max_length}: decode at least 1 token.')
    inputs = jnp.asarray(inputs)
    if inputs.ndim != 2 or not jnp.issubdtype(inputs.dtype, jnp.integer):
        raise ConfigError(f'Sources and prompts are {inputs.dtype} {list(inputs.shape)}, expected integers [batch, tokens].')
    if not inputs.shape[1]:
        raise ConfigError('A source or prompt of no tokens: give at least one, such as bos.')
    module, inputs = _frozen(module, {}), inputs.astype(jnp.int32)
    if mask is None:
        return module, inputs, None
    mask = jnp.asarray(mask, bool)
    if mask.shape != inputs.shape:
        raise ConfigError(f'The mask is {list(mask.shape)} and its tokens are {list(inputs.shape)}: give one entry a token.')
    if _known(mask) and not np.asarray(mask).any(1).all():
        raise ConfigError(f'Row {np.asarray(mask).any(1).argmin()} has a source or prompt of no tokens: give at least one.')
    return module, inputs, mask


def check_padding(real: jax.Array | None) -> None:
    """Whether what decoding continued was real tokens, bool `[B]`.

    Raises:
      ConfigError: a prompt that ends with padding.
    """
    if real is not None and _known(real) and not np.asarray(real).all():
        raise ConfigError(
            f'The prompt in row {np.asarray(real).argmin()} ends with padding, and decoding continues its end: pad prompts on '
            'the left.'
        )


def _frozen(value, done):
    """A module is found by its fields, and what a config has in them, dicts and lists, cannot be. `done` keeps shared modules
    shared, by id."""
    if isinstance(value, nn.Module):
        if id(value) not in done:
            names = [field.name for field in dataclasses.fields(value) if field.init and field.name not in ('name', 'parent')]
            done[id(value)] = value.clone(**{name: _frozen(getattr(value, name), done) for name in names})
        return done[id(value)]
    if isinstance(value, Mapping):
        return FrozenDict({key: _frozen(item, done) for key, item in value.items()})
    return tuple(_frozen(item, done) for item in value) if type(value) in (list, tuple) else value


def _known(array):
    """Inside a program of the caller's, values are not known."""
    return not isinstance(array, jax.core.Tracer)
