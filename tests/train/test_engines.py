"""One device, four under jit, four under pmap: the same numbers, whatever the norm layer makes of a batch."""

import numpy as np
import pytest
import tiny

from research.catalogue import ConfigError

STEPS = 20
JIT_1 = {'train.engine': 'jit', 'train.devices': 1}
JIT_2 = {'train.engine': 'jit', 'train.devices': 2}
PMAP_2 = {'train.engine': 'pmap', 'train.devices': 2}
PMAP_4 = {'train.engine': 'pmap', 'train.devices': 4}
TWO = {'jit': JIT_2, 'pmap': PMAP_2}
NORMS = {
    'batch': {},
    'ghost': {'model.norm.name': 'ghost_batch', 'model.norm.virtual_batch_size': 12},  # groups span devices
    'virtual': {'model.norm.name': 'virtual_batch'},
}


def pairs(*default):
    """Every norm layer under every engine; in the default suite some."""
    every = [(norm, engine) for norm in NORMS for engine in TWO]
    return [pair if pair in default else pytest.param(*pair, marks=pytest.mark.long) for pair in every]


@pytest.mark.parametrize(('norm', 'engine'), pairs(('batch', 'pmap'), ('ghost', 'jit')))
def test_losses_agree(session, norm, engine):
    one, two = (tiny.steps(tiny.build(session, NORMS[norm], on), STEPS)[1] for on in (JIT_1, TWO[engine]))
    assert one[-1] < one[0]
    np.testing.assert_allclose(two, one, rtol=1e-4)


@pytest.mark.parametrize('engine', TWO.values(), ids=TWO)
def test_evaluations_agree(session, engine):
    """Of the same variables: the same loss over the split, and the same examples correct."""
    one, two = (tiny.build(session, NORMS['virtual'], on) for on in (JIT_1, engine))
    assert [len(run.program.engine.devices) for run in (one, two)] == [1, 2]
    state, _ = tiny.steps(one, STEPS)
    (expected, expected_correct), (sums, correct) = (tiny.evaluate(run, state, 'test') for run in (one, two))
    assert sums['loss'] == pytest.approx(expected['loss'], rel=1e-5)
    assert sums['count'] == 360
    np.testing.assert_array_equal(correct, expected_correct)


@pytest.mark.long
def test_a_batch_that_devices_cannot_share_evenly_works_under_jit(session):
    uneven = {'data.batch_size': 33, 'model.name': 'techniques:Small'}
    losses = [tiny.steps(tiny.build(session, uneven, engine), STEPS)[1] for engine in (JIT_1, JIT_2)]
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-4)


@pytest.mark.parametrize('field', ['data.batch_size', 'data.eval_batch_size'])
def test_such_a_batch_is_refused_under_pmap(session, field):
    with pytest.raises(ConfigError, match='4 devices .* 66 examples'):
        tiny.build(session, PMAP_4, {field: 66})


def test_more_devices_than_there_are_are_refused(session):
    with pytest.raises(ConfigError, match="'train.devices' is 5, but jax sees 4"):
        tiny.build(session, {'train.devices': 5})


def test_a_misspelt_engine_names_the_nearest(session):
    with pytest.raises(ConfigError, match="Did you mean 'pmap'"):
        tiny.build(session, {'train.engine': 'pmapp'})


def test_no_devices_means_all(session):
    assert len(tiny.build(session, {'train.devices': 0}).program.engine.devices) == 4
