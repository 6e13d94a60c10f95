"""What is the same run, the same program, the same code."""

import importlib
import json
import os
import pathlib
import subprocess
import sys
import time
import types

import pytest
from config_file import written

from research.catalogue import ConfigError
from research.config import overrides
from research.study import closure, folder, identity

BASE = overrides.defaults()
ROOT = pathlib.Path(__file__).parents[2]


def changed(**changes):
    return overrides.apply(BASE, {key.replace('__', '.'): value for key, value in changes.items()})


MATTERS = {
    'task.name': 'my:task',
    'task.loss': 'sigmoid',
    'task.label_smoothing': 0.1,
    'task.class_weights': 'effective_number',
    'task.focal': 2.0,
    'task.group_dro': 0.1,
    'data.name': 'mnist',
    'data.batch_size': 32,
    'data.batch.name': 'grow',
    'data.batch.coupling': 'linear',
    'data.eval_batch_size': 32,
    'data.validation': 0.2,
    'data.examples': 100,
    'data.imbalance.name': 'step',
    'data.external': ({'name': 'mnist'},),
    'data.clean': ('duplicates',),
    'data.filters': ('quality',),
    'data.personal': 'mask',
    'data.reference_size': 32,
    'data.split_seed': 1,
    'data.redraw': 1,
    'data.sampling.name': 'my:sampler',
    'data.repeats': 2,
    'augment.names': ('my:flip',),
    'augment.flip.strength': 0.5,
    'augment.resize.name': 'progressive',
    'model.name': 'resnet20',
    'model.num_classes': 11,
    'model.init_from': 'weights.safetensors',
    'model.widths': (8, 8),
    'model.norm.name': 'none',
    'compress.name': 'lora',
    'gradient.name': 'my:sam',
    'gradient.micro_batch': 8,
    'gradient.noise_scale': True,
    'gradient.freeze.name': 'progressive',
    'optimizer.name': 'adam',
    'optimizer.learning_rate': 0.01,
    'optimizer.weight_decay': 0.01,
    'optimizer.clip.name': 'global_norm',
    'optimizer.nesterov': True,
    'optimizer.layer_decay': 0.75,
    'optimizer.rate_multipliers': (('head/*', 0.1),),
    'optimizer.decay_multipliers': (('head/*', 0.1),),
    'optimizer.average.name': 'ema',
    'schedule.name': 'cosine',
    'schedule.warmup': '1ep',
    'train.seed': 1,
    'data.workers': 2,
    'data.streaming': True,
    'data.label': 'coarse',
    'data.features': ('age',),
    'data.image': 'file',
    'data.group': 'town',
    'data.text': 'body',
    'data.pair': 'answer',
    'data.tokenizer.name': 'bpe',
    'data.target_tokenizer.name': 'bpe',
    'data.targets.name': 'translated',
    'data.length': 32,
    'data.target_length': 32,
    'data.pack': True,
    'data.resize': 32,
    'data.crop': 28,
    'data.official_validation': True,
    'data.test': 0.2,
    'train.engine': 'pmap',
    'train.devices': 1,
    'train.matmul_precision': 'highest',
    'train.precision': 'bfloat16',
    'train.deterministic': True,
    'train.remat': 'block',
    'train.memory_budget': '1GiB',
    'study.budget': '21ep',
    'study.score': 'best',
}
SILENT = {
    'data.path': '/somewhere',
    'data.bad_files': 0.5,
    'data.checksum': '0123456789abcdef',  # of data with a name; see test_budget.py for a loader function's
    'train.checkpoint_every': '5st',
    'study.name': 'other',
    'study.seeds': 3,
    'study.null': False,
    'study.alpha': 0.01,
    'study.margin': 0.01,
    'study.metric': 'test/loss',
    'study.higher_is_better': False,
    'study.latency': (),
    'study.tune.points': 4,
    'study.tune.seeds': (7,),
    'study.tune.space': {'optimizer.learning_rate': ('log', 0.1, 1.0)},
    'study.tune.budget': '1ep',
    'study.keep': 'all',
    'study.platform': 'gpu',
    'study.variants': {'a': {'data.redraw': 1}},
    'study.contrasts': {'a': {'a': 1, 'baseline': -1}},
}


