"""Whole paths of optimizers against torch.optim in float64: in float32 AdamW's part by 1e-2, which says nothing.

Differences of convention, mapped by the arguments in `CASES`:
  sgd, momentum, nesterov: none, torch's dampening being 0. GD is sgd with all examples in every batch.
  adagrad: optax divides by sqrt(a + sum of squares + eps), torch by sqrt(initial_accumulator_value + sum of squares) + eps. So
    optax's (a, eps) is torch's (a + eps, 0). A torch eps above 0 has no equal in optax; its formula is tested by hand, with
    its eps taken out.
  rmsprop: torch's alpha is `decay`; optax adds eps inside the root unless eps_in_sqrt=False. The rate is inside of the momentum
    buffer in optax, outside in torch: the same if it is constant.
  adam, adamw: none; both add eps to the root of the corrected second moment. torch decays every parameter of a group, we
    kernels alone.
"""

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
    'adagrad': (config('adagrad', 0.1), 'Adagrad', {'lr': 0.1, 'initial_accumulator_value': 0.1 + 1e-7, 'eps': 0.0}),
    'adagrad from 0': (config('adagrad', 0.1, initial_accumulator_value=0.0, eps=0.0), 'Adagrad', {'lr': 0.1, 'eps': 0.0}),
    'rmsprop': (
        config('rmsprop', 0.01, decay=0.9, eps=1e-7, eps_in_sqrt=False),
        'RMSprop',
        {'lr': 0.01, 'alpha': 0.9, 'eps': 1e-7},
    ),
    'rmsprop with momentum': (
        config('rmsprop', 0.003, decay=0.9, eps=1e-7, eps_in_sqrt=False, momentum=0.9),
        'RMSprop',
        {'lr': 0.003, 'alpha': 0.9, 'eps': 1e-7, 'momentum': 0.9},
    ),
    'adam': (config('adam', 0.01), 'Adam', {'lr': 0.01, 'eps': 1e-8}),
    'adamw': (config('adamw', 0.01, 0.1), 'AdamW', {'lr': 0.01, 'eps': 1e-8, 'weight_decay': 0.1}),
    'adam with our decay': (config('adam', 0.01, 0.1), 'AdamW', {'lr': 0.01, 'eps': 1e-8, 'weight_decay': 0.1}),
}


def ours(settings, batches, total=None):
    """Parameters after the last step, and the loss of every one."""

    def loss(params, x, y):
        hidden = jnp.tanh(x @ params['hidden']['kernel'] + params['hidden']['bias'][None])
        return jnp.mean((hidden @ params['head']['kernel'] - y) ** 2)

    with jax.enable_x64(True):
        tx = optim.create(settings, total)
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


def theirs(name, arguments, batches, schedule=None):
    import torch

    kernels = [torch.tensor(START[name], requires_grad=True) for name in ('kernel', 'head')]
    bias = torch.tensor(START['bias'], requires_grad=True)
    groups = [{'params': kernels}, {'params': [bias], **({'weight_decay': 0.0} if 'weight_decay' in arguments else {})}]
    optimizer, losses = getattr(torch.optim, name)(groups, **arguments), []
    scheduler = schedule(optimizer) if schedule else None
    for x, y in batches:
        optimizer.zero_grad()
        hidden = torch.tanh(torch.tensor(x) @ kernels[0] + bias)
        loss = ((hidden @ kernels[1] - torch.tensor(y)) ** 2).mean()
        loss.backward()
        optimizer.step()
        if scheduler:
            scheduler.step()
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


@pytest.mark.parity
@pytest.mark.parametrize('name, schedule', [('sgd', 'cosine'), ('adamw', 'cosine'), ('adamw', 'linear')])
def test_with_a_schedule_they_still_are(name, schedule):
    """The rate is injected at every step: in float32 it would be off by 1e-8."""
    from torch.optim import lr_scheduler

    schedulers = {
        'cosine': lambda optimizer: lr_scheduler.CosineAnnealingLR(optimizer, STEPS),
        'linear': lambda optimizer: lr_scheduler.LinearLR(optimizer, 1.0, 0.0, STEPS),
    }
    settings, torchs, arguments = {
        'sgd': (config('sgd', 0.05, schedule=schedule), 'SGD', {'lr': 0.05}),
        'adamw': (config('adamw', 0.01, 0.1, schedule=schedule), 'AdamW', {'lr': 0.01, 'eps': 1e-8, 'weight_decay': 0.1}),
    }[name]
    batches = [(X, Y)] * STEPS
    params, losses = ours(settings, batches, total=STEPS)
    expected, expected_losses = theirs(torchs, arguments, batches, schedulers[schedule])
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-10)
    for key, value in expected.items():
        np.testing.assert_allclose(params[key], value, rtol=1e-10, atol=1e-10 * np.abs(value).max(), err_msg=key)


@pytest.mark.parity
def test_torchs_adagrad_is_optaxs_but_for_an_eps_beside_the_root():
    """torch's formula in NumPy is torch, with its eps; without it, it is optax from a sum of squares of 0."""
    torch = pytest.importorskip('torch')
    gradients, start = RNG.normal(size=(STEPS, 6)), RNG.normal(size=6)

    def formula(eps):
        w, total = start.copy(), np.zeros(6)
        for g in gradients:
            total += g**2
            w -= 0.1 * g / (np.sqrt(total) + eps)
        return w

    tensor = torch.tensor(start, requires_grad=True)
    optimizer = torch.optim.Adagrad([tensor], lr=0.1, eps=0.01)
    for g in gradients:
        tensor.grad = torch.tensor(g)
        optimizer.step()
    np.testing.assert_allclose(formula(0.01), tensor.detach().numpy(), rtol=1e-12)
    assert np.abs(formula(0.01) - formula(0.0)).max() > 1e-3

    with jax.enable_x64(True):
        tx = optim.create(config('adagrad', 0.1, initial_accumulator_value=0.0, eps=0.0))
        params = {'bias': jnp.asarray(start)}
        state, update = tx.init(params), jax.jit(tx.update)
        for g in gradients:
            updates, state = update({'bias': jnp.asarray(g)}, state, params)
            params = jax.tree.map(jnp.add, params, updates)
        np.testing.assert_allclose(np.asarray(params['bias']), formula(0.0), rtol=1e-10)
