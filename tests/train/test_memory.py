"""The planner of memory: what it chooses of what programs need, and that it reads the compiler's count."""

import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st

from research import cost
from research.catalogue import ConfigError
from research.study import budget as budgets
from research.study import identity, plan
from research.study.measure import beside_training
from research.train import memory
from research.train.experiment import Experiment
from research.train.program import Compiled, Session

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
    chosen, _ = fitted(budget)
    assert (chosen.micro_batch, chosen.remat) == expected


@given(budget=st.integers(520, 20_000), batch_size=st.sampled_from((1, 8, 48, 64, 256)), fixed=st.integers(0, 400))
def test_never_over_the_budget_and_never_needlessly_small(budget, batch_size, fixed):
    chosen, asked = fitted(budget, batch_size, fixed=fixed)
    size = chosen.micro_batch or batch_size
    assert chosen.need.bytes <= budget
    larger = [d for d in range(size + 1, batch_size + 1) if batch_size % d == 0]
    if larger:
        assert fixed + KEPT[chosen.remat] * larger[0] > budget
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


WIDE = {'model.name': 'techniques:Pooled', 'model.norm.name': 'none', 'data.batch_size': 64}
WITH_BLOCKS = {'model.norm.name': 'none', 'data.batch_size': 64, 'model.widths': (16,)}


@pytest.fixture
def bare(monkeypatch):
    """These programs are smaller than what the host adds to any."""
    monkeypatch.setattr(memory, '_HOST', 0)


def planned(session, budget, *changes):
    """The run that `train.memory_budget` makes of a config."""
    (run,) = plan.seeded('baseline', tiny.config(*changes, {'train.memory_budget': budget}), (0,))
    return budgets.within_memory(run, session)


def needs(*changes):
    """Bytes that a run with the whole batch is taken to need."""
    built = tiny.build(Session(), *changes)
    return memory.predicted(cost.memory(built.prepared()), memory.beside(beside_training(built)), 1, 'cpu')


@pytest.mark.long
@pytest.mark.parametrize('changes', [WIDE, WITH_BLOCKS], ids=['without_blocks', 'with_blocks'])
def test_a_run_within_a_budget_is_the_run_that_was_chosen(changes, bare):
    """Read off compiled programs; what comes of it is the config with that micro-batch written by hand."""
    session, whole = Session(), needs(changes)
    run = planned(session, f'{whole * 0.8:.0f}B', changes)
    chosen = run.memory_plan
    assert 0 < chosen.micro_batch < 64 and whole * 0.4 < chosen.need.bytes <= whole * 0.8
    by_hand = {'gradient.micro_batch': chosen.micro_batch, 'train.remat': chosen.remat}
    by_hand['data.eval_batch_size'] = chosen.evaluation_batch
    assert run.config == tiny.config(changes, by_hand)
    assert chosen.need.bytes == needs(changes, by_hand)
    assert run.key not in (identity.compile_key(run.config), identity.compile_key(tiny.config(changes)))
    assert not session.programs  # what was only looked at is let go


@pytest.mark.parametrize(
    ('rungs', 'shares', 'least', 'expected'),
    [
        ((12,), 1, 1, [12, 6, 4, 3, 2, 1]),
        ((12,), 1, 2, [6, 4, 3, 2, 1]),
        ((12,), 4, 1, [12, 4]),
        ((16, 32, 64), 1, 1, [64, 32, 16, 8, 4, 2, 1]),
        ((16, 32, 64), 1, 2, [8, 4, 2, 1]),
        ((30, 20), 1, 1, [30, 15, 10, 6, 5, 2, 1]),  # in micro-batches of 3, 20 would have an empty place
    ],
)
def test_micro_batches_divide_every_batch(rungs, shares, least, expected):
    assert memory.candidates(rungs, shares, least) == expected


def test_no_micro_batch_at_all():
    with pytest.raises(ConfigError, match='common divisor'):
        memory.candidates((9, 7), 4, 1)


def test_training_and_evaluation_together_and_what_the_host_adds():
    """On CPU what a program computed in stays until the next one comes; elsewhere the larger of the two decides."""
    train = {'arguments': 1000, 'outputs': 400, 'aliases': 300, 'temporaries': 5000, 'total': 6100}
    between = memory.beside([{'temporaries': 2000, 'outputs': 10}, {'temporaries': 700, 'outputs': 100}])
    assert between == 2110
    kept = 1000 + 400 - 300
    assert memory.predicted(train, between, 1, 'gpu') == kept + 300 + 5000
    assert memory.predicted(train, 9000, 2, 'gpu') == kept + 600 + 9000
    on_cpu = memory.predicted(train, between, 1, 'cpu') - memory.predicted(train, between, 0, 'cpu')
    assert on_cpu == 300
    assert memory.predicted(train, 9000, 0, 'cpu') - memory.predicted(train, 0, 0, 'cpu') == 1.7 * 9000
    assert memory.predicted(train, 0, 0, 'cpu') == kept + 300 + 1.7 * 5000 + memory._HOST  # 300: a checkpoint on its way


@pytest.mark.parametrize(
    ('budget', 'shares', 'expected'),
    [(10**6, 1, 256), (102_400, 1, 256), (102_399, 1, 128), (4_000, 1, 8), (1, 4, 4), (1, 1, 1)],
)
def test_evaluations_take_at_most_a_quarter(budget, shares, expected):
    assert memory.evaluation_batch(f'{budget}B', 256, shares, lambda batch: 100 * batch) == expected


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


@pytest.mark.long
def test_a_batch_that_grows_stays_within_the_budget(bare):
    grows = {**WIDE, 'data.batch_size': 32, 'data.batch': {'name': 'grow', 'milestones': ('0.5run',), 'factor': 4}}
    whole, constant = needs(grows), needs({**WIDE, 'data.batch_size': 32})
    assert whole > 2 * constant
    between = (whole + constant) / 2
    chosen = planned(Session(), f'{between:.0f}B', grows).memory_plan
    assert chosen.micro_batch in (16, 32, 64) and chosen.need.bytes <= between


@pytest.mark.parametrize('changes', [{'gradient.micro_batch': 16}, {'model.name': 'vit', 'train.remat': 'block'}])
def test_what_the_budget_chooses_is_not_chosen_beside_it(session, changes):
    with pytest.raises(ConfigError, match='train.memory_budget chooses'):
        planned(session, '1GiB', changes)


def test_a_budget_with_a_noise_scale_leaves_something_to_compare(session, monkeypatch):
    monkeypatch.setattr(Experiment, 'prepared', lambda built: None)
    monkeypatch.setattr(budgets, 'beside_training', lambda _: [{'temporaries': 0, 'outputs': 0}])
    monkeypatch.setattr(cost, 'memory', lambda _: {'total': 1, 'aliases': 0, 'temporaries': 0})
    noise = {'gradient.noise_scale': True, 'model.norm.name': 'none'}
    assert planned(session, '1GiB', noise).memory_plan.micro_batch == 16


@pytest.mark.parametrize('budget', ['6 cakes', '1.2GiBs'])
def test_a_bad_size_is_refused_before_anything_compiles(session, monkeypatch, budget):
    monkeypatch.setattr(Compiled, 'prepare', lambda *_: pytest.fail('compiled'))
    with pytest.raises(ConfigError, match="such as '6GiB'"):
        planned(session, budget)


def test_a_batch_that_devices_cannot_share_is_refused_by_name(session):
    with pytest.raises(ConfigError, match='4 devices share a batch evenly, but it has 30'):
        planned(session, '1GiB', {'train.engine': 'pmap', 'train.devices': 4, 'data.batch_size': 30})
