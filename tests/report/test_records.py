"""Records that are torn, foreign or unfinished are reported and never counted; whole ones come back as written."""

import json

import fabricate
import numpy as np
import pytest

from research.catalogue import ConfigError
from research.report import records


@pytest.fixture
def workdir(tmp_path):
    return fabricate.study(tmp_path / 'study', effects={'baseline': 0.0, 'adam': 0.01}, seeds=3, evaluations=3)


def result_path(workdir, variant, seed):
    return workdir / 'runs' / json.loads((workdir / 'study.json').read_text())['runs'][variant][str(seed)] / 'result.json'


def change(path, **fields):
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def test_reads_every_result(workdir):
    read = records.read(workdir)
    assert read.seeds == [0, 1, 2] and not read.problems and not read.strangers
    assert read.results['adam'][2] == json.loads(result_path(workdir, 'adam', 2).read_text())


@pytest.mark.parametrize(
    'spoil, reason',
    [
        (lambda path: path.write_text(path.read_text()[:-40]), 'torn'),
        (lambda path: path.write_bytes(b'\xff\xfe\x00'), 'torn'),
        (lambda path: path.write_text(''), 'torn'),
        (lambda path: path.write_text('[1, 2]'), 'expected an object'),
        (lambda path: path.write_text('{}'), "'id' is missing"),
        (lambda path: change(path, study='another'), "its study is 'another'"),
        (lambda path: change(path, id='0'), 'foreign: its id'),
        (lambda path: change(path, seed=7), 'foreign: its seed'),
        (lambda path: change(path, seed=True), "'seed' is True"),
        (lambda path: change(path, variant='baseline'), 'foreign: its variant'),
        (lambda path: change(path, status='done'), 'its status'),
        (lambda path: change(path, metrics=None), "'metrics' is None"),
        (lambda path: change(path, metrics={}), 'no test/accuracy'),
    ],
)
def test_bad_result_is_reported_and_absent(workdir, spoil, reason):
    path = result_path(workdir, 'adam', 1)
    spoil(path)
    read = records.read(workdir)
    assert read.seeds == [0, 2] and 1 not in read.results['adam'] and 1 in read.results['baseline']
    [problem] = read.problems
    assert problem['path'] == str(path.relative_to(workdir)) and reason in problem['reason']


def test_diverged_result_counts_without_a_metric(workdir):
    change(result_path(workdir, 'adam', 1), status='diverged', metrics={})
    assert records.read(workdir).seeds == [0, 1, 2]


def test_missing_result_is_no_problem(workdir):
    result_path(workdir, 'adam', 1).unlink()
    read = records.read(workdir)
    assert read.seeds == [0, 2] and not read.problems


def test_strangers_are_counted(workdir):
    (workdir / 'runs' / 'older').mkdir()
    assert records.read(workdir).strangers == 1


def test_set_aside_keeps_every_bad_record(workdir):
    path = result_path(workdir, 'adam', 1)
    kept = []
    for content in ('first', 'second'):
        path.write_text(content)
        kept.append(records.set_aside(path))
    assert [k.name for k in kept] == ['result.json.bad-1', 'result.json.bad-2']
    assert [k.read_text() for k in kept] == ['first', 'second'] and not path.exists()


@pytest.mark.parametrize('spoil', [lambda p: p.unlink(), lambda p: p.write_text('{"study": 1'), lambda p: p.write_text('{}')])
def test_no_study_says_what_to_do(workdir, spoil):
    spoil(workdir / 'study.json')
    with pytest.raises(ConfigError, match='study'):
        records.read(workdir)


def test_results_are_rebuilt_line_by_line(workdir):
    change(result_path(workdir, 'adam', 1), status='diverged', metrics={'test/accuracy': float('nan')})
    (workdir / 'results.jsonl').write_text('rubbish')
    records.write_results(records.read(workdir), workdir)
    lines = [json.loads(line, parse_constant=pytest.fail) for line in (workdir / 'results.jsonl').read_text().splitlines()]
    assert [(line['variant'], line['seed']) for line in lines] == [(v, s) for s in range(3) for v in ('baseline', 'adam')]
    assert set(lines[0]) == {'id', 'variant', 'seed', 'status', 'metrics', 'cost', 'fingerprint'}
    assert lines[3]['status'] == 'diverged' and lines[3]['metrics'] == {'test/accuracy': None}
    assert [p.name for p in workdir.glob('*.tmp*')] == []


def test_evaluations_survive_a_kill_and_a_restart(workdir):
    run = result_path(workdir, 'adam', 0).parent
    path = run / 'metrics.jsonl'
    before = records.evaluations(workdir, run.name)
    again = {**before[1], 'validation/accuracy': 0.5}
    path.write_text(path.read_text() + json.dumps(again) + '\n' + '{"position": 38790, "valid')
    assert records.evaluations(workdir, run.name) == [before[0], again, before[2]]
    assert records.evaluations(workdir, 'nowhere') == []


def test_config_is_what_was_told_or_empty(workdir):
    run = result_path(workdir, 'adam', 0).parent
    assert records.config(workdir, run.name) == {'study': {'name': 'quickstart', 'budget': '30ep'}}
    for torn in ('{"study": ', '{}', '{"study": null}', '[]'):
        (run / 'config.json').write_text(torn)
        assert records.config(workdir, run.name) == {}
    assert records.config(workdir, 'nowhere') == {}


def test_correct_unpacks_what_was_packed(workdir):
    result = records.read(workdir).results['adam'][0]
    hits = np.random.default_rng(0).random(fabricate.EXAMPLES) < 0.5
    path = workdir / 'runs' / result['id'] / 'correct.npy'
    np.save(path, np.packbits(hits))
    np.testing.assert_array_equal(records.correct(workdir, result), hits)
    assert records.correct(workdir, {**result, 'test_examples': 9 * fabricate.EXAMPLES}) is None
    path.write_bytes(path.read_bytes()[:100])
    assert records.correct(workdir, result) is None
