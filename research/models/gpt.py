"""GPT-2 (Radford et al. 2019): a Transformer decoder alone, which predicts each token from those before.

Pre-norm blocks, tanh GELU, learned positions, and logits by the table of the embeddings. It matches transformers' layer by
layer: LayerNorm's epsilon 1e-5, dropout 0.1, weights drawn from N(0, 0.02), the last matrix of a branch's from that over
sqrt(2 blocks). A folder with its weights brings its sizes and its tokenizer: {'model.init_from': FOLDER, 'model.name': 'gpt2',
'task.name': 'language_model'}. B texts, T tokens, S tokens of a cache, D features, N heads, V entries in the vocabulary.
"""

import functools
import math
from collections.abc import Iterator, Mapping
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
from research.models.blocks import Block, Kept, stack
from research.models.network import Kit, Source, check_tokens

# Table 2 of the paper: D, blocks, and heads of 64 features.
SIZES = {
    'gpt2': {'dim': 768, 'depth': 12, 'heads': 12},
    'gpt2_medium': {'dim': 1024, 'depth': 24, 'heads': 16},
    'gpt2_large': {'dim': 1280, 'depth': 36, 'heads': 20},
    'gpt2_xl': {'dim': 1600, 'depth': 48, 'heads': 25},
}

_HUGGINGFACE = {
    'token_embedding/embedding': 'transformer.wte.weight',
    'position_embedding/embedding': 'transformer.wpe.weight',
    'block{}/attention_norm': 'transformer.h.{}.ln_1',
    'block{}/qkv': 'transformer.h.{}.attn.c_attn',
    'block{}/projection': 'transformer.h.{}.attn.c_proj',
    'block{}/mlp_norm': 'transformer.h.{}.ln_2',
    'block{}/mlp_in': 'transformer.h.{}.mlp.c_fc',
    'block{}/mlp_out': 'transformer.h.{}.mlp.c_proj',
    'norm': 'transformer.ln_f',
}
# As in a config.json at the hub.
_FIELDS = {
    'vocabulary_size': 'vocab_size',
    'dim': 'n_embd',
    'depth': 'n_layer',
    'heads': 'n_head',
    'max_length': 'n_positions',
    'dropout': 'resid_pdrop',
    'attention_dropout': 'attn_pdrop',
}
_ACTIVATIONS = {'gelu_new': 'gelu_tanh', 'gelu_pytorch_tanh': 'gelu_tanh'}
# What the weights would have to be used with, and is not here.
_PLAIN = {'scale_attn_weights': True, 'scale_attn_by_inverse_layer_idx': False, 'add_cross_attention': False}


def _configured(name: str, config: Mapping[str, Any]) -> dict[str, Any]:
    said = {ours: config[theirs] for ours, theirs in _FIELDS.items() if theirs in config}
    if width := config.get('n_inner') or 4 * config.get('n_embd', 0):
        said['width'] = width
    if 'activation_function' in config:
        said['activation'] = _ACTIVATIONS.get(config['activation_function'], config['activation_function'])
    if 'layer_norm_epsilon' in config:
        said['norm'] = {'name': 'layer', 'epsilon': config['layer_norm_epsilon']}
    if odd := {key: config[key] for key, value in _PLAIN.items() if config.get(key, value) != value}:
        raise ConfigError(f'The config.json beside the weights says {odd}, which GPT here does not compute.')
    sizes = SIZES.get(name, {})
    if others := {key: said[key] for key in sizes if said.get(key) not in (None, sizes[key])}:
        raise ConfigError(f"The config.json beside the weights says {others}, not a '{name}' {sizes}: load it as 'gpt'.")
    return said


def _names(net: 'GPT') -> Iterator[tuple[str, str, str]]:
    if net.share_layers:
        raise ConfigError("GPT-2's weights do not fit shared layers: leave share_layers out.")
    for ours, theirs in _HUGGINGFACE.items():
        matrix = ours.removeprefix('block{}/') in ('qkv', 'projection', 'mlp_in', 'mlp_out')
        for i in range(net.depth if '{}' in ours else 1):
            yield ours.format(i + 1), theirs.format(i), 'conv1d' if matrix else ''


class State(NamedTuple):
    """Texts while they are continued. Every leaf has texts as its first axis, or is the count of tokens, the same for all.

    Attributes:
      caches: of the blocks, for S tokens.
      seen: bool `[B, S]`, False on padding, which is looked at by nobody; None without any.
      position: int `[B]`, of the next token.
    """

    caches: tuple[Kept, ...]
    seen: jax.Array | None
    position: jax.Array


