"""Every variant tries the same points, on validation alone; what is chosen is the same whenever one asks."""

import io
import json
import math
import shlex

import pytest
import rich.console
from config_file import written
from hypothesis import given
from hypothesis import strategies as st
from watched import Launch, Study

from research.catalogue import ConfigError
from research.config import overrides
from research.report import pages
from research.study import budget, launch, plan, preview, tuning, verify
from research.train.feed import Feed
from research.train.program import Session

RATE, DECAY = 'optimizer.learning_rate', 'optimizer.weight_decay'
TINY = 'config.model.widths = (2,)\nconfig.model.hidden = ()\nconfig.train.devices = 1\nconfig.study.budget = "2st"\n'
VARIANTS = {'adam': {'optimizer.name': 'adam', RATE: 1e-3}, 'cosine': {'schedule.name': 'cosine'}}
SPACE = {RATE: ('log', 1e-3, 1.0), 'adam': {RATE: ('log', 1e-5, 1e-2)}}


def tuned(folder, points=4, seeds=(1000,), space=SPACE, variants=VARIANTS, body='', **fields):
    """(plan, plan of tuning) of a study that tunes."""
    tune = {'points': points, 'seeds': seeds, 'space': space, **fields}
    lines = f'config.study.variants = {variants!r}\nconfig.study.tune = {tune!r}\n'
    study = plan.make(str(written(folder, TINY + lines + body)), {})
    return study, tuning.before(study)


def results(before, worth):
    """Records of every run of tuning; `worth(run)` is its score, None where it diverged."""
    scores = {run.id: worth(run) for run in before.runs}
    return [
        {'id': i, 'status': 'diverged', 'metrics': {}}
        if score is None
        else {'id': i, 'status': 'finished', 'metrics': {before.study['metric']: score}}
        for i, score in scores.items()
    ]


def config(points, space, variants=('baseline',)):
    return {'study': {'tune': {'points': points, 'space': space}}}, dict.fromkeys(variants)


def test_the_same_points_of_the_unit_cube_in_every_space(tmp_path):
    space = {RATE: ('log', 1e-3, 1.0), DECAY: ('linear', 0.0, 0.5), 'own': {RATE: ('log', 1e-6, 1e-4)}}
    found = tuning.points(*config(64, space, ('baseline', 'null', 'other', 'own')))
    assert set(found) == {'baseline', 'other', 'own'} and found['baseline'] == found['other']
    assert {len(points) for points in found.values()} == {64} and {json.dumps(points[0]) for points in found.values()} == {'{}'}
    assert all(set(point) == {RATE} for point in found['own'][1:])
    for common, own in zip(found['baseline'][1:], found['own'][1:], strict=True):
        assert math.log(common[RATE] / 1e-3) / math.log(1e3) == pytest.approx(
            math.log(own[RATE] / 1e-6) / math.log(1e2), abs=1e-3
        )
    shares = [(math.log10(p[RATE]) / 3 + 1, p[DECAY] / 0.5) for p in found['baseline'][1:]]
    for axis in (0, 1):  # far more even than chance, which leaves about a third of the bins empty
        assert len({int(share[axis] * 32) for share in shares}) == 32


def test_more_points_begin_with_the_same_ones():
    few, many = (tuning.points(*config(n, SPACE))['baseline'] for n in (5, 30))
    assert many[:5] == few and len({point[RATE] for point in many[1:]}) == 29


@given(st.sampled_from(['log', 'linear']), st.floats(1e-9, 1e3), st.floats(1.001, 1e6))
def test_points_lie_in_their_range_and_are_read_back_as_they_are_printed(kind, low, factor):
    for point in tuning.points(*config(9, {RATE: (kind, low, low * factor)}))['baseline'][1:]:
        assert low <= point[RATE] <= low * factor
        assert overrides.parse(repr(point[RATE])) == point[RATE]


@given(st.integers(-5, 5), st.integers(1, 6))
def test_whole_numbers_are_equally_often(low, more):
    drawn = [point['k'] for point in tuning.points(*config(601, {'k': ('int', low, low + more)}))['baseline'][1:]]
    counts = [drawn.count(value) for value in range(low, low + more + 1)]
    assert sum(counts) == 600 and max(counts) - min(counts) <= 20


