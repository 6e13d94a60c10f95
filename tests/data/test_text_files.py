"""Texts from files, and what is refused of them."""

import json
from unicodedata import ucd_3_2_0

import numpy as np
import pyarrow
import pytest
import tokenizers
from pyarrow import csv, parquet

from research import data
from research.catalogue import ConfigError
from research.config import overrides
from research.data import wordnet

ROWS = {
    'text': ['a "cat", sat', 'the dog', 'ran\u00e9', 'a bird'],
    'label': ['pet', 'pet', 'act', 'wild'],
    'more': list('wxyz'),
}


def config(path, **changes):
    changes = {f'data.{name}': value for name, value in changes.items()}
    return overrides.apply(
        overrides.defaults(), {'data.name': 'texts', 'data.path': str(path), 'data.test': 2, 'data.validation': 0, **changes}
    )['data']


def texts(path, **changes):
    store = data.read(config(path, **changes))
    return {name: column[:].tolist() for name, column in store.arrays.items()}


def write(path, rows=ROWS):
    table = pyarrow.table(rows)
    if path.suffix == '.tsv':
        path.write_text('\n'.join('\t'.join(map(str, line)) for line in [rows, *zip(*rows.values(), strict=True)]))
    elif path.suffix == '.csv':
        csv.write_csv(table, path)
    elif path.suffix == '.jsonl':
        path.write_text('\n'.join(json.dumps(row) for row in table.to_pylist()))
    elif path.suffix == '.parquet':
        parquet.write_table(table, path)
    else:  # as `datasets` saves
        path.mkdir(parents=True)
        with pyarrow.ipc.new_stream(path / 'data-00000-of-00001.arrow', table.schema) as file:
            file.write_table(table)
    return path


@pytest.mark.parametrize('name', ['all.tsv', 'all.csv', 'all.jsonl', 'all.parquet', 'saved'])
def test_a_table_of_any_kind_gives_the_same_texts(tmp_path, name):
    assert texts(write(tmp_path / name)) == {'text': ROWS['text'], 'label': [1, 1, 0, 2]}


def test_classes_have_names(tmp_path):
    """The labels of a table, in their order; of the names of characters, the category that the standard gives."""
    assert data.read(config(write(tmp_path / 'a.csv'))).class_names == tuple(sorted(set(ROWS['label'])))
    numbers = write(tmp_path / 'b.csv', {**ROWS, 'label': [20, 3, 3, 100]})
    assert data.load(config(numbers)).class_names == ('3', '20', '100') and 'names' not in str(data.load(config(numbers)).facts)
    assert data.read(config(write(tmp_path / 'c.csv', {**ROWS, 'label': [0.5, 1.5, 2, 3]}))).class_names == ()
    store = data.read({**config(''), 'name': 'unicode_names'})
    for name, label in zip(store.arrays['text'][::50], store.arrays['label'][::50], strict=True):
        assert store.class_names[label][:2] == ucd_3_2_0.category(ucd_3_2_0.lookup(name))
    assert len(store.class_names) == store.classes and wordnet.CLASSES[3:45:14] == (
        'noun.Tops',
        'noun.object',
        'verb.cognition',
    )


def test_parts_have_files_of_their_own_and_columns_names(tmp_path):
    write(tmp_path / 'train.csv')
    write(tmp_path / 'test.csv', {name: values[:2] for name, values in ROWS.items()})
    store = data.read(config(tmp_path, text='more', pair='text', test=0))
    assert store.parts == {'train': range(4), 'test': range(4, 6)}
    assert store.arrays['text'][:].tolist() == [*'wxyz', *'wx']
    assert store.arrays['pair'][4:].tolist() == ROWS['text'][:2]


