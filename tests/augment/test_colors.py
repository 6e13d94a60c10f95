"""Colours and tones against Pillow, colorsys and torchvision, with the same factors."""

import colorsys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import references
from PIL import Image, ImageEnhance, ImageOps

from research.augment import colors, tones

B, H, W = 8, 40, 30  # large enough for several pixels of each level: `equalize` has something to do
KEYS = jax.random.split(jax.random.key(0), B)
FACTORS = np.array([0.0, 0.3, 0.6, 0.9, 1.0, 1.2, 1.6, 1.9], np.float32)
TURNS = np.array([-0.5, -0.4, -0.2, -0.01, 0.0, 0.1, 1 / 3, 0.45], np.float32)
THRESHOLDS = np.array([255, 200, 150, 128, 100, 50, 1, 0], np.float32)
BITS = np.array([8, 7, 6, 5, 4, 3, 2, 1], np.float32)


def images(dtype='uint8', channels=3):
    """Of narrow and of whole ranges, one flat and one of two values, so that histograms differ."""
    draw = np.random.default_rng(0)
    least, most = draw.integers(0, 100, (B, 1, 1, 1)), draw.integers(110, 256, (B, 1, 1, 1))
    whole = draw.integers(np.broadcast_to(least, (B, H, W, channels)), most).astype(np.uint8)
    whole[1], whole[2] = 77, np.where(whole[2] > 128, 200, 40)
    return whole if dtype == 'uint8' else (whole / 255).astype(dtype)


def within(found, expected, atol):
    np.testing.assert_allclose(np.asarray(found, float), np.asarray(expected, float), rtol=0, atol=atol)


def by_pillow(operation, *values):
    """An operation on each image of Pillow, with its own values."""
    return np.stack([np.asarray(operation(Image.fromarray(x), *v)) for x, *v in zip(images(), *values, strict=True)])


def enhanced(kind):
    return lambda image, factor: kind(image).enhance(float(factor))


# Ours, its values, Pillow's. Roundings: Pillow cuts off what it blends, and rounds the grey image and the smoothed one before.
PILLOW = {
    'brightness': (colors.adjust_brightness, (FACTORS,), enhanced(ImageEnhance.Brightness), 1),
    'saturation': (colors.adjust_saturation, (FACTORS,), enhanced(ImageEnhance.Color), 1),
    'contrast': (colors.adjust_contrast, (FACTORS,), enhanced(ImageEnhance.Contrast), 1),
    'sharpness': (tones.sharpness, (FACTORS,), enhanced(ImageEnhance.Sharpness), 1),
    'autocontrast': (tones.autocontrast, (), ImageOps.autocontrast, 1),
    'equalize': (tones.equalize, (), ImageOps.equalize, 0),
    'invert': (tones.invert, (), ImageOps.invert, 0),
    'solarize': (tones.solarize, (THRESHOLDS,), ImageOps.solarize, 0),
    'posterize': (tones.posterize, (BITS,), lambda image, bits: ImageOps.posterize(image, int(bits)), 0),
}


@pytest.mark.parametrize('name', PILLOW)
def test_operations_are_those_of_pillow(name):
    function, values, theirs, levels = PILLOW[name]
    found = jax.jit(function)(images(), *values)
    within(found, by_pillow(theirs, *values), levels)
    assert found.dtype == np.uint8


@pytest.mark.parametrize('name', PILLOW)
def test_floats_are_as_integers(name):
    """What is 255 in integers is 1 in floats; bits and histograms are of 256 levels."""
    function, values, _, _ = PILLOW[name]
    scaled = [v / 255 if v is THRESHOLDS else v for v in values]
    found, expected = jax.jit(lambda x, y: (function(x, *scaled), function(y, *values)))(images('float32'), images())
    within(255 * np.clip(found, 0, 1), expected, 0.501)


def test_hue_is_that_of_colorsys():
    def turned(pixel, turn):
        hue, saturation, value = colorsys.rgb_to_hsv(*pixel)
        return colorsys.hsv_to_rgb((hue + turn) % 1, saturation, value)

    x = images('float32')
    turns = np.broadcast_to(TURNS[:, None, None], (B, H, W)).reshape(-1)
    expected = [turned(pixel, turn) for pixel, turn in zip(x.reshape(-1, 3).tolist(), turns.tolist(), strict=True)]
    within(jax.jit(colors.turn_hue)(x, TURNS), np.reshape(expected, x.shape), 2e-6)
    within(jax.jit(colors.turn_hue)(images(), TURNS), 255 * np.reshape(expected, x.shape), 0.501)


