"""One device, four under jit, four under pmap: the same numbers, whatever the norm layer makes of a batch."""

import numpy as np
import pytest
import tiny

from research.catalogue import ConfigError

STEPS = 20
JIT_1 = {'train.engine': 'jit', 'train.devices': 1}
JIT_4 = {'train.engine': 'jit', 'train.devices': 4}
PMAP_4 = {'train.engine': 'pmap', 'train.devices': 4}
NORMS = {
    'batch': {},
    'ghost': {'model.norm.name': 'ghost_batch', 'model.norm.virtual_batch_size': 12},  # groups span devices
    'virtual': {'model.norm.name': 'virtual_batch'},
}


@pytest.mark.parametrize('norm', NORMS.values(), ids=NORMS)
def test_losses_agree(session, norm):
    one, *four = (tiny.steps(tiny.build(session, norm, engine), STEPS)[1] for engine in (JIT_1, JIT_4, PMAP_4))
    assert one[-1] < one[0]
    for losses in four:
        np.testing.assert_allclose(losses, one, rtol=1e-4)


def test_evaluations_agree(session):
    """Of the same variables: the same loss over the split, and the same examples correct."""
    runs = [tiny.build(session, NORMS['virtual'], engine) for engine in (JIT_1, JIT_4, PMAP_4)]
    assert [len(run.program.engine.devices) for run in runs] == [1, 4, 4]
    state, _ = tiny.steps(runs[0], STEPS)
    (expected, expected_correct), *scores = (tiny.evaluate(run, state, 'test') for run in runs)
    for sums, correct in scores:
        assert sums['loss'] == pytest.approx(expected['loss'], rel=1e-5)
        assert sums['count'] == 360
        np.testing.assert_array_equal(correct, expected_correct)


def test_a_batch_that_devices_cannot_share_evenly_works_under_jit(session):
    uneven = {'data.batch_size': 66}
    losses = [tiny.steps(tiny.build(session, uneven, engine), STEPS)[1] for engine in (JIT_1, JIT_4)]
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
