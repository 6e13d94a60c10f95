"""A question that had results is kept, one that had none is not, and a lost list is read from the runs on disk."""

import json

import pytest

from research.study import asked

CONTENT = {
    **{'study': 's', 'metric': 'test/accuracy', 'higher_is_better': True, 'alpha': 0.05, 'margin': 0.0, 'budget': '5ep'},
    **{'score': 'last', 'seeds': [0, 1], 'variants': {'baseline': {}, 'a': {'model.depth': 2}}},
    'contrasts': {'a': {'a': 1, 'baseline': -1}},
    'runs': {'baseline': {'0': 'b0', '1': 'b1'}, 'a': {'0': 'a0', '1': 'a1'}},
}
ALONE = {**CONTENT, 'variants': {'baseline': {}}, 'contrasts': {}, 'runs': {'baseline': CONTENT['runs']['baseline']}}


def finish(workdir, *runs, **entries):
    for run in runs:
        (workdir / 'runs' / run).mkdir(parents=True, exist_ok=True)
        header = {'id': run, 'variant': {'a': 'a', 'b': 'baseline'}[run[0]], 'seed': int(run[1]), 'study': 's', **entries}
        (workdir / 'runs' / run / 'result.json').write_text(json.dumps(header))


def launched(workdir, content, settled=True):
    """The list after a launch, which study.json then has."""
    path = workdir / 'study.json'
    earlier = json.loads(path.read_text()) if path.exists() else {}
    questions = asked.so_far(workdir, content, earlier, settled)
    path.write_text(json.dumps({**content, 'asked': questions}))
    return questions


@pytest.mark.parametrize('change', [{'metric': 'test/loss'}, {'margin': 0.1}, {'alpha': 0.1}, {'seeds': [0, 1, 2]}, ALONE])
def test_a_change_after_results_is_appended_once(tmp_path, change):
    launched(tmp_path, CONTENT)
    assert len(launched(tmp_path, {**CONTENT, **change})) == 1  # nothing was known yet
    launched(tmp_path, CONTENT)
    finish(tmp_path, 'b0', 'a0')
    assert len(launched(tmp_path, CONTENT)) == 1
    for _ in range(2):
        first, second = launched(tmp_path, {**CONTENT, **change})
        assert first['had'] == ['b0', 'a0'] and 'had' not in second
        assert all(second[key] == value for key, value in change.items() if key in second)


def test_deleting_runs_or_the_study_hides_nothing_that_was_reported_or_is_left(tmp_path):
    launched(tmp_path, CONTENT)
    finish(tmp_path, 'b0', 'b1', 'a0', 'a1')
    (tmp_path / 'results.jsonl').write_text('{"id": "b0"}\n{"id": "a0"}\n')
    (tmp_path / 'runs/a0/result.json').unlink()
    assert launched(tmp_path, ALONE)[0]['had'] == ['b0', 'b1', 'a0', 'a1']
    (tmp_path / 'study.json').unlink()
    finish(tmp_path, 'a0', tuning_point=3)
    recovered, now = launched(tmp_path, ALONE)
    assert recovered['recovered'] and recovered['runs'] == {'baseline': {'0': 'b0', '1': 'b1'}, 'a': {'1': 'a1'}}
    assert recovered['contrasts'] == CONTENT['contrasts'] and now['variants'] == {'baseline': {}}


def test_a_study_of_before_the_list_begins_it(tmp_path):
    (tmp_path / 'study.json').write_text(json.dumps(CONTENT))
    finish(tmp_path, 'b0', 'a0')
    first, _ = launched(tmp_path, ALONE)
    assert first['contrasts'] == CONTENT['contrasts'] and 'recovered' not in first


def test_nothing_is_asked_while_variants_are_tuned(tmp_path):
    tuned = {**CONTENT, 'variants': {'baseline': {}, 'a': {'model.depth': 3}}}
    assert launched(tmp_path, CONTENT, settled=False) == []
    assert len(launched(tmp_path, tuned)) == 1
    finish(tmp_path, 'b0', 'a0')
    assert len(launched(tmp_path, CONTENT, settled=False)) == len(launched(tmp_path, tuned)) == 1
