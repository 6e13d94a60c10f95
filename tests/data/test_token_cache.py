"""Tokens that are kept on disk: the same as made anew, read instead of made, and never those of something else."""

import errno
import mmap
import os
import pathlib

import numpy as np
import pytest
import tokenizers

from research import data
from research.catalogue import ConfigError
from research.config import overrides
from research.data import sources, token_cache, tokenizer
from research.data.arrays import from_arrays

DEFAULTS = overrides.defaults()['data']
NAMES = sources.unicode_names('')['train']['text'][::25].tolist()


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    monkeypatch.setattr(token_cache, '_LEAST', 1)
    return tmp_path / 'frugal' / 'tokens'


def store_of(texts=NAMES, **fields):
    return from_arrays('names', {'train': {'text': texts, **{name: values * len(texts) for name, values in fields.items()}}})


def cut(store, **changes):
    tokenizer = {'name': 'words', 'min_count': 1}
    return data.cut(store, {**DEFAULTS, 'test': 20, 'validation': 20, 'length': 12, 'tokenizer': tokenizer, **changes})


def anew(monkeypatch, *arguments, **changes):
    """Without anything kept."""
    with monkeypatch.context() as patch:
        patch.setattr(token_cache, '_LEAST', 1 << 60)
        return cut(*arguments, **changes)


def assert_same(one, other):
    assert (one.checksum, one.tokenizer, one.facts, one.fields) == (other.checksum, other.tokenizer, other.facts, other.fields)
    for ours, theirs in ((one.arrays, other.arrays), (one.splits, other.splits)):
        assert {*ours} == {*theirs}
        for name, array in ours.items():
            assert array.dtype == theirs[name].dtype
            np.testing.assert_array_equal(array, theirs[name])


@pytest.fixture
def nothing_is_made(monkeypatch):
    def refuse(*arguments):
        raise AssertionError('made anew')

    def start():
        for name in ('create', 'encode', 'packed'):
            monkeypatch.setattr(tokenizer, name, refuse)

    return start


def entries(folder):
    return {path.name for path in folder.glob('*')}


@pytest.mark.parametrize(
    ('fields', 'changes'),
    [({'label': [1]}, {}), ({'pair': ['a fox']}, {}), ({}, {'pack': True}), ({}, {'pack': True, 'validation': 0})],
    ids=['labels', 'pairs', 'packed', 'no validation'],
)
def test_a_second_read_is_the_same_and_makes_nothing(monkeypatch, nothing_is_made, folder, fields, changes):
    store = store_of(**fields)
    plain, first = anew(monkeypatch, store, **changes), cut(store, **changes)
    assert len(entries(folder)) == 2, 'a tokenizer and its rows'
    nothing_is_made()
    second = cut(store, **changes)
    assert_same(first, plain)
    assert_same(second, plain)
    owner = second.arrays['tokens'].parts[0]
    while isinstance(owner, np.ndarray):
        owner = owner.base
    assert isinstance(owner, mmap.mmap)


@pytest.mark.parametrize(
    ('changes', 'new'),
    [
        ({'tokenizer': {'name': 'word_piece'}}, 2),
        ({'tokenizer': {'name': 'words', 'min_count': 2}}, 2),
        ({'split_seed': 1}, 2),
        ({'examples': 100}, 2),
        ({'length': 13}, 1),
        ({'pack': True}, 1),
        ({}, 0),
    ],
    ids=str,
)
def test_what_is_made_of_something_else_has_an_entry_of_its_own(monkeypatch, folder, changes, new):
    store = store_of()
    cut(store)
    before = entries(folder)
    assert_same(cut(store, **changes), anew(monkeypatch, store, **changes))
    assert before <= entries(folder) and len(entries(folder) - before) == new


