"""What a config comes to: how long a run is, what it shares with others, and what is refused before anything compiles."""

import chex
import jax
import pytest
import tiny
from techniques import BASELINE

from research.catalogue import ConfigError
from research.optim import optimizers
from research.study import identity, overrides, plan
from research.train import experiment, step
from research.train.experiment import Session

EPOCH = 1294  # digits: 1,797 less 360 of test, less a tenth for validation


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
    built = tiny.build(session, {'model.widths': model, 'study.budget': budget})
    one, _ = experiment.train_flops(built.config, built.dataset)
    assert built.steps > 3
    assert built.steps * one <= float(budget.removesuffix('flops')) < (built.steps + 1) * one


@pytest.mark.parametrize('budget', ['20', '', '5e', '-3st', '0st', '0.01st', '0.5run', '5 epochs', '5eps', 'flops'])
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
    assert experiment.checkpoint_every(tiny.config({'train.checkpoint_every': every}), EPOCH, 1920) == expected


@pytest.mark.parametrize(
    ('field', 'value', 'message'),
    [
        ('train.checkpoint_every', '60', 'no duration'),
        ('train.checkpoint_every', '1min', 'no duration'),
        ('train.eval_every', 'often', 'no duration'),
        ('schedule.warmup', '2run', 'longer than the run'),
        ('data.batch_size', 0, 'at least 1'),
        ('data.eval_batch_size', -1, 'at least 1'),
        ('data.name', 'digitz', "Did you mean 'digits'"),
        ('model.name', 'cnm', "Did you mean 'cnn'"),
        ('model.width', 4, "Did you mean 'widths'"),
        ('model.norm.name', 'bach', "Did you mean 'batch'"),
        ('optimizer.name', 'adaam', "Did you mean 'adam'"),
        ('optimizer.clip.name', 'global', "Did you mean 'global_norm'"),
        ('augment.name', 'nothing', 'Unknown augmentation'),
        ('compress.name', 'nothing', 'Unknown compression'),
        ('gradient.name', 'plane', "Did you mean 'plain'"),
        ('task.name', 'clasification', "Did you mean 'classification'"),
        ('task.loss', 'hinge', 'Unknown loss'),
    ],
)
def test_a_bad_value_is_refused_before_anything_compiles(monkeypatch, field, value, message):
    monkeypatch.setattr(experiment.Compiled, 'prepare', lambda *_: pytest.fail('compiled'))
    with pytest.raises(ConfigError, match=message):
        tiny.build(Session(), {field: value})


def test_variants_of_rate_schedule_and_decay_share_one_program(monkeypatch):
    """30 variants over 10 seeds: traced once, compiled once, for training and for evaluation."""
    once = {name: chex.assert_max_traces(getattr(step, name), n=1) for name in ('train_chunk', 'evaluate')}
    for name, function in once.items():
        monkeypatch.setattr(step, name, function)
    chex.clear_trace_counter()
    schedules = ({}, {'schedule.name': 'cosine', 'schedule.warmup': '0.1run'}, {'schedule.name': 'exponential'})
    variants = [
        {'optimizer.learning_rate': rate, 'optimizer.weight_decay': decay, **schedule}
        for rate in (0.001, 0.01, 0.03, 0.1, 0.3)
        for decay in (0.0, 1e-3)
        for schedule in schedules
    ]
    assert len(variants) == 30
    session, losses = Session(), set()
    for seed in range(10):
        for variant in variants:
            built = tiny.build(session, {**variant, 'train.seed': seed})
            state, sums = tiny.steps(built, 4)
            losses.add(float(sums[-1]))
        tiny.evaluate(built, state, 'validation')
        tiny.evaluate(built, state, 'test')
    assert len(session.programs) == 1
    assert len(losses) > 250  # yet the runs differ


def test_a_program_is_never_compiled_for_another_shape(session):
    """A shape that changes in the middle of a run is an error, not a silent recompilation."""
    built = tiny.build(session)
    state, _ = tiny.steps(built, 1)
    with pytest.raises(TypeError, match='compiled'):
        built.program.refresh = experiment.Compiled(built.program.engine, jax.numpy.sum)
        clock = experiment.Clock()
        built.program.refresh(clock, jax.numpy.zeros(3))
        built.program.refresh(clock, jax.numpy.zeros(4))


@pytest.mark.parametrize('field', ['optimizer.learning_rate', 'optimizer.weight_decay', 'optimizer.clip.max_norm'])
def test_what_the_key_leaves_out_is_traced(field):
    """Equal keys mean equal programs, so each of these must be data: set in the state, and nowhere in the text."""
    base = {'optimizer.clip.name': 'global_norm', 'optimizer.clip.max_norm': 1.0}
    one, other = tiny.config(base, {field: 0.25}), tiny.config(base, {field: 0.125})
    assert identity.compile_key(one) == identity.compile_key(other)
    assert optimizers.hyperparameters(one)[field.rpartition('.')[2]] == 0.25
    texts = {jaxpr(config) for config in (one, other)}
    assert len(texts) == 1


def jaxpr(config):
    built = experiment.build(config, Session(), identity.compile_key(config))
    arguments = built.program.shapes, *experiments_arguments(built)
    return str(jax.make_jaxpr(built.program.chunk.jitted)(*arguments))


def experiments_arguments(built):
    from research.train.feed import Feed

    return Feed(built).chunk(0, 1)


@pytest.mark.parametrize(
    'field', ['model.widths', 'optimizer.name', 'data.batch_size', 'train.engine', 'data.streaming', 'task.loss']
)
def test_what_changes_the_program_changes_the_key(field):
    value = {
        'model.widths': (5,),
        'optimizer.name': 'adam',
        'data.batch_size': 64,
        'train.engine': 'pmap',
        'data.streaming': True,
        'task.loss': 'sigmoid',
    }[field]
    assert identity.compile_key(tiny.config({field: value})) != identity.compile_key(tiny.config())


def test_the_null_variant_changes_the_order_and_nothing_else(session):
    one, null = tiny.build(session), tiny.build(session, {'data.redraw': 1})
    assert one.program is null.program
    assert one.order_seed != null.order_seed
    clock = experiment.Clock()
    tiny.assert_same_bits(one.init(clock), null.init(clock))


def test_seeds_differ_in_weights_and_order(session):
    one, other = (tiny.build(session, {'train.seed': seed}) for seed in (0, 1))
    assert one.program is other.program
    clock = experiment.Clock()
    kernels = [built.init(clock).params['head']['kernel'] for built in (one, other)]
    assert not (kernels[0] == kernels[1]).any()
    assert one.order_seed != other.order_seed


def test_the_reference_batch_is_training_data_drawn_by_the_seed(session):
    virtual = {'model.norm.name': 'virtual_batch'}
    built = [tiny.build(session, virtual, {'train.seed': seed}) for seed in (0, 1)]
    for one in built:
        images = one.dataset.resident()['image'][one.dataset.splits['train']]
        known = {image.tobytes() for image in images}
        assert one.reference.shape == (64, 8, 8, 1)
        assert all(bytes(memoryview(image)) in known for image in jax.device_get(one.reference))
    assert (built[0].reference != built[1].reference).any()
