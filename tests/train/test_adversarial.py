"""Two players: the step against algorithm 1 written out, its bits and engines, what is judged, and what is refused."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny
from PIL import Image
from sessions import cleared

from research import data, models, optim
from research.catalogue import ConfigError
from research.config import overrides, signatures
from research.data import order
from research.data.arrays import from_arrays
from research.layers.example import example_keys
from research.study import identity
from research.tasks import generation, standardization
from research.train import checkpoint, experiment, feed, judge, loop, parallel, phases, pictures
from research.train.chunks import train_chunk
from research.train.program import Session
from research.train.state import Background, Block, Chunk, Variables
from research.train.steps import players
from research.train.steps.adversarial import PLAYERS

BATCH, REFERENCE = 8, 6
NORMS = {'batch': 'batch', 'virtual': 'virtual_batch', 'ghost': {'name': 'ghost_batch', 'virtual_batch_size': 3}}
CUT = {**overrides.defaults()['data'], 'validation': 20.0}


def engines():
    devices = jax.devices()
    return {'jit': parallel.Jit(devices[:1]), 'mesh': parallel.Jit(devices[:2]), 'pmap': parallel.Pmap(devices[:2])}


def images(n, seed=0):
    """Bright squares of 4x4 somewhere on a dark 8x8."""
    rng = np.random.default_rng(seed)
    found = np.zeros((n, 8, 8), np.uint8)
    for image, (row, column) in zip(found, rng.integers(0, 5, (n, 2)), strict=True):
        image[row : row + 4, column : column + 4] = rng.integers(150, 256)
    return found, (np.arange(n) % 3).astype(np.int32)


SQUARES = from_arrays('squares', {'train': images(100), 'test': images(40, seed=1)})
DATASET = data.cut(SQUARES, CUT)


def config(norm='batch', **model):
    found = overrides.apply(
        overrides.defaults(),
        {'optimizer.name': 'adam', 'optimizer.b1': 0.5, 'optimizer.learning_rate': 1e-2, 'data.batch_size': BATCH},
    )
    found['model'] = {
        **{'name': 'dcgan', 'num_classes': 0, 'init_from': '', 'latents': 4, 'side': 8, 'widths': (4, 3), 'norm': norm},
        **model,
    }
    return found


def create(config, engine=None, dataset=DATASET):
    """The step of two players, of the task's defaults."""
    task = generation.create('non_saturating', 0.0, dataset.facts)
    return players.create(config, dataset, task, engine or engines()['jit'])


class Run:
    """A small training run without the loop."""

    def __init__(self, config, engine=None, micro_batches=1):
        self.config, self.engine = config, engine or engines()['jit']
        self.players = create(config, self.engine)
        self.module, jit = self.players.module, self.engine.jit
        self.chunk = jit(functools.partial(train_chunk, self.players, phases.Phase(BATCH, micro_batches, 0, ())))
        self.evaluate, self.final = jit(self.players.evaluate), jit(self.players.final)
        self.data = {'examples': {name: values[:] for name, values in DATASET.arrays.items()}, 'constants': {}}
        self.reference = {name: values[:REFERENCE] for name, values in DATASET.arrays.items()}
        numbers = {k: np.float32(v) for k, v in optim.hyperparameters(config).items()}
        self.start = jax.jit(self.players.init)(jax.random.key(0), numbers, {})

    def init(self):
        return jax.tree.map(jnp.copy, self.start)

    def rows(self, first, steps):
        train = DATASET.splits['train']
        return train[order.indices(0, first * BATCH, (first + steps) * BATCH, len(train))].reshape(steps, BATCH)

    def steps(self, *lengths):
        """(state on the host, {name: [steps]} of what the steps came to)."""
        state, found, done = self.engine.replicate(self.init()), [], 0
        rate = self.config['optimizer']['learning_rate']
        for length in lengths:
            starts, indices = np.zeros((20, 2), np.uint32), np.zeros((20, BATCH), np.int32)
            starts[:length, 1], indices[:length] = (done + np.arange(length)) * BATCH, self.rows(done, length)
            controls = {'learning_rate': np.full(20, rate, np.float32)}
            chunk = Chunk(self.data, self.reference, indices, starts, controls, np.int32(done), np.int32(length))
            state, sums = self.chunk(state, self.engine.replicate(chunk))
            found.append(jax.tree.map(lambda v, n=length: np.asarray(v)[:n], self.engine.host(sums)))
            done += length
        return self.engine.host(state), jax.tree.map(lambda *parts: np.concatenate(parts), *found)


