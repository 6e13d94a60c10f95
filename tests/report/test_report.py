"""The report says what the records say, in every format, whatever the names in a config contain."""

import base64
import csv
import errno
import html.parser
import io
import itertools
import json
import re
import shlex
import subprocess
import sys

import fabricate
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from research import files
from research.catalogue import ConfigError
from research.config import overrides
from research.report import examples, figures, pages, records, tables, terminal, training, trials, words
from research.study import launch

# The studies below and every state of a study are drawn, others not again.
pytestmark = pytest.mark.usefixtures('without_plots')
FILES = ('summary.json', 'results.jsonl', 'report.md', 'report.html', 'report.csv', 'report.tex')
PICTURES = ('forest.png', 'forest.pdf', 'pareto.png', 'pareto.pdf')
HOSTILE = (
    'a|b<script>alert(1)</script>',
    '</script><img src=x onerror=alert(1)>',
    '[x](javascript:alert(1))',
    r'\input{/etc/passwd}$x_1^2$%#&~',
    '=cmd()|x',
    '{{ 7*7 }}<< 7*7 >>',
    '_*`äö−日',
    '$\\frac{',
)


class Tags(html.parser.HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.data = [], [], ''
        self._in_data = False
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += [name for name, _ in attributes]
        self._in_data = ('id', 'data') in attributes

    def handle_data(self, data):
        if self._in_data:
            self.data += data

    def handle_endtag(self, tag):
        self._in_data = False


@pytest.fixture(scope='module')
def study(tmp_path_factory):
    workdir = fabricate.study(tmp_path_factory.mktemp('study'), evaluations=3)
    return workdir, pages.write(workdir)


@pytest.fixture(scope='module')
def hostile(tmp_path_factory):
    effects = {'baseline': 0.0, 'null': 0.0} | {name: 0.005 * i for i, name in enumerate(HOSTILE)}
    workdir = fabricate.study(
        tmp_path_factory.mktemp('hostile'),
        effects=effects,
        seeds=6,
        evaluations=2,
        question=' '.join(HOSTILE),
        notes=list(HOSTILE),
        name=HOSTILE[0],
        status={(HOSTILE[1], 2): 'failed'},
        budget_note=HOSTILE[3],
        variants={name: {'model.name': name} if name in HOSTILE else {} for name in effects},
    )
    return workdir, pages.write(workdir)


def test_writes_every_file_and_returns_the_summary(study):
    workdir, summary = study
    assert all((workdir / name).stat().st_size for name in FILES + PICTURES) and not list(workdir.glob('*.tmp*'))
    assert summary == json.loads((workdir / 'summary.json').read_text(), parse_constant=pytest.fail)
    assert all((workdir / name).read_bytes()[1:4] in (b'PNG', b'PDF') for name in PICTURES)


def test_a_second_report_is_the_same(study):
    workdir, _ = study
    before = {name: (workdir / name).read_bytes() for name in FILES}
    pages.write(workdir)
    assert {name: (workdir / name).read_bytes() for name in FILES} == before


def test_reading_records_needs_no_jax(study):
    workdir, _ = study
    code = f'import sys; from research.report import pages; pages.write({str(workdir)!r}); print("jax" in sys.modules)'
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout.strip() == 'False'


def test_without_a_study_says_so(tmp_path):
    with pytest.raises(ConfigError, match='No study'):
        pages.write(tmp_path)


def test_markdown_has_the_order_of_the_page(study):
    workdir, summary = study
    text = (workdir / 'report.md').read_text()
    adam = next(c for c in summary['contrasts'] if c['name'] == 'adam')
    gain = f'Gains {100 * adam["difference"]:.2f} points (95 % interval +{100 * adam["interval"][0]:.2f}'
    marks = (
        summary['question'],
        '**Of 4 changes',
        '(forest.png)',
        'Null variant',
        'p, Holm',
        'training time, ratio',
        '(pareto.png)',
    )
    marks += (gain, 'Do it again', 'What differs', '| optimizer.learning', 'Config of')
    places = [text.index(mark) for mark in marks]
    assert places == sorted(places)


def test_html_stands_alone(study):
    workdir, _ = study
    text = (workdir / 'report.html').read_text()
    assert not re.search(r'(src|href)\s*=(?!"(#of-\w+|runs/\w+/)")|@import|url\((?!#)', text) and '://' not in text.replace(
        'http://www.w3.org/2000/svg', ''
    )


@pytest.mark.filterwarnings('ignore:Glyph')
def test_hostile_names_are_text_in_html(study, hostile):
    plain, wild = (Tags((workdir / 'report.html').read_text()) for workdir, _ in (study, hostile))
    assert set(wild.tags) <= {*plain.tags, 'text'} and wild.tags.count('script') == plain.tags.count('script') == 2
    assert set(wild.attributes) <= {*plain.attributes, 'y', 'dy'}
    assert [p['name'] for p in json.loads(wild.data)['points']] == ['baseline', 'null', *HOSTILE]
    assert (
        '49' not in re.sub(r'[\d.]*49[\d.]+|[\d.]+49[\d.]*', '', (hostile[0] / 'report.html').read_text()).split('<script')[0]
    )


def test_hostile_names_keep_markdown_tables_whole(hostile):
    workdir, _ = hostile
    text = (workdir / 'report.md').read_text()
    prose = '\n'.join(line for line in text.splitlines() if not line.startswith('    '))
    assert '<' not in prose and not re.search(r'(?<!\\)\[[^\]]*\]\((?!(?:pareto|forest)\.png\))', prose)
    tables = re.findall(r'(?:^\|.*\n)+', text, re.M)
    assert len(tables) >= 5
    for table in tables:
        bars = [len(re.findall(r'(?<!\\)\|', line)) for line in table.splitlines()]
        assert len(set(bars)) == 1, table


def test_hostile_names_are_text_in_latex(hostile):
    workdir, _ = hostile
    text = (workdir / 'report.tex').read_text()
    macros = re.findall(r'^\\newcommand\{\\(.*?)\}\{(.*)\}$', text, re.M)
    names = [name for name, _ in macros]
    assert len(names) == text.count('\\newcommand') == len(set(names)) and all(
        re.fullmatch('[A-Za-z]+', name) for name in names
    )
    for _, body in macros:
        body = re.sub(r'\\ifdefined\\Umathcode .\\else (U\+[0-9A-F]{4,6})\\fi\{\}', r'\1', body)  # in place of a letter
        assert max(map(ord, body), default=0) < 0x180, body
        bare = re.sub(r'\\([{}$&#_%]|[\^~]\{\}|text[a-z]+\{\}|ensuremath\{(-|\\times|\\pm|\\infty)\})', '', body)
        assert not set(bare) & set('\\{}$&#_%^~'), body
    assert 'adjustbox}{max totalsize={\\linewidth}' in text
    used = set(re.findall(r'\\(res[A-Za-z]+)', text.split(r'\begin{table}')[1]))
    assert used <= set(names)


def test_hostile_names_come_back_from_csv(hostile):
    workdir, summary = hostile
    lines = list(csv.DictReader(io.StringIO((workdir / 'report.csv').read_text(), newline='')))
    assert [line['name'].removeprefix("'") for line in lines] == ['baseline', 'null', *HOSTILE]
    assert not any(value.startswith(('=', '@')) for line in lines for value in line.values())
    assert float(lines[0]['mean']) == summary['variants'][0]['mean']


def test_each_run_can_be_repeated_alone(study, hostile):
    for workdir, _ in (study, hostile):
        content = json.loads((workdir / 'study.json').read_text())
        commands = pages.commands(workdir, content)
        assert len(commands) == sum(map(len, content['runs'].values()))
        for entry in commands:
            flags = dict(word.split('=', 1) for word in shlex.split(entry['command']) if word.startswith('--'))
            assert overrides.parse(flags['--config.study.seeds']) == (int(entry['seed']),)
            assert (
                overrides.parse(flags['--config.study.variants']) == {}
                and overrides.parse(flags['--config.study.null']) is False
            )
            for key, value in content['variants'][entry['name']].items():
                assert overrides.parse_flag(key, flags[f'--config.{key}']) == value


def test_a_budget_of_seconds_is_repeated_in_the_examples_it_came_to(tmp_path):
    workdir = fabricate.study(
        tmp_path,
        effects={'baseline': 0.0, 'adam': 0.01},
        seeds=2,
        evaluations=2,
        budget='60s',
        pinned={'baseline': '30016ex', 'adam': '28800ex'},
        command='python launch.py --config=configs/quickstart.py --workdir=w --config.study.budget=60s',
    )
    content = json.loads((workdir / 'study.json').read_text())
    gone = content['runs']['adam']['1']
    (workdir / 'runs' / gone / 'config.json').write_text('{"study": ')
    for entry in pages.commands(workdir, content):
        flags = dict(word.split('=', 1) for word in shlex.split(entry['command']) if word.startswith('--'))
        expected = {'baseline': '30016ex', 'adam': '60s' if entry['id'] == gone else '28800ex'}[entry['name']]
        assert flags['--config.study.budget'] == expected
    pages.write(workdir)
    assert '--config.study.budget=30016ex' in (workdir / 'report.html').read_text()


def test_other_budgets_stay_as_they_were_given(study):
    workdir, _ = study
    content = json.loads((workdir / 'study.json').read_text())
    assert not any('study.budget' in entry['command'] for entry in pages.commands(workdir, content))


def test_the_null_has_its_costs_and_no_quality_beside_the_variants(study):
    _, summary = study
    assert [row[0] for row in tables.cost(summary)['rows']][:3] == ['baseline', 'null', 'adam']
    assert 'null' not in [row[0] for row in tables.quality(summary)['rows']]


def test_what_tuning_changed_in_the_baseline_alone_is_a_difference_of_every_variant(tmp_path):
    workdir = fabricate.study(tmp_path, seeds=2, evaluations=2)
    fabricate.tune(workdir, {'baseline': [0.8, 0.9], 'clip': [0.9, 0.8]}, chosen={'baseline': 1, 'clip': 0})
    pages.write(workdir)
    text = (workdir / 'report.md').read_text().replace('\\', '')
    assert '| clip | optimizer.learning_rate | 0.1 | 0.05 |' in text


@pytest.mark.parametrize(
    'cached, shown', [(0.0, '3.6 s'), (3.6, '3.6 s, from the cache'), (0.6, '3.6 s, 600 ms of it from the cache')]
)
def test_compile_time_says_whether_the_cache_served_it(tmp_path, cached, shown):
    workdir = fabricate.study(tmp_path, seeds=1, evaluations=2)
    run = json.loads((fabricate.amend(workdir, 'tiny', 0) / 'result.json').read_text())
    fabricate.amend(workdir, 'tiny', 0, cost=run['cost'] | {'cached_seconds': cached})
    cost = tables.cost(pages.write(workdir))
    column = cost['headings'].index('compile time, all seeds')
    assert {row[0]: row[column] for row in cost['rows']}['tiny'] == shown


def test_operations_that_flops_leave_out_are_named_under_the_table(tmp_path):
    workdir = fabricate.study(tmp_path, seeds=2, evaluations=2)
    run = json.loads((fabricate.amend(workdir, 'tiny', 0) / 'result.json').read_text())
    fabricate.amend(workdir, 'tiny', 0, cost=run['cost'] | {'uncounted': ['fft', 'svd']})
    caption = tables.cost(pages.write(workdir))['caption']
    assert caption.endswith('Not in the FLOPs though it costs something: fft, svd (tiny).')


@pytest.mark.parametrize('memory, shown', [(True, '6 MB'), (False, '–')])
def test_memory_is_shown_where_it_could_be_measured(tmp_path, memory, shown):
    workdir = fabricate.study(tmp_path, seeds=3, evaluations=2, memory=memory)
    summary = pages.write(workdir)
    cost = tables.cost(summary)
    assert cost['rows'][0][cost['headings'].index('memory measured, training')] == shown
    axes = {c['key'] for c in json.loads(Tags((workdir / 'report.html').read_text()).data)['costs']}
    assert ('peak_growth_bytes' in axes) == memory


def test_what_cannot_be_written_is_the_callers_to_handle(tmp_path, monkeypatch):
    def full(path, mode):
        path.touch()
        raise OSError(errno.ENOSPC, 'No space left on device')

    workdir = fabricate.study(tmp_path, seeds=2, evaluations=2)
    monkeypatch.setattr(files, 'open', full, raising=False)
    with pytest.raises(OSError, match='No space left'):
        pages.write(workdir)
    assert not list(workdir.glob('*.tmp*'))


def test_partial_added_and_bad_are_announced(tmp_path):
    workdir = fabricate.study(tmp_path, evaluations=2, finished={'adam': 8}, reported_seeds=[0, 1, 2, 3, 4, 5])
    run = json.loads((workdir / 'study.json').read_text())['runs']['clip']['0']
    (workdir / 'runs' / run / 'result.json').write_text('{"id": ')
    pages.write(workdir)
    for name in ('report.md', 'report.html'):
        text = (workdir / name).read_text()
        assert '7 of 10 seeds have a result in every variant' in text
        assert '2 seeds were added after a report was read: p-values do not account for this' in text
        assert 'torn' in text and run in text


def test_first_report_enters_its_seeds_and_later_ones_keep_them(tmp_path):
    workdir = fabricate.study(tmp_path, evaluations=2, seeds=6)
    assert pages.write(workdir)['added_seeds'] == []
    reported = json.loads((workdir / 'study.json').read_text())['reported_seeds']
    fabricate.study(tmp_path / 'more', evaluations=2, seeds=8, reported_seeds=reported)
    for _ in range(2):
        assert pages.write(tmp_path / 'more')['added_seeds'] == [6, 7]


def test_a_report_beside_a_launch_leaves_study_json_to_it(tmp_path):
    """The launch may have written another study since the report read it."""
    workdir = fabricate.study(tmp_path / 'dir', seeds=2, evaluations=2)
    before = (workdir / 'study.json').read_bytes()
    with files.lock(workdir / files.LOCK) as free:
        assert free and launch.launch('', str(workdir), {}, 'report') == 0
    assert (workdir / 'study.json').read_bytes() == before and (workdir / 'report.html').exists()
    assert launch.launch('', str(workdir), {}, 'report') == 0
    assert json.loads((workdir / 'study.json').read_text())['reported_seeds'] == [0, 1]


def test_failures_are_told_with_their_message(tmp_path):
    workdir = fabricate.study(tmp_path, evaluations=2, status={('adam', 2): 'diverged', ('clip', 1): 'failed'})
    pages.write(workdir)
    text = (workdir / 'report.md').read_text()
    assert 'diverged at step 300' in text and 'failed at step 300' in text
    assert 'failed (1 of 10 diverged)' in text and 'failed (1 of 10 ended in an error)' in text


def test_lower_is_better_for_a_loss(tmp_path):
    workdir = fabricate.study(tmp_path, evaluations=2, metric='test/loss')
    summary = pages.write(workdir)
    adam = next(c for c in summary['contrasts'] if c['name'] == 'adam')
    assert adam['difference'] < 0 and adam['verdict'] == 'better' and adam['crossed_interval'] is None
    assert (
        'Lowers test/loss by 0.' in (workdir / 'report.md').read_text() and 'points' not in (workdir / 'report.md').read_text()
    )


@pytest.mark.parametrize(
    'options',
    [
        {'finished': dict.fromkeys(fabricate.EFFECTS, 0)},
        {'seeds': 1},
        pytest.param({'seeds': 3}, marks=pytest.mark.long),
        {'effects': {'baseline': 0.0}},
        {'status': {('baseline', s): 'diverged' for s in range(10)}},
        pytest.param({'correct': False}, marks=pytest.mark.long),
        pytest.param({'alpha': 0.1, 'margin': 0.02}, marks=pytest.mark.long),
        pytest.param({'contrasts': {'both': {'adam': 1, 'cosine': 1, 'baseline': -2}}}, marks=pytest.mark.long),
    ],
)
def test_any_state_of_a_study_can_be_reported(tmp_path, options, monkeypatch):
    monkeypatch.undo()  # a plot may have nothing to show
    workdir = fabricate.study(tmp_path, evaluations=2, **options)
    summary = pages.write(workdir)
    assert 'None' not in (workdir / 'report.md').read_text() and 'nan' not in (workdir / 'report.md').read_text()
    Console(width=100, file=io.StringIO()).print(terminal.table(summary))


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=12), st.booleans())
def test_front_is_what_nothing_dominates(values, higher):
    points = [{'name': i, 'mean': m, 'costs': {'c': c}} for i, (c, m) in enumerate(values)]
    sign = 1 if higher else -1
    found = {(p['costs']['c'], p['mean']) for p in figures.front(points, 'c', higher)}
    assert found == {
        (c, m) for c, m in values if not any((d <= c and sign * n >= sign * m) and (d, n) != (c, m) for d, n in values)
    }


