"""Mixup and CutMix: labels are mixed as pixels are, in pairs, and shares follow the Beta distribution."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from research.augment import mixing
from research.catalogue import ConfigError

B, H, W, K = 32, 8, 6, 4
KEYS = jax.random.split(jax.random.key(0), B)
FUNCTIONS = {'mixup': mixing.mixup, 'cutmix': mixing.cutmix}
each = pytest.mark.parametrize('name', FUNCTIONS)


def batch(dtype='float32'):
    """Channel k of an image is 1 (255) all over if k is its label, so that the mean of a mixed image is its target."""
    label = np.random.default_rng(0).integers(0, K, B).astype(np.int32)
    label[1::2] = (label[::2] + 1 + label[1::2] % (K - 1)) % K  # the two of a pair differ
    image = np.broadcast_to(np.eye(K)[label][:, None, None], (B, H, W, K))
    image = (255 * image).astype(np.uint8) if dtype == 'uint8' else image.astype(dtype)
    return {'image': image, 'label': label, 'valid': np.ones(B, np.float32)}


@functools.cache
def compiled(name):
    return jax.jit(functools.partial(FUNCTIONS[name], num_classes=K))


def mixed(name, given, keys=KEYS):
    return {field: np.asarray(array) for field, array in compiled(name)(keys, given).items()}


def own_shares(found):
    """What each row has kept of its own label."""
    return np.take_along_axis(found['target'], found['label'][:, None], 1)[:, 0]


@each
@pytest.mark.parametrize(('dtype', 'top', 'atol'), [('float32', 1, 2e-6), ('uint8', 255, 0.5 / 255 + 1e-6)])
def test_targets_are_mixed_as_pixels(name, dtype, top, atol):
    found = mixed(name, batch(dtype))
    np.testing.assert_allclose(found['image'].mean((1, 2), dtype=np.float64) / top, found['target'], rtol=0, atol=atol)
    np.testing.assert_allclose(found['target'].sum(1), 1, rtol=1e-6)
    assert (found['target'].dtype, found['image'].dtype) == (np.float32, dtype)
    np.testing.assert_array_equal(found['label'], batch()['label'])


@each
def test_rows_of_a_pair_are_mirror_images(name):
    found, given = mixed(name, batch()), batch()
    shares = own_shares(found)
    np.testing.assert_allclose(shares[::2], shares[1::2], rtol=0, atol=1e-6)
    assert len(np.unique(shares.round(5))) > B // 4  # each pair has a draw of its own
    for field in ('image', 'target'):
        sum_of = given['image'] if field == 'image' else np.eye(K)[given['label']]
        before, after = (x.reshape(-1, 2, *x.shape[1:]).sum(1) for x in (sum_of, found[field]))
        np.testing.assert_allclose(after, before, rtol=0, atol=1e-6)


@each
def test_a_pair_depends_on_its_first_key_and_its_rows_alone(name):
    expected = mixed(name, batch())
    strangers = jax.random.split(jax.random.key(1), B)
    keys = jnp.where(np.arange(B) % 2 == 0, KEYS, strangers)
    order = np.arange(B).reshape(-1, 2)[::-1].reshape(-1)
    found = mixed(name, {field: array[order] for field, array in batch().items()}, keys[order])
    for field, array in expected.items():
        np.testing.assert_array_equal(found[field], array[order], err_msg=field)


@each
def test_a_pair_with_padding_is_left_as_it_is(name):
    given = batch()
    given['valid'][[3, 8, 20, 21]] = 0
    found, whole = mixed(name, given), mixed(name, batch())
    apart = np.isin(np.arange(B) // 2, [1, 4, 10])
    np.testing.assert_array_equal(found['image'][apart], given['image'][apart])
    np.testing.assert_array_equal(found['target'][apart], np.eye(K)[given['label'][apart]])
    np.testing.assert_array_equal(found['image'][~apart], whole['image'][~apart])
    assert (whole['image'] != given['image'])[apart].any()


@pytest.mark.long
@each
def test_four_devices_mix_as_one(name):
    """By jit over a mesh also if a pair lies on two devices, as of 28 rows; by pmap if it does not."""
    mesh = jax.make_mesh((4,), ('devices',), axis_types=(jax.sharding.AxisType.Auto,))  # as in research.train.parallel
    rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec('devices'))
    given, expected = (KEYS, batch()), mixed(name, batch())
    function = functools.partial(FUNCTIONS[name], num_classes=K)
    shared = jax.jit(function)(*jax.device_put(jax.tree.map(lambda a: a[:28], given), rows))
    split = jax.pmap(function)(*jax.tree.map(lambda a: a.reshape(4, B // 4, *a.shape[1:]), given))
    for field, array in expected.items():
        np.testing.assert_allclose(shared[field], array[:28], rtol=0, atol=1e-6)
        np.testing.assert_allclose(split[field].reshape(array.shape), array, rtol=0, atol=1e-6)


@each
def test_targets_that_are_there_are_mixed(name):
    """So that the two may follow each other."""
    given = batch()
    softer = 0.25 + 0.5 * np.eye(K, dtype=np.float32)[given['label']]
    found = compiled(name)(KEYS, {**given, 'target': softer})
    np.testing.assert_allclose(found['target'], 0.25 + 0.5 * mixed(name, given)['target'], rtol=0, atol=1e-6)


@each
def test_alpha_0_is_off(name):
    given = batch()
    assert FUNCTIONS[name](KEYS, given, K, alpha=0) == given


@each
def test_classes_are_those_of_the_data_unless_set(name):
    def shape(**kwargs):
        return jax.eval_shape(lambda keys, given: FUNCTIONS[name](keys, given, **kwargs), KEYS, batch())['target'].shape

    assert shape(facts={'classes': 5}) == (B, 5)
    assert shape(facts={'classes': 5}, num_classes=7) == (B, 7)


@each
@pytest.mark.parametrize(
    ('change', 'kwargs', 'message'),
    [
        ({}, {'alpha': -1}, r'augment\.{}\.alpha is -1, expected'),
        ({}, {'num_classes': 0}, r'set augment\.{}\.num_classes'),
        ({'image': None}, {}, "'{}' mixes images and their labels, but the batch has the fields label, valid"),
        ({'label': None}, {}, "expected 'image' and 'label'"),
        ({'image': np.zeros((3, H, W, 1)), 'label': np.zeros(3, int)}, {}, "'{}' mixes pairs of rows, but got 3 rows"),
    ],
)
def test_what_cannot_be_mixed_is_refused(name, change, kwargs, message):
    given = {field: array for field, array in {**batch(), **change}.items() if array is not None}
    with pytest.raises(ConfigError, match=message.format(name)):
        FUNCTIONS[name](KEYS, given, **{'num_classes': K} | kwargs)


def kolmogorov(draws, a, b):
    """The largest distance of distribution functions, over the root of its size: above 1.63 in 1 % of cases.

    Nearer than 1e-6 to 0 or 1, where much of Beta(0.01, 0.01) is, float32 does not tell shares apart.
    """
    places = np.concatenate([np.geomspace(1e-6, 0.5, 2000), 1 - np.geomspace(1e-6, 0.5, 2000)])
    counted = np.searchsorted(np.sort(draws.astype(np.float64)), places, side='right') / len(draws)
    return np.abs(counted - scipy.stats.beta(a, b).cdf(places)).max() * len(draws) ** 0.5


@pytest.mark.parametrize(('a', 'b'), [(0.2, 0.2), (1, 1), (0.01, 0.01), (5, 2)])
def test_shares_are_drawn_from_the_beta_distribution(a, b):
    draws = np.asarray(mixing.beta(jax.random.uniform(jax.random.key(0), (100_000,)), a, b))
    assert kolmogorov(draws, a, b) < 1.63
    assert ((draws >= 0) & (draws <= 1)).all()


@pytest.mark.parametrize('alpha', [0.2, 1.0])
def test_mixup_keeps_shares_from_its_beta(alpha):
    keys = jax.random.split(jax.random.key(2), 4000)
    given = {'image': np.zeros((4000, 1, 1, 1)), 'label': np.arange(4000) % 2, 'valid': np.ones(4000)}
    found = jax.jit(lambda keys, given: mixing.mixup(keys, given, 2, alpha))(keys, given)
    assert kolmogorov(own_shares({field: np.asarray(array) for field, array in found.items()})[::2], alpha, alpha) < 1.63


def test_boxes_are_those_of_the_paper():
    """NumPy with the same draws: sides of the image's proportions, a centre anywhere, cut off at the edge."""
    found, given = mixed('cutmix', batch()), batch()
    drawn = np.asarray(jax.vmap(lambda key: jax.random.uniform(key, (3,)))(KEYS[::2]), np.float64)
    cut = 0
    for pair, (area, y, x) in enumerate(drawn):  # Beta(1, 1) is uniform
        height, width = int(H * area**0.5), int(W * area**0.5)
        top, left = int(H * y) - height // 2, int(W * x) - width // 2
        box = np.zeros((H, W, 1), bool)
        box[max(top, 0) : top + height, max(left, 0) : left + width] = True
        cut += box.sum() < height * width
        ours, theirs = given['image'][2 * pair], given['image'][2 * pair + 1]
        np.testing.assert_array_equal(found['image'][2 * pair], np.where(box, theirs, ours))
        np.testing.assert_allclose(own_shares(found)[2 * pair], 1 - box.mean(), rtol=0, atol=1e-6)
    assert 0 < cut < len(drawn)
