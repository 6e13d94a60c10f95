"""What the tests of the networks that decode share: weights in which everything shows, and what a logit depends on."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np


@functools.cache
def initial(module):
    """Parameters of a network, away from the zeros that biases begin with."""
    shapes = jax.eval_shape(module.init, jax.random.key(0), module.EXAMPLE)['params']
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda s: rng.normal(1 if s.ndim == 1 else 0, 0.3, s.shape).astype(np.float32), shapes)


@functools.cache
def compiled(module, method='__call__', static=()):
    apply = functools.partial(module.apply, {'params': initial(module)}, method=method)
    return jax.jit(apply, static_argnums=static)


def dependences(module, table, shape, *inputs):
    """Whether the logits `[b, t]` have a gradient by the embedding of token `[c, s]`, bool `[B, T, C, S]`; exactly 0 or not.

    Args:
      module: the network.
      table: name of the layer of embeddings.
      shape: its output's, `[C, S, D]`.
      *inputs: of a call.
    """

    params = initial(module)

    def logits(nudge):
        def nudged(call, args, kwargs, context):
            found = call(*args, **kwargs)
            return found + nudge if (context.module.name, context.method_name) == (table, '__call__') else found

        with nn.intercept_methods(nudged):
            return jnp.sin(module.apply({'params': params}, *inputs)).sum(-1)

    return (jax.jit(jax.jacobian(logits))(np.zeros(shape, np.float32)) != 0).any(-1)


def stepped(module, tokens, state):
    """Logits `[B, T, V]` of steps over tokens `[B, T]` from a state, by one program; beams change places on the way.

    Rows are turned by one before each step, and so are the tokens that they get.
    """
    step, found = compiled(module, 'step'), []
    for t in range(tokens.shape[1]):
        rows = np.roll(np.arange(len(tokens)), t)
        logits, state = step(tokens[rows, t], state)
        found.append(logits[np.argsort(rows)])
        state = jax.tree.map(lambda a: a[np.roll(np.arange(len(a)), 1)] if a.ndim else a, state)
    return np.stack(found, 1)
