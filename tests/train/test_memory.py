"""The planner of memory: what it chooses of what programs need, and that it reads the compiler's count."""

import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st

from research.catalogue import ConfigError
from research.train import memory
from research.train.experiment import Session

# Bytes of an example's activations, and FLOPs of a step, by remat.
KEPT, FLOPS = {'none': 100, 'products': 60, 'block': 20}, {'none': 3.0, 'products': 3.1, 'block': 4.0}


def fitted(budget, batch_size=64, shares=1, rematerializes=True, fixed=500):
    asked = []

    def need(size, remat):
        asked.append((size, remat))
        return memory.Need(fixed + KEPT[remat] * size, memory.time(FLOPS[remat], size))

    sizes = memory.candidates((batch_size,), shares, 1)
    return memory.fit(f'{budget}B', sizes, batch_size, rematerializes, need), asked


@pytest.mark.parametrize(
    ('budget', 'expected'),
    [
        (10_000, (0, 'none')),
        (6_899, (0, 'products')),  # nearly no time for it
        (4_000, (32, 'none')),
        (1_900, (16, 'products')),
        (1_000, (8, 'products')),
        (700, (8, 'block')),
        (520, (1, 'block')),
    ],
)
def test_what_fits_and_costs_the_least_time(budget, expected):
    plan, _ = fitted(budget)
    assert (plan.micro_batch, plan.remat) == expected


@given(budget=st.integers(520, 20_000), batch_size=st.sampled_from((1, 8, 48, 64, 256)), fixed=st.integers(0, 400))
def test_never_over_the_budget_and_never_needlessly_small(budget, batch_size, fixed):
    plan, asked = fitted(budget, batch_size, fixed=fixed)
    size = plan.micro_batch or batch_size
    assert plan.need.bytes <= budget
    larger = [d for d in range(size + 1, batch_size + 1) if batch_size % d == 0]
    if larger:
        assert fixed + KEPT[plan.remat] * larger[0] > budget
    assert len(asked) <= 3 * 12


def test_nothing_fits_and_it_says_what_would():
    with pytest.raises(ConfigError, match='Nothing fits .* micro-batches of 1 with rematerialization take 0 MiB'):
        fitted(519)
    with pytest.raises(ConfigError, match='micro-batches of 4 take'):
        fitted(519, shares=4, rematerializes=False)


@pytest.mark.parametrize(('text', 'expected'), [('6GiB', 6 * 2**30), ('500MB', 500_000_000), ('1.5 KiB', 1536), ('7B', 7)])
def test_sizes(text, expected):
    assert memory.parse(text) == expected


@pytest.mark.parametrize('text', ['6', 'GiB', '6Gb', '0MB', '-1MB', '6GiB or so'])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(ConfigError, match="such as '6GiB'"):
        memory.parse(text)


def test_a_run_within_a_budget_is_the_run_that_was_chosen(tmp_path):
    """Read off compiled programs; the run that comes of it is that of the same micro-batch written by hand."""
    session, changes = Session(), {'model.norm.name': 'none', 'data.batch_size': 64, 'model.widths': (16,)}
    whole = tiny.build(session, changes, {'train.memory_budget': '1GiB'})
    assert (whole.memory_plan.micro_batch, whole.memory_plan.remat) == (0, 'none')
    budget = whole.memory_plan.need.bytes * 0.8
    built = tiny.build(session, changes, {'train.memory_budget': f'{budget:.0f}B'})
    plan = built.memory_plan
    assert 0 < plan.micro_batch < 64 and budget / 2 < plan.need.bytes <= budget
    assert len(session.programs) == 2  # what was only looked at is let go
    by_hand = tiny.build(session, changes, {'gradient.micro_batch': plan.micro_batch})
    outcome, expected = tiny.train(built, tmp_path / 'one'), tiny.train(by_hand, tmp_path / 'other')
    assert outcome.metrics == expected.metrics


