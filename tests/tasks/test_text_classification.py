"""Texts through the main job: what is scored, and a trained model that reads texts."""

import json

import numpy as np
import pytest
import sklearn.metrics

import research.study
from research.data import sources
from research.study import launch

TINY = {
    'task.name': 'text_classification',
    'data.name': 'unicode_names',
    'data.length': 16,
    'data.examples': 640,
    'model.name': 'bert',
    'model.head': 'classification',
    **{f'model.{name}': size for name, size in {'dim': 16, 'depth': 1, 'heads': 2, 'width': 16, 'max_length': 16}.items()},
    'optimizer': {'name': 'adam', 'learning_rate': 0.01},
    'study.budget': '1ep',
    'study.seeds': 1,
    'study.null': False,
    'study.latency': (),
    'train.devices': 1,
}


@pytest.mark.long
def test_a_study_of_texts(tmp_path):
    """From the config to a model that reads texts; the scores are those of its own predictions."""
    lines = [f'    config.update_from_flattened_dict({{{name!r}: {value!r}}})' for name, value in TINY.items()]
    lines = [line for line in lines if 'optimizer' not in line and 'model.' not in line]
    own = {name.removeprefix('model.'): value for name, value in TINY.items() if name.startswith('model.')}
    text = ['from research.config import base', 'def get_config(arg=""):', '    config = base.get_config()', *lines]
    text += [f'    config.model = {own!r}', f'    config.optimizer = {TINY["optimizer"]!r}', '    return config']
    (tmp_path / 'study.py').write_text('\n'.join(text))
    assert launch.launch(str(tmp_path / 'study.py'), str(tmp_path / 'runs'), {}) == 0
    (result,) = (json.loads(path.read_text()) for path in (tmp_path / 'runs').glob('runs/*/result.json'))
    parts = sources.unicode_names('')
    trained = research.study.load(tmp_path / 'runs', 'baseline', 0)
    chances = trained.predict(parts['test']['text'].tolist())
    answers = chances.argmax(1)
    assert result['metrics']['test/accuracy'] == pytest.approx((answers == parts['test']['label']).mean(), abs=1e-9)
    expected = sklearn.metrics.recall_score(parts['test']['label'], answers, average='macro')
    assert result['metrics']['test/balanced_accuracy'] == pytest.approx(expected)
    assert result['metrics']['test/accuracy'] > 0.3  # of the most frequent class alone: 0.40
    (told,) = (json.loads(path.read_text())['texts'] for path in (tmp_path / 'runs').glob('runs/*/examples.json'))
    own = np.where(answers == parts['test']['label'], 1, chances[np.arange(len(answers)), parts['test']['label']])
    assert [text['lines'][0][1][0][1] for text in told] == pytest.approx(np.sort(own)[:8].tolist(), rel=1e-4)
    row = np.argsort(own)[0]
    assert told[0]['text'] == parts['test']['text'][row].lower().replace('-', ' - ')
    assert told[0]['lines'][0][1][0][0] == sources.CLASS_NAMES['unicode_names'][parts['test']['label'][row]]
    assert told[0]['text'] in (tmp_path / 'runs/report.html').read_text()
    assert trained.tokenizer.get_vocab_size() == trained.module.vocabulary_size
