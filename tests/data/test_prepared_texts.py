"""Texts that TFDS prepares, without TensorFlow and without a network."""

import json
import os
import shutil
import sys

import catalogue_builder  # noqa: F401
import numpy as np
import pytest
import tensorflow_datasets as tfds
from pyarrow import parquet

from research import data
from research.catalogue import ConfigError
from research.config import overrides
from research.data.arrays import from_arrays


def row(index, **changes):
    given = {'premise': f'Un café, {index}', 'claim': f'claim {index}', 'label': index % 3, 'stars': (1, 5)[index % 2]}
    return {**given, 'score': index / 4, 'topic': index % 4, 'field': 0, **changes}


ROWS = {'train': [*map(row, range(20))], 'test': [*map(row, range(20, 27))]}
PAIRS = {'text': 'premise', 'pair': 'claim'}


@pytest.fixture(autouse=True)
def data_dir(tmp_path, monkeypatch):
    monkeypatch.setenv('TFDS_DATA_DIR', str(tmp_path / 'prepared'))
    return tmp_path / 'prepared'


@pytest.fixture
def raw(tmp_path):
    write(tmp_path / 'raw', ROWS)
    return tmp_path / 'raw'


def write(folder, parts):
    folder.mkdir(exist_ok=True)
    for part, rows in parts.items():
        (folder / f'{part}.json').write_text(json.dumps(rows))


def config(raw, name='frugal_texts', **changes):
    changes = {f'data.{field}': value for field, value in changes.items()}
    changes |= {'data.name': name, 'data.path': str(raw), 'data.validation': 0}
    return overrides.apply(overrides.defaults(), changes)['data']


def rows_of(store, part):
    """Examples of a part, their fields by name; sorted, because TFDS shuffles them."""
    rows = store.parts[part]
    columns = {field: column[rows.start : rows.stop].tolist() for field, column in store.arrays.items()}
    return sorted(zip(*(columns[field] for field in sorted(columns)), strict=True))


def expected(part, **named):
    return sorted(tuple(row[named[field]] for field in sorted(named)) for row in ROWS[part])


@pytest.mark.parametrize(
    ('name', 'changes', 'named'),
    [
        ('frugal_texts', PAIRS, {**PAIRS, 'label': 'label'}),
        ('frugal_texts', {'text': 'claim', 'label': 'score'}, {'text': 'claim', 'label': 'score'}),
        ('frugal_lines', {}, {'text': 'claim'}),
        ('frugal_topics', {}, {'text': 'claim', 'label': 'topic'}),
    ],
)
def test_columns_come_through(raw, name, changes, named):
    store = data.read(config(raw, name, **changes))
    assert {part: len(rows) for part, rows in store.parts.items()} == {'train': 20, 'test': 7}
    assert [rows_of(store, part) for part in ROWS] == [expected(part, **named) for part in ROWS]
    assert {field: column.dtype.name for field, column in store.arrays.items() if field != 'label'} == {
        field: 'object' for field in named if field != 'label'
    }
    assert store.classes == {'label': 3, 'topic': 4}.get(named.get('label'))
    assert 'tensorflow' not in sys.modules


def test_whole_numbers_are_classes_as_of_files_and_supervised_keys_say_what_is_meant(raw):
    store = data.read(config(raw, 'frugal_supervised'))
    assert store.classes == 2 and store.arrays['label'].dtype == np.int32
    assert rows_of(store, 'test') == sorted((int(row['stars'] == 5), row['claim']) for row in ROWS['test'])


def test_it_is_the_store_that_arrays_make_and_trains(raw):
    asked = config(raw, **PAIRS, length=16)
    store = data.read(asked)
    parts = {
        part: {field: c[rows.start : rows.stop] for field, c in store.arrays.items()} for part, rows in store.parts.items()
    }
    made = from_arrays('frugal_texts', parts)
    assert (store.checksum, store.parts, store.classes) == (made.checksum, made.parts, made.classes)
    dataset = data.load(asked)
    assert set(dataset.fields) == {'tokens', 'segments', 'mask', 'label'}
    assert dataset.facts['classes'] == 3 and len(dataset.splits['train']) == 20


def test_it_is_prepared_once_for_each_choice_of_columns(raw, data_dir):
    def files():
        return {path: path.stat().st_mtime_ns for path in data_dir.rglob('[!.]*') if path.is_file()}

    first, before = data.read(config(raw, **PAIRS)), files()
    assert data.read(config(raw, **PAIRS)).checksum == first.checksum and files() == before
    assert data.read(config(raw, text='claim')).checksum != first.checksum
    assert set(before.items()) < set(files().items())
    assert {path.name for path in data_dir.rglob('decoded*')} == {
        'decoded-text=premise-pair=claim-label=label',
        'decoded-text=claim-label=label',
    }


