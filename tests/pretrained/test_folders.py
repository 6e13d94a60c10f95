"""Files and folders of weights: which file of a folder is taken, what is asked of the texts beside the tensors."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from research import models, pretrained
from research.catalogue import ConfigError

pytestmark = pytest.mark.usefixtures('plain')

SMALL = {'patch': 4, 'dim': 8, 'depth': 1, 'heads': 2}


@pytest.fixture(scope='module')
def module():
    return models.create('vit', 3, **SMALL)


@pytest.fixture(scope='module')
def variables(module):
    shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda s: rng.normal(size=s.shape).astype(np.float32), dict(shapes))


@pytest.fixture
def saved(module, variables, tmp_path):
    pretrained.save(module, variables, tmp_path / 'model.safetensors')
    return tmp_path / 'model.safetensors'


def load(path):
    return pretrained.load('vit', path, size=8, **SMALL)


def same(found, expected):
    jax.tree.map(np.testing.assert_array_equal, found, expected)


class TestFolder:
    def test_the_model_is_taken_whatever_lies_beside_it(self, saved, variables):
        save_file({name: a + 1 for name, a in load_file(saved).items()}, saved.with_name('optimizer.safetensors'))
        before = pretrained.digest(str(saved.parent))
        same(load(saved.parent)[1], variables)
        saved.with_name('optimizer.safetensors').unlink()
        assert pretrained.digest(str(saved.parent)) == before == pretrained.digest(str(saved))

    def test_parts_are_put_together_by_their_index(self, saved, variables):
        tensors, parts = load_file(saved), {}
        for i, name in enumerate(tensors):
            parts[name] = f'model-0000{i % 2 + 1}-of-00002.safetensors'
        for part in set(parts.values()):
            save_file({name: a for name, a in tensors.items() if parts[name] == part}, saved.with_name(part))
        saved.unlink()
        save_file({'stray': np.zeros(1, np.float32)}, saved.with_name('stray.safetensors'))
        saved.with_name('model.safetensors.index.json').write_text(json.dumps({'weight_map': parts}))
        same(load(saved.parent)[1], variables)
        saved.with_name('model-00002-of-00002.safetensors').unlink()
        with pytest.raises(ConfigError, match='names model-00002-of-00002.safetensors, missing'):
            load(saved.parent)

    def test_of_two_others_neither_is_guessed(self, saved, variables):
        saved.rename(saved.with_name('a.safetensors'))
        same(load(saved.parent)[1], variables)
        save_file({'stray': np.zeros(1, np.float32)}, saved.with_name('b.safetensors'))
        with pytest.raises(ConfigError, match='it holds a.safetensors, b.safetensors: name one'):
            load(saved.parent)


class TestSave:
    def test_makes_the_folders_it_is_to_write_in(self, module, variables, tmp_path):
        pretrained.save(module, variables, tmp_path / 'new' / 'folder' / 'x.safetensors')
        same(load(tmp_path / 'new' / 'folder')[1], variables)

    def test_into_a_folder_asks_for_a_name(self, module, variables, tmp_path):
        with pytest.raises(ConfigError, match="is a folder: name the file.*model.safetensors'"):
            pretrained.save(module, variables, tmp_path)

    def test_a_home_is_found(self, module, variables, tmp_path, monkeypatch):
        monkeypatch.setenv('HOME', str(tmp_path))
        pretrained.save(module, variables, '~/x.safetensors')
        same(load('~/x.safetensors')[1], variables)
        assert pretrained.digest('~/x.safetensors') == pretrained.digest(str(tmp_path / 'x.safetensors'))

    def test_texts_of_a_file_are_written_back(self, saved):
        texts = {'format': 'pt', 'license': 'apache-2.0', 'trained by': 'Zoë'}
        save_file(load_file(saved), saved, texts)
        module, variables = load(saved)
        jax.jit(module.apply)(variables, jnp.zeros((1, 8, 8, 3)))  # a tree of arrays alone
        for source in ('timm', 'huggingface'):
            pretrained.save(module, variables, saved, source)
            with safe_open(saved, 'np') as file:
                assert file.metadata() == texts

    def test_others_know_the_file_as_pytorchs(self, saved):
        """transformers refuses one that does not say so."""
        with safe_open(saved, 'np') as file:
            assert file.metadata() == {'format': 'pt'}
        assert 'foreign' not in load(saved)[1]


def test_bfloat16_is_read_as_float32(saved, variables):
    rounded = {name: a.astype(jnp.bfloat16) for name, a in load_file(saved).items()}
    save_file(rounded, saved)
    same(load(saved)[1], jax.tree.map(lambda a: np.float32(a.astype(jnp.bfloat16)), variables))
