"""Real processes, killed and stopped at chosen moments: the same command goes on and ends in the same bits."""

import dataclasses
import signal

import killed
import pytest
from watched import Study

pytestmark = pytest.mark.long

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


@pytest.fixture(scope='module')
def digits(tmp_path_factory):
    """A run that nobody disturbed."""
    folder = tmp_path_factory.mktemp('digits')
    study = Study(folder, _DIGITS, folder / 'whole')
    study.finish()
    return study


def test_killed_twice(digits, monkeypatch):
    """A kill loses what was not saved."""
    study = dataclasses.replace(digits, workdir=digits.folder / 'killed')
    _finish(study, _kill(study, monkeypatch, [('save', 15), ('chunk', 40)]), digits)


@pytest.mark.parametrize(('number', 'kills'), [(signal.SIGTERM, [('save', 15)]), (signal.SIGINT, [])])
def test_stopped_by_a_signal(digits, monkeypatch, number, kills):
    """What is on its way is read and saved; the same command goes on from it."""
    study = dataclasses.replace(digits, workdir=digits.folder / number.name)
    at = _kill(study, monkeypatch, kills)
    events, status, launch = killed.launch(monkeypatch, study, number, 'chunk', 20)
    _went_on(events, at)
    assert status == 128 + number
    assert f'Stopped by {number.name}' in launch.output() and 'goes on' in launch.output()
    assert 'Traceback' not in launch.output()
    assert not (study.run / 'result.json').exists()
    assert launch.last('read') > 20
    assert study.finish().last('restored') == launch.last('read')
    assert study.bits() == digits.bits()


_MOMENTS = [('save', 90), ('evaluation', 100), ('scored', 290)]


@pytest.mark.parametrize(('reading', 'moments'), [({}, _MOMENTS), ({'data.streaming': True}, _MOMENTS[1:2])])
def test_killed_on_fashion_mnist(tmp_path, monkeypatch, reading, moments):
    whole = Study(tmp_path, {**_FASHION_MNIST, **reading}, tmp_path / 'whole')
    whole.finish()
    struck = dataclasses.replace(whole, workdir=whole.folder / 'killed')
    _finish(struck, _kill(struck, monkeypatch, moments), whole)


def test_killed_between_result_and_cleaning_up(digits, monkeypatch):
    study = dataclasses.replace(digits, workdir=digits.folder / 'late')
    _, status, _ = killed.launch(monkeypatch, study, signal.SIGKILL, 'remove')
    assert status == -signal.SIGKILL
    assert (study.run / 'result.json').exists() and (study.run / 'checkpoints').exists()
    assert study.finish().last('restored') is None
    assert not (study.run / 'checkpoints').exists()
    assert study.bits() == digits.bits()
