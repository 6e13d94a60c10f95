"""Dynamic loss scaling: gradients come out as they were, a step that overflows leaves no trace but in the scale."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
from test_optimizers import config

from research import optim
from research.optim import scaling

PARAMS = {'w': jnp.arange(3.0)}


def stepped(tx, state, scaled):
    updates, state = jax.jit(tx.update)({'w': jnp.asarray(scaled, jnp.float32)}, state, PARAMS)
    return updates, state


def test_scaled_gradients_give_the_unscaled_update():
    inner = optax.adam(0.1)
    tx, gradient = scaling.dynamic(inner, start=64.0), np.float32([1, -2, 3])
    updates, state = stepped(tx, tx.init(PARAMS), 64 * gradient)
    expected, expected_state = inner.update({'w': gradient}, inner.init(PARAMS), PARAMS)
    chex.assert_trees_all_close(updates, expected, rtol=1e-6)
    chex.assert_trees_all_close(state.inner[1], expected_state, rtol=1e-6)
    assert optim.loss_scale(state) == 64


def test_an_overflow_skips_the_step_and_halves_the_scale():
    tx = scaling.dynamic(optax.adam(0.1), start=64.0)
    _, state = stepped(tx, tx.init(PARAMS), [1, 2, 3])
    for bad in (np.inf, np.nan):
        before = state.inner[1]
        updates, state = stepped(tx, state, [1, bad, 3])
        chex.assert_trees_all_equal(updates, {'w': jnp.zeros(3)})
        chex.assert_trees_all_equal(state.inner[1], before)
        assert optim.observations(state)['scale/skipped'] == 1
    assert optim.loss_scale(state) == 16
    for _ in range(10):
        _, state = stepped(tx, state, [np.inf, 0, 0])
    assert optim.loss_scale(state) == 1  # never below


def test_a_skipped_step_moves_neither_average_nor_decay():
    settings = config('momentum', 0.1, 0.5, clip='global_norm', average={'name': 'ema'})
    settings.train.precision = 'float16'
    tx, params = optim.create(settings), {'kernel': jnp.arange(1.0, 4.0)}
    state = optim.inject(tx.init(params), average_weight=0.5)
    for gradient, moves in ((1.0, True), (np.inf, False), (1.0, True)):
        before = optim.evaluation_params(params, state)
        scaled = {'kernel': jnp.full(3, gradient * optim.loss_scale(state))}
        updates, state = jax.jit(tx.update)(scaled, state, params)
        params = optax.apply_updates(params, updates)
        assert bool(updates['kernel'].any()) == moves
        assert bool((optim.evaluation_params(params, state)['kernel'] != before['kernel']).any()) == moves
        assert {'scale/skipped', 'clip/steps', 'clip/entries'} == set(optim.observations(state))


def test_the_scale_doubles_after_a_period_of_good_steps():
    tx = scaling.dynamic(optax.sgd(0.1), start=4.0, period=3)
    state, scales = tx.init(PARAMS), []
    for gradient in (1, 1, 1, 1, np.inf, 1, 1, 1):
        _, state = stepped(tx, state, [gradient, 0, 0])
        scales.append(float(optim.loss_scale(state)))
    assert scales == [4, 4, 8, 8, 4, 4, 4, 8]


def test_the_scale_stays_finite_however_long_nothing_overflows():
    tx = scaling.dynamic(optax.sgd(0.1), start=2.0**126, period=1)
    state = tx.init(PARAMS)
    for _ in range(4):
        _, state = stepped(tx, state, [0, 0, 0])
    assert optim.loss_scale(state) == 2.0**127


def test_nothing_is_scaled_where_nobody_asked():
    scale = optim.loss_scale(optax.adam(0.1).init(PARAMS))
    assert isinstance(scale, float) and scale == 1
