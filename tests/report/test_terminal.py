"""What a launch prints fits every terminal, says the cause of what failed, and ends quietly with whoever reads it."""

import io
import json
import os
import pathlib
import re
import subprocess
import sys

import fabricate
import pytest
from rich.cells import cell_len
from rich.console import Console

from research.report import console, records, tables, terminal
from research.report.summary import read_evaluations, summarize

ROOT = pathlib.Path(__file__).parents[2]
LONG = 'a_rather_long_name_of_a_variant_with_lr_0.001'
EFFECTS = {'baseline': 0.0, 'null': 0.0, 'clip': 0.0, 'tiny': -0.05, LONG: -0.08, '日本語の名前': 0.2, 'broken': 0.0}


@pytest.fixture(scope='module')
def summary(tmp_path_factory):
    workdir = tmp_path_factory.mktemp('study')
    status = {('broken', 3): 'failed', ('broken', 4): 'diverged', ('broken', 5): 'failed'}
    fabricate.study(workdir, EFFECTS, evaluations=2, status=status, memory=False)
    for seed in (3, 5):
        fabricate.amend(workdir, 'broken', seed, message='ValueError: [no] such layer\nand much more')
    return summarized(workdir)


def summarized(workdir):
    read = records.read(workdir)
    return json.loads(records.dumps(summarize(read, read_evaluations(read))))


def printed(summary, width, encoding='utf-8'):
    out = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    Console(width=width, file=out).print(terminal.table(summary))
    out.seek(0)
    return out.read()


@pytest.mark.parametrize(
    ('width', 'columns'),
    [
        (130, ['difference', '95 % interval', 'p', 'mean ± sd', 'time', 'its interval', 'parameters']),
        (80, ['difference', '95 % interval', 'p', 'time']),
        (60, ['difference', '95 % interval', 'time']),
        (34, ['difference']),
    ],
)
def test_what_matters_least_goes_first_and_no_number_is_cut(summary, width, columns):
    """The lines, whose cells two spaces part, hold as many cells as the heading, and names only lose their middle."""
    heading, *lines = printed(summary, width).splitlines()
    assert max(map(cell_len, [heading, *lines])) <= width
    assert re.split(r' {2,}', heading) == ['variant', *columns]
    whole = {line.split()[0]: re.split(r' {2,}', line.strip())[1:] for line in printed(summary, 200).splitlines()}
    for name in ('tiny', '日本語の名前', 'null'):
        cells = next(re.split(r' {2,}', line.strip())[1:] for line in lines if line.strip().startswith(name))
        assert len(cells) == len(columns) and set(cells) <= set(whole[name])
    shortened = next(line.split()[0] for line in lines if line.strip().startswith('a_rat'))
    start, _, end = shortened.partition('…')
    assert LONG.startswith(start) and LONG.endswith(end) and len(end) >= len(start) - 1


def test_groups_stand_as_in_the_report(summary):
    lines = [line.strip() for line in printed(summary, 200).splitlines()]
    order = [
        'baseline',
        'null',
        'Helps',
        '日本語の名前',
        'Hurts',
        LONG,
        'tiny',
        'Failed (',
        'broken',
        'No effect shown',
        'clip',
    ]
    places = [next(i for i, line in enumerate(lines) if line.startswith(start)) for start in order]
    assert places == sorted(places)


@pytest.mark.parametrize('width', [100, 60])
def test_each_cause_stands_once_under_its_variant_with_the_folder(summary, width):
    runs = {run['seed']: run['id'] for run in summary['unfinished']}
    text = ' '.join(printed(summary, width).split())
    assert 'Failed (1 of 10 diverged, 2 ended in an error)' in text
    causes = text.partition('broken')[2].partition('No effect')[0]
    assert f'seeds 3, 5 failed: ValueError: [no] such layer (runs/{runs[3]} and 1 more)' in causes
    assert f'seed 4 diverged: diverged at step 300 (runs/{runs[4]})' in causes and 'much more' not in causes


@pytest.mark.parametrize('encoding', ['ascii', 'latin-1', 'cp437'])
def test_a_terminal_that_knows_few_characters(summary, encoding):
    text = printed(summary, 80, encoding)
    assert max(map(len, text.splitlines())) <= 80 and '?' not in text.replace('??????', '')
    assert re.search(r'tiny +-\d+\.\d\d +-\d+\.\d\d to -\d+\.\d\d', text)
    assert console.legible('−1 ± 2 × ∞ ▁█', encoding).isascii() or encoding != 'ascii'


def test_seconds_of_a_single_seed_are_marked(tmp_path):
    summary = summarized(fabricate.study(tmp_path, seeds=1, evaluations=2))
    assert 'of one seed: includes warm-up' in ' '.join(printed(summary, 80).split())
    ratios = [row[tables.cost(summary)['headings'].index('training time, ratio')] for row in tables.cost(summary)['rows']]
    assert [ratio.endswith('(one seed: includes warm-up)') for ratio in ratios] == [False, True, True, True, True, True]


@pytest.mark.parametrize('said', ['print("−")', 'console.Terminal(100).print("±" * 100_000)'])
def test_a_reader_who_leaves_and_an_encoding_without_minus_end_quietly(said):
    """As `launch.py ... | true` and with PYTHONIOENCODING=ascii: the exit status, and nothing on stderr."""
    code = (
        'import sys; from research import cli; from research.report import console; from research.study import launch\n'
        f'launch._launch = lambda *_: {said} or 0\n'
        'sys.argv[1:] = "--config=x", "--workdir=x"\n'
        'cli.main()'
    )
    environment = {**os.environ, 'PYTHONPATH': str(ROOT), 'PYTHONIOENCODING': 'ascii'}
    whole = subprocess.run([sys.executable, '-c', code], capture_output=True, env=environment, check=False)
    assert (whole.returncode, whole.stderr) == (0, b'') and whole.stdout.strip() and b'?' not in whole.stdout
    read, write = os.pipe()
    os.close(read)
    gone = subprocess.run([sys.executable, '-c', code], stdout=write, stderr=subprocess.PIPE, env=environment, check=False)
    os.close(write)
    assert (gone.returncode, gone.stderr) == (141, b'')
