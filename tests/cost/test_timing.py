"""Latency: who is called, how often, in which order. Nothing here depends on how long anything takes."""

import gc

import jax
import jax.numpy as jnp
import pytest

from research import cost


class Recorder:
    """Stands for a compiled function (it has `lower`) and writes its name into a shared diary."""

    def __init__(self, name, diary):
        self.name, self.diary = name, diary

    def lower(self):
        raise AssertionError('already jitted: nothing to lower')

    def __call__(self, x):
        self.diary.append((self.name, gc.isenabled()))
        return x


def test_quantiles_are_in_order():
    measured = cost.latency(lambda x: x @ x, jnp.ones((16, 16)), repeats=20)
    assert 0 < measured['p10'] <= measured['p50'] <= measured['p90'] and measured['n'] == 20
    assert set(measured) == {'p10', 'p50', 'p90', 'mean', 'n'}


def test_a_round_calls_everyone_once_in_an_order_of_its_own():
    names, rounds, warmup = ('a', 'b', 'c', 'd'), 25, 2
    diary = []
    measured = cost.interleaved({name: (Recorder(name, diary), (jnp.ones(1),)) for name in names}, rounds, warmup)
    assert set(measured) == set(names) and all(q['n'] == rounds for q in measured.values())
    timed = [name for name, _ in diary[len(names) * warmup :]]
    orders = [tuple(timed[i : i + 4]) for i in range(0, len(timed), 4)]
    assert len(orders) == rounds and all(sorted(order) == list(names) for order in orders)
    assert len(set(orders)) > 5

    again = []
    cost.interleaved({name: (Recorder(name, again), (jnp.ones(1),)) for name in names}, rounds, warmup)
    assert [name for name, _ in again] == [name for name, _ in diary]


def test_no_garbage_is_collected_while_the_clock_runs():
    diary = []
    cost.interleaved({'a': (Recorder('a', diary), (jnp.ones(1),))}, rounds=3, warmup=1)
    assert [collecting for _, collecting in diary] == [True, False, False, False]
    assert gc.isenabled()

    def broken(_):
        raise RuntimeError('broken')

    with pytest.raises(RuntimeError, match='broken'):
        cost.latency(broken, jnp.ones(1))
    assert gc.isenabled()


def test_a_plain_function_is_traced_once():
    traces = []

    def fn(x):
        traces.append(x)
        return x + 1

    cost.latency(fn, jnp.ones(3), repeats=5, warmup=2)
    compiled = jax.jit(fn).lower(jnp.ones(3)).compile()
    cost.latency(compiled, jnp.ones(3), repeats=5)
    assert len(traces) == 1
