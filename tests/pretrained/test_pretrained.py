"""Weights in and out without torch: who they are recognized as, what is said when they do not fit, heads, channels, factors."""

import pathlib
import subprocess
import sys
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from research import models, pretrained
from research.catalogue import ConfigError
from research.layers import low_rank
from research.models.resnet import ResNet

pytestmark = pytest.mark.usefixtures('plain')

NAME = f'{__name__}:Tiny'


class Tiny(ResNet):
    """Two blocks, of which the last has kernels large enough for factors."""

    depths: tuple[int, ...] = (1, 1)
    widths: tuple[int, ...] = (8, 96)


class Deeper(Tiny):
    depths: tuple[int, ...] = (1, 3)


class Counted(Tiny):
    """Counts how often it is traced."""

    traced: ClassVar[list] = []

    def __call__(self, x, train=False):
        self.traced.append(x.shape)
        return super().__call__(x, train)


@pytest.fixture(scope='module')
def module():
    return models.create(NAME, 7)


@pytest.fixture(scope='module')
def variables(module):
    return jax.jit(module.init)(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))


@pytest.fixture(scope='module', params=['timm', 'huggingface'])
def saved(request, module, variables, tmp_path_factory):
    path = tmp_path_factory.mktemp(request.param) / 'model.safetensors'
    pretrained.save(module, variables, path, request.param)
    return path


def write(tensors, path, **changes):
    save_file({**tensors, **changes}, path)
    return path


class TestRoundTrip:
    def test_is_the_identity_whoever_names_the_parameters(self, saved, module, variables):
        found, loaded = pretrained.load(NAME, saved)
        assert found == module  # as many classes as the file has
        jax.tree.map(np.testing.assert_array_equal, loaded, dict(variables))
        assert all(a.dtype == np.float32 for a in jax.tree.leaves(loaded))

    def test_traces_the_network_once(self, saved):
        """A large one takes seconds a time."""
        Counted.traced.clear()
        pretrained.load(f'{__name__}:Counted', saved)
        assert len(Counted.traced) == 1

    def test_a_folder_will_do(self, saved, variables):
        jax.tree.map(np.testing.assert_array_equal, pretrained.load(NAME, saved.parent)[1], dict(variables))

    def test_what_has_no_place_in_a_network_is_written_back(self, saved, tmp_path):
        tensors = load_file(saved)
        counter = next(n for n in tensors if n.endswith('running_mean')).replace('running_mean', 'num_batches_tracked')
        path = write(tensors, tmp_path / 'a.safetensors', **{counter: np.array(7, np.int64)})
        module, variables = pretrained.load(NAME, path)
        source = 'timm' if 'conv1.weight' in tensors else 'huggingface'
        pretrained.save(module, variables, tmp_path / 'b.safetensors', source)
        again = load_file(tmp_path / 'b.safetensors')
        assert again[counter] == 7 and (again[counter].dtype, again[counter].shape) == (np.int64, ())
        assert again.keys() == load_file(path).keys()

    def test_needs_no_torch(self, saved):
        code = f"import sys; sys.modules['torch'] = None; from research import pretrained; pretrained.load('{NAME}', '{saved}')"
        subprocess.run([sys.executable, '-c', code], cwd=pathlib.Path(__file__).parent, check=True)

    def test_half_precision_is_read_as_float32(self, saved, tmp_path):
        tensors = {n: a.astype(np.float16) if a.dtype == np.float32 else a for n, a in load_file(saved).items()}
        _, variables = pretrained.load(NAME, write(tensors, tmp_path / 'half.safetensors'))
        assert all(a.dtype == np.float32 for a in jax.tree.leaves(variables))

    def test_a_failed_save_leaves_what_was_there(self, module, variables, saved):
        before = saved.read_bytes()
        broken = {**variables, 'params': {k: v for k, v in variables['params'].items() if k != 'head'}}
        broken['params']['tail'] = {'kernel': jnp.zeros(3)}
        with pytest.raises(ConfigError, match='params/tail/kernel'):
            pretrained.save(module, broken, saved)
        assert saved.read_bytes() == before and not list(saved.parent.glob('*.partial'))


