"""Streams: the same bits as a gather from resident data, and nothing left behind."""

import dataclasses
import itertools
import mmap
import threading

import numpy as np
import pytest
import synthetic

from research import data
from research.catalogue import ConfigError
from research.data import reader, sampling
from research.data.dataset import Column, take


@pytest.fixture
def dataset():
    return data.load({**synthetic.BASE, 'name': 'synthetic:load', 'validation': 6, 'split_seed': 1})  # 47 to train on, a prime


@pytest.fixture
def prepared(tmp_path, monkeypatch):
    monkeypatch.setenv('TFDS_DATA_DIR', str(tmp_path / 'prepared'))
    path = synthetic.write_folder(tmp_path / 'raw')
    return data.load({**synthetic.BASE, 'name': 'mnist', 'path': str(path), 'validation': 6})


@pytest.fixture
def texts():
    return data.load({**synthetic.BASE, 'name': 'synthetic:load_texts', 'validation': 6})


def assert_streamed_is_resident(dataset, sampler, start, steps, batch_size, host=0, hosts=1, workers=2):
    rows = sampling.batches(sampler, 5, start, steps, batch_size, host, hosts)
    stream = reader.stream(dataset, sampler, 5, start, batch_size, host, hosts, workers)
    count = 0
    for batch, expected in zip(itertools.islice(stream, steps), rows, strict=True):
        assert_equal(batch, take(dataset, expected))
        count += 1
    stream.close()
    assert count == steps


def assert_equal(batch, expected):
    assert set(batch) == set(expected)
    for field, array in expected.items():
        np.testing.assert_array_equal(batch[field], array)
        assert batch[field].dtype == array.dtype


def shuffled(dataset):
    return sampling.Shuffled(dataset.splits['train'])


def in_pairs(dataset):
    """A sampler whose positions take three rows, of which the last, or the last two, are empty."""
    rows = dataset.splits['train'][: len(dataset.splits['train']) // 2 * 2].reshape(-1, 2).copy()
    rows[::5, 1] = -1
    return sampling.Shuffled(np.column_stack([rows, np.full(len(rows), -1)]))


@pytest.mark.parametrize('start, batch_size, host, hosts', [(0, 16, 0, 1), (46, 5, 0, 1), (2**40 + 1, 64, 0, 1), (8, 8, 3, 4)])
def test_a_stream_is_a_gather(dataset, start, batch_size, host, hosts):
    assert_streamed_is_resident(dataset, shuffled(dataset), start, 9, batch_size, host, hosts)


@pytest.mark.parametrize('workers', [1, 3])
def test_a_stream_of_files_is_a_gather_whatever_reads_it(prepared, workers):
    assert_streamed_is_resident(prepared, shuffled(prepared), 30, 7, 12, host=1, hosts=2, workers=workers)


def test_several_rows_at_a_position_are_streamed_as_gathered(dataset, texts):
    for examples in (dataset, texts):
        assert_streamed_is_resident(examples, in_pairs(examples), 20, 3, 8, host=1, hosts=2)


def test_a_list_is_read_once_in_its_order(dataset):
    test = dataset.splits['test']
    batches = list(reader.read(dataset, test[::-1], 5))
    assert [len(batch['label']) for batch in batches] == [5, 5, 5, 2]
    for field, array in dataset.arrays.items():
        np.testing.assert_array_equal(np.concatenate([batch[field] for batch in batches]), array[test[::-1]])


def test_an_empty_row_is_read_as_the_fill_of_its_field(texts):
    tokens = texts.fields['tokens']._replace(fill=9)
    texts = dataclasses.replace(texts, fields={**texts.fields, 'tokens': tokens})
    rows = np.array([[3, -1], [-1, -1], [60, 7]])
    [batch] = reader.read(texts, rows, 5)
    assert_equal(batch, take(texts, rows))
    assert np.all(batch['tokens'][1] == 9) and not batch['label'][1].any()
    [batch] = reader.read(texts, rows[:, 1], 5)
    assert_equal(batch, take(texts, rows[:, 1]))


class Watched(Column):
    """A column that notes what is read of it, or breaks."""

    def __init__(self, column, error=None):
        super().__init__(*column.parts)
        self.seen, self.error = set(), error

    def __getitem__(self, rows):
        self.seen.update(np.ravel(rows).tolist())
        if self.error:
            raise self.error
        return super().__getitem__(rows)


def watched(dataset, error=None):
    return dataclasses.replace(dataset, arrays={name: Watched(column, error) for name, column in dataset.arrays.items()})


def test_validation_and_test_examples_are_never_trained_on(dataset):
    seen = watched(dataset)
    stream = reader.stream(seen, shuffled(dataset), 0, 0, 47)
    next(stream)
    stream.close()
    assert seen.arrays['image'].seen == set(dataset.splits['train'].tolist())


def test_hosts_that_do_not_divide_the_batch_are_refused_before_reading(dataset):
    with pytest.raises(ConfigError, match='batch_size=10'):
        reader.stream(dataset, shuffled(dataset), 0, 0, 10, host=0, hosts=4)


def test_an_example_that_cannot_be_read_is_no_silence(dataset):
    with pytest.raises(OSError, match='torn record'):
        next(reader.stream(watched(dataset, OSError('torn record')), shuffled(dataset), 0, 0, 8))


def test_a_stream_that_is_closed_leaves_no_thread(dataset):
    before = threading.active_count()
    stream = reader.stream(dataset, shuffled(dataset), 0, 0, 8, workers=3)
    next(stream)
    assert threading.active_count() == before + 3
    stream.close()
    assert threading.active_count() == before


def test_files_are_not_read_ahead_where_rows_are_read_at_random(tmp_path, monkeypatch):
    """On a cold disk that took 33 times as long."""
    advised = []

    class Watched(mmap.mmap):
        def madvise(self, *advice):
            advised.append(advice)

    monkeypatch.setattr(mmap, 'mmap', Watched)
    np.save(tmp_path / 'image.npy', np.zeros((3, 2, 2, 1), np.uint8))
    part = np.asarray(np.load(tmp_path / 'image.npy', mmap_mode='r'))
    Column(part, np.zeros((2, 2, 2, 1), np.uint8)).expect_random_reads()
    assert advised == [(mmap.MADV_RANDOM,)]
