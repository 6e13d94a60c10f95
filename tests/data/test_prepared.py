"""Data sets that TFDS prepares, without TensorFlow and without a network."""

import contextlib
import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import catalogue_builder
import numpy as np
import PIL.Image
import pytest
import synthetic
import tensorflow_datasets as tfds
from tensorflow_datasets.image_classification import mnist

from research import data
from research.catalogue import ConfigError
from research.data import decoded, images, prepared


@pytest.fixture(autouse=True)
def data_dir(tmp_path, monkeypatch):
    monkeypatch.setenv('TFDS_DATA_DIR', str(tmp_path / 'prepared'))
    return tmp_path / 'prepared'


def config(folder, **changes):
    return {**synthetic.BASE, 'name': 'mnist', 'path': str(folder), **changes}


def sorted_rows(images, labels):
    rows = np.column_stack([np.asarray(images).reshape(len(images), -1), labels])
    return rows[np.lexsort(rows.T)]


def assert_facts_are_of_the_training_split(dataset, classes):
    training = dataset.splits['train']
    images, labels = dataset.arrays['image'][training], dataset.arrays['label'][training]
    assert dataset.facts['classes'] == classes
    assert dataset.facts['counts'] == tuple(int((labels == k).sum()) for k in range(classes))
    np.testing.assert_allclose(dataset.facts['mean'], images.mean((0, 1, 2), np.float64), rtol=1e-12)
    np.testing.assert_allclose(dataset.facts['std'], images.std((0, 1, 2), np.float64), rtol=1e-9)


def test_idx_files_come_through_unchanged(tmp_path):
    dataset = data.load(config(synthetic.write_folder(tmp_path / 'raw'), validation=0.2))
    arrays, parts = dataset.arrays, synthetic.load('')
    training = np.concatenate([dataset.splits['train'], dataset.splits['validation']])
    for examples, part in ((training, 'train'), (dataset.splits['test'], 'test')):
        assert np.array_equal(sorted_rows(arrays['image'][examples], arrays['label'][examples]), sorted_rows(*parts[part]))
    assert dataset.fields == {'image': data.Field((6, 6, 1), np.dtype(np.uint8)), 'label': data.Field((), np.dtype(np.int32))}
    assert_facts_are_of_the_training_split(dataset, parts['train'][1].max() + 1)
    assert 'tensorflow' not in sys.modules


def test_preparing_again_does_nothing(tmp_path, data_dir):
    folder = synthetic.write_folder(tmp_path / 'raw')
    data.read(config(folder))
    before = {path: path.stat().st_mtime_ns for path in data_dir.rglob('*') if path.is_file()}
    first, again = data.load(config(folder)), data.load(config(folder))
    assert {path: path.stat().st_mtime_ns for path in data_dir.rglob('*') if path.is_file()} == before
    assert first.checksum == again.checksum


def test_other_files_are_other_data(tmp_path):
    folder = synthetic.write_folder(tmp_path / 'raw')
    before = data.load(config(folder))
    synthetic.write_idx(folder / 'train-images-idx3-ubyte.gz', synthetic.images(synthetic.TRAIN, 5))
    assert data.load(config(folder)).checksum != before.checksum


def test_what_a_dead_process_left_is_done_again(tmp_path, data_dir):
    folder = synthetic.write_folder(tmp_path / 'raw')
    whole = data.load(config(folder))
    decoded = next(data_dir.rglob('decoded'))
    torn = decoded.with_name('decoded.incomplete')
    decoded.rename(torn)
    (torn / 'content.json').unlink()
    assert data.load(config(folder)).checksum == whole.checksum
    assert not torn.exists()