def test_other_texts_another_library_and_other_code_are_something_else(monkeypatch, tmp_path, folder):
    cut(store_of())
    other = store_of([*NAMES[:-1], 'GREEK FOX'])
    assert_same(cut(other), anew(monkeypatch, other))
    assert len(entries(folder)) == 4
    monkeypatch.setattr(tokenizers, '__version__', '0.0.1')
    cut(store_of())
    assert len(entries(folder)) == 6
    code = tmp_path / 'code.py'
    code.write_text(pathlib.Path(tokenizer.__file__).read_text() + '# other')
    monkeypatch.setattr(tokenizer, '__file__', str(code))
    cut(store_of())
    assert len(entries(folder)) == 8


def test_a_file_that_has_changed_is_another_tokenizer_and_other_splits_are_other_rows(monkeypatch, tmp_path, folder):
    asked = {'tokenizer': {'name': 'file', 'path': str(tmp_path)}, 'pack': True}
    for words in ('greek small letter', 'capital letter'):
        (tmp_path / 'vocab.txt').write_text('\n'.join([*tokenizer.SPECIAL, *words.split()]))
        for seed in (0, 1):
            assert_same(cut(store_of(), **asked, split_seed=seed), anew(monkeypatch, store_of(), **asked, split_seed=seed))
    assert len(entries(folder)) == 4


def cut_short(path):
    path.write_bytes(path.read_bytes()[:-5])


def one_bit(path):
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)


def nothing(path):
    path.write_text('{}')


@pytest.mark.parametrize('harm', [cut_short, one_bit, os.remove, nothing])
@pytest.mark.parametrize('name', ['json.npy', 'tokens.npy', 'split-test.npy', 'sums.json'])
def test_what_is_damaged_is_made_anew(nothing_is_made, folder, name, harm):
    store = store_of()
    first = cut(store)
    for path in [*folder.rglob(name)]:
        harm(path)
    assert_same(cut(store), first)
    nothing_is_made()
    assert_same(cut(store), first)


def test_what_is_refused_is_refused_from_what_is_kept_too():
    cut(store_of(label=[1]))
    with pytest.raises(ConfigError, match="these have a 'label' each"):
        cut(store_of(label=[1]), pack=True)


def test_few_texts_leave_no_files(monkeypatch, folder):
    monkeypatch.setattr(token_cache, '_LEAST', sum(map(len, NAMES)) + 1)
    cut(store_of())
    assert not folder.exists()
    monkeypatch.setattr(token_cache, '_LEAST', sum(map(len, NAMES)))
    cut(store_of())
    assert folder.exists()


def test_without_a_folder_or_room_it_goes_on(monkeypatch, tmp_path, folder):
    store = store_of()
    plain = anew(monkeypatch, store)

    def full(path, array):
        path.write_bytes(b'a part')
        raise OSError(errno.ENOSPC, 'No space left on device')

    with monkeypatch.context() as patch:
        patch.setattr(np, 'save', full)
        assert_same(cut(store), plain)
    assert not entries(folder)
    (tmp_path / 'file').write_text('')
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'file'))
    assert_same(cut(store), plain)


def test_what_another_process_wrote_meanwhile_stays(folder):
    def kept(value, meanwhile):
        return token_cache.kept('key', lambda: meanwhile() or {'value': np.array([value])})['value'].tolist()

    assert kept(2, lambda: kept(1, lambda: None) and None) == [2]
    assert kept(3, lambda: None) == [1]
    assert len(entries(folder)) == 1


def test_what_was_read_longest_ago_makes_room(monkeypatch, folder):
    def entry(key):
        before = entries(folder)
        token_cache.kept(key, lambda: {'value': np.zeros(1000)})
        for path in folder.iterdir():
            os.utime(path, (path.stat().st_mtime - 100,) * 2)
        return folder / ''.join(entries(folder) - before)

    first, second, third = map(entry, 'abc')
    killed = folder / '.killed'
    killed.mkdir()
    os.utime(killed, (0, 0))
    entry('a')  # which is read
    monkeypatch.setattr(token_cache, '_MOST', 3 * 8500)
    (folder / 'stray').touch()
    fourth = entry('d')
    (folder / 'stray').unlink()
    assert {*folder.iterdir()} == {first, third, fourth} and not second.exists()
