"""Texts for the report: errors by how surprising they are, blanks as they were seen; a trained network fills them."""

import dataclasses
import types

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research import tasks
from research.catalogue import ConfigError
from research.config import overrides
from research.data import arrays, dataset, tokenizer
from research.study import execute, trained
from research.tasks import examples, text_classification
from research.train import record

TEXTS = ['letters of a word', 'some words of another text', 'a text', 'some letters and words', 'and another word of a text']
DATA = {**overrides.defaults()['data'], 'length': 12, 'validation': 0.2, 'tokenizer': {'name': 'words', 'min_count': 1}}


def data(texts=TEXTS, names=(), **changes):
    """The same texts to train and to test, with classes where they have names."""
    parts = {'train': [*texts] * 5, 'test': texts}
    labels = {part: {'label': np.arange(len(of_part)) % 3} if names else {} for part, of_part in parts.items()}
    store = arrays.from_arrays('mine', {part: {'text': of_part, **labels[part]} for part, of_part in parts.items()})
    return dataset.cut(dataclasses.replace(store, class_names=names), {**DATA, **changes})


def test_errors_that_surprise_most_come_first():
    """By the probability of the text's own class; texts that are right, and those behind the first eight, are left out."""
    logits = np.zeros((12, 4), np.float32)
    label = np.arange(12) % 3
    logits[np.arange(12), label] = [-5, -3, 9, -9, -1, 0.5, -2, -4, -6, -7, -8, -2.5]
    logits[:, 3] = 1
    own = data([f'{text} {"a" * (i + 1)}' for i, text in enumerate((TEXTS * 3)[:12])], ('x', 'y', 'z'))
    rows = jax.jit(text_classification.create('softmax', 0.0, {}).rows)(logits, {'label': label})
    told = examples.errors({name: np.asarray(values) for name, values in rows.items()}, own)
    order = [3, 10, 9, 8, 0, 7, 1, 11]
    assert [text['text'] for text in told['texts']] == [f'{(TEXTS * 3)[i]} {"a" * (i + 1)}' for i in order]
    (name, ((said, chance),)), (_, ((answer, most),)) = told['texts'][1]['lines']
    e = np.exp(logits[10])
    assert (name, said, answer) == ('true class', 'y', '3') and told['about'].startswith('Of 11 ')
    np.testing.assert_allclose([chance, most], e[[1, 3]] / e.sum(), rtol=1e-5)
    assert examples.errors({**rows, 'answer': label}, own) == {}
    custom = text_classification.create('optax:softmax_cross_entropy_with_integer_labels', 0.0, {})
    assert examples.errors(custom.rows(jnp.asarray(logits), {'label': label}), own) == {}