@pytest.mark.parametrize(
    ('name', 'changes', 'said'),
    [
        ('frugal_texts', {}, "no column of texts 'text'.* Set data.text to one of: claim, premise"),
        ('frugal_texts', {'text': 'premis'}, "no column of texts 'premis'. Did you mean 'premise'"),
        ('frugal_texts', {'text': 'claim', 'pair': 'label'}, "no column of texts 'label'.* Set data.pair to one of"),
        ('frugal_texts', {**PAIRS, 'label': 'scor'}, "no column of classes or numbers 'scor'. Did you mean 'score'"),
        ('frugal_texts', {**PAIRS, 'label': 'claim'}, "no column of classes or numbers 'claim'"),
        ('frugal_doubled', {}, 'several columns of classes. Set data.label to one of: field, topic'),
        ('frugal_lines', {'resize': 8}, 'data.resize and data.crop take uint8 images'),
    ],
)
def test_columns_that_are_not_there_are_said_before_anything_is_prepared(raw, data_dir, name, changes, said):
    with pytest.raises(ConfigError, match=said):
        data.read(config(raw, name, **changes))
    assert not data_dir.exists()


@pytest.mark.parametrize(
    ('changes', 'field', 'value', 'said'),
    [
        ({}, 'claim', ' ', "'claim' of 'test' is empty at row .* A function of your own"),
        ({'label': 'stars'}, 'stars', 4, "the test part has 1 labels that the training part has not, such as '4'"),
        ({'label': 'score'}, 'score', float('nan'), 'labels of the test part are no finite numbers'),
    ],
)
def test_bad_examples_are_refused(raw, data_dir, changes, field, value, said):
    write(raw, {'test': [*ROWS['test'], row(30, **{field: value})]})
    with pytest.raises(ConfigError, match=said):
        data.read(config(raw, **PAIRS, **changes))
    assert not [path for path in data_dir.rglob('decoded*') if path.suffix != '.incomplete']


@pytest.mark.parametrize('label', ['label', 'stars', 'score'])
def test_a_test_split_whose_labels_are_hidden_is_not_scored(raw, label):
    """As of GLUE; a text's number may be -1 where not all are."""
    write(raw, {'train': [*ROWS['train'], row(20, score=-1)], 'test': [row(index, **{label: -1}) for index in range(30, 37)]})
    asked = config(raw, **PAIRS, label=label)
    with pytest.raises(ConfigError, match='7 of 7 test examples of .* have no label .* Set data.test'):
        data.load(asked)
    dataset = data.load({**asked, 'test': 5})
    assert {split: len(rows) for split, rows in dataset.splits.items()} == {'train': 16, 'validation': 0, 'test': 5}


def one_letter(path):
    """As a whole file that is another."""
    if path.suffix == '.json':
        path.write_text(path.read_text().replace('"test": 7', '"test": 6'))
    else:
        table = parquet.read_table(path)
        parquet.write_table(
            table.set_column(0, 'text', table['text'].combine_chunks().fill_null('').take([1, *range(1, 27)])), path
        )


@pytest.mark.parametrize('harm', [lambda path: path.write_bytes(path.read_bytes()[:-9]), os.remove, one_letter])
@pytest.mark.parametrize('name', ['texts.parquet', 'content.json'])
def test_a_damaged_file_names_itself_and_its_cure(raw, data_dir, harm, name):
    whole = data.read(config(raw, **PAIRS)).checksum
    file = next(data_dir.rglob(name))
    harm(file)
    with pytest.raises(ConfigError, match=r'(texts.parquet|content.json) is damaged.* Remove .*decoded-text'):
        data.read(config(raw, **PAIRS))
    shutil.rmtree(file.parent)  # as it says
    assert data.read(config(raw, **PAIRS)).checksum == whole


def test_glue_of_the_catalogue_needs_no_tensorflow(tmp_path, monkeypatch):
    """TFDS itself does not find it where h5py is missing; its test labels are hidden."""
    folder = tmp_path / 'SST-2'
    folder.mkdir()
    for part, count in (('train', 9), ('dev', 4)):
        lines = [f'a film of {part} {index}\t{index % 2}' for index in range(count)]
        (folder / f'{part}.tsv').write_text('\n'.join(['sentence\tlabel', *lines]))
    (folder / 'test.tsv').write_text('index\tsentence\n0\ta film')
    monkeypatch.setattr(tfds.download.DownloadManager, 'download_and_extract', lambda manager, url: tmp_path)
    store = data.read(config('', 'glue/sst2'))
    assert (store.parts, store.classes) == ({'train': range(9), 'test': range(9, 10), 'validation': range(10, 14)}, 2)
    assert sorted(store.arrays['text'][10:].tolist()) == [f'a film of dev {index}' for index in range(4)]
    assert store.arrays['label'][9:10].tolist() == [-1]
