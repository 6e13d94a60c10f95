"""BERT (Devlin et al. 2019): a Transformer encoder over word pieces, pretrained on words left out and on pairs of sentences.

Word pieces, positions and segments as one sum, post-norm blocks, and a head on top. It matches transformers' layer by layer:
LayerNorm's epsilon 1e-12, exact GELU, dropout 0.1. B texts, T tokens, D features, N heads, V entries in the vocabulary.

ALBERT (Lan et al. 2020) is two fields. Config: {'model.share_layers': True, 'model.embedding_dim': 128}.

Idea: one block is applied `depth` times, and words are vectors of E < D features, mapped to D by a matrix. As in transformers,
that mapping follows the embeddings' LayerNorm and dropout, and the vocabulary's logits come from a transform to E.

Cost: no FLOPs are saved by sharing, which count `depth` times; the mapping's are new. Claim: 89 % fewer parameters than
BERT-base (12 M), 2.2 points worse on average over five tasks when both are pretrained alike (their table 2).

Clashes: BERT's weights have no place in either. Learning rates and freezing by layer see one block.
"""

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.core import FrozenDict

from research.catalogue import ConfigError, nearest
from research.layers import initializers, remat
from research.layers.attention import padding_mask, segment_mask
from research.layers.dropout import Dropout
from research.layers.positions import alibi, check_length, counted
from research.models.blocks import Block, stack
from research.models.network import Kit, Source, check_tokens

# Devlin et al. 2019, and Turc et al. 2019 for the sizes below base: D, blocks, heads, width of the MLP.
SIZES = {
    'tiny': {'dim': 128, 'depth': 2, 'heads': 2, 'width': 512},
    'mini': {'dim': 256, 'depth': 4, 'heads': 4, 'width': 1024},
    'small': {'dim': 512, 'depth': 4, 'heads': 8, 'width': 2048},
    'medium': {'dim': 512, 'depth': 8, 'heads': 8, 'width': 2048},
    'base': {'dim': 768, 'depth': 12, 'heads': 12, 'width': 3072},
    'large': {'dim': 1024, 'depth': 24, 'heads': 16, 'width': 4096},
}
POSITIONS = ('learned', 'rotary', 'alibi', 'none')
# Head -> whether it needs the text as one vector.
POOLED = {'none': True, 'pretraining': True, 'classification': True, 'tagging': False, 'question_answering': False}

_HUGGINGFACE = {
    'token_embedding/embedding': 'bert.embeddings.word_embeddings.weight',
    'position_embedding/embedding': 'bert.embeddings.position_embeddings.weight',
    'segment_embedding/embedding': 'bert.embeddings.token_type_embeddings.weight',
    'embedding_norm': 'bert.embeddings.LayerNorm',
    'block{}/qkv': tuple(f'bert.encoder.layer.{{}}.attention.self.{part}' for part in ('query', 'key', 'value')),
    'block{}/projection': 'bert.encoder.layer.{}.attention.output.dense',
    'block{}/attention_norm': 'bert.encoder.layer.{}.attention.output.LayerNorm',
    'block{}/mlp_in': 'bert.encoder.layer.{}.intermediate.dense',
    'block{}/mlp_out': 'bert.encoder.layer.{}.output.dense',
    'block{}/mlp_norm': 'bert.encoder.layer.{}.output.LayerNorm',
    'pooler': 'bert.pooler.dense',
    'transform': 'cls.predictions.transform.dense',
    'transform_norm': 'cls.predictions.transform.LayerNorm',
    'vocabulary_bias': 'cls.predictions.bias',
    'next_sentence': 'cls.seq_relationship',
}


# As in a config.json at the hub.
_FIELDS = {
    'vocabulary_size': 'vocab_size',
    'dim': 'hidden_size',
    'depth': 'num_hidden_layers',
    'heads': 'num_attention_heads',
    'width': 'intermediate_size',
    'max_length': 'max_position_embeddings',
    'segment_types': 'type_vocab_size',
    'activation': 'hidden_act',
    'dropout': 'hidden_dropout_prob',
    'attention_dropout': 'attention_probs_dropout_prob',
}


def _configured(name: str, config: Mapping[str, Any]) -> dict[str, Any]:
    said = {ours: config[theirs] for ours, theirs in _FIELDS.items() if theirs in config}
    if 'layer_norm_eps' in config:
        said['norm'] = {'name': 'layer', 'epsilon': config['layer_norm_eps']}
    if (kind := config.get('position_embedding_type')) not in (None, 'absolute'):
        raise ConfigError(f"The config.json beside the weights has positions of kind '{kind}', and 'absolute' ones are read.")
    sizes = SIZES.get(name.removeprefix('bert_'), {})
    if others := {key: said[key] for key in sizes if said.get(key) not in (None, sizes[key])}:
        raise ConfigError(f"The config.json beside the weights says {others}, not a '{name}' {sizes}: load it as 'bert'.")
    return said


