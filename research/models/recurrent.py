"""Recurrent networks over tokens: a plain cell (Elman 1990), GRU (Cho et al. 2014), LSTM (Hochreiter and Schmidhuber 1997).

Each direction is one forward scan; what the inputs bring to the gates is one product over all tokens before it. The backward
direction reads each text flipped inside its own length (Graves and Schmidhuber 2005). Cells are torch's, gate by gate, with one
bias where torch adds two. B texts, T tokens, D features of a token, W of a direction.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from research.catalogue import ConfigError, nearest
from research.layers.dense import Dense
from research.layers.dropout import Dropout
from research.models.network import check_tokens

HEADS = ('none', 'classification', 'tagging')


# Each is (x, h, hidden, cell) -> (hidden, cell), [B, W], of what inputs and the last hidden state bring to the gates, side by
# side in torch's order. Only the LSTM changes its cell.
def _rnn(x, h, hidden, cell):
    del hidden
    return jnp.tanh(x + h), cell


def _gru(x, h, hidden, cell):
    (reset, update, new), (reset_h, update_h, new_h) = (jnp.split(part, 3, -1) for part in (x, h))
    new = jnp.tanh(new + jax.nn.sigmoid(reset + reset_h) * new_h)
    update = jax.nn.sigmoid(update + update_h)
    return (1 - update) * new + update * hidden, cell


def _lstm(x, h, hidden, cell):
    del hidden
    into, forget, new, out = jnp.split(x + h, 4, -1)
    cell = jax.nn.sigmoid(forget) * cell + jax.nn.sigmoid(into) * jnp.tanh(new)
    return jax.nn.sigmoid(out) * jnp.tanh(cell), cell


# Name -> (function, gates).
CELLS = {'rnn': (_rnn, 1), 'gru': (_gru, 3), 'lstm': (_lstm, 4)}


class Direction(nn.Module):
    """One direction of one layer: `[B, T, D]` and lengths `[B]` to (outputs `[B, T, W]`, last outputs `[B, W]`).

    Behind the end of a text its last output stays. Parameters: `input/kernel` [D, G W] and `input/bias` [G W] of G gates,
    `recurrent` [W, G W], orthogonal gate by gate, and of a GRU `new_bias` [W], inside the reset.
    """

    cell: str
    width: int
    backward: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, lengths: jax.Array) -> tuple[jax.Array, jax.Array]:
        step, gates = CELLS[self.cell]
        places = jnp.arange(x.shape[1])[None]
        there = places < lengths[:, None]
        flipped = jnp.where(there, lengths[:, None] - 1 - places, places)[..., None] if self.backward else None
        x = x if flipped is None else jnp.take_along_axis(x, flipped, 1)
        x = Dense(gates * self.width, name='input')(x)
        square = nn.initializers.orthogonal()
        kernel = self.param(
            'recurrent',
            lambda key: jnp.concatenate([square(k, (self.width, self.width)) for k in jax.random.split(key, gates)], 1),
        ).astype(x.dtype)
        bias = 0
        if self.cell == 'gru':
            new = self.param('new_bias', nn.initializers.zeros, (self.width,)).astype(x.dtype)
            bias = jnp.pad(new, (2 * self.width, 0))[None]

        def one(state, now):
            inputs, here = now
            after = step(inputs, state[0] @ kernel + bias, *state)
            state = tuple(jnp.where(here[:, None], new, old) for new, old in zip(after, state, strict=True))
            return state, state[0]

        start = (jnp.zeros((len(x), self.width), x.dtype),) * 2
        (last, _), outputs = jax.lax.scan(one, start, (x.swapaxes(0, 1), there.T))
        outputs = outputs.swapaxes(0, 1)
        return outputs if flipped is None else jnp.take_along_axis(outputs, flipped, 1), last


def read(net: nn.Module, x: jax.Array, mask: jax.Array | None, train: bool) -> Any:
    """What the head of `net` gives of features `[B, T, D]`, by layers that are added to it while it runs.

    Args:
      net: a module with the fields of `Recurrent` but for the tokens'.
      x: the features.
      mask: bool `[B, T]`, True on real ones, which come first; None for all.
      train: whether dropout is on.

    Raises:
      ConfigError: an unknown head or cell.
    """
    for what, given, valid in (('head', net.head, HEADS), ('cell', net.cell, CELLS)):
        if given not in valid:
            raise ConfigError(f"Unknown {what} '{given}'.{nearest(given, valid)}")
    lengths = jnp.full(len(x), x.shape[1]) if mask is None else mask.sum(1)
    ways = {'forward': False, **({'backward': True} if net.bidirectional else {})}
    for i in range(1, net.depth + 1):
        x = Dropout(net.dropout, name=f'dropout{i}')(x, train)
        both = [Direction(net.cell, net.width, back, name=f'{name}{i}')(x, lengths) for name, back in ways.items()]
        x, last = (jnp.concatenate(parts, -1) for parts in zip(*both, strict=True))
    if net.head == 'none':
        return x, last
    x = Dropout(net.dropout, name='head_dropout')(last if net.head == 'classification' else x, train)
    return Dense(net.num_classes, name='head')(x)


class Recurrent(nn.Module):
    """A recurrent network over tokens, and a head.

    Attributes:
      num_classes: K, of the heads.
      vocabulary_size: V; tokens are below it.
      head: 'none' gives (outputs [B, T, W'], the last of each direction [B, W']), W' = W a direction; 'classification' logits
        [B, K] from the last ones; 'tagging' logits [B, T, K].
      cell: 'rnn', 'gru' or 'lstm'.
      dim: D, of the learned vector of a token.
      width: W.
      depth: layers.
      bidirectional: whether each layer reads both ways.
      dropout: rate on the vectors of tokens, between layers and before the head.
    """

    num_classes: int = 2
    vocabulary_size: int = 30522
    head: str = 'none'
    cell: str = 'lstm'
    dim: int = 128
    width: int = 128
    depth: int = 1
    bidirectional: bool = True
    dropout: float = 0.0

    HEADS = ('head',)
    WORD_VECTORS = True
    # Of any length: the parameters are the same.
    EXAMPLE = jax.ShapeDtypeStruct((1, 1), jnp.int32)

    @nn.compact
    def __call__(
        self, tokens: jax.Array, segments: jax.Array | None = None, mask: jax.Array | None = None, train: bool = False
    ) -> Any:
        """What `head` gives.

        Args:
          tokens: int `[B, T]`, below V.
          segments: not read: a pair is one text here, with a separator inside.
          mask: bool `[B, T]`, True on real tokens, which come first; None for all. Padding changes nothing.
          train: whether dropout is on.

        Raises:
          ConfigError: no tokens, an unknown head or cell.
        """
        del segments
        check_tokens('A recurrent network', tokens)
        vectors = nn.Embed(self.vocabulary_size, self.dim, name='token_embedding')(tokens)
        return read(self, vectors, mask, train)


rnn = functools.partial(Recurrent, cell='rnn')
gru = functools.partial(Recurrent, cell='gru')
lstm = functools.partial(Recurrent, cell='lstm')