def test_the_names_on_disk_are_frozen(tmp_path, data_dir):
    data.read(config(synthetic.write_folder(tmp_path / 'raw')))
    decoded = next(data_dir.rglob('decoded'))
    why = 'Folders that older versions have prepared can no longer be read.'
    assert {path.name for path in decoded.iterdir()} == {'image.npy', 'label.npy', 'moments.npy', 'content.json'}, why
    assert json.loads((decoded / 'content.json').read_text()) == {
        'train': synthetic.TRAIN,
        'parts': {'train': synthetic.TRAIN, 'test': synthetic.TEST},
        'num_classes': 10,
        'checksum': 'b847efe345824e2c',
    }, why


PREPARE = """
import sys
sys.path.insert(0, sys.argv[2])
import synthetic
from research import data
print('ready', flush=True)
sys.stdin.readline()
print(data.load({**synthetic.BASE, 'name': 'mnist', 'path': sys.argv[1]}).checksum)
"""


@contextlib.contextmanager
def processes(count, folder):
    command = [sys.executable, '-c', PREPARE, str(folder), os.path.dirname(__file__)]
    started = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(count)
    ]
    for process in started:
        assert process.stdout.readline() == 'ready\n'
    yield started
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.parametrize('count', [2, pytest.param(4, marks=pytest.mark.long)])
def test_processes_at_once_prepare_it_once(tmp_path, data_dir, count):
    with processes(count, synthetic.write_folder(tmp_path / 'raw')) as started:
        for process in started:
            process.stdin.write('go\n')
            process.stdin.flush()
        said = [process.communicate(timeout=100)[0] for process in started]
        assert [process.returncode for process in started] == [0] * count
    assert len({text.splitlines()[-1] for text in said}) == 1
    assert sum('Downloading and preparing' in text for text in said) == 1
    assert not list(data_dir.rglob('*incomplete*'))


@pytest.mark.long
def test_a_lock_is_free_once_its_holder_is_killed(tmp_path, data_dir):
    holder = subprocess.Popen(
        [
            sys.executable,
            '-c',
            (
                'import pathlib, sys, time\nfrom research.data import decoded\n'
                'with decoded.alone(pathlib.Path(sys.argv[1])):\n    print(1, flush=True)\n    time.sleep(100)'
            ),
            str(data_dir / '.mnist.lock'),
        ],
        stdout=subprocess.PIPE,
    )
    holder.stdout.readline()
    with processes(1, synthetic.write_folder(tmp_path / 'raw')) as [waiting]:
        waiting.stdin.write('go\n')
        waiting.stdin.flush()
        time.sleep(1)
        assert waiting.poll() is None
        holder.send_signal(signal.SIGKILL)
        assert waiting.communicate(timeout=100)[0]
        assert waiting.returncode == 0
    holder.communicate()


def test_a_builder_of_the_catalogue_needs_no_tensorflow(tmp_path):
    raw = catalogue_builder.write_folder(tmp_path / 'raw')
    dataset = data.load(config(raw, name='frugal_toy'))
    arrays = dataset.arrays
    for part, files in (('train', 'train'), ('test', 'test')):
        expected = [np.load(file) for file in sorted((raw / files).iterdir())]
        examples = dataset.splits[part]
        assert np.array_equal(
            sorted_rows(arrays['image'][examples], arrays['label'][examples]),
            sorted_rows(expected, np.arange(len(expected)) % 10),
        )
    assert dataset.fields['image'].shape == (6, 6, 3)
    assert_facts_are_of_the_training_split(dataset, 10)
    assert 'tensorflow' not in sys.modules


def test_mnist_of_the_catalogue_needs_no_tensorflow(tmp_path, monkeypatch):
    def downloaded(manager, urls):
        paths = {}
        for key, url in urls.items():
            paths[key] = tmp_path / key
            paths[key].write_bytes(gzip.decompress((raw / url.split('/')[-1]).read_bytes()))
        return paths

    raw = tmp_path / 'raw'
    raw.mkdir()
    for name, count in (('train', 30), ('t10k', 12)):
        synthetic.write_idx(raw / f'{name}-images-idx3-ubyte.gz', synthetic.images(count, count, 28))
        synthetic.write_idx(raw / f'{name}-labels-idx1-ubyte.gz', synthetic.labels(count, count))
    monkeypatch.setattr(tfds.download.DownloadManager, 'download_and_extract', downloaded)
    monkeypatch.setattr(mnist, '_TRAIN_EXAMPLES', 30)
    monkeypatch.setattr(mnist, '_TEST_EXAMPLES', 12)
    monkeypatch.setattr(prepared, '_IDX_FOLDERS', {})
    dataset = data.load(config(''))
    arrays = dataset.arrays
    assert np.array_equal(
        sorted_rows(arrays['image'][:30], arrays['label'][:30]),
        sorted_rows(synthetic.images(30, 30, 28), synthetic.labels(30, 30)),
    )
    assert dataset.fields['image'].shape == (28, 28, 1)