@functools.cache
def shared(norm, engine='jit'):
    """The run of a norm layer, compiled once for all the tests here."""
    return Run(config(NORMS[norm]), engines()[engine])


def positions(first, count):
    return jnp.stack([jnp.zeros(count, jnp.uint32), jnp.arange(first, first + count, dtype=jnp.uint32)], -1)


def drawn(run, purpose, first, count):
    keys = example_keys(jax.random.key(0), purpose, positions(first, count))
    return jax.vmap(lambda key: jax.random.normal(key, (run.module.latents,)))(keys)


def by_the_book(run, steps):
    """Algorithm 1 of Goodfellow et al. 2014, k = 1, with the non-saturating loss, a mean over the batch and Adam."""
    module, state = run.module, run.init()
    params, rest = state.params, state.collections
    adam = optax.adam(run.config['optimizer']['learning_rate'], b1=0.5)
    moments = {player: adam.init(params[player]) for player in params}
    reference = drawn(run, 'reference', 0, REFERENCE)

    def generate(params, rest, z):
        variables = {'params': params, **rest}
        if 'reference' in rest:
            _, passed = module.apply(variables, reference, mutable=['reference'])
            variables |= passed
        made, new = module.apply(variables, z, train=True, mutable=['batch_stats'])
        return made, {**variables, **new}

    def discriminate(params, rest, x):
        return module.apply({**rest, 'params': params}, x, train=True, mutable=['batch_stats'], method='discriminate')

    @jax.jit
    def one(params, rest, moments, real, first, second):
        def caught(own):
            both = {**params, 'discriminator': own}
            made, _ = generate(both, rest, first)
            yes, new = discriminate(both, rest, real)
            no, new = discriminate(both, {**rest, **new}, made)
            probability = jax.nn.sigmoid
            return -jnp.mean(jnp.log(probability(yes)) + jnp.log(1 - probability(no))), new

        def fooled(own):
            both = {**params, 'generator': own}
            made, new = generate(both, rest, second)
            logits, _ = discriminate(both, rest, made)
            return -jnp.mean(jnp.log(jax.nn.sigmoid(logits))), {k: v for k, v in new.items() if k != 'params'}

        losses = {}
        for player, loss_of in (('discriminator', caught), ('generator', fooled)):
            (losses[player], new), gradient = jax.value_and_grad(loss_of, has_aux=True)(params[player])
            updates, own = adam.update(gradient, moments[player])
            moments = {**moments, player: own}
            params = {**params, player: optax.apply_updates(params[player], updates)}
            rest = {**rest, **new}
        return params, rest, moments, losses

    found = []
    for i in range(steps):
        real = DATASET.arrays['image'][run.rows(i, 1)[0]] / np.float32(127.5) - 1
        latents = [drawn(run, purpose, i * BATCH, BATCH) for purpose in ('discriminator', 'generator')]
        params, rest, moments, losses = one(params, rest, moments, real, *latents)
        found.append(losses)
    return params, rest, found


def close(found, expected, tolerance):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize('norm', [norm if norm == 'batch' else pytest.param(norm, marks=pytest.mark.long) for norm in NORMS])
def test_a_step_is_algorithm_1(norm):
    run = shared(norm)
    state, sums = run.steps(4)
    params, rest, losses = by_the_book(run, 4)
    np.testing.assert_allclose(sums['loss'] / BATCH, [loss['generator'] for loss in losses], rtol=1e-4)
    np.testing.assert_allclose(sums['discriminator_loss'] / BATCH, [loss['discriminator'] for loss in losses], rtol=1e-4)
    close(state.params, params, 2e-4)
    close(state.collections, rest, 2e-4)
    assert state.step == 4
    assert np.abs(state.params['generator']['up1']['kernel'] - run.init().params['generator']['up1']['kernel']).max() > 0.02