def _names(net: 'BERT') -> Iterator[tuple[str, tuple[str, ...]]]:
    if net.share_layers or net.embedding_dim:
        raise ConfigError("BERT's weights do not fit shared layers or a factorized embedding: leave both fields out.")
    table = _HUGGINGFACE | {'head': 'qa_outputs' if net.head == 'question_answering' else 'classifier'}
    for ours, theirs in table.items():
        for i in range(net.depth if '{}' in ours else 1):
            yield ours.format(i + 1), tuple(name.format(i) for name in ((theirs,) if isinstance(theirs, str) else theirs))


class BERT(nn.Module):
    """Texts to what the head gives.

    Attributes:
      num_classes: K, of the heads 'classification' (1 for regression) and 'tagging'.
      head: 'none' gives (sequence `[B, T, D]`, pooled `[B, D]`), pooled being a layer with tanh over the first token;
        'pretraining' (logits of the vocabulary `[B, T, V]`, logits of the next sentence `[B, 2]`, of which the first says that
        it follows); 'classification' `[B, K]`; 'tagging' `[B, T, K]`; 'question_answering' `[B, T, 2]`, logits of where the
        answer starts and where it ends.
      vocabulary_size: V.
      dim, depth, heads, width: D, blocks, N, and the width of their MLP.
      key_heads: heads of keys and values, a divisor of N; 0 for N.
      max_length: the most tokens; for learned positions.
      segment_types: numbers of segments that are told apart.
      positions: 'learned' as in the paper, 'rotary', 'alibi' (research.layers.positions), or 'none'.
      norm_first: whether norm layers stand before the branches, and one before the head, instead of after each sum.
      gated: whether the activation of the MLP multiplies a second matrix.
      share_layers: whether one block is applied `depth` times.
      embedding_dim: E, features of the embeddings, which a matrix maps to D; 0 for D and no such matrix.
      dropout: rate after the embeddings, at the end of each branch and before the head.
      attention_dropout: rate of the attention's weights.
      norm, activation, low_rank, remat, axis_name: as in `research.models.network.Network`.
    """

    num_classes: int = 2
    head: str = 'none'
    vocabulary_size: int = 30522
    dim: int = 128
    depth: int = 2
    heads: int = 2
    width: int = 512
    key_heads: int = 0
    max_length: int = 512
    segment_types: int = 2
    positions: str = 'learned'
    norm_first: bool = False
    gated: bool = False
    share_layers: bool = False
    embedding_dim: int = 0
    dropout: float = 0.1
    attention_dropout: float = 0.1
    norm: str | Mapping[str, Any] = FrozenDict({'name': 'layer', 'epsilon': 1e-12})
    activation: str = 'gelu'
    low_rank: float = 0.0
    remat: str = 'none'
    axis_name: str | None = None

    SOURCES = {
        'huggingface': Source(
            _names,
            {
                **{
                    f'bert_{size}': f'google/bert_uncased_L-{s["depth"]}_H-{s["dim"]}_A-{s["heads"]}'
                    for size, s in SIZES.items()
                    if size not in ('base', 'large')
                },
                'bert_base': 'google-bert/bert-base-uncased',
                'bert_large': 'google-bert/bert-large-uncased',
            },
            backbone='bert',
            spellings=((r'LayerNorm\.gamma$', 'LayerNorm.weight'), (r'LayerNorm\.beta$', 'LayerNorm.bias')),
            configured=_configured,
            heads=r'(cls|classifier|qa_outputs)\.',
            tied={
                'cls.predictions.decoder.weight': 'bert.embeddings.word_embeddings.weight',
                'cls.predictions.decoder.bias': 'cls.predictions.bias',
            },
        ),
    }
    HEADS = ('head', 'pooler', 'transform', 'transform_norm', 'vocabulary_bias', 'next_sentence')
    # Of any length: the parameters are the same.
    EXAMPLE = jax.ShapeDtypeStruct((1, 1), jnp.int32)

    @nn.compact
    def __call__(
        self,
        tokens: jax.Array,
        segments: jax.Array | None = None,
        mask: jax.Array | None = None,
        train: bool = False,
        positions: jax.Array | None = None,
        packed: jax.Array | None = None,
        places: jax.Array | None = None,
    ) -> Any:
        """What `head` gives.

        Args:
          tokens: int `[B, T]`, below V.
          segments: int `[B, T]`, below `segment_types`; None for 0.
          mask: bool `[B, T]`, True on real tokens; None for all. Padding changes nothing elsewhere.
          train: whether dropout is on.
          positions: int `[B, T]` or `[1, T]`, below `max_length`; None counts the tokens of each text from 0.
          packed: int `[B, T]`, which of several texts in a row a token belongs to, one after the other; texts do not see each
            other. None for one text a row.
          places: int `[B, M]`, places of the head 'pretraining', whose logits are then `[B, M, V]`; None for all.

        Raises:
          ConfigError: no tokens, too many for learned positions, an unknown head or kind of positions.
        """
        self._check(tokens)
        kit, init = self._kit(train), initializers.truncated_normal(0.02)
        embed = functools.partial(nn.Embed, features=self.embedding_dim or self.dim, embedding_init=init)
        embedding = embed(self.vocabulary_size, name='token_embedding')
        positions = counted(tokens.shape[1], packed=packed) if positions is None else positions
        x = embedding(tokens)
        x += embed(self.segment_types, name='segment_embedding')(jnp.zeros((1, 1), int) if segments is None else segments)
        if self.positions == 'learned':
            x += embed(self.max_length, name='position_embedding')(positions)
        x = Dropout(self.dropout, name='dropout')(kit.norm(x, name='embedding_norm'), train)
        if self.embedding_dim:
            x = kit.dense(x, self.dim, name='embedding_projection', kernel_init=init)
        block = functools.partial(
            remat.block(Block, self.remat),
            kit,
            self.heads,
            self.width,
            key_heads=self.key_heads,
            norm_first=self.norm_first,
            gated=self.gated,
            dropout=self.dropout,
            attention_dropout=self.attention_dropout,
            kernel_init=init,
        )
        seen = None if mask is None else padding_mask(mask)
        if packed is not None:
            seen = segment_mask(packed, packed) if seen is None else seen & segment_mask(packed, packed)
        bias = alibi(self.heads, positions, positions) if self.positions == 'alibi' else None
        turned = positions if self.positions == 'rotary' else None
        x, _ = stack(x, block, self.depth, shared=self.share_layers, mask=seen, bias=bias, positions=turned)
        x = kit.norm(x, name='norm') if self.norm_first else x
        return self._headed(x, functools.partial(kit.dense, kernel_init=init), kit, embedding, places)

    def _headed(
        self, x: jax.Array, dense: Callable[..., jax.Array], kit: Kit, embedding: nn.Embed, places: jax.Array | None
    ) -> Any:
        pooled = jnp.tanh(dense(x[:, 0], self.dim, name='pooler')) if POOLED[self.head] else None
        if self.head == 'none':
            return x, pooled
        if self.head == 'pretraining':
            x = x if places is None else jnp.take_along_axis(x, places[..., None], axis=1)
            y = kit.norm(kit.activate(dense(x, embedding.features, name='transform')), name='transform_norm')
            bias = self.param('vocabulary_bias', nn.initializers.zeros, (self.vocabulary_size,))
            logits = remat.product(embedding.attend(y)) + bias.astype(y.dtype)[None, None, :]
            return logits, dense(pooled, 2, name='next_sentence')
        if self.head == 'question_answering':
            return dense(x, 2, name='head')
        x = Dropout(self.dropout, name='head_dropout')(x if pooled is None else pooled, kit.train)
        return dense(x, self.num_classes, name='head')

    @nn.nowrap
    def _kit(self, train: bool) -> Kit:
        return Kit(
            norm_layer=self.norm,
            activation=self.activation,
            low_rank=self.low_rank,
            axis_name=self.axis_name,
            train=train,
        )

    @nn.nowrap
    def _check(self, tokens: jax.Array) -> None:
        for what, given, valid in (('head', self.head, POOLED), ('positions', self.positions, POSITIONS)):
            if given not in valid:
                raise ConfigError(f"Unknown {what} '{given}'.{nearest(given, valid)}")
        check_tokens('BERT', tokens)
        if self.positions == 'learned':
            check_length('Texts', tokens.shape[1], self.max_length)


# 4,385,920, 11,170,560, 28,763,648, 41,373,184, 109,482,240 and 335,141,888 parameters with the pooler, without a head.
bert_tiny = functools.partial(BERT, **SIZES['tiny'])
bert_mini = functools.partial(BERT, **SIZES['mini'])
bert_small = functools.partial(BERT, **SIZES['small'])
bert_medium = functools.partial(BERT, **SIZES['medium'])
bert_base = functools.partial(BERT, **SIZES['base'])
bert_large = functools.partial(BERT, **SIZES['large'])
