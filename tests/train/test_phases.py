"""Runs whose batch, images or layers change on the way: when, over which examples, in how many programs."""

import chex
import jax
import numpy as np
import pytest
import tiny

from research.catalogue import ConfigError
from research.data import order
from research.optim.plateau import START
from research.train import chunks, flops
from research.train.batches import training_batch
from research.train.clock import Clock
from research.train.evaluation import Evaluator
from research.train.feed import Feed
from research.train.phases import Phase, Phases
from research.train.program import Compiled, Session

SMALL = {'model.name': 'techniques:Small'}
SHRINK = {
    **SMALL,
    'data.batch_size': 64,
    'data.batch': {'name': 'shrink', 'patience': 2, 'floor': 16},
    'train.eval_every': '320ex',
}


def scripted(monkeypatch, scores):
    """Validation says what the script says, evaluation by evaluation; the test split is read as it is."""
    score, script = Evaluator.score, iter(scores)

    def told(evaluator, variables, name, *options, **named):
        metrics, kept = score(evaluator, variables, name, *options, **named)
        return ({**metrics, 'validation/accuracy': next(script)} if name == 'validation' else metrics), kept

    monkeypatch.setattr(Evaluator, 'score', told)


def trained_on(monkeypatch):
    """What is trained on: a list of (position, steps, batch size) that fills while a run goes on."""
    seen, chunk = [], Feed.chunk

    def watched(feed, first, position, steps, size, levels):
        if first == 0:
            seen.clear()  # a program's first call comes before the run's first step, and is not trained on
        if first in (0, feed.done):
            seen.append((position, steps, size))
            feed.done = first + steps
        return chunk(feed, first, position, steps, size, levels)

    monkeypatch.setattr(Feed, 'done', 0, raising=False)
    monkeypatch.setattr(Feed, 'chunk', watched)
    return seen


def test_the_batch_shrinks_at_exactly_these_steps(tmp_path, monkeypatch):
    """An evaluation every 320 examples. Two in a row below the best shrink it, a tie is none; at the floor it stays."""
    scripted(monkeypatch, [0.5, 0.5, 0.3, 0.4, 0.6, 0.5, 0.5, 0.5, 0.5, 0.5])
    session = Session()
    traced = chex.assert_max_traces(chunks.train_chunk, n=3)  # 64, 32 and 16: one program a rung
    monkeypatch.setattr(chunks, 'train_chunk', traced)
    chex.clear_trace_counter()
    built = tiny.build(session, SHRINK, {'study.budget': '2560ex'})
    seen = trained_on(monkeypatch)
    tiny.train(built, tmp_path)
    rows = tiny.rows(tmp_path)
    # 5 steps of 64 an evaluation; the fourth one (0.4) is the second below 0.5, the seventh the second below 0.6.
    assert [(row['step'], row['position'], row['batch_size']) for row in rows] == [
        *((5, 320, 64), (10, 640, 64), (15, 960, 64), (20, 1280, 64)),
        *((30, 1600, 32), (40, 1920, 32), (50, 2240, 32)),
        (70, 2560, 16),
    ]
    assert {size for *_, size in seen} == {64, 32, 16}
    taken = np.concatenate([np.arange(p, p + n * size) for p, n, size in seen])
    np.testing.assert_array_equal(np.sort(taken), np.arange(2560))


def test_every_example_of_an_epoch_is_seen_once_over_the_change(session, tmp_path, monkeypatch):
    """Over an epoch of 1,293 examples, in which the size changes twice and never divides what is left."""
    grow = {**SMALL, 'data.batch': {'name': 'grow', 'factor': 1.7, 'milestones': ('300ex', '900ex')}, 'study.budget': '2600ex'}
    seen = trained_on(monkeypatch)
    built = tiny.build(session, grow)
    tiny.train(built, tmp_path)
    assert [size for *_, size in seen][0] == 32 and len({size for *_, size in seen}) == 3
    positions = [np.arange(p, p + n * size) for p, n, size in seen]
    taken = np.concatenate([order.indices(built.order_seed, p[0], p[-1] + 1, 1293) for p in positions])
    assert len(taken) > 1293
    np.testing.assert_array_equal(np.sort(taken[:1293]), np.arange(1293))


def test_the_rate_follows_the_size_and_the_plateau(session, tmp_path, monkeypatch):
    scripted(monkeypatch, [0.5, 0.4, 0.4, 0.4, 0.4, 0.4])
    coupled = {
        **SHRINK,
        'data.batch.coupling': 'linear',
        'schedule': {'name': 'plateau', 'patience': 1, 'factor': 0.1, 'floor': 0.01},
    }
    tiny.train(tiny.build(session, coupled, {'study.budget': '1280ex'}), tmp_path)
    rates = [row['learning_rate'] / 0.0625 for row in tiny.rows(tmp_path)]
    # Told after an evaluation, felt from the next step on: the plateau at the second, the size at the third.
    assert rates == pytest.approx([1, 1, 0.1, 0.01 * 0.5])


