"""What lies on the devices: one copy of a source, of the rows that may be read, where it fits."""

import jax
import numpy as np
import pytest
import tiny

from research import cost
from research.cost import free
from research.optim.plateau import START
from research.train import experiment, placing
from research.train.feed import Feed
from research.train.program import Session

SETTINGS = (
    {},
    {'data.examples': 100},
    {'data.examples': 200, 'data.validation': 50.0},
    {'data.split_seed': 3},
    {'data.reference_size': 32},
    {'data.batch_size': 16},
    {'data.test': 0.1},
)


def test_settings_share_one_copy_and_read_their_rows_from_it():
    session = Session()
    configs = [tiny.config(change) for change in SETTINGS]
    for config in configs:
        experiment.load_data(config, session)
    built = [tiny.build(session, change) for change in SETTINGS]
    assert len(session.stores) == len(session.placed) == 1
    assert len({id(one.data['examples']['image']) for one in built}) == 1
    for one in built:
        chunk = Feed(one).chunk(0, 0, 2, one.batch_size, START)
        rows = one.sampler(one.order_seed, 0, 2 * one.batch_size)
        found = np.asarray(chunk.data['examples']['image'])[np.asarray(chunk.rows)[:2]]
        np.testing.assert_array_equal(found.reshape(-1, 8, 8, 1), one.dataset.arrays['image'][rows])


def test_only_rows_that_may_be_read_are_placed():
    built = tiny.build(Session(), {'data.examples': 100, 'data.validation': 50.0})
    assert len(built.data['examples']['image']) == 100 + 50 + 360
    data, block = next(iter(Feed(built).blocks(built.dataset.splits['test'])))
    numbers = block.numbers[block.valid > 0]
    np.testing.assert_array_equal(
        data['examples']['label'][block.rows[block.valid > 0]], built.dataset.arrays['label'][numbers]
    )


def test_data_that_come_later_and_read_more_are_another_program():
    session, few = Session(), {'data.examples': 100}
    tiny.steps(tiny.build(session, few), 1)
    more = tiny.build(session, few, {'data.split_seed': 1})  # traced: the same compile key
    assert len(more.data['examples']['image']) == 1797
    tiny.steps(more, 1)


@pytest.mark.parametrize('free_bytes, streams', [(1 << 30, False), (200_000, True), (None, False)])
def test_what_does_not_fit_is_streamed_and_says_so(monkeypatch, free_bytes, streams):
    monkeypatch.setattr(cost, 'room', lambda device: free_bytes)
    built = tiny.build(Session(), {'data.streaming': 'auto'})
    assert built.streaming == streams and bool(built.why) == streams
    assert built.data['examples'].keys() == (set() if streams else {'image', 'label'})


def test_data_that_were_placed_stay_though_they_leave_less_room(monkeypatch):
    session, free_bytes = Session(), iter((300_000, 150_000))
    monkeypatch.setattr(cost, 'room', lambda device: next(free_bytes))
    one, other = (tiny.build(session, change) for change in ({}, {'data.reference_size': 32}))
    assert not one.streaming and not other.streaming


def test_pmap_gives_each_device_its_copy_and_no_device_all():
    built = tiny.build(Session(), {'train.engine': 'pmap', 'train.devices': 4, 'data.batch_size': 64})
    shards = built.data['examples']['image'].addressable_shards
    assert [shard.data.shape for shard in shards] == [(1, 1797, 8, 8, 1)] * 4
    assert {shard.device for shard in shards} == set(jax.devices())


def test_a_file_on_disk_is_the_copy_of_a_host_device(tmp_path):
    """Its memory is the page cache, not another copy."""
    np.save(tmp_path / 'image.npy', np.arange(4 << 20, dtype=np.uint8).reshape(1 << 14, 256))
    column = placing.Column(np.load(tmp_path / 'image.npy', mmap_mode='r'))
    built = tiny.build(Session(), {'train.devices': 1})
    array = built.program.engine.replicate({'image': column.parts[0]}, may_alias=True)['image']
    assert array.unsafe_buffer_pointer() == column.parts[0].ctypes.data
    rows = np.arange(5, 1000)
    aligned = placing._aligned(column, rows)
    np.testing.assert_array_equal(aligned, column[rows])
    assert built.program.engine.replicate(aligned, may_alias=True).unsafe_buffer_pointer() == aligned.ctypes.data


@pytest.mark.parametrize(
    'cgroup, files, expected',
    [
        (
            '0::/a/b',
            {'a/memory.max': '3000', 'a/memory.current': '1000', 'a/memory.stat': 'inactive_file 100\nactive_file 50'},
            2150,
        ),
        ('0::/a', {'a/memory.max': 'max', 'a/memory.current': '1000', 'a/memory.stat': ''}, 8192),
        (
            '4:memory:/c',
            {
                'memory/c/memory.limit_in_bytes': '3000',
                'memory/c/memory.usage_in_bytes': '500',
                'memory/c/memory.stat': 'total_inactive_file 20',
            },
            2520,
        ),
        ('1:cpu:/c', {}, 8192),
    ],
)
def test_free_memory_is_what_every_control_group_leaves(tmp_path, monkeypatch, cgroup, files, expected):
    (tmp_path / 'proc' / 'self').mkdir(parents=True)
    (tmp_path / 'proc' / 'meminfo').write_text('MemTotal: 9 kB\nMemAvailable: 8 kB\n')
    (tmp_path / 'proc' / 'self' / 'cgroup').write_text(f'{cgroup}\n')
    for name, text in files.items():
        path = tmp_path / 'groups' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.setattr(free, '_PROC', tmp_path / 'proc')
    monkeypatch.setattr(free, '_GROUPS', tmp_path / 'groups')
    assert free.room(jax.devices()[0]) == expected
