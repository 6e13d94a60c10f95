"""RandAugment, TrivialAugment and AugMix: what is drawn, in which amounts, and each operation against torchvision."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import references
import scipy.stats

from research.augment import mixing, policies

B, H, W = 12, 12, 10
KEYS = jax.random.split(jax.random.key(0), B)
MOVES = ('shear_x', 'shear_y', 'translate_x', 'translate_y', 'rotate')
FACTORS = ('brightness', 'saturation', 'contrast', 'sharpness')
OTHERS = ('posterize', 'solarize', 'autocontrast', 'equalize')
# Amounts at the largest magnitude, of images of 32 x 48: RandAugment's, TrivialAugment's, and AugMix's at severity 10.
LARGEST = {
    'randaugment': (0.3, 0.3, 150 / 331 * 48, 150 / 331 * 32, np.pi / 6, 0.9, 0.9, 0.9, 0.9, 4, 1, 1, 1),
    'trivialaugment': (0.99, 0.99, 32, 32, 0.75 * np.pi, 0.99, 0.99, 0.99, 0.99, 6, 1, 1, 1),
    'augmix': (0.3, 0.3, 16, 32 / 3, np.pi / 6, None, None, None, None, 8, 1, 1, 1),
}


def images(dtype='uint8', batch=B):
    whole = np.random.default_rng(0).integers(0, 256, (batch, H, W, 3), dtype=np.uint8)
    return whole if dtype == 'uint8' else (whole / 255).astype(dtype)


@functools.cache
def operation(name):
    return jax.jit(functools.partial(policies.operate, name))


def constant(value):
    return np.full(B, value, np.float32)


def shifted(image, across, down):
    """The image read that far to the right and below, black from outside."""
    found = np.zeros_like(image)
    rows, columns = np.arange(H) + down, np.arange(W) + across
    here = ((rows >= 0) & (rows < H))[:, None] & ((columns >= 0) & (columns < W))
    found[here] = image[rows.clip(0, H - 1)][:, columns.clip(0, W - 1)][here]
    return found


def test_moves_are_by_whole_pixels():
    for amount, pixels in ((3.9, -3), (-3.9, 3), (0.9, 0)):
        for name, across, down in (('translate_x', pixels, 0), ('translate_y', 0, pixels)):
            found = operation(name)(images(), constant(amount))
            np.testing.assert_array_equal(found, [shifted(x, across, down) for x in images()])


def test_shears_hold_the_upper_left_corner():
    """A slope of 2 moves the middle of row y, at y + 0.5, by whole pixels."""
    x = images()
    expected = np.stack([shifted(x[i], 2 * y + 1, 0)[y] for i in range(B) for y in range(H)]).reshape(x.shape)
    np.testing.assert_array_equal(operation('shear_x')(x, constant(2)), expected)
    expected = np.stack([shifted(x[i], 0, 2 * c + 1)[:, c] for i in range(B) for c in range(W)]).reshape(B, W, H, 3)
    np.testing.assert_array_equal(operation('shear_y')(x, constant(2)), expected.swapaxes(1, 2))


def test_a_quarter_turn_is_that_of_numpy():
    x = images()[:, :W]
    expected = np.stack([np.rot90(image) for image in x])
    np.testing.assert_array_equal(operation('rotate')(x, constant(np.pi / 2)), expected)


@pytest.mark.parametrize('name', [*MOVES, *FACTORS, *OTHERS])
def test_an_amount_of_0_changes_nothing(name):
    for dtype in ('uint8', 'float32'):
        np.testing.assert_array_equal(operation(name)(images(dtype), constant(0)), images(dtype))


@pytest.mark.parity
@pytest.mark.parametrize('policy', LARGEST)
@pytest.mark.parametrize('name', [*MOVES, *FACTORS, *OTHERS])
def test_operations_are_those_of_torchvision(name, policy):
    """At the largest amount of each sign, within a level; two where torchvision cuts off the grey image too."""
    torch, _, torchvision = references.libraries()
    from torchvision.transforms import autoaugment

    theirs = {'saturation': 'Color', 'autocontrast': 'AutoContrast', **{n: n.title().replace('_', '') for n in MOVES}}
    largest = LARGEST[policy][[*MOVES, *FACTORS, *OTHERS].index(name)]
    if largest is None:
        pytest.skip('not in this policy')
    x = np.random.default_rng(0).integers(0, 256, (4, 32, 48, 3), dtype=np.uint8)
    for amount in (largest, -largest) if name in (*MOVES, *FACTORS) else (largest,):
        magnitude = {'rotate': np.degrees(amount), 'posterize': 8 - amount, 'solarize': 255 * (1 - amount)}.get(name, amount)
        bilinear = torchvision.transforms.InterpolationMode.BILINEAR
        expected = autoaugment._apply_op(references.to_torch(x), theirs.get(name, name.title()), magnitude, bilinear, None)
        found = np.asarray(operation(name)(x, np.full(4, amount, np.float32)), int)
        expected = expected.numpy().transpose(0, 2, 3, 1)
        np.testing.assert_allclose(found, expected, atol=2 if name in ('saturation', 'contrast') else 1, err_msg=str(amount))


def recorded(monkeypatch, policy, count=7000, **kwargs):
    """(names, amounts) that were drawn for so many images of 32 x 48, one each: pixels in place of the image."""
    names = ('identity', *MOVES, *FACTORS, *OTHERS)

    def record(name, images, amounts):
        number = jnp.full_like(amounts, names.index(name))
        return jnp.zeros_like(images).at[:, 0, 0, 0].set(number).at[:, 0, 1, 0].set(amounts)

    monkeypatch.setattr(policies, 'operate', record)
    monkeypatch.setattr(mixing, 'beta', lambda uniforms, a, b: jnp.zeros_like(uniforms))  # AugMix keeps nothing of the image
    keys = jax.random.split(jax.random.key(1), count)
    found = jax.jit(lambda keys, x: policy(keys, x, **kwargs)[:, 0, :2, 0])(keys, np.zeros((count, 32, 48, 1), np.float32))
    numbers, amounts = np.asarray(found).T
    return np.array(names)[np.round(numbers).astype(int)], amounts


DRAWN = {
    'randaugment': (policies.randaugment, {'operations': 1, 'magnitude': 30}),
    'trivialaugment': (policies.trivialaugment, {}),
    'augmix': (policies.augmix, {'severity': 10, 'width': 1, 'depth': 1}),
}


@pytest.mark.parametrize('policy', DRAWN)
def test_operations_are_drawn_alike_and_in_amounts_of_their_ranges(monkeypatch, policy):
    names, amounts = recorded(monkeypatch, DRAWN[policy][0], **DRAWN[policy][1])
    space = dict(zip([*MOVES, *FACTORS, *OTHERS], LARGEST[policy], strict=True))
    space = {name: amount for name, amount in space.items() if amount is not None}
    space |= {} if policy == 'augmix' else {'identity': 0}
    assert set(names) == set(space)
    assert scipy.stats.chisquare([np.sum(names == name) for name in space]).pvalue > 0.01
    for name, largest in space.items():
        drawn = amounts[names == name]
        np.testing.assert_allclose(np.abs(drawn).max(), largest, rtol=0.02, err_msg=name)
        negative = (drawn < 0).mean()
        assert (0.4 < negative < 0.6) if name in (*MOVES, *FACTORS) else negative == 0, name
        if policy == 'trivialaugment' and name in (*MOVES, *FACTORS):
            np.testing.assert_allclose(np.unique(np.abs(drawn)), np.arange(31) / 30 * largest, rtol=1e-5, atol=1e-6)
        if policy == 'augmix' and name == 'posterize':
            np.testing.assert_allclose(drawn.min(), 4 + 4 * 0.01, atol=0.1)


def test_strengths_scale_amounts(monkeypatch):
    for policy, kwargs, share in (
        (policies.randaugment, {'operations': 1, 'magnitude': 9}, 0.3),
        (policies.trivialaugment, {'strength': 0.5}, 0.5),
        (policies.augmix, {'severity': 3, 'width': 1, 'depth': 1}, 0.3),
    ):
        names, amounts = recorded(monkeypatch, policy, 1000, **kwargs)
        largest = dict(zip([*MOVES, *FACTORS, *OTHERS], LARGEST[policy.__name__], strict=True))
        for name in ('shear_x', 'translate_y', 'rotate', 'solarize'):
            np.testing.assert_allclose(np.abs(amounts[names == name]).max(), share * largest[name], rtol=0.1)


def three(keys, x):
    return policies.randaugment(keys, x, operations=3, magnitude=15)


@functools.cache
def found_of_three():
    return np.asarray(jax.jit(three)(KEYS, images()), int)


def test_operations_follow_each_other():
    """Image by image, with the same draws, what `randaugment` does at once."""
    x, found = images(), found_of_three()
    drawn = np.asarray(jax.vmap(lambda key: jax.random.uniform(key, (6,)))(KEYS)).reshape(B, 2, 3)
    names = [*MOVES, *FACTORS, *OTHERS, 'identity']
    amounts = [0.15, 0.15, 75 / 331 * W, 75 / 331 * H, np.pi / 12, *[0.45] * 4, 2, 0.5, 1, 1, 0]
    for i, (picks, signs) in enumerate(drawn):
        expected = x[i : i + 1]
        for pick, sign in zip(picks, signs, strict=True):
            name, amount = names[int(14 * pick)], np.float32(amounts[int(14 * pick)])
            amount = -amount if sign < 0.5 and name in (*MOVES, *FACTORS) else amount
            expected = operation(name)(expected, amount[None])
        np.testing.assert_allclose(found[i], np.asarray(expected[0], int), atol=1)


def test_other_devices_compute_the_same(monkeypatch):
    """All operations for all images at once, and one selected."""
    expected = found_of_three()
    monkeypatch.setattr(jax.lax, 'platform_dependent', lambda *rows, cpu, default: default(*rows))
    np.testing.assert_allclose(np.asarray(jax.jit(lambda *rows: three(*rows))(KEYS, images()), int), expected, atol=1)


def test_augmix_blends_chains_of_1_to_depth_operations(monkeypatch):
    """Of operations that add 1 to an image of zeros: the blend of the lengths of chains, by closed forms for an alpha of 1."""
    monkeypatch.setattr(policies, 'operate', lambda name, images, amounts: images + (name != 'identity'))
    keys = jax.random.split(jax.random.key(1), 50)
    found = jax.jit(policies.augmix)(keys, np.zeros((50, 1, 1, 1), np.float32))[:, 0, 0, 0]
    drawn = np.asarray(jax.vmap(lambda key: jax.random.uniform(key, (33,)))(keys), np.float64)
    lengths = 1 + np.floor(3 * drawn[:, :3])
    first = 1 - np.sqrt(1 - drawn[:, -3])  # Beta(1, 2), then Beta(1, 1) of the rest
    second = (1 - first) * drawn[:, -2]
    chains = first * lengths[:, 0] + second * lengths[:, 1] + (1 - first - second) * lengths[:, 2]
    np.testing.assert_allclose(found, (1 - drawn[:, -1]) * chains, rtol=0, atol=2e-3)
    assert set(lengths.ravel()) == {1, 2, 3}


def test_weights_of_chains_are_alike():
    """Each of them is Beta(alpha, 2 alpha) of three."""
    weights = np.asarray(policies._dirichlet(jax.random.uniform(jax.random.key(0), (20_000, 2)), 0.5), np.float64)
    np.testing.assert_allclose(weights.sum(1), 1, rtol=1e-6)
    for weight in weights.T:
        assert scipy.stats.ks_1samp(weight, scipy.stats.beta(0.5, 1).cdf).pvalue > 0.01
