"""Tables of one's own by their columns, and NumPy files."""

import json

import numpy as np
import PIL.Image
import pyarrow
import pytest
from pyarrow import csv, parquet

from research import data
from research.catalogue import ConfigError
from research.config import overrides
from research.data import array_files

ROWS = {
    'age': [30, 41, 25, 52, 38, 29],
    'height': [1.75, 1.6, 1.82, 1.7, 1.66, 1.9],
    'smokes': [True, False, False, True, False, True],
    'town': ['ulm', 'bonn', 'ulm', 'kiel', 'bonn', 'ulm'],
    'label': ['ill', 'well', 'well', 'ill', 'well', 'ill'],
    'price': [100, 250, 80, 120, 300, 90],
    'red': [1, 0, 1, 0, 1, 1],
    'ripe': [0, 0, 1, 1, 0, 1],
}


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv('TFDS_DATA_DIR', str(tmp_path / 'prepared'))


def config(path, **changes):
    changes = {f'data.{name}': value for name, value in {'name': 'table', 'test': 2, 'validation': 0, **changes}.items()}
    return overrides.apply(overrides.defaults(), {'data.path': str(path), **changes})['data']


def write(path, rows=ROWS):
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pyarrow.table(rows)
    if path.suffix == '.csv':
        csv.write_csv(table, path)
    elif path.suffix == '.tsv':
        path.write_text('\n'.join('\t'.join(map(str, line)) for line in [rows, *zip(*rows.values(), strict=True)]))
    elif path.suffix == '.jsonl':
        path.write_text('\n'.join(json.dumps(row) for row in table.to_pylist()))
    elif path.suffix == '.parquet':
        parquet.write_table(table, path)
    else:
        path.mkdir()
        with pyarrow.ipc.new_stream(path / 'data-00000-of-00001.arrow', table.schema) as file:
            file.write_table(table)
    return path


@pytest.mark.parametrize('name', ['all.csv', 'all.tsv', 'all.jsonl', 'all.parquet', 'saved'])
def test_a_table_of_any_kind_gives_the_same_fields(tmp_path, name):
    store = data.read(config(write(tmp_path / name), features=('height', 'age'), group='town'))
    expected = np.array([ROWS['height'], ROWS['age']], np.float32).T
    np.testing.assert_array_equal(store.arrays['features'][:], expected)
    assert store.arrays['label'][:].tolist() == [0, 1, 1, 0, 1, 0] and store.class_names == ('ill', 'well')
    assert store.arrays['group'][:].tolist() == [2, 0, 2, 1, 0, 2] and store.group_names == ('bonn', 'kiel', 'ulm')
    assert {field: array.dtype.name for field, array in store.arrays.items()} == {
        'features': 'float32',
        'label': 'int32',
        'group': 'int32',
    }


@pytest.mark.filterwarnings('ignore:.*one training example alone')
def test_without_names_all_columns_of_numbers_but_label_and_group_are_features(tmp_path):
    path = write(tmp_path / 'all.parquet')
    found = data.read(config(path, label='price', group='red')).arrays['features'][:]
    expected = np.array([ROWS[name] for name in ('age', 'height', 'smokes', 'ripe')], np.float32).T
    np.testing.assert_array_equal(found, expected)
    found = data.read(config(path, label='red, ripe')).arrays['features'].shape
    assert found == (6, 4)
    assert data.read(config(path, label='price:number')).arrays['features'].shape == (6, 5)


def test_facts_are_of_the_training_split(tmp_path):
    columns = {**ROWS, 'age': [3e6 + a for a in ROWS['age']], 'height': [0.1] * 6}
    path = write(tmp_path / 'all.parquet', columns)
    dataset = data.load(config(path, features=('age', 'height', 'red'), label='price:number'))
    train = dataset.splits['train']
    features = dataset.arrays['features'][train].astype(np.float64)
    np.testing.assert_allclose(dataset.facts['mean'], features.mean(0), rtol=1e-12)
    np.testing.assert_allclose(dataset.facts['std'], [features[:, 0].std(), 1, features[:, 2].std()], rtol=1e-9)
    assert dataset.facts['features'] == 3
    prices = np.array(ROWS['price'])[train]
    assert (dataset.facts['label_mean'], dataset.facts['label_std']) == pytest.approx((prices.mean(), prices.std()))


