"""What else stands on the line of --report is applied or refused, and FOLDER is all that --report=FOLDER writes."""

import json

import fabricate
import pytest
from config_file import written

from research import cli
from research.config import overrides


@pytest.fixture
def report(tmp_path, capsys, without_plots):
    """Reports a study of the default config: (exit status, what was printed, margin of summary.json)."""
    config = overrides.apply(overrides.defaults(), {'study.name': 'paper'})
    fabricate.study(tmp_path / 'dir', {'baseline': 0.0, 'clip': 0.0}, evaluations=1, name='paper', config=config)

    def again(*flags):
        status = cli.run([f'--workdir={tmp_path / "dir"}', *(flags if '--report' in ''.join(flags) else ('--report', *flags))])
        said = capsys.readouterr()
        summary = tmp_path / 'dir' / 'summary.json'
        return status, said.out + said.err, json.loads(summary.read_text())['margin'] if summary.exists() else None

    return again


def test_a_margin_is_judged_by_and_the_change_is_told(report, tmp_path):
    assert report() == (0, report()[1], 0.0)
    assert report('--config.study.margin=0.05')[::2] == (0, 0.05)
    verdicts = {c['name']: c['verdict'] for c in json.loads((tmp_path / 'dir' / 'summary.json').read_text())['contrasts']}
    assert verdicts == {'clip': 'equivalent'}
    asked = json.loads((tmp_path / 'dir' / 'study.json').read_text())['asked']
    assert [question['margin'] for question in asked] == [0.0, 0.05]
    assert 'Changed on' in (tmp_path / 'dir' / 'report.md').read_text()
    assert report()[2] == 0.05


def test_what_needs_other_runs_is_refused(report):
    status, said, margin = report('--config.optimizer.learning_rate=0.1')
    assert (status, margin) == (2, None)
    assert '--config.optimizer.learning_rate: --report tells a study as it was run, with 0.05' in said
    assert report('--config.optimizer.learning_rate=0.05')[0] == 0  # of the line that launched it
    assert report('--config.study.margin=-1')[0] == 2
    assert "Did you mean 'study.margin'?" in report('--config.study.margn=1')[1]


def test_the_config_beside_it_must_be_this_study(report, tmp_path):
    path = written(tmp_path, 'config.study.seeds = 20')
    assert f'{path} is no longer as it was run in study.seeds' in report(f'--config={path}')[1]
    status, said, _ = report(f'--config={written(tmp_path, "", "other.py")}')
    assert status == 2 and "other.py' is the study 'other', and --workdir holds 'paper'" in said


def test_a_folder_for_the_report_is_all_that_is_written(report, tmp_path):
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / 'dir').rglob('*')}
    assert report(f'--report={tmp_path / "there"}')[0] == 0
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / 'dir').rglob('*')} == before
    assert {'report.html', 'report.md', 'report.csv', 'results.jsonl', 'summary.json'} <= {
        path.name for path in (tmp_path / 'there').iterdir()
    }
    assert 'href="../dir/runs/' in (tmp_path / 'there' / 'report.html').read_text()
    assert 'judged anew by --report alone' in report(f'--report={tmp_path / "there"}', '--config.study.margin=0.1')[1]
