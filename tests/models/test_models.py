"""What every model promises: names, channels, counts, the same initial weights whatever the norm layer, errors at the door."""

import functools
import itertools
import re

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import FrozenDict

from research import cost, models
from research.catalogue import ConfigError
from research.layers import formulation
from research.layers.dropout import Dropout
from research.models.network import Network

NORMS = ['batch', 'virtual_batch', FrozenDict({'name': 'ghost_batch', 'virtual_batch_size': 4}), 'none']
SIDES = {'alexnet': 64}  # of those that 32 pixels are too few for


class Tiny(nn.Module):
    """A network of somebody's own, with no batch statistics and so no `axis_name`."""

    num_classes: int
    width: int = 4

    @nn.compact
    def __call__(self, x, train=False):
        return nn.Dense(self.num_classes, name='head')(nn.Dense(self.width, name='hidden')(x.reshape(len(x), -1)))


# One network over images a file of research.models, the first that the catalogue names: its others differ in numbers alone.
FAMILIES = {path.partition(':')[0]: name for name, path in reversed(models.MODELS.items())}
FAMILIES = [name for name in FAMILIES.values() if isinstance(models.create(name), Network)]


def images(name):
    side = SIDES.get(name, 32)
    return jax.ShapeDtypeStruct((2, side, side, 5), jnp.float32)


@functools.cache
def shapes(name, norm=None, **kwargs):
    model = models.create(name, 7, **({} if norm is None else {'norm': norm}), **kwargs)
    with formulation.plain():
        variables = jax.eval_shape(model.init, jax.random.key(0), images(name))
    return model, variables


def some(*chosen):
    """Every family with every norm layer, those of `chosen` in the default suite: a family hands the choice on to a layer."""
    cases = itertools.product(FAMILIES, NORMS)
    return [pytest.param(*c, id='-'.join(map(str, c)), marks=() if set(c) & set(chosen) else pytest.mark.long) for c in cases]


@pytest.mark.usefixtures('plain')
class TestEveryFamily:
    @pytest.mark.parametrize('name', FAMILIES)
    def test_names_its_layers_itself(self, name):
        """An auto-named layer (`Conv_0`) would be renamed, and drawn anew, by another inserted before it."""
        for path, _ in jax.tree.leaves_with_path(shapes(name)[1]):
            assert not re.search(r"'[A-Z]\w*_\d+'", jax.tree_util.keystr(path))

    @pytest.mark.parametrize(('name', 'norm'), [*((name, None) for name in FAMILIES), *some('cnn')])
    def test_gives_float32_logits_of_as_many_classes_and_channels_as_asked_for(self, name, norm):
        model, variables = shapes(name, norm)
        apply = functools.partial(model.apply, train=True, mutable=['batch_stats'])
        logits, _ = jax.eval_shape(apply, variables, images(name))
        assert (logits.shape, logits.dtype) == ((2, 7), jnp.float32)

    @pytest.mark.parametrize('name', [pytest.param(name, marks=() if name == 'cnn' else pytest.mark.long) for name in FAMILIES])
    def test_takes_batches_of_any_size_and_train_as_false_when_left_out(self, name):
        model, variables = shapes(name)
        (batch,) = jax.export.symbolic_shape('b')
        anyhow = jax.ShapeDtypeStruct((batch, *images(name).shape[1:]), jnp.float32)
        logits = jax.eval_shape(model.apply, variables, anyhow)  # would update statistics, and fail, in training
        assert logits.shape == (batch, 7)

    @pytest.mark.parametrize(('name', 'norm'), some('cnn', 'none'))
    def test_has_the_same_kernels_whatever_the_norm_layer(self, name, norm):
        expected, found = (kernels(shapes(name, norm)[1]['params']) for norm in (None, norm))
        assert expected and found == expected


def kernels(params):
    return {jax.tree_util.keystr(path): a for path, a in jax.tree.leaves_with_path(params) if "'kernel'" in str(path[-1])}


def test_begins_with_the_same_weights_whatever_the_norm_layer():
    def drawn(norm):
        model = models.create('cnn', 10, norm=norm, widths=(4, 8), hidden=(8,))
        return kernels(jax.jit(model.init)(jax.random.key(3), jnp.zeros((2, 8, 8, 1)))['params'])

    batch, virtual = map(drawn, NORMS[:2])
    chex.assert_trees_all_close(virtual, batch, rtol=1e-6)  # the same draw; its last bit is the compiler's