@pytest.mark.parametrize(
    ('fields', 'message'),
    [
        ({'points': 1}, "'study.tune.points' is 1, expected 0 (no tuning), or at least 2"),
        ({'points': -3}, 'expected 0 (no tuning)'),
        ({'seeds': (1000, 3)}, "'study.tune.seeds' has 3, which 'study.seeds' has too"),
        ({'seeds': ()}, 'expected distinct whole numbers from 0'),
        ({'seeds': (7000, 7000)}, 'expected distinct whole numbers'),
        ({'seeds': (1.5,)}, 'expected distinct whole numbers'),
        ({'space': {}}, "'study.tune.space' has nothing for 'baseline'"),
        ({'space': {RATE: ('log', 1e-3, 1.0), 'adam': {}}}, "has nothing for 'adam'"),
        ({'space': {'adam': {RATE: ('log', 1e-3, 1.0)}}}, "has nothing for 'baseline'"),
        (
            {'space': {**SPACE, 'adm': {RATE: ('log', 1e-3, 1.0)}}},
            "names no variant that is tuned: 'adm'. Did you mean 'adam'?",
        ),
        ({'space': {**SPACE, 'null': {RATE: ('log', 1e-3, 1.0)}}}, "names no variant that is tuned: 'null'"),
        ({'space': {RATE: ('log', 0.0, 1.0)}}, "'log' wants numbers above 0"),
        ({'space': {RATE: ('log', 1.0, 0.1)}}, 'expected (kind, low, high) with low < high'),
        ({'space': {RATE: ('logarithmic', 0.1, 1.0)}}, 'a kind of log, linear, int'),
        ({'space': {RATE: (0.1, 1.0)}}, 'expected (kind, low, high)'),
        ({'space': {RATE: 0.1}}, 'expected (kind, low, high)'),
        ({'space': {'data.batch_size': ('int', 8, 64.5)}}, "'int' whole ones"),
        ({'space': {'study.alpha': ('linear', 0.01, 0.1)}}, "has 'study.alpha', which belongs to the whole study"),
        ({'space': {'train.seed': ('int', 1, 9)}}, 'belongs to the whole study'),
        ({'space': {'optimizer.learning_rat': ('log', 1e-3, 1.0)}}, "Did you mean 'optimizer.learning_rate'?"),
        ({'space': {'optimizer.momentum': ('linear', 0.0, 0.9)}}, "Variant 'adam': Unknown key 'optimizer.momentum'"),
        ({'space': {'data.batch_size': ('linear', 8, 64)}}, "'data.batch_size' is"),
        ({'space': {DECAY: ('linear', -1.0, 1.0)}}, 'expected at least 0'),
    ],
)
def test_what_cannot_be_tuned_is_refused_before_anything_is_built(tmp_path, fields, message):
    with pytest.raises(ConfigError) as caught:
        tuned(tmp_path, **fields)
    assert message in str(caught.value) and str(caught.value).startswith(f'{tmp_path}/paper.py:'), str(caught.value)


def test_variants_that_differ_in_what_is_tuned_alone_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="Variant 'low' is the same as 'baseline' at point 1 of tuning"):
        tuned(tmp_path, variants={'low': {RATE: 1e-4}}, space={RATE: ('log', 1e-3, 1.0)})
    tuned(tmp_path, variants={'low': {RATE: 1e-4}}, space={RATE: ('log', 1e-3, 1.0), 'low': {RATE: ('log', 1e-6, 1e-3)}})


def test_no_points_no_tuning_whatever_else_is_declared(tmp_path):
    study, before = tuned(tmp_path, points=0, seeds=(0,))
    assert before is None and study.tuning is None


def test_runs_of_tuning(tmp_path):
    study, before = tuned(tmp_path, points=3, seeds=(1000, 77), budget='1st')
    order = [(run.seed, run.point, run.variant) for run in before.runs]
    assert order == [(s, p, v) for s in (1000, 77) for p in range(3) for v in ('baseline', 'adam', 'cosine')]
    assert len({run.id for run in [*before.runs, *study.runs]}) == len(before.runs) + len(study.runs)
    for run in before.runs:
        told = run.config['study']
        assert (told['metric'], told['budget'], run.config['train']['seed']) == ('validation/accuracy', '1st', run.seed)
    assert tuned(tmp_path, points=3)[1].runs[0].config['study']['budget'] == '2st'


def test_seconds_of_tuning_are_pinned_beside_those_of_the_study(tmp_path, monkeypatch):
    monkeypatch.setattr(budget, '_seconds_per_step', lambda experiment: 0.5)
    study, before = tuned(tmp_path, points=2, budget='2s', body='config.study.budget = "8s"')
    session, workdir = Session(), tmp_path / 'study'
    workdir.mkdir()
    for _ in range(2):
        pinned = [budget.settle(stage, workdir, session) for stage in (before, study)]
        budgets = [{run.config['study']['budget'] for run in stage.runs} for stage in pinned]
        assert budgets == [{f'{4 * 64}ex'}, {f'{16 * 64}ex'}]
        monkeypatch.setattr(budget, '_seconds_per_step', lambda experiment: pytest.fail('measured twice'))


