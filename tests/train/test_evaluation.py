"""A whole split is scored alike by a compiled program and by a function of the host."""

import numpy as np
import pytest
import tiny
from scipy import special

from research.train import evaluation, feed
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
