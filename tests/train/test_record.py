"""metrics.jsonl and TensorBoard events: what a run goes on from is kept, what came after is dropped."""

import json
import struct

import pytest
from tensorboardX.proto import event_pb2

from research.train.record import Metrics


def row(step):
    return {'step': step, 'position': 64 * step, 'validation/accuracy': step / 100, 'learning_rate': 0.5}


def scalars(folder):
    """(tag, step, value) of every event; TFRecord framing: length, its checksum, content, its checksum."""
    found = []
    for path in sorted(folder.glob('events.out.tfevents.*')):
        content = path.read_bytes()
        while content:
            (length,) = struct.unpack('<Q', content[:8])
            event = event_pb2.Event.FromString(content[12 : 12 + length])
            found += [(v.tag, event.step, v.simple_value) for v in event.summary.value]
            content = content[16 + length :]
    return found


def test_events_say_what_the_lines_say(tmp_path):
    metrics = Metrics(tmp_path / 'metrics.jsonl', 0)
    for step in (10, 20):
        metrics.append(row(step))
    metrics.close()
    assert [json.loads(line) for line in (tmp_path / 'metrics.jsonl').read_text().splitlines()] == [row(10), row(20)]
    expected = [(name, r['step'], r[name]) for r in (row(10), row(20)) for name in ('learning_rate', 'validation/accuracy')]
    found = sorted(scalars(tmp_path / 'tensorboard'), key=lambda event: event[1::-1])
    assert [event[:2] for event in found] == [event[:2] for event in expected]
    assert [event[2] for event in found] == pytest.approx([event[2] for event in expected])


def test_going_on_drops_what_came_after_and_beginning_again_drops_all(tmp_path):
    path = tmp_path / 'metrics.jsonl'
    metrics = Metrics(path, 0)
    for step in (10, 20, 30):
        metrics.append(row(step))
    metrics.close()
    with open(path, 'a') as file:
        file.write('{"step": 40, "posit')  # a kill

    metrics = Metrics(path, row(20)['position'])
    metrics.append(row(30))
    metrics.close()
    assert [json.loads(line)['step'] for line in path.read_text().splitlines()] == [10, 20, 30]

    Metrics(path, 0).close()
    assert path.read_text() == '' and scalars(tmp_path / 'tensorboard') == []
