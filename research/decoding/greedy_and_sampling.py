"""Greedy decoding takes the most likely token; sampling draws one, from all or from the likely ones.

Idea: what is most likely token by token is dull and repeats itself, and draws from the whole vocabulary sooner or later hit an
unlikely token, which the rest of the text has to follow. So draws are from the most likely tokens alone: a fixed number of
them (top-k), or the fewest that together have a given probability (top-p, nucleus). A temperature below 1 sharpens the
distribution before that.

Sources: top-k Fan et al. 2018 (Hierarchical neural story generation, section 5.4, k 10); top-p Holtzman et al. 2020 (The
curious case of neural text degeneration, section 3.1).

Call: research.decoding.sample(module, variables, prompts, 100, bos, eos, key, temperature=0.8, top_k=50, top_p=0.95)

Cost: at each step top-k selects from the vocabulary, and top-p sorts what that leaves: all of GPT-2's takes 18 ms a text on a
core, the best 50 take 0.2. So set both. Claim: GPT-2 large gives its texts by top-p 0.95 a perplexity of 13.1, human texts
12.4, and its own texts by beam search 1.5 (Holtzman et al., table 1). Clashes: translation, where few texts are right, and
beam search finds them.

Letters: B examples, S tokens of a source or a prompt, T = `max_length`, V tokens of the vocabulary.
"""

import functools
from typing import Any

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from research.catalogue import ConfigError
from research.decoding import network
from research.layers.example import example_keys


def greedy(
    module: nn.Module, variables: Any, inputs: Any, max_length: int, bos: int, eos: int, mask: Any | None = None
) -> jax.Array:
    """The most likely token at each step; of equals, the lowest number.

    Args:
      module, variables: a network with `start` and `step`, as `research.decoding` explains.
      inputs: int [B, S], sources of an encoder-decoder network, prompts of a decoder-only one.
      max_length: the most tokens, T.
      bos: what stands before the first token, with an encoder-decoder network.
      eos: ends a text.
      mask: bool [B, S], True on real tokens; None if all are. Prompts are padded on the left.

    Returns:
      int32 [B, T], what stands behind `bos` or the prompt, `eos` from the first `eos` on.

    Raises:
      ConfigError: `research.decoding.network` says for what.
    """
    module, inputs, mask = network.checked(module, inputs, mask, max_length)
    return _texts(_decoded(module, variables, inputs, mask, max_length, bos, eos))


def sample(
    module: nn.Module,
    variables: Any,
    inputs: Any,
    max_length: int,
    bos: int,
    eos: int,
    key: jax.Array,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    mask: Any | None = None,
    examples: Any | None = None,
) -> jax.Array:
    """Draws each token. A draw is a function of key, example and step: the same in any batch, at any place of it.

    Args:
      module, variables, inputs, max_length, bos, eos, mask: as of `greedy`.
      key: the seed's typed key [].
      temperature: logits are divided by it.
      top_k: draws are from so many tokens; 0: from all.
      top_p: draws are from the fewest tokens, of those that top_k leaves, whose probability is `top_p` together; 1: from all.
      examples: int [B], what each row is called in draws; None: 0 to B - 1.

    Returns:
      int32 [B, T], as of `greedy`.

    Raises:
      ConfigError: a temperature of 0 or less, `top_k` below 0, `top_p` outside (0, 1]; and as `greedy`.
    """
    if not temperature > 0:
        raise ConfigError(f'temperature is {temperature}, expected a number above 0; towards 0 sampling becomes `greedy`.')
    if top_k < 0:
        raise ConfigError(f'top_k is {top_k}, expected a number of tokens, or 0 for all.')
    if not 0 < top_p <= 1:
        raise ConfigError(f'top_p is {top_p}, expected a probability above 0 and at most 1, which is all tokens.')
    module, inputs, mask = network.checked(module, inputs, mask, max_length)
    examples = jnp.arange(len(inputs)) if examples is None else jnp.asarray(examples)
    if examples.shape != (len(inputs),):
        raise ConfigError(f'examples is {list(examples.shape)} for {len(inputs)} rows: give one number a row.')
    rows = jnp.stack([jnp.zeros_like(examples), examples], axis=-1).astype(jnp.uint32)
    keys = example_keys(key, 'decoding', rows)
    draws = _Draws(keys, jnp.float32(temperature), None if top_p == 1 else jnp.float32(top_p), top_k)
    return _texts(_decoded(module, variables, inputs, mask, max_length, bos, eos, draws))


@flax.struct.dataclass
class _Draws:
    """Keys of the examples `[B]`; temperature and top-p `[]`, None for 1; `top_k`, for which a program is compiled."""

    keys: jax.Array
    temperature: jax.Array
    top_p: jax.Array | None
    top_k: int = flax.struct.field(pytree_node=False)

    def of(self, logits, step):
        """Tokens `[B]` by logits `[B, V]`."""
        keys, logits = jax.vmap(jax.random.fold_in, (0, None))(self.keys, step), logits / self.temperature
        draw = jax.vmap(jax.random.categorical)
        if not self.top_k and self.top_p is None:
            return draw(keys, logits)
        logits, tokens = lax.top_k(logits, min(self.top_k or logits.shape[-1], logits.shape[-1]))
        if self.top_p is not None:
            shares = jax.nn.softmax(logits)
            before = jnp.cumsum(shares, axis=-1) - shares
            logits = jnp.where(before < self.top_p, logits, -jnp.inf)
        return jnp.take_along_axis(tokens, draw(keys, logits)[:, None], axis=1)[:, 0]


@functools.partial(jax.jit, static_argnames=('module', 'max_length', 'bos', 'eos'))
def _decoded(module, variables, inputs, mask, max_length, bos, eos, draws=None):
    """Tokens `[B, T]`, drawn or the most likely, and what `network.check_padding` is to know."""
    decoder = network.Network(module, variables, bos, eos)
    state, last, real = decoder.start(inputs, mask, max_length)

    def goes_on(carry):
        step, _, _, ended, _ = carry
        return (step < max_length) & ~ended.all()

    def advance(carry):
        step, texts, last, ended, state = carry
        logits, state = decoder.step(last, state)
        # On CPU in a third of argmax's time.
        tokens = lax.top_k(logits, 1)[1][:, 0] if draws is None else draws.of(logits, step)
        tokens = jnp.where(ended, eos, tokens).astype(jnp.int32)
        return step + 1, texts.at[:, step].set(tokens), tokens, ended | (tokens == eos), state

    texts = jnp.full((len(inputs), max_length), eos, jnp.int32)
    carry = jnp.int32(0), texts, last, jnp.zeros(len(inputs), bool), state
    return lax.while_loop(goes_on, advance, carry)[1], real


def _texts(decoded):
    texts, real = decoded
    network.check_padding(real)
    return texts