class TestWhatDoesNotFit:
    """By name: what is missing, what is left over, and what has another shape."""

    def refused(self, saved, tmp_path, message, name=NAME, drop=(), **changes):
        tensors = {n: a for n, a in load_file(saved).items() if n not in drop}
        with pytest.raises(ConfigError, match=message):
            pretrained.load(name, write(tensors, tmp_path / 'x.safetensors', **changes))

    def first(self, saved):
        return next(n for n, a in load_file(saved).items() if a.shape == (8, 3, 7, 7))

    def test_missing(self, saved, tmp_path):
        self.refused(saved, tmp_path, rf"'{self.first(saved)}' \[8, 3, 7, 7\] is not in the file", drop=(self.first(saved),))

    def test_misspelt_names_the_nearest(self, saved, tmp_path):
        first = self.first(saved)
        tensor = load_file(saved)[first]
        self.refused(saved, tmp_path, f"has no place. Did you mean '{first}'", drop=(first,), **{f'{first}s': tensor})

    def test_left_over(self, saved, tmp_path):
        self.refused(saved, tmp_path, r"'extra.weight' \[3\] has no place", **{'extra.weight': np.zeros(3, np.float32)})

    def test_another_shape(self, saved, tmp_path):
        changed = {self.first(saved): np.zeros((8, 3, 5, 5), np.float32)}
        self.refused(saved, tmp_path, r'is \[8, 3, 5, 5\], expected \[8, 3, 7, 7\]', **changed)

    def test_a_head_behind_another_width(self, saved, tmp_path):
        """Not drawn anew in silence: it has as many classes as the network."""
        kernel = next(n for n, a in load_file(saved).items() if a.shape == (7, 96))
        self.refused(saved, tmp_path, r'is \[7, 64\], expected \[7, 96\]', **{kernel: np.zeros((7, 64), np.float32)})

    @pytest.mark.parametrize(
        ('change', 'message'),
        [
            (lambda a: np.full_like(a, np.nan), 'has 1176 of 1176 values that are NaN or infinite'),
            (lambda a: a.astype(np.int8), 'is int8, expected floating-point numbers'),
        ],
    )
    def test_no_numbers(self, saved, tmp_path, change, message):
        first = self.first(saved)
        self.refused(saved, tmp_path, f"'{first}' {message}", **{first: change(load_file(saved)[first])})

    def test_another_network_of_the_family(self, saved, tmp_path):
        self.refused(saved, tmp_path, 'is not in the file(.|\n)*and .* more', name=f'{__name__}:Deeper')

    def test_somebody_elses_network(self, tmp_path):
        with pytest.raises(ConfigError, match="None of the names in the file.*'banana'"):
            pretrained.load(NAME, write({'banana': np.zeros(3, np.float32)}, tmp_path / 'x.safetensors'))

    def test_a_network_that_nobody_has_weights_for(self, tmp_path):
        with pytest.raises(ConfigError, match="No pretrained weights are known for 'cnn'"):
            pretrained.load('cnn', write({'banana': np.zeros(3, np.float32)}, tmp_path / 'x.safetensors'))

    def test_a_file_that_is_not_there(self, tmp_path):
        with pytest.raises(ConfigError, match='No weights at'):
            pretrained.load(NAME, tmp_path / 'none.safetensors')
        with pytest.raises(ConfigError, match='No weights at'):
            pretrained.load(NAME, tmp_path)

    def test_a_file_of_another_kind(self, tmp_path):
        (tmp_path / 'model.pth').write_bytes(b'PK\x03\x04' + bytes(100))
        with pytest.raises(ConfigError, match='not a safetensors file.*save_file'):
            pretrained.load(NAME, tmp_path / 'model.pth')

    def test_an_unknown_source(self, module, variables, tmp_path):
        with pytest.raises(ConfigError, match="'tim'.*Did you mean 'timm'"):
            pretrained.save(module, variables, tmp_path / 'x.safetensors', 'tim')