@pytest.mark.long
@pytest.mark.parametrize('engine', ['mesh', 'pmap'])
@pytest.mark.parametrize('norm', NORMS)
def test_engines_agree(norm, engine):
    (one, expected), (other, sums) = shared(norm).steps(12), shared(norm, engine).steps(12)
    for name in ('loss', 'discriminator_loss', 'gradient/norm'):
        np.testing.assert_allclose(sums[name], expected[name], rtol=1e-3)
    np.testing.assert_array_equal(sums['count'], BATCH)
    close(other.collections, one.collections, 1e-3)


@pytest.mark.long
def test_chunk_length_leaves_no_trace():
    run = shared('virtual')
    state, sums = run.steps(10)
    for lengths in ((3, 7), (1,) * 10):
        other, more = run.steps(*lengths)
        tiny.assert_same_bits(other, state)
        tiny.assert_same_bits(more, sums)


@pytest.mark.long
def test_micro_batches_add_up_to_the_batch():
    """Without batch statistics; the discriminator's are none of the generator's config."""
    changes = {'norm': 'none', 'discriminator_norm': 'none'}
    whole, _ = Run(config(**changes)).steps(5)
    parts = config(**changes)
    parts['gradient']['micro_batch'] = 2
    state, sums = Run(parts, micro_batches=4).steps(5)
    close(state.params, whole.params, 1e-4)
    np.testing.assert_array_equal(sums['count'], BATCH)


@pytest.mark.long
def test_squares_are_learnt():
    """The mean image of a few hundred steps is nearer to the data's than the first."""
    run = shared('batch')
    samples = jax.jit(run.players.samples)
    target = DATASET.arrays['image'][DATASET.splits['train']].mean(0)

    def distance(state):
        made = samples(Variables(state.params, {}, state.collections))['samples']
        return np.abs(np.asarray(made).mean(0) - target).mean()

    state, _ = run.steps(*(20,) * 10)
    assert distance(state) < 0.5 * distance(run.init())


class Judged:
    """An evaluation by a classifier that has learnt nothing, on 20 examples in 3 batches of 8."""

    def __init__(self, run):
        self.run, self.rows, self.valid = run, np.zeros((4, 8), np.int32), np.zeros((4, 8), np.float32)
        self.rows.reshape(-1)[:20], self.valid.reshape(-1)[:20] = DATASET.splits['validation'], 1
        variables = jax.jit(judge_module().init)(jax.random.key(5), jnp.zeros((2, 8, 8, 1)))
        self.seat = {'variables': variables, **standardization(DATASET.facts)}
        self.sums, self.features = self.from_batch(0)

    def from_batch(self, first):
        """What comes of the batches from one on."""
        rows, valid = (np.roll(x, -first, axis=0) for x in (self.rows, self.valid))
        block = Block(rows, rows, valid, np.int32(3 - first), np.int32(8 * first))
        engine, state = self.run.engine, self.run.init()
        given = Variables(state.params, {}, state.collections), {**self.run.data, 'constants': {'judge': self.seat}}, block
        return engine.host(self.run.evaluate(*engine.replicate(given)))


def judge_module():
    return models.create(num_classes=3, **generation.JUDGE)


