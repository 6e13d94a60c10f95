"""A recurrent network over vectors of a BERT that does not learn: feature-based BERT (Devlin et al. 2019, section 5.3).

The encoder's weights come with `model.init_from`: a Hugging Face folder of BERT's, or a run of one. No gradient enters it.
Where weights decay, or the optimizer moves a parameter without any gradient (yogi, fromage), the config names it too:
{'optimizer.rate_multipliers': (('encoder/*', 0.0),)}.

Claim: with a BiLSTM of two layers, 768 wide, and BERT-base 94.9 F1 on the names of CoNLL-2003 from the last block's vectors, as
here, and 96.1 from the last four blocks side by side; fine-tuning 96.4 (their table 7, development set). Cost: the encoder is
passed once forward; its moments stay in memory. B texts, T tokens, D features of a token, W of a direction.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.core import FrozenDict

from research import catalogue
from research.models import recurrent
from research.models.bert import BERT


class BertLSTM(nn.Module):
    """A recurrent network over vectors of a BERT that does not learn, and a head.

    Attributes:
      num_classes: K, of the heads.
      vocabulary_size: V; tokens are below it.
      encoder: fields of `research.models.bert.BERT`, such as 'dim' and 'depth', but for those in `FIXED`; what is left out is
        as in the weights, or else as in BERT.
      head, cell, width, depth, bidirectional: as of `research.models.recurrent.Recurrent`.
      dropout: rate on BERT's vectors, between layers and before the head; the encoder has none.
    """

    num_classes: int = 2
    vocabulary_size: int = 30522
    encoder: Mapping[str, Any] = FrozenDict()
    head: str = 'none'
    cell: str = 'lstm'
    width: int = 128
    depth: int = 1
    bidirectional: bool = True
    dropout: float = 0.0

    HEADS = ('head',)
    # Where the parameters of the encoder are, and its fields that are none of the config's.
    ENCODER = 'encoder'
    FIXED = ('num_classes', 'vocabulary_size', 'head', 'dropout', 'attention_dropout', 'remat', 'axis_name')
    EXAMPLE = jax.ShapeDtypeStruct((1, 1), jnp.int32)

    @nn.compact
    def __call__(
        self, tokens: jax.Array, segments: jax.Array | None = None, mask: jax.Array | None = None, train: bool = False
    ) -> Any:
        """What `head` gives.

        Args:
          tokens: int `[B, T]`, below V.
          segments: int `[B, T]`, of the encoder; None for 0.
          mask: bool `[B, T]`, True on real tokens, which come first; None for all. Padding changes nothing.
          train: whether dropout is on.

        Raises:
          ConfigError: no tokens, too many for the encoder's positions, an unknown head or cell, no field of the encoder.
        """
        vectors, _ = self.part(name=self.ENCODER)(tokens, segments, mask)
        return recurrent.read(self, jax.lax.stop_gradient(vectors), mask, train)

    @nn.nowrap
    def part(self, **given: Any) -> BERT:
        """The encoder, without a head; `given` are its name and its parent.

        Raises:
          ConfigError: `encoder` has what is no field of it.
        """
        catalogue.check('model.encoder', 'bert', BERT, self.encoder, given=self.FIXED)
        still = {'head': 'none', 'dropout': 0.0, 'attention_dropout': 0.0}
        return BERT(vocabulary_size=self.vocabulary_size, **still, **self.encoder, **given)
