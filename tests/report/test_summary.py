"""The summary pairs by seed, uses whole seeds alone, corrects for its contrasts and drops no run that diverged."""

import json

import fabricate
import numpy as np
import pytest
from scipy import stats

from research.report import pages, records, statistics, summary, tables

CONTRAST = {
    'name',
    'weights',
    'n',
    'failed',
    'errors',
    'difference',
    'interval',
    'p_value',
    'p_corrected',
    'verdict',
    'time_to_quality',
    'cost',
    'null',
}


def summarize(workdir):
    read = records.read(workdir)
    found = summary.summarize(read, summary.read_evaluations(read))
    return read, json.loads(records.dumps(found)), {c['name']: c for c in found['contrasts']}


def scores(read, variant, seeds, key='test/accuracy', group='metrics'):
    return np.array([read.results[variant][seed][group][key] for seed in seeds])


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    return summarize(fabricate.study(tmp_path_factory.mktemp('study'), evaluations=4))


def test_schema(whole):
    _, found, contrasts = whole
    assert {'study', 'metric', 'higher_is_better', 'alpha', 'margin', 'seeds', 'contrasts'} <= set(found)
    assert all(set(c) >= CONTRAST for c in contrasts.values())
    assert [name for name, c in contrasts.items() if c['null']] == ['null']
    json.dumps(found, allow_nan=False)


def test_differences_are_paired_by_seed(whole):
    read, _, contrasts = whole
    for name in ('null', 'adam', 'tiny'):
        paired = scores(read, name, range(10)) - scores(read, 'baseline', range(10))
        np.testing.assert_allclose(contrasts[name]['differences'], paired, atol=1e-12)
        assert contrasts[name]['difference'] == pytest.approx(paired.mean(), abs=1e-12)
        whole_examples = np.round(paired * fabricate.EXAMPLES)
        p = stats.permutation_test((whole_examples,), np.mean, permutation_type='samples', n_resamples=np.inf).pvalue
        assert contrasts[name]['p_value'] == pytest.approx(p)


def test_null_is_no_part_of_the_correction(whole):
    _, _, contrasts = whole
    named = [c for c in contrasts.values() if not c['null']]
    assert [c['p_corrected'] for c in named] == pytest.approx(statistics.holm([c['p_value'] for c in named]))
    assert contrasts['null']['p_corrected'] is None and contrasts['null']['p_value'] is not None
    assert contrasts['tiny']['verdict'] == 'worse'


def test_named_contrast_weighs_variants_seed_by_seed(tmp_path):
    weights = {'adam': 1, 'tiny': 1, 'clip': -2}
    read, _, contrasts = summarize(fabricate.study(tmp_path, seeds=7, evaluations=2, contrasts={'mixed': weights}))
    expected = sum(w * scores(read, v, range(7)) for v, w in weights.items())
    np.testing.assert_allclose(contrasts['mixed']['differences'], expected, atol=1e-12)
    assert contrasts['mixed']['time_to_quality'] == {} and set(contrasts) == {'null', 'mixed'}


def test_uses_the_seeds_that_every_variant_has(tmp_path):
    workdir = fabricate.study(tmp_path, evaluations=2, finished={'adam': 7, 'null': 9})
    read, found, contrasts = summarize(workdir)
    assert found['seeds'] == list(range(7)) and found['planned_seeds'] == list(range(10))
    assert contrasts['clip']['difference'] == pytest.approx(
        (scores(read, 'clip', range(7)) - scores(read, 'baseline', range(7))).mean(), abs=1e-12
    )
    assert all(c['n'] == 7 for c in contrasts.values())


def test_nothing_finished_is_no_error(tmp_path):
    _, found, contrasts = summarize(fabricate.study(tmp_path, finished=dict.fromkeys(fabricate.EFFECTS, 0)))
    assert found['seeds'] == [] and all(c['difference'] is None and c['verdict'] == 'too few seeds' for c in contrasts.values())


@pytest.mark.parametrize('status, how', [('diverged', 'diverged'), ('failed', 'ended in an error')])
def test_a_run_without_a_number_is_never_dropped(tmp_path, status, how):
    _, found, contrasts = summarize(fabricate.study(tmp_path, evaluations=4, status={('adam', 3): status}))
    adam = contrasts['adam']
    assert (adam['n'], adam['failed'], adam['difference'], adam['p_value']) == (10, 1, None, None)
    assert adam['verdict'] == f'failed (1 of 10 {how})'
    assert contrasts['clip']['difference'] is not None and contrasts['clip']['failed'] == 0
    assert adam['time_to_quality']['examples']['variant_reached'] <= 9
    assert [(u['variant'], u['seed'], u['status']) for u in found['unfinished']] == [('adam', 3, status)]
    variant = next(v for v in found['variants'] if v['name'] == 'adam')
    assert variant['mean'] is None and variant['scores'][3] is None and variant['scores'][2] is not None