@pytest.mark.parametrize(
    'name, said',
    [
        ('frugal_decoder', 'tf.io.decode_jpeg'),
        ('frugal_jpeg', 'expected uint8 as png'),
        ('frugal_train_alone', 'Set data.test, such as 0.2'),
        ('frugal_sounds', 'neither texts nor a classification'),
        ('emnist/balancd', 'balanced'),
        ('frugal_toi', "Did you mean 'frugal_toy'?"),
    ],
)
def test_what_cannot_be_had_without_tensorflow_says_why(tmp_path, name, said):
    with pytest.raises(ConfigError) as caught:
        data.load(config(catalogue_builder.write_folder(tmp_path / 'raw'), name=name))
    assert said in str(caught.value)


@pytest.fixture
def unequal(tmp_path):
    folder = catalogue_builder.write_images(tmp_path / 'raw')
    return config(folder, name='frugal_sizes', label='fine', resize=6, test=0.25, validation=0.1)


def test_images_of_several_sizes_are_brought_to_one_and_two_columns_are_told_apart(unequal, tmp_path):
    fine, coarse = data.load(unequal), data.load({**unequal, 'label': 'coarse'})
    assert fine.fields['image'].shape == (6, 6, 3)
    assert {split: len(rows) for split, rows in fine.splits.items()} == {'train': 27, 'validation': 3, 'test': 10}
    assert not np.intersect1d(fine.splits['train'], fine.splits['test']).size
    train = slice(0, 40)
    np.testing.assert_array_equal(fine.arrays['label'][train] // 2, coarse.arrays['label'][train])
    paths = sorted((tmp_path / 'raw' / 'train').glob('*/*.png'))
    expected = [np.asarray(images.fit(PIL.Image.open(path), 6, 0)) for path in paths]
    labels = [int(path.parent.name) for path in paths]
    assert np.array_equal(sorted_rows(fine.arrays['image'][train], fine.arrays['label'][train]), sorted_rows(expected, labels))


def test_the_official_validation_split_is_taken_where_asked_for(unequal):
    dataset = data.load({**unequal, 'official_validation': True})
    assert dataset.splits['validation'].tolist() == [*range(48, 56)]
    assert len(dataset.splits['train']) == 30


@pytest.mark.parametrize(
    'change, said',
    [
        ({'resize': 0}, 'Set data.resize'),
        ({'resize': 0, 'crop': 9}, 'smaller than the square of 9'),
        ({'label': ''}, 'Set data.label to one of: coarse, fine'),
        ({'label': 'fin'}, "no column of classes 'fin'"),
        ({'test': 0.0}, '8 of 8 test examples of .* have no label .* Set data.test'),
        ({'test': 40.0}, 'data.test=40.0 leaves none of 40'),
    ],
)
def test_what_such_data_lack_is_said_with_what_to_set(unequal, change, said):
    with pytest.raises(ConfigError, match=said):
        data.load({**unequal, **change})


def test_train_alone_can_be_cut(tmp_path):
    raw = catalogue_builder.write_folder(tmp_path / 'raw')
    asked = config(raw, name='frugal_train_alone', test=3.0)
    dataset = data.load(asked)
    assert {split: len(rows) for split, rows in dataset.splits.items()} == {'train': 10, 'validation': 0, 'test': 3}
    with pytest.raises(ConfigError, match='has only the parts train'):
        data.load({**asked, 'official_validation': True})


def cut_short(path):
    path.write_bytes(path.read_bytes()[:-100])


def flip(path):
    content = bytearray(path.read_bytes())
    content[-100:] = bytes(100)
    path.write_bytes(content)


def one_bit(path):
    """In an example that no sample of a few reads."""
    content = bytearray(path.read_bytes())
    content[-10] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize('harm', [cut_short, flip, os.remove, one_bit])
@pytest.mark.parametrize('name', ['image.npy', 'label.npy', 'content.json'])
def test_a_damaged_file_names_itself_and_its_cure(tmp_path, data_dir, monkeypatch, harm, name):
    asked = config(synthetic.write_folder(tmp_path / 'raw'))
    whole = data.read(asked).checksum
    monkeypatch.setattr(decoded, 'SAMPLE', 3)
    file = next(data_dir.rglob(name))
    harm(file)
    with pytest.raises(ConfigError) as caught:
        data.read(asked, whole=True)
    assert str(file) in str(caught.value) or 'image.npy or label.npy' in str(caught.value)
    shutil.rmtree(file.parent)  # as it says
    assert data.read(asked).checksum == whole


def test_data_that_an_older_version_prepared_are_read(tmp_path, data_dir):
    asked = config(synthetic.write_folder(tmp_path / 'raw'))
    now = data.read(asked)
    path = next(data_dir.rglob('content.json'))
    content = json.loads(path.read_text())
    del content['parts']
    path.write_text(json.dumps(content))
    assert data.read(asked).parts == now.parts


def test_no_network_is_said_with_a_way_out(monkeypatch):
    def fails(manager, urls):
        raise ConnectionError('no route')

    monkeypatch.setattr(tfds.download.DownloadManager, 'download_and_extract', fails)
    monkeypatch.setattr(prepared, '_IDX_FOLDERS', {'mnist': '/nowhere'})
    with pytest.raises(ConfigError) as caught:
        data.load(config(''))
    assert 'no route' in str(caught.value)
    assert 'idx files' in str(caught.value)


def test_a_folder_that_cannot_be_written_is_said(tmp_path, monkeypatch):
    (tmp_path / 'file').write_text('')
    monkeypatch.setenv('TFDS_DATA_DIR', str(tmp_path / 'file'))
    with pytest.raises(ConfigError, match='TFDS_DATA_DIR'):
        data.load(config(synthetic.write_folder(tmp_path / 'raw')))


def truncate(path):
    path.write_bytes(path.read_bytes()[:-3])


def swap(path):
    shutil.copy(path.with_name('train-labels-idx1-ubyte'), path)


def shorten(path):
    synthetic.write_idx(path, synthetic.images(synthetic.TEST - 1, 0))


@pytest.mark.parametrize(
    'name, harm, said',
    [
        ('t10k-images-idx3-ubyte', truncate, 'expected 628'),
        ('train-images-idx3-ubyte.gz', truncate, 'Cannot read'),
        ('t10k-images-idx3-ubyte', swap, 'starts with the bytes 00000801'),
        ('t10k-labels-idx1-ubyte.gz', os.remove, 'lacks'),
        ('t10k-images-idx3-ubyte', shorten, 'a pair'),
        ('train-labels-idx1-ubyte', truncate, 'expected 61'),
    ],
)
def test_broken_files_are_named(tmp_path, data_dir, name, harm, said):
    folder = synthetic.write_folder(tmp_path / 'raw')
    harm(folder / name)
    with pytest.raises(ConfigError) as caught:
        data.load(config(folder))
    assert said in str(caught.value)
    assert name.removesuffix('.gz') in str(caught.value)
    assert not list(data_dir.rglob('*incomplete*'))


def test_an_empty_folder_is_said(tmp_path):
    with pytest.raises(ConfigError, match='holds none of train-images'):
        data.load(config(tmp_path))
