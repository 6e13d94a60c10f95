"""Schedules: parity with optax's own, units, warm-up, errors."""

import math
import re

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


def whole_cycles(name, cycle):
    return {'cycle': cycle} if name == 'cosine_restarts' else {}


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
    warmup = round(warmup * total)
    settings = config(f'{warmup}st', name=name, **whole_cycles(name, f'{max(1, total - warmup)}st'))
    steps = optim.schedule(settings, total, per_step=1)(fractions * total)
    other = optim.schedule(settings, total * unit, per_step=unit)(fractions * total * unit)
    np.testing.assert_allclose(steps, other, atol=1e-9)


@pytest.mark.parametrize('name', SCHEDULES)
def test_positions_one_by_one_or_as_an_array(name):
    rate = optim.schedule(config('100st', name=name, **whole_cycles(name, '0.225run')), 64_000)
    positions = np.array([0, 64, 3200, 6400, 6401, 63_999, 64_000])
    many = rate(positions)
    assert many.dtype == np.float64
    assert many.tolist() == [rate(int(position)) for position in positions]
    begins = 0.3 * (0.04 if name == 'one_cycle' else 1)
    assert rate(0) == 0 and rate(3200) == pytest.approx(begins / 2) and rate(6400) == pytest.approx(begins)
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
    (config(name='exponential', transition='7'), "schedule.transition: '7' is no duration"),
    (config(name='exponential', decay_rate=-0.1), 'schedule.decay_rate is -0.1'),
    (config(name='cosine', alpha=math.nan), 'schedule.alpha is nan'),
    (config(name='cosine', alpha='0.1'), "schedule.alpha is '0.1'"),
    (config(name='cosine_restarts', cycle='0ep'), "schedule.cycle '0ep' lasts nothing"),
    (config(name='cosine_restarts', stretch=0.5), 'schedule.stretch is 0.5'),
    (config(name='cosine_restarts', peak_decay=-1.0), 'schedule.peak_decay is -1.0'),
    (config(name='inverse_sqrt', timescale='0st'), "schedule.timescale '0st' lasts nothing"),
    (config(name='linear', end=-1e-3), 'schedule.end is -0.001'),
    (config(name='polynomial', power=-2.0), 'schedule.power is -2.0'),
    (config(name='one_cycle', rise=1.0), 'schedule.rise is 1.0'),
    (config(name='one_cycle', start=math.inf), 'schedule.start is inf'),
    (config(name='one_cycle', anneal='cos'), "schedule.anneal is 'cos'. Did you mean 'cosine'?"),
    (config(name='step', milestones=()), 'schedule.milestones is ()'),
    (config(name='step', milestones='0.5run'), "schedule.milestones is '0.5run'"),
    (config(name='step', milestones=('2st', '2st')), 'expected durations that rise'),
    (config(name='step', milestones=('5st', '7')), "schedule.milestones: '7' is no duration"),
    (config(name='step', factor=-0.1), 'schedule.factor is -0.1'),
    (config(name='plateau', patience=0), 'patience of 1 or more'),
    (config(name='plateau', min_delta=math.inf), 'a finite min_delta'),
])  # fmt: skip
def test_errors_before_the_first_step(settings, message):
    with pytest.raises(ConfigError) as error:
        optim.schedule(settings, 1000)
    assert message in str(error.value)


def in_words(value):
    """Of a parameter, for the name of its test; a function's own text is another in every process."""
    return str(value) if isinstance(value, dict) else 'function'


BEHIND = 200  # steps behind the warm-up


def cycles(k):
    """Loshchilov and Hutter 2017, eq. 5: cycles of 5, 15, 45 and 135 steps; each begins at 0.7 of the peak before."""
    first, length, peak = 0, 5, 1.0
    while k >= first + length < BEHIND:
        first, length, peak = first + length, 3 * length, 0.7 * peak
    return peak * (0.1 + 0.9 * (1 + math.cos(math.pi * (k - first) / length)) / 2)


def one_cycle(k, ease):
    """Up from 0.1 in 50 steps, down to 0.01 in 150; `ease` goes from 0 to 1."""
    return 0.1 + 0.9 * ease(k / 50) if k <= 50 else 1 - 0.99 * ease((k - 50) / 150)


