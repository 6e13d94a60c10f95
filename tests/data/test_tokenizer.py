"""Tokenizers: what they learn from, how they frame texts, and that everything finds its way back."""

import numpy as np
import pytest

from research import data
from research.catalogue import ConfigError
from research.config import overrides
from research.data import sources, tokenizer

TEXTS = ['The quick brown fox.', 'A lazy dog, and a fox!', 'Quick quick brown dogs'] * 3


NAMES = sources.unicode_names('')['train']['text'][::7].tolist()


def made(name, *columns, length=40, **kwargs):
    group = {'name': name, **({} if name == 'file' else {'vocabulary_size': 300}), **kwargs}
    arrays = dict(zip(('text', 'pair'), (np.array(column, object) for column in columns), strict=False))
    found, _, made = tokenizer.rows(
        arrays, {'train': np.arange(len(columns[0]))}, {'tokenizer': group, 'length': length, 'pack': False}
    )
    return found, made


@pytest.mark.parametrize('name', ['word_piece', 'bpe'])
def test_a_text_is_framed_and_comes_back(name):
    rows, tok = made(name, TEXTS)
    assert set(rows) == {'tokens', 'mask'} and rows['tokens'].shape == (9, 40)
    for text, tokens, mask in zip(TEXTS, rows['tokens'], rows['mask'], strict=True):
        count = mask.sum()
        assert mask.tolist() == [True] * count + [False] * (40 - count)
        assert (tokens[0], tokens[count - 1]) == (2, 3) and not tokens[count:].any()
        back = tok.decode(tokens.tolist())
        assert back == (text.lower() if name == 'word_piece' else text)


def test_word_pieces_are_the_longest_from_the_left(tmp_path):
    """The example of BERT's own tokenizer (google-research/bert, tokenization_test.py)."""
    (tmp_path / 'vocab.txt').write_text('\n'.join([*tokenizer.SPECIAL, 'want', '##want', '##ed', 'wa', 'un', 'runn', '##ing']))
    rows, tok = made('file', ['unwanted running', 'unwantedX RUNNING'], path=str(tmp_path))
    assert tok.encode('unwanted running').tokens[1:6] == ['un', '##want', '##ed', 'runn', '##ing']
    assert rows['tokens'][1].tolist()[:5] == [2, 1, 10, 11, 3]  # a word with an unknown piece is unknown, capitals are small


def test_pairs_are_segments_and_long_texts_are_cut():
    rows, _ = made('word_piece', ['a fox', 'a lazy dog and a lazy dog'], ['quick dog', 'brown'], length=8)
    assert rows['segments'][0].tolist()[:7] == [0, 0, 0, 0, 1, 1, 1]
    assert rows['mask'][1].all() and rows['tokens'][1][-1] == 3


@pytest.mark.parametrize('name', ['word_piece', 'bpe', 'words'])
def test_training_again_gives_the_same(name):
    """The library's own trainer of word pieces breaks ties in the order of a hash map."""
    assert len({made(name, NAMES)[1].to_str() for _ in range(3)}) == 1


def test_words_are_whole_and_frequent():
    """The most frequent first, and those of one count by the alphabet."""
    rows, tok = made('words', ['Fox, a fox', 'dog dog bee cat fox a cat'], min_count=2)
    assert [tok.id_to_token(number) for number in range(5, tok.get_vocab_size())] == ['fox', 'a', 'cat', 'dog']
    assert rows['tokens'][1].tolist()[:9] == [2, 8, 8, 1, 7, 5, 6, 7, 3]
    assert tok.decode(rows['tokens'][0].tolist()) == 'fox a fox'


def test_it_learns_from_the_training_split_alone():
    texts = np.array(['a fox', 'a dog', 'zebra'], object)
    group = {'tokenizer': {'name': 'word_piece'}, 'length': 8, 'pack': False}
    found, *_ = tokenizer.rows({'text': texts}, {'train': np.arange(2)}, group)
    assert found['tokens'][2].tolist() == [2, 1, 3, 0, 0, 0, 0, 0]  # no letter of it is known
    found, *_ = tokenizer.rows({'text': texts}, {'train': np.arange(3)}, group)
    assert found['tokens'][2][1] > 4


def test_the_embedded_names_are_unicodes():
    """A cut trains its own tokenizer, and the same again."""
    config = overrides.apply(overrides.defaults(), {'data.name': 'unicode_names', 'data.length': 20})['data']
    store = data.read(config)
    texts, labels = (store.arrays[name][:] for name in ('text', 'label'))
    assert labels[texts.tolist().index('GREEK SMALL LETTER PSI')] == labels[texts.tolist().index('LATIN SMALL LETTER A')]
    assert min(np.bincount(labels)) >= 30 and not any(text.startswith('CJK UNIFIED') for text in texts)
    one, other, again = (data.cut(store, {**config, 'split_seed': seed}) for seed in (0, 1, 0))
    assert one.tokenizer == again.tokenizer and one.checksum == again.checksum != other.checksum
    assert one.facts['vocabulary_size'] == one.arrays['tokens'][:].max() + 1


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (None, 'expected a tokenizer.json, a vocab.txt, or a folder'),
        ('{"model": 3}', 'is no tokenizer'),
        ('vocab.txt: [PAD] [UNK] [CLS] [MASK] a', r"'file' has no token that ends a text: add one of \[SEP\], </s>"),
        ('vocab.txt: [PAD] [CLS] [SEP] [MASK] a', r"'file' has no \[UNK\], its unknown token"),
    ],
)
def test_a_file_that_is_none_is_refused(tmp_path, content, message):
    if content and content.startswith('vocab.txt: '):
        (tmp_path / 'vocab.txt').write_text(content.removeprefix('vocab.txt: ').replace(' ', '\n'))
    elif content:
        (tmp_path / 'tokenizer.json').write_text(content)
    with pytest.raises(ConfigError, match=message):
        made('file', TEXTS, path=str(tmp_path))