def masked(own, rate=0.5):
    """The test split as a network is given it: of each text some tokens are to be found again, most of them hidden."""
    tokens = own.arrays['tokens'][own.splits['test']].copy()
    draw = np.random.default_rng(0)
    usable = tokens > 4
    places = np.argsort(np.where(usable, draw.random(tokens.shape), 2), axis=1)[:, : tokens.shape[1] // 2]
    counts = np.arange(places.shape[1]) < np.maximum(1, rate * usable.sum(1, keepdims=True))
    at = np.arange(len(tokens))[:, None], places
    targets = tokens[at]
    seen = np.where(draw.random(places.shape) < 0.3, draw.integers(5, 20, places.shape), 4)
    tokens[at] = np.where(counts, seen, targets)
    return {'tokens': tokens, 'places': places, 'targets': targets, 'counts': counts.astype(np.float32)}


def test_blanks_are_what_the_network_saw():
    """A network that knows each token fills each blank with what stood there; other tokens are shown as they were replaced."""
    own = data([*TEXTS, 'a [MASK] of words ' * 9], tokenizer={'name': 'bpe'}, length=48)
    task = tasks.create({'name': 'masked_language_model'}, own.facts)
    made, seen = tokenizer.of(own)[0], masked(own)
    sure = 9 * jax.nn.one_hot(seen['targets'], own.facts['vocabulary_size'])
    kept = {field: np.asarray(values) for field, values in task.rows((sure, None), jax.tree.map(jnp.asarray, seen)).items()}
    told = task.examples(kept, own)['texts']
    blank = (np.take_along_axis(seen['tokens'], seen['places'], 1) == 4) & (seen['counts'] > 0)
    rows = seen['tokens'][blank.any(1)]
    assert len(told) == len(rows) > 3 and sum(len(text['lines']) for text in told) > 9
    for text, tokens in zip(told, rows, strict=True):
        shown = made.decode([t for t in tokens.tolist() if t not in (0, 2, 3)], skip_special_tokens=False)
        if text is told[-1]:
            shown = made.decode(np.where(own.arrays['tokens'][-1:][0] == 4, 1, tokens)[1:].tolist(), skip_special_tokens=False)
        for number, (what, said) in enumerate(text['lines'], 1):
            word = what.removeprefix(f'{number}: ')
            assert f'__{number}__' in text['text'] and said[0][0] == word and said[0][1] > 0.9 > said[1][1] and len(said) == 3
            shown = shown.replace('[MASK]', f'__{number}__', 1)
        assert shown.replace(' ', '').startswith(text['text'].removesuffix(' …').replace(' ', ''))
    # The longest ends where what was chosen is not known any more; a `[MASK]` of its own is no blank.
    assert told[-1]['text'].endswith(' …') and 3 <= len(told[-1]['lines']) <= 8 and '[UNK]' in told[-1]['text']


def test_a_run_keeps_what_its_task_tells_and_nothing_of_an_earlier_attempt(tmp_path):
    asked = []
    task = types.SimpleNamespace(examples=lambda kept, own: asked.append(kept) or ({'texts': []} if kept['told'] else {}))
    run = types.SimpleNamespace(program=types.SimpleNamespace(step=types.SimpleNamespace(task=task)), dataset=data())
    for kept, there in (({'told': True}, True), ({'told': False}, False), ({'told': True}, True), ({}, False)):
        outcome = record.Outcome('finished', None, {}, {}, kept, {})
        execute._keep_examples(tmp_path / 'examples.json', run, outcome)
        assert (tmp_path / 'examples.json').exists() == there
    assert {} not in asked  # validation decided, or the run diverged
    (tmp_path / 'examples.json').write_text('{}')
    with pytest.warns(UserWarning, match="no texts of this run: KeyError: 'told'"):  # and the run's result stands
        execute._keep_examples(tmp_path / 'examples.json', run, dataclasses.replace(outcome, kept={'other': True}))
    assert not (tmp_path / 'examples.json').exists()


class Last(nn.Module):
    """Says at each place the number of the token before it, as sure as `sure`; a text that looks at another says 0."""

    vocabulary_size: int = 0
    num_classes: int = 0

    @nn.compact
    def __call__(self, tokens, mask, packed=None, places=None, train=False):
        sure = self.param('sure', nn.initializers.constant(5.0), ())
        said = jnp.roll(tokens, 1, axis=1)
        if packed is not None:
            said *= packed == 1
        return sure * jax.nn.one_hot(jnp.take_along_axis(said, places, axis=1), self.vocabulary_size), None


def model(own, **task):
    config = overrides.apply(overrides.defaults(), {'task.name': 'masked_language_model', 'data.eval_batch_size': 2, **task})
    made = tokenizer.of(own)[0]
    variables = {'params': {'sure': jnp.float32(5)}}
    return trained.Trained(Last(own.facts['vocabulary_size']), variables, config, trained.described(own), made)


@pytest.mark.parametrize(('name', 'pack'), [('words', False), ('words', True), ('bpe', True)])
def test_fill(name, pack):
    """The network's own answer at each blank of each text, in batches of two; byte pairs stand without the space before."""
    own = data(pack=pack, tokenizer={'name': name}, length=20)
    filled = model(own).fill(['some [MASK] of [MASK]', 'a [MASK]', '[MASK] a'], count=2)
    assert [[len(blank) for blank in text] for text in filled] == [[2, 2], [2], [2]]
    best = [[blank[0][0].strip() for blank in text] for text in filled]
    assert best == [['some', 'of'], ['a'], ['[CLS]']]
    size = own.facts['vocabulary_size']
    np.testing.assert_allclose(filled[0][1][0][1], np.exp(5) / (np.exp(5) + size - 1), rtol=1e-5)
    assert filled[0][0][1][1] < 0.1


def test_fill_refuses():
    own = data()
    for texts, message in (
        (['a [MASK]', 'a text'], r'The text at row 1 has no \[MASK\]'),
        (['a ' * 9 + '[MASK] a [MASK]'], r'has 2 \[MASK\], and the network reads its first 12 tokens, which hold 1'),
        (['a [MASK]', 3], 'The text is a int at row 1'),
        ('a [MASK]', 'Expected a list of texts'),
        ([], 'Expected a list of texts'),
    ):
        with pytest.raises(ConfigError, match=message):
            model(own).fill(texts)
    with pytest.raises(ConfigError, match="fills blanks, and this is of 'text_classification'"):
        model(own, **{'task.name': 'text_classification'}).fill(['a [MASK]'])
    with pytest.raises(ConfigError, match='makes no predictions'):
        model(own).predict(['a text'])


def test_texts_with_other_special_tokens_are_filled_and_shown_as_with_berts(tmp_path):
    """Names change nothing; without a token of unknown words a `<mask>` of the text's own is no blank either."""
    texts = [*TEXTS, 'a [MASK] of words']
    own = data(texts, tokenizer={'name': 'bpe'}, length=20)
    named = own.tokenizer
    for ours, theirs in (('PAD', 'pad'), ('CLS', 's'), ('SEP', '/s'), ('MASK', 'mask'), ('UNK', '|not one|')):
        named = named.replace(f'[{ours}]', f'<{theirs}>')
    (tmp_path / 'tokenizer.json').write_text(named)
    given = {'name': 'file', 'path': str(tmp_path)}
    other = data([text.replace('[MASK]', '<mask>') for text in texts], tokenizer=given, length=20)
    assert other.facts['special_tokens'] == (0, None, 2, 3, 4)
    expected, found = model(own).fill(['some [MASK] of', 'a [MASK]'], 1), model(other).fill(['some <mask> of', 'a <mask>'], 1)
    assert found == expected
    with pytest.raises(ConfigError, match='The text at row 0 has no <mask>'):
        model(other).fill(['a [MASK]'])
    task, seen = tasks.create({'name': 'masked_language_model'}, own.facts), masked(own)
    sure = 9 * jax.nn.one_hot(seen['targets'], own.facts['vocabulary_size'])
    kept = {field: np.asarray(values) for field, values in task.rows((sure, None), jax.tree.map(jnp.asarray, seen)).items()}
    told, shown = ([text['text'] for text in task.examples(kept, of)['texts']] for of in (own, other))
    assert [text.replace('[UNK]', '</s>') for text in told] == shown != told


def test_a_text_is_shown_where_one_token_starts_ends_and_pads(tmp_path):
    """It stands between two texts, and is left out at both ends."""
    named = tokenizer.of(data(tokenizer={'name': 'bpe'}))[0].to_str().replace('[SEP]', '<|endoftext|>')
    for ours in ('PAD', 'CLS', 'MASK', 'UNK'):
        named = named.replace(f'[{ours}]', f'<|not {ours}|>')
    (tmp_path / 'tokenizer.json').write_text(named)
    parts = {part: {'text': TEXTS, 'pair': TEXTS[::-1], 'label': np.zeros(5, int)} for part in ('train', 'test')}
    told = {'length': 40, 'validation': 0, 'tokenizer': {'name': 'file', 'path': str(tmp_path)}}
    own = dataset.cut(dataclasses.replace(arrays.from_arrays('mine', parts), class_names=('x', 'y')), {**DATA, **told})
    rows = {'label': np.zeros(5, int), 'answer': np.ones(5, int), 'chances': np.linspace(0.1, 0.5, 10).reshape(5, 2)}
    shown = [text['text'] for text in examples.errors(rows, own)['texts']]
    assert shown == ['<|endoftext|>'.join(pair) for pair in zip(TEXTS, TEXTS[::-1], strict=True)]
