"""Networks of our own as files, and runs as weights to start from."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from research import models, pretrained
from research.catalogue import ConfigError
from research.train import checkpoint

pytestmark = pytest.mark.usefixtures('plain')

CASES = {
    'cnn': {'widths': (2, 3), 'hidden': (4,), 'norm': {'name': 'batch', 'epsilon': 1e-3}},
    'resnet20': {'depths': (1, 1), 'widths': (2, 3), 'norm': 'virtual_batch'},
    'vit': {'patch': 4, 'dim': 8, 'depth': 1, 'heads': 2, 'dropout': 0.1},
}


def drawn(module, channels=1):
    shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 8, 8, channels)))
    rng = np.random.default_rng(0)
    return {
        kind: jax.tree.map(lambda s: rng.normal(size=s.shape).astype(np.float32), tree)
        for kind, tree in shapes.items()
        if kind != 'example'
    }


def same(found, expected):
    jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.mark.parametrize('name', CASES)
def test_a_file_of_ours_is_the_same_network_again(name, tmp_path):
    module = models.create(name, 5, **CASES[name])
    variables = drawn(module)
    pretrained.save(module, variables, tmp_path / 'x.safetensors', 'frugal')
    found, loaded = pretrained.load(name, tmp_path, size=8)
    assert found == module
    same(loaded, variables)


class TestFile:
    @pytest.fixture
    def saved(self, tmp_path):
        module = models.create('cnn', 5, **CASES['cnn'])
        variables = drawn(module, 3)
        pretrained.save(module, variables, tmp_path / 'x.safetensors', 'frugal')
        return tmp_path / 'x.safetensors', variables

    def test_another_head_is_drawn_and_colours_are_summed(self, saved):
        with pytest.warns(UserWarning, match="'head', because the file's has 5 classes, the network 3"):
            module, found = pretrained.load('cnn', saved[0], num_classes=3, channels=1, size=8)
        assert module.num_classes == 3 and found['params']['head']['kernel'].shape == (4, 3)
        expected = saved[1]['params']['block1_conv1']['kernel'].sum(2, keepdims=True)
        np.testing.assert_allclose(found['params']['block1_conv1']['kernel'], expected, rtol=1e-6)

    def test_a_norm_without_its_statistics_leaves_them(self, saved):
        module, found = pretrained.load('cnn', saved[0], size=8, norm='virtual_batch')
        assert module.norm == {'name': 'virtual_batch', 'epsilon': 1e-3}
        same(found, {'params': saved[1]['params']})

    def test_what_does_not_fit_is_named(self, saved):
        tensors = load_file(saved[0])
        with safe_open(saved[0], 'np') as file:
            texts = file.metadata()
        tensors['params/block3_conv1/kernel'] = tensors.pop('params/block2_conv1/kernel')
        save_file(tensors, saved[0], texts)
        with pytest.raises(
            ConfigError, match=r"'params/block2_conv1/kernel' \[3, 3, 2, 3\] is not in the file.(.|\n)*no place"
        ):
            pretrained.load('cnn', saved[0], size=8)


@pytest.fixture
def study(tmp_path):
    """A study's folder with a finished run, seed 0, one under way and one that diverged."""
    group = {'name': 'cnn', **CASES['cnn']}
    variables = drawn(models.create('cnn', 5, **CASES['cnn']))
    (tmp_path / 'x').mkdir()
    (tmp_path / 'x' / 'study.json').write_text(json.dumps({'runs': {'baseline': {'0': 'a', '1': 'b', '2': 'c'}}}))
    for run, status in (('a', 'finished'), ('b', ''), ('c', 'diverged')):
        directory = tmp_path / 'x' / 'runs' / run
        directory.mkdir(parents=True)
        (directory / 'config.json').write_text(json.dumps({'model': {**group, 'num_classes': 5, 'init_from': ''}}))
        if status:
            (directory / 'result.json').write_text(json.dumps({'status': status, 'message': 'loss is nan'}))
    checkpoint.save_variables(tmp_path / 'x' / 'runs' / 'a' / 'scored', variables)
    return tmp_path / 'x', variables


class TestRun:
    def test_is_loaded_with_the_network_that_it_trained(self, study, monkeypatch):
        folder, variables = study
        monkeypatch.chdir(folder.parent)
        monkeypatch.setenv('HOME', str(folder.parent))
        for path in (f'{folder}:baseline:0', 'x:baseline:0', '~/x:baseline:0'):
            module, found = pretrained.load('cnn', path, size=8)
            assert module == models.create('cnn', 5, **CASES['cnn'])
            same(found, variables)

    def test_arguments_are_the_runs_but_for_what_is_asked(self, study):
        group = {'name': 'cnn', 'num_classes': 0, 'init_from': f'{study[0]}:baseline:0', 'dropout': 0.5}
        assert pretrained.arguments(group) == {**CASES['cnn'], 'dropout': 0.5}

    def test_digest_is_of_its_numbers(self, study):
        folder, variables = study
        path, scored = f'{folder}:baseline:0', folder / 'runs' / 'a' / 'scored'
        before = pretrained.digest(path)
        checkpoint.save_variables(scored, variables)
        assert pretrained.digest(path) == before
        checkpoint.save_variables(scored, jax.tree.map(lambda a: a + 1, variables))
        assert pretrained.digest(path) != before

    @pytest.mark.parametrize(
        ('path', 'message'),
        [
            ('{}:basline:0', "No variant 'basline' in '.*x'. Did you mean 'baseline'?"),
            ('{}:baseline:7', "No seed 7 of 'baseline' in '.*x'"),
            ('{}:baseline:1', "'baseline', seed 1, is not finished in"),
            ('{}:baseline:2', r"'baseline', seed 2, has diverged and left no model \(loss is nan\)"),
            ('{}/y:baseline:0', "No study in '.*y': study.json is missing"),
        ],
    )
    def test_one_that_is_not_there(self, study, path, message):
        for call in (pretrained.digest, lambda path: pretrained.load('cnn', path)):
            with pytest.raises(ConfigError, match=message):
                call(path.format(study[0]))

    @pytest.mark.parametrize('part', ['config.json', 'scored/manifest.ocdbt'])
    def test_one_that_cannot_be_read(self, study, part):
        directory = study[0] / 'runs' / 'a'
        (directory / part).write_bytes(b'torn')
        with pytest.raises(ConfigError, match=f'{part.partition("/")[0]} cannot be read .*Remove {directory} and launch'):
            pretrained.load('cnn', f'{study[0]}:baseline:0', size=8)

    def test_of_another_network_is_refused(self, study):
        with pytest.raises(ConfigError, match="baseline:0' is a 'cnn', not a 'resnet20': set model.name to 'cnn'"):
            pretrained.load('resnet20', f'{study[0]}:baseline:0')
