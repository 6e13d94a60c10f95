"""The command line: what a flag becomes, and what is said of a wrong one."""

import pathlib
import subprocess
import sys

import pytest

from research import cli
from research.study import launch

ROOT = pathlib.Path(__file__).parents[1]


@pytest.fixture
def said(monkeypatch, capsys):
    """What a command line that goes no further than its flags says: (exit status, stderr)."""
    monkeypatch.setattr(cli, 'launch', lambda *given: pytest.fail(f'launched with {given}'))

    def say(*arguments):
        return cli.run(arguments), capsys.readouterr().err

    return say


@pytest.mark.parametrize(
    ('flags', 'message'),
    [
        (['--config=a.py', '--workdir='], '--workdir=DIR is empty'),
        (['--config=a.py'], '--workdir=DIR is missing'),
        (['--workdir=d'], '--config=FILE is missing'),
        (['--config=a.py', '--workdir=d', '--verbose'], "unknown flag '--verbose'. No flag has a name like it"),
        (['--config=a.py', '--workdir=d', '--reprt'], "unknown flag '--reprt'. Did you mean '--report'?"),
        (['--config=a.py', '--workdir=d', '--config.data.batch_size', '3'], 'write --config.data.batch_size=VALUE'),
        (['a.py', '--workdir=d'], 'a study is --config=a.py'),
        (['--config=a.py', '--workdir=d', '--plan=run'], '--plan=runs'),
        (['--config=a.py', '--workdir=d', '--plan', '--report'], 'not allowed with'),
        (['--config=a.py', '--workdir=d', '--stale=maybe'], 'invalid choice'),
        (['--workdir=d', '--report='], '--report= names no folder'),
        (['--workdir=d', '--report', '--stale=keep'], '--report runs nothing'),
    ],
)
def test_a_wrong_flag_is_named(said, flags, message):
    status, err = said(*flags)
    assert status == launch.REFUSED
    assert err.startswith('error: ') and message in err and err.count('\n') == 1


@pytest.mark.parametrize(
    ('flags', 'mode', 'runs', 'into'),
    [
        ([], 'run', False, ''),
        (['--plan'], 'plan', False, ''),
        (['--plan=runs'], 'plan', True, ''),
        (['--report'], 'report', False, ''),
        (['--report=there'], 'report', False, 'there'),
        (['--prepare'], 'prepare', False, ''),
    ],
)
def test_flags_reach_the_launch(monkeypatch, flags, mode, runs, into):
    monkeypatch.setattr(cli, 'launch', lambda *given: given)
    given = cli.run(['--config=a.py:x', '--workdir', 'd', '--config.study.seeds=3', '--config.a.b=c=d', *flags])
    assert given == ('a.py:x', 'd', {'study.seeds': '3', 'a.b': 'c=d'}, mode, '', runs, into)


@pytest.mark.parametrize('program', [['launch.py'], ['-m', 'research']])
def test_the_command_tells_its_exit_statuses(program):
    done = subprocess.run([sys.executable, *program, '--help'], cwd=ROOT, capture_output=True, text=True, check=True)
    assert 'exit status:' in done.stdout and 'example:' in done.stdout