@pytest.mark.long
def test_an_evaluation_sees_the_split_and_as_many_generated_images():
    run = shared('virtual')
    judged, state = Judged(run), run.init()
    there = judged.valid > 0
    real = DATASET.arrays['image'][DATASET.splits['validation']].astype(np.float32)
    latents = drawn(run, 'evaluation', 0, 20)
    variables = {'params': state.params, **state.collections}
    made = np.round((np.asarray(jax.jit(run.module.apply)(variables, latents)) + 1) * 127.5)
    classifier, standard = judge_module(), lambda x: (x - judged.seat['mean']) / judged.seat['std']
    for found, shown in ((judged.features['real'], real), (judged.features['generated'], made)):
        features, logits = jax.jit(generation.penultimate(classifier))(judged.seat['variables'], standard(shown))
        np.testing.assert_allclose(found[there], features, rtol=1e-3, atol=1e-4)
        head = judged.seat['variables']['params']['head']
        np.testing.assert_allclose(features @ head['kernel'] + head['bias'].reshape(1, -1), logits, atol=1e-5)
        if shown is real:
            right = np.argmax(logits, -1) == DATASET.arrays['label'][DATASET.splits['validation']]
            assert judged.sums['judge_correct'].sum() == right.sum()
    np.testing.assert_array_equal(judged.sums['count'], [8, 8, 4, 0])
    later = judged.from_batch(1)[1]['generated']  # another block of the same evaluation goes on with its latents
    np.testing.assert_allclose(later[:2], judged.features['generated'][1:3], rtol=1e-5, atol=1e-6)
    shown = jax.jit(run.players.samples)(Variables(state.params, {}, state.collections))['samples']
    assert shown.shape == (100, 8, 8, 1) and shown.dtype == jnp.uint8
    np.testing.assert_array_equal(shown[:20], made)


@pytest.mark.long
@pytest.mark.parametrize('engine', ['mesh', 'pmap'])
def test_evaluations_agree(engine):
    one, other = (Judged(shared('virtual', engine)) for engine in ('jit', engine))
    close(other.sums, one.sums, 1e-4)
    close(other.features, one.features, 1e-3)


def black(blocks):
    """Blocks of four black images, for statistics."""
    return {'image': np.zeros((blocks, 4, 8, 8, 1), np.uint8), 'label': np.zeros((blocks, 4), np.int32)}


@pytest.mark.long
def test_what_is_scored_has_the_statistics_of_its_own_weights():
    run = shared('virtual')
    state, _ = run.steps(5)
    params, collections = run.final(state, {}, Background(run.reference, black(0)))
    close(params, state.params, 0)
    variables = {'params': params, **state.collections}
    passed = jax.jit(functools.partial(run.module.apply, mutable=['reference']))
    _, expected = passed(variables, drawn(run, 'reference', 0, REFERENCE))
    close(collections['reference'], expected['reference'], 1e-5)
    stale = state.collections['reference']['generator']['norm2']['mean']
    assert np.abs(collections['reference']['generator']['norm2']['mean'] - stale).max() > 1e-3


@pytest.mark.long
def test_averaged_weights_get_statistics_of_latents():
    averaged = config()
    averaged['optimizer']['average'] = {'name': 'ema', 'decay': 0.5}
    run = Run(averaged)
    state, _ = run.steps(5)
    params, collections = run.final(state, {}, Background(run.reference, black(3)))
    for player in PLAYERS:
        own = {player: state.params[player]}
        close({player: params[player]}, optim.evaluation_params(own, state.opt_state[player]), 0)
    statistics = functools.partial(run.module.apply, train=True, mutable=['reference', 'batch_stats'])
    generated, recognized = jax.jit(statistics), jax.jit(functools.partial(statistics, method='discriminate'))
    make, means = jax.jit(run.module.apply), []
    for k in range(3):
        _, new = generated({'params': params, **state.collections}, drawn(run, 'statistics', 4 * k, 4))
        means.append(new['batch_stats']['generator']['norm1']['mean'])
    np.testing.assert_allclose(collections['batch_stats']['generator']['norm1']['mean'], np.mean(means, 0), atol=1e-6)
    seen = {'params': params, **state.collections, 'batch_stats': collections['batch_stats']}
    means = []
    for k in range(3):
        made = make(seen, drawn(run, 'statistics', 4 * k, 4))
        for shown in (made, -jnp.ones_like(made)):  # the blocks are black
            _, new = recognized(seen, shown)
            means.append(new['batch_stats']['discriminator']['norm2'])
    for name in ('mean', 'var'):
        found = collections['batch_stats']['discriminator']['norm2'][name]
        np.testing.assert_allclose(found, np.mean([each[name] for each in means], 0), rtol=1e-4, atol=1e-6)
        assert np.abs(found - state.collections['batch_stats']['discriminator']['norm2'][name]).max() > 1e-3