@pytest.mark.parametrize(
    'label, field, dtype, values, names',
    [
        ('price', 'label', 'int32', [2, 4, 0, 3, 5, 1], ('80', '90', '100', '120', '250', '300')),
        ('price:number', 'label', 'float32', ROWS['price'], ()),
        ('height', 'label', 'float32', np.array(ROWS['height'], np.float32).tolist(), ()),
        ('smokes', 'label', 'int32', [1, 0, 0, 1, 0, 1], ('False', 'True')),
        ('red,ripe', 'labels', 'uint8', [[a, b] for a, b in zip(ROWS['red'], ROWS['ripe'], strict=True)], ('red', 'ripe')),
    ],
)
@pytest.mark.filterwarnings('ignore:.*one training example alone')
def test_a_label_is_a_class_a_number_or_several_answers(tmp_path, label, field, dtype, values, names):
    store = data.read(config(write(tmp_path / 'all.parquet'), label=label, features=('age',)))
    assert (store.arrays[field].dtype, store.class_names) == (dtype, names)
    assert store.arrays[field][:].tolist() == values
    assert store.classes == (len(names) if dtype == 'int32' else None)


def test_parts_have_tables_of_their_own(tmp_path):
    write(tmp_path / 'mine' / 'train.csv')
    write(
        tmp_path / 'mine' / 'test.csv', {name: [*values[:2], values[0]] for name, values in ROWS.items()} | {'town': [*'xyx']}
    )
    dataset = data.load(config(tmp_path / 'mine', test=0, features=('age',), group='town'))
    assert dataset.splits['test'].tolist() == [6, 7, 8] and dataset.group_names == ('bonn', 'kiel', 'ulm', 'x', 'y')
    assert dataset.arrays['label'][dataset.splits['test']].tolist() == [0, 1, 0]


def drawn(seed):
    return PIL.Image.fromarray(np.random.default_rng(seed).integers(0, 256, (5, 5), np.uint8))


def test_a_column_of_files_gives_images_with_what_stands_beside_them(tmp_path):
    folder = tmp_path / 'mine'
    (folder / 'pictures').mkdir(parents=True)
    for seed in range(30):
        drawn(seed).save(folder / 'pictures' / f'{seed}.png')
    (folder / 'pictures' / '3.png').write_bytes(b'')
    names = [f'pictures/{seed}.png' for seed in (*range(10), 99, 20, 21)]
    write(folder / 'train.csv', {'file': names[:11], 'label': [*'ababababab', 'a'], 'town': [*'xyxyyxyxyx', 'y']})
    write(folder / 'test.csv', {'file': names[11:], 'label': ['b', 'a'], 'town': ['z', 'x']})
    asked = config(folder, image='file', group='town', test=0, bad_files=0.2)
    with pytest.warns(UserWarning, match=r'2 of 13 files .*3.png \(empty\).*99.png \(no such file\)'):
        dataset = data.load(asked)
    seeds = [0, 1, 2, 4, 5, 6, 7, 8, 9, 20, 21]
    np.testing.assert_array_equal(dataset.arrays['image'][:][..., 0], [np.asarray(drawn(seed)) for seed in seeds])
    assert dataset.arrays['label'][:].tolist() == [0, 1, 0, 0, 1, 0, 1, 0, 1, 1, 0]
    assert [dataset.group_names[i] for i in dataset.arrays['group'][:]] == [*'xyxyxyxyxzx']
    assert dataset.splits['test'].tolist() == [9, 10] and dataset.facts['classes'] == 2
    with pytest.warns(UserWarning):  # other labels of the same files are other data
        write(folder / 'test.csv', {'file': names[11:], 'label': ['a', 'a'], 'town': ['z', 'x']})
        assert data.load(asked).checksum != dataset.checksum


