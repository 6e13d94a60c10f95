"""Translations are learnt, written and scored; a language model goes on with a prompt."""

import json
import re

import numpy as np
import pytest
import sacrebleu
import tiny
from config_file import written
from techniques import translations

import research
from research import data, pretrained
from research.catalogue import ConfigError
from research.config import overrides, signatures
from research.study import launch, verify

LETTERS = 'abcdefghijklmnop'
LINES = {'data.name': 'test_translation:lines', 'data.path': '', 'study.metric': 'test/loss'}


def lines(path):
    return {part: {'text': sides['source']} for part, sides in load(path).items()}


def load(path):
    """Three to eight letters; the target repeats them, or in the other order (`path`)."""
    draw = np.random.default_rng(0)

    def part(count):
        rows = [draw.choice([*LETTERS], draw.integers(3, 9)).tolist() for _ in range(count)]
        sides = {'source': rows, 'target': [row[::-1] if path == 'reverse' else row for row in rows]}
        return {side: [' '.join(row) for row in of_side] for side, of_side in sides.items()}

    return {'train': part(6000), 'test': part(200)}


def own(kind):
    return {
        'data.name': 'test_translation:load',
        'data.path': kind,
        'data.length': 12,
        'data.tokenizer': {'name': 'words', 'min_count': 1},
        'data.batch_size': 64,
        'data.eval_batch_size': 100,
        'data.validation': 200.0,
        'task.name': 'translation',
        'model': {'name': 'transformer', 'dim': 64, 'depth': 2, 'heads': 4, 'width': 128},
        'optimizer': {'name': 'adam', 'learning_rate': 2e-3},
        'train.devices': 1,
        'train.eval_every': '1run',
        'study.metric': 'test/chrf',
        'study.budget': '10ep',
    }


@pytest.mark.long
@pytest.mark.parametrize('kind', ['copy', 'reverse'])
def test_it_is_learnt(session, tmp_path, kind):
    """Of unseen texts 99 % are written without a mistake."""
    built = tiny.build(session, own(kind))
    outcome = tiny.train(built, tmp_path)
    rows, metrics = outcome.kept, outcome.metrics
    meant = built.dataset.arrays['target'][built.dataset.splits['test']][:, 1:]
    right = (rows['written'] == np.where(meant == built.dataset.facts['pad'], built.dataset.facts['eos'], meant)).all(1)
    assert right.mean() >= 0.99 and metrics['test/accuracy'] >= 0.99 and metrics['test/bleu'] > 98


@pytest.mark.parametrize(
    ('changes', 'told'),
    [
        (
            {'model': {'name': 'gpt'}},
            "'translation' calls the network with 2 arrays, source_mask=..., target_mask=..., and 'gpt'",
        ),
        ({'model': {'name': 'bert_tiny'}, 'task.name': 'language_model', **LINES}, "'bert_tiny' cannot write"),
        ({'model': {'name': 'transformer'}, 'task.name': 'language_model', **LINES}, "unexpected keyword argument 'mask'"),
        ({'task.beam_size': 0}, "'task.beam_size' is 0, expected at least 1"),
        (
            {'model.target_vocabulary_size': 6, 'model.share_embeddings': 'none'},
            'writes 6 tokens, and the tokenizer of the targets',
        ),
    ],
)
def test_what_cannot_be_learnt_is_told_before_training(session, changes, told):
    with pytest.raises(ConfigError, match=re.escape(told)):
        config = tiny.config(own('copy'), changes)
        signatures.check(config)
        built = tiny.build(session, own('copy'), changes)
        verify._check_built(built, '', {})


def test_the_metrics_of_a_language_model(session):
    """Bits a byte are of tokens that are bytes."""
    for name in ('bpe', 'words'):
        group = {'data.tokenizer': {'name': name}, 'model': {'name': 'gpt', 'dim': 16, 'depth': 1, 'heads': 2, 'width': 32}}
        built = tiny.build(
            session, {**own('copy'), **LINES, 'task.name': 'language_model', 'study.metric': 'test/loss', **group}
        )
        metrics = built.program.step.metric_names(built.program.shapes)
        assert ('bits_per_byte' in metrics) == (name == 'bpe') and 'perplexity' in metrics


STUDY = """
config.data.update({'name': 'techniques:translations', 'length': 24, 'target_length': 8, 'validation': 100.0, 'batch_size': 64})
config.data.tokenizer = {'name': 'bpe', 'vocabulary_size': 270}
config.data.target_tokenizer = {'name': 'words', 'min_count': 1}
config.task.name = 'translation'
config.model = {'name': 'transformer', 'num_classes': 0, 'init_from': '', 'share_embeddings': 'target'}
config.model.update({'dim': 32, 'depth': 1, 'heads': 2, 'width': 64})
config.optimizer.update({'name': 'adam', 'learning_rate': 0.01})
config.train.devices = 1
config.study.update({'metric': 'test/chrf', 'seeds': 1, 'null': False, 'budget': '12ep'})
"""


@pytest.mark.long
def test_a_study_of_translations(tmp_path):
    """The report shows translations; the trained model, with a vocabulary a side, gives those that were scored."""
    path = written(tmp_path, STUDY)
    assert launch.launch(str(path), str(tmp_path / 'runs'), {}) == 0
    model = research.study.load(tmp_path / 'runs', 'baseline', 0)
    test = translations('')['test']
    said = model.translate(test['source'])
    (result,) = (tmp_path / 'runs').glob('runs/*/result.json')
    metrics = json.loads(result.read_text())['metrics']
    assert metrics['test/chrf'] == pytest.approx(sacrebleu.corpus_chrf(said, [test['target']]).score, abs=0.01)
    assert model.translate(test['source'][:1]) == said[:1]
    ((_, measured),) = json.loads((tmp_path / 'runs/latency.json').read_text()).items()
    assert min(measured[batch]['p50'] for batch in ('1', '64')) > 0
    assert 'Translations, good and bad'.lower() in (tmp_path / 'runs/report.md').read_text()
    config = overrides.apply(overrides.defaults(), {'model.init_from': str(result.parent), 'model.name': 'transformer'})
    assert {name: group['name'] for name, group in pretrained.tokenizers(config).items()} == dict.fromkeys(
        ('tokenizer', 'target_tokenizer'), 'file'
    )
    taught = tiny.config({**own('copy'), 'data.name': 'techniques:translations'})
    taught['data']['targets'] = {'name': 'translated', 'run': f'{tmp_path}/runs:baseline:0'}
    found, rows = data.load(taught['data']), slice(0, 20)
    places = found.splits['train'][rows]
    assert found.sentences['target'][places].tolist() == model.translate(found.sentences['source'][places].tolist())
    with pytest.raises(ConfigError, match="'language_model' goes on with a prompt, and this is of 'translation'"):
        model.generate(['a'])