@pytest.mark.parametrize('key', MATTERS)
def test_what_can_change_the_numbers_makes_another_run(key):
    assert identity.run_id(overrides.apply(BASE, {key: MATTERS[key]})) != identity.run_id(BASE)


@pytest.mark.parametrize('key', SILENT)
def test_what_cannot_change_the_numbers_keeps_the_run(key):
    assert identity.run_id(overrides.apply(BASE, {key: SILENT[key]})) == identity.run_id(BASE)


def test_no_two_of_these_runs_are_the_same():
    assert len({identity.run_id(overrides.apply(BASE, {k: v})) for k, v in MATTERS.items()}) == len(MATTERS)


def test_what_chooses_the_best_parameters_matters_where_they_are_scored():
    best = changed(study__score='best')
    by_loss = overrides.apply(best, {'study.metric': 'test/loss', 'study.higher_is_better': False})
    assert identity.run_id(best) != identity.run_id(by_loss)


def test_of_an_external_source_its_rows_matter_and_not_where_they_lie_or_what_they_cost():
    def id_of(**source):
        return identity.run_id(changed(data__external=({'name': 'mnist', 'count': 9} | source,)))

    assert id_of() == id_of(path='/somewhere') == id_of(price=2.0, licence='CC0')
    assert len({id_of(), id_of(count=8), id_of(label='b'), id_of(labels={'a': 'b'}), identity.run_id(BASE)}) == 5


def test_external_data_of_ones_own_are_known_by_their_content():
    one, other = (changed(data__external=({'name': 'my:load', 'path': path},)) for path in 'ab')
    assert identity.own_data(one) and not identity.own_data(changed(data__external=({'name': 'mnist'},)))
    assert identity.unread(one) != identity.unread(other) and identity.run_id(one) == identity.run_id(other)


def test_every_field_is_classified():
    """A new field has to be put into one of the tables above, and so be thought about."""
    prefixes = set(overrides.flatten(BASE)) | {'study.variants', 'study.contrasts'}
    others = {'train.eval_every'}  # moves no number of a run's end, but the curve, and with study.score=best the end too
    assert prefixes - others - set(MATTERS) - set(SILENT) == set()


def test_a_new_field_with_a_neutral_default_renames_no_run(monkeypatch):
    config = changed(optimizer__name='adam')
    before = identity.run_id(config)
    with_field = json.loads(json.dumps(BASE))
    with_field['train']['average'] = 0.0
    monkeypatch.setattr(identity, 'defaults', lambda: with_field)
    newer = json.loads(json.dumps(config))
    newer['train']['average'] = 0.0
    assert identity.run_id(newer) == before
    newer['train']['average'] = 0.9
    assert identity.run_id(newer) != before


def test_a_changed_default_is_told_by_the_recorded_config():
    recorded = json.loads(json.dumps(BASE))
    assert identity.changed(recorded, BASE) == []
    recorded['optimizer']['learning_rate'] = 0.1
    recorded['model']['num_classes'] = 10
    recorded['data']['path'] = '/elsewhere'
    assert identity.changed(recorded, BASE) == ['optimizer.learning_rate']


def test_ids_do_not_depend_on_the_order_of_keys_or_on_list_or_tuple():
    widths = changed(model__widths=(4, 8), optimizer__name='adam')
    shuffled = json.loads(json.dumps({key: widths[key] for key in reversed(widths)}))
    assert identity.run_id(shuffled) == identity.run_id(widths)
    assert identity.compile_key(shuffled) == identity.compile_key(widths)


CLIPPED = changed(optimizer__clip={'name': 'global_norm', 'max_norm': 1.0})


@pytest.mark.parametrize(
    'change',
    [
        {'optimizer.learning_rate': 3.0},
        {'optimizer.weight_decay': 0.1},
        {'optimizer.clip.max_norm': 2.0},
        {'schedule.name': 'cosine', 'schedule.alpha': 0.1},
        {'schedule.warmup': '0.1run'},
        {'train.seed': 7},
        {'train.eval_every': '1ep'},
        {'train.checkpoint_every': '1ep'},
        {'data.redraw': 3},
        {'data.split_seed': 3},
        {'data.streaming': False},
        {'data.path': '/somewhere'},
        {'data.bad_files': 0.5},
        {'study.budget': '1ep'},
        {'study.seeds': 2},
    ],
)
def test_what_is_traced_shares_a_program(change):
    assert identity.compile_key(overrides.apply(CLIPPED, change)) == identity.compile_key(CLIPPED)


