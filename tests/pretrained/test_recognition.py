"""Whose weights these are: names with prefixes or without, the config.json beside them, what the norm layers take along."""

import functools
import json

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from research import models, pretrained
from research.catalogue import ConfigError
from research.pretrained import entries

pytestmark = pytest.mark.usefixtures('plain')

SMALL = {'patch': 4, 'dim': 8, 'depth': 1, 'heads': 2}


@functools.cache
def tensors(name, source, size=32, **kwargs):
    """Of a network as a library would write it, drawn in its names and shapes alone."""
    module = models.create(name, 3, **kwargs)
    rng, shapes = np.random.default_rng(0), entries.shapes_of(module, (1, size, size, 3))
    found = {}
    for entry in entries.entries(module, module.SOURCES[source], shapes):
        found |= {n: rng.normal(size=s).astype(np.float32) for n, s in zip(entry.theirs, entry.expected, strict=True)}
    return found


def names_alone(name, source):
    """Tensors with its names, of no network's shapes."""
    module = models.create(name)
    return {f'{layer}.weight': np.zeros(1, np.float32) for layer in entries.layers_of(module, module.SOURCES[source])}


def same(found, expected):
    jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    """A ViT of Hugging Face's: its tensors, and the variables that they are."""
    given = tensors('vit', 'huggingface', 8, **SMALL)
    folder = tmp_path_factory.mktemp('whole')
    save_file(given, folder / 'x.safetensors')
    return given, pretrained.load('vit', folder, size=8, **SMALL)[1]


@pytest.mark.parametrize('prefix', ['module.', '_orig_mod.module.'])
def test_names_with_the_prefixes_of_wrappers(whole, prefix, tmp_path):
    save_file({prefix + name: a for name, a in whole[0].items()}, tmp_path / 'x.safetensors')
    same(pretrained.load('vit', tmp_path, size=8, **SMALL)[1], whole[1])


def test_a_backbone_gets_a_head_and_says_so(whole, tmp_path):
    given = {n.removeprefix('vit.'): a for n, a in whole[0].items() if not n.startswith('classifier')}
    given['pooler.dense.weight'] = np.zeros((8, 8), np.float32)
    save_file(given, tmp_path / 'x.safetensors')
    (tmp_path / 'config.json').write_text(json.dumps({'architectures': ['ViTModel'], 'model_type': 'vit'}))
    with pytest.warns(UserWarning, match="Drawn anew: 'head', because the file has none"):
        module, variables = pretrained.load('vit', tmp_path, num_classes=5, size=8, **SMALL)
    assert variables['params'].pop('head')['kernel'].shape == (8, 5)
    assert module.norm['epsilon'] == 1e-12 and list(variables.pop('foreign')) == ['vit.pooler.dense.weight']
    same(variables['params'], {k: v for k, v in whole[1]['params'].items() if k != 'head'})


class TestConfig:
    """The config.json beside a file."""

    def said(self, folder, name, **config):
        folder.mkdir(exist_ok=True)
        save_file(names_alone('mobilenetv3_small_050', 'timm'), folder / 'model.safetensors')
        (folder / 'config.json').write_text(json.dumps(config))
        return pretrained.arguments({'name': name, 'num_classes': 0, 'init_from': str(folder / 'model.safetensors')})

    def test_another_network_is_refused_and_the_right_name_given(self, tmp_path):
        for name, theirs in [
            ('mobilenetv3_small_100', 'tf_mobilenetv3_small_100'),
            ('tf_mobilenetv3_small_100', 'mobilenetv3_small_100'),
        ]:
            with pytest.raises(ConfigError, match=f"is a '{theirs}', not a '{name}'. Load it by that name"):
                self.said(tmp_path, name, architecture=theirs)
        assert self.said(tmp_path, 'mobilenetv3_small_100', architecture='mobilenetv3_small_100') == {}

    def test_one_that_the_catalogue_lacks_may_be_the_same_network(self, tmp_path):
        with pytest.warns(UserWarning, match="'lcnet_050'.*Nobody has checked"):
            self.said(tmp_path, 'mobilenetv3_small_050', architecture='lcnet_050')

    def test_another_family_of_hugging_face(self, whole, tmp_path):
        save_file(whole[0], tmp_path / 'x.safetensors')
        (tmp_path / 'config.json').write_text(json.dumps({'model_type': 'deit'}))
        with pytest.raises(ConfigError, match="is a 'deit', and 'vit' is none"):
            pretrained.load('vit', tmp_path, size=8, **SMALL)


@pytest.mark.parametrize('name', ['mobilenetv1_050', 'alexnet'])
def test_the_likely_network_is_named(name, tmp_path):
    save_file(tensors('mobilenetv1_025', 'timm'), tmp_path / 'x.safetensors')
    with pytest.raises(ConfigError, match="look like 'mobilenetv1_025'"):
        pretrained.load(name, tmp_path)


class TestNorm:
    """Epsilon and momentum come with the weights, into whichever norm layer is there."""

    @pytest.fixture
    def weights(self, tmp_path):
        path = tmp_path / 'x.safetensors'
        save_file(names_alone('mobilenetv3_small_050', 'torchvision'), path)
        return str(path)

    @pytest.mark.parametrize(
        ('asked', 'found'),
        [
            ({}, {'name': 'batch', 'epsilon': 1e-3, 'momentum': 0.99}),
            ({'norm': 'batch'}, {'name': 'batch', 'epsilon': 1e-3, 'momentum': 0.99}),
            (
                {'norm': {'name': 'ghost_batch', 'virtual_batch_size': 4, 'momentum': 0.5}},
                {'name': 'ghost_batch', 'virtual_batch_size': 4, 'epsilon': 1e-3, 'momentum': 0.5},
            ),
            ({'norm': 'virtual_batch'}, {'name': 'virtual_batch', 'epsilon': 1e-3}),
            ({'norm': 'none'}, {'name': 'none'}),
        ],
        ids=str,
    )
    def test_is_the_sources_but_for_what_is_asked(self, weights, asked, found):
        group = {'name': 'mobilenetv3_small_100', 'num_classes': 0, 'init_from': weights, 'width': 0.5, **asked}
        assert pretrained.arguments(group) == {'padding': 'half', 'width': 0.5, 'norm': found}
