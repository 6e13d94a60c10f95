"""Techniques together: each alone on every engine, several at once on every engine, and stopped and gone on with."""

import itertools

import numpy as np
import pytest
import tiny
from sessions import cleared
from techniques import TECHNIQUES, one_a_field

from research.train import loop

STEPS = 8
JIT_4 = {'train.engine': 'jit', 'train.devices': 4}
PMAP_4 = {'train.engine': 'pmap', 'train.devices': 4}
# What devices can share evenly, where a technique says nothing else.
EVEN = {'data.examples': 1280}

COMBINATIONS = {
    'accumulated, clipped, averaged, dropped out': {
        'gradient.micro_batch': 8,
        'optimizer.clip': {'name': 'global_norm', 'max_norm': 1.0},
        'optimizer.average.name': 'ema',
        'model.dropout': 0.2,
        'schedule.name': 'cosine',
    },
    'sharpness-aware on a virtual batch norm, accumulated': {
        'gradient.name': 'sam',
        'gradient.micro_batch': 16,
        'model.norm.name': 'virtual_batch',
        'task.label_smoothing': 0.1,
        'optimizer.weight_decay': 1e-3,
    },
    'selected, accumulated, ghost norm, averaged late': {
        'gradient.name': 'selective_backprop',
        'gradient.micro_batch': 16,
        'model.norm': {'name': 'ghost_batch', 'virtual_batch_size': 4},
        'optimizer.average': {'name': 'swa', 'start': '0.5run', 'every': '5st'},
        'optimizer.clip': {'name': 'adaptive', 'clipping': 0.1},
    },
    'float16, accumulated, averaged, noise measured': {
        'train.precision': 'float16',
        'gradient.micro_batch': 8,
        'gradient.noise_scale': True,
        'optimizer.average.name': 'ema',
        'optimizer.name': 'adam',
        'optimizer.learning_rate': 0.01,
    },
    'batch grows, layers freeze, rates differ': {
        'data.batch': {'name': 'grow', 'milestones': ('0.3run', '0.6run'), 'coupling': 'sqrt'},
        'gradient.freeze': {'name': 'progressive', 'start': '0.5run', 'share': 0.9, 'levels': 1},
        'gradient.micro_batch': 16,
        'optimizer.rate_multipliers': (('head/*', 0.5),),
        'model.dropout': 0.1,
        'model.norm.name': 'virtual_batch',
    },
    'batch shrinks and rate falls, streamed': {
        'data.batch_size': 64,
        'data.batch': {'name': 'shrink', 'patience': 1, 'floor': 8, 'coupling': 'linear'},
        'schedule': {'name': 'plateau', 'patience': 1},
        'data.streaming': True,
        'train.eval_every': '3st',
        'model.norm.name': 'virtual_batch',
    },
    'batch shrinks by a quarter, selected, clipped but for the head': {
        'data.batch': {'name': 'shrink', 'patience': 1, 'factor': 0.75, 'floor': 24, 'coupling': 'sqrt'},
        'gradient.name': 'selective_backprop',
        'gradient.keep': 0.3,
        'model.norm.name': 'virtual_batch',  # batch statistics would have the rows that make shares even
        'optimizer.clip': {'name': 'adaptive', 'clipping': 0.1, 'exclude': ('head/*',)},
        'schedule': {'name': 'one_cycle', 'warmup': '0.1run'},
        'train.eval_every': '6st',
    },
    'private, accumulated, averaged, dropped out': {
        'gradient': {'name': 'dp_sgd', 'epsilon': 8.0, 'clip_norm': 0.5, 'micro_batch': 8},
        'data.sampling.name': 'without_replacement',
        'model.norm': {'name': 'group', 'num_groups': 2},
        'model.dropout': 0.2,
        'optimizer.average.name': 'ema',
        'optimizer.name': 'adam',
        'optimizer.learning_rate': 0.01,
    },
    'translations, packed, accumulated, dropped out, averaged, written by a beam': {
        'data.name': 'techniques:translations',
        'data.length': 20,
        'data.pack': True,
        'data.tokenizer': {'name': 'words', 'min_count': 1},
        'task': {'name': 'translation', 'label_smoothing': 0.1, 'written': 'evaluations', 'beam_size': 2},
        'model': {'name': 'transformer', 'dim': 16, 'depth': 1, 'heads': 2, 'width': 32},
        'gradient.micro_batch': 8,
        'optimizer.average.name': 'ema',
        'optimizer.name': 'adam',
        'optimizer.learning_rate': 0.01,
        'study.metric': 'test/chrf',
    },
    'images grow, sharpness-aware, accumulated': {
        'model.name': 'techniques:Pooled',
        'augment.resize': {'name': 'progressive', 'multiple': 2, 'until': '0.5run'},
        'gradient.name': 'sam',
        'gradient.micro_batch': 16,
        'optimizer.name': 'adamw',
        'optimizer.learning_rate': 0.01,
        'optimizer.weight_decay': 1e-3,
    },
}


@pytest.fixture
def session():
    with cleared() as session:
        yield session


@pytest.mark.long
@pytest.mark.parametrize('technique', one_a_field([t for t in TECHNIQUES if t.name != 'pmap']), ids=lambda t: t.name)
def test_every_technique_is_the_same_on_every_engine(session, technique):
    one, *four = (losses(session, technique.setting, engine) for engine in ({}, JIT_4, PMAP_4))
    for other in four:
        np.testing.assert_allclose(other, one, rtol=tolerance(technique.setting))


@pytest.mark.long
@pytest.mark.parametrize('combination', COMBINATIONS.values(), ids=COMBINATIONS)
def test_combinations_are_the_same_on_every_engine(session, combination):
    one, *four = (losses(session, combination, engine) for engine in ({}, JIT_4, PMAP_4))
    for other in four:
        np.testing.assert_allclose(other, one, rtol=tolerance(combination))


def losses(session, *changes):
    return tiny.steps(tiny.build(session, *changes, EVEN), STEPS)[1]


def tolerance(changes):
    """Sums of 16-bit products depend on how rows are shared."""
    return 1e-4 if changes.get('train.precision', 'float32') == 'float32' else 2e-2


@pytest.mark.long
@pytest.mark.parametrize(
    ('combination', 'engine'), [*zip(COMBINATIONS.values(), itertools.cycle([{}, PMAP_4]), strict=False)], ids=COMBINATIONS
)
def test_combinations_go_on_bit_for_bit(session, tmp_path, monkeypatch, combination, engine):
    built = tiny.build(session, combination, engine, EVEN)
    whole = tiny.train(built, tmp_path / 'whole')
    monkeypatch.setattr(loop, '_CHUNK_SECONDS', 0.0)
    for stop_at in (3, 11):
        with pytest.raises(loop.Stopped):
            tiny.train(built, tmp_path / 'stopped', stop_at=stop_at)
    monkeypatch.undo()
    resumed = tiny.train(built, tmp_path / 'stopped')
    assert whole.status == 'finished'
    assert resumed.metrics == whole.metrics
    assert resumed.observed == whole.observed
    assert resumed.cost.get('epsilon') == whole.cost.get('epsilon')
    assert tiny.rows(tmp_path / 'stopped') == tiny.rows(tmp_path / 'whole')
    tiny.assert_same_bits(tiny.scored(tmp_path / 'stopped'), tiny.scored(tmp_path / 'whole'))