@pytest.mark.parametrize('norm', ['batch', *(pytest.param(norm, marks=pytest.mark.long) for norm in NORMS[1:])], ids=str)
def test_on_a_pmap_axis_a_network_gives_the_logits_of_one_device(norm):
    x = jax.random.normal(jax.random.key(1), (8, 8, 8, 1))
    small = {'norm': norm, 'widths': (4, 8), 'hidden': (8,)}
    one, split = (models.create('cnn', 10, axis_name=axis, **small) for axis in (None, 'rows'))
    variables = jax.jit(split.init)(jax.random.key(0), x)

    def logits(model):
        return lambda variables, x: model.apply(variables, x, train=True, mutable=['batch_stats'])[0]

    together = jax.pmap(logits(split), 'rows', in_axes=(None, 0))(variables, x.reshape(4, 2, 8, 8, 1))
    np.testing.assert_allclose(together.reshape(8, 10), jax.jit(logits(one))(variables, x), rtol=1e-5, atol=1e-5)


# At 1000 classes and three channels: the papers', torchvision's or timm's.
PARAMETERS = {
    'alexnet': 61_100_840,
    'vgg16': 138_357_544,
    'vgg16_bn': 138_365_992,
    'googlenet': 13_004_888,
    'resnet18': 11_689_512,
    'resnet50': 25_557_032,
    'resnet152': 60_192_808,
    'mobilenetv1_100': 4_231_976,
    'mobilenetv2_100': 3_504_872,
    'mobilenetv3_large_100': 5_483_032,
    'mobilenetv3_small_100': 2_542_856,
    'tinynet_a': 6_187_972,
    'tinynet_b': 3_730_562,
    'tinynet_c': 2_457_234,
    'tinynet_d': 2_338_446,
    'tinynet_e': 2_042_972,
    'legacy_xception': 22_855_952,
    'efficientnet_b0': 5_288_548,
    'efficientnet_b4': 19_341_616,
    'efficientnet_b7': 66_347_960,
    'vit_base_patch16_224': 86_567_656,
}


# Deep, and others of the family are among those that stay.
DEEP = {'resnet50', 'resnet152', 'vgg16_bn', 'mobilenetv3_large_100', 'efficientnet_b4', 'efficientnet_b7'}
DEEP |= {f'tinynet_{size}' for size in 'abcd'}


@pytest.mark.usefixtures('plain')
@pytest.mark.parametrize('name', [pytest.param(n, marks=pytest.mark.long) if n in DEEP else n for n in PARAMETERS])
def test_number_of_parameters(name):
    images = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    variables = jax.eval_shape(models.create(name).init, jax.random.key(0), images)
    assert cost.parameters(variables) == PARAMETERS[name]


@pytest.mark.parametrize(
    ('name', 'channels', 'classes', 'expected'),
    [
        ('resnet20', 3, 10, 269_722),  # He et al. 2015, table 6: 0.27M
        ('cnn', 1, 10, 9 * 32 + 9 * 32 * 64 + 2 * (32 + 64) + (8 * 8 * 64 + 1) * 128 + 129 * 10),
    ],
)
def test_number_of_parameters_on_small_images(name, channels, classes, expected):
    images = jax.ShapeDtypeStruct((1, 32, 32, channels), jnp.float32)
    variables = jax.eval_shape(models.create(name, classes).init, jax.random.key(0), images)
    assert cost.parameters(variables) == expected


# Published, in billions: He et al. 2015 with the stride in the 3x3 convolution, Sandler et al. 2018 and Tan and Le 2019.
@pytest.mark.parametrize(
    ('name', 'billions'),
    [
        pytest.param('resnet50', 4.1, marks=pytest.mark.long),
        ('mobilenetv2_100', 0.30),
        pytest.param('efficientnet_b0', 0.39, marks=pytest.mark.long),
    ],
)
def test_multiply_adds_are_the_published_ones_whichever_formulation_runs(name, billions):
    model, images = models.create(name), jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    found = cost.multiply_adds(model.apply, variables, images)
    assert found == pytest.approx(billions * 1e9, rel=0.03)
    assert cost.flops(model.apply, variables, images) == 2 * found
    with formulation.plain():
        assert cost.multiply_adds(model.apply, variables, images) == found