@pytest.mark.parametrize(
    ('changed', 'words'),
    [
        ({'side': 16}, 'makes uint8 images of .16, 16, 1.'),
        ({'channels': 3}, 'set model.side and model.channels'),
        ({'discriminator_norm': 'virtual_batch'}, 'no reference batch'),
        ({'num_classes': 3}, 'know no classes'),
        ({'name': 'dcgann'}, "Did you mean 'dcgan'"),
    ],
)
def test_networks_that_do_not_fit_are_refused(changed, words):
    with pytest.raises(ConfigError, match=words):
        create(config(**changed))


@pytest.mark.long
def test_players_may_learn_at_rates_of_their_own():
    changed = config()
    changed['optimizer'].update(rate_multipliers=(('discriminator/*', 0.0), ('*/up1/*', 0.0)), weight_decay=0.1)
    run = Run(changed)

    @jax.jit
    def updates():
        ones, state = jax.tree.map(jnp.ones_like, run.start.params), run.start
        found = {}
        for player in PLAYERS:
            update, given = (
                run.players.descents[player].update.update,
                ({player: tree[player]} for tree in (ones, state.params)),
            )
            gradient, params = given
            found |= update(gradient, optim.inject(state.opt_state[player], learning_rate=0.01), params)[0]
        return found

    moves = jax.tree.map(lambda u: float(np.abs(u).max()), updates())
    assert not any(jax.tree.leaves(moves['discriminator']))
    assert not any(jax.tree.leaves(moves['generator']['up1']))
    assert moves['generator']['project']['kernel'] > 1e-3


@pytest.mark.parametrize(
    ('field', 'value'),
    [
        ('rate_multipliers', (('discriminatr/*', 2.0),)),
        ('decay_multipliers', (('heads/*', 2.0),)),
        ('clip', {'name': 'adaptive', 'exclude': ('heads/*',)}),
    ],
)
def test_a_pattern_that_reaches_neither_player_is_refused(field, value):
    changed = config()
    changed['optimizer'][field] = value
    with pytest.raises(ConfigError, match='matches no parameter'):
        create(changed)


@pytest.mark.parametrize(('group', 'field'), [('augment', 'resize'), ('gradient', 'freeze')])
def test_techniques_for_one_network_are_refused(group, field):
    changed = config()
    changed[group][field] = {'name': 'progressive'}
    with pytest.raises(ConfigError, match=f'{group}.{field}'):
        create(changed)


def test_a_grid_shows_every_image_once(tmp_path):
    images = np.arange(7, dtype=np.uint8).reshape(7, 1, 1, 1) * np.ones((7, 2, 3, 1), np.uint8)
    table = generation.grid(images, columns=4)
    assert table.shape == (5, 15, 1)
    np.testing.assert_array_equal(table[::3, ::4, 0], [[0, 1, 2, 3], [4, 5, 6, 255]])
    assert (table[2] == 255).all() and (table[:, 3] == 255).all()
    pictures.write(tmp_path, 30, table)
    pictures.write(tmp_path, 60, table.repeat(3, -1))
    assert [path.name for path in sorted(tmp_path.iterdir())] == ['30.png', '60.png']
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / '30.png')), table[..., 0])
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / '60.png'))[..., 2], table[..., 0])


# Digits, 8x8.
PLAYED = {
    'task.name': 'generation',
    'task.loss': 'non_saturating',
    'model.name': 'dcgan',
    'model.side': 8,
    'model.widths': (4, 3),
    'data.batch_size': 32,
    'data.eval_batch_size': 100,
    'optimizer.name': 'adam',
    'optimizer.learning_rate': 1e-3,
    'train.devices': 1,
    'train.eval_every': '6st',
    'train.checkpoint_every': '4st',
    'study.budget': '12st',
    'study.metric': 'test/frechet',
    'study.higher_is_better': False,
}


def resolve(changes):
    return overrides.apply(overrides.defaults(), {**changes, 'study.budget': '1ep'})


def equipped(session, folder, changes=(), stop=lambda: False):
    resolved = overrides.apply(overrides.defaults(), {**PLAYED, **dict(changes)})
    built = experiment.build(resolved, session, identity.compile_key(resolved))
    return judge.equipped(built, resolve, session, folder / 'judges', lambda config, checksum: {'data': checksum}, stop)


