"""Language model: each token from those before it (Radford et al. 2019, GPT-2), on texts without labels.

A text is `[CLS]`, its tokens and `[SEP]`, or what stands for these in a tokenizer, as GPT-2's `<|endoftext|>` for both. Tokens
are guessed from the first one on; the `[SEP]` of a row without padding is not, where a longer text may have been cut. Of tokens
that are bytes (`bpe`) there are bits a byte too: the loss of a split over the bytes of its tokens, which does not depend on the
vocabulary. Texts packed into a row do not guess each other's tokens.

Config: {'task.name': 'language_model', 'data.name': 'texts', 'model.name': 'gpt'}
"""

import math
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from research.tasks import Task, next_token, token_inputs


def create(loss: str, label_smoothing: float, facts: Mapping[str, Any]) -> Task:
    """A task of tokens to be told from those before them; the network is called with `(tokens, mask=...)`.

    Args:
      loss, label_smoothing: as of `next_token.create`.
      facts: of the data; 'token_bytes' is asked for.
    """
    plain = next_token.create('language_model', loss, label_smoothing, ('tokens', 'mask'), _inputs, _targets)
    if facts and 'token_bytes' not in facts:
        return plain

    def with_bytes(sums):
        def of(outputs, batch, constants):
            tokens, counts = _targets(batch)
            sizes = jnp.asarray(constants['token_bytes'])[tokens] * counts * batch['valid'][:, None]
            return {**sums(outputs, batch, constants), 'bytes': jnp.sum(sizes)}

        return of

    def metrics(total):
        return {**next_token.metrics(total), 'bits_per_byte': total['loss'] / math.log(2) / max(total['bytes'], 1)}

    return plain._replace(
        sums=with_bytes(plain.sums),
        train_sums=with_bytes(plain.train_sums),
        metrics=metrics,
        constants={'token_bytes': np.asarray(facts.get('token_bytes', (0,)), np.float32)},
    )


def _inputs(batch, constants):
    args, kwargs = token_inputs({name: values for name, values in batch.items() if name != 'segments'}, constants)
    return args, kwargs | {name: batch[name] for name in ('packed',) if name in batch}


def _targets(batch):
    return batch['tokens'][:, 1:], next_token.uncut(batch['mask'], batch.get('packed'))
