"""Regression, tagging and answers from texts are learnt, on one's own arrays and by a network of one's own."""

import functools
import json

import flax.linen as nn
import jax
import numpy as np
import pytest
import tiny

from research.catalogue import ConfigError
from research.study import verify

LENGTH = 9
TASKS = {'text_regression': (1, 'spearman', 0.8), 'tagging': (3, 'f1_macro', 0.9), 'question_answering': (2, 'f1', 0.8)}


def load(path):
    """The label is how many tokens are small, a token's tag its third, an answer the places of the tokens from 9 on."""
    del path
    draw = np.random.default_rng(0)

    def part(count):
        mask = np.arange(LENGTH) < draw.integers(3, LENGTH + 1, (count, 1))
        tokens = np.where(mask, draw.integers(1, 9, mask.shape), 0)
        start = draw.integers(1, 3, count)
        end = start + draw.integers(0, 2, count)
        places = np.arange(LENGTH)
        inside = (places >= start[:, None]) & (places <= end[:, None]) & mask
        tokens = np.where(inside, tokens % 3 + 9, tokens) * (places > 0)
        tags = np.where(mask & (places > 0), tokens % 3, -1)
        label = ((tokens < 5) & mask).mean(1)
        return {'tokens': tokens, 'mask': mask, 'label': label, 'tags': tags, 'start': start, 'end': inside.sum(1) + start - 1}

    return {'train': part(256), 'test': part(64)}


class Each(nn.Module):
    """A vector of each token and its neighbours to what a task reads."""

    num_classes: int
    pooled: bool = False

    @nn.compact
    def __call__(self, tokens, mask, train=False):
        x = nn.Embed(12, 8)(tokens) * mask[..., None]
        x = nn.relu(nn.Conv(16, (3,))(x)) * mask[..., None]
        return nn.Dense(self.num_classes, name='head')(x.mean(1) if self.pooled else x)


def own(name):
    return {
        'data.name': 'test_token_training:load',
        'data.validation': 0.2,
        'data.batch_size': 16,
        'task.name': name,
        'task.loss': 'squared' if name == 'text_regression' else 'softmax',
        'model.name': 'test_token_training:Each',
        'model.pooled': name == 'text_regression',
        'study.metric': 'test/loss',
        'study.higher_is_better': False,
        'optimizer': {'name': 'adam', 'learning_rate': 0.02},
        'train.devices': 1,
        'train.eval_every': '50st',
        'study.budget': '150st',
    }


def test_fewer_outputs_than_tags_are_refused(session):
    built = tiny.build(session, own('tagging'), {'model.num_classes': 2})
    with pytest.raises(ConfigError, match="'model.num_classes' is 2, but the data has 3"):
        verify._check_built(built, '', {})


@pytest.mark.long
@pytest.mark.parametrize('name', TASKS)
def test_it_is_learnt(session, name, tmp_path):
    """K comes from the data or the task."""
    outputs, metric, least = TASKS[name]
    built = tiny.build(session, own(name))
    outcome = tiny.train(built, tmp_path)
    assert built.num_classes == outputs
    assert outcome.status == 'finished' and outcome.metrics[f'test/{metric}'] > least, outcome.metrics


@pytest.mark.parametrize('name', ['tagging', pytest.param('question_answering', marks=pytest.mark.long)])
def test_files_of_words_and_of_answers_are_learnt(session, name, tmp_path):
    """A tag is told by its word; the answer is the word behind 'is'. K comes from the files."""
    draw = np.random.default_rng(0)
    lines = []
    for _ in range(200):
        words = draw.choice([*'abc'], draw.integers(2, 6)).tolist()
        context = ' '.join(['is', *words, 'b'])
        answers = {'text': words[:1], 'answer_start': [3]}
        lines.append(
            {'words': words, 'tags': [f'of_{word}' for word in words], 'q': 'a', 'context': context, 'answers': answers}
        )
    (tmp_path / 'all.jsonl').write_text('\n'.join(map(json.dumps, lines)))
    files = {'data.name': 'texts', 'data.path': str(tmp_path / 'all.jsonl'), 'data.test': 0.2, 'data.length': 12}
    columns = ('words', '', 'tags') if name == 'tagging' else ('q', 'context', 'answers')
    files |= {f'data.{field}': column for field, column in zip(('text', 'pair', 'label'), columns, strict=True)}
    network = {'model.name': 'gru', 'model.head': 'tagging', 'model.dim': 8, 'model.width': 8}
    base = {key: value for key, value in own(name).items() if not key.startswith('model.')}
    built = tiny.build(session, base, files, network)
    outcome = tiny.train(built, tmp_path / 'run')
    assert built.num_classes == {'tagging': 3, 'question_answering': 2}[name]
    metric = {'tagging': 'accuracy', 'question_answering': 'exact_match'}[name]
    assert outcome.metrics[f'test/{metric}'] > 0.95, outcome.metrics


@pytest.mark.long
def test_micro_batches_are_the_batch_whatever_counts_in_them(session):
    """Rows of other numbers of tags weigh the same: fails where losses are means of means."""
    whole, parts = (tiny.steps(tiny.build(session, own('tagging'), {'gradient.micro_batch': size}), 3) for size in (0, 4))
    np.testing.assert_allclose(parts[1], whole[1], rtol=1e-5)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6), parts[0].params, whole[0].params)
