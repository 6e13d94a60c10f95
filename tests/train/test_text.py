"""Nothing that trains knows what an example is made of: a text task on every road that a batch may take."""

import jax
import numpy as np
import pytest
import text
import tiny

from research import data, tasks
from research.catalogue import ConfigError
from research.train import loop

ROADS = {
    'streamed': {'data.streaming': True},
    'devices_4': {'train.devices': 4},
    'pmap': {'train.engine': 'pmap', 'train.devices': 4},
    'accumulated': {'gradient.micro_batch': 8},
}


@pytest.fixture(scope='module')
def resident(session, tmp_path_factory):
    directory = tmp_path_factory.mktemp('resident')
    built = tiny.build(session, text.CONFIG)
    return tiny.train(built, directory), directory, tiny.steps(built, 20)


def test_it_learns(resident):
    outcome, directory, _ = resident
    assert outcome.status == 'finished'
    assert outcome.metrics['test/accuracy'] > 0.6
    assert tiny.rows(directory)[0]['validation/loss'] > tiny.rows(directory)[-1]['validation/loss']


@pytest.mark.parametrize('road', ROADS)
def test_every_road_leads_to_the_same_numbers(session, resident, tmp_path, road):
    """Bit for bit where the program is the same, within rounding where sums are cut up."""
    outcome, directory, (state, losses) = resident
    built = tiny.build(session, text.CONFIG, ROADS[road])
    other_state, other_losses = tiny.steps(built, 20)
    other = tiny.train(built, tmp_path)
    if road == 'streamed':
        np.testing.assert_array_equal(other_losses, losses)
        tiny.assert_same_bits(other_state, state)
        assert other.metrics == outcome.metrics
    else:
        np.testing.assert_allclose(other_losses, losses, rtol=1e-5)
        assert other.metrics == pytest.approx(outcome.metrics, rel=1e-4)


@pytest.mark.parametrize('road', [{}, ROADS['streamed']], ids=['resident', 'streamed'])
def test_it_goes_on_bit_for_bit(session, resident, tmp_path, monkeypatch, road):
    monkeypatch.setattr(loop, '_CHUNK_SECONDS', 0.0)
    with pytest.raises(loop.Stopped):
        tiny.train(tiny.build(session, text.CONFIG, road), tmp_path, stop_at=26)
    monkeypatch.undo()
    assert tiny.train(tiny.build(session, text.CONFIG, road), tmp_path).metrics == resident[0].metrics
    tiny.assert_same_bits(tiny.scored(tmp_path), tiny.scored(resident[1]))


def test_padding_and_neighbours_change_nothing(session):
    """Rubbish behind a sentence, and other sentences in the batch."""
    step = tiny.build(session, text.CONFIG).program.step
    params = step.init(jax.random.key(0), {'learning_rate': np.float32(1)}, {}).params
    batch = text.load('')['test']
    spoilt = {**batch, 'tokens': np.where(batch['mask'], batch['tokens'], 0)}
    alone = {name: values[:1] for name, values in batch.items()}
    whole, other, first = (step.predict(params, {}, step.task.inputs(b, {})) for b in (batch, spoilt, alone))
    np.testing.assert_array_equal(whole, other)
    np.testing.assert_allclose(whole[:1], first, rtol=1e-6)


def test_several_rows_a_position(session):
    """A sampler may give k rows a position, -1 for none: [B, k, ...], with the field's fill."""
    from research.train import batches, parallel

    dataset = tiny.build(session, text.CONFIG).dataset
    fields = {**dataset.fields, 'tokens': dataset.fields['tokens']._replace(fill=7)}
    rows = np.array([[3, 5], [8, -1]], np.int32)
    engine = parallel.Jit(jax.devices()[:1])
    examples = {name: jax.numpy.asarray(values) for name, values in dataset.arrays.items()}
    batch = batches.training_batch(engine, fields, 1, examples, rows, np.array([0, 40], np.uint32))
    np.testing.assert_array_equal(batch['tokens'][0], dataset.arrays['tokens'][[3, 5]])
    np.testing.assert_array_equal(batch['tokens'][1, 0], dataset.arrays['tokens'][8])
    assert (batch['tokens'][1, 1] == 7).all() and not batch['mask'][1, 1].any()
    assert batch['valid'].tolist() == [1, 1] and batch['position'].tolist() == [[0, 40], [0, 41]]


def drawn(loss, label_smoothing, facts):
    """The text task, of which a token of each sentence is drawn for nothing but to be kept."""
    plain = text.task(loss, label_smoothing, facts)

    def prepare(keys, batch):
        return {**batch, 'drawn': jax.vmap(lambda key: jax.random.randint(key, (), 0, 1000))(keys)}

    return plain._replace(prepare=prepare, rows=lambda outputs, batch: {**plain.rows(outputs, batch), 'drawn': batch['drawn']})


@pytest.mark.parametrize('road', [{}, ROADS['streamed'], {'data.eval_batch_size': 15}], ids=['seed', 'streamed', 'batches'])
def test_draws_of_an_evaluation_belong_to_the_row(session, road):
    """The same for every seed, reader and batch size, and another for each row."""
    one = draws(tiny.build(session, text.CONFIG, {'task.name': 'test_text:drawn'}))
    other = draws(tiny.build(session, text.CONFIG, {'task.name': 'test_text:drawn', 'train.seed': 3}, road))
    np.testing.assert_array_equal(one, other)
    assert len(np.unique(one)) > 50


def draws(built):
    from research.train.clock import Clock
    from research.train.evaluation import score
    from research.train.feed import Feed

    clock, program = Clock(), built.program
    state = program.engine.replicate(built.init(clock))
    variables = tiny.Variables(state.params, state.masks, state.collections)
    blocks = Feed(built).blocks(built.dataset.splits['test'])
    return score(blocks, lambda d, b: program.evaluate(clock, variables, d, program.engine.replicate(b)), program.step.task)[1][
        'drawn'
    ]


def test_a_task_that_reads_what_is_not_there_is_refused(session):
    with pytest.raises(ConfigError, match='reads the fields image, label, and data .* has label, mask, tokens: no image'):
        tiny.build(session, text.CONFIG, {'task.name': 'classification'})


def test_facts_reach_the_task_and_tell_programs_apart(session):
    facts = data.load(tiny.config(text.CONFIG)['data']).facts
    assert facts['classes'] == 3 and sum(facts['counts']) == 192
    group = {'name': 'test_text:told', 'loss': 'softmax', 'label_smoothing': 0.0}
    assert tasks.create(group, facts).fields == ('classes', 'counts')


def told(loss, label_smoothing, facts):
    """A task whose fields are the names of the facts that it got."""
    return text.task(loss, label_smoothing, facts)._replace(fields=tuple(sorted(facts)))