def test_an_average_counts_updates_whatever_their_size(session):
    built = tiny.build(session, SMALL, {'data.batch.name': 'grow', 'optimizer.average.name': 'ema'})
    chunk = Feed(built).chunk(first=30, position=30 * 32, steps=3, batch_size=64, levels=START)
    assert chunk.controls['average_weight'][:3] == pytest.approx([9 / 40, 9 / 41, 9 / 42])


@pytest.mark.long
def test_the_reference_batch_is_as_small_as_the_batch(session):
    """Without a share of its own an example is normalized by the reference: these very examples, as by batch normalization."""

    def first_loss(**norm):
        pooled = {'model.name': 'techniques:Pooled', 'model.norm': norm, 'data.examples': 32, 'data.reference_size': 32}
        built = tiny.build(session, pooled, {'augment.resize': {'name': 'progressive', 'multiple': 2}})
        (step, phase), chunk, state = (built.program.step, built.phases.at(0, 0)), tiny.chunk(built, 1), built.init(Clock())
        assert phase.side == 4
        examples, constants = chunk.data['examples'], chunk.data['constants']
        batch = training_batch(step.engine, step.fields, 1, examples, chunk.rows[0], chunk.starts[0])
        reference = step.reference(chunk.reference, constants)
        loss_fn, params, collections = next(step.updates(phase, state, batch, reference, constants, {}))
        return float(jax.jit(loss_fn)(params, collections, batch)[0])

    assert first_loss(name='virtual_batch', example_weight=0.0) == pytest.approx(first_loss(name='batch'), rel=1e-5)


def test_spans_are_what_a_run_does():
    sizes = lambda position: 10 if position < 95 else 30  # noqa: E731
    phases = Phases(lambda position, level: Phase(sizes(position), 1, 0, ()), (95,), ())
    assert [(phase.batch_size, steps) for phase, steps in phases.spans(200)] == [(10, 10), (30, 3)]
    assert [(phase.batch_size, steps) for phase, steps in phases.spans(5)] == [(10, 1)]


def test_flops_of_a_step_are_the_mean_over_the_run(session):
    def of(*changes):
        built = tiny.build(session, *changes)
        return flops.train(built.config, built.dataset, built.batch_size, built.total)[0]

    grown = of({'data.batch': {'name': 'grow', 'milestones': ('0.5run',)}})
    assert of({}) < grown < 2 * of({})
    assert of({'gradient.micro_batch': 8}) == of({})
    assert of({'gradient.name': 'sam'}) == 2 * of({})
    pooled = {'model.name': 'techniques:Pooled'}
    assert of(pooled, {'augment.resize': {'name': 'progressive', 'multiple': 2}}) < 0.9 * of(pooled)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'gradient.micro_batch': 7}, 'micro_batch 7 does not divide a batch of 32'),
        ({'gradient.noise_scale': True}, 'set gradient.micro_batch'),
        ({'augment.resize.name': 'progressive'}, "Model 'cnn' cannot take inputs of side 4"),
        ({'train.engine': 'pmap', 'train.devices': 4, 'gradient.micro_batch': 2}, '4 devices .* 2 examples'),
        ({'data.batch.name': 'grow', 'data.batch.factor': 0.5}, 'a factor above 1'),
        ({'model.name': 'techniques:Pooled', 'train.remat': 'block'}, 'has no blocks'),
        ({'gradient.freeze': {'name': 'progressive', 'share': 0.1}}, 'freezes none of 3 layers'),
        ({'optimizer.rate_multipliers': (('hed/*', 0.1),)}, 'matches no parameter'),
        (
            {'data.batch': {'name': 'grow', 'factor': 10, 'milestones': ('0.9run',)}},
            'to 320 examples where 192 of 1920 are left',
        ),
        (
            {'data.batch.name': 'grow', 'optimizer.average': {'name': 'swa', 'every': '3st'}},
            "every '3st' is shorter than a step",  # of 128 at the last milestone
        ),
    ],
)
def test_what_cannot_be_is_refused_before_anything_compiles(monkeypatch, changes, message):
    monkeypatch.setattr(Compiled, 'prepare', lambda *_: pytest.fail('compiled'))
    with pytest.raises(ConfigError, match=message):
        tiny.build(Session(), changes)


def test_micro_batches_of_a_network_without_batch_statistics_may_be_padded(session):
    """12 into 32: two whole ones and one of 8 with 4 rows of padding; the same path as the whole batch's."""
    (_, losses), (_, expected) = (
        tiny.steps(tiny.build(session, SMALL, more), 10) for more in ({'gradient.micro_batch': 12}, {})
    )
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
