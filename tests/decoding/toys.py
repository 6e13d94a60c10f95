"""Networks that are quick to decode, one of each shape, and count what is traced and run."""

import collections

import flax.linen as nn
import jax
import jax.numpy as jnp

# 'start': programs traced; 'step': steps run.
counts = collections.Counter()


def _count_step():
    counts['step'] += 1


class Trigram(nn.Module):
    """Continues a prompt: a table of logits by the last two tokens."""

    vocabulary: int = 4

    @nn.compact
    def __call__(self):
        return self.param('table', nn.initializers.normal(2.0), (self.vocabulary,) * 3)

    def start(self, inputs, mask, size):
        counts['start'] += 1
        return inputs[:, -2], inputs[:, -1]

    def step(self, tokens, before):
        jax.debug.callback(_count_step)
        return self.get_variable('params', 'table')[before, tokens], tokens


class Translator(nn.Module):
    """A recurrent network that reads the mean of a source at each step. It has a scalar in its state, and a leaf that stays."""

    vocabulary: int = 5
    width: int = 8

    def setup(self):
        shapes = {
            'source': (self.vocabulary, self.width),
            'target': (self.vocabulary, self.width),
            'hidden': (self.width, self.width),
            'head': (self.width, self.vocabulary),
        }
        self.weights = {name: self.param(name, nn.initializers.normal(1.0), shape) for name, shape in shapes.items()}

    def start(self, inputs, mask, size):
        mask = jnp.ones(inputs.shape, bool) if mask is None else mask
        embedded = jnp.where(mask[..., None], self.weights['source'][inputs], 0)
        source = embedded.sum(1) / mask.sum(1)[:, None]
        return {'source': source, 'hidden': jnp.zeros_like(source), 'length': jnp.int32(0)}, None

    def step(self, tokens, state):
        hidden = state['hidden'] @ self.weights['hidden'] + self.weights['target'][tokens] + state['source']
        hidden = jnp.tanh(hidden + 0.1 * state['length'])
        return 2 * hidden @ self.weights['head'], state | {'hidden': hidden, 'length': state['length'] + 1}

    def __call__(self, inputs):
        return self.step(inputs[:, 0], self.start(inputs, None, 1)[0])[0]
