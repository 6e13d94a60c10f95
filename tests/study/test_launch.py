"""The door: what is refused before work, what is done again and what is not, and the exit status."""

import errno
import json
import pathlib
import subprocess
import sys
import types

import jax
import pytest
from config_file import written

from research import study
from research.study import launch

ROOT = pathlib.Path(__file__).parents[2]
SMALL = (
    'config.model.widths = (2,)\nconfig.model.hidden = ()\nconfig.train.devices = 1\nconfig.data.batch_size = 100\n'
    'config.study.budget = "4st"\nconfig.study.seeds = 1\nconfig.study.latency = ()\nconfig.study.null = False\n'
)


@pytest.fixture
def start(tmp_path, capsys, without_plots):
    """Launches tmp_path/paper.py, SMALL with `body`: (exit status, what went to stderr)."""

    def run(body='', mode='run', stale='', workdir=None, **changes):
        path = written(tmp_path, SMALL + body)
        changes = {key.replace('__', '.'): value for key, value in changes.items()}
        status = launch.launch(str(path), str(workdir or tmp_path / 'dir'), changes, mode, stale)
        return status, capsys.readouterr().err

    return run


def results(folder):
    return {path.parent.name: json.loads(path.read_text()) for path in sorted((folder / 'runs').glob('*/result.json'))}


def stamps(folder):
    return {path.parent.name: path.stat().st_mtime_ns for path in (folder / 'runs').glob('*/result.json')}


def command(*flags):
    return subprocess.run([sys.executable, ROOT / 'launch.py', *flags], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ('flags', 'message'),
    [
        (['--config=configs/quikstart.py', '--workdir=x'], "Did you mean 'configs/quickstart.py'?"),
        (
            ['--config=configs/quickstart.py', '--workdir=x', '--config.data.batch_size'],
            "'--config.data.batch_size' has no value",
        ),
        (['--config=configs/quickstart.py', '--workdir=x', '--reprt'], "Did you mean '--report'?"),
        (['--config=configs/quickstart.py', '--workdir=x', '--plan', '--report'], 'not allowed with'),
        (['--config=configs/quickstart.py', '--workdir=x', '--stale=maybe'], 'invalid choice'),
        (['--config=configs/quickstart.py'], '--workdir'),
        (['--workdir=x'], '--config=FILE is missing'),
        (['--config=configs/quickstart.py', '--workdir=x', '--config.optmizer.name=adam'], "Did you mean 'optimizer.name'?"),
        (
            ['--config=configs/quickstart.py', '--workdir=x', '--config.optimizer.lerning_rate=1'],
            "Did you mean 'optimizer.learning_rate'?",
        ),
        (['--workdir=no/such/study', '--report'], 'study.json is missing'),
    ],
)
def test_bad_input_ends_with_2_and_no_traceback(flags, message, monkeypatch):
    monkeypatch.chdir(ROOT)
    done = command(*flags)
    assert done.returncode == 2
    assert message in done.stderr and 'Traceback' not in done.stderr
    assert not (ROOT / 'x').exists()


def test_a_misspelt_field_is_answered_before_jax_is_imported(tmp_path):
    path = written(tmp_path, 'config.optmizer = 3')
    code = (
        'import sys; import research; from research.study.launch import launch;'
        f'assert launch({str(path)!r}, "x", {{}}) == 2; assert "jax" not in sys.modules'
    )
    subprocess.run([sys.executable, '-c', code], cwd=ROOT, check=True, capture_output=True)


def test_nothing_is_compiled_before_an_error(start, monkeypatch, tmp_path):
    """Wrong metric of the last variant to be looked at; every program stays uncompiled."""
    from research.train import program

    monkeypatch.setattr(program.Compiled, 'prepare', lambda *a: pytest.fail('compiled'))
    status, err = start('config.study.variants = {"a": {"data.path": "/no/such/folder", "data.redraw": 5}}')
    assert status == launch.REFUSED and "Variant 'a'" in err and '/no/such/folder' in err
    status, err = start(study__metric='test/acuracy')
    assert status == launch.REFUSED and "--config.study.metric: 'study.metric' is 'test/acuracy'" in err
    assert results(tmp_path / 'dir') == {}


@pytest.mark.parametrize('mode', ['run', 'plan'])
def test_another_platform_ends_at_the_door(start, tmp_path, mode):
    status, err = start(mode=mode, study__platform='gpu')
    assert status == launch.REFUSED
    assert "declares the platform 'gpu', but jax runs on 'cpu'" in err
    assert not (tmp_path / 'dir').exists()