@pytest.mark.parametrize(
    'change',
    [
        {'optimizer.clip.name': 'none'},
        {'optimizer.nesterov': True},
        {'optimizer.name': 'adam'},
        {'data.batch_size': 32},
        {'data.examples': 32},
        {'data.reference_size': 32},
        {'data.streaming': True},
        {'data.name': 'mnist'},
        {'model.widths': (4,)},
        {'train.engine': 'pmap'},
        {'train.devices': 1},
        {'task.loss': 'sigmoid'},
    ],
)
def test_what_python_branches_on_makes_another_program(change):
    assert identity.compile_key(overrides.apply(CLIPPED, change)) != identity.compile_key(CLIPPED)


@pytest.fixture
def code(tmp_path, monkeypatch):
    """A package's outline that can be edited, in the place of research/."""
    content = {
        'train/experiment.py': 'from research.optim import adam\n',
        'train/loop.py': '"""Loop."""\nfrom . import experiment\n\ndef f():\n    """F."""\n    import research.deep.down\n',
        'train/unused.py': 'x = 1\n',
        'study/plan.py': 'x = 1\n',
        'models/cnn.py': 'x = 1\n',
        'models/vgg.py': 'x = 1\n',
        'optim/__init__.py': '',
        'optim/adam.py': 'from . import moments\n',
        'optim/moments.py': 'x = 1\n',
        'deep/__init__.py': 'x = 1\n',
        'deep/down.py': 'x = 1\n',
        'models/__init__.py': "CATALOGUE = 'research.models.cnn:CNN'\n",
        'train/__init__.py': 'import research.models\n',
        '__init__.py': '',
    }
    for name, text in content.items():
        path = tmp_path / 'research' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.setattr(identity, '__file__', str(tmp_path / 'research' / 'study' / 'identity.py'))
    return tmp_path / 'research'


def rewritten(path, text):
    path.write_text(text)
    os.utime(path, ns=(time.time_ns(),) * 2)  # two writes may fall into one tick of the file system


def test_the_fingerprint_is_of_what_a_run_executes(code, monkeypatch):
    before = identity.fingerprint(BASE, 'sum')
    assert {name.removeprefix('research/') for name in before['code']} == {
        *('__init__.py', 'train/__init__.py', 'train/loop.py', 'train/experiment.py', 'models/__init__.py', 'models/cnn.py'),
        *('optim/__init__.py', 'optim/adam.py', 'optim/moments.py', 'deep/__init__.py', 'deep/down.py'),
    }
    imported = types.ModuleType('research.train.unused')
    imported.__file__ = str(code / 'train/unused.py')
    monkeypatch.setitem(sys.modules, 'research.train.unused', imported)
    for name in ('study/plan.py', 'train/unused.py', 'models/vgg.py', 'models/new.py'):
        rewritten(code / name, 'x = 2\n')
    rewritten(
        code / 'train/loop.py', (code / 'train/loop.py').read_text().replace('F.', 'G.').replace('Loop', 'A loop') + '# why\n'
    )
    assert identity.fingerprint(BASE, 'sum') == before
    for name in ('models/cnn.py', 'optim/moments.py', 'deep/__init__.py'):
        rewritten(code / name, 'x = 2\n')
        after = identity.fingerprint(BASE, 'sum')
        assert [file for file in after['code'] if after['code'][file] != before['code'][file]] == [f'research/{name}']
        before = after
    assert identity.fingerprint(BASE, 'other')['data'] == 'other'
    assert json.loads(json.dumps(before)) == before


def test_the_code_of_an_installed_package_is_that_of_a_checkout(tmp_path):
    """Libraries that its catalogues name lie beside it, and are versions, no code."""
    (tmp_path / 'research').symlink_to(ROOT / 'research')
    (tmp_path / 'optax').mkdir()
    (tmp_path / 'optax' / '__init__.py').touch()
    start, names = ('research.optim.optimizers',), {'sgd', 'global_norm'}
    assert closure.package(start, names, tmp_path) == closure.package(start, names, ROOT)


