"""The report says what the records say, in every format, whatever the names in a config contain."""

import csv
import errno
import html.parser
import io
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

from research.catalogue import ConfigError
from research.study import figures, overrides, records, report, tables, words

FILES = ('summary.json', 'results.jsonl', 'report.md', 'report.html', 'report.csv', 'report.tex', 'pareto.png', 'pareto.pdf')
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
    return workdir, report.write(workdir)


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
    return workdir, report.write(workdir)


def test_writes_every_file_and_returns_the_summary(study):
    workdir, summary = study
    assert all((workdir / name).stat().st_size for name in FILES) and not list(workdir.glob('*.tmp*'))
    assert summary == json.loads((workdir / 'summary.json').read_text(), parse_constant=pytest.fail)
    assert (workdir / 'pareto.pdf').read_bytes()[:5] == b'%PDF-' and (workdir / 'pareto.png').read_bytes()[1:4] == b'PNG'


def test_a_second_report_is_the_same(study):
    workdir, _ = study
    before = {name: (workdir / name).read_bytes() for name in FILES[:6]}
    report.write(workdir)
    assert {name: (workdir / name).read_bytes() for name in FILES[:6]} == before


def test_reading_records_needs_no_jax(study):
    workdir, _ = study
    code = f'import sys; from research.study import report; report.write({str(workdir)!r}); print("jax" in sys.modules)'
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout.strip() == 'False'


def test_without_a_study_says_so(tmp_path):
    with pytest.raises(ConfigError, match='No study'):
        report.write(tmp_path)


@pytest.mark.parametrize('name', ['report.md', 'report.html'])
def test_first_page_answers_before_the_table_and_the_null_stands_above_it(study, name):
    workdir, summary = study
    text = (workdir / name).read_text()
    adam = next(c for c in summary['contrasts'] if c['name'] == 'adam')
    gain = f'Gains {100 * adam["difference"]:.2f} points (95 % interval +{100 * adam["interval"][0]:.2f}'
    order = [
        text.index(mark)
        for mark in (
            summary['question'],
            gain,
            'over training seeds, on this test set',
            'What differs',
            'optimizer.learning',
            'Null variant',
            'p, Holm',
            'multiply-adds',
            'Do it again',
        )
    ]
    assert order == sorted(order)


def test_html_stands_alone(study):
    workdir, _ = study
    text = (workdir / 'report.html').read_text()
    assert not re.search(r'(src|href)\s*=|@import|url\(', text) and '://' not in text.replace('http://www.w3.org/2000/svg', '')


@pytest.mark.filterwarnings('ignore:Glyph')
def test_hostile_names_are_text_in_html(study, hostile):
    plain, wild = (Tags((workdir / 'report.html').read_text()) for workdir, _ in (study, hostile))
    assert set(wild.tags) == set(plain.tags) and wild.tags.count('script') == plain.tags.count('script') == 2
    assert set(wild.attributes) == set(plain.attributes)
    assert [p['name'] for p in json.loads(wild.data)['points']] == ['baseline', 'null', *HOSTILE]
    assert (
        '49' not in re.sub(r'[\d.]*49[\d.]+|[\d.]+49[\d.]*', '', (hostile[0] / 'report.html').read_text()).split('<script')[0]
    )


def test_hostile_names_keep_markdown_tables_whole(hostile):
    workdir, _ = hostile
    text = (workdir / 'report.md').read_text()
    prose = '\n'.join(line for line in text.splitlines() if not line.startswith('    '))
    assert '<' not in prose and not re.search(
        r'(?<!\\)\[[^\]]*\]\((?!pareto)', prose.replace('![Quality against cost](pareto.png)', '')
    )
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
        bare = re.sub(r'\\([{}$&#_%]|[\^~]\{\}|text[a-z]+\{\}|ensuremath\{(-|\\times|\\pm|\\infty)\})', '', body)
        assert not set(bare) & set('\\{}$&#_%^~'), body
    used = set(re.findall(r'\\(res[A-Za-z]+)', text.split(r'\begin{table}')[1]))
    assert used <= set(names)


def test_hostile_names_come_back_from_csv(hostile):
    workdir, summary = hostile
    lines = list(csv.DictReader(io.StringIO((workdir / 'report.csv').read_text(), newline='')))
    assert [line['name'].removeprefix("'") for line in lines] == ['null', 'baseline', *HOSTILE]
    assert not any(value.startswith(('=', '@')) for line in lines for value in line.values())
    assert float(lines[1]['mean']) == summary['variants'][0]['mean']


def test_hostile_names_fit_the_terminal(hostile):
    out = io.StringIO()
    Console(width=100, file=out).print(report.table(hostile[1]))
    assert max(map(len, out.getvalue().splitlines())) <= 100 and 'alert(1)' in out.getvalue().replace('\n', '')