@pytest.mark.parametrize(
    'status, failed, errors, verdict',
    [
        ({('adam', 1): 'diverged', ('adam', 4): 'diverged'}, 2, 0, 'failed (2 of 10 diverged)'),
        ({('adam', 1): 'failed', ('adam', 4): 'failed'}, 2, 2, 'failed (2 of 10 ended in an error)'),
        (
            {('adam', 1): 'failed', ('adam', 4): 'diverged', ('baseline', 5): 'diverged'},
            3,
            1,
            'failed (2 of 10 diverged, 1 ended in an error)',
        ),
        ({('adam', 1): 'failed', ('baseline', 1): 'diverged'}, 1, 1, 'failed (1 of 10 ended in an error)'),
    ],
)
def test_errors_are_told_apart_from_divergence(tmp_path, status, failed, errors, verdict):
    _, _, contrasts = summarize(fabricate.study(tmp_path, evaluations=2, status=status))
    adam = contrasts['adam']
    assert (adam['failed'], adam['errors'], adam['verdict']) == (failed, errors, verdict)
    clip = sum(variant == 'baseline' for variant, _ in status)
    assert (contrasts['clip']['failed'], contrasts['clip']['errors']) == (clip, 0)


def test_time_ratios_carry_paired_intervals(tmp_path):
    read, _, contrasts = summarize(fabricate.study(tmp_path, seeds=4, evaluations=2))
    ratios = np.log(
        scores(read, 'tiny', range(4), 'train_seconds', 'cost') / scores(read, 'baseline', range(4), 'train_seconds', 'cost')
    )
    expected = stats.ttest_1samp(ratios, 0).confidence_interval(0.95)
    found = contrasts['tiny']['cost']['train_seconds']
    assert found['ratio'] == pytest.approx(stats.gmean(np.exp(ratios)))
    assert found['interval'] == pytest.approx(np.exp(expected))
    assert contrasts['tiny']['cost']['parameters'] == {'ratio': pytest.approx(0.3)}


def test_costs_of_a_variant(whole):
    read, found, _ = whole
    tiny = next(v for v in found['variants'] if v['name'] == 'tiny')
    seconds = scores(read, 'tiny', range(10), 'train_seconds', 'cost')
    assert tiny['cost']['train_seconds'] == pytest.approx(seconds.mean())
    assert tiny['train_seconds_interval'][0] < seconds.mean() < tiny['train_seconds_interval'][1]
    assert tiny['cost']['compile_seconds'] == pytest.approx(3.6) and tiny['cost']['parameters'] == 7500
    assert tiny['latency']['64']['p50'] == 3e-3


def test_memory_is_the_median_of_what_training_took(tmp_path):
    """A seed that touches something for the first time does not move it."""
    workdir = fabricate.study(tmp_path, evaluations=2)
    first = json.loads((fabricate.amend(workdir, 'tiny', 0) / 'result.json').read_text())
    fabricate.amend(workdir, 'tiny', 0, cost=first['cost'] | {'peak_growth_bytes': 10**9})
    read, found, contrasts = summarize(workdir)
    tiny = next(v for v in found['variants'] if v['name'] == 'tiny')
    taken = {name: scores(read, name, range(10), 'peak_growth_bytes', 'cost') for name in ('tiny', 'baseline')}
    assert tiny['cost']['peak_growth_bytes'] == np.median(taken['tiny']) < 2e6 < taken['tiny'].mean()
    ratio = contrasts['tiny']['cost']['peak_growth_bytes']
    assert ratio['ratio'] == pytest.approx(stats.gmean(taken['tiny'] / taken['baseline'])) and len(ratio['interval']) == 2


def test_variants_that_share_a_program_share_its_memory(tmp_path):
    """Only the learning rate tells two variants apart: what one of them takes, the other takes."""
    workdir = fabricate.study(tmp_path, seeds=6, evaluations=2)
    for variant, taken in (('baseline', 4e6), ('null', 5e6), ('cosine', 9e6)):
        for seed in range(6):
            cost = json.loads((fabricate.amend(workdir, variant, seed, key='one') / 'result.json').read_text())['cost']
            fabricate.amend(workdir, variant, seed, cost=cost | {'peak_growth_bytes': int(taken) + seed})
    _, found, contrasts = summarize(workdir)
    taken = {v['name']: v['cost']['peak_growth_bytes'] for v in found['variants']}
    assert taken['baseline'] == taken['null'] == taken['cosine'] == 5e6 + 2.5 and taken['tiny'] < 2e6
    assert contrasts['cosine']['cost']['peak_growth_bytes'] == {'ratio': 1.0, 'interval': [1.0, 1.0]}