def test_a_final_run_at_a_seed_of_tuning_would_be_another_run(tmp_path):
    """Seeds may be exchanged later on: a record without a score on the test split is never taken for one with it."""
    _, before = tuned(tmp_path, points=2)
    later = plan.make(str(tmp_path / 'paper.py'), {'study.seeds': (1000,), 'study.tune.points': 0})
    assert not {run.id for run in later.runs} & {run.id for run in before.runs}


def test_the_points_of_a_variant_share_its_program(tmp_path):
    clip = 'config.optimizer.clip = {"name": "global_norm", "max_norm": 1.0}\n'
    space = {RATE: ('log', 1e-3, 1.0), DECAY: ('log', 1e-5, 1e-2), 'optimizer.clip.max_norm': ('log', 0.1, 10.0)}
    study, before = tuned(tmp_path, points=6, space=space, body=clip)
    assert {run.key for run in before.runs} == {run.key for run in study.runs} and len({run.key for run in before.runs}) == 2
    session = Session()
    verify.verify(before, session)
    assert len(session.programs) == 2


def test_points_that_are_the_same_twice_are_run_once(tmp_path):
    space = {'data.reference_size': ('int', 63, 65)}
    study, before = tuned(tmp_path, points=12, space=space, variants={})
    assert len(before.runs) == 3 == len({run.id for run in before.runs})
    after = tuning.after(study, before, results(before, lambda run: 0.5))
    tried = after.tuning['variants']['baseline']
    assert len(tried) == 12 and {i for entry in tried for i in entry['runs'].values()} == {run.id for run in before.runs}
    by_id = {run.id: run for run in before.runs}
    for entry in tried:
        assert by_id[entry['runs']['1000']].config['data']['reference_size'] == entry['values']['data.reference_size']


def test_the_best_mean_over_seeds_is_chosen_and_every_variant_is_run_with_its_own(tmp_path):
    study, before = tuned(tmp_path, points=3, seeds=(1000, 1001))
    worth = {'baseline': [(0.5, 0.7), (0.9, 0.2), (0.4, 0.4)], 'adam': [(0.1, 0.1), (0.2, 0.2), (0.3, 0.1)]}
    worth['cosine'] = [(0.1, 0.1), (0.1, 0.2), (0.9, None)]
    after = tuning.after(study, before, results(before, lambda run: worth[run.variant][run.point][run.seed - 1000]))
    assert after.tuning['chosen'] == {'baseline': 0, 'adam': 1, 'cosine': 1}
    points = tuning.points(study.config, study.variants)
    assert after.variants == {
        'baseline': {},
        'null': {'data.redraw': 1},
        'adam': {**VARIANTS['adam'], **points['adam'][1]},
        'cosine': {**VARIANTS['cosine'], **points['cosine'][1]},
    }
    assert [(run.seed, run.variant, run.point) for run in after.runs] == [(r.seed, r.variant, None) for r in study.runs]
    for run in after.runs:
        assert run.config == overrides.apply(study.config, after.variants[run.variant]) | {'train': run.config['train']}
    assert {run.seed for run in after.runs}.isdisjoint(run.seed for run in before.runs)
    assert after.contrasts == study.contrasts


def test_the_null_is_the_tuned_baseline_with_another_order(tmp_path):
    study, before = tuned(tmp_path)
    after = tuning.after(study, before, results(before, lambda run: run.point))
    baseline, null = (next(run.config for run in after.runs if run.variant == name) for name in ('baseline', 'null'))
    assert baseline['optimizer']['learning_rate'] != study.config['optimizer']['learning_rate']
    assert overrides.apply(null, {'data.redraw': 0}) == baseline


@pytest.mark.parametrize(
    ('body', 'scores', 'chosen'),
    [
        ('', [0.5, 0.5, 0.5], 0),
        ('', [0.4, 0.5, 0.5], 1),
        ('', [None, 0.0, None], 1),
        ('', [None, None, None], 0),
        ('', [float('nan'), 0.1, 0.2], 2),
        ('config.study.metric = "test/loss"\nconfig.study.higher_is_better = False', [0.5, 0.4, 0.6], 1),
        ('config.study.metric = "test/loss"\nconfig.study.higher_is_better = False', [None, 9.0, None], 1),
    ],
)
def test_choice(tmp_path, body, scores, chosen):
    study, before = tuned(tmp_path, points=3, space={RATE: ('log', 1e-3, 1.0)}, variants={}, body=body)
    assert tuning.after(study, before, results(before, lambda run: scores[run.point])).tuning['chosen'] == {'baseline': chosen}


@pytest.mark.parametrize('lost', ['missing', 'failed'])
def test_nothing_is_chosen_before_every_point_has_its_result(tmp_path, lost):
    study, before = tuned(tmp_path)
    found = results(before, lambda run: run.point)
    found = found[:-1] + ([] if lost == 'missing' else [{**found[-1], 'status': 'failed', 'metrics': {}}])
    after = tuning.after(study, before, found)
    assert after.runs == [] and after.tuning['chosen'] == {} and after.variants == study.variants