@pytest.fixture(scope='module')
def played(tmp_path_factory):
    """(session, folder with the judge, outcome) of a whole run."""
    with pytest.MonkeyPatch.context() as patched, cleared() as session:
        narrow = {**generation.JUDGE, 'widths': (16,)}
        patched.setattr(generation, 'JUDGE', narrow)
        patched.setattr(judge, 'OVERRIDES', {**judge.OVERRIDES, 'model.widths': (16,)})
        folder = tmp_path_factory.mktemp('played')
        yield session, folder, tiny.train(equipped(session, folder), folder / 'whole')


@pytest.mark.long
def test_a_run_through_the_loop(played):
    _, folder, outcome = played
    assert (outcome.status, outcome.message, outcome.correct) == ('finished', None, None)
    names = {'loss', 'discriminator_loss', 'discriminator_accuracy', 'judge_accuracy', 'frechet', 'precision', 'recall'}
    assert {name for name in outcome.metrics if name.startswith('test/')} == {f'test/{name}' for name in names}
    assert {f'train/{name}' for name in ('loss', 'discriminator_loss', 'discriminator_accuracy')} <= outcome.metrics.keys()
    assert outcome.metrics['test/judge_accuracy'] > 0.5
    assert outcome.metrics['test/frechet'] > 0
    assert sorted(path.name for path in (folder / 'whole' / 'samples').iterdir()) == ['12.png', '6.png']
    with Image.open(folder / 'whole' / 'samples' / '6.png') as grid:
        assert grid.size == (89, 89)


@pytest.mark.long
def test_a_run_that_was_stopped_goes_on_to_the_same_bits(played, monkeypatch):
    session, folder, outcome = played
    monkeypatch.setattr(loop, '_CHUNK_SECONDS', 0.0)
    with pytest.raises(loop.Stopped):
        tiny.train(equipped(session, folder), folder / 'stopped', stop_at=7)
    assert tiny.train(equipped(session, folder), folder / 'stopped').metrics == outcome.metrics
    tiny.assert_same_bits(tiny.scored(folder / 'stopped'), tiny.scored(folder / 'whole'))
    assert tiny.rows(folder / 'stopped') == tiny.rows(folder / 'whole')
    for step in (6, 12):
        one, other = ((folder / run / 'samples' / f'{step}.png').read_bytes() for run in ('stopped', 'whole'))
        assert one == other


@pytest.mark.parametrize(
    'changes',
    [
        pytest.param({'train.devices': 4}, id='mesh'),
        pytest.param({'train.devices': 4, 'train.engine': 'pmap'}, id='pmap'),
        pytest.param({'data.streaming': True}, id='streamed'),
    ],
)
@pytest.mark.long
def test_a_run_is_the_same_however_it_is_trained(played, monkeypatch, changes):
    session, folder, outcome = played
    monkeypatch.setattr(feed, '_STREAM_BYTES', 64 * 200)  # the test split comes in two blocks
    other = tiny.train(equipped(session, folder, changes), folder / '_'.join(map(str, changes.values())))
    for name in ('test/loss', 'test/discriminator_loss', 'test/frechet'):
        assert other.metrics[name] == pytest.approx(outcome.metrics[name], rel=1e-3)


@pytest.mark.long
def test_techniques_together_are_the_same_on_every_engine_and_go_on(played, monkeypatch):
    session, folder, _ = played
    together = {
        'model.norm.name': 'virtual_batch',
        'gradient.micro_batch': 8,
        'gradient.noise_scale': True,
        'optimizer.average.name': 'ema',
        'optimizer.clip': {'name': 'global_norm', 'max_norm': 1.0},
        'task.label_smoothing': 0.1,
        'schedule.name': 'cosine',
    }
    one = tiny.train(equipped(session, folder, together), folder / 'together')
    assert {'clip/steps', 'noise/scale', 'gradient/norm'} <= one.observed.keys()
    four = {**together, 'train.devices': 4, 'train.engine': 'pmap'}
    other = tiny.train(equipped(session, folder, four), folder / 'together on four')
    for name in ('test/loss', 'test/discriminator_loss', 'test/frechet'):
        assert other.metrics[name] == pytest.approx(one.metrics[name], rel=1e-3)
    monkeypatch.setattr(loop, '_CHUNK_SECONDS', 0.0)
    with pytest.raises(loop.Stopped):
        tiny.train(equipped(session, folder, four), folder / 'stopped on four', stop_at=7)
    assert tiny.train(equipped(session, folder, four), folder / 'stopped on four').metrics == other.metrics


