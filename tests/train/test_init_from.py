"""A study that starts from somebody's weights: it starts there, draws its own head, is told apart, and is refused early."""

import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import research.study
from research import models, pretrained
from research.catalogue import ConfigError
from research.config import overrides
from research.pretrained import likeness
from research.study import identity
from research.train import checkpoint
from research.train import experiment as experiments
from research.train.clock import Clock
from research.train.program import Session

SMALL = {'depths': (1,), 'widths': (8,), 'stem': 'cifar'}


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    """Of a network with three channels and 1000 classes, statistics and all off their starting values."""
    module = models.create('resnet18', 1000, **SMALL)
    variables = jax.jit(module.init)(jax.random.key(5), jnp.zeros((1, 8, 8, 3)))
    variables = jax.tree.map(lambda a: a + 0.25, dict(variables))
    path = tmp_path_factory.mktemp('weights') / 'model.safetensors'
    pretrained.save(module, variables, path)
    return path, variables


@pytest.fixture(autouse=True)
def nothing_is_looked_for(monkeypatch):
    """What else the weights may be, which takes seconds and tests/pretrained asks."""
    monkeypatch.setattr(likeness, '_PATIENCE', 0.0)


def config(path, **changes):
    model = {f'model.{key}': value for key, value in SMALL.items()}
    given = {'model.name': 'resnet18', 'model.init_from': str(path), 'data.batch_size': 32, 'study.budget': '4st', **model}
    return overrides.apply(overrides.defaults(), {**given, **changes})


def build(config):
    return experiments.build(config, Session(), identity.compile_key(config))


@pytest.mark.parametrize('engine', ['jit', pytest.param('pmap', marks=pytest.mark.long)])
def test_training_starts_from_the_weights_and_its_own_head(weights, engine):
    path, variables = weights
    with pytest.warns(UserWarning, match='Drawn anew'):
        started = build(config(path, **{'train.engine': engine}))
    state = started.init(Clock())
    drawn = build(config('', **{'train.engine': engine})).init(Clock())
    params = jax.tree.map(lambda a: np.asarray(a) if engine == 'jit' else np.asarray(a)[0], (state.params, drawn.params))
    (params, others), expected = params, variables['params']
    np.testing.assert_allclose(params['conv1']['kernel'], expected['conv1']['kernel'].sum(2, keepdims=True), rtol=1e-6)
    np.testing.assert_array_equal(params['stage1_block1']['conv2']['kernel'], expected['stage1_block1']['conv2']['kernel'])
    np.testing.assert_array_equal(params['head']['kernel'], others['head']['kernel'])
    mean = np.asarray(state.collections['batch_stats']['norm1']['mean']).reshape(-1, 8)[0]
    np.testing.assert_array_equal(mean, variables['batch_stats']['norm1']['mean'])


def test_a_file_with_another_content_is_another_fingerprint(weights, tmp_path):
    tensors = load_file(weights[0])
    save_file(tensors, tmp_path / 'a.safetensors')
    before = identity.fingerprint(config(tmp_path / 'a.safetensors'), '')
    assert before['weights'] and not identity.fingerprint(config(''), '')['weights']
    save_file({n: a + 1 for n, a in tensors.items()}, tmp_path / 'a.safetensors')
    after = identity.fingerprint(config(tmp_path / 'a.safetensors'), '')
    assert {k for k in before if before[k] != after[k]} == {'weights'}


def test_training_starts_from_another_studys_run(tmp_path, monkeypatch):
    """By a path relative to where it is launched; what was scored there is part of the fingerprint."""
    module = models.create('cnn', 10, widths=(2,), hidden=())
    variables = jax.jit(module.init)(jax.random.key(5), jnp.zeros((1, 8, 8, 1)))
    variables = jax.tree.map(lambda a: a + 0.25, dict(variables))
    directory = tmp_path / 'x' / 'runs' / 'a'
    checkpoint.save_variables(directory / 'scored', variables)
    group = {'name': 'cnn', 'widths': (2,), 'hidden': (), 'num_classes': 10, 'init_from': ''}
    for name, content in (('config', {'model': group}), ('result', {'status': 'finished'})):
        (directory / f'{name}.json').write_text(json.dumps(content))
    (tmp_path / 'x' / 'study.json').write_text(json.dumps({'runs': {'baseline': {'0': 'a'}}}))
    monkeypatch.chdir(tmp_path)
    asked = overrides.apply(overrides.defaults(), {'model.init_from': 'x:baseline:0', 'study.budget': '4st'})
    state = build(asked).init(Clock())
    jax.tree.map(np.testing.assert_array_equal, {'params': state.params, **state.collections}, variables)
    assert identity.fingerprint(asked, '')['weights'] == pretrained.digest('x:baseline:0') != ''


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'model.init_from': 'nowhere.safetensors'}, 'No weights at'),
        ({'model.widths': (16,)}, 'do not fit'),
        ({'model.norm': 'none'}, r"'bn1.weight' \[8\] has no place"),
        ({'model.name': 'cnn', 'model.widths': (8,)}, "No pretrained weights are known for 'cnn'"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_compiled(weights, change, message):
    base = config(weights[0], **change)
    if change.get('model.name'):
        base['model'] = {k: v for k, v in base['model'].items() if k not in ('depths', 'stem')}
    with pytest.raises(ConfigError, match=message):
        build(base)


@pytest.mark.long
def test_a_study_of_it_is_loaded_without_the_file(weights, tmp_path):
    """The arguments that a source asks for are in the record."""
    import shutil
    import subprocess
    import sys

    path = tmp_path / 'model.safetensors'
    shutil.copy(weights[0], path)
    (tmp_path / 'fine_tune.py').write_text(
        '"""Question: does it help?\nRun: -\nCost: -\nResult: -\n"""\n'
        'from research.config import base\n\n\n'
        'def get_config(arg=""):\n'
        '    config = base.get_config()\n'
        "    config.model.update({'name': 'resnet18', 'depths': (1,), 'widths': (8,), 'stem': 'cifar'})\n"
        "    config.study.budget = '4st'\n"
        '    config.study.seeds = 1\n'
        '    config.study.latency = ()\n'
        '    config.study.null = False\n'
        f"    config.study.variants = {{'fine_tuned': {{'model.init_from': {str(path)!r}}}}}\n"
        '    return config\n'
    )
    command = [sys.executable, 'launch.py', f'--config={tmp_path / "fine_tune.py"}', f'--workdir={tmp_path / "out"}']
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    path.unlink()
    module, variables = research.study.load(str(tmp_path / 'out'), 'fine_tuned', 0)
    assert module.num_classes == 10 and 'stage1_block1' in variables['params']
    (config,) = [
        found
        for file in (tmp_path / 'out' / 'runs').glob('*/config.json')
        if (found := json.loads(file.read_text()))['model']['init_from']
    ]
    assert re.search('model.safetensors', config['model']['init_from'])
