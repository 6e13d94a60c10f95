"""The Transformer (Vaswani et al. 2017): an encoder reads the source, and a decoder predicts each token of the target.

As in the paper: post-norm blocks with ReLU, embeddings times sqrt(D) plus sinusoidal positions, one table for source, target
and logits, dropout on that sum and at the end of each branch. All of it is a field. B pairs, S tokens of the source, T of the
target, R tokens of a cache, D features, N heads, V entries in the target's vocabulary.

A deep encoder with a shallow decoder (Kasai et al. 2021) is two fields. Config: {'model.depth': 12, 'model.decoder_depth': 1}.

Idea: the encoder runs once a text, the decoder once a token, so blocks are better spent on the encoder. Cost: a block of the
decoder has a third more parameters than one of the encoder. Claim: 12 blocks and one reach a BLEU of 28.3, English to German,
learning from another network's translations, and 26.9 from the original ones (the authors' repository); they beat networks that
write all tokens at once, at a similar speed (abstract). Clashes: none.

Average attention is {'model.decoder_attention': 'average'}: research/layers/average_attention.py says what it is.

Shared layers are {'model.share_layers': True}: one block of the encoder and one of the decoder are applied as often as these
are deep (Dehghani et al. 2019, without its halting). Cost: no FLOPs are saved. Clashes: learning rates and freezing by layer
see one block.
"""

import functools
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.core import FrozenDict

from research.catalogue import ConfigError, nearest
from research.layers import remat
from research.layers.attention import causal_mask, padding_mask, segment_mask
from research.layers.dropout import Dropout
from research.layers.positions import POSITIONS, check_length, counted, sinusoidal
from research.models.blocks import ATTENTIONS, Block, Kept, stack
from research.models.network import Kit, check_tokens

# Base and big are the paper's (table 3, with big's dropout of 0.3): D, blocks of each side, heads, width of the MLP.
SIZES = {
    'tiny': {'dim': 128, 'depth': 2, 'heads': 4, 'width': 512},
    'small': {'dim': 256, 'depth': 4, 'heads': 4, 'width': 1024},
    'base': {'dim': 512, 'depth': 6, 'heads': 8, 'width': 2048},
    'big': {'dim': 1024, 'depth': 6, 'heads': 16, 'width': 4096, 'dropout': 0.3},
}
# What shares the embeddings -> tables of source, target and logits.
TABLES = {
    'all': ('embedding', 'embedding', 'embedding'),
    'target': ('source_embedding', 'target_embedding', 'target_embedding'),
    'none': ('source_embedding', 'target_embedding', 'output_embedding'),
}


class State(NamedTuple):
    """Pairs while the target is decoded. Every leaf has pairs as its first axis, or is the count of tokens, the same for all.

    Attributes:
      caches: of the decoder's blocks, for R tokens, with the keys and values of the source.
      source_mask: bool `[B, S]`, True on real tokens; None for all.
    """

    caches: tuple[Kept, ...]
    source_mask: jax.Array | None