@given(st.lists(st.text(), max_size=20))
def test_macros_are_letters_and_all_different(names):
    taken = set()
    made = [words.macro(name, taken) for name in names]
    assert len(set(made)) == len(names) and all(re.fullmatch('[A-Za-z]+', name) for name in made)


@given(st.floats(1, 9.9e20))
def test_quantity_is_within_half_of_its_last_digit(value):
    number, _, prefix = words.quantity(value, 'B').partition(' ')
    back = float(number) * 1000 ** ('B', 'kB', 'MB', 'GB', 'TB', 'PB', 'EB').index(prefix)
    assert back == pytest.approx(value, rel=5.1e-3) and len(number.replace('.', '')) <= 3 + (value < 1)


@given(st.dictionaries(st.text(), st.floats() | st.lists(st.floats()), max_size=5))
def test_json_is_strict_and_keeps_what_is_finite(value):
    back = json.loads(records.dumps(value), parse_constant=pytest.fail)
    assert back.keys() == value.keys()
    for key, found in value.items():
        pairs = zip(found, back[key], strict=True) if isinstance(found, list) else [(found, back[key])]
        assert all(b == f or (b is None and f - f != 0) for f, b in pairs)


def test_what_a_verdict_rests_on_stands_beside_it(tmp_path):
    """The interval of two one-sided tests, the contrasts that were corrected, and how finely times to quality are known."""
    workdir = fabricate.study(tmp_path, evaluations=10, margin=0.03, status={('adam', 2): 'diverged'})
    contrasts = {c['name']: c for c in pages.write(workdir)['contrasts']}
    text, clip = (workdir / 'report.md').read_text(), contrasts['clip']
    low, high = (100 * bound for bound in clip['equivalence_interval'])
    assert clip['verdict'] == 'equivalent' and -3 < low < high < 3
    assert f'within the margin of 3.00 points (90 % interval {low:+.2f} to {high:+.2f})'.replace('-', '−') in text
    assert "Holm's correction for 3 contrasts" in text and len(contrasts) == 5
    signs = clip['time_to_quality']['examples']
    told = f'sooner in {signs["faster"]}, later in {signs["slower"]}, p {signs["p_value"]:.2g}'
    assert 'examples, read every 3.88 k (10 of 10 reached it)' in text and told in text


