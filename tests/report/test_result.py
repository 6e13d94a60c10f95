"""A study called from Python is the study of the command, and its summary is in the hand."""

import json
import sys
import types

import fabricate
import pytest

import research
from research.catalogue import ConfigError
from research.config import base, overrides
from research.study import launch


def small(**changes):
    config = base.get_config()
    config.model.widths, config.model.hidden = (2,), ()
    config.train.devices, config.data.batch_size = 1, 100
    config.study.budget, config.study.seeds, config.study.latency, config.study.null = '4st', 1, (), False
    config.study.update(changes)
    return config


def test_a_study_runs_from_python_and_its_command_repeats_it(tmp_path, monkeypatch, without_plots):
    workdir, asked = tmp_path / 'mine', []

    def train(study, before, folder, session, stale, command):
        fabricate.study(folder, {'baseline': 0.0}, evaluations=1, name=study.study['name'], command=command)
        asked.extend(run.id for run in study.runs)
        return 1

    monkeypatch.setattr(launch, '_train', train)
    summary = research.study.run(small(), workdir, **{'optimizer.weight_decay': 1e-3})
    assert (summary['study'], summary.failed, summary.workdir) == ('mine', 1, workdir)
    assert summary == json.loads((workdir / 'summary.json').read_text())

    monkeypatch.setitem(sys.modules, 'pandas', None)  # as if it were not installed
    rows = summary.table()
    assert [row['name'] for row in rows] == ['baseline'] and rows[0]['mean'] == summary['variants'][0]['mean']
    frame = types.SimpleNamespace(set_index=lambda key: key)
    monkeypatch.setitem(sys.modules, 'pandas', types.SimpleNamespace(DataFrame=lambda lines: lines == rows and frame))
    assert summary.table() == 'name'
    assert summary._repr_html_().startswith('<iframe srcdoc="&lt;!doctype html') and 'baseline' in summary._repr_html_()

    words = json.loads((workdir / 'study.json').read_text())['command'].split()
    assert words[0] == 'frugal' and words[2] == f'--workdir={workdir}'
    key, text = words[3].removeprefix('--config.').split('=')
    again, _ = launch.planned(words[1].removeprefix('--config='), {key: overrides.parse_flag(key, text)})
    assert [run.id for run in again.runs] == asked


def test_bad_input_is_raised(tmp_path):
    with pytest.raises(ConfigError, match=r"config-\w+\.py.*'study.metric' is 'acuracy'"):
        research.study.run(small(metric='acuracy'), tmp_path)
    with pytest.raises(ConfigError, match="Did you mean 'quickstart'?"):
        research.study.run('quikstart', tmp_path)
    with pytest.raises(AttributeError, match='nothing'):
        research.nothing  # noqa: B018
