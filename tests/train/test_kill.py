"""Real processes, killed and stopped at chosen moments: the same command goes on and ends in the same bits."""

import contextlib
import dataclasses
import fcntl
import pathlib
import signal
import time

import killed
import pytest
from watched import Study

_INTERVAL = 5  # steps between checkpoints
_DIGITS = {
    'train.checkpoint_every': f'{_INTERVAL}st',
    'data.batch_size': 32,
    'data.eval_batch_size': 180,
    'model.widths': (4,),
    'model.hidden': (),
    'study.budget': '60st',
    'train.eval_every': '25st',
}
_FASHION_MNIST = {
    'train.checkpoint_every': f'{_INTERVAL}st',
    'data.name': 'fashion_mnist',
    'data.path': '/usr/share/datasets/fashion-mnist',
    'data.batch_size': 64,
    'data.eval_batch_size': 500,
    'data.validation': 1000,
    'model.widths': (16, 32),
    'study.budget': '300st',
    'train.eval_every': '100st',
}
_STREAMED = {'data.streaming': True, 'data.workers': 2}


def _kill(study: Study, monkeypatch, moments: list[tuple[str, int]]) -> int:
    """Kills at each moment: every launch goes on from a complete checkpoint, and not an old one. Returns the last step."""
    at = 0
    for moment, step in moments:
        events, status, _ = killed.launch(monkeypatch, study, signal.SIGKILL, moment, step)
        assert status == -signal.SIGKILL
        assert moment != 'save' or study.saving()
        _went_on(events, at)
        at = max(step for what, step in events if what in ('read', 'restored'))
    return at


def _finish(study: Study, at: int, whole: Study) -> None:
    _went_on(study.finish().events(), at)
    assert not (study.run / 'checkpoints').exists()
    assert study.bits() == whole.bits()


def _went_on(events: list[tuple[str, int]], at: int) -> None:
    """From at most two checkpoints before `at`: one was being written."""
    (restored,) = (step for what, step in events if what == 'restored')
    assert at - 2 * _INTERVAL <= restored <= at and (restored > 0) == (at > 0), (restored, at)


@pytest.fixture
def shared_memory(tmp_path_factory):
    """No shared memory is left behind: none that is new and that no living process holds.

    One test at a time: what another one kills leaves its memory until it is launched again.
    """
    with (tmp_path_factory.getbasetemp().parent / 'shared_memory.lock').open('w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        before = set(pathlib.Path('/dev/shm').iterdir())
        yield
        deadline = time.monotonic() + 5
        while left := {p for p in set(pathlib.Path('/dev/shm').iterdir()) - before if not _held(p)}:
            assert time.monotonic() < deadline, left
            time.sleep(0.1)


def _held(path: pathlib.Path) -> bool:
    for maps in pathlib.Path('/proc').glob('[0-9]*/maps'):
        with contextlib.suppress(OSError):  # it ended meanwhile
            if str(path) in maps.read_text():
                return True
    return not path.exists()


@pytest.fixture(scope='module')
def digits(tmp_path_factory):
    """A run that nobody disturbed."""
    folder = tmp_path_factory.mktemp('digits')
    study = Study(folder, _DIGITS, folder / 'whole')
    study.finish()
    return study


@pytest.mark.long
def test_killed_twice(digits, shared_memory, monkeypatch):
    study = dataclasses.replace(digits, workdir=digits.folder / 'killed')
    _finish(study, _kill(study, monkeypatch, [('save', 15), ('chunk', 40)]), digits)


@pytest.mark.parametrize('number', [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.long)])
def test_killed_and_then_stopped_by_a_signal(digits, shared_memory, monkeypatch, number):
    """A kill loses what was not saved. At a signal what is on its way is read and saved; the same command goes on from it."""
    study = dataclasses.replace(digits, workdir=digits.folder / number.name)
    at = _kill(study, monkeypatch, [('save', 15)])
    events, status, launch = killed.launch(monkeypatch, study, number, 'chunk', 20)
    _went_on(events, at)
    assert status == 128 + number
    assert f'Stopped by {number.name}' in launch.output() and 'goes on' in launch.output()
    assert 'Traceback' not in launch.output()
    assert not (study.run / 'result.json').exists()
    assert launch.last('read') > 20
    assert study.finish().last('restored') == launch.last('read')
    assert study.bits() == digits.bits()


_MOMENTS = [('chunk', 10), ('save', 30), ('chunk', 60), ('save', 90), ('evaluation', 100), ('save', 130), ('chunk', 170)]
_MOMENTS += [('save', 200), ('chunk', 250), ('scored', 290)]


@pytest.mark.long
@pytest.mark.parametrize(('reading', 'moments'), [({}, _MOMENTS), (_STREAMED, _MOMENTS[3:6])], ids=['resident', 'streamed'])
def test_killed_on_fashion_mnist(tmp_path, shared_memory, monkeypatch, reading, moments):
    whole = Study(tmp_path, {**_FASHION_MNIST, **reading}, tmp_path / 'whole')
    whole.finish()
    struck = dataclasses.replace(whole, workdir=whole.folder / 'killed')
    _finish(struck, _kill(struck, monkeypatch, moments), whole)


@pytest.mark.long
def test_killed_between_result_and_cleaning_up(digits, monkeypatch):
    study = dataclasses.replace(digits, workdir=digits.folder / 'late')
    _, status, _ = killed.launch(monkeypatch, study, signal.SIGKILL, 'remove')
    assert status == -signal.SIGKILL
    assert (study.run / 'result.json').exists() and (study.run / 'checkpoints').exists()
    assert study.finish().last('restored') is None
    assert not (study.run / 'checkpoints').exists()
    assert study.bits() == digits.bits()


@pytest.mark.long
@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_signal_to_the_readers_too(tmp_path, shared_memory, number):
    """A terminal sends Ctrl-C to the whole process group, Slurm its SIGTERM to every process."""
    study = Study(tmp_path, {**_FASHION_MNIST, **_STREAMED, 'study.budget': '100ep'}, tmp_path / 'stopped')
    launch = study.launch()
    launch.reach(20)
    assert launch.signal(number, everybody=True) == 128 + number
    assert 'Traceback' not in launch.output()
    assert launch.survivors() == []
    again = study.launch()
    again.until(lambda: again.last('restored') is not None)
    assert again.last('restored') == launch.last('read')
    again.kill()