def test_tuning_is_reported_as_it_was(tmp_path):
    workdir = fabricate.study(tmp_path, effects={'baseline': 0.0, 'null': 0.0, 'adam': 0.03}, seeds=3, evaluations=2)
    worth = {'baseline': [0.9, 0.8, 0.7], 'adam': [0.5, 0.6, 0.95]}
    untuned = pages.write(workdir)
    chosen = {'baseline': 0, 'adam': 2}
    fabricate.tune(workdir, worth, seeds=(1000, 1001), diverged=[('adam', 0), ('baseline', 2)], chosen=chosen)
    summary = pages.write(workdir)
    assert summary['contrasts'] == untuned['contrasts'] and summary['strangers'] == 0
    table = trials.table(summary)
    cells = [dict(zip(table['headings'], row, strict=True)) for row in table['rows']]
    assert [c['best point'] for c in cells] == ['as written', 'optimizer.learning_rate 0.2']
    assert [c['validation/accuracy in points'] for c in cells] == ['90.00', 'diverged']
    assert [c['validation/accuracy in points there'] for c in cells] == ['90.00', '95.00']
    assert [c['of them diverged'] for c in cells] == ['1', '1'] and {c['points tried'] for c in cells} == {'3 of 3'}
    assert {c['training time, all points'] for c in cells} == {'12 s'}  # 3 points, 2 seeds, 2 s each
    for name in ('report.md', 'report.html'):
        text = (workdir / name).read_text().replace('\\', '')
        assert 'over seeds 1000–1001' in text and 'its runs did not read the test split' in text
        assert 'of seeds 0–2' in text and 'Tuned: each variant over the same 3 points' in text
    commands = pages.commands(workdir, json.loads((workdir / 'study.json').read_text()))
    for entry in commands:
        assert '--config.study.tune.points=0' in entry['command']
        assert ('--config.optimizer.learning_rate=0.2' in entry['command']) == (entry['name'] == 'adam')
    assert len((workdir / 'results.jsonl').read_text().splitlines()) == 9