class TestOtherSizes:
    def test_another_number_of_classes_draws_the_head_alone_and_says_so(self, saved, variables):
        with pytest.warns(UserWarning, match="'head', because the file's has 7 classes, the network 5"):
            module, loaded = pretrained.load(NAME, saved, num_classes=5)
        assert module.num_classes == 5
        head = loaded['params'].pop('head')
        assert head['kernel'].shape == (96, 5) and np.std(head['kernel']) > 0.01
        rest = {k: v for k, v in variables['params'].items() if k != 'head'}
        jax.tree.map(np.testing.assert_array_equal, loaded['params'], rest)

    def test_a_file_without_a_head(self, saved, tmp_path):
        tensors = {n: a for n, a in load_file(saved).items() if a.shape[:1] != (7,)}
        with pytest.warns(UserWarning, match="'head', because the file has none"):
            module, variables = pretrained.load(NAME, write(tensors, tmp_path / 'x.safetensors'), num_classes=3)
        assert variables['params']['head']['bias'].shape == (3,)

    def test_a_gray_image_means_what_it_did_in_colour(self, saved):
        colour, gray = (pretrained.load(NAME, saved, channels=c) for c in (3, 1))
        x = jax.random.normal(jax.random.key(1), (2, 32, 32, 1))
        expected = jax.jit(colour[0].apply)(colour[1], jnp.tile(x, (1, 1, 1, 3)))
        np.testing.assert_allclose(jax.jit(gray[0].apply)(gray[1], x), expected, atol=1e-4 * np.abs(expected).max())

    def test_factors_are_the_nearest_of_their_rank(self, saved, variables):
        module, loaded = pretrained.load(NAME, saved, low_rank=0.25)
        kernel = variables['params']['stage2_block1']['conv2']['kernel'].reshape(-1, 96)
        first, last = (loaded['params']['stage2_block1'][f'conv2_{end}']['kernel'] for end in ('in', 'out'))
        found = first.reshape(-1, 24) @ last.reshape(24, 96)
        values = np.linalg.svd(kernel, compute_uv=False)
        np.testing.assert_allclose(np.linalg.norm(found - kernel), np.linalg.norm(values[24:]), rtol=1e-3)
        assert module.low_rank == 0.25

    def test_a_new_head_may_come_in_factors(self, saved):
        with pytest.warns(UserWarning, match="'head'"):
            module, variables = pretrained.load(NAME, saved, num_classes=900, low_rank=0.25)
        expected = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
        assert jax.tree.map(jnp.shape, variables) == jax.tree.map(jnp.shape, dict(expected))
        assert {'head_in', 'head_out'} <= variables['params'].keys()

    def test_a_norm_without_running_statistics_leaves_them_aside(self, saved, tmp_path):
        module, variables = pretrained.load(NAME, saved, norm='virtual_batch')
        assert 'batch_stats' not in variables and len(variables['foreign']) == 2 * 6
        source = 'timm' if 'conv1.weight' in load_file(saved) else 'huggingface'
        pretrained.save(module, variables, tmp_path / 'x.safetensors', source)
        assert load_file(tmp_path / 'x.safetensors').keys() == load_file(saved).keys()

    @pytest.mark.parametrize('share', [-0.1, 1.5])
    def test_a_rank_that_is_no_share_is_refused(self, share):
        with pytest.raises(ConfigError, match=f'low_rank is {share}'):
            jax.eval_shape(models.create('cnn', low_rank=share).init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))

    def test_what_stays_whole(self):
        assert low_rank.rank((3, 3, 16, 16), 0.1) == 0  # small
        assert low_rank.rank((3, 3, 256, 256), 0.0) == 0
        assert low_rank.rank((3, 3, 256, 256), 1.0) == 0  # would not shrink
        assert low_rank.rank((3, 3, 256, 256), 0.25) == 64


@pytest.mark.long
def test_googlenet_comes_with_its_auxiliary_heads_or_without(tmp_path):
    for auxiliary in (True, False):
        module = models.create('googlenet', 5, width=0.125, auxiliary=auxiliary)
        variables = jax.jit(module.init)(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
        pretrained.save(module, variables, tmp_path / 'x.safetensors', 'torchvision')
        found, loaded = pretrained.load('googlenet', tmp_path, width=0.125)
        assert found.auxiliary == auxiliary
        jax.tree.map(np.testing.assert_array_equal, loaded['params'], dict(variables['params']))


def test_preprocessing_of_a_source():
    assert pretrained.preprocessing('resnet50').size == 224
    assert pretrained.preprocessing('resnet50', 'torchvision').interpolation == 'bilinear'
    with pytest.raises(ConfigError, match="'timm' has no 'resnet20'"):
        pretrained.preprocessing('resnet20')
