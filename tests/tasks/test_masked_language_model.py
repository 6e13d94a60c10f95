"""Masked tokens: which are chosen, what becomes of them, what is scored; packed rows; pretraining and fine-tuning."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import test_text_classification

from research import models, tasks
from research.catalogue import ConfigError
from research.data import tokenizer
from research.study import launch
from research.tasks import masked_language_model

TEXTS = [
    'letters of a word',
    'some words of another text',
    'a text',
    'of',
    'some letters and words',
    'and another word of a text',
]
SIZES = {'dim': 16, 'depth': 2, 'heads': 2, 'width': 16, 'max_length': 16}


def made(**kwargs):
    """A tokenizer of few pieces, that cuts at 16 tokens."""
    made = tokenizer.create({'name': 'word_piece', 'vocabulary_size': 60}, TEXTS)
    made.enable_truncation(16)
    return made, masked_language_model.create(tokenizer.facts(made), **kwargs)


def rows(count=200, length=16):
    draw = np.random.default_rng(0)
    ends = draw.integers(3, length + 1, count)
    tokens = draw.integers(5, 50, (count, length))
    tokens[:, 0], tokens[np.arange(count), ends - 1] = 2, 3
    mask = np.arange(length) < ends[:, None]
    return {'tokens': jnp.where(mask, tokens, 0), 'mask': jnp.asarray(mask), 'valid': jnp.ones(count)}


def keys(count, seed=0):
    return jax.random.split(jax.random.key(seed), count)


@pytest.mark.parametrize('whole_words', [False, True])
def test_what_is_chosen(whole_words):
    """The share of each text, no padding or special tokens, whole words where asked; of the three fates each its share."""
    _, task = made(rate=0.3, whole_words=whole_words)
    before = rows()
    after = jax.jit(task.prepare)(keys(200), before)
    at = np.arange(200)[:, None], after['places']
    counts = after['counts'] > 0
    usable = np.asarray(before['mask']) & ~np.isin(before['tokens'], range(5))
    chosen = np.zeros_like(usable)
    chosen[at] = counts
    assert (after['targets'] == before['tokens'][at]).all()
    assert not (chosen & ~usable).any() and (np.asarray(after['tokens'] == before['tokens']) | chosen).all()
    wanted = np.maximum(1, np.round(0.3 * usable.sum(1)))
    if whole_words:
        continues = np.array(tokenizer.facts(made()[0])['continues'])[before['tokens']] & usable
        cut = (continues[:, 1:] & usable[:, :-1] & (chosen[:, 1:] != chosen[:, :-1])).any(1)
        assert (chosen.sum(1) <= wanted).all() and not (cut & (chosen.sum(1) < wanted)).any()
    else:
        assert (chosen.sum(1) == np.minimum(wanted, usable.sum(1))).all()
        masked = (after['tokens'][at] == 4) & counts
        stayed = (after['tokens'][at] == after['targets']) & counts
        assert masked.sum() / counts.sum() == pytest.approx(0.8, abs=0.05)
        assert stayed.sum() / counts.sum() == pytest.approx(0.1, abs=0.05)


def test_draws_are_a_rows_own():
    """Whatever stands beside it; another key draws anew."""
    _, task = made()
    prepare = jax.jit(task.prepare)
    whole = prepare(keys(200), rows())
    some = prepare(keys(200)[7:9], {name: values[7:9] for name, values in rows().items()})
    for name, values in some.items():
        np.testing.assert_array_equal(values, whole[name][7:9])
    assert (prepare(keys(200, seed=1), rows())['places'] != whole['places']).any()


def test_sums_and_logits_at_the_places():
    """Those of the chosen tokens of valid rows, from the logits of all places."""
    learnt, task = made()
    batch = dict(jax.jit(task.prepare)(keys(4), rows(4)))
    batch['valid'] = jnp.array([1.0, 1, 0, 1])
    module = models.create('bert', 0, head='pretraining', vocabulary_size=learnt.get_vocab_size(), **SIZES)
    args, kwargs = task.inputs(batch, {})
    variables = jax.jit(module.init)(jax.random.key(0), *args)
    apply = jax.jit(module.apply)
    outputs = apply(variables, *args, **kwargs)
    logits = apply(variables, *args, mask=kwargs['mask'])[0]
    likely = jax.nn.log_softmax(logits)[np.arange(4)[:, None], batch['places'], batch['targets']]
    weights = batch['counts'] * batch['valid'][:, None]
    sums = task.sums(outputs, batch, {})
    np.testing.assert_allclose(sums['loss'], -(likely * weights).sum(), rtol=1e-5)
    np.testing.assert_allclose(task.losses(outputs, batch, {}).sum(), sums['loss'], rtol=1e-6)
    metrics = task.metrics({name: float(value) for name, value in sums.items()})
    assert metrics['loss'] == pytest.approx(float(sums['loss'] / weights.sum()))
    assert metrics['perplexity'] == pytest.approx(np.exp(metrics['loss']))


def test_the_next_sentence():
    """Half of the rows are the other ones, masked as they are; their losses count as often as a row has chosen tokens."""
    _, task = made(next_sentence=True)
    own, half = rows(), (jnp.arange(16) > 1).astype(jnp.int32)
    batch = {**own, 'segments': jnp.tile(half, (200, 1)), 'other_segments': jnp.tile(1 - half, (200, 1))}
    batch |= {f'other_{name}': own[name][::-1] for name in ('tokens', 'mask')}
    after = dict(jax.jit(task.prepare)(keys(200), batch))
    elsewhere = after['elsewhere'] > 0
    assert 70 < elsewhere.sum() < 130
    np.testing.assert_array_equal(after['segments'], jnp.where(elsewhere[:, None], 1 - half, half))
    np.testing.assert_array_equal(after['mask'], jnp.where(elsewhere[:, None], own['mask'][::-1], own['mask']))
    at = np.arange(200)[:, None], after['places']
    np.testing.assert_array_equal(after['targets'], jnp.where(elsewhere[:, None], own['tokens'][::-1][at], own['tokens'][at]))
    after['valid'] = jnp.arange(200) < 150
    draw = np.random.default_rng(1)
    logits, follows = draw.normal(size=(*after['targets'].shape, 60)), draw.normal(size=(200, 2))
    outputs = jnp.asarray(logits), jnp.asarray(follows)
    counts, elsewhere = np.asarray(after['counts'] * after['valid'][:, None]), np.asarray(after['elsewhere'])
    tokens = -np.take_along_axis(scipy.special.log_softmax(logits, -1), np.asarray(after['targets'])[..., None], -1)[..., 0]
    answers = -np.take_along_axis(scipy.special.log_softmax(follows, -1), elsewhere[:, None], -1)[:, 0]
    sums = {name: float(value) for name, value in task.sums(outputs, after, {}).items()}
    metrics = task.metrics(sums)
    assert metrics['loss'] == pytest.approx((tokens * counts).sum() / counts.sum(), rel=1e-5)
    assert metrics['next_sentence_loss'] == pytest.approx(answers[:150].mean(), rel=1e-5)
    right = follows.argmax(1) == elsewhere
    assert metrics['next_sentence_accuracy'] == pytest.approx(right[:150].mean(), rel=1e-5)
    trained = task.train_sums(outputs, after, {})
    mean = (answers * counts.sum(1)).sum() / counts.sum()
    assert float(trained['loss'] / trained['count']) == pytest.approx(metrics['loss'] + mean, rel=1e-5)
    assert float(task.losses(outputs, after, {}).sum()) == pytest.approx(float(trained['loss']), rel=1e-5)
    assert task.metrics({name: float(value) for name, value in trained.items()}) == pytest.approx(metrics, rel=1e-5)
    cut = {**after, 'segments': after['segments'].at[:100].set(0)}
    assert float(task.sums(outputs, cut, {})['next_loss']) == pytest.approx(answers[100:150].sum(), rel=1e-5)


def test_packed_texts():
    """None is cut, rows are full where texts allow, and a network gives each text what it gives it alone."""
    learnt, _ = made()
    long = ' '.join(TEXTS)
    pieces = [piece.ids for text in [*TEXTS, long] for coded in [learnt.encode(text)] for piece in (coded, *coded.overflowing)]
    found, splits = tokenizer.packed(learnt, [*TEXTS, long], {'train': np.arange(4), 'test': np.arange(4, 7)}, 16)
    assert np.concatenate([row[mask] for row, mask in zip(found['tokens'], found['mask'], strict=True)]).tolist() == sum(
        pieces, []
    )
    assert [*splits['train'], *splits['test']] == [*range(len(found['tokens']))] and len(found['tokens']) < len(pieces)
    module = models.create('bert', 0, vocabulary_size=learnt.get_vocab_size(), **SIZES)
    variables = jax.jit(module.init)(jax.random.key(0), found['tokens'])
    apply = jax.jit(module.apply)
    together = apply(variables, found['tokens'], mask=found['mask'], packed=found['packed'])[0]
    together = np.concatenate([row[mask] for row, mask in zip(together, found['mask'], strict=True)])
    tokens = np.array([[*piece, *[0] * (16 - len(piece))] for piece in pieces])
    alone = apply(variables, tokens, mask=tokens > 0)[0][tokens > 0]
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_refused():
    for bad, message in (
        ({'rate': 1.0}, r'task.rate is a share in \(0, 1\)'),
        ({'masked': 0.8, 'replaced': 0.3}, 'add up to 1 at most'),
        ({'loss': 'sigmoid'}, "by task.loss 'softmax'"),
    ):
        with pytest.raises(ConfigError, match=message):
            tasks.create({'name': 'masked_language_model', 'loss': 'softmax', 'label_smoothing': 0.0, **bad}, {})
    with pytest.raises(ConfigError, match="these have a 'label' each"):
        arrays = {'text': np.array(TEXTS), 'label': np.zeros(6)}
        tokenizer.rows(arrays, {'train': np.arange(6)}, {'pack': True, 'tokenizer': {'name': 'word_piece'}, 'length': 16})


@pytest.mark.long
def test_a_pretrained_network_is_fine_tuned(tmp_path):
    """From texts without classes, packed, to classes: the weights bring their tokenizer."""
    (tmp_path / 'words.txt').write_text('\n\n'.join(TEXTS * 40))
    (tmp_path / 'classes.tsv').write_text('text\tlabel\n' + ''.join(f'{text}\t{len(text) > 12}\n' for text in TEXTS * 40))

    def run(name, changes, model):
        changes = {**test_text_classification.TINY, 'data.examples': 0, 'data.name': 'texts', 'data.test': 0.2, **changes}
        fields = [
            f'    config.update_from_flattened_dict({{{k!r}: {v!r}}})'
            for k, v in changes.items()
            if k.partition('.')[0] in ('data', 'study', 'task', 'train')
        ]
        text = [
            'from research.config import base',
            'def get_config(arg=""):',
            '    config = base.get_config()',
            *fields,
            f'    config.model = {model!r}',
            '    config.optimizer = {"name": "adam", "learning_rate": 0.01}',
            '    return config',
        ]
        (tmp_path / f'{name}.py').write_text('\n'.join(text))
        assert launch.launch(str(tmp_path / f'{name}.py'), str(tmp_path / name), {}) == 0
        (folder,) = (tmp_path / name / 'runs').iterdir()
        return json.loads((folder / 'result.json').read_text())['metrics'], (folder / 'tokenizer.json').read_text()

    own = {'name': 'bert', 'num_classes': 0, 'init_from': '', **SIZES}
    changes = {
        'task.name': 'masked_language_model',
        'data.path': f'{tmp_path}/words.txt',
        'data.pack': True,
        'study.budget': '30ep',
    }
    metrics, theirs = run(
        'pretrain', changes | {'study.metric': 'test/loss', 'study.higher_is_better': False}, own | {'head': 'pretraining'}
    )
    assert metrics['test/loss'] < 2.5  # of the vocabulary at random: ln 60 = 4.1
    (told,) = (tmp_path / 'pretrain').glob('runs/*/examples.json')
    blanks = [
        (name.split(': ')[1], said[0][0]) for text in json.loads(told.read_text())['texts'] for name, said in text['lines']
    ]
    assert len(blanks) > 8 and np.mean([word == guess for word, guess in blanks]) > 0.3
    changes = {'data.path': f'{tmp_path}/classes.tsv', 'data.tokenizer.name': 'bpe', 'study.budget': '3ep'}
    start = {'init_from': f'{tmp_path}/pretrain:baseline:0', 'head': 'classification'}
    metrics, ours = run('tune', changes, own | start)
    assert metrics['test/accuracy'] > 0.9 and json.loads(ours)['model'] == json.loads(theirs)['model']