def test_what_tuning_moved_is_the_baseline_that_others_differ_from(tmp_path):
    workdir = fabricate.study(tmp_path, effects={'baseline': 0.0, 'cosine': 0.03}, seeds=3, evaluations=2)
    fabricate.tune(workdir, {'baseline': [0.1, 0.9, 0.2], 'cosine': [0.1, 0.2, 0.9]}, chosen={'baseline': 1, 'cosine': 2})
    pages.write(workdir)
    text = (workdir / 'report.md').read_text().replace('\\', '')
    assert '| cosine | optimizer.learning_rate | 0.1 | 0.2 |' in text
    assert '| baseline | optimizer.learning_rate | ' not in text
    assert '    optimizer.learning_rate = 0.1\n' in text


def test_tuning_that_is_not_over_or_not_clean_is_told(tmp_path):
    effects = {'baseline': 0.0, 'adam': 0.03}
    workdir = fabricate.study(tmp_path, effects=effects, seeds=3, evaluations=2, finished=dict.fromkeys(effects, 0))
    fabricate.tune(workdir, {'baseline': [0.5, 0.6], 'adam': [0.5, None]})
    summary = pages.write(workdir)
    assert [row[-4] for row in trials.table(summary)['rows']] == ['2 of 2', '1 of 2']
    assert '0 of 3 seeds have a result' in (workdir / 'report.md').read_text()
    fabricate.tune(
        workdir, {'baseline': [0.5, 0.6], 'adam': [0.5, 0.6]}, metrics={'validation/accuracy': 1, 'test/accuracy': 1}
    )
    assert trials.summarize(records.read(workdir))['read_test']
    pages.write(workdir)
    assert 'but its runs did read the test split' in (workdir / 'report.md').read_text()
    fabricate.tune(workdir, {'baseline': [0.5, 0.6], 'adam': [0.5, 0.6]}, status='failed', metrics={})
    pages.write(workdir)
    assert '4 runs of tuning ended in an error' in (workdir / 'report.md').read_text()


