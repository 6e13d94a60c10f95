"""Whoever asks less after reading results is corrected for all that was asked, and the first page says when."""

import json
import shutil

import fabricate
import pytest

from research.report import pages, statistics
from research.study import asked

pytestmark = pytest.mark.usefixtures('without_plots')
EFFECTS = {'baseline': 0.0, 'null': 0.0, 'adam': 0.011, 'cosine': 0.003, 'tiny': -0.004, 'clip': 0.0}
OTHERS = ('cosine', 'tiny', 'clip')


@pytest.fixture
def workdir(tmp_path):
    fabricate.study(tmp_path, effects=EFFECTS, evaluations=1)
    relaunch(tmp_path)
    return tmp_path


def relaunch(workdir, drop=(), **changes):
    """Writes study.json as a launch with fewer variants or other entries would, and reports."""
    path = workdir / 'study.json'
    earlier = json.loads(path.read_text())
    first = earlier['asked'][0] if 'asked' in earlier else earlier
    content = {**earlier, **{key: first[key] for key in ('variants', 'contrasts', 'runs')}, **changes}
    for key in ('variants', 'contrasts', 'runs'):
        content[key] = {name: value for name, value in content[key].items() if name not in drop}
    content['asked'] = asked.so_far(workdir, content, earlier, settled=True)
    path.write_text(json.dumps(content))
    summary = pages.write(workdir)
    first_page = (workdir / 'report.md').read_text().partition('## What differs')[0]
    return {c['name']: c for c in summary['contrasts']}, summary, first_page


def test_asking_again_for_the_best_alone_is_corrected_for_all(workdir):
    whole, _, before = relaunch(workdir)
    alone, summary, page = relaunch(workdir, OTHERS)
    assert whole['adam']['p_value'] <= 0.05 < whole['adam']['p_corrected'] == alone['adam']['p_corrected']
    assert alone['adam']['verdict'] == 'no effect shown' and [t['name'] for t in summary['asked_before']] == list(OTHERS)
    assert 'Changed on 20' in page and 'variants removed: cosine, tiny, clip' in page and 'Changed on' not in before
    assert 'for 4 contrasts, 3 of which the folder asked before' in page and 'for 4 contrasts.' in before
    assert summary['strangers'] == 0


def test_records_that_are_gone_still_count(workdir):
    content = json.loads((workdir / 'study.json').read_text())
    for name in OTHERS:
        for run in content['runs'][name].values():
            shutil.rmtree(workdir / 'runs' / run)
    alone, _, page = relaunch(workdir, OTHERS)
    assert alone['adam']['p_corrected'] == pytest.approx(4 * alone['adam']['p_value'])
    assert 'cosine (its records are gone)' in page


@pytest.mark.parametrize(
    ('changes', 'said', 'tests'),
    [
        ({'metric': 'test/loss', 'higher_is_better': False}, 'metric from test/accuracy to test/loss', 2),
        ({'seeds': [0, 1, 2, 3, 4, 5, 7]}, 'seeds from 0–9 to 0–5, 7', 2),
        ({'margin': 0.02, 'alpha': 0.1}, 'alpha from 0.05 to 0.1; margin from 0.0 to 0.02', 1),
    ],
)
def test_another_look_at_one_contrast_is_said_and_counted(tmp_path, changes, said, tests):
    fabricate.study(tmp_path, effects={'baseline': 0.0, 'adam': 0.01}, evaluations=1)
    relaunch(tmp_path)
    found, _, page = relaunch(tmp_path, **changes)
    assert said in page
    assert (found['adam']['p_corrected'] > found['adam']['p_value']) == (tests > 1)
    assert (f'for {tests} contrast' in page) and ('asked before' in page) == (tests > 1)


def test_more_seeds_and_another_name_are_the_same_test(tmp_path):
    fabricate.study(tmp_path, effects={'baseline': 0.0, 'adam': 0.01}, evaluations=1)
    content = json.loads((tmp_path / 'study.json').read_text())
    relaunch(tmp_path, seeds=list(range(7)))
    found, summary, _ = relaunch(
        tmp_path,
        variants={'baseline': {}, 'adam': content['variants']['adam']},
        contrasts={'mine': {'adam': 1, 'baseline': -1}},
        seeds=list(range(10)),
    )
    assert summary['asked_before'] == [] and found['mine']['p_corrected'] == found['mine']['p_value']


def test_a_lost_study_is_said_and_its_variants_on_disk_count(workdir):
    content = json.loads((workdir / 'study.json').read_text())
    (workdir / 'study.json').write_text(json.dumps({**content, 'asked': []}))
    kept = {k: {n: v for n, v in content[k].items() if n not in OTHERS} for k in ('variants', 'contrasts', 'runs')}
    now = {**content, **kept}
    now['asked'] = asked.so_far(workdir, now, {}, settled=True)
    (workdir / 'study.json').write_text(json.dumps(now))
    summary = pages.write(workdir)
    assert {test['name'] for test in summary['asked_before']} == set(OTHERS)
    page = (workdir / 'report.md').read_text()
    assert 'study.json was missing or damaged on' in page and 'variants removed: cosine, tiny, clip' in page


def test_too_few_seeds_were_no_test(tmp_path):
    fabricate.study(tmp_path, effects=EFFECTS, evaluations=1, seeds=5)
    relaunch(tmp_path)
    _, summary, page = relaunch(tmp_path, OTHERS)
    assert summary['asked_before'] == [] and 'nothing to correct' in page and 'variants removed' in page
    assert statistics.seeds_needed(1) > 5


def test_what_did_nothing_is_not_counted_later_either(tmp_path):
    fabricate.study(tmp_path, effects=EFFECTS, evaluations=1, copies={'clip': 'baseline', 'tiny': 'cosine'})
    relaunch(tmp_path)
    alone, summary, page = relaunch(tmp_path, OTHERS)
    assert {test['name']: test['p_value'] is None for test in summary['asked_before']} == {
        **{'cosine': False, 'tiny': False, 'clip': True}
    }
    assert 'for 3 contrasts, 2 of which the folder asked before' in page and 'clip (p' not in page
    assert alone['adam']['p_corrected'] == pytest.approx(3 * alone['adam']['p_value'])