@pytest.mark.parametrize(
    ('rungs', 'shares', 'least', 'expected'),
    [
        ((12,), 1, 1, [12, 6, 4, 3, 2, 1]),
        ((12,), 1, 2, [6, 4, 3, 2, 1]),
        ((12,), 4, 1, [12, 4]),
        ((16, 32, 64), 1, 1, [64, 32, 16, 8, 4, 2, 1]),
        ((16, 32, 64), 1, 2, [8, 4, 2, 1]),
        ((30, 20), 1, 1, [30, 15, 10, 6, 5, 2, 1]),  # in micro-batches of 3, 20 would have an empty place
        ((9, 7), 4, 1, []),
    ],
)
def test_micro_batches_divide_every_batch(rungs, shares, least, expected):
    assert memory.candidates(rungs, shares, least) == expected


def test_no_micro_batch_at_all():
    with pytest.raises(ConfigError, match='common divisor'):
        memory.fit('1GiB', [], 9, False, None)


@pytest.mark.parametrize(
    ('changes', 'largest'),
    [
        ({'data.batch': {'name': 'grow', 'milestones': ('0.5run',), 'factor': 4}}, (128, 1, 0)),
        ({'data.batch.name': 'shrink'}, (32, 1, 0)),
        ({'data.batch': {'name': 'grow', 'milestones': ('0.5run',)}, 'gradient.micro_batch': 8}, (64, 8, 0)),
        ({'model.name': 'techniques:Pooled', 'augment.resize': {'name': 'progressive', 'multiple': 2}}, (32, 1, 0)),
    ],
    ids=['grow', 'shrink', 'in_micro_batches', 'resize'],
)
def test_what_is_looked_at_is_the_phase_that_takes_most(session, changes, largest):
    model = {} if 'model.name' in changes else {'model.norm.name': 'none'}
    assert tiny.build(session, model, changes).largest[:3] == largest


def test_a_batch_that_grows_stays_within_the_budget():
    session = Session()
    changes = {
        'model.norm.name': 'none',
        'model.widths': (16,),
        'data.batch': {'name': 'grow', 'milestones': ('0.5run',), 'factor': 4},
    }
    whole = tiny.build(session, changes, {'train.memory_budget': '1GiB'}).memory_plan
    constant = tiny.build(session, {**changes, 'data.batch': {'name': 'constant'}}, {'train.memory_budget': '1GiB'}).memory_plan
    assert whole.need.bytes > 2 * constant.need.bytes
    between = (whole.need.bytes + constant.need.bytes) / 2
    built = tiny.build(session, changes, {'train.memory_budget': f'{between:.0f}B'})
    assert built.memory_plan.micro_batch in (16, 32, 64) and built.memory_plan.need.bytes <= between


@pytest.mark.parametrize('changes', [{'gradient.micro_batch': 16}, {'model.name': 'vit', 'train.remat': 'block'}])
def test_what_the_budget_chooses_is_not_chosen_beside_it(session, changes):
    small = {k: v for k, v in {'model.patch': 4, 'model.dim': 8, 'model.depth': 1}.items() if 'model.name' in changes}
    with pytest.raises(ConfigError, match='train.memory_budget chooses'):
        tiny.build(session, small, changes, {'train.memory_budget': '1GiB'})


def test_a_budget_with_a_noise_scale_leaves_something_to_compare(session):
    noise = {'gradient.noise_scale': True, 'model.norm.name': 'none', 'train.memory_budget': '1GiB'}
    assert tiny.build(session, noise).memory_plan.micro_batch == 16


def test_a_batch_that_devices_cannot_share_is_refused_by_name(session):
    with pytest.raises(ConfigError, match='4 devices share a batch evenly, but it has 30'):
        tiny.build(session, {'train.engine': 'pmap', 'train.devices': 4, 'data.batch_size': 30, 'train.memory_budget': '1GiB'})