def test_files_of_a_table_stay_on_their_side(tmp_path):
    for seed in range(60):
        drawn(seed).save(tmp_path / f'{seed}.png')
    sides = []
    for count in (30, 60):
        files = [f'{seed}.png' for seed in range(count)]
        path = write(tmp_path / f'{count}.csv', {'file': files, 'label': [*'ab'] * (count // 2)})
        dataset = data.load(config(path, image='file', test=0.3))
        sides.append({split: {i.tobytes() for i in dataset.arrays['image'][rows]} for split, rows in dataset.splits.items()})
    assert all(sides[0][split] <= sides[1][split] for split in sides[0]) and len(sides[0]['test']) > 2


BAD = {**ROWS, 'height': [1.75, None, 1.82, None, 1.66, 1.9], 'odd': ['1', '2', 'x', '4', '5', '6'], 'more': [0, 1, 2, 0, 1, 1]}


@pytest.mark.parametrize(
    'name, changes, said',
    [
        ('', {}, 'data.path is empty'),
        ('none.csv', {}, 'expected a table'),
        ('all.xls', {}, 'expected a table|ends in'),
        ('all.csv', {'label': 'lable'}, "no column 'lable'. Did you mean 'label'"),
        ('all.csv', {'features': ('ages',)}, "no column 'ages'. Did you mean 'age'.*data.features"),
        ('all.csv', {'group': 'towns'}, "no column 'towns'. Did you mean 'town'.*data.group"),
        ('all.csv', {'image': 'town', 'features': ('age',)}, 'both set'),
        ('all.csv', {'image': 'age'}, '6 rows have no path of a file'),
        ('all.csv', {'features': ('height',)}, r"2 rows have no value in the column 'height', counted from 0: 1, 3\."),
        ('all.csv', {'features': ('town',)}, "6 rows have no number in the column 'town'"),
        ('all.csv', {'features': ('odd',)}, r"1 rows have no number in the column 'odd', counted from 0: 2\."),
        ('all.parquet', {'label': 'age'}, "'odd' would be a column of numbers, but for 1 rows such as 2 .*data.features"),
        ('all.csv', {'label': 'red,more', 'features': ('age',)}, r"neither 0 nor 1 in the column 'more', counted from 0: 2\."),
        ('all.csv', {'label': 'red,rip', 'features': ('age',)}, "no column 'rip'. Did you mean 'ripe'"),
        ('all.csv', {'features': ('age',), 'resize': 3}, 'it has no images'),
        ('all.csv', {'features': ('age', 'label')}, "data.features has 'label', which data.label names too"),
        ('all.csv', {'features': ('age', 'price'), 'label': 'price:number'}, "data.features has 'price'"),
        ('all.csv', {'features': ('ripe',), 'label': 'red, ripe'}, "data.features has 'ripe'"),
    ],
)
@pytest.mark.filterwarnings('ignore:.*one training example alone')
def test_what_is_wrong_is_said_in_a_sentence(tmp_path, name, changes, said):
    for kind in ('csv', 'parquet'):
        write(tmp_path / f'all.{kind}', BAD)
    (tmp_path / 'all.xls').write_text('x')
    with pytest.raises(ConfigError, match=said) as caught:
        data.load(config(tmp_path / name if name else '', **changes))
    assert '\n' not in str(caught.value)


def test_a_table_without_a_label_or_with_one_class_is_refused(tmp_path):
    bare = {name: values for name, values in ROWS.items() if name != 'label'}
    with pytest.raises(ConfigError, match='Set data.label to one of: age, height'):
        data.read(config(write(tmp_path / 'a.csv', bare)))
    with pytest.raises(ConfigError, match="one class alone, 'x'"):
        data.read(config(write(tmp_path / 'b.csv', {**ROWS, 'label': ['x'] * 6})))
    with pytest.raises(ConfigError, match="no column of numbers beside its label.*data.name to 'texts'"):
        data.read(config(write(tmp_path / 'c.csv', {name: ROWS[name] for name in ('town', 'label')})))


@pytest.mark.parametrize('kind', ['csv', 'tsv', 'parquet'])
def test_an_empty_cell_is_no_class_and_no_group(tmp_path, kind):
    for column in ('label', 'town'):
        path = write(tmp_path / f'{column}.{kind}', ROWS | {column: ['a', '', 'b', ' ', 'a', 'b']})
        with pytest.raises(ConfigError, match=f"2 rows have no value in the column '{column}', counted from 0: 1, 3"):
            data.read(config(path, features=('age',), group='town'))
        for changes in ({}, {'group': 'town'}):
            texts = config(path, name='texts', text='red', **changes)
            if column == 'label' or changes:
                with pytest.raises(ConfigError, match=f"2 rows have no '{column}', the first is row 1"):
                    data.read(texts)


def test_numbers_written_as_texts_are_read_where_they_are_named(tmp_path):
    path = write(tmp_path / 'all.jsonl', ROWS | {'size': ['1.5', '2', '3e1', '-4', '5', '6']})
    with pytest.raises(ConfigError, match="'size' would be a column of numbers, but they are written as texts.*data.features"):
        data.read(config(path))
    found = data.read(config(path, features=('size',))).arrays['features']
    assert found[:].tolist() == [[1.5], [2], [30], [-4], [5], [6]]


def test_numbers_too_near_to_each_other_for_32_bits_are_refused(tmp_path):
    times = 1_700_000_000 + np.arange(60)
    rows = {'label': [*'ab'] * 30, 'time': times, 'since': times - times[0], 'tenth': 0.1 + 1e-17 * (times % 2)}
    path = write(tmp_path / 'a.parquet', rows | {'dense': np.random.default_rng(0).uniform(size=60), 'as_float': times * 1.0})
    said = "the column 'time' has 60 different values from 1.7e\\+09 to 1.7e\\+09, of which 32 bits leave 1. .* 1700000000"
    for changes in ({'features': ('time',)}, {}, {'features': ('since',), 'label': 'time:number'}):
        with pytest.raises(ConfigError, match=said):
            data.read(config(path, **changes))
    with pytest.raises(ConfigError, match="column 'as_float'"):
        data.read(config(path, features=('since',), label='as_float'))
    found = data.read(config(path, features=('since', 'tenth', 'dense'))).arrays['features'][:]
    assert [len(np.unique(column)) for column in found.T][::2] == [60, 60]


def test_two_files_of_a_part_are_refused(tmp_path):
    write(tmp_path / 'train.csv'), write(tmp_path / 'train.tsv')
    with pytest.raises(ConfigError, match="has several 'train': train.csv, train.tsv. Leave one"):
        data.read(config(tmp_path))


def test_what_datasets_has_cached_is_no_data(tmp_path):
    saved = write(tmp_path / 'saved')
    (saved / 'cache-0123.arrow').write_bytes((saved / 'data-00000-of-00001.arrow').read_bytes())
    assert len(data.read(config(saved, features=('age',))).arrays['label']) == 6


PIXELS = np.random.default_rng(0).integers(0, 256, (12, 4, 4), np.uint8)
ARRAYS = {'train_image': PIXELS[:9], 'train_label': np.arange(9) % 3, 'test_image': PIXELS[9:], 'test_label': np.arange(3)}


@pytest.mark.parametrize('kind', ['npz', 'folder'])
def test_numpy_files_are_a_loaders_arrays(tmp_path, kind):
    if kind == 'npz':
        np.savez(tmp_path / 'mine.npz', **ARRAYS)
    else:
        for name, array in ARRAYS.items():
            np.save(tmp_path / name, array)
    store = data.read(config(tmp_path / 'mine.npz' if kind == 'npz' else tmp_path, name='arrays'))
    np.testing.assert_array_equal(store.arrays['image'][:][..., 0], PIXELS)
    assert store.parts == {'train': range(9), 'test': range(9, 12)} and store.classes == 3
    owner = store.arrays['image'].parts[0]
    while isinstance(owner.base, np.ndarray):
        owner = owner.base
    assert isinstance(owner, np.memmap) == (kind == 'folder')


def test_arrays_without_a_part_are_training_data(tmp_path):
    np.save(tmp_path / 'image.npy', PIXELS)
    np.save(tmp_path / 'label.npy', np.arange(12) % 2)
    dataset = data.load(config(tmp_path, name='arrays', test=0.25))
    assert {split: len(rows) for split, rows in dataset.splits.items()} == {'train': 9, 'validation': 0, 'test': 3}


def test_numpy_files_that_cannot_be_had_are_said(tmp_path):
    def refused(path):
        with pytest.raises(ConfigError) as caught:
            data.read(config(path, name='arrays'))
        return str(caught.value)

    assert 'data.path is empty' in refused('')
    assert 'expected a .npz file' in refused(tmp_path / 'no.npz') and 'no training arrays' in refused(tmp_path)
    np.save(tmp_path / 'image.npy', PIXELS)
    np.save(tmp_path / 'train_image.npy', PIXELS)
    assert "both 'image' and 'train_image'" in refused(tmp_path)
    np.save(tmp_path / 'train_image.npy', np.array([{}], object), allow_pickle=True)
    assert 'train_image.npy cannot be read' in refused(tmp_path)
    (tmp_path / 'bad.npz').write_bytes(b'x' * 30)
    assert 'bad.npz cannot be read' in refused(tmp_path / 'bad.npz')
    np.savez(tmp_path / 'gap.npz', image=PIXELS, label=np.arange(12) % 2)
    with pytest.raises(ConfigError, match='one column of labels'):
        data.read(config(tmp_path / 'gap.npz', name='arrays', label='x'))


def test_damaged_numpy_files_are_said(tmp_path):
    np.save(tmp_path / 'image.npy', PIXELS)
    single = (tmp_path / 'image.npy').rename(tmp_path / 'single.npz')
    with pytest.raises(ConfigError, match='is a single array, by its content a .npy file'):
        data.read(config(single, name='arrays'))
    np.savez_compressed(tmp_path / 'mine.npz', **ARRAYS)
    content, refused = (tmp_path / 'mine.npz').read_bytes(), 0
    for place in range(0, len(content), 7):
        (tmp_path / 'mine.npz').write_bytes(content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :])
        try:
            array_files.load(str(tmp_path / 'mine.npz'))
        except ConfigError:
            refused += 1
    assert refused > 20
