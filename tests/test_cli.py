"""The command line: what a flag becomes, and what is said of a wrong one."""

import configparser
import pathlib
import subprocess
import sys

import pytest
from config_file import written

from research import cli
from research.catalogue import ConfigError
from research.config import overrides
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
    ('flags', 'mode', 'plan', 'into'),
    [
        ([], 'run', '', ''),
        (['--plan'], 'plan', '', ''),
        (['--plan=runs'], 'plan', 'runs', ''),
        (['--plan=examples'], 'plan', 'examples', ''),
        (['--report'], 'report', '', ''),
        (['--report=there'], 'report', '', 'there'),
        (['--prepare'], 'prepare', '', ''),
    ],
)
def test_flags_reach_the_launch(monkeypatch, flags, mode, plan, into):
    monkeypatch.setattr(cli, 'launch', lambda *given: given)
    given = cli.run(['--config=a.py:x', '--workdir', 'd', '--config.study.seeds=3', '--config.a.b=c=d', *flags])
    assert given == ('a.py:x', 'd', {'study.seeds': '3', 'a.b': 'c=d'}, mode, '', plan, into)


@pytest.mark.parametrize(('program', 'status'), [(['launch.py', '--help'], 0), (['-m', 'research'], 2)])
def test_the_command_tells_its_exit_statuses(program, status):
    done = subprocess.run([sys.executable, *program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == status
    assert 'exit status:' in done.stdout and 'example:' in done.stdout and 'frugal upload' in done.stdout


def test_every_file_of_the_package_is_in_a_wheel():
    """Templates, styles, scripts: what a checkout reads and a wheel lacks is found by its user alone."""
    told = configparser.ConfigParser()
    told.read(ROOT / 'setup.cfg')
    patterns = told['options.package_data']['*'].split(', ')
    listed = subprocess.run(['git', 'ls-files', 'research', 'configs'], cwd=ROOT, capture_output=True, text=True, check=True)
    for path in map(pathlib.PurePath, listed.stdout.splitlines()):
        assert path.suffix == '.py' or any(path.match(pattern) for pattern in patterns), path


OWN = """
import configs.mine
config.model.widths = configs.mine.WIDTHS
config.study.variants = {"a": {"model.name": "research.nets:Net"}}
"""


def test_a_config_may_import_a_package_named_configs_and_none_named_research(tmp_path):
    """The first is nobody's name; the second is taken, and whoever has it is told so."""
    for place in ('configs', 'research'):
        (tmp_path / place).mkdir()
        (tmp_path / place / '__init__.py').touch()
    (tmp_path / 'configs' / 'mine.py').write_text('WIDTHS = (3,)\n')
    path = written(tmp_path, OWN)
    code = f"""if True:
        from research import catalogue
        from research.config import overrides
        assert overrides.load({str(path)!r}, {{}})[0]['model']['widths'] == (3,)
        catalogue.resolve('model', 'research.nets:Net', {{}})
    """
    told = f"'research' is Frugal's own package, which hides '{tmp_path / 'research'}': give that another name."
    assert told in ended(code)
    path.write_text('from research import nets\n')
    assert told in ended(f'from research.config import files; files.read({str(path)!r})')


def test_another_package_named_research_ends_the_command_with_a_sentence(tmp_path):
    (tmp_path / 'research.py').touch()
    said = ended(f'import sys; sys.path.insert(0, {str(tmp_path)!r}); import frugal_jax; frugal_jax.main()')
    assert said.startswith('error: ') and str(tmp_path / 'research.py') in said and 'Traceback' not in said


def ended(code):
    """What a process that fails prints last of all."""
    done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode
    return done.stderr.splitlines()[-1]


def test_a_study_that_comes_along_is_known_by_its_name(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli, 'launch', lambda *given: overrides.load(given[0], {})[0]['study']['name'])
    assert cli.run(['--config=optimizers:fashion_mnist', '--workdir=d']) == 'optimizers_fashion_mnist'
    assert capsys.readouterr().out == f'--config=optimizers means {ROOT / "configs/optimizers.py"}\n'
    with pytest.raises(ConfigError, match="No config file 'configs/optimizers.py'. Did you mean 'optimizers'?"):
        overrides.load('configs/optimizers.py', {})
