"""What holds for every augmentation of images, whatever it does. Another one needs a line in `CASES` and no new test."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research import augment, catalogue
from research.augment import affine, blurring, colors, crops, erasing, flips, noises, policies


class Case(NamedTuple):
    """`strong` changes most images, `off` none; `bad` are strengths to refuse, by argument."""

    function: Callable[..., Any]
    strong: Mapping[str, Any]
    off: Mapping[str, Any]
    bad: Mapping[str, Any]


CASES = {
    'rotate': Case(affine.rotate, {'degrees': 90}, {'degrees': 0}, {'degrees': 181}),
    'translate': Case(affine.translate, {'share': 0.5}, {'share': 0}, {'share': -0.1}),
    'scale': Case(affine.scale, {'share': 0.5, 'fill': 0.3}, {'share': 0}, {'share': 1}),
    'shear': Case(affine.shear, {'degrees': 30}, {'degrees': 0}, {'degrees': 90}),
    'flip_horizontal': Case(flips.flip_horizontal, {}, {'share': 0}, {'share': 1.5}),
    'flip_vertical': Case(flips.flip_vertical, {}, {'share': 0}, {'share': float('nan')}),
    'pad_crop': Case(crops.pad_crop, {'fill': 1.0}, {'padding': 0}, {'padding': 1.5}),
    'random_resized_crop': Case(
        crops.random_resized_crop, {}, {'area': (1, 1), 'ratio': (1, 1)}, {'area': (0, 1), 'ratio': (2, 1)}
    ),
    'gaussian_noise': Case(noises.gaussian_noise, {'std': 0.2}, {'std': 0}, {'std': -0.1}),
    'salt_and_pepper': Case(noises.salt_and_pepper, {'share': 0.5}, {'share': 0}, {'share': 2}),
    'blur': Case(blurring.blur, {'sigma': 2.0}, {'sigma': 0}, {'sigma': -1}),
    'cutout': Case(erasing.cutout, {'size': 3}, {'size': 0}, {'size': 2.5}),
    'random_erasing': Case(erasing.random_erasing, {'share': 0.9, 'fill': 0.5}, {'share': 0}, {'share': -1, 'area': (0.5, 2)}),
    'brightness': Case(colors.brightness, {'share': 2}, {'share': 0}, {'share': -0.1}),
    'contrast': Case(colors.contrast, {'share': 2}, {'share': 0}, {'share': -0.1}),
    'saturation': Case(colors.saturation, {'share': 2}, {'share': 0}, {'share': -0.1}),
    'hue': Case(colors.hue, {'share': 0.5}, {'share': 0}, {'share': 0.6}),
    'color_jitter': Case(
        colors.color_jitter,
        {'brightness': 1, 'hue': 0.5},
        {'brightness': 0, 'contrast': 0, 'saturation': 0, 'hue': 0},
        {'brightness': -1, 'contrast': -1, 'saturation': -1, 'hue': 1},
    ),
    'randaugment': Case(
        policies.randaugment, {'operations': 3, 'magnitude': 30}, {'operations': 0}, {'operations': 1.5, 'magnitude': 31}
    ),
    'trivialaugment': Case(policies.trivialaugment, {}, {'strength': 0}, {'strength': 2}),
    'augmix': Case(policies.augmix, {'severity': 10}, {'width': 0}, {'severity': 11, 'width': -1, 'depth': 0.5, 'alpha': 0}),
}
# Compiled in seconds; tests/augment/test_policies.py compares them with operations one by one.
POLICIES = ('randaugment', 'trivialaugment', 'augmix')
# Names that share a program, which is compiled in less time than one a name.
GROUPS = [tuple(name for name in CASES if name not in POLICIES)[i : i + 6] for i in range(0, len(CASES) - len(POLICIES), 6)]
GROUPS += [pytest.param((name,), marks=pytest.mark.long) for name in POLICIES]

B, H, W = 16, 8, 7
KEYS = jax.random.split(jax.random.key(0), B)
DTYPES = ('uint8', 'float32')


def images(batch=B, height=H, width=W, channels=3, dtype='uint8', seed=0):
    whole = np.random.default_rng(seed).integers(0, 256, (batch, height, width, channels), dtype=np.uint8)
    return whole if dtype == 'uint8' else (whole / 255).astype(dtype)


def inputs(seed=0, **shape):
    return {dtype: images(dtype=dtype, seed=seed, **shape) for dtype in DTYPES}


def together(names, setting):
    """(keys, {dtype: images}) -> {(name, dtype): images}, with the arguments of that field of a case."""

    def augmented(keys, arrays):
        return {
            (name, dtype): CASES[name].function(keys, array, **(getattr(CASES[name], setting) if setting else {}))
            for name in names
            for dtype, array in arrays.items()
        }

    return augmented


@functools.cache
def strong(names):
    """Compiled once for the batches of this file."""
    chex.clear_trace_counter()  # which counts by a function's name
    return jax.jit(chex.assert_max_traces(together(names, 'strong'), n=1))


def test_every_augmentation_of_images_has_a_case():
    of_images = {
        name
        for name in augment.AUGMENTATIONS
        if 'images' in catalogue.parameters(catalogue.resolve('augmentation', name, augment.AUGMENTATIONS))[0]
    }
    assert of_images <= set(CASES)


@pytest.mark.parametrize('name', [pytest.param(n, marks=pytest.mark.long) if n in POLICIES else n for n in CASES])
def test_shape_and_dtype_are_kept(name):
    for channels in (1, 3, 5):
        for dtype in ('uint8', 'int32', 'float32', 'bfloat16'):
            array = jax.ShapeDtypeStruct((3, 5, 8, channels), dtype)
            found = jax.eval_shape(lambda keys, x: CASES[name].function(keys, x, **CASES[name].strong), KEYS[:3], array)
            assert (found.shape, found.dtype) == (array.shape, array.dtype)


@pytest.mark.parametrize('names', GROUPS, ids='-'.join)
def test_at_zero_strength_nothing_changes(names):
    arrays = inputs(channels=2) | {'float64': images(channels=2, dtype='float64')}
    with jax.enable_x64(True):
        found = jax.jit(together(names, 'off'))(KEYS, arrays)
    for (name, dtype), array in found.items():
        np.testing.assert_array_equal(array, arrays[dtype], err_msg=name, strict=True)


@pytest.mark.parametrize('names', GROUPS, ids='-'.join)
def test_the_default_changes_images_by_their_keys(names):
    """The same image in every row, so that only keys differ."""
    arrays = {dtype: np.repeat(array[:1], B, 0) for dtype, array in inputs().items()}
    for (name, dtype), array in jax.jit(together(names, ''))(KEYS, arrays).items():
        assert (array != arrays[dtype]).any(), name
        assert (array != array[:1]).any(), name


@pytest.mark.parametrize('names', GROUPS, ids='-'.join)
def test_a_row_depends_on_its_key_and_its_image_alone(names):
    """The same in any order, beside any neighbours, in a batch of any size, and by vmap.

    Bit for bit; another program, of another size or by vmap, may round floats the other way in their last place, and in a
    policy then a level of integers.
    """
    function, one_program = together(names, 'strong'), strong(names)
    arrays, others = inputs(), inputs(seed=1)
    expected = one_program(KEYS, arrays)

    def same(found, rows, what, another_program=False):
        for (name, dtype), array in found.items():
            atol = {'float32': 2e-6, 'uint8': name in POLICIES}[dtype] if another_program else 0
            close = functools.partial(np.testing.assert_allclose, rtol=0, atol=atol, err_msg=f'{name}, {what}')
            close(array.astype(float), expected[name, dtype][rows].astype(float))

    order = np.random.default_rng(0).permutation(B)
    same(one_program(KEYS[order], {d: a[order] for d, a in arrays.items()}), order, 'another order')
    strangers = jax.random.split(jax.random.key(1), B)
    even = np.arange(B) % 2 == 0
    keys = jnp.where(even, KEYS, strangers)
    mixed = one_program(keys, {d: np.where(even[:, None, None, None], a, others[d]) for d, a in arrays.items()})
    same({case: array[even] for case, array in mixed.items()}, even, 'other neighbours')
    part = slice(5, 8)
    same(jax.jit(function)(KEYS[part], {d: a[part] for d, a in arrays.items()}), part, 'a smaller batch', True)

    def of_one(key, row):
        return jax.tree.map(lambda a: a[0], function(key[None], jax.tree.map(lambda a: a[None], row)))

    same(jax.jit(jax.vmap(of_one))(KEYS, arrays), slice(None), 'vmap', True)


@pytest.mark.parametrize('names', GROUPS, ids='-'.join)
def test_grey_stays_grey(names):
    arrays = {dtype: np.repeat(array, 3, -1) for dtype, array in inputs(channels=1).items()}
    for name, array in strong(names)(KEYS, arrays).items():
        np.testing.assert_array_equal(array, np.repeat(array[..., :1], 3, -1), err_msg=name)


@pytest.mark.parametrize(('name', 'argument'), [(name, argument) for name, case in CASES.items() for argument in case.bad])
def test_a_strength_out_of_range_is_refused(name, argument):
    bad = {argument: CASES[name].bad[argument]}
    with pytest.raises(catalogue.ConfigError, match=f'augment.{name}.{argument} is .*, expected'):
        jax.eval_shape(lambda keys, x: CASES[name].function(keys, x, **bad), KEYS, images())


@pytest.mark.long
@pytest.mark.parametrize('names', GROUPS, ids='-'.join)
def test_four_devices_compute_what_one_does(names):
    """Integers bit for bit; another program may round floats the other way in their last place."""
    function = together(names, 'strong')
    arrays = inputs()
    expected = jax.jit(function)(KEYS, arrays)
    mesh = jax.make_mesh((4,), ('devices',), axis_types=(jax.sharding.AxisType.Auto,))  # as in research.train.parallel
    rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec('devices'))
    shared = jax.jit(function)(*jax.device_put((KEYS, arrays), rows))
    split = jax.tree.map(lambda a: a.reshape(4, B // 4, *a.shape[1:]), (KEYS, arrays))
    mapped = jax.tree.map(lambda a: a.reshape(B, *a.shape[2:]), jax.pmap(function)(*split))
    for found in (shared, mapped):
        for name, array in expected.items():
            np.testing.assert_allclose(found[name], array, rtol=0, atol=2e-6, err_msg=str(name))