class GPT(nn.Module):
    """Tokens to the logits of the token after each, `[B, T]` to `[B, T, V]`.

    Attributes:
      num_classes: not read; the logits are the vocabulary's.
      vocabulary_size: V.
      dim, depth, heads: D, blocks, N.
      width: of the blocks' MLP; 0 for 4 D.
      key_heads: heads of keys and values, a divisor of N; 0 for N. Fewer make the cache smaller.
      max_length: the most tokens; for learned positions.
      positions: 'learned' as in the paper, 'sinusoidal' or 'rotary' (research.layers.positions).
      share_layers: whether one block is applied `depth` times.
      dropout: rate after the embeddings and at the end of each branch.
      attention_dropout: rate of the attention's weights.
      norm, activation, low_rank, remat, axis_name: as in `research.models.network.Network`.
    """

    num_classes: int = 0
    vocabulary_size: int = 50257
    dim: int = 128
    depth: int = 2
    heads: int = 2
    width: int = 0
    key_heads: int = 0
    max_length: int = 1024
    positions: str = 'learned'
    share_layers: bool = False
    dropout: float = 0.1
    attention_dropout: float = 0.1
    norm: str | Mapping[str, Any] = FrozenDict({'name': 'layer', 'epsilon': 1e-5})
    activation: str = 'gelu_tanh'
    low_rank: float = 0.0
    remat: str = 'none'
    axis_name: str | None = None

    SOURCES = {
        'huggingface': Source(
            _names,
            {name: f'openai-community/{name.replace("_", "-")}' for name in SIZES},
            backbone='transformer',
            model_type='gpt2',
            configured=_configured,
            tied={'lm_head.weight': 'transformer.wte.weight'},
        ),
    }
    HEADS = ()
    # Of any length: the parameters are the same.
    EXAMPLE = jax.ShapeDtypeStruct((1, 1), jnp.int32)

    def __call__(
        self, tokens: jax.Array, mask: jax.Array | None = None, train: bool = False, packed: jax.Array | None = None
    ) -> jax.Array:
        """Logits `[B, T, V]`; those of token t depend on the tokens up to it.

        Args:
          tokens: int `[B, T]`, below V.
          mask: bool `[B, T]`, True on real tokens, anywhere in a row; None for all. The others are seen by nobody, and
            positions do not count them.
          train: whether dropout is on.
          packed: int `[B, T]`, which of several texts in a row a token belongs to, one after the other; texts do not see each
            other, and positions start anew. None for one text a row.

        Raises:
          ConfigError: no tokens, too many for learned positions, an unknown kind of positions, no vocabulary.
        """
        self._check(tokens)
        seen = _seen(tokens.shape[1], mask)
        seen = seen if packed is None else seen & segment_mask(packed, packed)
        return self._network(tokens, counted(tokens.shape[1], mask, packed), seen, train)[0]

    def start(self, inputs: jax.Array, mask: jax.Array | None, size: int) -> tuple[State, jax.Array]:
        """The state behind all tokens of a prompt but the last, and that last token, `[B]`, with which `step` goes on.

        Args:
          inputs: int `[B, T]`, padded on the left.
          mask: bool `[B, T]`, True on real tokens; None for all.
          size: how often `step` will be called at most.

        Raises:
          ConfigError: as a call does, for T - 1 + `size` tokens.
        """
        self._check(inputs, more=size - 1)
        before = inputs.shape[1] - 1
        known = None if mask is None else mask[:, :-1].astype(bool)
        _, kept = self._network(inputs[:, :-1], counted(before, known), _seen(before, known), False)
        caches = tuple(k._replace(own=k.own.widened(size)) for k in kept)
        seen = None if known is None else jnp.pad(known, ((0, 0), (0, size)), constant_values=True)
        position = jnp.full(len(inputs), before) if known is None else known.sum(1)
        return State(caches, seen, position.astype(jnp.int32)), inputs[:, -1]

    def step(self, tokens: jax.Array, state: State) -> tuple[jax.Array, State]:
        """Logits `[B, V]` of what follows the next token of each text, int `[B]`, and the state behind it."""
        seen = state.caches[0].own.causal(1)
        seen = seen if state.seen is None else seen & padding_mask(state.seen)
        logits, kept = self._network(tokens[:, None], state.position[:, None], seen, False, state.caches)
        return logits[:, 0], State(kept, state.seen, state.position + 1)

    @nn.compact
    def _network(self, tokens, positions, seen, train, caches=None):
        kit = Kit(self.norm, self.activation, train, self.low_rank, self.axis_name)
        init = nn.initializers.normal(0.02)
        embedding = nn.Embed(self.vocabulary_size, self.dim, embedding_init=init, name='token_embedding')
        x = embedding(tokens)
        if self.positions == 'learned':
            x += nn.Embed(self.max_length, self.dim, embedding_init=init, name='position_embedding')(positions)
        elif self.positions == 'sinusoidal':
            x += sinusoidal(positions, self.dim).astype(x.dtype)
        x = Dropout(self.dropout, name='dropout')(x, train)
        block = functools.partial(
            remat.block(Block, self.remat),
            kit,
            self.heads,
            self.width or 4 * self.dim,
            key_heads=self.key_heads,
            dropout=self.dropout,
            attention_dropout=self.attention_dropout,
            kernel_init=init,
            output_init=nn.initializers.normal(0.02 / math.sqrt(2 * self.depth)),
        )
        turned = positions if self.positions == 'rotary' else None
        x, kept = stack(x, block, self.depth, shared=self.share_layers, caches=caches, mask=seen, positions=turned)
        return remat.product(embedding.attend(kit.norm(x, name='norm'))), kept

    @nn.nowrap
    def _check(self, tokens: jax.Array, more: int = 0) -> None:
        if self.positions not in POSITIONS:
            raise ConfigError(f"Unknown positions '{self.positions}'.{nearest(self.positions, POSITIONS)}")
        if self.vocabulary_size < 1:
            raise ConfigError(f'vocabulary_size is {self.vocabulary_size}, expected the number of tokens of the tokenizer.')
        check_tokens('GPT', tokens)
        if self.positions == 'learned':
            check_length('Texts', tokens.shape[1] + more, self.max_length)


def _seen(length: int, mask: jax.Array | None) -> jax.Array:
    """What each of T tokens looks at: itself and those before, but for padding."""
    return causal_mask(length, length) if mask is None else causal_mask(length, length) & padding_mask(mask)


# 124,439,808, 354,823,168, 774,030,080 and 1,557,611,200 parameters.
gpt2 = functools.partial(GPT, **SIZES['gpt2'])
gpt2_medium = functools.partial(GPT, **SIZES['gpt2_medium'])
gpt2_large = functools.partial(GPT, **SIZES['gpt2_large'])
gpt2_xl = functools.partial(GPT, **SIZES['gpt2_xl'])