ONE_CYCLE = {'name': 'one_cycle', 'rise': 0.25, 'start': 0.1, 'end': 0.01}


@pytest.mark.parametrize('warmup', [0, 40])
@pytest.mark.parametrize(
    ('arguments', 'factor'),
    [
        ({'name': 'constant'}, lambda k: 1.0),
        ({'name': 'step', 'milestones': ('50st', '120st'), 'factor': 0.2}, lambda k: 0.2 ** ((k >= 50) + (k >= 120))),
        ({'name': 'exponential', 'decay_rate': 0.3, 'transition': '50st'}, lambda k: 0.3 ** (k / 50)),
        ({'name': 'exponential', 'decay_rate': 0.3, 'transition': '50st', 'staircase': True}, lambda k: 0.3 ** (k // 50)),
        ({'name': 'cosine', 'alpha': 0.1}, lambda k: 0.1 + 0.9 * (1 + math.cos(math.pi * k / BEHIND)) / 2),
        ({'name': 'cosine_restarts', 'cycle': '5st', 'stretch': 3.0, 'peak_decay': 0.7, 'alpha': 0.1}, cycles),
        (
            {'name': 'cosine_restarts', 'cycle': '40st', 'peak_decay': 0.5},
            lambda k: 0.5 ** (k // 40) * (1 + math.cos(math.pi * (k % 40) / 40)) / 2 * (k < BEHIND),
        ),
        ({'name': 'linear', 'end': 0.2}, lambda k: 1 - 0.8 * k / BEHIND),
        ({'name': 'polynomial', 'power': 3.0, 'end': 0.1}, lambda k: 0.1 + 0.9 * (1 - k / BEHIND) ** 3),
        ({'name': 'inverse_sqrt', 'timescale': '20st'}, lambda k: math.sqrt(20 / k) if k > 20 else 1.0),
        (ONE_CYCLE, lambda k: one_cycle(k, lambda s: (1 - math.cos(math.pi * s)) / 2)),
        ({**ONE_CYCLE, 'anneal': 'linear'}, lambda k: one_cycle(k, lambda s: s)),
        ({'name': 'plateau'}, lambda k: 1.0),
    ],
    ids=in_words,
)
def test_closed_forms_at_every_step(arguments, factor, warmup):
    """Behind any warm-up, and the warm-up a straight line from 0 to where they begin."""
    total = warmup + BEHIND
    found = optim.schedule(config(f'{warmup}st', **arguments), total, per_step=1)(np.arange(total + 1))
    expected = [factor(0) * k / warmup for k in range(warmup)] + [factor(k) for k in range(BEHIND + 1)]
    np.testing.assert_allclose(found, 0.3 * np.array(expected), rtol=1e-9, atol=1e-12)


@pytest.mark.parity
@pytest.mark.parametrize(
    ('ours', 'theirs'),
    [
        ({'name': 'step', 'milestones': ('30st', '70st'), 'factor': 0.3}, lambda s, o: s.MultiStepLR(o, [30, 70], 0.3)),
        ({'name': 'exponential', 'decay_rate': 0.97, 'transition': '1st'}, lambda s, o: s.ExponentialLR(o, 0.97)),
        (
            {'name': 'exponential', 'decay_rate': 0.5, 'transition': '30st', 'staircase': True},
            lambda s, o: s.StepLR(o, 30, 0.5),
        ),
        ({'name': 'cosine'}, lambda s, o: s.CosineAnnealingLR(o, 100)),
        ({'name': 'cosine_restarts', 'cycle': '10st', 'stretch': 9.0}, lambda s, o: s.CosineAnnealingWarmRestarts(o, 10, 9)),
        ({'name': 'linear', 'end': 0.25}, lambda s, o: s.LinearLR(o, 1.0, 0.25, 100)),
        ({'name': 'polynomial', 'power': 2.0}, lambda s, o: s.PolynomialLR(o, 100, 2.0)),
    ],
    ids=in_words,
)
def test_every_step_is_torchs(ours, theirs):
    import torch

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.3)
    reference, rates = theirs(torch.optim.lr_scheduler, optimizer), []
    for _ in range(100):
        rates.append(optimizer.param_groups[0]['lr'])
        optimizer.step()
        reference.step()
    found = optim.schedule(config('0st', **ours), 100, per_step=1)(np.arange(100))
    np.testing.assert_allclose(found, rates, rtol=1e-9, atol=1e-12)


@pytest.mark.parity
@pytest.mark.parametrize(('anneal', 'theirs'), [('cosine', 'cos'), ('linear', 'linear')])
def test_one_cycle_is_torchs(anneal, theirs):
    """Torch ends each phase a step early: its run of 101 steps is ours of 100, its rise of 0.31 a little less of ours."""
    import torch

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.3)
    reference = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 0.3, total_steps=101, pct_start=0.31, anneal_strategy=theirs, cycle_momentum=False
    )
    rates = [optimizer.param_groups[0]['lr']]
    for _ in range(100):
        optimizer.step()
        reference.step()
        rates.append(optimizer.param_groups[0]['lr'])
    ours = config('0st', name='one_cycle', rise=(0.31 * 101 - 1) / 100, anneal=anneal)
    np.testing.assert_allclose(optim.schedule(ours, 100, per_step=1)(np.arange(101)), rates, rtol=1e-9, atol=1e-15)