@pytest.mark.usefixtures('plain')
@pytest.mark.parametrize('name', FAMILIES)
def test_intermediate_maps_can_be_read(name):
    model, variables = shapes(name)
    found = {}
    jax.eval_shape(lambda v, x: found.update(models.features(model, v, x)), variables, images(name))
    assert len(found) >= 2 and [*found][-1].startswith(('stage', 'block'))
    sides = [a.shape[1] for a in found.values() if a.ndim == 4]
    assert sides == sorted(sides, reverse=True) and all(len(a) == 2 for a in found.values())


SHARES = ('dropout', 'auxiliary_dropout', 'stochastic_depth')
MASKED = [name for name in FAMILIES if any(hasattr(models.create(name), share) for share in SHARES)]


@pytest.mark.usefixtures('plain')
@pytest.mark.parametrize('name', MASKED)
@pytest.mark.long
def test_masks_are_off_at_shares_of_0_and_in_evaluation(name):
    def program(share):
        model, variables = shapes(name, **{s: share for s in SHARES if hasattr(models.create(name), s)})
        params = {kind: tree for kind, tree in variables.items() if kind != 'example'}
        return variables, str(jax.make_jaxpr(functools.partial(model.apply, train=False))(params, images(name)))

    (off, without), (on, with_masks) = program(0.0), program(0.5)
    assert 'example' not in off and 'example' in on and with_masks == without


@pytest.mark.parametrize(('name', 'blocks', 'branches'), [('resnet18', 8, 1), ('resnet20', 9, 1), ('vit', 4, 2)])
def test_stochastic_depth_grows_linearly_to_its_share_in_the_last_block(name, blocks, branches):
    rates = []

    def note(call, args, kwargs, context):
        if isinstance(context.module, Dropout) and context.module.rate:
            rates.append(context.module.rate)
        return call(*args, **kwargs)

    with nn.intercept_methods(note):
        shapes.__wrapped__(name, stochastic_depth=0.5)  # not from the cache: it is the call that is watched
    np.testing.assert_allclose(rates, np.repeat(0.5 * np.arange(1, blocks + 1) / blocks, branches))


class TestCreate:
    def test_names_are_sorted(self):
        assert models.names() == sorted(models.MODELS)

    def test_takes_an_import_path(self):
        assert models.create(f'{__name__}:Tiny', 5, width=3) == Tiny(5, 3)

    def test_keeps_the_axis_name_from_a_network_without_one(self):
        assert models.create(f'{__name__}:Tiny', 5, axis_name='rows') == Tiny(5)
        assert models.create('cnn', 5, axis_name='rows').axis_name == 'rows'

    @pytest.mark.parametrize(
        ('name', 'kwargs', 'message'),
        [
            ('resnet81', {}, "Did you mean 'resnet18'"),
            ('cnn', {'width': 3}, "no argument 'width'.*'widths'"),
            ('vit_tiny_patch16_224', {'dropuot': 0.1}, "no argument 'dropuot'.*'dropout'"),
            (f'{__name__}:Tinny', {}, 'Cannot import'),
            ('resnet18', {'num_classes': -1}, 'num_classes is -1, expected'),
            (f'{__name__}:kernels', {}, "no argument 'num_classes'"),
        ],
    )
    def test_refuses_what_it_does_not_know(self, name, kwargs, message):
        with pytest.raises(ConfigError, match=message):
            models.create(name, **kwargs)

    @pytest.mark.parametrize(
        ('name', 'kwargs', 'message'),
        [
            ('resnet18', {'stem': 'cifer'}, "Did you mean 'cifar'"),
            ('research.models.resnet:ResNet', {'shortcut': 'pad'}, "Did you mean 'padding'"),
            ('resnet20', {'norm': 'batsch'}, "Did you mean 'batch'"),
            ('cnn', {'widths': (8,) * 6}, 'fewer widths'),
        ],
    )
    def test_refuses_when_shapes_are_worked_out_before_anything_is_compiled(self, name, kwargs, message):
        with pytest.raises(ConfigError, match=message):
            shapes(name, **kwargs)
