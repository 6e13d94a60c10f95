"""Batch sizes: what they are where, and what a watcher of the score makes of them."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from research.catalogue import ConfigError
from research.data import batch_sizes
from research.optim.plateau import Plateau, watch


def made(batch_size=128, **group):
    config = {'batch_size': batch_size, 'batch': {'coupling': 'none', **group}}
    return batch_sizes.create(config, lambda text: round(float(text[:-3]) * 1000))


def test_growing_is_by_position_alone():
    sizes = made(name='grow', factor=3, milestones=('0.5run', '0.75run'), ceiling=1000)
    assert sizes.changes == (500, 750)
    assert [sizes.at(p, 7) for p in (0, 499, 500, 749, 750, 10**9)] == [128, 128, 384, 384, 1000, 1000]
    assert sizes.rungs == (128, 384, 1000)


def test_shrinking_is_by_level_alone_and_stops_at_the_floor():
    sizes = made(name='shrink', factor=0.3, floor=10)
    assert sizes.changes == ()
    assert [sizes.at(10**6, level) for level in range(5)] == [128, 38, 12, 10, 10]
    assert sizes.rungs == (128, 38, 12, 10)


@given(batch_size=st.integers(1, 4096), factor=st.floats(0.01, 0.99), floor=st.integers(1, 300))
def test_sizes_fall_to_the_floor_and_never_below(batch_size, factor, floor):
    sizes = made(batch_size, name='shrink', factor=factor, floor=floor)
    reached = [sizes.at(0, level) for level in range(2000)]
    assert reached == sorted(reached, reverse=True)
    assert (reached[0], reached[-1]) == (batch_size, min(floor, batch_size))
    assert sizes.rungs == tuple(dict.fromkeys(reached))


def test_a_factor_near_one_is_not_rounded_away():
    """Ten times 0.97 rounds to ten: what a level does not reach the next one does."""
    sizes = made(10, name='shrink', factor=0.97, floor=1)
    assert [sizes.at(0, level) for level in (0, 1, 2, 5)] == [10, 10, 9, 9]


@pytest.mark.parametrize('group', [{'name': 'constant'}, {'name': 'grow', 'milestones': ()}])
def test_without_a_change_the_size_stays(group):
    sizes = made(**group)
    assert (sizes.rungs, sizes.changes, sizes.at(10**9, 3)) == ((128,), (), 128)


def test_only_a_batch_that_shrinks_watches():
    batch = {'coupling': 'none', 'factor': 0.5}
    assert batch_sizes.patience({'batch': {'name': 'shrink', **batch}}) == (2, 0)
    assert batch_sizes.patience({'batch': {'name': 'shrink', 'patience': 5, 'min_delta': 0.1, **batch}}) == (5, 0.1)
    assert batch_sizes.patience({'batch': {'name': 'grow', **batch}}) is None


@pytest.mark.parametrize(('coupling', 'factor'), [('none', 1), ('linear', 0.25), ('sqrt', 0.5)])
def test_the_rate_may_follow(coupling, factor):
    assert batch_sizes.coupled(0.8, 32, 128, coupling) == pytest.approx(0.8 * factor)


@pytest.mark.parametrize(
    'group',
    [
        {'name': 'grow', 'factor': 1},
        {'name': 'grow', 'factor': math.inf},
        {'name': 'grow', 'milestones': ('0.5run', '0.25run')},
        {'name': 'grow', 'ceiling': 64},
        {'name': 'shrink', 'factor': 1.0},
        {'name': 'shrink', 'floor': 0},
        {'name': 'shrink', 'patience': 0},
        {'name': 'shrink', 'min_delta': -1e-3},
        {'name': 'shrnk'},
        {'name': 'constant', 'factor': 2},
    ],
)
def test_nonsense_is_refused(group):
    with pytest.raises(ConfigError):
        made(**group)


@pytest.mark.parametrize(
    ('min_delta', 'expected'),
    [
        (0.0, [0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 2]),
        (1e-9, [0, 0, 0, 0, 1, 1, 1, 2, 2, 2, 2, 3, 3, 4]),  # a tie is a failure
        (0.05, [0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 3, 4, 4, 5]),  # and so is a small gain
    ],
)
def test_patience_on_a_scripted_score(min_delta, expected):
    """Below its best for two evaluations in a row; a tie or a new best begins anew; NaN is below."""
    scores = [0.5, 0.4, 0.6, 0.6, 0.59, 0.61, 0.61, 0.6, math.nan, 0.7, 0.1, 0.7, 0.1, 0.1]
    plateau, levels = Plateau(), []
    for score in scores:
        plateau = watch(plateau, score, True, 2, min_delta)
        levels.append(plateau.level)
    assert levels == expected


@given(scores=st.lists(st.floats(-10, 10), min_size=1, max_size=30), patience=st.integers(1, 4))
def test_lower_is_better_is_the_mirror_image(scores, patience):
    """Negative values too, on which optax's own plateau never acts."""
    one = other = Plateau()
    for score in scores:
        one, other = watch(one, score, True, patience), watch(other, -score, False, patience)
    assert (one.waited, one.level) == (other.waited, other.level)


@pytest.mark.parity
@pytest.mark.parametrize('threshold', [0.0, 0.3])
def test_the_rate_on_plateau_is_torchs(threshold):
    """torch acts when its count of bad epochs exceeds its patience: its k is our k + 1; a tie is always bad there."""
    import numpy as np
    import torch

    scores = np.random.default_rng(0).normal(size=60).cumsum().round(1)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    reference = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, factor=0.5, patience=2, threshold=threshold, threshold_mode='abs', eps=0.0
    )
    plateau = Plateau()
    for score in scores:
        reference.step(score)
        plateau = watch(plateau, float(score), False, 3, threshold + 1e-9)
        assert optimizer.param_groups[0]['lr'] == pytest.approx(0.5**plateau.level)
    assert plateau.level > 3