class Transformer(nn.Module):
    """A source and a target to the logits of the target's next tokens.

    Attributes:
      num_classes: not read; the logits are the vocabulary's.
      vocabulary_size: of the source.
      target_vocabulary_size: V; 0 for one vocabulary of both.
      dim, depth, heads, width: D, blocks of the encoder, N, and the width of their MLP.
      decoder_depth: blocks of the decoder; 0 for as many as the encoder has.
      decoder_attention: how tokens of the target see each other: 'softmax' or 'average' (research.layers.average_attention).
      max_length: the most tokens of a source or a target; for learned positions.
      positions: 'sinusoidal' as in the paper, 'learned' or 'rotary' (research.layers.positions).
      norm_first: whether norm layers stand before the branches, and one at the end of each side, instead of after each sum.
      share_embeddings: 'all' for one table of source, target and logits, as in the paper; 'target' for one of target and
        logits; 'none' for three.
      share_layers: whether one block of each side is applied as often as it is deep.
      dropout: rate on the sum of embeddings and positions, and at the end of each branch.
      attention_dropout: rate of the attention's weights.
      norm, activation, low_rank, remat, axis_name: as in `research.models.network.Network`.
    """

    num_classes: int = 0
    vocabulary_size: int = 37000
    target_vocabulary_size: int = 0
    dim: int = 128
    depth: int = 2
    heads: int = 4
    width: int = 512
    decoder_depth: int = 0
    decoder_attention: str = 'softmax'
    max_length: int = 512
    positions: str = 'sinusoidal'
    norm_first: bool = False
    share_embeddings: str = 'all'
    share_layers: bool = False
    dropout: float = 0.1
    attention_dropout: float = 0.0
    norm: str | Mapping[str, Any] = FrozenDict({'name': 'layer', 'epsilon': 1e-6})
    activation: str = 'relu'
    low_rank: float = 0.0
    remat: str = 'none'
    axis_name: str | None = None

    HEADS = ('output_embedding',)
    # Of any length: the parameters are the same. The target is the source where it is left out.
    EXAMPLE = jax.ShapeDtypeStruct((1, 1), jnp.int32)

    def __call__(
        self,
        source: jax.Array,
        target: jax.Array | None = None,
        source_mask: jax.Array | None = None,
        target_mask: jax.Array | None = None,
        train: bool = False,
        source_packed: jax.Array | None = None,
        target_packed: jax.Array | None = None,
    ) -> jax.Array:
        """Logits `[B, T, V]`; those of token t depend on the source and on the target's tokens up to it.

        Args:
          source: int `[B, S]`, below `vocabulary_size`.
          target: int `[B, T]`, below V; None for the source.
          source_mask, target_mask: bool `[B, S]` and `[B, T]`, True on real tokens; None for all. The others are seen by
            nobody, and positions do not count them.
          train: whether dropout is on.
          source_packed, target_packed: int `[B, S]` and `[B, T]`, which of several pairs in a row a token belongs to, one after
            the other; pairs do not see each other. None for one pair a row.

        Raises:
          ConfigError: no tokens, too many for learned positions, vocabularies that cannot be, an unknown field's value.
        """
        memory = self.encode(source, source_mask, train, source_packed)
        target = source if target is None else target
        return self.decode(target, memory, source_mask, target_mask, train, source_packed, target_packed)

    def encode(
        self,
        source: jax.Array,
        source_mask: jax.Array | None = None,
        train: bool = False,
        source_packed: jax.Array | None = None,
    ) -> jax.Array:
        """The encoder alone: the memory, `[B, S, D]`; arguments as of a call."""
        self._check('source', source)
        seen = _both(None if source_mask is None else padding_mask(source_mask), source_packed, source_packed)
        return self._side('encoder', source, counted(source.shape[1], source_mask, source_packed), train, mask=seen)[0]

    def decode(
        self,
        target: jax.Array,
        memory: jax.Array,
        source_mask: jax.Array | None = None,
        target_mask: jax.Array | None = None,
        train: bool = False,
        source_packed: jax.Array | None = None,
        target_packed: jax.Array | None = None,
    ) -> jax.Array:
        """The decoder alone: logits `[B, T, V]`, from a memory `[B, S, D]`; other arguments as of a call."""
        self._check('target', target)
        length = target.shape[1]
        seen = causal_mask(length, length)
        seen = _both(seen if target_mask is None else seen & padding_mask(target_mask), target_packed, target_packed)
        across = _both(None if source_mask is None else padding_mask(source_mask), target_packed, source_packed)
        positions = counted(length, target_mask, target_packed)
        return self._side('decoder', target, positions, train, mask=seen, memory=memory, memory_mask=across)[0]

    def start(self, inputs: jax.Array, mask: jax.Array | None, size: int) -> tuple[State, None]:
        """The state before the first token of the target; the second result, None, says that this token is the tokenizer's.

        Args:
          inputs: int `[B, S]`, the source.
          mask: bool `[B, S]`, True on real tokens; None for all.
          size: how often `step` will be called at most.

        Raises:
          ConfigError: as a call does, for a target of `size` tokens.
        """
        memory, none = self.encode(inputs, mask), jnp.zeros((len(inputs), 0), jnp.int32)
        self._check('target', none, more=size)
        _, kept = self._side('decoder', none, counted(0), False, mask=causal_mask(0, 0), memory=memory)
        caches = tuple(k._replace(own=k.own.widened(size)) for k in kept)
        return State(caches, None if mask is None else mask.astype(bool)), None

    def step(self, tokens: jax.Array, state: State) -> tuple[jax.Array, State]:
        """Logits `[B, V]` of what follows the next token of each target, int `[B]`, and the state behind it."""
        own = state.caches[0].own
        across = None if state.source_mask is None else padding_mask(state.source_mask)
        at, given = jnp.asarray(own.length)[None, None], {'memory_mask': across, 'caches': state.caches}
        logits, kept = self._side('decoder', tokens[:, None], at, False, mask=own.causal(1), **given)
        return logits[:, 0], state._replace(caches=kept)

    @nn.compact
    def _side(self, side, tokens, positions, train, **given):
        """The vectors of the encoder, or the logits of the decoder, and what the blocks keep."""
        kit = Kit(self.norm, self.activation, train, self.low_rank, self.axis_name)
        source, target, output = TABLES[self.share_embeddings]
        sizes = self.vocabulary_size, self.target_vocabulary_size or self.vocabulary_size
        size, name, depth = (sizes[0], source, self.depth) if side == 'encoder' else (sizes[1], target, self.decoder_depth)
        embed = functools.partial(nn.Embed, features=self.dim, embedding_init=nn.initializers.normal(self.dim**-0.5))
        table = embed(size, name=name)
        x = table(tokens) * math.sqrt(self.dim)
        if self.positions == 'learned':
            x += embed(self.max_length, name=f'{side}_positions')(positions)
        elif self.positions == 'sinusoidal':
            x += sinusoidal(positions, self.dim).astype(x.dtype)
        x = Dropout(self.dropout, name=f'{side}_dropout')(x, train)
        block = functools.partial(
            remat.block(Block, self.remat),
            kit,
            self.heads,
            self.width,
            norm_first=self.norm_first,
            attention='softmax' if side == 'encoder' else self.decoder_attention,
            dropout=self.dropout,
            attention_dropout=self.attention_dropout,
        )
        turned = positions if self.positions == 'rotary' else None
        x, kept = stack(x, block, depth or self.depth, side, self.share_layers, positions=turned, **given)
        x = kit.norm(x, name=f'{side}_norm') if self.norm_first else x
        if side == 'encoder':
            return x, kept
        table = table if output == target else embed(size, name=output)
        return remat.product(table.attend(x)), kept

    @nn.nowrap
    def _check(self, what: str, tokens: jax.Array, more: int = 0) -> None:
        choices = {'positions': POSITIONS, 'share_embeddings': TABLES, 'decoder_attention': ATTENTIONS}
        for field, valid in choices.items():
            if (given := getattr(self, field)) not in valid:
                raise ConfigError(f"Unknown {field} '{given}'.{nearest(given, valid)}")
        if self.vocabulary_size < 1 or self.target_vocabulary_size < 0:
            raise ConfigError(
                f'Vocabularies of {self.vocabulary_size} and {self.target_vocabulary_size} tokens: expected the sizes of the '
                "tokenizers, of which the target's may be 0 for one vocabulary of both."
            )
        if self.target_vocabulary_size and self.share_embeddings == 'all':
            raise ConfigError(
                f'One table of embeddings for two vocabularies, {self.vocabulary_size} and {self.target_vocabulary_size}: set '
                "share_embeddings to 'target' or 'none', or leave target_vocabulary_size out."
            )
        check_tokens(f"The Transformer's {what}", tokens)
        if self.positions == 'learned':
            check_length(f'A {what}', tokens.shape[1] + more, self.max_length)


def _both(mask: jax.Array | None, queries: jax.Array | None, keys: jax.Array | None) -> jax.Array | None:
    """A mask, and that of pairs that do not see each other; None where neither hides anything."""
    if queries is None or keys is None:
        return mask
    return segment_mask(queries, keys) if mask is None else mask & segment_mask(queries, keys)


transformer_tiny = functools.partial(Transformer, **SIZES['tiny'])
transformer_small = functools.partial(Transformer, **SIZES['small'])
transformer_base = functools.partial(Transformer, **SIZES['base'])
transformer_big = functools.partial(Transformer, **SIZES['big'])
