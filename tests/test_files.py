"""A file is written whole or not at all; metrics are read whatever a kill left of the last line."""

import json
import os

import pytest

from research import files


@pytest.mark.parametrize('sync', [False, True])
@pytest.mark.parametrize('content', ['é\n', b'\x00\xff'])
def test_writes_text_and_bytes_and_leaves_nothing_else(tmp_path, content, sync):
    path = tmp_path / 'file'
    path.write_text('older and longer')
    files.write(path, content, sync=sync)
    assert path.read_bytes() == (content.encode() if isinstance(content, str) else content)
    assert list(tmp_path.iterdir()) == [path]


def test_nothing_is_left_of_what_could_not_be_written(tmp_path):
    (tmp_path / 'report.md').mkdir()
    with pytest.raises(OSError):
        files.write(tmp_path / 'report.md', 'text')
    assert [path.name for path in tmp_path.iterdir()] == ['report.md']


def test_a_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / 'result.json'
    path.write_text('old')

    def full(_):
        raise OSError('No space left on device')

    monkeypatch.setattr(os, 'fsync', full)
    with pytest.raises(OSError):
        files.write(path, 'new', sync=True)
    assert path.read_text() == 'old' and list(tmp_path.iterdir()) == [path]


def test_metrics_are_read_by_position_and_the_later_line_counts(tmp_path):
    path = tmp_path / 'metrics.jsonl'
    assert files.read_metrics(path) == []
    rows = [{'position': 64, 'loss': 2.0}, {'position': 128, 'loss': 1.0}, {'position': 64, 'loss': 3.0}]
    path.write_text(''.join(json.dumps(row) + '\n' for row in rows) + '[1]\n\n{"position": 192, "lo')
    assert files.read_metrics(path) == [rows[2], rows[1]]
