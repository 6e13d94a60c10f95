"""What is sent to Weights & Biases and MLflow, recorded by modules in their place."""

import contextlib
import json
import sys
import types

import fabricate
import pytest

from research import cli
from research.catalogue import ConfigError
from research.report import upload


class Sent(dict):
    """A run of W&B that keeps what it is given."""

    def __init__(self, **given):
        super().__init__(given, lines=[], files=[])
        self.summary = {}

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def log(self, values, step=None):
        self['lines'].append((step, values))

    def save(self, path, base_path, policy):
        self['files'].append(path.name)


@pytest.fixture
def study(tmp_path):
    """Two variants, two seeds; one run diverged, and its loss is no number."""
    fabricate.study(tmp_path, {'baseline': 0.0, 'adam': 0.03}, 2, evaluations=3, status={('adam', 1): 'diverged'})
    run = next(path.parent for path in tmp_path.glob('runs/*/config.json'))
    (run / 'config.json').write_text(json.dumps({'study': {'budget': '30ep'}, 'model': {'name': 'cnn', 'widths': [16, 32]}}))
    (tmp_path / 'report.html').write_text('<p>')
    return tmp_path


def test_wandb_gets_each_run_with_its_curve(study, monkeypatch, capsys):
    sent = []
    fake = types.SimpleNamespace(Table=lambda columns, data: (columns, data))
    fake.init = lambda **given: sent.append(Sent(**given)) or sent[-1]
    monkeypatch.setitem(sys.modules, 'wandb', fake)
    assert cli.run(['upload', 'wandb', str(study)]) == 0
    assert f'Uploaded 4 runs of {study} to the W&B project quickstart.' in capsys.readouterr().out
    *runs, report = sent
    assert [run['name'] for run in runs] == ['baseline/0', 'baseline/1', 'adam/0', 'adam/1']
    assert {run['id'] for run in runs} == {path.name for path in (study / 'runs').iterdir()}
    assert {'study.budget': '30ep', 'model.name': 'cnn', 'model.widths': [16, 32]} in [run['config'] for run in runs]
    for run in runs:
        result = json.loads((study / 'runs' / run['id'] / 'result.json').read_text())
        lines = [json.loads(line) for line in (study / 'runs' / run['id'] / 'metrics.jsonl').read_text().splitlines()]
        assert [step for step, _ in run['lines']] == [line['step'] for line in lines]
        assert [values['validation/loss'] for _, values in run['lines']] == [line['validation/loss'] for line in lines]
        assert run.summary['status'] == result['status'] and run.summary['cost/parameters'] == result['cost']['parameters']
    assert runs[0].summary['test/accuracy'] > 0.5 and 'test/accuracy' not in runs[3].summary
    (_, table), *_ = report['lines']
    assert [row[0] for row in table['table'][1]] == ['baseline', 'adam'] and 'report.html' in report['files']


def test_mlflow_gets_each_run_once(study, monkeypatch, capsys):
    sent, started, fake = {}, [], types.ModuleType('mlflow')

    def named(key):
        return types.SimpleNamespace(info=types.SimpleNamespace(run_id=key))

    fake.entities = types.SimpleNamespace(Metric=lambda *given: given, Param=lambda *given: given)
    fake.set_experiment = lambda name: sent.setdefault('experiment', name)
    fake.search_runs = lambda filter_string, output_format: [named(key) for key in sent if key in filter_string]
    fake.log_artifact = lambda path: sent.setdefault('files', []).append(path.name)

    @contextlib.contextmanager
    def start_run(run_id=None, run_name=None, tags=None):
        assert run_id in (None, 'report')
        started.append(run_name)
        sent[tags['frugal']] = {'name': run_name, 'metrics': [], 'params': []}
        yield named(tags['frugal'])

    def log_batch(to, metrics, params):
        assert len(metrics) <= 100 and len(params) <= 100
        sent[to]['metrics'] += metrics
        sent[to]['params'] += params

    fake.start_run, fake.MlflowClient = start_run, lambda: types.SimpleNamespace(log_batch=log_batch)
    monkeypatch.setitem(sys.modules, 'mlflow', fake)
    assert cli.run(['upload', 'mlflow', str(study)]) == 0 and cli.run(['upload', 'mlflow', str(study)]) == 0
    assert f'0 runs of {study} to the MLflow experiment quickstart; 4 were there' in capsys.readouterr().out
    assert sent['experiment'] == 'quickstart' and 'report.html' in sent['files']
    runs = {run['name']: run for key, run in sent.items() if (study / 'runs' / key).exists()}
    assert started == ['baseline/0', 'baseline/1', 'adam/0', 'adam/1', 'report', 'report'] and set(runs) == set(started[:4])
    assert ('study.budget', '"30ep"') in runs['adam/0']['params']
    final = [value for name, value, _, step in runs['baseline/0']['metrics'] if name == 'test/accuracy' and step == 606]
    assert len(final) == 1 and final[0] > 0.5


def test_what_a_library_refuses_is_a_sentence(study, monkeypatch, capsys):
    refusal = type('UsageError', (Exception,), {'__module__': 'wandb.errors'})('No API key configured')
    for error in (refusal, KeyError('a mistake of ours')):

        def init(error=error, **given):
            raise error

        monkeypatch.setitem(sys.modules, 'wandb', types.SimpleNamespace(init=init))
        if error is refusal:
            assert cli.run(['upload', 'wandb', str(study)]) == 2
            assert capsys.readouterr().err == 'error: wandb: No API key configured\n'
        else:
            with pytest.raises(KeyError):
                cli.run(['upload', 'wandb', str(study)])


def test_a_library_that_is_missing_is_named_with_its_extra(study, monkeypatch):
    monkeypatch.setitem(sys.modules, 'wandb', None)
    with pytest.raises(ConfigError, match=r"pip install 'frugal-jax\[wandb\]'"):
        upload.upload('wandb', study)
    with pytest.raises(ConfigError, match="Did you mean 'wandb'?"):
        upload.upload('wanb', study)