def test_hue_keeps_the_largest_and_the_least_value_of_standardized_images():
    """Also below 0, where a saturation, a quotient of values, has no meaning."""
    x = np.random.default_rng(0).normal(size=(B, H, W, 3)).astype(np.float32)
    found = np.asarray(jax.jit(colors.turn_hue)(x, TURNS))
    within(found.max(-1), x.max(-1), 1e-6)
    within(found.min(-1), x.min(-1), 1e-6)


@pytest.mark.parity
@pytest.mark.parametrize('dtype', ['uint8', 'float32'])
@pytest.mark.parametrize('name', ['brightness', 'contrast', 'saturation', 'hue', 'sharpness', 'autocontrast', 'equalize'])
def test_colors_are_those_of_torchvision(name, dtype):
    """Within a level; floats within 1e-5 or, for greys, what its weight of red, 0.2989, makes of 0.299: 1e-4 at most."""
    torch, _, _ = references.libraries()
    from torchvision.transforms.v2 import functional

    ours = {'hue': colors.turn_hue, **{n: entry[0] for n, entry in PILLOW.items()}}[name]
    theirs = getattr(functional, name if name in ('autocontrast', 'equalize') else f'adjust_{name}')
    values = {'hue': (TURNS,), 'autocontrast': (), 'equalize': ()}.get(name, (FACTORS,))
    x = images(dtype)
    rows = zip(references.to_torch(x), *values, strict=True)
    expected = torch.stack([theirs(row, *map(float, v)) for row, *v in rows]).numpy().transpose(0, 2, 3, 1)
    found = np.asarray(jax.jit(ours)(x, *values))
    within(np.clip(found, 0, 1) if dtype == 'float32' else found, expected, tolerance(name, dtype))


def tolerance(name, dtype):
    if dtype == 'uint8':
        return 1
    return 1e-4 if name in ('contrast', 'saturation') else 1e-5


@pytest.mark.parametrize('channels', [1, 5])
def test_without_three_channels_there_is_no_colour(channels):
    x = images('float32', channels)
    np.testing.assert_array_equal(colors.turn_hue(x, TURNS), x)
    np.testing.assert_array_equal(colors.adjust_saturation(x, FACTORS), x)
    mean = x.mean((1, 2, 3), keepdims=True)
    within(colors.adjust_contrast(x, FACTORS), mean + FACTORS[:, None, None, None] * (x - mean), 1e-6)


def test_jitter_is_the_four_in_their_order():
    """Values are clipped after each, so that another order shows."""

    @jax.jit
    def both(x):
        drawn = jax.vmap(lambda key: jax.random.uniform(key, (4,)))(KEYS).T
        expected = colors.turn_hue(x, 0.4 * drawn[3] - 0.2)
        expected = colors.adjust_brightness(expected, 2.5 * drawn[0])  # a share of 1.5 is from 0 to 2.5
        expected = colors.adjust_contrast(expected, 0.2 + 1.6 * drawn[1])
        expected = colors.adjust_saturation(expected, 0.5 + drawn[2])
        return colors.color_jitter(KEYS, x, 1.5, 0.8, 0.5, 0.2), expected

    found, expected = both(images())
    within(found, expected, 1)
    assert (np.asarray(found) != images()).mean() > 0.5


@pytest.mark.parametrize(('name', 'share'), [('brightness', 0.4), ('contrast', 0.4), ('saturation', 0.4), ('hue', 0.1)])
def test_factors_fill_their_range(name, share):
    """Of an image that shows the factor in a pixel."""
    keys = jax.random.split(jax.random.key(1), 500)
    x = jnp.tile(jnp.array([[[[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]]]), (500, 1, 1, 1))
    found = np.asarray(jax.jit(getattr(colors, name))(keys, x), np.float64)
    if name == 'hue':  # red has the value 1, and 6 turns of green or of blue
        factors = (found[:, 0, 0, 1] - found[:, 0, 0, 2]) / 6
    else:
        grey = {'brightness': 0, 'contrast': 0.299 / 2, 'saturation': 0.299}[name]
        factors = (found[:, 0, 0, 0] - grey) / (1 - grey) - 1
    assert np.abs(factors).max() < share * 1.0001
    np.testing.assert_allclose(np.quantile(factors, [0.02, 0.5, 0.98]), [-0.96 * share, 0, 0.96 * share], atol=0.12 * share)
