"""The default step against one written out by hand, and what averages, grows, freezes, decays or adds noise against NumPy."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny

from research import cost
from research.data import order
from research.layers.example import StepKeys
from research.optim.plateau import START
from research.train import flops
from research.train.clock import Clock
from research.train.feed import Feed

RATE, MOMENTUM = 0.0625, 0.9


def loss_of(params, images, labels):
    """(mean loss, (mean, variance of the convolution's output)) of the baseline's network in plain JAX."""
    x = jax.lax.conv_general_dilated(
        images, params['block1_conv1']['kernel'], (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
    )
    mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2))
    with jax.numpy_rank_promotion('allow'):
        x = (x - mean) / jnp.sqrt(variance + 1e-5) * params['block1_norm1']['scale'] + params['block1_norm1']['bias']
        pooled = nn.max_pool(jnp.maximum(x, 0), (2, 2), (2, 2))
        logits = pooled.reshape(len(x), -1) @ params['head']['kernel'] + params['head']['bias']
    of_right = logits[np.arange(len(labels)), labels]
    return (jax.nn.logsumexp(logits, -1) - of_right).mean(), (mean, variance)


value_and_grad = jax.jit(jax.value_and_grad(loss_of, has_aux=True))


def by_hand(built, *sizes):
    """Steps of these sizes by plain momentum: (params after each, running mean and variance, losses)."""
    split, arrays = built.dataset.splits['train'], built.dataset.arrays
    pixels = arrays['image'][split].astype(np.float64)
    params = jax.tree.map(np.asarray, built.init(Clock()).params)
    velocity, position, after, losses = jax.tree.map(np.zeros_like, params), 0, [], []
    running = [np.zeros(4, np.float32), np.ones(4, np.float32)]
    for size in sizes:
        rows = split[order.indices(built.seed, position, position + size, len(split))]
        images = ((arrays['image'][rows] - pixels.mean()) / pixels.std()).astype(np.float32)
        (loss, statistics), gradient = value_and_grad(params, images, arrays['label'][rows])
        velocity = jax.tree.map(lambda v, g: MOMENTUM * v + np.asarray(g), velocity, gradient)
        params = jax.tree.map(lambda p, v: p - np.float32(RATE) * v, params, velocity)
        running = [np.float32(0.9) * r + np.float32(0.1) * np.asarray(s) for r, s in zip(running, statistics, strict=True)]
        position += size
        after.append(params)
        losses.append(float(loss))
    return after, running, losses


def close(found, expected, tolerance=1e-6):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance, err_msg=jax.tree_util.keystr(path))


def final(built, state):
    """(params, collections) that are scored."""
    engine = built.program.engine
    arguments = engine.replicate(state), built.data['constants'], built.background
    return jax.tree.map(np.asarray, engine.host(built.program.final(Clock(), *arguments)))


def test_a_default_step_is_the_plain_step(session):
    built = tiny.build(session)
    state, losses = tiny.steps(built, 3)
    after, (mean, variance), expected = by_hand(built, 32, 32, 32)
    close(state.params, after[-1])
    np.testing.assert_allclose(losses, expected, rtol=1e-6)
    close(state.collections, {'batch_stats': {'block1_norm1': {'mean': mean, 'var': variance}}}, 1e-5)


def test_what_is_off_costs_nothing_and_keeps_nothing(session):
    """Products of the plain step, and a state of parameters, velocities, statistics and the numbers of the optimizer."""
    built = tiny.build(session)
    shapes = built.program.shapes
    images = jax.ShapeDtypeStruct((32, 8, 8, 1), np.float32)
    plain = cost.count(jax.grad(loss_of, has_aux=True), shapes.params, images, jax.ShapeDtypeStruct((32,), np.int32))
    assert flops.train(built.config, built.dataset, 32, built.total) == plain
    sizes = {name: sum(leaf.size > 1 for leaf in jax.tree.leaves(tree)) for name, tree in vars(shapes).items()}
    parameters = len(jax.tree.leaves(shapes.params))
    assert sizes == {'step': 0, 'rng': 0, 'params': parameters, 'collections': 2, 'opt_state': parameters, 'masks': 0}


def test_weight_decay_takes_a_share_of_the_kernels_alone(session):
    decay = 0.5
    plain, decayed = (tiny.build(session, {'optimizer.weight_decay': value}) for value in (0.0, decay))
    before = plain.init(Clock()).params
    found, expected = (tiny.steps(built, 1)[0].params for built in (decayed, plain))

    def less(path, after, start):
        return np.asarray(after) - (RATE * decay * np.asarray(start) if path[-1].key == 'kernel' else 0)

    close(found, jax.tree_util.tree_map_with_path(less, expected, before))


def test_the_rate_of_a_step_is_that_of_its_first_example(session):
    built = tiny.build(session, {'schedule.name': 'cosine'})
    done = 32 * np.arange(3) / built.total
    np.testing.assert_allclose(
        tiny.chunk(built, 3).controls['learning_rate'][:3], RATE * (1 + np.cos(np.pi * done)) / 2, rtol=1e-6
    )


def test_a_batch_that_grows_goes_on_with_the_larger_batch(session):
    built = tiny.build(session, {'data.batch': {'name': 'grow', 'milestones': ('2st',)}})
    clock, feed, state = Clock(), Feed(built), built.init(Clock())
    for first, position, steps, size in ((0, 0, 2, 32), (2, 64, 2, 64)):
        phase = built.phases.at(position, 0)
        assert phase.batch_size == size
        state, _ = built.program.chunk(phase)(clock, state, feed.chunk(first, position, steps, size, START))
    close(state.params, by_hand(built, 32, 32, 64, 64)[0][-1])


def test_a_batch_that_has_shrunk_is_one_of_that_size(session):
    shrinks = tiny.build(session, {'data.batch': {'name': 'shrink', 'floor': 8}, 'data.batch_size': 64})
    phase = shrinks.phases.at(0, 1)
    chunk = Feed(shrinks).chunk(0, 0, 3, phase.batch_size, {**START, 'size': 1})
    state, _ = shrinks.program.chunk(phase)(Clock(), shrinks.init(Clock()), chunk)
    assert phase.batch_size == 32
    close(state.params, by_hand(shrinks, 32, 32, 32)[0][-1])


@pytest.mark.parametrize('decay', [0.0, 0.5])
def test_the_moving_average_is_its_definition_and_statistics_fit_it(session, decay):
    """At decay 0 it is what is trained; else of the initial weights too, forgotten faster at first."""
    built = tiny.build(session, {'optimizer.average': {'name': 'ema', 'decay': decay}})
    state, _ = tiny.steps(built, 3)
    params, collections = final(built, state)
    average, trained = built.init(Clock()).params, by_hand(built, 32, 32, 32)[0]
    for n, newest in enumerate(trained):
        keep = min(decay, (1 + n) / (10 + n))
        average = jax.tree.map(lambda mean, p, keep=keep: keep * mean + (1 - keep) * p, average, newest)
    close(params, jax.tree.map(np.asarray, average))
    assert decay or not close(params, state.params, 0)

    def blocks(of):
        images, facts = built.background.statistics['image'], built.dataset.facts
        standardized = (np.asarray(images, np.float32) - facts['mean'][0]) / facts['std'][0]
        labels = np.zeros(64, np.int32)
        return np.mean([loss_of(of, block, labels)[1] for block in standardized], axis=0)

    found = collections['batch_stats']['block1_norm1']
    np.testing.assert_allclose([found['mean'], found['var']], blocks(params), rtol=1e-4, atol=1e-5)
    assert not decay or np.abs(blocks(params) - blocks(state.params)).max() > 5e-3


def test_averaged_from_the_first_step_on_they_are_the_mean_of_all(session):
    built = tiny.build(session, {'optimizer.average': {'name': 'swa', 'start': '0st', 'every': '1st'}})
    state, _ = tiny.steps(built, 3)
    every = [jax.tree.map(np.asarray, built.init(Clock()).params), *by_hand(built, 32, 32, 32)[0]]
    close(final(built, state)[0], jax.tree.map(lambda *values: np.mean(values, axis=0), *every))


def test_frozen_layers_do_not_move(session):
    """Neither by momentum, which they have gathered, nor by weight decay."""
    freezes = {'gradient.freeze': {'name': 'progressive', 'start': '2st', 'levels': 1}, 'optimizer.weight_decay': 0.1}
    built = tiny.build(session, freezes)
    (before, _), (after, _) = tiny.steps(built, 2), tiny.steps(built, 2, 3)
    assert built.phases.at(64, 0).frozen == ('block1_conv1',)
    for name, params in after.params.items():
        moves = jax.tree.map(lambda p, b: np.abs(np.asarray(p) - b).max(), params, before.params[name])
        moved = max(jax.tree.leaves(moves))
        assert moved == 0 if name == 'block1_conv1' else moved > 1e-3, name


def test_a_reference_batch_is_not_the_batch_that_is_trained_on(session):
    """Statistics that are scored are those of the reference batch, under the weights after the last update."""
    built = tiny.build(session, {'model.norm': {'name': 'virtual_batch', 'example_weight': 0.0}})
    state, _ = tiny.steps(built, 3)
    collections = final(built, state)[1]
    facts, arrays, reference = built.dataset.facts, built.dataset.arrays, built.background.reference['image']
    first = built.dataset.splits['train'][order.indices(built.seed, 0, 64, built.epoch)]

    def statistics(images):
        standardized = (np.asarray(images, np.float32) - facts['mean'][0]) / facts['std'][0]
        return loss_of(jax.tree.map(np.asarray, state.params), standardized, np.zeros(64, np.int32))[1][0]

    found = collections['reference']['block1_norm1']['mean']
    np.testing.assert_allclose(found, statistics(reference), rtol=1e-4, atol=1e-5)
    assert np.abs(found - statistics(arrays['image'][first])).max() > 1e-2


def noisy(scale=1.0):
    """A method of gradients that asks for normal draws beside them."""

    def method(base, loss_fn, engine, keys):
        del loss_fn, engine

        def gradient(params, collections, batch):
            found, aux = base(params, collections, batch)
            draws = {name: jax.tree.map(lambda p: scale * jax.random.normal(keys('noise'), p.shape), tree)
                     for name, tree in params.items()}  # fmt: skip
            return found, {**aux, 'noise': draws}

        return gradient

    return method


class Linear(nn.Module):
    """Logits at once."""

    num_classes: int

    @nn.compact
    def __call__(self, x, train=False):
        return nn.Dense(self.num_classes, name='head')(x.reshape(len(x), -1))


NOISE = {'gradient.name': 'test_plain:noisy', 'model.name': 'test_plain:Linear'}
ENGINES = {
    'accumulated': {'gradient.micro_batch': 8},
    'jit': {'train.devices': 2},
    'pmap_accumulated': {'train.devices': 2, 'train.engine': 'pmap', 'gradient.micro_batch': 8},
}


@pytest.fixture(scope='module')
def moved_by_noise(session):
    """What noise makes of the parameters in each of the first two steps, beside a step without."""
    plain, noise = tiny.build(session, NOISE, {'gradient.scale': 0.0}), tiny.build(session, NOISE)
    return noise, [jax.tree.map(np.subtract, *(tiny.steps(b, n)[0].params for b in (noise, plain))) for n in (1, 2)]


def test_noise_is_added_once_and_is_another_in_each_step(moved_by_noise):
    """A draw over the sum of 32 losses is a 32nd in their mean; the second step adds 1.9 of the first and its own."""
    noise, (one, two) = moved_by_noise
    draws = [jax.random.normal(StepKeys(jax.random.key(0), step)('noise'), (10,)) for step in range(2)]
    np.testing.assert_allclose(one['head']['bias'], -RATE * draws[0] / 32, atol=1e-6)
    assert np.abs(two['head']['bias'] + RATE * (1.9 * draws[0] + draws[1]) / 32).max() < 1e-3
    assert np.abs(draws[0] - draws[1]).max() > 0.1


@pytest.mark.parametrize('engine', ENGINES.values(), ids=ENGINES)
def test_noise_is_the_same_however_a_batch_is_shared(session, moved_by_noise, engine):
    expected, _ = tiny.steps(moved_by_noise[0], 2)
    close(tiny.steps(tiny.build(session, NOISE, engine), 2)[0].params, expected.params, 1e-5)


def normalized():
    """A gradient of length 1."""

    def method(base, loss_fn, engine, keys):
        def gradient(params, collections, batch):
            total, aux = base(params, collections, batch)
            length = optax.tree.norm(total) / keys.loss_scale
            return jax.tree.map(lambda g: g / length, total), aux

        return gradient

    return method


def test_a_method_that_is_not_linear_knows_the_scale_of_the_loss(session):
    built = tiny.build(session, NOISE, {'gradient.name': 'test_plain:normalized', 'train.precision': 'float16'})
    moved = jax.tree.map(np.subtract, tiny.steps(built, 1)[0].params, built.init(Clock()).params)
    np.testing.assert_allclose(optax.tree.norm(moved), RATE / 32, rtol=1e-3)  # of the sum over 32 examples


@pytest.mark.parametrize('precision', ['bfloat16', 'float16'])
def test_outputs_are_float32_at_any_precision(session, precision):
    program = tiny.build(session, {'model.name': 'test_plain:Linear', 'train.precision': precision}).program
    state = program.shapes
    assert jax.eval_shape(program.step.predict, state.params, state.collections, program.step.inputs(2)).dtype == jnp.float32
