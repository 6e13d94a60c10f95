"""Streams: the same bits as a gather from resident data, and nothing left behind."""

import dataclasses
import itertools
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest
import synthetic

from research import data
from research.catalogue import ConfigError
from research.data import reader, sampling
from research.data.dataset import take


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


def assert_streamed_is_resident(dataset, sampler, start, steps, batch_size, host=0, hosts=1, workers=0):
    rows = sampling.batches(sampler, 5, start, steps, batch_size, host, hosts)
    stream = reader.stream(dataset, sampler, 5, start, batch_size, host, hosts, workers)
    count = 0
    for batch, expected in zip(itertools.islice(stream, steps), rows, strict=True):
        assert_equal(batch, take(dataset, expected, streaming=False))
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


@pytest.mark.parametrize('workers', [0, 1, pytest.param(2, marks=pytest.mark.long)])
def test_a_stream_of_records_is_a_gather_whatever_reads_it(prepared, workers):
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
    assert_equal(batch, take(texts, rows, streaming=False))
    assert np.all(batch['tokens'][1] == 9) and not batch['label'][1].any()
    [batch] = reader.read(texts, rows[:, 1], 5)
    assert_equal(batch, take(texts, rows[:, 1], streaming=False))


def test_validation_and_test_examples_are_never_trained_on(dataset):
    class Watched:
        def __init__(self):
            self.seen = set()

        def __len__(self):
            return len(dataset.source)

        def __getitem__(self, index):
            self.seen.add(index)
            return dataset.source[index]

    watched = Watched()
    stream = reader.stream(dataclasses.replace(dataset, source=watched), shuffled(dataset), 0, 0, 47)
    next(stream)
    stream.close()
    assert watched.seen == set(dataset.splits['train'].tolist())


def test_hosts_that_do_not_divide_the_batch_are_refused_before_reading(dataset):
    with pytest.raises(ConfigError, match='batch_size=10'):
        reader.stream(dataset, shuffled(dataset), 0, 0, 10, host=0, hosts=4)


def test_an_example_that_cannot_be_decoded_is_no_silence(dataset):
    class Broken:
        def __len__(self):
            return len(dataset.source)

        def __getitem__(self, index):
            raise OSError('torn record')

    with pytest.raises(OSError, match='torn record'):
        next(reader.stream(dataclasses.replace(dataset, source=Broken()), shuffled(dataset), 0, 0, 8))


def test_shared_memory_of_the_dead_is_removed_and_no_other(tmp_path, monkeypatch):
    dead = subprocess.Popen([sys.executable, '-c', ''])
    dead.wait()
    kept = {f'frugal_{os.getpid()}-a', f'sem.frugal_{os.getpid()}-b', f'psm_{dead.pid}', 'frugal_notes-c'}
    for name in kept | {f'frugal_{dead.pid}-a', f'sem.frugal_{dead.pid}-b'}:
        (tmp_path / name).touch()
    monkeypatch.setattr(reader, '_SHARED_MEMORY', tmp_path)
    reader._remove_stale_memory()
    assert {path.name for path in tmp_path.iterdir()} == kept


SCRIPT = """
import sys, time
sys.path[:0] = {paths!r}
import synthetic
from research import data
from research.data import reader, sampling

if __name__ == '__main__':
    dataset = data.load({{**synthetic.BASE, 'name': 'synthetic:load'}})
    stream = reader.stream(dataset, sampling.Shuffled(dataset.splits['train']), 0, 0, 4096, workers=2)
    next(stream)
    print('ready', flush=True)
    time.sleep(100)
"""


ENDED_WHILE_MAKING = """
import multiprocessing, os, sys
from multiprocessing import shared_memory
from research.data import reader

def make():
    reader._follow_parent(0, 1)
    os.ftruncate = lambda *arguments: os._exit(1)
    shared_memory.SharedMemory(create=True, size=1)

if __name__ == '__main__':
    child = multiprocessing.get_context('spawn').Process(target=make)
    child.start()
    child.join()
    sys.exit(child.exitcode != 1)
"""


def shared(pid):
    return [path.name for path in pathlib.Path('/dev/shm').iterdir() if re.fullmatch(rf'(sem\.)?frugal_{pid}-.*', path.name)]


def wait_until(condition):
    end = time.monotonic() + 20
    while not condition() and time.monotonic() < end:
        time.sleep(0.1)
    return condition()


def gone(process):
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


on_linux = pytest.mark.skipif(sys.platform != 'linux', reason='shared memory has no folder elsewhere')


@on_linux
def test_memory_half_made_when_its_maker_ends_is_removed(tmp_path):
    script = tmp_path / 'script.py'
    script.write_text(ENDED_WHILE_MAKING)
    parent = subprocess.Popen([sys.executable, str(script)])
    assert parent.wait() == 0
    assert wait_until(lambda: not shared(parent.pid))


@on_linux
@pytest.mark.parametrize('everything', [False, pytest.param(True, marks=pytest.mark.long)])
def test_a_killed_reader_leaves_nothing_behind(tmp_path, everything):
    script = tmp_path / 'script.py'
    script.write_text(SCRIPT.format(paths=sys.path))
    parent = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert parent.stdout.readline() == b'ready\n'
    children = psutil.Process(parent.pid).children(recursive=True)
    assert len(children) == 3, 'two readers and what cleans up after them'
    assert {name.split(str(parent.pid))[0] for name in shared(parent.pid)} == {'frugal_', 'sem.frugal_'}
    for process in [psutil.Process(parent.pid), *(children if everything else [])]:
        process.send_signal(signal.SIGKILL)
    parent.communicate()
    assert wait_until(lambda: all(map(gone, children)))
    if everything:
        assert shared(parent.pid)
        reader._remove_stale_memory()
    assert wait_until(lambda: not shared(parent.pid))