@pytest.mark.parametrize('package', ['', 'paper_of_mine.'])
def test_modules_by_import_path_are_code(code, tmp_path, monkeypatch, package):
    folder = tmp_path / 'paper' / package.rstrip('.')
    folder.mkdir(parents=True)
    stem = f'nets_{len(package)}'
    (folder / f'{stem}.py').write_text(f'from {package}blocks_{len(package)} import x\nnet = dict\n')
    (folder / f'blocks_{len(package)}.py').write_text('x = 1\n')
    (folder / 'untouched.py').write_text('x = 1\n')
    written(folder, '')
    monkeypatch.syspath_prepend(str(tmp_path / 'paper'))
    __import__(package + stem)
    config = changed(model__name=f'{package}{stem}:net')
    assert not identity.fingerprint(BASE, '')['fork']
    before = identity.fingerprint(config, '')['fork']
    assert {pathlib.Path(file).name for file in before} == {f'{stem}.py', f'blocks_{len(package)}.py'}
    for neighbour in ('untouched.py', 'paper.py'):
        rewritten(folder / neighbour, 'x = 2\n')
    assert identity.fingerprint(config, '')['fork'] == before
    rewritten(folder / f'blocks_{len(package)}.py', 'x = 2\n')
    assert identity.fingerprint(config, '')['fork'] != before
    for name in [n for n in sys.modules if str(tmp_path) in str(getattr(sys.modules[n], '__file__', ''))]:
        del sys.modules[name]


def test_a_text_with_a_colon_that_is_no_module_is_no_code():
    assert not identity.fingerprint(changed(augment__ratio='a.b:c', data__path='C:/data'), '')['fork']


@pytest.mark.parametrize(
    'flags, found',
    [
        ('', 'avx512f'),
        ('--xla_cpu_max_isa=AVX2', 'avx2'),
        ('--xla_cpu_max_isa=sse4_2 --xla_other=1', 'sse4_2'),
        ('--xla_cpu_max_isa=AVX512_BF16', 'avx512f'),
        ('--xla_cpu_max_isa=AMX', 'avx512f'),
    ],
)
def test_numerics_name_the_instruction_set_in_use(monkeypatch, flags, found):
    monkeypatch.setattr(identity, '_processor', lambda: {'flags': 'fpu sse4_2 avx avx2 avx512f'})
    monkeypatch.setenv('XLA_FLAGS', flags)
    assert identity.numerics()['instructions'] == found
    assert identity.numerics()['xla_flags'] == ' '.join(sorted(flags.split()))


def test_files_that_git_does_not_know_are_saved_where_a_run_imports_them(tmp_path, monkeypatch):
    repository, workdir = tmp_path / 'paper', tmp_path / 'study'
    workdir.mkdir()
    repository.mkdir()
    subprocess.run(['git', '-C', str(repository), 'init', '-q'], check=True)
    (repository / '.gitignore').write_text('ignored_net.py\n')
    for name in ('paper', 'new_net', 'ignored_net', 'unused_net'):
        (repository / f'{name}.py').write_text(f'WIDTH = "{name} as it was"\n')
    monkeypatch.syspath_prepend(repository)
    for name in ('new_net', 'ignored_net'):
        importlib.import_module(name)
    found = identity.environment(workdir, repository / 'paper.py')
    kept = (workdir / found['git_diff_file']).read_text().splitlines()
    assert [line for line in kept if line.startswith('+WIDTH')] == [f'+WIDTH = "{n} as it was"' for n in ('new_net', 'paper')]


def test_the_environment_is_saved_beside_the_study(tmp_path):
    found = identity.environment(tmp_path, tmp_path / 'paper.py')
    assert (tmp_path / found['packages_file']).read_text().count('==') > 10
    assert (tmp_path / found['git_diff_file']).exists()
    assert found['platform'] == 'cpu' and found['python'] == sys.version.split()[0]
    assert pathlib.Path(identity.__file__).exists()


def test_a_message_about_stale_runs_names_the_files():
    then = {'code': {'research/a.py': '1', 'research/b.py': '2'}, 'versions': {'jax': '1'}, 'data': 'x'}
    now = {'code': {'research/a.py': '1', 'research/b.py': '3', 'research/c.py': '4'}, 'versions': {'jax': '2'}, 'data': 'x'}
    done = {'id': {'variant': 'baseline', 'fingerprint': then}}
    assert not folder.settle_stale(done, {'baseline': then}, '')
    with pytest.raises(ConfigError, match='another jax, research/b.py, research/c.py. Their'):
        folder.settle_stale(done, {'baseline': now}, '')
