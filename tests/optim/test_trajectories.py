"""Whole paths of optimizers against torch.optim in float64: in float32 AdamW's part by 1e-2, which says nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_optimizers import config

from research import optim

STEPS = 100
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(16, 5)), RNG.normal(size=(16, 3))
START = {'kernel': RNG.normal(size=(5, 7)), 'bias': RNG.normal(size=7), 'head': RNG.normal(size=(7, 3))}

# Ours, then the name in torch.optim and its arguments.
CASES = {
    'gd': (config('sgd', 0.05), 'SGD', {'lr': 0.05}),
    'momentum': (config('momentum', 0.05), 'SGD', {'lr': 0.05, 'momentum': 0.9}),
    'nesterov': (config('nesterov', 0.05), 'SGD', {'lr': 0.05, 'momentum': 0.9, 'nesterov': True}),
    # torch begins its sum of squares at 0 and adds eps to the root; optax adds it inside.
    'adagrad': (config('adagrad', 0.1, initial_accumulator_value=0.0, eps=0.0), 'Adagrad', {'lr': 0.1, 'eps': 0.0}),
    'rmsprop': (
        config('rmsprop', 0.01, decay=0.9, eps=1e-7, eps_in_sqrt=False),
        'RMSprop',
        {'lr': 0.01, 'alpha': 0.9, 'eps': 1e-7},
    ),
    'adam': (config('adam', 0.01), 'Adam', {'lr': 0.01, 'eps': 1e-8}),
    'adamw': (config('adamw', 0.01, 0.1), 'AdamW', {'lr': 0.01, 'eps': 1e-8, 'weight_decay': 0.1}),
    'adam with our decay': (config('adam', 0.01, 0.1), 'AdamW', {'lr': 0.01, 'eps': 1e-8, 'weight_decay': 0.1}),
}


def ours(settings, batches):
    """Parameters after the last step, and the loss of every one."""

    def loss(params, x, y):
        hidden = jnp.tanh(x @ params['hidden']['kernel'] + params['hidden']['bias'][None])
        return jnp.mean((hidden @ params['head']['kernel'] - y) ** 2)

    with jax.enable_x64(True):
        tx = optim.create(settings)
        params = {
            'hidden': {'kernel': jnp.asarray(START['kernel']), 'bias': jnp.asarray(START['bias'])},
            'head': {'kernel': jnp.asarray(START['head'])},
        }
        state, losses = tx.init(params), []

        @jax.jit
        def step(params, state, x, y):
            value, gradient = jax.value_and_grad(loss)(params, x, y)
            updates, state = tx.update(gradient, state, params)
            return jax.tree.map(jnp.add, params, updates), state, value

        for x, y in batches:
            params, state, value = step(params, state, x, y)
            losses.append(float(value))
        found = {'kernel': params['hidden']['kernel'], 'bias': params['hidden']['bias'], 'head': params['head']['kernel']}
        return {name: np.asarray(value) for name, value in found.items()}, np.array(losses)


def theirs(name, arguments, batches):
    import torch

    kernels = [torch.tensor(START[name], requires_grad=True) for name in ('kernel', 'head')]
    bias = torch.tensor(START['bias'], requires_grad=True)
    groups = [{'params': kernels}, {'params': [bias], **({'weight_decay': 0.0} if 'weight_decay' in arguments else {})}]
    optimizer, losses = getattr(torch.optim, name)(groups, **arguments), []
    for x, y in batches:
        optimizer.zero_grad()
        hidden = torch.tanh(torch.tensor(x) @ kernels[0] + bias)
        loss = ((hidden @ kernels[1] - torch.tensor(y)) ** 2).mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    found = {'kernel': kernels[0], 'bias': bias, 'head': kernels[1]}
    return {name: value.detach().numpy() for name, value in found.items()}, np.array(losses)


@pytest.mark.parity
@pytest.mark.parametrize('case', [*CASES, 'sgd'])
def test_a_hundred_steps_are_torchs(case):
    settings, name, arguments = CASES['gd' if case == 'sgd' else case]
    rows = [np.arange(16) if case == 'gd' else np.arange(4 * i, 4 * i + 4) % 16 for i in range(STEPS)]
    batches = [(X[r], Y[r]) for r in rows]
    (params, losses), (expected, expected_losses) = ours(settings, batches), theirs(name, arguments, batches)
    assert expected_losses[-4:].mean() < 0.8 * expected_losses[:4].mean()
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-10)
    for key, value in expected.items():
        np.testing.assert_allclose(params[key], value, rtol=1e-10, atol=1e-10 * np.abs(value).max(), err_msg=key)