@pytest.mark.parametrize('name', ['.tsv', '.csv', '.jsonl', '.parquet'])
def test_a_column_of_floats_is_a_number_for_each_text_and_one_of_whole_numbers_a_class(tmp_path, name):
    """Of all parts together: a part may happen to have no fraction."""
    for part, score in (('train', [2.5, 4.0, 0.25, 5.0]), ('test', [3, 5, 1, 0])):
        write(tmp_path / f'{part}{name}', {**ROWS, 'score': score, 'stars': [3, 5, 5, 1]})
    scores = data.read(config(tmp_path, label='score', test=0))
    assert scores.classes is None and scores.arrays['label'].dtype == np.float32
    assert scores.arrays['label'][:].tolist() == [2.5, 4, 0.25, 5, 3, 5, 1, 0]
    stars = data.read(config(tmp_path, label='stars', test=0))
    assert stars.classes == 3 and stars.arrays['label'][:4].tolist() == [1, 2, 2, 0]


@pytest.mark.parametrize('parts', [('train', 'test'), ('',)])
def test_a_folder_for_each_class(tmp_path, parts):
    for part in parts:
        for kind, text in (('neg', 'bad'), ('pos', 'good'), ('pos', 'fine')):
            (tmp_path / part / kind).mkdir(parents=True, exist_ok=True)
            (tmp_path / part / kind / f'{text}.txt').write_text(text)
    assert texts(tmp_path) == {'text': ['bad', 'fine', 'good'] * len(parts), 'label': [0, 1, 1] * len(parts)}


@pytest.mark.parametrize(
    ('rows', 'changes', 'message'),
    [
        ({}, {'text': 'txt'}, "no column 'txt'. Did you mean 'text'"),
        ({}, {'pair': 'second'}, "no column 'second'"),
        ({'text': ['a', None, 'c', 'd']}, {}, "1 rows have no 'text', the first is row 1"),
        ({'text': ['a', ' ', 'c', 'd']}, {}, "'text' of 'train' is empty at row 1"),
        ({'text': [1, 2, 3, 4]}, {}, 'is a int at row 0, expected a text'),
        ({'label': [0.5, 1, float('nan'), 2]}, {}, '1 labels of the train part are no finite numbers, the first is at row 2'),
    ],
)
def test_bad_tables_are_refused(tmp_path, rows, changes, message):
    with pytest.raises(ConfigError, match=message):
        data.read(config(write(tmp_path / 'all.parquet', ROWS | rows), **changes))


def test_bad_files_are_refused(tmp_path):
    with pytest.raises(ConfigError, match='data.path is empty'):
        data.read(config(''))
    with pytest.raises(ConfigError, match='expected a file .*or a folder with train.tsv'):
        data.read(config(tmp_path))
    (tmp_path / 'all.xls').write_text('x')
    with pytest.raises(ConfigError, match="ends in '.xls', expected .tsv"):
        data.read(config(tmp_path / 'all.xls'))
    (tmp_path / 'all.parquet').write_text('x')
    with pytest.raises(ConfigError, match='all.parquet cannot be read'):
        data.read(config(tmp_path / 'all.parquet'))
    write(tmp_path / 'train.jsonl')
    write(tmp_path / 'test.jsonl', {**ROWS, 'label': ['pet', 'pet', 'new', 'wild']})
    with pytest.raises(ConfigError, match="the test part has 1 labels that the training part has not, such as 'new'"):
        data.read(config(tmp_path, test=0))
    (tmp_path / 'folder' / 'train' / 'pet').mkdir(parents=True)
    (tmp_path / 'folder' / 'train' / 'pet' / '1.txt').write_bytes(b'caf\xe9')
    with pytest.raises(ConfigError, match='1.txt is no UTF-8: unexpected end of data at byte 3'):
        data.read(config(tmp_path / 'folder'))


def test_token_counts_are_of_words_in_the_training_split(tmp_path):
    (tmp_path / 'all.txt').write_text('b b b b b a\na a a a b c\n' + 'c\n' * 8)
    changes = {'tokenizer.name': 'words', 'test': 8, 'length': 6}
    dataset = data.load(config(tmp_path / 'all.txt', **changes))
    read = dataset.arrays['tokens'][:][dataset.splits['train']]
    assert dataset.facts['token_counts'] == tuple(
        (read == n).sum() if n > 4 else 0 for n in range(dataset.facts['vocabulary_size'])
    )


