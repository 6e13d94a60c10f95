"""Augmentation of tokens, against NumPy with the same draws, and what every draw must leave."""

import functools
import zlib

import jax
import numpy as np
import pytest

from research import augment, data
from research.catalogue import ConfigError
from research.config import overrides
from research.data import tokenizer

# As in a file that was not trained here: [PAD], [UNK], [CLS], [SEP], [MASK] anywhere.
PAD, UNKNOWN, START, END, MASK = SPECIAL = (7, 3, 9, 1, 5)
NAMES = ('token_mask', 'token_dropout', 'token_swap', 'span_deletion')
B, T = 60, 16
ORDINARY = np.array([token for token in range(40) if token not in (PAD, START, END)])


def texts(seed=0):
    """B pairs of texts: [CLS] some [SEP] some [SEP], of 3 to 16 tokens."""
    draw = np.random.default_rng(seed)
    lengths = draw.integers(3, T + 1, B)
    lengths[:2] = 3, T
    middle = np.array([draw.integers(1, n - 1) for n in lengths])
    places = np.arange(T)
    tokens = ORDINARY[draw.integers(0, len(ORDINARY), (B, T))]
    tokens[(places == middle[:, None]) | (places == lengths[:, None] - 1)] = END
    tokens[:, 0] = START
    mask = places < lengths[:, None]
    segments = (mask & (places > middle[:, None])).astype(np.int32)
    return {
        'tokens': np.where(mask, tokens, PAD).astype(np.int32),
        'segments': segments,
        'mask': mask,
        'label': np.arange(B, dtype=np.int32),
    }


KEYS = jax.random.split(jax.random.key(0), B)


def keys(name):
    """What an augmentation in a list draws with."""
    return jax.vmap(lambda key: jax.random.fold_in(key, zlib.crc32(name.encode())))(KEYS)


def uniform(name):
    return np.array(jax.vmap(lambda key: jax.random.uniform(key, (T,)))(keys(name)))


@functools.cache
def function(name, share):
    return augment.create({'names': (name,), name: {'share': share}}, {'special_tokens': SPECIAL})


def augmented(name, share, batch=None):
    return {f: np.asarray(a) for f, a in jax.jit(function(name, share))(KEYS, texts() if batch is None else batch).items()}


def ordinary(batch):
    return batch['mask'] & ~np.isin(batch['tokens'], [PAD, START, END])


@pytest.mark.parametrize(('name', 'share', 'special'), [('token_mask', 0.3, MASK), ('token_dropout', 0.3, UNKNOWN)])
def test_a_share_is_replaced_by_the_special_token(name, share, special):
    batch, found = texts(), augmented(name, share)
    drawn = (share > uniform(name)) & ordinary(batch)
    np.testing.assert_array_equal(found['tokens'], np.where(drawn, special, batch['tokens']))


def test_neighbours_are_swapped_pair_by_pair():
    """Fails where pairs overlap, a special token moves, or one parity alone is drawn."""
    batch, found = texts(), augmented('token_swap', 0.4)
    odds = np.array(jax.vmap(lambda key: jax.random.bernoulli(jax.random.fold_in(key, 1)))(keys('token_swap'))).astype(int)
    for row, may, drawn, odd, after in zip(
        batch['tokens'], ordinary(batch), uniform('token_swap') < 0.4, odds, found['tokens'], strict=True
    ):
        row = row.copy()
        for t in range(odd, T - 1, 2):
            if drawn[t] and may[t] and may[t + 1]:
                row[[t, t + 1]] = row[[t + 1, t]]
        np.testing.assert_array_equal(after, row)
    assert 0 < np.mean(odds) < 1
    np.testing.assert_array_equal(np.sort(found['tokens']), np.sort(batch['tokens']))
    assert (found['mask'] == batch['mask']).all() and (found['segments'] == batch['segments']).all()


