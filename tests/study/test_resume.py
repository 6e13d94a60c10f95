"""What a study finds in its workdir: bad records, unfinished seeds, another launch, a full disk, other code.

In processes of their own; test_launch and test_summary have the first three in this one.
"""

import dataclasses
import json
import subprocess

import pytest
from watched import Launch, Study

pytestmark = pytest.mark.long

_TINY = {
    'model.widths': (4, 4),
    'model.hidden': (8,),
    'study.budget': '20st',
    'study.seeds': (3, 4),
    'study.variants': {'slow': {'optimizer.learning_rate': 0.01}},
}
_LARGE = {'data.batch_size': 256, 'model.widths': (32, 64), 'train.checkpoint_every': '5st', 'study.budget': '100st'}


@pytest.fixture(scope='module')
def tiny(tmp_path_factory):
    """A finished study: two variants, seeds 3 and 4."""
    folder = tmp_path_factory.mktemp('tiny')
    study = Study(folder, _TINY, folder / 'study')
    study.finish()
    return study


def _results(study: Study) -> dict[tuple[str, int], dict]:
    lines = [json.loads(line) for line in (study.workdir / 'results.jsonl').read_text().splitlines()]
    return {(line['variant'], line['seed']): line for line in lines}


def test_bad_records_are_kept_aside_and_their_runs_done_again(tiny):
    before = _results(tiny)
    assert set(before) == {('baseline', 3), ('slow', 3), ('baseline', 4), ('slow', 4)}
    drawn = sorted(before, key=lambda run: (run[1], tiny.runs[run].name))
    assert sorted(before, key=lambda run: (tiny.runs[run] / 'result.json').stat().st_mtime_ns) == drawn != list(before)
    torn, foreign = tiny.runs['slow', 3] / 'result.json', tiny.runs['baseline', 4] / 'result.json'
    contents = {torn: torn.read_text()[:100], foreign: (tiny.runs['slow', 4] / 'result.json').read_text()}
    for path, text in contents.items():
        path.write_text(text)
    (tiny.workdir / 'results.jsonl').unlink()
    output = tiny.finish().output()
    for path, text in contents.items():
        assert str(path) in output
        assert path.with_name('result.json.bad-1').read_text() == text
    after = _results(tiny)
    assert {k: v['metrics'] for k, v in after.items()} == {k: v['metrics'] for k, v in before.items()}
    redone = {key for key in after if after[key]['cost'] != before[key]['cost']}
    assert redone == {('slow', 3), ('baseline', 4)}


def test_report_of_a_stopped_study_uses_the_seeds_that_every_variant_has(tiny):
    result = tiny.runs['slow', 4] / 'result.json'
    aside = result.rename(result.with_name('aside'))
    try:
        report = Launch(tiny.folder, f'--workdir={tiny.workdir}', '--report')
        assert report.wait() == 0, report.output()
        summary = json.loads((tiny.workdir / 'summary.json').read_text())
        assert summary['seeds'] == [3]
        assert [contrast['n'] for contrast in summary['contrasts']] == [1]
    finally:
        aside.rename(result)


def test_a_second_launch_is_refused(tmp_path):
    study = Study(tmp_path, _TINY | {'study.budget': '2000ep'}, tmp_path / 'study')
    first = study.launch()
    first.reach(1)
    second = study.launch()
    assert second.wait() == 2
    assert 'Another launch is at work' in second.output() and 'Traceback' not in second.output()
    assert first.process.poll() is None
    first.kill()


def test_a_checkpoint_of_other_code_is_not_gone_on_from(tmp_path):
    study = Study(tmp_path, _TINY | {'train.checkpoint_every': '5st', 'study.budget': '2000ep'}, tmp_path / 'study')
    first = study.launch()
    first.reach(10)
    first.kill()
    (path,) = study.workdir.glob('runs/*/fingerprint.json')
    path.write_text(json.dumps(json.loads(path.read_text()) | {'code': 'another'}))
    again = study.launch()
    again.until(lambda: again.last('restored') is not None)
    again.kill()
    assert again.last('restored') == 0
    assert 'begins again' in again.output()


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 4 MB."""
    disk = tmp_path / 'disk'
    disk.mkdir()
    if subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=4m', 'tmpfs', disk], capture_output=True, check=False).returncode:
        pytest.skip('a small file system cannot be mounted here')
    yield disk
    subprocess.run(['umount', '-l', disk], check=True)


def test_full_disk(tmp_path, small_disk):
    whole = Study(tmp_path, _LARGE, tmp_path / 'whole')
    whole.finish()
    study = dataclasses.replace(whole, workdir=small_disk / 'study')
    launch, ballast = study.launch(), small_disk / 'ballast'
    launch.reach(20)
    with open(ballast, 'wb', buffering=0) as file, pytest.raises(OSError, match='No space left'):
        while True:
            file.write(bytes(4096))
    assert launch.wait() == 2
    error = launch.output().splitlines()[-1]
    assert error.startswith(f"error: No space left on device: '{study.workdir}") and 'Make room' in error
    assert not (study.run / 'result.json').exists()
    ballast.unlink()
    assert study.finish().last('restored') > 0
    assert study.bits() == whole.bits()


def test_a_disk_too_small_shows_at_the_first_step(tmp_path, small_disk):
    (small_disk / 'ballast').write_bytes(bytes((4 << 20) - 300_000))
    launch = Study(tmp_path, _LARGE | {'train.checkpoint_every': '50st'}, small_disk / 'study').launch()
    assert launch.wait() == 2
    assert launch.last('read') == 1
    assert launch.output().splitlines()[-1].startswith('error: No space left on device')
