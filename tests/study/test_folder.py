"""What a workdir keeps when a study is asked anew in it, and where events are found."""

import json
import types

import pytest
from config_file import written

from research.study import folder, plan

TINY = (
    'config.model.widths = (2,)\nconfig.model.hidden = ()\nconfig.train.devices = 1\nconfig.study.budget = "2st"\n'
    'config.study.seeds = 2\nconfig.study.null = False\n'
)


@pytest.fixture(autouse=True)
def nothing_is_built(monkeypatch):
    monkeypatch.setattr(folder, 'schedules', lambda built: {})


def asked(tmp_path, **changes):
    """study.json after a launch with these changes; every run has a result and there is a report, as behind a launch."""
    made = plan.make(str(written(tmp_path, TINY)), {key.replace('__', '.'): value for key, value in changes.items()})
    workdir = tmp_path / 'dir'
    for run in made.runs:
        (workdir / 'runs' / run.id).mkdir(parents=True, exist_ok=True)
        (workdir / 'runs' / run.id / 'result.json').write_text('{}')
    folder.write_study(
        workdir,
        made,
        {'baseline': types.SimpleNamespace(total=128, dataset=types.SimpleNamespace(card={}))},
        '',
        [],
        {'platform': 'cpu'},
    )
    for name in ('report.html', 'report.md', 'summary.json', 'pareto.png'):
        (workdir / name).write_text(str(changes))
    return json.loads((workdir / 'study.json').read_text())


def test_a_report_of_another_baseline_is_kept_beside_the_new_one_and_the_study_says_so(tmp_path, capsys):
    """It was overwritten: what had been read and perhaps cited was gone."""
    asked(tmp_path)
    assert not asked(tmp_path, study__seeds=3)['notes']  # more seeds are the same comparison
    assert not (tmp_path / 'dir' / folder.EARLIER).exists() and not capsys.readouterr().out
    for number, rate in enumerate((0.3, 0.4), 1):
        study = asked(tmp_path, study__seeds=3, optimizer__learning_rate=rate)
        kept = sorted((tmp_path / 'dir' / folder.EARLIER).iterdir())
        assert len(kept) == number and 'The config of the baseline has changed' in capsys.readouterr().out
        assert all(path.name in study['notes'][0] for path in kept)
        assert {path.name for path in kept[-1].iterdir()} == {'report.html', 'report.md', 'summary.json', 'pareto.png'}
    assert '0.3' in (kept[-1] / 'report.html').read_text() and '0.4' in (tmp_path / 'dir' / 'report.html').read_text()


def test_events_are_found_by_variant_and_seed(tmp_path):
    runs = {'baseline': {'0': 'aaa', '1': 'bbb'}, 'a/b': {'0': 'ccc'}, '..': {'0': 'ddd'}, 'é é': {'0': 'eee'}}
    for run in ('aaa', 'bbb', 'ccc', 'ddd', 'eee'):
        (tmp_path / 'runs' / run / 'tensorboard').mkdir(parents=True)
        (tmp_path / 'runs' / run / 'tensorboard' / 'events').write_text(run)
    folder.link_events(tmp_path, runs)
    links = {str(path.relative_to(tmp_path / 'tensorboard')): path for path in (tmp_path / 'tensorboard').glob('*/*')}
    assert set(links) == {'baseline/0', 'baseline/1', 'a%2Fb/0', '%2E./0', '%C3%A9 %C3%A9/0'}
    assert (links['baseline/1'] / 'events').read_text() == 'bbb' and (links['%2E./0'] / 'events').read_text() == 'ddd'

    moved = tmp_path.rename(tmp_path.with_name('moved'))
    assert (moved / 'tensorboard/a%2Fb/0/events').read_text() == 'ccc'
    folder.link_events(moved, {'renamed': runs['baseline']})
    assert [path.name for path in (moved / 'tensorboard').iterdir()] == ['renamed']
    assert (moved / 'runs/ccc/tensorboard/events').read_text() == 'ccc'