def test_latency_follows_the_run_and_not_the_name_of_a_variant(tmp_path):
    """Two variants that swap their definitions swap their runs, and with them what was measured."""
    workdir = fabricate.study(tmp_path, seeds=2, evaluations=2)
    content = json.loads((workdir / 'study.json').read_text())
    latency = json.loads((workdir / 'latency.json').read_text())
    latency[content['runs']['tiny']['0']]['64'] = {'p10': 1e-5, 'p50': 1e-5, 'p90': 1e-5}
    (workdir / 'latency.json').write_text(json.dumps(latency))
    content['runs'] |= {'tiny': content['runs']['cosine'], 'cosine': content['runs']['tiny']}
    (workdir / 'study.json').write_text(json.dumps(content))
    measured = records.read(workdir).latency
    assert measured['cosine']['64']['p50'] == 1e-5 and measured['tiny']['64']['p50'] == 3e-3
    (workdir / 'latency.json').write_text(json.dumps({'tiny': latency[content['runs']['tiny']['0']]}))
    assert records.read(workdir).latency == {}  # measured when names were what it was known by


def test_costs_are_those_that_are_known_and_numbers(tmp_path):
    workdir = fabricate.study(tmp_path, evaluations=2)
    for path in workdir.glob('runs/*/result.json'):
        result = json.loads(path.read_text())
        result['cost'] |= {'train_flops': 'unknown', 'peak_growth_bytes': None, 'device_name': 'cpu'}
        path.write_text(json.dumps(result))
    _, found, contrasts = summarize(workdir)
    for cost in [v['cost'] for v in found['variants']] + [c['cost'] for c in contrasts.values()]:
        assert not {'train_flops', 'peak_growth_bytes', 'device_name', 'scored_step'} & set(cost)
        assert 'parameters' in cost


def test_time_to_quality_is_read_on_validation(whole):
    read, found, contrasts = whole
    final = [records.evaluations(read.workdir, r['id'])[-1]['validation/accuracy'] for r in read.results['baseline'].values()]
    variants = {v['name']: v['time_to_quality'] for v in found['variants']}
    assert variants['baseline']['target'] == min(final) and variants['baseline']['reached'] == 10
    assert variants['tiny']['reached'] == 0 and variants['tiny']['examples'] is None
    assert contrasts['tiny']['time_to_quality']['examples']['slower'] == 10


def test_crossed_interval_is_wider_and_needs_correctness(whole, tmp_path):
    _, _, contrasts = whole
    for contrast in contrasts.values():
        low, high = contrast['crossed_interval']
        assert low < contrast['difference'] < high and high - low > contrast['interval'][1] - contrast['interval'][0]
    _, _, without = summarize(fabricate.study(tmp_path, evaluations=2, correct=False))
    assert all(c['crossed_interval'] is None for c in without.values())


def test_exact_matches_are_shares_of_examples_too(tmp_path):
    """As of an accuracy: the interval over other examples, and differences in steps of one example."""
    workdir = fabricate.study(tmp_path, evaluations=2)
    _, _, of_accuracy = summarize(workdir)
    for file in workdir.rglob('*.json*'):
        file.write_text(file.read_text().replace('accuracy', 'exact_match'))
    _, _, of_matches = summarize(workdir)
    for name, contrast in of_accuracy.items():
        for key in ('p_value', 'interval', 'crossed_interval', 'detectable'):
            assert of_matches[name][key] == contrast[key], (name, key)


def test_pairs_made_under_different_conditions_are_named(tmp_path, without_plots):
    """A fingerprint that differs, numerics that differ, and a record of before there were numerics, which is not known to."""
    workdir = fabricate.study(tmp_path, evaluations=2)
    for variant in ('baseline', 'adam', 'clip', 'null', 'tiny'):
        for seed in range(10):
            old = variant == 'clip' or (variant, seed) == ('adam', 7)
            cores = 2 if variant != 'adam' or seed < 8 else 4
            fabricate.amend(
                workdir, variant, seed, **({} if old else {'numerics': {'instructions': 'avx512f', 'cores': cores}})
            )
    fingerprint = records.read(workdir).results['adam'][4]['fingerprint']
    fabricate.amend(workdir, 'adam', 4, fingerprint=fingerprint | {'code': 'other'})
    fabricate.amend(
        workdir, 'tiny', 1, numerics={'instructions': 'sse4_2', 'cores': 2}, environment={'jax': '0.10.2'}, rules='1.0'
    )
    _, found, contrasts = summarize(workdir)
    assert contrasts['adam']['mismatch'] == {'code': [4], 'cores': [8, 9]} and contrasts['clip']['mismatch'] == {}
    assert contrasts['tiny']['mismatch'] == {'instructions': [1]}
    assert found['fingerprints']['code'] == 2 and found['fingerprints']['instructions'] == 2
    assert set(found['elsewhere']) == {'instructions', 'cores'} and found['elsewhere']['cores']['4'] == {'adam': [8, 9]}
    pages.write(workdir)
    first, _, rest = (workdir / 'report.md').read_text().partition('\n## ')
    assert 'adam: the two halves of a pair were run under other conditions, code (seeds 4), cores (seeds 8–9)' in first
    assert '| instructions, by run | avx512f; but sse4\\_2: tiny 1 |' in rest