@pytest.mark.parametrize('share', [0.3, 1.0])
def test_a_span_is_cut_out_and_the_rest_closes_up(share):
    batch, found = texts(), augmented('span_deletion', share)
    counts = ordinary(batch).sum(1)
    lengths = np.round(np.float32(share) * counts.astype(np.float32)).astype(int)
    starts = jax.vmap(lambda key, ends: jax.random.randint(key, (), 0, ends))(
        keys('span_deletion'), counts - lengths + 1
    ).tolist()
    for i, (length, start) in enumerate(zip(lengths, starts, strict=True)):
        places = np.flatnonzero(ordinary(batch)[i])
        kept = np.setdiff1d(np.arange(T), places[start : start + length])
        for field, fill in (('tokens', PAD), ('segments', 0), ('mask', False)):
            np.testing.assert_array_equal(found[field][i], np.append(batch[field][i][kept], [fill] * length), field)
        assert found['mask'][i].sum() == batch['mask'][i].sum() - length
    assert len(set(starts)) > 3 or share == 1


@pytest.mark.parametrize('name', NAMES)
def test_what_no_draw_may_change(name):
    """Nothing at a share of 0; special tokens at any; no row by another row."""
    batch = texts()
    for field, values in augmented(name, 0.0).items():
        np.testing.assert_array_equal(values, batch[field])
    found = augmented(name, 1.0)
    assert (found['tokens'] != batch['tokens']).any(1).mean() > 0.4
    for special in (START, END):
        np.testing.assert_array_equal((found['tokens'] == special).sum(1), (batch['tokens'] == special).sum(1))
    assert (found['tokens'][:, 0] == START).all() and (found['label'] == batch['label']).all()
    np.testing.assert_array_equal(found['tokens'] == PAD, ~found['mask'])
    assert all(found[field].dtype == batch[field].dtype for field in batch)
    alone = jax.jit(function(name, 1.0))(KEYS[5:9], {field: values[5:9] for field, values in batch.items()})
    np.testing.assert_array_equal(alone['tokens'], found['tokens'][5:9])


def test_what_cannot_be_augmented_is_refused():
    with pytest.raises(ConfigError, match='only data with texts have a tokenizer'):
        augment.create({'names': ('token_mask',)}, {})(KEYS, texts())
    for name in NAMES:
        with pytest.raises(ConfigError, match='which tells them from next'):
            augmented(name, 0.1, {**texts(), 'other_tokens': texts()['tokens']})
    for name, refused in zip(NAMES, (False, False, True, True), strict=True):
        tagged = {**texts(), 'tags': np.zeros((B, T), np.int32)}
        if refused:
            with pytest.raises(ConfigError, match="leaves the field 'tags' where it was"):
                augmented(name, 0.1, tagged)
        else:
            assert not augmented(name, 0.1, tagged)['tags'].any()


@pytest.mark.parametrize('name', [*NAMES, 'flip_horizontal'])
def test_sentence_pairs_are_refused_without_recommending_what_is_refused_too(name):
    batch = {field: texts()['tokens'] for field in ('source', 'target')}
    with pytest.raises(ConfigError, match=r'[sS]et augment\.names to \(\), or write') as raised:
        augment.create({'names': (name,)}, {'special_tokens': SPECIAL})(KEYS, {**batch, 'valid': KEYS, 'position': KEYS})
    assert 'token_mask' not in str(raised.value)
    with pytest.raises(ConfigError, match=r'choose one for these \(.*token_mask.*\), or write'):
        augment.create({'names': ('flip_horizontal',)}, {})(KEYS, texts())


def test_special_tokens_are_known_of_any_tokenizer(tmp_path, monkeypatch):
    """Of a file, they stand where it has them."""
    (tmp_path / 'vocab.txt').write_text('\n'.join(['one', *tokenizer.SPECIAL[::-1], 'two']))
    parts = {part: {'text': ['one two', 'two'], 'label': np.array([0, 1])} for part in ('train', 'test')}
    monkeypatch.setattr('test_tokens.load', lambda path: parts, raising=False)
    changes = {'data.name': 'test_tokens:load', 'data.validation': 0, 'data.length': 5}
    files = {'data.tokenizer.name': 'file', 'data.tokenizer.path': str(tmp_path)}
    own, given = (data.load(overrides.apply(overrides.defaults(), c)['data']).facts for c in (changes, changes | files))
    assert own['special_tokens'] == (0, 1, 2, 3, 4) and given['special_tokens'] == (5, 4, 3, 2, 1)
