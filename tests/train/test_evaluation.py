"""A whole split is scored alike by a compiled program and by a function of the host."""

import numpy as np
import pytest
import tiny
from scipy import special
from sklearn.metrics import roc_auc_score

from research.train import evaluation, feed, membership
from research.train.clock import Clock
from research.train.program import Session

LINEAR = {'model.name': 'test_plain:Linear'}


def by_numpy(built, params):
    """What scores a linear network in NumPy; NaN behind the batches that hold examples."""
    facts, head = built.dataset.facts, params['head']

    def predict(data, block):
        images, labels = (np.asarray(data['examples'][name])[block.rows] for name in ('image', 'label'))
        x = ((images - facts['mean'][0]) / facts['std'][0]).reshape(*block.rows.shape, -1)
        losses = -special.log_softmax(x @ np.asarray(head['kernel'], np.float64) + np.asarray(head['bias']), axis=-1)
        answer = losses.argmin(-1)
        right = answer == labels
        rows = {'correct': right, 'label': labels, 'answer': answer, 'confidence': np.exp(-losses.min(-1))}
        of_label = np.take_along_axis(losses, labels[..., None], -1)[..., 0]
        sums = {'loss': of_label * block.valid, 'correct': right * block.valid, 'count': block.valid}
        behind = np.where(np.arange(len(block.rows)) < block.batches, 0, np.nan)
        return {name: each.sum(1) + behind for name, each in sums.items()}, rows

    return predict


@pytest.mark.parametrize('split', ['validation', 'test'])
def test_a_function_of_the_host_scores_as_the_program_does(session, split):
    built = tiny.build(session, LINEAR)
    state, _ = tiny.steps(built, 20)
    rows, reading, task = built.dataset.splits[split], feed.Feed(built), built.program.step.task
    variables = built.program.engine.replicate(evaluation.variables_of(state))
    expected, kept = evaluation.Evaluator(built, reading, Clock()).score(variables, split)
    metrics, found = evaluation.score(reading.blocks(rows), by_numpy(built, state.params), task)
    assert metrics['accuracy'] == expected[f'{split}/accuracy'] > 0.5
    assert {f'{split}/{name}': value for name, value in metrics.items()} == pytest.approx(expected, rel=1e-5)
    np.testing.assert_array_equal(found['correct'], kept['correct'])


def test_blocks_add_up_to_the_split(session, monkeypatch):
    """Streamed, in blocks of two batches; nothing compiles."""
    built, task = tiny.build(session, LINEAR), tiny.build(session, LINEAR).program.step.task
    params = {'head': {'kernel': np.random.default_rng(0).normal(size=(64, 10)), 'bias': np.zeros(10)}}
    predict, rows = by_numpy(built, params), built.dataset.splits['test']
    whole, kept = evaluation.score(feed.Feed(built).blocks(rows), predict, task)
    monkeypatch.setattr(feed, '_STREAM_BYTES', 250 * 8 * 8)
    streamed = feed.Feed(tiny.build(Session(), LINEAR, {'data.streaming': True}))
    blocks = list(streamed.blocks(rows))
    assert [(int(block.first), int(block.batches)) for _, block in blocks] == [(0, 2), (200, 2)]
    metrics, found = evaluation.score(blocks, predict, task)
    assert metrics == pytest.approx(whole, rel=1e-12)
    np.testing.assert_array_equal(found['correct'], kept['correct'])


def test_an_empty_split_has_no_score(session):
    assert evaluation.score([], lambda *_: pytest.fail('asked'), None) == ({}, {})


@pytest.mark.parametrize('sizes', [(50, 50), (3, 40), (1, 1)])
def test_membership_is_the_area_under_the_curve_of_scikit_learn(sizes):
    """With ties, which count half."""
    draw = np.random.default_rng(0)
    members, others = draw.integers(0, 12, sizes[0]) / 4, draw.integers(2, 14, sizes[1]) / 4
    labels = np.repeat([1, 0], sizes)
    assert membership.auc(members, others) == pytest.approx(roc_auc_score(labels, -np.concatenate([members, others])))


def test_losses_of_training_and_test_examples_tell_members(session):
    """Of as many training examples as the test split has; a row's loss is its share of the split's."""
    built = tiny.build(session, LINEAR)
    state, _ = tiny.steps(built, 20)
    evaluator = evaluation.Evaluator(built, feed.Feed(built), Clock())
    variables = built.program.engine.replicate(evaluation.variables_of(state))
    metrics, others = evaluator.score(variables, 'test')
    fitted = evaluator.fitted(variables, 'test', others)
    train = built.dataset.splits['train']
    rows = train[np.linspace(0, len(train) - 1, len(built.dataset.splits['test'])).astype(int)]
    _, members = evaluator.score(variables, 'train', rows)
    losses = np.concatenate([members['loss'], others['loss']])
    expected = roc_auc_score(np.repeat([1, 0], len(rows)), -losses)
    assert fitted['fitted/membership_auc'] == pytest.approx(expected) and abs(expected - 0.5) < 0.2
    assert others['loss'].mean() == pytest.approx(metrics['test/loss'], rel=1e-5)
    assert others['loss'].dtype == np.float32
    assert 'fitted/membership_auc' not in evaluator.fitted(variables, 'test', {})
