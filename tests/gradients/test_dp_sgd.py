"""Differential privacy: gradients against a loop over examples, noise as it is promised, epsilon against theory."""

import itertools
import sys

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize, stats
from techniques import BASELINE

from research import gradients
from research.catalogue import ConfigError
from research.config import overrides
from research.gradients import accounting
from research.layers.example import StepKeys
from research.train import parallel, privacy

ROWS, CLIP = 16, 4.0
KEYS = StepKeys(jax.random.key(5), jnp.int32(3))
PRIVATE = {'gradient.name': 'dp_sgd', 'data.sampling.name': 'without_replacement'}


def draw(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


PARAMS = {'w': draw(1, 5, 4), 'v': draw(2, 4)}


def batch(rows=ROWS):
    return {'x': draw(3, rows, 5), 'y': draw(4, rows), 'valid': np.ones(rows, np.float32)}


def loss_fn(params, collections, batch):
    """Sum of squared errors; some gradients are shorter than CLIP, most are longer."""
    losses = (jnp.tanh(batch['x'] @ params['w']) @ params['v'] - batch['y']) ** 2 * batch['valid']
    sums = {'loss': losses.sum(), 'count': batch['valid'].sum()}
    return sums['loss'], {'sums': sums, 'collections': collections, 'losses': losses}


def method(engine=None, keys=KEYS, micro_batches=1, **kwargs):
    config = {'name': 'dp_sgd', 'micro_batch': 0, 'noise_scale': False, 'freeze': {'name': 'none'}, **kwargs}
    return gradients.create(config, micro_batches)(loss_fn, engine or parallel.Jit(jax.devices()[:1]), keys)


def micro(batch, count):
    return jax.tree.map(lambda v: v.reshape(count, -1, *v.shape[1:]), batch)


def one_by_one(rows):
    """(the sum of the clipped gradients, how many were longer) by a loop over single examples."""
    total, over = jax.tree.map(np.zeros_like, PARAMS), 0
    for i in range(len(rows['y'])):
        own = jax.grad(lambda p, i=i: loss_fn(p, {}, {k: v[i : i + 1] for k, v in rows.items()})[0])(PARAMS)
        norm = float(np.sqrt(sum(np.sum(np.square(leaf, dtype=np.float64)) for leaf in own.values())))
        total = {k: total[k] + np.asarray(own[k]) * min(1, CLIP / norm) for k in total}
        over += norm > CLIP
    return total, over


def test_the_gradient_is_the_sum_of_those_of_single_examples_each_clipped():
    rows = batch()
    expected, over = one_by_one(rows)
    assert 2 < over < ROWS - 1  # both sides of the bound
    for count in (1, 4):
        found, aux = jax.jit(method(micro_batches=count, clip_norm=CLIP))(PARAMS, {}, micro(rows, count) if count > 1 else rows)
        chex.assert_trees_all_close(found, expected, rtol=1e-5, atol=1e-6)
        assert aux['observed']['clip/examples'] == pytest.approx(over / ROWS)
        assert aux['count'] == ROWS and aux['losses'].size == ROWS
        np.testing.assert_allclose(aux['sums']['loss'], loss_fn(PARAMS, {}, rows)[0], rtol=1e-5)


def test_padding_adds_nothing_and_is_not_counted():
    rows = batch()
    padded = {k: np.concatenate([v, v[:4]]) for k, v in rows.items()}
    padded['valid'][ROWS:] = 0
    (found, aux), (expected, whole) = (jax.jit(method(clip_norm=CLIP))(PARAMS, {}, each) for each in (padded, rows))
    chex.assert_trees_all_close(found, expected, rtol=1e-5)
    assert aux['count'] == ROWS and aux['observed'] == whole['observed']


@pytest.mark.parametrize('factor', [-3.0, 1e4, np.inf, np.nan])
def test_another_example_moves_the_sum_by_two_clip_norms_at_most(factor):
    """Also one whose gradient is not finite, which would else be told by what becomes of the run."""
    gradient = jax.jit(method(clip_norm=CLIP))
    rows = batch()
    rows['y'][0] = 30.0
    others = {**rows, 'y': np.concatenate([[factor * 30], rows['y'][1:]]).astype(np.float32)}
    (one, _), (other, _) = gradient(PARAMS, {}, rows), gradient(PARAMS, {}, others)
    moved = np.sqrt(sum(np.sum(np.square(one[k] - other[k])) for k in one))
    assert moved <= 2 * CLIP * (1 + 1e-5)
    if factor == -3:  # the same example with the opposite error: as far as it goes, which is why the library gets z / 2
        assert moved == pytest.approx(2 * CLIP, rel=1e-4)


def test_the_noise_is_normal_with_the_deviation_that_was_asked_for_and_is_new_in_each_step():
    wide = {'w': np.zeros((5, 4000), np.float32), 'v': np.zeros(4000, np.float32)}

    @jax.jit
    def noise(step, seed):
        keys = StepKeys(jax.random.key(seed), step)
        tree = method(keys=keys, clip_norm=CLIP, noise_multiplier=1.5)(wide, {}, batch(1))[1]['noise']
        return jnp.concatenate([tree['w'].ravel(), tree['v']])

    drawn = [noise(3, 5), noise(4, 5), noise(3, 6)]
    for values in drawn:
        assert stats.kstest(values / (1.5 * CLIP), 'norm').pvalue > 1e-3
    for one, other in itertools.combinations(drawn, 2):
        assert abs(np.corrcoef(one, other)[0, 1]) < 0.03
    assert abs(np.corrcoef(drawn[0][:4000], drawn[0][-4000:])[0, 1]) < 0.06  # leaves have draws of their own
    assert 'noise' not in method(clip_norm=CLIP, noise_multiplier=0.0)(PARAMS, {}, batch(1))[1]


@pytest.mark.parametrize('name', ['jit', 'pmap'])
@pytest.mark.parametrize('count', [1, 2])
def test_four_devices_clip_and_draw_as_one_does(name, count):
    """The noise is drawn once for all of them: each device has the same, and the step adds it after the sum."""
    expected, alone = jax.jit(method(clip_norm=CLIP))(PARAMS, {}, batch())
    engine = parallel.create(name, 4)
    gradient = method(engine, micro_batches=count, clip_norm=CLIP)

    def step(rows):
        rows = {k: engine.rows(v, axis=count > 1) for k, v in rows.items()}
        found, aux = gradient(PARAMS, {}, rows)
        return engine.total(found), aux['noise'], engine.total(aux['count']), aux['observed']

    rows = micro(batch(), count) if count > 1 else batch()
    found, noise, total, observed = engine.read(engine.jit(step)(engine.replicate(rows)))
    chex.assert_trees_all_close(found, expected, rtol=1e-5, atol=1e-6)
    chex.assert_trees_all_close(noise, alone['noise'], rtol=1e-6)
    chex.assert_trees_all_close(observed, alone['observed'])
    assert total == ROWS


@pytest.mark.parametrize(('kwargs', 'told'), [({'clip_norm': 0.0}, 'above 0'), ({'clip_norm': np.inf}, 'no noise is large')])
def test_a_bound_that_bounds_nothing_is_refused(kwargs, told):
    with pytest.raises(ConfigError, match=told):
        method(**kwargs)


def exact(noise, delta):
    """The epsilon of one release of a sum that neighbours move by 2, with normal noise (Balle and Wang 2018, theorem 8)."""

    def gap(epsilon):
        mu = 2 / noise
        return stats.norm.cdf(mu / 2 - epsilon / mu) - np.exp(epsilon) * stats.norm.cdf(-mu / 2 - epsilon / mu) - delta

    return optimize.brentq(gap, 0, 100)


@pytest.mark.parametrize(('noise', 'steps'), [(2.0, 1), (8.0, 1), (40.0, 25)])
def test_without_sampling_epsilon_is_a_little_above_the_exact_one(noise, steps):
    """It would lie below if the bound took neighbours to move the sum by one clip norm; T steps are one with less noise."""
    found, expected = accounting.epsilon(100, 100, steps, noise, 1e-5), exact(noise / steps**0.5, 1e-5)
    assert expected < found < 1.3 * expected


def test_epsilon_is_the_librarys():
    import dp_accounting as dp

    accountant = dp.rdp.RdpAccountant(neighboring_relation=dp.NeighboringRelation.REPLACE_ONE)
    event = dp.SampledWithoutReplacementDpEvent(1294, 64, dp.GaussianDpEvent(1.25))
    expected = accountant.compose(dp.SelfComposedDpEvent(event, 300)).get_epsilon(1e-5)
    assert accounting.epsilon(1294, 64, 300, 2.5, 1e-5) == pytest.approx(expected, rel=1e-12)
    assert accounting.epsilon(1294, 64, 300, 2.5, 1e-5) < accounting.epsilon(1294, 1294, 300, 2.5, 1e-5) / 3


@pytest.mark.parametrize('target', [8.0, 1.0])
def test_the_noise_for_an_epsilon_is_enough_and_hardly_more(target):
    noise = accounting.noise_multiplier_for(target, 50, 50, 20, 1e-4)
    assert 0.99 * target < accounting.epsilon(50, 50, 20, noise, 1e-4) <= target


def test_an_epsilon_that_no_noise_gives_is_refused():
    with pytest.raises(ConfigError, match='No noise multiplier'):
        accounting.noise_multiplier_for(1e12, 50, 50, 20, 1e-4)


def resolved(**changes):
    config = overrides.apply(overrides.apply(overrides.defaults(), BASELINE), PRIVATE)
    return overrides.apply(config, {key.replace('__', '.'): value for key, value in changes.items()})


def test_an_epsilon_becomes_noise_and_the_length_of_a_run_tells_programs_apart():
    config, key = privacy.settled(resolved(gradient__epsilon=3.0), 'key', 50, 50, 20)
    noise = accounting.noise_multiplier_for(3.0, 50, 50, 20, 1 / 500)
    assert config['gradient']['noise_multiplier'] == noise and config['gradient']['delta'] == 1 / 500
    _, longer = privacy.settled(resolved(gradient__epsilon=3.0), 'key', 50, 50, 21)
    assert len({'key', key, longer}) == 3
    assert privacy.settled(config, 'key', 50, 50, 20) == (config, key)
    spent = privacy.spent(config, 50, 50, 20)
    assert spent == {'epsilon': accounting.epsilon(50, 50, 20, noise, 1 / 500), 'delta': 1 / 500, 'noise_multiplier': noise}
    assert privacy.spent(config, 50, 50, 10)['epsilon'] < 2.7
    plain = resolved(gradient__name='plain')
    assert privacy.settled(plain, 'key', 50, 50, 20) == (plain, 'key') and not privacy.spent(plain, 50, 50, 20)
    with pytest.raises(ConfigError, match='leave one of them out'):
        privacy.settled(resolved(gradient__epsilon=3.0, gradient__noise_multiplier=1.0), 'key', 50, 50, 20)


@pytest.mark.parametrize(
    ('changes', 'told'),
    [
        ({'data__sampling__name': 'shuffled'}, 'shuffled epoch'),
        ({'data__batch__name': 'grow'}, 'one size'),
        ({'data__repeats': 2}, 'several rows'),
        ({'data__clean': ('duplicates',)}, 'hangs on all of them'),
        ({'data__filters': ('quality',)}, 'hangs on all of them'),
        ({'data__imbalance__name': 'step'}, 'hangs on all of them'),
        ({'data__pack': True}, 'several texts'),
        ({'data__targets__name': 'translated'}, 'a teacher that was trained on it'),
        ({'data__pair': 'next'}, 'several rows'),
        ({'augment__names': ('mixup',)}, 'two at once'),
        ({'task__name': 'generation'}, 'one network'),
        ({'gradient__noise_scale': True}, 'noise_scale measures'),
        ({'train__precision': 'float16'}, 'loss scaling skips'),
    ],
)
def test_what_epsilon_would_not_be_true_beside_is_refused(changes, told):
    privacy.check(resolved(), [])
    privacy.check(resolved(gradient__name='plain', **changes), ['batch_stats'])
    with pytest.raises(ConfigError, match=told) as raised:
        privacy.check(resolved(**changes), [])
    assert next(iter(changes)).replace('__', '.') == raised.value.key


def test_batch_statistics_are_refused_with_norms_to_take_in_their_place():
    with pytest.raises(ConfigError, match=r"batch_stats.*'layer' or 'group'"):
        privacy.check(resolved(), {'batch_stats': {}})


def test_without_the_library_a_run_does_not_begin(monkeypatch):
    monkeypatch.setitem(sys.modules, 'dp_accounting', None)
    with pytest.raises(ConfigError, match=r'frugal-jax\[privacy\]'):
        privacy.settled(resolved(), 'key', 50, 50, 20)
    privacy.settled(resolved(gradient__noise_multiplier=0.0), 'key', 50, 50, 20)
