"""What every technique owes: it trains, resumes bit for bit, changes something, and is neutral where it must be."""

import re

import jax
import numpy as np
import pytest
import tiny
from techniques import TECHNIQUES, one_a_field

from research import optim
from research.train import loop

# One for each kind of state that a run goes on from; the others' is the same.
STATES = ('adam', 'float16', 'plateau', 'shrinking_batch', 'streaming')
MOST_ARE_LONG = [t for t in TECHNIQUES if t.name in STATES]
MOST_ARE_LONG += [pytest.param(t, marks=pytest.mark.long) for t in one_a_field(TECHNIQUES) if t.name not in STATES]
LONG = ('low_rank', 'stochastic_depth')  # to compile
NEUTRAL = one_a_field([t for t in TECHNIQUES if t.neutral is not None and t.name not in LONG])
NEUTRAL += [pytest.param(t, marks=pytest.mark.long) for t in TECHNIQUES if t.neutral is not None and t not in NEUTRAL]


def named(technique):
    return technique.name


def once(make):
    """`make(built, ...)` by config, made when first asked for."""
    made = {}

    def of(built, *arguments):
        key = str(built.config), arguments
        if key not in made:
            made[key] = make(built, *arguments)
        return made[key]

    return of


@pytest.fixture(scope='module')
def finished(session, tmp_path_factory):
    """technique -> (outcome, folder) of an uninterrupted run."""

    def run(built):
        directory = tmp_path_factory.mktemp('run')
        return tiny.train(built, directory), directory

    of = once(run)
    return lambda technique: of(tiny.build(session, technique.setting))


@pytest.fixture(scope='module')
def program_text():
    return once(jaxpr)


@pytest.fixture(scope='module')
def in_float64():
    return once(float64)


@pytest.mark.parametrize('technique', MOST_ARE_LONG, ids=named)
def test_trains(technique, session, finished, in_float64):
    """Through the loop where it has a state of its own or is more than one program; else in the program that is neutral."""
    built = tiny.build(session, technique.setting)
    if technique.name in STATES or len(built.phases.spans(built.total)) > 1:
        outcome, directory = finished(technique)
        losses = [row['train/loss'] for row in tiny.rows(directory)]
        assert outcome.status == 'finished'
        assert outcome.metrics['train/loss'] == losses[-1]
    else:
        losses = in_float64(built, 60)[1].reshape(3, 20).mean(1)
    assert len(losses) == 3
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize('technique', MOST_ARE_LONG, ids=named)
def test_resumes_bit_for_bit(technique, finished, session, tmp_path, monkeypatch):
    outcome, directory = finished(technique)
    monkeypatch.setattr(loop, '_CHUNK_SECONDS', 0.0)  # one step a chunk, so that it stops between two evaluations
    with pytest.raises(loop.Stopped):
        tiny.train(tiny.build(session, technique.setting), tmp_path, stop_at=26)
    monkeypatch.undo()
    resumed = tiny.train(tiny.build(session, technique.setting), tmp_path)
    assert resumed.metrics == outcome.metrics
    assert tiny.rows(tmp_path) == tiny.rows(directory)
    np.testing.assert_array_equal(resumed.correct, outcome.correct)
    tiny.assert_same_bits(tiny.scored(tmp_path), tiny.scored(directory))


@pytest.mark.long
@pytest.mark.parametrize('technique', TECHNIQUES, ids=named)
def test_changes_something(technique, session, program_text):
    """Otherwise the other tests would hold for a technique that does nothing."""
    on, off = tiny.build(session, technique.setting), tiny.build(session, technique.beside)
    if program_text(on) == program_text(off) and on.phases.spans(on.total) == off.phases.spans(off.total):
        watched = on.watchers != off.watchers  # acts on what an evaluation says
        assert watched or not np.array_equal(tiny.steps(on, 3)[1], tiny.steps(off, 3)[1])


@pytest.mark.parametrize('technique', NEUTRAL, ids=named)
def test_neutral_in_float64(technique, session, in_float64):
    neutral = tiny.build(session, technique.setting, technique.neutral)
    equal = tiny.build(session, technique.beside, technique.equals)
    assert neutral.config != equal.config
    (params, losses), (expected_params, expected_losses) = in_float64(neutral, 3), in_float64(equal, 3)
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-10)
    for path, expected in jax.tree_util.tree_leaves_with_path(expected_params):
        found = dict(jax.tree_util.tree_leaves_with_path(params))[path]
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10, err_msg=jax.tree_util.keystr(path))


def jaxpr(built):
    """The training program's text, less the addresses of Python objects."""
    program = built.program
    arguments = program.engine.shaped(program.shapes), tiny.chunk(built, 1)
    return re.sub(r'0x[0-9a-f]+', '', str(jax.make_jaxpr(program.chunk(built.phases.at(0, 0)).jitted)(*arguments)))


def float64(built, steps):
    """(params, losses) of some steps from the same float32 initial weights, everything behind them in float64."""
    engine, numbers = built.program.engine, optim.hyperparameters(built.config)
    state = built.program.step.init(jax.random.key(built.seed), {k: np.float32(v) for k, v in numbers.items()}, {})
    state = jax.tree.map(wide, state)  # drawn outside of a program, for which last bits might differ
    with jax.enable_x64(True):
        chunk = built.program.chunk(built.phases.at(0, 0)).jitted
        state, sums = chunk(engine.replicate(state), tiny.chunk(built, steps))
        params, sums = engine.host((built.program.step.weights(state.params, state.masks), sums))
    assert all(leaf.dtype == np.float64 for leaf in jax.tree.leaves(params))
    return params, np.asarray(sums['loss'])[:steps] / np.asarray(sums['count'])[:steps]


def wide(leaf):
    return np.asarray(leaf, np.float64) if leaf.dtype == np.float32 else leaf
