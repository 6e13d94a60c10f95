"""Dropout: what it zeroes belongs to the example and its position, to nothing around it."""

import functools
import zlib

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.catalogue import ConfigError
from research.layers.dropout import Dropout

X = jnp.ones((64, 5, 5, 8))


class Two(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        return Dropout(0.3, name='a')(x, train), Dropout(0.3, name='b')(x, train)


def halves(positions):
    positions = np.asarray(positions, np.uint64)
    return np.stack([positions >> np.uint64(32), positions & np.uint64(2**32 - 1)], -1).astype(np.uint32)


def dropped(x=X, positions=None, rate=0.3, unit='element', seed=0):
    positions = np.arange(len(x)) if positions is None else positions
    example = {'position': halves(positions), 'rng': jax.random.key(seed)}
    return _apply(Dropout(rate, unit), example, x)


@functools.partial(jax.jit, static_argnums=0)
def _apply(layer, example, x):
    return layer.apply({'example': example}, x, True)


@pytest.mark.parametrize('unit', ['element', 'channel', 'example'])
def test_a_share_is_zeroed_and_the_rest_scaled(unit):
    y = np.asarray(dropped(np.ones((2000, 2, 2, 8), np.float32), unit=unit))
    assert set(np.unique(y)) == {0, np.float32(1 / 0.7)}
    assert (y == 0).mean() == pytest.approx(0.3, abs=0.03)
    assert y.mean() == pytest.approx(1, abs=0.05)
    if unit == 'channel':
        assert (y == y[:, :1, :1]).all() and not (y == y[..., :1]).all()
    if unit == 'example':
        assert (y == y[:, :1, :1, :1]).all()


def test_a_mask_belongs_to_the_position_whatever_the_batch():
    whole = np.asarray(dropped(positions=np.arange(64) + 2**33))
    order = np.random.default_rng(0).permutation(64)
    np.testing.assert_array_equal(dropped(positions=order.astype(np.uint64) + np.uint64(2**33)), whole[order])
    np.testing.assert_array_equal(dropped(X[:1], positions=[7 + 2**33]), whole[7:8])


def test_other_positions_and_seeds_draw_anew():
    masks = [np.asarray(dropped(X[:1], positions=[p], seed=s)) for p in (0, 1, 2**32, 2**32 + 1) for s in (0, 1)]
    assert len({m.tobytes() for m in masks}) == len(masks)


def test_a_draw_is_the_seeds_key_with_purpose_and_path_and_both_halves_folded_in():
    """By hand, for one example: what a run has drawn stays drawn when it is resumed by a later version."""
    example = {'position': halves([5 * 2**32 + 7]), 'rng': jax.random.key(3)}
    _, y = _apply(Two(), {'a': example, 'b': example}, X[:1])
    key = jax.random.key(3)
    for number in (zlib.crc32(b'dropout/b'), 5, 7):
        key = jax.random.fold_in(key, number)
    np.testing.assert_array_equal(y[0] > 0, jax.random.uniform(key, X.shape[1:]) < 0.7)


def test_a_row_is_what_it_is_whatever_its_neighbours_hold():
    x = jax.random.normal(jax.random.key(1), X.shape)
    np.testing.assert_array_equal(dropped(x.at[1:].set(jnp.nan))[0], dropped(x)[0])
    gradient = jax.jit(jax.grad(lambda x: dropped(x)[0].sum()))(x)
    np.testing.assert_array_equal(gradient[0], dropped()[0])
    assert not gradient[1:].any()


@pytest.mark.parametrize('unit', ['element', 'channel', 'example'])
@pytest.mark.long
def test_devices_and_micro_batches_draw_what_one_device_draws(unit):
    def rows(position, x):
        return Dropout(0.3, unit).apply({'example': {'position': position, 'rng': jax.random.key(0)}}, x, True)

    position, x = halves(np.arange(64) + 2**32 - 32), np.asarray(X)
    whole = jax.jit(rows)(position, x)
    split = position.reshape(2, 32, 2), x.reshape(2, 32, *x.shape[1:])
    mesh = jax.make_mesh((2,), ('data',), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[:2])
    sharded = jax.jit(rows)(*jax.device_put((position, x), jax.NamedSharding(mesh, jax.P('data'))))
    assert len(sharded.sharding.device_set) == 2
    np.testing.assert_array_equal(sharded, whole)
    np.testing.assert_array_equal(jax.pmap(rows)(*split).reshape(x.shape), whole)
    np.testing.assert_array_equal(jax.lax.map(lambda a: rows(*a), split).reshape(x.shape), whole)


def test_the_mask_is_the_same_in_any_precision():
    mask = np.asarray(dropped() > 0)
    half = dropped(X.astype(jnp.bfloat16))
    assert half.dtype == jnp.bfloat16
    np.testing.assert_array_equal(half > 0, mask)
    with jax.enable_x64(True):
        double = dropped(np.ones(X.shape))
        assert double.dtype == jnp.float64
        np.testing.assert_array_equal(double > 0, mask)


def test_layers_of_one_network_draw_apart():
    example = {'position': halves(range(64)), 'rng': jax.random.key(0)}
    one, other = _apply(Two(), {'a': example, 'b': example}, X)
    assert (one != other).mean() == pytest.approx(2 * 0.3 * 0.7, abs=0.05)


def test_off_is_the_identity_and_leaves_nothing():
    assert Dropout(0.0).apply({}, X, True) is X
    assert Dropout(0.3).apply({}, X, False) is X
    assert Dropout(0.0).init(jax.random.key(0), X, True) == {}


def test_init_declares_what_the_trainer_fills_in():
    variables = Dropout(0.3).init(jax.random.key(0), X, False)
    assert variables['example']['position'].shape == (64, 2)
    assert jax.dtypes.issubdtype(variables['example']['rng'].dtype, jax.dtypes.prng_key)


@pytest.mark.parametrize(('rate', 'unit'), [(1.0, 'element'), (-0.1, 'element'), (0.1, 'row')])
def test_nonsense_is_refused(rate, unit):
    with pytest.raises(ConfigError):
        Dropout(rate, unit).init(jax.random.key(0), X, False)


def test_training_without_positions_says_what_is_missing():
    with pytest.raises(ConfigError, match="'a' draws by each example's position.*`example`"):
        Two().apply({}, X, train=True)
