"""Real processes, killed and stopped at chosen moments: the same command goes on and ends in the same bits."""

import contextlib
import dataclasses
import fcntl
import pathlib
import signal
import time

import pytest
from watched import Study

_INTERVAL = 5  # steps between checkpoints
_DIGITS = {
    'train.checkpoint_every': f'{_INTERVAL}st',
    'data.batch_size': 256,
    'data.eval_batch_size': 180,
    'model.widths': (32, 64),
    'study.budget': '100st',
    'train.eval_every': '40st',
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


def _strike(study: Study, moment: str, step: int) -> tuple[set[str], int, int]:
    """Launches, kills from `step` on at a moment; returns what it hit, the step at the kill, and where it had gone on from.

    All three are read off afterwards: a save that was hit left an unfinished folder, a chunk was sent and not read.
    """
    launch = study.launch()
    launch.reach(step)
    if moment == 'save':
        launch.until(study.saving)
    elif moment == 'chunk':
        seen = len(launch.events())
        launch.until(lambda: any(what == 'chunk' for what, _ in launch.events()[seen:]))
        time.sleep(0.005)  # it is being computed now
    else:
        launch.until(lambda: launch.last(moment) is not None)
    launch.kill()
    assert launch.survivors() == []
    events = launch.events()
    hit = {events[-1][0]} - {'save'} | ({'save'} if study.saving() else set())
    return hit, max(s for what, s in events if what in ('read', 'restored')), launch.last('restored')


def _kill(study: Study, moments: list[tuple[str, int]]) -> list[tuple[set[str], int, int]]:
    """Kills at each moment, and finishes; returns what each kill hit, at which step, and where the next launch went on."""
    kills = [_strike(study, moment, step) for moment, step in moments]
    resumed = [restored for _, _, restored in kills[1:]] + [study.finish().last('restored')]
    landed = [(hit, at, restored) for (hit, at, _), restored in zip(kills, resumed, strict=True)]
    print(*landed, sep='\n')
    for _, at, restored in landed:
        assert 0 < restored <= at <= restored + 2 * _INTERVAL, landed
    assert not (study.run / 'checkpoints').exists()
    return landed


def _count(landed: list[tuple[set[str], int, int]], what: str) -> int:
    return sum(what in hit for hit, _, _ in landed)


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


def test_killed_twice(digits, shared_memory):
    study = dataclasses.replace(digits, workdir=digits.folder / 'killed')
    landed = _kill(study, [('save', 20), ('chunk', 50)])
    assert _count(landed, 'save') >= 1
    assert _count(landed, 'chunk') >= 1
    assert study.bits() == digits.bits()


def test_stopped_by_signals(digits):
    study = dataclasses.replace(digits, workdir=digits.folder / 'stopped')
    at = 0
    for number, step in ((signal.SIGTERM, 20), (signal.SIGINT, 50)):
        launch = study.launch()
        launch.reach(step)
        assert launch.signal(number) == 128 + number
        assert launch.last('restored') == at
        assert f'Stopped by {number.name}' in launch.output() and 'goes on' in launch.output()
        assert 'Traceback' not in launch.output()
        assert not (study.run / 'result.json').exists()
        at = launch.last('read')
    assert study.finish().last('restored') == at
    assert study.bits() == digits.bits()


@pytest.mark.long
@pytest.mark.parametrize('reading', [{}, _STREAMED], ids=['resident', 'streamed'])
def test_killed_on_fashion_mnist(tmp_path, shared_memory, reading):
    whole = Study(tmp_path, {**_FASHION_MNIST, **reading}, tmp_path / 'whole')
    whole.finish()
    killed = dataclasses.replace(whole, workdir=whole.folder / 'killed')
    moments = [('chunk', 10), ('save', 30), ('chunk', 60), ('save', 90), ('evaluation', 99), ('save', 130), ('chunk', 170)]
    moments += [('save', 200), ('chunk', 250), ('scored', 290)]
    landed = _kill(killed, moments)
    assert _count(landed, 'save') >= 3
    assert _count(landed, 'chunk') >= 2
    assert killed.bits() == whole.bits()


@pytest.mark.long
def test_killed_between_result_and_cleaning_up(digits):
    study = dataclasses.replace(digits, workdir=digits.folder / 'late')
    launch = study.launch()
    launch.until(lambda: launch.last('remove') is not None)
    launch.kill()
    assert (study.run / 'result.json').exists()
    assert study.finish().last('restored') is None
    assert not (study.run / 'checkpoints').exists()
    assert study.bits() == digits.bits()


@pytest.mark.long
@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_signal_to_the_readers_too(tmp_path, shared_memory, number):
    """A terminal sends Ctrl-C to the whole process group, Slurm its SIGTERM to every process."""
    study = Study(tmp_path, {**_FASHION_MNIST, **_STREAMED}, tmp_path / 'stopped')
    launch = study.launch()
    launch.reach(20)
    assert launch.signal(number, everybody=True) == 128 + number
    assert 'Traceback' not in launch.output()
    assert launch.survivors() == []
    again = study.launch()
    again.until(lambda: again.last('restored') is not None)
    assert again.last('restored') == launch.last('read')
    again.kill()
