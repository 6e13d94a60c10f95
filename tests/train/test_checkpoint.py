"""Checkpoints that cannot be read: kept aside and named, and the run goes on from what is left."""

import pytest
import tiny

from research.catalogue import ConfigError
from research.train import checkpoint, loop
from research.train.program import Session

SAVING = {'train.checkpoint_every': '5st', 'study.budget': '20st', 'train.eval_every': '8st'}


@pytest.fixture(scope='module')
def session():
    return Session()


@pytest.fixture(scope='module')
def whole(session, tmp_path_factory):
    """Metrics and variables of a run that nobody disturbed."""
    folder = tmp_path_factory.mktemp('whole') / 'run'
    return tiny.train(tiny.build(session, SAVING), folder).metrics, tiny.scored(folder)


def stopped(session, folder):
    """A run that was stopped after it had saved at steps 10 and 15."""
    with pytest.raises(loop.Stopped):
        tiny.train(tiny.build(session, SAVING), folder, stop_at=15)
    assert {path.name for path in (folder / 'checkpoints').iterdir()} == {'10', '15'}
    return folder / 'checkpoints'


def kinds(step):
    """One file of each kind in a checkpoint."""
    data = max((path for path in step.rglob('d/*') if path.is_file()), key=lambda path: path.stat().st_size)
    return {'arrays': data, 'index': step / 'state' / 'manifest.ocdbt', 'meta': next((step / 'meta').iterdir())}


@pytest.mark.parametrize('kind', ['arrays', *(pytest.param(kind, marks=pytest.mark.long) for kind in ('index', 'meta'))])
def test_a_truncated_file_costs_the_steps_since_the_checkpoint_before(session, whole, tmp_path, capsys, kind):
    saved = stopped(session, tmp_path / 'run')
    torn = kinds(saved / '15')[kind]
    torn.write_bytes(torn.read_bytes()[: torn.stat().st_size // 2])
    begun = []
    outcome = loop.train(tiny.build(session, SAVING), tmp_path / 'run', lambda step, *_: begun.append(step), lambda: False)
    assert begun[0] == 15, 'the checkpoint before is of step 10'
    assert outcome.metrics == whole[0]
    tiny.assert_same_bits(tiny.scored(tmp_path / 'run'), whole[1])
    said = capsys.readouterr().out
    assert f'{saved / "15"} cannot be read' in said and f'{saved}.unreadable/15-1' in said
    assert (tmp_path / 'run' / 'checkpoints.unreadable' / '15-1').is_dir()


def test_with_none_left_a_run_starts_anew(session, whole, tmp_path, capsys):
    saved = stopped(session, tmp_path / 'run')
    for step in ('10', '15'):
        kinds(saved / step)['index'].write_bytes(b'')
    assert tiny.train(tiny.build(session, SAVING), tmp_path / 'run').metrics == whole[0]
    assert capsys.readouterr().out.count('cannot be read') == 2


def test_variables_that_cannot_be_read_are_named_with_the_cure(session, tmp_path):
    tiny.train(tiny.build(session, SAVING), tmp_path / 'run')
    (tmp_path / 'run' / 'scored' / 'manifest.ocdbt').write_bytes(b'torn')
    with pytest.raises(ConfigError, match=f'Remove {tmp_path / "run"} and launch'):
        checkpoint.load_variables(tmp_path / 'run' / 'scored')