def test_added_seeds_are_those_no_report_knew(tmp_path):
    _, found, _ = summarize(fabricate.study(tmp_path, evaluations=2, reported_seeds=[0, 1, 2, 3, 4, 5]))
    assert found['added_seeds'] == [6, 7, 8, 9]


def test_bands_are_moments_over_seeds_where_all_have_been(tmp_path):
    read = records.read(fabricate.study(tmp_path, seeds=3, evaluations=4, status={('adam', 1): 'diverged'}))
    bands = summary.bands(summary.read_evaluations(read))['validation/accuracy']
    lines = [records.evaluations(read.workdir, r['id']) for r in read.results['clip'].values()]
    values = np.array([[line['validation/accuracy'] for line in run] for run in lines])
    np.testing.assert_allclose(bands['clip']['mean'], values.mean(0))
    np.testing.assert_allclose(bands['clip']['spread'], values.std(0, ddof=1))
    assert len(bands['clip']['x']) == 4 and len(bands['adam']['x']) == 2


def test_a_private_study_shows_epsilon_and_how_well_members_are_told(tmp_path):
    """The largest epsilon of a seed; no other study has these columns."""
    workdir = fabricate.study(tmp_path / 'private', seeds=3)
    paths = sorted((workdir / 'runs').glob('*/result.json'))

    def changed(change):
        for path in paths:
            result = json.loads(path.read_text())
            change(result)
            path.write_text(json.dumps(result))
        return summarize(workdir)[1]

    told = changed(lambda result: result['metrics'].update({'fitted/membership_auc': 0.5 + result['seed'] / 100}))
    assert 'membership AUC' not in tables.quality(told)['headings'] and 'epsilon' not in tables.cost(told)['headings']

    def spend(result):
        if result['variant'] == 'adam':
            result['cost'] |= {'epsilon': 3.0 + result['seed'], 'delta': 7.7e-5}

    told = changed(spend)
    quality, cost = tables.quality(told), tables.cost(told)
    epsilon = {row[0]: row[cost['headings'].index('epsilon')] for row in cost['rows']}
    assert epsilon['adam'] == '5 at 7.7e-05' and epsilon['baseline'] == '∞'
    assert quality['rows'][0][quality['headings'].index('membership AUC')].startswith('0.510 (')
    lines = {line['name']: line for line in tables.lines(told)}
    assert lines['adam']['epsilon'] == 5 and lines['adam']['membership_auc'] == pytest.approx(0.51)
    paths[0].write_text(json.dumps({**json.loads(paths[0].read_text()), 'metrics': {told['metric']: 0.9}}))
    assert sum(variant['membership'] is None for variant in summarize(workdir)[1]['variants']) == 1


def test_gap_is_how_much_better_training_examples_are_scored(tmp_path):
    """Of an accuracy and of a loss; none where a run did not measure it."""
    for metric, higher, fitted, gap in (('test/accuracy', True, 0.99, 0.04), ('test/loss', False, 0.2, 0.5)):
        workdir = fabricate.study(tmp_path / metric.replace('/', '_'), seeds=3, metric=metric, higher_is_better=higher)
        for path in sorted((workdir / 'runs').glob('*/result.json')):
            result = json.loads(path.read_text())
            name = metric.partition('/')[2]
            result['metrics'] |= {metric: fitted - gap if higher else fitted + gap, f'fitted/{name}': fitted}
            path.write_text(json.dumps(result))
        _, told, _ = summarize(workdir)
        assert all(variant['gap']['mean'] == pytest.approx(gap) for variant in told['variants'])
        shown = tables.quality(told)
        assert len(shown['rows'][0][shown['headings'].index('gap to training data')]) > 1
    result['metrics'].pop(f'fitted/{name}')
    path.write_text(json.dumps(result))
    assert sum(variant['gap'] is None for variant in summarize(workdir)[1]['variants']) == 1
