"""Averages of weights against their definition, and what an evaluation gets."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from test_optimizers import config, problem

from research import optim
from research.catalogue import ConfigError


def path(settings, steps=40):
    """(trained parameters after each step, those for evaluation after each step, final state)."""
    params, loss = problem()
    tx = optim.create(settings, total=steps)

    @jax.jit
    def step(params, state):
        updates, state = tx.update(jax.grad(loss)(params), state, params)
        params = optax.apply_updates(params, updates)
        return params, state, optim.evaluation_params(params, state)

    state, trained, scored = jax.jit(tx.init)(params), [params], []
    for _ in range(steps):
        params, state, seen = step(params, state)
        trained.append(params)
        scored.append(seen)
    return trained, scored, state


def leaf(params):
    return np.asarray(params['hidden']['kernel'], np.float64)


def test_ema_is_its_definition():
    trained, scored, _ = path(config('momentum', 0.05, average={'name': 'ema', 'decay': 0.8}))
    mean = leaf(trained[0])
    for n, (new, found) in enumerate(zip(trained[1:], scored, strict=True)):
        decay = min(0.8, (1 + n) / (10 + n))
        mean = decay * mean + (1 - decay) * leaf(new)
        np.testing.assert_allclose(leaf(found), mean, rtol=1e-5)
    assert np.abs(mean - leaf(trained[-1])).max() > 1e-3


def test_swa_is_the_plain_mean_of_what_it_took():
    """Of 40 steps the weights after 20, 25, 30, 35 and 40; until then the weights themselves, to the last bit."""
    settings = config('momentum', 0.05, average={'name': 'swa', 'start': '20st', 'every': '5st'})
    trained, scored, _ = path(settings)
    for n in range(1, 20):
        chex.assert_trees_all_equal(scored[n - 1], trained[n])
    for n in range(20, 41):
        taken = [leaf(trained[k]) for k in range(20, n + 1, 5)]
        np.testing.assert_allclose(leaf(scored[n - 1]), np.mean(taken, axis=0), rtol=1e-5, err_msg=str(n))


@pytest.mark.parametrize('name', ['schedule_free_sgd', 'schedule_free_adamw'])
def test_schedule_free_is_scored_at_x(name):
    trained, scored, state = path(config(name, 0.05))
    inner = next(s for s in jax.tree.leaves(state, is_leaf=lambda s: hasattr(s, 'z')) if hasattr(s, 'z'))
    expected = jax.tree.map(lambda y, z: (y - 0.1 * z) / 0.9, trained[-1], inner.z)  # y = 0.9 x + 0.1 z, Defazio et al. 2024
    chex.assert_trees_all_close(scored[-1], expected, rtol=1e-4)
    assert np.abs(leaf(scored[-1]) - leaf(trained[-1])).max() > 1e-4


@pytest.mark.parametrize(
    'beside', [{'average': {'name': 'ema'}}, {'rate_multipliers': (('head/*', 0.1),)}, {'layer_decay': 0.5}]
)
def test_schedule_free_is_refused_where_another_point_would_be_scored(beside):
    with pytest.raises(ConfigError, match="'optax.contrib:schedule_free_sgd' scores an average of its own"):
        optim.create(config('optax.contrib:schedule_free_sgd', 0.05, **beside))


def test_without_an_average_what_is_scored_is_what_is_trained():
    params, _ = problem()
    state = optim.create(config('adam', 0.05)).init(params)
    assert jax.tree.leaves(optim.evaluation_params(params, state))[0] is jax.tree.leaves(params)[0]
    assert not optim.averages(state)


def test_every_average_is_one_program():
    kinds = ({'name': 'ema', 'decay': 0.5}, {'name': 'ema', 'decay': 0.99})
    states = [optim.create(config('adam', average=kind)).init(problem()[0]) for kind in kinds]
    assert jax.tree.structure(states[0]) == jax.tree.structure(states[1])
    chex.assert_trees_all_equal(*states)


@pytest.mark.parametrize(
    ('average', 'message'),
    [
        ({'name': 'emma'}, "Did you mean 'ema'"),
        ({'name': 'ema', 'decay': 1.0}, 'less than 1'),
        ({'name': 'swa', 'every': '0st'}, 'shorter than a step'),
        ({'name': 'swa', 'start': 'late'}, 'no duration'),
        ({'name': 'swa', 'start': '1000st', 'every': '1st'}, 'leaves nothing to average: it is 1000 in a run of 1000'),
    ],
)
def test_errors_name_the_field(average, message):
    with pytest.raises(ConfigError, match=message):
        optim.average_weight(config('sgd', average=average), 1000, per_step=1)


@pytest.mark.parametrize('size', [4, 8, 16])
def test_swa_takes_each_point_once_whatever_the_batch(size):
    weight = optim.average_weight(config('sgd', average={'name': 'swa', 'start': '320ex', 'every': '64ex'}), 640)
    weights = weight(np.arange(0, 640, size), np.arange(640 // size), size)
    after = np.arange(0, 640, size) + size
    assert np.all(weights[after < 320] == 1)
    np.testing.assert_allclose(weights[(after >= 320) & (weights > 0)], 1 / np.arange(1, 7))


def test_the_weight_is_data():
    tx = optim.create(config('sgd', average={'name': 'ema'}))
    state = optim.inject(tx.init({'w': jnp.ones(3)}), average_weight=0.25)
    _, state = tx.update({'w': jnp.ones(3)}, state, {'w': jnp.ones(3)})
    np.testing.assert_allclose(optim.evaluation_params({'w': jnp.ones(3)}, state)['w'], 1 - 0.25 * 0.1, rtol=1e-6)