def test_each_run_can_be_repeated_alone(study, hostile):
    for workdir, _ in (study, hostile):
        content = json.loads((workdir / 'study.json').read_text())
        commands = report.commands(workdir, content)
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
    for entry in report.commands(workdir, content):
        flags = dict(word.split('=', 1) for word in shlex.split(entry['command']) if word.startswith('--'))
        expected = {'baseline': '30016ex', 'adam': '60s' if entry['id'] == gone else '28800ex'}[entry['name']]
        assert flags['--config.study.budget'] == expected
    report.write(workdir)
    assert '--config.study.budget=30016ex' in (workdir / 'report.html').read_text()


def test_other_budgets_stay_as_they_were_given(study):
    workdir, _ = study
    content = json.loads((workdir / 'study.json').read_text())
    assert not any('study.budget' in entry['command'] for entry in report.commands(workdir, content))


@pytest.mark.parametrize('since, shown', [('block', '6 MB'), ('process', '–'), (None, '–')])
def test_memory_shows_the_growth_of_a_run_alone(tmp_path, since, shown):
    workdir = fabricate.study(tmp_path, seeds=3, evaluations=2, peak_since=since)
    summary = report.write(workdir)
    cost = tables.cost(summary)
    column = cost['headings'].index('memory measured: growth at the peak')
    assert cost['rows'][0][column] == shown
    axes = {c['key'] for c in json.loads(Tags((workdir / 'report.html').read_text()).data)['costs']}
    assert ('peak_growth_bytes' in axes) == (since == 'block') and 'peak_bytes' not in axes


def test_what_cannot_be_written_is_the_callers_to_handle(tmp_path, monkeypatch):
    def full(path, data):
        path.touch()
        raise OSError(errno.ENOSPC, 'No space left on device')

    workdir = fabricate.study(tmp_path, seeds=2, evaluations=2)
    monkeypatch.setattr('pathlib.Path.write_bytes', full)
    with pytest.raises(OSError, match='No space left'):
        report.write(workdir)
    assert not list(workdir.glob('*.tmp*'))


def test_partial_added_and_bad_are_announced(tmp_path):
    workdir = fabricate.study(tmp_path, evaluations=2, finished={'adam': 8}, reported_seeds=[0, 1, 2, 3, 4, 5])
    run = json.loads((workdir / 'study.json').read_text())['runs']['clip']['0']
    (workdir / 'runs' / run / 'result.json').write_text('{"id": ')
    report.write(workdir)
    for name in ('report.md', 'report.html'):
        text = (workdir / name).read_text()
        assert '7 of 10 seeds have a result in every variant' in text
        assert '2 seeds were added after a report was read: p-values do not account for this' in text
        assert 'torn' in text and run in text


def test_first_report_enters_its_seeds_and_later_ones_keep_them(tmp_path):
    workdir = fabricate.study(tmp_path, evaluations=2, seeds=6)
    assert report.write(workdir)['added_seeds'] == []
    reported = json.loads((workdir / 'study.json').read_text())['reported_seeds']
    fabricate.study(tmp_path / 'more', evaluations=2, seeds=8, reported_seeds=reported)
    for _ in range(2):
        assert report.write(tmp_path / 'more')['added_seeds'] == [6, 7]


def test_failures_are_told_with_their_message(tmp_path):
    workdir = fabricate.study(tmp_path, evaluations=2, status={('adam', 2): 'diverged', ('clip', 1): 'failed'})
    report.write(workdir)
    text = (workdir / 'report.md').read_text()
    assert 'diverged at step 300' in text and 'failed at step 300' in text
    assert 'failed (1 of 10 diverged)' in text and 'failed (1 of 10 ended in an error)' in text


def test_lower_is_better_for_a_loss(tmp_path):
    workdir = fabricate.study(tmp_path, evaluations=2, metric='test/loss')
    summary = report.write(workdir)
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
        {'seeds': 3},
        {'effects': {'baseline': 0.0}},
        {'status': {('baseline', s): 'diverged' for s in range(10)}},
        {'correct': False},
        {'alpha': 0.1, 'margin': 0.02},
        {'contrasts': {'both': {'adam': 1, 'cosine': 1, 'baseline': -2}}},
    ],
)
def test_any_state_of_a_study_can_be_reported(tmp_path, options):
    workdir = fabricate.study(tmp_path, evaluations=2, **options)
    summary = report.write(workdir)
    assert 'None' not in (workdir / 'report.md').read_text() and 'nan' not in (workdir / 'report.md').read_text()
    Console(width=100, file=io.StringIO()).print(report.table(summary))


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