@pytest.mark.long
def test_plan_shows_runs_of_tuning_and_the_programs_that_they_share(tmp_path):
    study, before = tuned(tmp_path, points=3)
    console = rich.console.Console(file=io.StringIO(), width=200)
    preview.show(study, before, tmp_path / 'study', Session(), console, by_run=True)
    text = console.file.getvalue()
    assert 'before them 3 points a variant x 1 seeds = 9 runs of tuning, on validation/accuracy over 2st' in text
    assert 'adam: optimizer.learning_rate 0.001; optimizer.learning_rate ' in text
    assert all(text.count(run.id) == 1 and f'{run.variant}, point {run.point}' in text for run in before.runs)
    assert text.count('after tuning') == len(study.runs) and '2 training programs to compile' in text
    assert 'Tuning: about' in text and 'before tuning' in text


@pytest.mark.long
def test_the_test_split_is_read_by_final_runs_alone_and_their_commands_repeat_them(tmp_path, monkeypatch):
    reads = []
    blocks = Feed.blocks
    monkeypatch.setattr(
        Feed,
        'blocks',
        lambda self, rows: reads.append((rows is self.dataset.splits['test'], self.experiment.seed)) or blocks(self, rows),
    )
    body = TINY + 'config.study.budget = "30st"\nconfig.study.latency = ()\nconfig.study.seeds = 2\n'
    body += f'config.study.variants = {VARIANTS!r}\nconfig.study.tune = {{"points": 2, "space": {SPACE!r}}}'
    path, folder = written(tmp_path, body), tmp_path / 'dir'
    assert launch.launch(str(path), str(folder), {}) == launch.OK
    assert sorted(seed for is_test, seed in reads if is_test) == [0] * 4 + [1] * 4
    assert (False, 1000) in reads  # validation, in tuning

    study = json.loads((folder / 'study.json').read_text())
    for command in pages.commands(folder, study):
        flags = dict(word[2:].split('=', 1) for word in shlex.split(command['command']) if word.startswith('--config.'))
        changes = {key.removeprefix('config.'): text for key, text in flags.items()}
        again = plan.make(str(path), {key: overrides.parse_flag(key, text) for key, text in changes.items()})
        assert tuning.before(again) is None and [run.id for run in again.runs] == [command['id']]


@pytest.mark.long
def test_a_tuned_study_that_was_killed_goes_on_to_the_same_choice(tmp_path):
    changes = {
        'model.widths': (4, 4),
        'model.hidden': (8,),
        'study.budget': '60st',
        'study.variants': {'adam': VARIANTS['adam']},
        'study.tune': {'points': 3, 'space': {RATE: ('log', 1e-2, 0.5), 'adam': {RATE: ('log', 1e-3, 1e-1)}}},
        'train.checkpoint_every': '10st',
    }
    whole = Study(tmp_path, changes, tmp_path / 'whole')
    whole.finish()
    killed = Study(tmp_path, changes, tmp_path / 'killed')

    def stamps():
        return {path: path.stat().st_mtime_ns for path in killed.workdir.glob('runs/*/result.json')}

    started = killed.launch()
    started.until(lambda: len(stamps()) >= 3)
    started.kill()
    before = stamps()
    report_alone = Launch(tmp_path, f'--workdir={killed.workdir}', '--report')
    assert report_alone.wait() == 0, report_alone.output()
    assert '0 of 1 seeds' in (killed.workdir / 'report.md').read_text()
    killed.finish()
    assert stamps().items() >= before.items()
    studies = [json.loads((study.workdir / 'study.json').read_text()) for study in (whole, killed)]
    for key in ('tuning', 'variants', 'runs', 'seeds'):
        assert studies[0][key] == studies[1][key]
    ids = {i for found in studies[0]['tuning']['variants'].values() for entry in found for i in entry['runs'].values()}
    final = {i for runs in studies[0]['runs'].values() for i in runs.values()}
    assert len(ids) == 6 and len(final) == 2 and not ids & final
    for study in (whole, killed):
        records = {p.parent.name: json.loads(p.read_text()) for p in study.workdir.glob('runs/*/result.json')}
        assert set(records) == ids | final
        assert all('tuning_point' in records[i] and not any('test/' in m for m in records[i]['metrics']) for i in ids)
        assert all('tuning_point' not in records[i] and 'test/accuracy' in records[i]['metrics'] for i in final)
    assert whole.bits() == killed.bits()
    done = stamps()
    killed.finish()
    assert stamps() == done and json.loads((killed.workdir / 'study.json').read_text())['tuning'] == studies[0]['tuning']