@pytest.mark.parametrize('mode', ['run', 'plan'])
def test_a_study_stays_on_the_platform_that_it_was_begun_on(start, tmp_path, mode):
    (tmp_path / 'dir').mkdir()
    (tmp_path / 'dir' / 'study.json').write_text('{"study": "paper", "platform": "gpu"}')
    status, err = start(mode=mode)
    assert status == launch.REFUSED
    assert "was begun on the platform 'gpu', but jax runs on 'cpu'" in err and 'choose another --workdir' in err


@pytest.mark.parametrize('place', ['a_file', 'a_file/below', '/proc/no'])
def test_a_workdir_that_cannot_be_written(start, tmp_path, place):
    (tmp_path / 'a_file').write_text('mine')
    status, err = start(workdir=tmp_path / place)
    assert status == launch.REFUSED and 'Cannot write to workdir' in err
    assert (tmp_path / 'a_file').read_text() == 'mine'


@pytest.mark.long
def test_a_study_goes_on_and_only_what_is_new_is_run(start, tmp_path):
    """Relaunch, more seeds, another config, another name, a lost record, another study: one folder through its life."""
    folder = tmp_path / 'dir'
    variants = 'config.study.variants = {"fast": {"optimizer.learning_rate": 0.1}}\n'
    assert start(variants) == (0, '')
    first = stamps(folder)
    assert len(first) == 2 and {r['status'] for r in results(folder).values()} == {'finished'}

    assert start(variants)[0] == 0
    assert stamps(folder) == first

    assert start(variants, study__seeds='2')[0] == 0
    second = stamps(folder)
    assert len(second) == 4 and second.items() >= first.items()

    # Another name for the same thing is the same runs.
    before = results(folder)
    assert start(variants.replace('fast', 'swift'), study__seeds='2') == (0, '')
    for i, result in results(folder).items():
        assert result == before[i] | {'variant': {'fast': 'swift'}.get(before[i]['variant'], before[i]['variant'])}

    # What was the variant is the baseline now, and the other way round.
    swapped = 'config.optimizer.learning_rate = 0.1\nconfig.study.variants = {"slow": {"optimizer.learning_rate": 0.05}}\n'
    assert start(swapped, study__seeds='2') == (0, '')
    assert {r['variant'] for r in results(folder).values()} == {'baseline', 'slow'} and len(results(folder)) == 4

    # Another config makes new runs and leaves the old ones.
    kept = stamps(folder)
    assert start('config.study.budget = "5st"\n')[0] == 0
    assert len(stamps(folder)) == 5 and stamps(folder).items() >= kept.items()

    # Torn, foreign, of another default: kept aside, told, done again.
    torn, foreign, older, fine = sorted(kept)
    (folder / 'runs' / torn / 'result.json').write_text('{"id": "')
    (folder / 'runs' / foreign / 'result.json').write_text((folder / 'runs' / fine / 'result.json').read_text())
    config = json.loads((folder / 'runs' / older / 'config.json').read_text())
    config['data']['reference_size'] = 32
    (folder / 'runs' / older / 'config.json').write_text(json.dumps(config))

    status, err = start(swapped, study__seeds='2')
    assert status == 0
    for i, reason in ((torn, 'torn'), (foreign, 'foreign'), (older, 'the default of data.reference_size was another')):
        assert [line for line in err.splitlines() if i in line and reason in line and 'result.json.bad-1' in line], err
        assert (folder / 'runs' / i / 'result.json.bad-1').exists()
        assert results(folder)[i]['metrics'] == before[i]['metrics']
    assert stamps(folder)[fine] == kept[fine]
    assert len((folder / 'results.jsonl').read_text().splitlines()) == 4

    for mode in ('run', 'plan'):
        status, err = start('config.study.name = "other"', mode=mode)
        assert status == launch.REFUSED and "holds the study 'paper', and this is 'other'" in err


@pytest.mark.long
def test_code_that_changed_is_refused_until_one_chooses(start, tmp_path, monkeypatch):
    from research.study import identity

    folder = tmp_path / 'dir'
    assert start()[0] == 0
    before, real = stamps(folder), identity.fingerprint
    monkeypatch.setattr(identity, 'fingerprint', lambda *a: real(*a) | {'code': 'another'})
    status, err = start()
    assert status == launch.REFUSED and 'made with another code' in err and '--stale=rerun' in err and '--stale=keep' in err
    assert stamps(folder) == before
    assert start(stale='keep')[0] == 0
    assert stamps(folder) == before
    assert '1 of 1 finished runs were kept' in ' '.join(json.loads((folder / 'study.json').read_text())['notes'])
    assert start(stale='rerun')[0] == 0
    assert stamps(folder) != before
    assert start() == (0, '')


