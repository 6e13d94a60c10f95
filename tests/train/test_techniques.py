"""What every technique owes: it trains, resumes bit for bit, leaves no trace when off, and is neutral where it must be."""

import re

import jax
import numpy as np
import pytest
import tiny
from sessions import cleared
from techniques import TECHNIQUES

from research.train import loop
from research.train.clock import Clock


@pytest.fixture(scope='module', params=TECHNIQUES, ids=lambda technique: technique.name)
def technique(request):
    return request.param


@pytest.fixture(scope='module')
def session(technique):
    """Of one technique."""
    with cleared() as session:
        yield session


@pytest.fixture(scope='module')
def finished(technique, session, tmp_path_factory):
    """An uninterrupted run: (outcome, its folder)."""
    directory = tmp_path_factory.mktemp(technique.name)
    return tiny.train(tiny.build(session, technique.on), directory), directory


def test_trains(finished):
    outcome, directory = finished
    losses = [row['train/loss'] for row in tiny.rows(directory)]
    assert outcome.status == 'finished'
    assert len(losses) == 3
    assert losses[-1] < 0.8 * losses[0]
    assert outcome.metrics['train/loss'] == losses[-1]


def test_resumes_bit_for_bit(technique, finished, session, tmp_path, monkeypatch):
    outcome, directory = finished
    monkeypatch.setattr(loop, '_CHUNK_SECONDS', 0.0)  # one step a chunk, so that it stops between two evaluations
    with pytest.raises(loop.Stopped):
        tiny.train(tiny.build(session, technique.on), tmp_path, stop_at=26)
    monkeypatch.undo()
    resumed = tiny.train(tiny.build(session, technique.on), tmp_path)
    assert resumed.metrics == outcome.metrics
    assert tiny.rows(tmp_path) == tiny.rows(directory)
    np.testing.assert_array_equal(resumed.correct, outcome.correct)
    tiny.assert_same_bits(tiny.scored(tmp_path), tiny.scored(directory))


def test_off_is_the_baseline(technique, session):
    off, baseline = tiny.build(session, technique.on, technique.off), tiny.build(session)
    assert jaxpr(off) == jaxpr(baseline)
    (state, losses), (expected_state, expected_losses) = (tiny.steps(built, 3) for built in (off, baseline))
    np.testing.assert_array_equal(losses, expected_losses)
    tiny.assert_same_bits(state, expected_state)


def test_on_is_not_the_baseline(technique, session):
    """Otherwise the other tests would hold for a technique that does nothing."""
    on, baseline = tiny.build(session, technique.on), tiny.build(session)
    same_program = jaxpr(on) == jaxpr(baseline)
    same_bits = np.array_equal(tiny.steps(on, 3)[1], tiny.steps(baseline, 3)[1])
    same_phases = on.phases.spans(on.total) == baseline.phases.spans(baseline.total)
    assert not (same_program and same_bits and same_phases)


def test_neutral_in_float64(technique, session):
    neutral = tiny.build(session, technique.on, technique.neutral)
    params, losses = in_float64(neutral)
    expected_params, expected_losses = in_float64(tiny.build(session, technique.equals))
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-10)
    for path, expected in jax.tree_util.tree_leaves_with_path(expected_params):
        found = dict(jax.tree_util.tree_leaves_with_path(params))[path]
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10, err_msg=jax.tree_util.keystr(path))


def jaxpr(built):
    """The training program's text, less the addresses of Python objects."""
    arguments = built.init(Clock()), *tiny.chunk(built, 1)
    return re.sub(r'0x[0-9a-f]+', '', str(jax.make_jaxpr(built.program.chunk(built.phases.at(0, 0)).jitted)(*arguments)))


def in_float64(built):
    """(params, losses) of 3 steps from the same float32 initial weights, everything behind them in float64."""
    engine = built.program.engine
    state = jax.tree.map(wide, engine.host(built.init(Clock())))
    with jax.enable_x64(True):
        chunk = built.program.chunk(built.phases.at(0, 0)).jitted
        state, sums = chunk(engine.replicate(state), *tiny.chunk(built, 3))
        params, sums = engine.host((state.params, sums))
    assert all(leaf.dtype == np.float64 for leaf in jax.tree.leaves(params))
    return params, np.asarray(sums['loss'])[:3]


def wide(leaf):
    return np.asarray(leaf, np.float64) if leaf.dtype == np.float32 else leaf