def test_what_steps_observed_is_shown_where_there_is_something(tmp_path, study):
    assert 'observed in training' not in (study[0] / 'report.md').read_text() + (study[0] / 'report.html').read_text()
    workdir = fabricate.study(tmp_path, seeds=2, evaluations=2, status={('adam', 1): 'diverged'})
    for seed, share in ((0, 0.25), (1, 0.75)):
        seen = {'clip/steps': share, 'clip/entries': 0.01, 'noise/scale': 800.0 if seed else float('inf'), 'noise/trace': 1.0}
        fabricate.amend(workdir, 'clip', seed, observed=seen)
        fabricate.amend(workdir, 'adam', seed, observed={'own/thing': seed + 1.0})
    summary = pages.write(workdir)
    table = training.observed(summary)
    assert table['headings'] == [
        'variant',
        'steps on which clipping acted',
        'entries of the gradient that it changed',
        'gradient noise scale, in examples',
        'own/thing',
    ]
    assert table['rows'] == [['adam', '–', '–', '–', '1'], ['clip', '50 %', '1 %', '–', '–']]  # adam's seed 1 diverged
    assert '| clip | 50 % | 1 % |' in (workdir / 'report.md').read_text() and '50 %' in (workdir / 'report.html').read_text()
    lines = {line['name']: line for line in csv.DictReader((workdir / 'report.csv').open())}
    assert lines['clip']['observed_clip/steps'] == '0.5' and lines['baseline']['observed_clip/steps'] == ''


