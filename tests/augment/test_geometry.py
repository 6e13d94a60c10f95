"""Rotations, crops, noise, blur and erasing against PIL, SciPy and torchvision, with the same draws."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import references
import scipy.ndimage
import scipy.stats
from PIL import Image

from research.augment import affine, blurring, crops, erasing, flips, noises, pixels
from research.catalogue import ConfigError

B, H, W = 12, 11, 14
KEYS = jax.random.split(jax.random.key(0), B)


def images(dtype='float32', batch=B, channels=2):
    whole = np.random.default_rng(0).integers(0, 256, (batch, H, W, channels), dtype=np.uint8)
    return whole if dtype == 'uint8' else (whole / 255).astype(dtype)


def agree(found, expected, dtype='float32'):
    """Floats within 1e-4; integers, which are rounded, within 1."""
    atol = 1 if dtype == 'uint8' else 1e-4
    np.testing.assert_allclose(np.asarray(found, float), np.asarray(expected, float), rtol=0, atol=atol)


def boxes(keys, area, ratio):
    return np.asarray(jax.jit(crops.boxes, static_argnums=(1, 2))(keys, area, ratio))


def signed(count):
    return 2 * np.asarray(pixels.uniform(KEYS, count)) - 1


@pytest.mark.parametrize(('dtype', 'fill'), [('float32', 0.3), ('uint8', 200)])
def test_transform_is_that_of_scipy(dtype, fill):
    x = images(dtype)
    draw = np.random.default_rng(1)
    # Turns, slants and moves, some by more than the image.
    matrices = np.concatenate([draw.normal(0, 1, (B, 2, 2)), draw.normal(0, 5, (B, 2, 1))], 2).astype(np.float32)
    centre = np.array([H - 1, W - 1]) / 2
    expected = np.empty_like(x)
    for i, matrix in enumerate(matrices[:, ::-1][:, :, [1, 0, 2]]):  # rows before columns
        offset = centre + matrix[:, 2] - matrix[:, :2] @ centre
        for c in range(x.shape[-1]):
            channel = x[i, ..., c].astype(float)
            read = scipy.ndimage.affine_transform(channel, matrix[:, :2], offset, order=1, mode='grid-constant', cval=fill)
            expected[i, ..., c] = np.round(read) if dtype == 'uint8' else read
    agree(jax.jit(affine.transform)(x, matrices, fill), expected, dtype)
    assert 0.05 < (expected == fill).mean() < 0.95


@pytest.mark.parity
def test_rotate_translate_scale_and_shear_are_those_of_torchvision():
    torch, _, _ = references.libraries()
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.v2 import functional

    x = images()

    def theirs(**changes):
        """Of each row its own numbers. With a fill torchvision weights a pixel at the border twice; with none it is black."""
        still = {'angle': 0.0, 'translate': [0, 0], 'scale': 1.0, 'shear': [0.0, 0.0]}
        rows = []
        for i in range(B):
            arguments = still | {name: np.asarray(numbers)[i].tolist() for name, numbers in changes.items()}
            row = references.to_torch(x[i : i + 1])
            rows.append(functional.affine(row, **arguments, interpolation=InterpolationMode.BILINEAR))
        return torch.cat(rows).numpy().transpose(0, 2, 3, 1)

    one, two = signed(1)[:, 0], signed(2)
    agree(affine.rotate(KEYS, x, degrees=120), theirs(angle=-120 * one))
    agree(affine.translate(KEYS, x, share=0.3), theirs(translate=-np.round(0.3 * np.array([W, H]) * two)))
    agree(affine.scale(KEYS, x, share=0.5), theirs(scale=1 + 0.5 * one))
    agree(affine.shear(KEYS, x, degrees=40), theirs(shear=np.stack([40 * one, 0 * one], 1)))


def test_flips_are_those_of_numpy_in_a_share_of_the_rows():
    x = images('uint8', batch=400)
    keys = jax.random.split(jax.random.key(0), 400)
    for flip, axis in ((flips.flip_horizontal, 2), (flips.flip_vertical, 1)):
        found = np.asarray(jax.jit(partial(flip, share=0.3))(keys, x))
        turned = (found != x).any((1, 2, 3))
        np.testing.assert_array_equal(found[turned], np.flip(x, axis)[turned])
        assert abs(turned.mean() - 0.3) < 0.07  # three deviations


def test_padded_and_cropped_as_with_numpy_from_every_place():
    x, padding = images('uint8', batch=1), 2
    starts = np.stack(np.meshgrid(np.arange(5), np.arange(5)), -1).reshape(-1, 2)
    padded = np.pad(x[0], ((2, 2), (2, 2), (0, 0)), constant_values=9)
    expected = [padded[row : row + H, column : column + W] for row, column in starts]
    found = np.asarray(jax.jit(crops.pad_and_crop, static_argnums=2)(np.repeat(x, 25, 0), starts, padding, fill=9))
    np.testing.assert_array_equal(found, expected)

    count = 2000
    keys = jax.random.split(jax.random.key(1), count)
    drawn = jax.jit(partial(crops.pad_crop, padding=padding, fill=9))(keys, np.repeat(x, count, 0))
    places = {crop.tobytes(): i for i, crop in enumerate(found)}
    counts = np.bincount([places[crop.tobytes()] for crop in np.asarray(drawn)], minlength=25)
    assert scipy.stats.chisquare(counts).pvalue > 0.01


@pytest.mark.parametrize('dtype', ['float32', 'uint8'])
def test_a_resized_crop_is_that_of_pil(dtype):
    x, drawn = images(dtype, channels=1), boxes(KEYS, (0.05, 1.0), (0.5, 2.0))
    sides = np.array([H, W, H, W])
    expected = []
    for row, (top, left, height, width) in zip(x, drawn * sides, strict=True):
        box = (left, top, min(left + width, W), min(top + height, H))
        picture = Image.fromarray(row[..., 0])
        expected.append(np.asarray(picture.resize((W, H), Image.Resampling.BILINEAR, box))[..., None])
    agree(jax.jit(crops.resized_crop)(x, drawn), expected, dtype)


def test_boxes_lie_inside_and_have_the_areas_and_ratios_asked_for():
    top, left, height, width = boxes(jax.random.split(jax.random.key(0), 1000), (0.1, 0.5), (0.5, 3)).T
    assert (top >= 0).all() and (left >= 0).all() and (top + height <= 1 + 1e-6).all() and (left + width <= 1 + 1e-6).all()
    assert 0.1 <= (height * width).min() < 0.11 and 0.48 < (height * width).max() <= 0.5 + 1e-6
    assert 0.5 - 1e-6 <= (width / height).min() < 0.51 and 2.9 < (width / height).max() <= 3 + 1e-6
    # None of these fits: the sides are cut to the image's.
    wide = boxes(KEYS, (0.9, 0.9), (2, 2))
    np.testing.assert_allclose(wide, np.stack([wide[:, 0], 0 * wide[:, 0], 0 * wide[:, 0] + 0.45**0.5, 0 * wide[:, 0] + 1], 1))


@pytest.mark.parity
def test_boxes_are_distributed_as_in_torchvision():
    torch, _, torchvision = references.libraries()
    torch.manual_seed(0)
    area, ratio, side = (0.08, 1.0), (0.75, 4 / 3), 10_000
    canvas = torch.empty(1).expand(1, side, side)
    get = torchvision.transforms.RandomResizedCrop.get_params
    theirs = np.array([get(canvas, area, ratio) for _ in range(2000)]) / side
    ours = boxes(jax.random.split(jax.random.key(0), 2000), area, ratio)
    for measure in (lambda b: b[:, 2] * b[:, 3], lambda b: b[:, 3] / b[:, 2], lambda b: b[:, 0], lambda b: b[:, 1]):
        assert scipy.stats.ks_2samp(measure(ours), measure(theirs)).pvalue > 0.01


@pytest.mark.parametrize('dtype', ['float32', 'uint8'])
def test_blur_is_that_of_scipy(dtype):
    """A radius over the height, too."""
    x, sigma = images(dtype), 4.5
    sigmas = sigma * np.asarray(pixels.uniform(KEYS, 1))[:, 0]
    expected = [
        scipy.ndimage.gaussian_filter(row.astype(float), s, mode='mirror', radius=14, axes=(0, 1))
        for row, s in zip(x, sigmas, strict=True)
    ]
    agree(jax.jit(blurring.blur, static_argnums=2)(KEYS, x, sigma), np.round(expected) if dtype == 'uint8' else expected, dtype)


def test_a_single_row_of_pixels_is_blurred_along_itself():
    x = images()[:, :1]
    expected = scipy.ndimage.gaussian_filter1d(x, 2.0, axis=2, mode='mirror', radius=6)
    agree(jax.jit(blurring.smooth, static_argnums=2)(x, np.full(B, 2.0, np.float32), 6), expected)


def test_gaussian_noise_is_normal_and_of_its_deviation():
    x = np.full((40, H, W, 1), 0.5, np.float32)
    noise = (np.asarray(noises.gaussian_noise(jax.random.split(jax.random.key(0), 40), x, std=0.2)) - 0.5).ravel()
    assert scipy.stats.kstest(noise / 0.2, 'norm').pvalue > 0.01
    whole = noises.gaussian_noise(KEYS, np.full((B, H, W, 1), 128, np.uint8), std=0.2)
    assert np.std(whole) == pytest.approx(0.2 * 255, rel=0.05)


def test_salt_and_pepper_are_black_and_white_pixels_either_as_often():
    for dtype, grey, white in (('uint8', 7, 255), ('float32', 0.5, 1)):
        found = np.asarray(noises.salt_and_pepper(KEYS, np.full((B, H, W, 3), grey, dtype), share=0.3))
        assert np.unique(found).tolist() == [0, grey, white]
        assert ((found == 0).mean(), (found == white).mean()) == pytest.approx((0.15, 0.15), abs=0.03)


@pytest.mark.parametrize('size', [4, 5, 40])
def test_cutout_is_a_square_with_its_centre_anywhere(size):
    count = 600
    x = np.full((count, H, W, 2), 7, np.uint8)
    keys = jax.random.split(jax.random.key(0), count)
    found = np.asarray(jax.jit(partial(erasing.cutout, size=size, fill=3))(keys, x))
    centres = np.floor(np.asarray(pixels.uniform(keys, 2)) * [H, W]).astype(int)
    expected = x.copy()
    for image, (row, column) in zip(expected, centres - size // 2, strict=True):
        image[max(row, 0) : row + size, max(column, 0) : column + size] = 3
    np.testing.assert_array_equal(found, expected)
    assert scipy.stats.chisquare(np.bincount(centres @ [W, 1], minlength=H * W)).pvalue > 0.01


def test_random_erasing_paints_a_box_in_a_share_of_the_images():
    count = 600
    keys = jax.random.split(jax.random.key(0), count)
    found = np.asarray(
        jax.jit(partial(erasing.random_erasing, share=0.4, fill=1))(keys, np.zeros((count, 100, 90, 1), np.uint8))
    )[..., 0]
    erased = found.any((1, 2))
    assert abs(erased.mean() - 0.4) < 0.06  # three deviations
    rows, columns = found[erased].any(2), found[erased].any(1)
    np.testing.assert_array_equal(found[erased], rows[:, :, None] & columns[:, None, :])
    areas = found[erased].mean((1, 2))
    assert 0.018 < areas.min() < 0.04 and 0.3 < areas.max() < 0.34
    ratios = (columns.sum(1) / 90) / (rows.sum(1) / 100)
    assert 0.25 < ratios.min() < 0.4 and 2.5 < ratios.max() < 3.6
    for places in (rows, columns):  # one stretch each
        assert (np.abs(np.diff(places.astype(int), axis=1, prepend=0, append=0)).sum(1) == 2).all()


def test_an_infinite_strength_is_refused():
    for augmentation, argument in ((blurring.blur, 'sigma'), (noises.gaussian_noise, 'std'), (crops.pad_crop, 'padding')):
        with pytest.raises(ConfigError, match=f'{argument} is inf, expected a .*number of 0 or more'):
            augmentation(KEYS, images(), **{argument: float('inf')})


def test_integers_are_rounded_half_to_even_and_clipped_and_floats_are_neither():
    values = jnp.array([-3.0, 0.5, 1.5, 2.4, 254.5, 300.0])
    for dtype in (jnp.uint8, jnp.int32):
        assert pixels.stored(values, dtype).tolist() == [0, 0, 2, 2, 254, 255]
    assert pixels.stored(values, jnp.float32).tolist() == values.tolist()
    assert (pixels.top(jnp.uint8), pixels.top(jnp.float32)) == (255, 1)
