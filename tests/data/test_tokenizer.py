"""Tokenizers: what they learn from, how they frame texts, and that everything finds its way back."""

import jax
import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from research import augment, data, tasks
from research.catalogue import ConfigError
from research.config import overrides
from research.data import sources, tokenizer
from research.data.arrays import from_arrays

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


def of_bytes(folder, *special):
    """A file of byte pairs with these special tokens behind its other ones."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    own = Tokenizer(models.BPE({letter: number for number, letter in enumerate(letters)}, []))
    own.pre_tokenizer, own.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    own.add_special_tokens([*special])
    own.save(str(folder / 'tokenizer.json'))
    return str(folder)


@pytest.mark.parametrize(
    ('special', 'numbers'),
    [
        (('<|endoftext|>',), (256, None, 256, 256, None)),
        (('<pad>', '</s>', '<unk>'), (256, 258, 257, 257, None)),
        (('<s>', '<pad>', '</s>', '<unk>', '<mask>'), (257, 259, 256, 258, 260)),
        (('</s>', '<mask>', '[MASK]', '[CLS]', '[SEP]'), (260, None, 259, 260, 258)),
    ],
    ids=['GPT-2', 'T5', 'RoBERTa', 'BERT first'],
)
def test_special_tokens_of_other_files_are_found_by_name_and_found_again(tmp_path, special, numbers):
    rows, tok = made('file', ['a fox', 'Zoë'], ['a dog', 'x'], length=14, path=of_bytes(tmp_path, *special))
    tok.save(str(tmp_path / 'saved.json'))
    again = tokenizer.saved(tmp_path / 'saved.json')
    pad, _, start, end, _ = numbers
    assert tokenizer.facts(tok) == tokenizer.facts(again) and tokenizer.facts(again)['special_tokens'] == numbers
    assert [tokenizer.facts(tok)['token_bytes'][number] for number in {*numbers} - {None}] == [0] * len({*numbers} - {None})
    for tokens, mask, count in zip(rows['tokens'], rows['mask'], (13, 8), strict=True):
        assert mask.tolist() == [True] * count + [False] * (14 - count) and (tokens[count:] == pad).all()
        assert (tokens[0], tokens[count - 1], (tokens[1 : count - 1] == end).sum()) == (start, end, 1)
    assert tokenizer.written(again, np.array([[0, 1, end, 2]])) == [again.decode([0, 1])]
    packed, _, _ = tokenizer.rows(
        {'text': np.array(['a', 'b'], object)},
        {'train': np.arange(2)},
        {'tokenizer': {'name': 'file', 'path': str(tmp_path)}, 'length': 8, 'pack': True},
    )
    assert packed['packed'].tolist() == [[1, 1, 1, 2, 2, 2, 0, 0]] and (packed['tokens'][0, 6:] == pad).all()


def test_what_needs_a_missing_token_is_refused(tmp_path):
    """Masks of the masked language model, and what two augmentations put in the place of tokens; others do without."""
    _, tok = made('file', ['a fox'], path=of_bytes(tmp_path, '<|endoftext|>'))
    facts, batch = tokenizer.facts(tok), {'tokens': np.array([[256, 1, 2, 3, 256]], np.int32), 'mask': np.ones((1, 5), bool)}
    with pytest.raises(ConfigError, match=r'hidden by \[MASK\] or <mask>, and the tokenizer has neither'):
        tasks.create({'name': 'masked_language_model', 'loss': 'softmax', 'label_smoothing': 0.0}, facts)
    keys = jax.random.split(jax.random.key(0), 1)
    for name in ('token_mask', 'token_dropout'):
        with pytest.raises(ConfigError, match='the tokenizer has no such token'):
            augment.create({'names': (name,), name: {'share': 0.5}}, facts)(keys, batch)
    cut = augment.create({'names': ('span_deletion',), 'span_deletion': {'share': 0.34}}, facts)(keys, batch)
    assert cut['tokens'][0, [0, 3, 4]].tolist() == [256, 256, 256] and cut['mask'][0].tolist() == [True] * 4 + [False]


def test_only_words_are_counted_where_special_tokens_are_missing(tmp_path):
    store = from_arrays('own', {'train': {'text': ['aa last'] * 3}, 'test': {'text': ['c']}})
    config = overrides.apply(overrides.defaults(), {'data.validation': 0, 'data.length': 9})['data']
    told = {'name': 'file', 'path': of_bytes(tmp_path, '<|endoftext|>', 'last')}
    counts = data.cut(store, {**config, 'tokenizer': told}).facts['token_counts']
    assert (counts[256], counts[257], sum(counts)) == (0, 3, 3 * 4)


def test_vocab_json_and_merges_are_the_tokenizer_json(tmp_path):
    """The file of GPT-2's first release says of no token that it is special."""
    _, own = made('bpe', TEXTS)
    own.model.save(str(tmp_path))
    texts = [' A quick\n fox 🦊 ', 'Füchse [SEP] foxes']
    path = tmp_path / 'vocab.json'
    (rows, ours), (plain, _) = made('file', texts, path=str(path)), made('file', texts, path=str(tmp_path))
    np.testing.assert_array_equal(rows['tokens'], plain['tokens'])
    assert rows['tokens'].tolist() == [row.ids for row in own.encode_batch(texts)]
    assert ours.decode(rows['tokens'][0].tolist()) == texts[0]
    (tmp_path / 'merges.txt').unlink()
    with pytest.raises(ConfigError, match='is no tokenizer'):
        made('file', texts, path=str(path))