def test_where_and_how_a_run_diverged(tmp_path):
    workdir = fabricate.study(tmp_path, seeds=3, evaluations=2, status={('adam', 2): 'diverged', ('clip', 1): 'failed'})
    found = {'step': 41, 'checkpoint_step': 30, 'gradient_norms': [0.5, 120.0, float('nan')], 'layer': "output of 'head'"}
    fabricate.amend(workdir, 'adam', 2, diverged=found, message='loss is nan at step 41; first seen elsewhere')
    rows = training.unfinished(pages.write(workdir))['rows']
    assert rows[0] == [
        'adam',
        '2',
        'diverged',
        '41',
        "output of 'head'",
        '0.5, 120, not finite',
        '30',
        'loss is nan at step 41',
    ]
    assert rows[1] == ['clip', '1', 'failed', '–', '–', '–', '–', 'failed at step 300']
    fabricate.amend(workdir, 'adam', 2, diverged={'step': 3, 'checkpoint_step': None, 'gradient_norms': []})
    assert training.unfinished(pages.write(workdir))['rows'][0][3:7] == ['3', '–', '–', 'none']
    assert "output of 'head'" not in (workdir / 'report.md').read_text()


def test_a_run_that_did_not_learn_is_told_before_the_first_number(tmp_path):
    workdir = fabricate.study(tmp_path, seeds=3, evaluations=2)
    fabricate.amend(workdir, 'adam', 1, message='stalled: the training loss was 2.3 in the first interval and 2.3 in the last')
    fabricate.amend(workdir, 'clip', 1, message='something else')
    pages.write(workdir)
    for name, answer in (('report.md', '**3 seeds are'), ('report.html', 'class="headline"')):
        text = (workdir / name).read_text()
        assert text.index('1 run did not learn: adam, seed 1 (stalled: the training loss') < text.index(answer)
        assert 'something else' not in text