def test_a_loader_function_may_return_texts(monkeypatch):
    parts = {part: {'text': ['one two', 'three'], 'label': np.array([0, 1])} for part in ('train', 'test')}
    monkeypatch.setattr('test_text_files.load', lambda path: parts, raising=False)
    changes = {'data.name': 'test_text_files:load', 'data.validation': 0, 'data.length': 5}
    dataset = data.load(overrides.apply(overrides.defaults(), changes)['data'])
    assert set(dataset.fields) == {'tokens', 'mask', 'label'}
    assert dataset.arrays['mask'][:].sum(1).tolist() == [4, 3, 4, 3]
    for part in parts.values():
        part['document'] = np.array([[1], [2]])  # of single texts a field like any other
    assert data.load(overrides.apply(overrides.defaults(), changes)['data']).fields['document'].shape == (1,)
    for part in parts.values():
        part['pair'] = part['text']
    with pytest.raises(ConfigError, match=r"a field 'document', int32 \(4, 1\): expected whole numbers \[N\]"):
        data.load(overrides.apply(overrides.defaults(), changes)['data'])
    for part in parts.values():
        part['pair'] = part.pop('text')
    with pytest.raises(ConfigError, match="a field 'pair' and no 'text'"):
        data.load(overrides.apply(overrides.defaults(), changes)['data'])


def test_texts_without_classes(tmp_path):
    """Lines of files, and a table without a column of labels; labels of one part alone are refused."""
    (tmp_path / 'train').mkdir()
    (tmp_path / 'train' / 'b.txt').write_text('the dog ran\n \n\na bird\n')
    (tmp_path / 'train' / 'a.txt').write_text('a cat')
    assert texts(tmp_path) == {'text': ['a cat', 'the dog ran', 'a bird']}
    assert texts(tmp_path / 'train' / 'b.txt') == {'text': ['the dog ran', 'a bird']}
    assert texts(write(tmp_path / 'all.tsv', {'text': ROWS['text']})) == {'text': ROWS['text']}
    with pytest.raises(ConfigError, match="no column 'label'"):
        texts(tmp_path / 'all.tsv', label='label')
    write(tmp_path / 'test.tsv')
    with pytest.raises(ConfigError, match='the train part has no labels, and another has'):
        texts(tmp_path)


def test_lines_and_what_follows_them(tmp_path):
    """Pairs within a document, no line in two; each beside a second text of another document in its split."""
    (tmp_path / 'all.txt').write_text('a b\na c\na d\n\nb a\nb c\nb d\nb e\n  \nc\nc a\n\nd\n')
    pairs = texts(tmp_path / 'all.txt', pair='next')
    assert pairs == {'text': ['a b', 'b a', 'b d', 'c'], 'pair': ['a c', 'b c', 'b e', 'c a'], 'document': [0, 1, 1, 2]}
    with pytest.raises(ConfigError, match='The train split has one document'):
        data.load(config(tmp_path / 'all.txt', pair='next', test=3))
    (tmp_path / 'all.txt').write_text('\n\n'.join(f'a {a}{b}\nb {a}{b}' for a in 'abc' for b in 'abc'))
    dataset = data.load(config(tmp_path / 'all.txt', pair='next', test=4, length=8))
    rows = {name: column[:] for name, column in dataset.arrays.items()}
    assert {*dataset.fields} == {*('tokens', 'segments', 'mask'), *('other_tokens', 'other_segments', 'other_mask')}
    made = tokenizers.Tokenizer.from_str(dataset.tokenizer)
    for split in ('train', 'test'):
        taken = dataset.splits[split]
        own, other = (
            [
                [made.decode(row[part == which], skip_special_tokens=True) for which in (0, 1)]
                for row, part in zip(rows[f'{of}tokens'][taken], rows[f'{of}segments'][taken], strict=True)
            ]
            for of in ('', 'other_')
        )
        assert all(a[0] == b[0] and a[1] != b[1] for a, b in zip(own, other, strict=True))
        assert {second for _, second in other} <= {second for _, second in own}
    with pytest.raises(ConfigError, match='no document has two lines'):
        (tmp_path / 'one.txt').write_text('a\n\nb')
        texts(tmp_path / 'one.txt', pair='next')
    with pytest.raises(ConfigError, match="data.pair '' or 'next', not '' and 'more'"):
        texts(tmp_path / 'all.txt', pair='more')