@pytest.mark.long
def test_a_study_of_nothing_but_its_baseline_has_a_report(start, tmp_path):
    assert start(mode='report')[0] == launch.REFUSED
    assert start() == (0, '')
    study = json.loads((tmp_path / 'dir' / 'study.json').read_text())
    assert study['platform'] == 'cpu' and not study['config']['study']['platform']  # found, not declared
    assert start(mode='report') == (0, '')
    summary = json.loads((tmp_path / 'dir' / 'summary.json').read_text())
    assert summary['contrasts'] == []
    assert 'baseline' in (tmp_path / 'dir' / 'report.md').read_text()

    # Its first variant, later, changes no number.
    assert start('config.study.variants = {"flat": {"schedule.name": "linear", "schedule.end": 1.0}}') == (0, '')
    (contrast,) = json.loads((tmp_path / 'dir' / 'summary.json').read_text())['contrasts']
    assert contrast['verdict'] == 'did nothing'


def test_prepare_takes_the_flags_and_every_variants_data(start, tmp_path, capsys):
    assert start(mode='prepare') == (0, '')
    assert not (tmp_path / 'dir').exists()
    status, err = start('config.study.variants = {"a": {"data.path": "/no/such", "data.redraw": 5}}', mode='prepare')
    assert status == launch.REFUSED and '/no/such' in err
    status, err = start(mode='prepare', data__path='/no/such')
    assert status == launch.REFUSED and '--config.data.path: ' in err


def test_a_second_launch_in_the_same_folder_is_refused(start, tmp_path):
    import fcntl

    (tmp_path / 'dir').mkdir()
    with open(tmp_path / 'dir' / '.lock', 'w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        status, err = start()
    assert status == launch.REFUSED and 'Another launch is at work' in err


def test_a_reader_that_leaves_fails_no_run(monkeypatch, tmp_path):
    """`frugal ... | head`: what is printed breaks the pipe in the middle of a run."""
    from research.study import execute

    def one(*_):
        raise BrokenPipeError(errno.EPIPE, 'Broken pipe')

    monkeypatch.setattr(execute._Runner, 'one', one)
    run = types.SimpleNamespace(id='a', name='a', variant='a', seed=0, key='', point=None)
    plan = types.SimpleNamespace(runs=[run], drawn=[run], study={'name': 'paper', 'keep': 'all'})
    (tmp_path / 'runs').mkdir()
    with pytest.raises(BrokenPipeError):
        execute.execute(tmp_path, plan, None, {}, {'a': {}}, {})
    assert results(tmp_path) == {}


PLAYERS = """
del config.model.hidden
config.task.name, config.task.loss = 'generation', 'non_saturating'
config.model.name, config.model.side, config.model.latents = 'dcgan', 8, 5
config.study.metric, config.study.higher_is_better = 'test/frechet', False
config.study.seeds, config.study.latency = 2, (1,)
config.study.variants = {'none': {'model.norm.name': 'none'}}
"""


@pytest.mark.long
def test_a_study_of_two_players(start, tmp_path):
    assert start(PLAYERS, mode='plan') == (0, '')
    assert start(PLAYERS) == (0, '')
    folder = tmp_path / 'dir'
    assert len(list((folder / 'judges').iterdir())) == 1
    found = results(folder).values()
    assert len(found) == 4
    for result in found:
        assert result['metrics']['test/frechet'] > 0 and 'test_examples' not in result
        assert (folder / 'judges' / result['judge']).exists()
        assert result['cost']['parameters'] > 0 and result['cost']['train_flops'] > result['cost']['inference_flops'] > 0
    assert set(json.loads((folder / 'latency.json').read_text())) <= set(results(folder))
    html, text = ((folder / name).read_text() for name in ('report.html', 'report.md'))
    assert 'data:image/png;base64' in html and 'Samples over training' in html
    assert 'test/frechet' in text
    module, variables = study.load(str(folder), 'none', 1)
    assert module.apply(variables, jax.numpy.zeros((3, 5))).shape == (3, 8, 8, 1)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'study.metric': 'test/accuracy'}, "'study.metric' is 'test/accuracy'"),
        ({'study.higher_is_better': 'True'}, "'study.higher_is_better' is True"),
        ({'model.side': '16'}, 'set model.side and model.channels'),
        ({'model.num_classes': '10'}, 'know no classes'),
        ({'train.remat': "'block'"}, 'train.remat'),
    ],
)
def test_two_players_are_refused_what_is_not_theirs(start, changes, message):
    status, said = start(PLAYERS, **{key.replace('.', '__'): value for key, value in changes.items()})
    assert status == 2 and message in said