def test_samples_of_the_first_seed_over_training(tmp_path, study):
    pixel = bytes.fromhex('89504e470d0a1a0a')
    assert 'Samples' not in (study[0] / 'report.md').read_text() and '<img' not in (study[0] / 'report.html').read_text()
    workdir = fabricate.study(tmp_path, seeds=2, evaluations=2)
    for seed in (0, 1):
        folder = fabricate.amend(workdir, 'adam', seed) / 'samples'
        folder.mkdir()
        for step in range(0, 2000, 100):
            (folder / f'{step}.png').write_bytes(pixel + bytes([seed, step // 100]))
    pages.write(workdir)
    links = re.findall(r'!\[(\d+)\]\((runs/\w+/samples/\d+\.png)\)', (workdir / 'report.md').read_text())
    steps = [int(step) for step, _ in links]
    assert len(steps) == 8 and steps[0] == 0 and steps[-1] == 1900 and steps == sorted(steps)
    embedded = [base64.b64decode(text) for text in re.findall(r'base64,([\w+/=]+)"', (workdir / 'report.html').read_text())]
    assert embedded == [(workdir / path).read_bytes() for _, path in links] and all(data[8] == 0 for data in embedded)
    html_text = (workdir / 'report.html').read_text()
    assert 'img-src data:' in html_text and not re.search(r'src="(?!data:)', html_text)


def told(*texts):
    """An examples.json."""
    lines = [[text, [[text, 0.0004], [text, 0.625]]] for text in texts]
    return {'title': texts[0], 'about': texts[0], 'texts': [{'text': text, 'lines': lines} for text in texts]}


def test_texts_of_the_first_seed(tmp_path, study):
    """The baseline's in both reports, the other variants' in the page; not of runs that did not finish, or damaged."""
    assert 'Texts of the test split' not in (study[0] / 'report.html').read_text() + (study[0] / 'report.md').read_text()
    workdir = fabricate.study(tmp_path, seeds=2, evaluations=2)
    for variant, seed, content in (
        *(('baseline', seed, json.dumps(told(f'Plain {seed}'))) for seed in (0, 1)),
        ('adam', 0, json.dumps(told('Other'))),
        ('cosine', 0, json.dumps({**told('Torn'), 'texts': [{'text': 'Torn', 'lines': [['Torn', [['Torn']]]]}]})),
        ('tiny', 0, json.dumps(told('Cut short'))),
        ('clip', 0, '{"title": "Torn'),
    ):
        (fabricate.amend(workdir, variant, seed) / examples.FILE).write_text(content)
    fabricate.amend(workdir, 'tiny', 0, status='failed')
    pages.write(workdir)
    page, text = (workdir / 'report.html').read_text(), (workdir / 'report.md').read_text()
    assert [page.count(word) for word in ('Plain 0 (&lt; 0.1 %) · Plain 0 (62 %)', 'Other (62 %)')] == [1, 1]
    assert not re.search('Plain 1|Torn|Cut short', page + text) and 'Other' not in text
    assert '\nbaseline, seed 0: plain 0. Plain 0\n\n- Plain 0\n  - Plain 0: Plain 0 (&lt; 0.1 %) · Plain 0 (62 %)\n' in text
    assert page.index('<details class="texts" open><summary>baseline') < page.index('<details class="texts"><summary>adam')


@pytest.mark.filterwarnings('ignore:Glyph')
def test_hostile_texts_are_text(tmp_path):
    """Whatever a text and a class hold, the page has no other tags, and Markdown no other lists, links or tables."""
    workdir = fabricate.study(tmp_path, seeds=2, evaluations=2)
    wild = [*HOSTILE, '\u202e\u05d0\u05d1 evil', '# heading\n\n- list\n|a|b|\n|-|-|', '1. one', '---', 'long' * 5000]
    found = []
    for texts in (['plain'] * len(wild), wild):
        (fabricate.amend(workdir, 'baseline', 0) / examples.FILE).write_text(json.dumps(told(*texts)))
        pages.write(workdir)
        found.append((Tags((workdir / 'report.html').read_text()), (workdir / 'report.md').read_text()))
    (plain, plain_text), (tags, text) = found
    assert (tags.tags, tags.attributes) == (plain.tags, plain.attributes)
    meant = r'^(?: {2})?- (?:\d+[.)] |[-#+*] )?|^\|.*\|$|(?<!\\)\[[^\]]*\]\(|^#+ |<|^[-=]{3}'
    assert re.findall(meant, text, re.M) == re.findall(meant, plain_text, re.M)
    assert len(text.splitlines()) == len(plain_text.splitlines())


def test_learning_rates_stand_in_both_reports(study):
    workdir, _ = study
    text = (workdir / 'report.md').read_text()
    assert re.search(r'^\| ▅{40} 0\.05 \| baseline, null, adam, tiny, clip \|$', text, re.M)
    assert re.search(r'^\| █[▁▂▃▄▅▆▇█]{38}▁ 0 to 0\.05 \| cosine \|$', text, re.M)
    assert set(json.loads(Tags((workdir / 'report.html').read_text()).data)['rates']) == set(fabricate.EFFECTS)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=50))
def test_a_curve_rises_where_its_numbers_do(values):
    blocks = words.curve(values).split()[0]
    assert len(blocks) == len(values)
    for (a, x), (b, y) in itertools.product(zip(values, blocks, strict=True), repeat=2):
        assert x <= y if a <= b else y <= x
