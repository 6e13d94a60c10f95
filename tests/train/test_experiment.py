"""What a config comes to: how long a run is, what it shares with others, and what is refused before anything compiles."""

import re

import chex
import jax
import numpy as np
import pytest
import tiny

from research.catalogue import ConfigError
from research.study import budget as budgets
from research.study import identity, plan
from research.train import chunks, experiment, flops, parallel
from research.train.clock import Clock
from research.train.program import Compiled, Session
from research.train.steps.supervised import Supervised

EPOCH = 1293  # digits: 1,797 less 360 of test, less a tenth for validation


@pytest.mark.parametrize(
    ('budget', 'steps'),
    [('100st', 100), ('5ep', 5 * EPOCH // 32), ('1ep', EPOCH // 32), ('640ex', 20), ('671ex', 20), ('1e3st', 1000)],
)
def test_a_budget_is_whole_steps_within_it(session, budget, steps):
    built = tiny.build(session, {'study.budget': budget})
    assert len(built.dataset.splits['train']) == EPOCH
    assert built.steps == steps
    assert built.steps * 32 <= built.total < (built.steps + 1) * 32


@pytest.mark.parametrize('model', [(4,), (8,)])
@pytest.mark.parametrize('budget', ['1e9flops', '123456789flops', '2.5e8flops'])
def test_a_budget_of_flops_buys_what_a_step_costs(session, model, budget):
    config = tiny.config({'model.widths': model, 'study.budget': budget})
    (run,) = plan.seeded('baseline', config, (0,))
    settled = budgets._with_flops(run, session, {})
    built = tiny.build(session, {'model.widths': model, 'study.budget': settled.config['study']['budget']})
    one, _ = flops.train(built.config, built.dataset, built.batch_size, built.total)
    assert built.steps > 3
    assert built.steps * one <= float(budget.removesuffix('flops')) < (built.steps + 1) * one


@pytest.mark.parametrize(
    'budget', ['20', '', '5e', '-3st', '0st', '0.01st', '0.5run', '5 epochs', '5eps', 'flops', '1.2.3flops']
)
def test_a_bad_budget_is_refused(session, budget):
    with pytest.raises(ConfigError):
        tiny.build(session, {'study.budget': budget})


@pytest.mark.parametrize(
    ('every', 'expected'),
    [
        ('60s', (None, 60.0)),
        ('0.5s', (None, 0.5)),
        ('5st', (160, None)),
        ('1ep', (EPOCH, None)),
        ('0.25run', (480, None)),
        ('0st', (1, None)),
    ],
)
def test_units_of_checkpoint_every(every, expected):
    assert experiment.checkpoint_every(tiny.config({'train.checkpoint_every': every}), 32, EPOCH, 1920) == expected


@pytest.mark.parametrize(
    ('field', 'value', 'message'),
    [
        ('train.checkpoint_every', '60', 'no duration'),
        ('train.checkpoint_every', '1min', 'no duration'),
        ('train.checkpoint_every', '1.2.3s', 'no duration'),
        ('train.eval_every', 'often', 'no duration'),
        ('schedule.warmup', '2run', 'longer than the run'),
        ('data.batch_size', -1, 'at least 1'),
        ('data.eval_batch_size', -1, 'at least 1'),
        ('data.name', 'digitz', "Did you mean 'digits'"),
        ('model.name', 'cnm', "Did you mean 'cnn'"),
        ('model.width', 4, "Did you mean 'widths'"),
        ('model.norm.name', 'bach', "Did you mean 'batch'"),
        ('optimizer.name', 'adaam', "Did you mean 'adam'"),
        ('optimizer.clip.name', 'global', "Did you mean 'global_norm'"),
        ('augment.names', ('nothing',), 'Unknown augmentation'),
        ('compress.name', 'nothing', 'Unknown compression'),
        ('gradient.name', 'plane', "Did you mean 'plain'"),
        ('task.name', 'clasification', "Did you mean 'classification'"),
        ('task.loss', 'hinge', 'Unknown loss'),
    ],
)
def test_a_bad_value_is_refused_before_anything_compiles(monkeypatch, field, value, message):
    monkeypatch.setattr(Compiled, 'prepare', lambda *_: pytest.fail('compiled'))
    with pytest.raises(ConfigError, match=message):
        tiny.build(Session(), {field: value})


def test_variants_of_rate_schedule_and_decay_share_one_program(monkeypatch):
    """Traced once, compiled once, for training and for evaluation; yet the runs differ."""
    for owner, name in ((chunks, 'train_chunk'), (Supervised, 'evaluate')):
        monkeypatch.setattr(owner, name, chex.assert_max_traces(getattr(owner, name), n=1))
    chex.clear_trace_counter()
    variants = [
        {},
        {'optimizer.learning_rate': 0.01},
        {'optimizer.weight_decay': 1e-3},
        {'schedule.name': 'cosine', 'schedule.warmup': '0.1run'},
        {'schedule.name': 'exponential'},
        {'train.seed': 1},
        {'data.redraw': 1},
    ]
    session, losses = Session(), set()
    for variant in variants:
        built = tiny.build(session, variant)
        state, sums = tiny.steps(built, 4)
        losses.add(float(sums[-1]))
    for split in ('validation', 'test'):
        tiny.evaluate(built, state, split)
    assert len(session.programs) == 1
    assert len(losses) == len(variants)


def test_another_shape_is_an_error_not_a_recompilation():
    traced = []
    function = Compiled(parallel.Jit(jax.devices()[:1]), lambda x: traced.append(x.shape) or x + 1)
    clock = Clock()
    assert function(clock, np.float32([1, 2])).tolist() == [2, 3]
    assert function(clock, np.float32([3, 4])).tolist() == [4, 5]
    with pytest.raises(TypeError, match='compiled'):
        function(clock, np.float32([1, 2, 3]))
    assert traced == [(2,)]
    assert clock.seconds['compile'] > 0


@pytest.mark.parametrize('field', ['optimizer.learning_rate', 'optimizer.weight_decay', 'optimizer.clip.max_norm'])
def test_what_the_key_leaves_out_is_in_no_program(field):
    """Runs with one key share what the first of them compiled: such a number may not stand in the text."""
    clip = {'optimizer.clip.name': 'global_norm', 'optimizer.clip.max_norm': 1.0}
    one, other = tiny.config(clip, {field: 0.25}), tiny.config(clip, {field: 0.125})
    assert identity.compile_key(one) == identity.compile_key(other)
    assert jaxpr(one) == jaxpr(other)


@pytest.fixture(scope='module')
def baseline_jaxpr():
    return jaxpr(tiny.config())


@pytest.mark.parametrize(
    'change',
    [
        {'model.widths': (5,)},
        {'model.norm.name': 'virtual_batch'},
        {'optimizer.name': 'adam'},
        {'optimizer.momentum': 0.8},
        {'optimizer.clip.name': 'global_norm', 'optimizer.clip.max_norm': 1.0},
        {'data.batch_size': 64},
        {'data.streaming': True},
        {'task.loss': 'sigmoid'},
        {'train.engine': 'pmap'},
        {'train.matmul_precision': 'highest'},
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_changes_the_program_changes_the_key(change, baseline_jaxpr):
    other = tiny.config(change)
    assert identity.compile_key(other) != identity.compile_key(tiny.config())
    assert jaxpr(other) != baseline_jaxpr


def jaxpr(config):
    """The training program's text, less the addresses of Python objects."""
    built = experiment.build(config, Session(), identity.compile_key(config))
    state = built.init(Clock()) if config['train']['engine'] == 'pmap' else built.program.shapes
    chunk = built.program.chunk(built.phases.at(0, 0)).jitted
    return re.sub('0x[0-9a-f]+', '', str(jax.make_jaxpr(chunk)(state, tiny.chunk(built, 1))))


def test_the_null_variant_changes_the_order_and_nothing_else(session):
    one, null = tiny.build(session), tiny.build(session, {'data.redraw': 1})
    assert one.program is null.program
    assert one.order_seed != null.order_seed
    clock = Clock()
    tiny.assert_same_bits(one.init(clock), null.init(clock))


def test_seeds_differ_in_weights_and_order(session):
    one, other = (tiny.build(session, {'train.seed': seed}) for seed in (0, 1))
    assert one.program is other.program
    clock = Clock()
    kernels = [built.init(clock).params['head']['kernel'] for built in (one, other)]
    assert not (kernels[0] == kernels[1]).any()
    assert one.order_seed != other.order_seed


def test_the_reference_batch_is_training_data_drawn_by_the_seed(session):
    virtual = {'model.norm.name': 'virtual_batch'}
    built = [tiny.build(session, virtual, {'train.seed': seed}) for seed in (0, 1)]
    for one in built:
        images = one.dataset.arrays['image'][one.dataset.splits['train']]
        known = {image.tobytes() for image in images}
        assert one.background.reference['image'].shape == (64, 8, 8, 1)
        assert all(bytes(memoryview(image)) in known for image in jax.device_get(one.background.reference['image']))
    assert (built[0].background.reference['image'] != built[1].background.reference['image']).any()


@pytest.mark.parametrize(
    ('changes', 'blocks'),
    [
        ({'optimizer.average.name': 'ema'}, 20),
        ({'optimizer.name': 'schedule_free_sgd'}, 20),
        ({'optimizer.average.name': 'ema', 'data.reference_size': 1000, 'data.examples': 500}, 1),
        ({'optimizer.average.name': 'ema', 'model.norm': 'none'}, 0),
        ({}, 0),
    ],
    ids=['average', 'schedule_free', 'less_data_than_a_block', 'no_statistics', 'nothing_averaged'],
)
def test_there_are_examples_for_statistics_wherever_other_weights_are_scored(session, changes, blocks):
    assert len(tiny.build(session, changes).background.statistics['image']) == blocks


@pytest.mark.parametrize(
    ('changes', 'refreshed'),
    [
        ({'optimizer.name': 'schedule_free_sgd'}, True),
        pytest.param({'optimizer.average.name': 'ema'}, True, marks=pytest.mark.long),
        pytest.param({'optimizer.average.name': 'ema', 'model.norm': 'none'}, False, marks=pytest.mark.long),
    ],
    ids=['schedule_free', 'average', 'no_statistics'],
)
def test_statistics_are_refreshed_wherever_other_weights_are_scored(session, changes, refreshed):
    built = tiny.build(session, changes)
    state, _ = tiny.steps(built, 3)
    given = built.program.engine.replicate(state), built.data['constants'], built.background
    _, collections = built.program.final(Clock(), *given)
    same = jax.tree.map(lambda new, old: bool((new == old).all()), collections, state.collections)
    assert not any(jax.tree.leaves(same)) if refreshed else all(jax.tree.leaves(same))
