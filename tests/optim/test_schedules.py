"""Schedules: parity with optax's own, units, warm-up, errors."""

import ml_collections
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from research import optim
from research.catalogue import ConfigError
from research.optim.schedules import SCHEDULES

STEPS = np.arange(0, 1000, 7)


def config(warmup='0st', **schedule):
    return ml_collections.ConfigDict(
        {
            'data': {'batch_size': 64},
            'optimizer': {'learning_rate': 0.3},
            'schedule': {'warmup': warmup, **schedule},
        }
    )


@pytest.mark.parametrize('schedule, reference', [
    (config('0.1run', name='cosine', alpha=0.05), optax.warmup_cosine_decay_schedule(0.0, 0.3, 100, 1000, 0.05 * 0.3)),
    (config(name='cosine'), optax.cosine_decay_schedule(0.3, 1000)),
    (config('0.2run', name='constant'), optax.warmup_constant_schedule(0.0, 0.3, 200)),
    (config(name='exponential', decay_rate=0.5, transition='0.3run'), optax.exponential_decay(0.3, 300, 0.5)),
    (config(name='exponential', decay_rate=0.5, transition='0.3run', staircase=True),
     optax.exponential_decay(0.3, 300, 0.5, staircase=True)),
    (config('50st', name='exponential', decay_rate=0.9, transition='20st'),
     optax.warmup_exponential_decay_schedule(0.0, 0.3, 50, 20, 0.9)),
])  # fmt: skip
def test_parity_with_optax(schedule, reference):
    ours = optim.schedule(schedule, 1000, per_step=1)(STEPS)
    np.testing.assert_allclose(ours, reference(STEPS), rtol=1e-6, atol=1e-6 * 0.3)


@pytest.mark.parametrize('name', SCHEDULES)
@given(warmup=st.floats(0, 0.9), total=st.integers(2, 10**6), unit=st.integers(1, 4096))
def test_the_rate_does_not_depend_on_the_unit(name, warmup, total, unit):
    fractions = np.linspace(0, 1, 11)
    settings = config(f'{round(warmup * total)}st', name=name)
    steps = optim.schedule(settings, total, per_step=1)(fractions * total)
    other = optim.schedule(settings, total * unit, per_step=unit)(fractions * total * unit)
    np.testing.assert_allclose(steps, other, atol=1e-9)


@pytest.mark.parametrize('name', SCHEDULES)
def test_positions_one_by_one_or_as_an_array(name):
    rate = optim.schedule(config('100st', name=name), 64_000)
    positions = np.array([0, 64, 3200, 6400, 6401, 63_999, 64_000])
    many = rate(positions)
    assert many.dtype == np.float64
    assert many.tolist() == [rate(int(position)) for position in positions]
    assert (
        rate(0) == 0
        and rate(3200) == pytest.approx(0.15)
        and rate(6400) == pytest.approx(0.3 * (0.04 if name == 'one_cycle' else 1))
    )
    assert rate(10**9) == rate(64_000)


def test_epochs_are_those_of_the_data():
    rate = optim.schedule(config('2ep', name='constant'), 10_000, epoch=1437)
    assert rate(1437) == pytest.approx(0.15) and rate(2874) == pytest.approx(0.3)
    by_steps = optim.schedule(config('2ep', name='constant'), 100, epoch=10, per_step=1)
    assert by_steps(10) == pytest.approx(0.15)


@pytest.mark.parametrize('settings, message', [
    (config(name='cosin'), "Unknown schedule 'cosin'. Did you mean 'cosine'?"),
    (config(name='cosine', alfa=0.1), "takes no argument 'alfa'. Did you mean 'alpha'?"),
    (config(name='cosine', total=5), "takes no argument 'total'"),
    (config('10', name='constant'), "'10' is no duration"),
    (config('2ep', name='constant'), 'length of an epoch'),
    (config('1.5run', name='constant'), 'longer than the run'),
    (config(name='exponential', transition='0st'), 'lasts nothing'),
    (config(name='exponential', transition='7'), "'7' is no duration"),
])  # fmt: skip
def test_errors_before_the_first_step(settings, message):
    with pytest.raises(ConfigError) as error:
        optim.schedule(settings, 1000)
    assert message in str(error.value)
