"""When something is due, and what is counted between: pure functions, for any sizes of steps and any chunks."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from research.train.calendar import Calendar, crossed
from research.train.phases import Phase, Phases
from research.train.progress import Diverged, Progress, check_finite

SIZES = st.lists(st.integers(1, 40), min_size=1, max_size=3)


@st.composite
def calendars(draw):
    """Of runs whose batch changes up to two times."""
    sizes, total = draw(SIZES), draw(st.integers(1, 400))
    positions = st.lists(st.integers(1, 400), min_size=len(sizes) - 1, max_size=len(sizes) - 1, unique=True)
    changes = tuple(sorted(draw(positions)))
    phases = Phases(lambda position, level: Phase(sizes[sum(position >= c for c in changes)], 1, 0, ()), changes, ())
    return Calendar(total, phases, draw(st.integers(1, 200)), draw(st.none() | st.integers(1, 200)), None)


def segments(calendar):
    """(position, size of a step, steps done) at the end of each segment of a run."""
    position, step, found = 0, 0, []
    while not calendar.over(position, 0):
        size = calendar.phases.at(position, 0).batch_size
        steps = calendar.steps(position, calendar.boundary(position), size)
        position, step = position + steps * size, step + steps
        found.append((position, size, step))
    return found


@given(calendars())
def test_the_first_step_that_reaches_a_date_ends_a_segment(calendar):
    ends = segments(calendar)
    for every in (calendar.eval_every, calendar.checkpoint_every):
        dates = range(every, ends[-1][0] + 1, every) if every else ()
        for date in (*dates, *(change for change in calendar.phases.changes if change <= ends[-1][0])):
            assert any(position - size < date <= position for position, size, _ in ends), date


@given(calendars())
def test_a_run_has_a_step_and_no_more_than_fit(calendar):
    (first, size, _), *_ = ends = segments(calendar)
    last = ends[-1][0]
    assert last <= calendar.total or last == first == size
    assert last + calendar.phases.at(last, 0).batch_size > calendar.total


@given(calendars())
def test_what_is_due_is_what_a_step_reached(calendar):
    for position, size, step in segments(calendar):
        passed = set(range(position - size + 1, position + 1))
        assert calendar.evaluates(position, size) == any(date % calendar.eval_every == 0 for date in passed)
        due = calendar.checkpoint_every and any(date % calendar.checkpoint_every == 0 for date in passed)
        assert calendar.saves(step, position, size) == (calendar.checkpoint_every is not None and bool(due or step == 1))


@given(every=st.integers(1, 50), sizes=st.lists(st.integers(1, 60), min_size=1, max_size=20))
def test_a_multiple_is_crossed_once_by_whatever_steps(every, sizes):
    positions = np.cumsum(sizes).tolist()
    times = [crossed(every, position, size) for position, size in zip(positions, sizes, strict=True)]
    expected = [any(d % every == 0 for d in range(p - s + 1, p + 1)) for p, s in zip(positions, sizes, strict=True)]
    assert times == expected


LOSSES = st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=40)


@given(losses=LOSSES, cuts=st.lists(st.integers(0, 40), max_size=5))
def test_sums_are_added_from_left_to_right_whatever_the_chunks(losses, cuts):
    progress, expected = Progress(), {'loss': 0.0, 'clip/steps': 0.0}
    bounds = sorted({0, len(losses), *(cut for cut in cuts if cut < len(losses))})
    for first, last in zip(bounds, bounds[1:], strict=False):
        part = np.array(losses[first:last], np.float64)
        progress.advance(len(part), 32, {'loss': part, 'clip/steps': part / 3, 'gradient/norm': part})
    for loss in losses:
        expected['loss'] += loss
        expected['clip/steps'] += loss / 3
    assert {name: progress.sums[name] for name in expected} == expected
    assert progress.observed['clip/steps'] == expected['clip/steps'] and 'loss' not in progress.observed
    assert progress.norms == losses[-10:]
    assert (progress.step, progress.position, progress.batch_size) == (len(losses), 32 * len(losses), 32)
    assert progress.sums['steps'] == len(losses)


def test_an_interval_ends_with_its_sums_and_what_is_seen_of_the_run_goes_on():
    progress = Progress()
    for loss in (4.0, 2.0):
        sums = {'loss': np.full(2, loss), 'clip/steps': np.full(2, loss / 4), 'gradient/norm': np.ones(2)}
        progress.advance(2, 8, sums)
        assert progress.interval({'train/loss': loss})['clip/steps'] == loss / 4
    assert (progress.first_loss, progress.first_step, progress.sums) == (4.0, 2, {})
    assert progress.observed['clip/steps'] == 3.0
    assert progress.stalled() is None
    assert dataclasses.replace(progress, train={'train/loss': 4.0}).stalled().startswith('stalled: the training loss was 4')


@pytest.mark.parametrize(
    ('bad', 'what'), [({'loss': 2}, 'loss'), ({'gradient/norm': 1}, 'gradient'), ({'clip/steps': 0}, None)], ids=str
)
def test_a_run_diverges_at_the_first_step_that_is_not_finite(bad, what):
    """What is merely observed may be anything."""
    sums = {name: np.arange(1.0, 5.0) for name in ('loss', 'gradient/norm', 'clip/steps')}
    for name, step in bad.items():
        sums[name][step:] = np.nan
    at = Progress(step=10, position=320, norms=[0.5])
    if what is None:
        check_finite(at, 32, sums, lambda position: 0.0)
        return
    with pytest.raises(Diverged, match=rf'^{what} is nan at step {10 + step}, learning rate {320 + 32 * step}$') as found:
        check_finite(at, 32, sums, float)
    assert found.value.at == (10 + step, 320 + 32 * step)
    np.testing.assert_array_equal(found.value.norms, [0.5, *sums['gradient/norm'][: step + 1]])