@given(
    warmup=st.floats(0, 0.9),
    cycle=st.floats(0.01, 2),
    stretch=st.one_of(st.just(1.0), st.floats(1, 4)),
    total=st.integers(2000, 10**9),
)
def test_a_run_ends_with_a_cycle(warmup, cycle, stretch, total):
    """As it is or as the error says; rounded cycles do not add up to one cut short."""

    def made(cycle):
        settings = config(f'{warmup}run', name='cosine_restarts', cycle=cycle, stretch=stretch, peak_decay=0.9)
        return optim.schedule(settings, total, per_step=1)

    try:
        rate = made(f'{cycle}run')
    except ConfigError as error:
        rate = made(re.search("set it to '(.*)'", str(error))[1])
    rates = rate(total * np.linspace(0.99, 1, 1000))
    assert rates[-1] == pytest.approx(0, abs=1e-9) and (np.diff(rates[-5:]) <= 1e-9).all() and (rates >= 0).all()


SHARE = st.floats(0, 1)
DURATION = st.floats(1e-3, 2).map('{}run'.format)
ARGUMENTS = {
    'constant': {},
    'step': {'milestones': st.lists(DURATION, min_size=1, max_size=3).map(tuple), 'factor': SHARE},
    'exponential': {'decay_rate': SHARE, 'transition': DURATION, 'staircase': st.booleans()},
    'cosine': {'alpha': SHARE},
    'cosine_restarts': {'cycle': DURATION, 'stretch': st.floats(1, 4), 'peak_decay': SHARE, 'alpha': SHARE},
    'linear': {'end': SHARE},
    'polynomial': {'power': st.floats(0, 8), 'end': SHARE},
    'inverse_sqrt': {'timescale': DURATION},
    'one_cycle': {
        'rise': st.floats(1e-3, 0.999),
        'start': SHARE,
        'end': SHARE,
        'anneal': st.sampled_from(['cosine', 'linear']),
    },
    'plateau': {},
}


@pytest.mark.parametrize('name', SCHEDULES)
@given(data=st.data(), total=st.integers(1, 5000), warmup=SHARE)
def test_rates_are_finite_and_between_0_and_the_peak(name, data, total, warmup):
    arguments = data.draw(st.fixed_dictionaries(ARGUMENTS[name]))
    try:
        rate = optim.schedule(config(f'{warmup}run', name=name, **arguments), total, per_step=1)
    except ConfigError as error:
        # Two milestones, or nothing, after rounding; a last cycle that the run would cut.
        assert any(part in str(error) for part in ('rise', 'lasts nothing', 'within one'))
        return
    rates = rate(np.linspace(0, total, 50))
    assert np.isfinite(rates).all() and (rates >= 0).all() and (rates <= 0.3 * (1 + 1e-12)).all()


@pytest.mark.parametrize('name', SCHEDULES)
def test_a_warm_up_as_long_as_the_run(name):
    rate = optim.schedule(config('1run', name=name), 100, per_step=1)
    assert 0 < rate(99) < rate(100) == pytest.approx(0.3 * (0.04 if name == 'one_cycle' else 1))