@pytest.mark.long
def test_a_run_that_diverges_says_whose_layer_it_was(played):
    session, folder, _ = played
    outcome = tiny.train(equipped(session, folder, {'optimizer.learning_rate': 1e38}), folder / 'diverged')
    assert outcome.status == 'diverged'
    assert outcome.diverged['layer'].partition("'")[2].startswith(('discriminator/', 'generator/'))


def broken(smoothing):
    """A discriminator whose loss is not a number, while its gradient is 0."""
    _, generator = generation.non_saturating(smoothing)
    return lambda real, generated: jax.lax.stop_gradient(jnp.nan * (real + generated)), generator


@pytest.mark.long
def test_a_loss_of_either_player_that_is_no_number_ends_the_run(played):
    session, folder, _ = played
    outcome = tiny.train(equipped(session, folder, {'task.loss': 'test_adversarial:broken'}), folder / 'broken')
    assert outcome.status == 'diverged'
    assert outcome.message.startswith('discriminator loss is nan at step 0')
    assert outcome.diverged['layer'] == 'the loss, of outputs that are finite'


@pytest.mark.long
def test_a_judge_is_trained_once_for_code_and_data(played, tmp_path, monkeypatch):
    session, folder, _ = played
    (kept,) = (folder / 'judges').iterdir()
    assert kept.name[0] != '.'
    monkeypatch.setattr(judge.loop, 'train', lambda *_: pytest.fail('trained again'))
    built = equipped(Session(), folder, {'train.seed': 3, 'model.norm.name': 'none', 'data.streaming': True})
    assert built.judge_name == kept.name
    tiny.assert_same_bits(built.data['constants']['judge']['variables'], checkpoint.load_variables(kept / 'scored'))
    with pytest.raises(pytest.fail.Exception, match='again'):
        judge.equipped(built, resolve, session, folder / 'judges', lambda config, checksum: {'code': '2'}, lambda: False)


@pytest.mark.long
def test_a_judge_that_was_stopped_goes_on(played, tmp_path, monkeypatch):
    session, folder, _ = played
    monkeypatch.setattr(loop, '_CHUNK_SECONDS', 0.0)
    with pytest.raises(loop.Stopped):
        equipped(session, tmp_path, stop=lambda: True)
    assert [path.name[0] for path in (tmp_path / 'judges').iterdir()] == ['.']
    again, whole = equipped(session, tmp_path), equipped(session, folder)
    tiny.assert_same_bits(again.data['constants'], whole.data['constants'])


def test_too_few_examples_to_judge_by_are_refused():
    few = data.cut(SQUARES, {**CUT, 'validation': 3.0})
    with pytest.raises(ConfigError, match='validation split has 3 examples, and generated ones are judged by at least 4'):
        create(config(), dataset=few)


def test_rematerialization_is_refused():
    remat = config()
    remat['train'] = {**remat['train'], 'remat': 'block'}
    with pytest.raises(ConfigError, match='train.remat'):
        create(remat)


@pytest.mark.parametrize(
    ('changes', 'words'),
    [
        ({'model.name': 'cnn'}, "Unknown generative model 'cnn'"),
        ({'model.hidden': (3,)}, "generative model 'dcgan' takes no such argument"),
        ({'model.discriminator_norm': 'bach'}, "Did you mean 'batch'"),
        ({'task.name': 'classification', 'task.loss': 'softmax'}, "Unknown model 'dcgan'"),
        ({'task.label_smoothing': 1.5}, 'expected a share'),
    ],
    ids=str,
)
def test_a_bad_config_is_refused_at_the_door(changes, words):
    with pytest.raises(ConfigError, match=words):
        signatures.check(overrides.apply(overrides.defaults(), {**PLAYED, **changes}))
