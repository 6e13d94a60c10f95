"""Texts that a trained model writes: translations, and what follows a prompt."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from research import decoding
from research.catalogue import ConfigError
from research.data import texts, tokenizer
from research.tasks import translation
from research.train import precision

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def check(model: Any, task: str, does: str) -> None:
    """Raises ConfigError for a model of another task than this, which does something, or of data without a tokenizer."""
    if (name := model.config['task']['name']) != task or not model.tokenizer:
        raise ConfigError(f"A run of the task '{task}' {does}, and this is of '{name}'.")


def sources(made: 'Tokenizer', given: Sequence[str]) -> dict[str, np.ndarray]:
    """Texts as a batch of 'source' int32 and 'source_mask' bool, [B, S].

    Raises:
      ConfigError: something else than texts, or an empty one.
    """
    coded = tokenizer.encode(made, texts.checked('The input', given).tolist())
    return {'source': coded['tokens'], 'source_mask': coded['mask']}


def translator(
    module: Any, config: Mapping[str, Any], made: 'Tokenizer', length: int, beam_size: int, length_penalty: float
) -> Callable[..., jax.Array]:
    """(variables, batch) -> tokens of translations int32 [B, length], compiled, in the run's precision."""

    def tokens(variables, batch):
        return translation.decoded(module, variables, batch, length, beam_size, length_penalty, **_marks(made))

    return jax.jit(_as_scored(config, tokens))


def openings(made: 'Tokenizer', prompts: Sequence[str]) -> dict[str, np.ndarray]:
    """Beginnings of texts as a batch, whole, padded on the left: 'tokens' int32 and 'mask' bool, [B, T]; 'example' int32 [B].

    Raises:
      ConfigError: something else than texts, or an empty one.
    """
    whole = made.from_str(made.to_str())
    whole.no_truncation()
    whole.no_padding()
    coded = whole.encode_batch(texts.checked('The prompt', prompts).tolist(), add_special_tokens=False)
    start, pad = (tokenizer.number_of(made, role) for role in (tokenizer.START, tokenizer.PAD))
    rows = [[start, *row.ids] for row in coded]
    longest = max(map(len, rows))
    return {
        'tokens': np.array([[pad] * (longest - len(row)) + row for row in rows], np.int32),
        'mask': np.array([[False] * (longest - len(row)) + [True] * len(row) for row in rows]),
        'example': np.arange(len(rows), dtype=np.int32),
    }


def continuer(
    module: Any, config: Mapping[str, Any], made: 'Tokenizer', length: int, seed: int, **options: Any
) -> Callable[..., jax.Array]:
    """(variables, batch) -> what a language model writes behind each opening, int32 [B, length], in the run's precision;
    greedily at a temperature of 0.

    Args:
      seed: of the draws; an example has the same ones whatever stands beside it.
      options: of `research.decoding.sample`.
    """

    def tokens(variables, batch):
        given = {'mask': batch['mask'], **_marks(made)}
        if options['temperature'] == 0:
            return decoding.greedy(module, variables, batch['tokens'], length, **given)
        given |= {'key': jax.random.key(seed), 'examples': batch['example'], **options}
        return decoding.sample(module, variables, batch['tokens'], length, **given)

    return _as_scored(config, tokens)


def _as_scored(config: Mapping[str, Any], write: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """(variables, batch) -> what `write` makes of them, in the precision that the run was scored in."""
    compute, _ = precision.casts(config['train']['precision'])

    def written(variables, batch):
        with jax.default_matmul_precision(config['train']['matmul_precision']):
            return write(compute(variables), batch)

    return written


def _marks(made: 'Tokenizer') -> dict[str, int]:
    return {'bos': tokenizer.number_of(made, tokenizer.START), 'eos': tokenizer.number_of(made, tokenizer.END)}
