"""Texts from networks, token by token: `greedy`, `sample` and `beam`, one function each for both shapes of network.

Any linen module can be decoded that has two methods beside its own call:

- `module.apply(variables, inputs, mask, size, method='start')` -> `(state, first)`. `inputs` is int `[B, S]`; `mask` is bool
  `[B, S]`, True on real tokens, or None; `size`, a Python int, is the most tokens that will be decoded. An encoder-decoder
  network takes a source, and `first` is None: decoding starts from `bos`. A decoder-only network takes a prompt, padded on the
  left; its state holds all tokens but the last one, which is `first`, int `[B]`.
- `module.apply(variables, tokens, state, method='step')` -> `(logits, state)`: tokens int `[B]`, logits `[B, V]` of the
  next ones. Each leaf of `state` has examples as its first axis or is a scalar; shapes and dtypes stay.

Early exit: decoding ends with the step in which the last text of the batch ends, or in which no open beam can win. Cost: a
reduction over `[B]` a step. Claim: as many steps as the longest text has, in place of `max_length`; results are the same.
Whatever the number of steps, a call is one compiled program, and prompts of the same shape share it.

Letters: B examples, S tokens of a source or a prompt, V tokens of the vocabulary, T = `max_length`.
"""

from research.decoding.beam_search import beam
from research.decoding.greedy_and_sampling import greedy, sample

__all__ = ['beam', 'greedy', 'sample']
