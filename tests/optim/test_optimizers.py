"""The optimizer chain: parity with optax and torch, what decays, what is traced, errors."""

import copy
import functools
import inspect
import math

import chex
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
import pytest

from research import catalogue, optim
from research.catalogue import ConfigError
from research.optim import multipliers, optimizers

STEPS = 20


def config(name='sgd', learning_rate=0.1, weight_decay=0.0, clip='none', max_norm=1.0, schedule='constant', **kwargs):
    return ml_collections.ConfigDict(
        {
            'data': {'batch_size': 8},
            'optimizer': {
                'name': name,
                'learning_rate': learning_rate,
                'weight_decay': weight_decay,
                'clip': {'name': clip, 'max_norm': max_norm},
                'layer_decay': 1.0,
                'rate_multipliers': (),
                'decay_multipliers': (),
                'average': {'name': 'none'},
                **kwargs,
            },
            'train': {'precision': 'float32'},
            'schedule': {'name': schedule, 'warmup': '0st'},
        }
    )


@functools.cache
def _arrays():
    keys = jax.random.split(jax.random.key(0), 4)
    return [np.asarray(jax.random.normal(k, shape)) for k, shape in zip(keys, ((5, 7), (7, 3), (8, 5), (8, 3)), strict=True)]


def problem():
    """A small regression whose gradients differ in every leaf: (params, loss)."""
    hidden, head, x, y = map(jnp.asarray, _arrays())
    params = {
        'hidden': {'kernel': hidden, 'bias': jnp.full((7,), 0.1, jnp.float32)},
        'norm': {'scale': jnp.ones((7,)), 'bias': jnp.full((7,), 0.2, jnp.float32)},
        'head': {'kernel': head, 'bias': jnp.full((3,), 0.3, jnp.float32)},
    }

    def loss(params):
        h = x @ params['hidden']['kernel'] + params['hidden']['bias'][None]
        h = jnp.tanh(h * params['norm']['scale'][None] + params['norm']['bias'][None])
        return jnp.mean((h @ params['head']['kernel'] + params['head']['bias'][None] - y) ** 2)

    return params, loss


def run(tx, steps=STEPS):
    params, loss = problem()

    @jax.jit
    def train(params):
        def step(_, carry):
            params, state = carry
            updates, state = tx.update(jax.grad(loss)(params), state, params)
            return optax.apply_updates(params, updates), state

        return jax.lax.fori_loop(0, steps, step, (params, tx.init(params)))[0]

    return train(params)


def once(tx, gradient, params):
    """Updates and state after the first step: one program, where every operation by itself would be one."""
    return jax.jit(lambda gradient, params: tx.update(gradient, tx.init(params), params))(gradient, params)


def only_kernels(params):
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == 'kernel', params)


@pytest.mark.parametrize('ours, reference', [
    pytest.param(config('sgd'), optax.sgd(0.1), marks=pytest.mark.long),
    pytest.param(config('momentum'), optax.sgd(0.1, momentum=0.9), marks=pytest.mark.long),
    (config('momentum', momentum=0.5, nesterov=True), optax.sgd(0.1, momentum=0.5, nesterov=True)),
    (config('adam', b2=0.99), optax.adam(0.1, b2=0.99)),
    (config('adam', weight_decay=0.3), optax.adamw(0.1, weight_decay=0.3, mask=only_kernels)),
    (config('adamw', weight_decay=0.3), optax.adamw(0.1, weight_decay=0.3, mask=only_kernels)),
    pytest.param(config('adamw'), optax.adam(0.1), marks=pytest.mark.long),
    pytest.param(config('lion', 0.01, 0.3), optax.lion(0.01, weight_decay=0.3, mask=only_kernels), marks=pytest.mark.long),
    (config('lars', 0.1, 0.3), optax.lars(0.1, weight_decay=0.3, weight_decay_mask=only_kernels)),
    pytest.param(config('rmsprop', decay=0.8), optax.rmsprop(0.1, decay=0.8), marks=pytest.mark.long),
    (config('prodigy', 1.0), optax.contrib.prodigy(1.0)),
    (config('optax:sgd'), optax.sgd(0.1)),
    (config('sgd', clip='global_norm', max_norm=0.2), optax.chain(optax.clip_by_global_norm(0.2), optax.sgd(0.1))),
    (config('momentum', weight_decay=0.3, clip='global_norm', max_norm=0.2),
     optax.chain(optax.clip_by_global_norm(0.2), optax.trace(0.9), optax.add_decayed_weights(0.3, only_kernels),
                 optax.scale(-0.1))),
])  # fmt: skip
def test_parity_with_optax(ours, reference):
    chex.assert_trees_all_close(run(optim.create(ours)), run(reference), rtol=1e-5, atol=1e-6)


def test_decay_reaches_kernels_and_nothing_else():
    params, _ = problem()
    nothing = jax.tree.map(jnp.zeros_like, params)
    for name in ('sgd', 'adam', 'adamw', 'lion'):
        tx = optim.create(config(name, learning_rate=0.1, weight_decay=0.5))
        updates, _ = once(tx, nothing, params)
        expected = jax.tree.map(lambda p, kernel: -0.1 * 0.5 * p * kernel, params, only_kernels(params))
        chex.assert_trees_all_close(updates, expected, rtol=1e-6)


def test_an_infinite_norm_clips_nothing():
    clipped = run(optim.create(config('adam', clip='global_norm', max_norm=math.inf)))
    chex.assert_trees_all_close(clipped, run(optim.create(config('adam'))), atol=1e-6)


def test_clipping_bounds_the_norm():
    params, loss = problem()
    tx = optim.create(config('sgd', learning_rate=1.0, clip='global_norm', max_norm=1e-3))
    updates, _ = once(tx, jax.jit(jax.grad(loss))(params), params)
    assert float(optax.tree.norm(updates)) == pytest.approx(1e-3, rel=1e-5)


def test_numbers_are_data():
    """Eighteen settings of rate, decay and norm: one program, and each does what a program of its own would do."""
    first = config('adam', clip='global_norm')
    tx = optim.create(first)
    params, loss = problem()

    @jax.jit
    @chex.assert_max_traces(n=1)
    def train(params, state, rates):
        def step(carry, rate):
            params, state = carry
            updates, state = tx.update(jax.grad(loss)(params), optim.inject(state, learning_rate=rate), params)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, state), rates)[0]

    for rate in (0.3, 0.1, 0.01):
        for decay in (0, 0.5, 2.0):
            for norm in (1, 0.1):
                other = config('adam', rate, decay, 'global_norm', norm)
                state = optim.inject(tx.init(params), **optim.hyperparameters(other))
                chex.assert_trees_all_equal(state, optim.create(other).init(params))
                trained, after = train(params, state, jnp.full((3,), rate, jnp.float32))
                chex.assert_trees_all_equal_shapes_and_dtypes(state, after)
                train(trained, after, jnp.full((3,), rate, jnp.float32))
    last = optax.chain(optax.clip_by_global_norm(0.1), optax.adamw(0.01, weight_decay=2.0, mask=only_kernels))
    chex.assert_trees_all_close(trained, run(last, steps=3), rtol=1e-5, atol=1e-6)


def test_traced_keys_leave_the_program_alone():
    def text(settings):
        params, _ = problem()
        tx = optim.create(settings)
        return str(jax.make_jaxpr(tx.update)(params, tx.init(params), params))

    base = config('momentum', clip='global_norm', momentum=0.9)
    schedule, *keys = optim.traced(base)
    assert schedule == 'schedule' and set(keys) == {
        'optimizer.learning_rate', 'optimizer.weight_decay', 'optimizer.clip.max_norm'}  # fmt: skip
    for key in keys:
        other = copy.deepcopy(base)
        other.update_from_flattened_dict({key: 0.05})
        assert text(other) == text(base), key
    assert text(config('momentum', clip='global_norm', momentum=0.8)) != text(base)


@pytest.mark.parametrize('name', ['sgd', 'adam', 'adamw'])
def test_alone_it_follows_the_schedule(name):
    tx = optim.create(config(name, weight_decay=0.2, schedule='cosine'), total=STEPS)
    rate = optax.cosine_decay_schedule(0.1, STEPS)
    by_name = {'sgd': optax.identity, 'adam': optax.scale_by_adam, 'adamw': optax.scale_by_adam}
    reference = optax.chain(by_name[name](), optax.add_decayed_weights(0.2, only_kernels), optax.scale_by_learning_rate(rate))
    chex.assert_trees_all_close(run(tx), run(reference), rtol=1e-5, atol=1e-6)


def test_the_state_can_be_described_without_computing():
    params, _ = problem()
    for settings in (config('adam', clip='global_norm'), config('adamw')):
        for total in (None, STEPS):
            tx = optim.create(settings, total)
            described = jax.eval_shape(tx.init, params)
            chex.assert_trees_all_equal_shapes_and_dtypes(described, tx.init(params))
    assert list(optim.create(config('adam', clip='global_norm')).init(params)) == ['clip', 'optimizer', 'decay']


def test_a_parameter_may_be_called_learning_rate():
    params = {'hyperparams': {'learning_rate': jnp.ones(2)}, 'learning_rate': jnp.ones(3)}
    state = optim.inject(optim.create(config('momentum')).init(params), learning_rate=0.7)
    rates = [float(leaf) for leaf in jax.tree.leaves(state) if leaf.dtype == jnp.float32 and leaf.shape == ()]
    assert rates.count(np.float32(0.7)) == 2
    moments = [leaf for leaf in jax.tree.leaves(state) if leaf.ndim]
    assert len(moments) == 2 and not any(leaf.any() for leaf in moments)


@pytest.mark.parametrize('settings, message', [
    (config('adm'), "Did you mean 'adam'?"),
    (config('adamww'), "Did you mean 'adamw'?"),
    (config('adam', beta1=0.9), "optimizer 'adam' takes no argument 'beta1'. Did you mean 'b1'?"),
    (config('sgd', momentun=0.9), "Did you mean 'momentum'?"),
    (config('adamw', mask=None), "takes no argument 'mask'"),
    (config('muon', adam_learning_rate=0.1), "takes no argument 'adam_learning_rate'"),
    (config('novograd', decay_multipliers=(('*', 0),)), 'decays every parameter'),
    (config('novograd', weight_decay=0.1), 'decays every parameter'),
    (config('sgd', clip='global'), "Unknown clip 'global'. Did you mean 'global_norm'?"),
    (config('optax:scale'), 'takes no learning_rate'),
    (config('optax:sdg'), "Cannot import optimizer 'optax:sdg'"),
])  # fmt: skip
def test_errors_before_work(settings, message):
    with pytest.raises(ConfigError) as error:
        optim.create(settings)
    assert message in str(error.value)


@pytest.mark.parity
@pytest.mark.parametrize('ours, name, kwargs', [
    (config('sgd', 0.05), 'SGD', {'lr': 0.05}),
    (config('momentum', 0.05), 'SGD', {'lr': 0.05, 'momentum': 0.9}),
    (config('momentum', 0.05, nesterov=True), 'SGD', {'lr': 0.05, 'momentum': 0.9, 'nesterov': True}),
    (config('sgd', 0.05, 0.4), 'SGD', {'lr': 0.05, 'weight_decay': 0.4}),
    (config('adam', 0.01), 'Adam', {'lr': 0.01}),
    (config('adam', 0.01, 0.4), 'AdamW', {'lr': 0.01, 'weight_decay': 0.4}),
    (config('adamw', 0.01, 0.4), 'AdamW', {'lr': 0.01, 'weight_decay': 0.4}),
])  # fmt: skip
def test_parity_with_torch(ours, name, kwargs):
    """Twenty steps on one kernel, gradients of sum(sin(w) * w) on both sides."""
    torch = pytest.importorskip('torch')
    start = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32)

    tensor = torch.tensor(start, requires_grad=True)
    optimizer = getattr(torch.optim, name)([tensor], **kwargs)
    for _ in range(STEPS):
        optimizer.zero_grad()
        (torch.sin(tensor) * tensor).sum().backward()
        optimizer.step()

    params, tx = {'kernel': jnp.asarray(start)}, optim.create(ours)
    state = tx.init(params)
    for _ in range(STEPS):
        gradient = jax.grad(lambda p: jnp.sum(jnp.sin(p['kernel']) * p['kernel']))(params)
        updates, state = tx.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
    np.testing.assert_allclose(params['kernel'], tensor.detach().numpy(), rtol=1e-5, atol=1e-5)
    assert np.abs(np.asarray(params['kernel']) - start).max() > 0.05


# Of optimizers whose rate is a multiple of a step that they find themselves.
RATES = {
    'adadelta': 10.0,
    'adagrad': 0.3,
    'cocob': 1.0,
    'dadapt_adamw': 1.0,
    'dog': 1.0,
    'dowg': 1.0,
    'prodigy': 1.0,
    'simplified_ademamix': 0.002,
}


# What no config can describe, and a word of why.
REFUSED = {
    'dpsgd': 'gradient of each example',
    'lbfgs': 'evaluate the loss',
    'lookahead': 'two copies',
    'mechanize': 'wraps another',
    'momo': 'needs the loss',
    'momo_adam': 'needs the loss',
    'noisy_sgd': 'key of its own',
    'polyak_sgd': 'needs the loss',
    'reduce_on_plateau': "schedule.name = 'plateau'",
    'rprop': 'no schedule reaches',
    'sam': "gradient.name = 'sam'",
    'schedule_free': "expected 'schedule_free_adamw' or 'schedule_free_sgd'",
    'sophia': 'evaluate the loss',
}


# Of each kind that `research.optim.optimizers` treats apart; the others are optax's as they are.
CORE = {'adafactor', 'adamw', 'dadapt_adamw', 'galore', 'lamb', 'muon', 'nesterov', 'prodigy', 'schedule_free_sgd', *REFUSED}


def core(names):
    return [name if name in CORE else pytest.param(name, marks=pytest.mark.long) for name in sorted(names)]


@pytest.mark.parametrize('name', core(optimizers.entries()))
def test_every_optimizer_trains_from_a_rate_of_0(name):
    """As in a warmed-up run, inside a compiled loop; or it is refused before that, and says why."""
    if name in REFUSED:
        for spelled in (name, f'optax:{name}', f'optax.contrib:{name}'):
            with pytest.raises(ConfigError, match=REFUSED[name]):
                optim.create(config(spelled))
        return
    params, loss = problem()
    params['conv'] = {'kernel': np.random.default_rng(9).normal(size=(3, 3, 6, 4)).astype(np.float32)}

    def total(params):
        return loss({k: v for k, v in params.items() if k != 'conv'}) + jnp.mean((params['conv']['kernel'] - 1) ** 2)

    rate = RATES.get(name, 0.02)
    settings = config(name, rate, **({'safeguard_warmup': True} if name == 'prodigy' else {}))
    settings.schedule.warmup = '0st' if name == 'dadapt_adamw' else '0.1run'
    tx = optim.create(settings)

    @jax.jit
    def train(params, rates):
        def step(i, carry):
            params, state = carry
            updates, state = tx.update(jax.grad(total)(params), optim.inject(state, learning_rate=rates[i]), params)
            return optax.apply_updates(params, updates), state

        trained, _ = jax.lax.fori_loop(0, len(rates), step, (params, tx.init(params)))
        return total(params), total(trained)

    rates = rate * np.minimum((np.arange(300) + (name == 'dadapt_adamw')) / 5, 1).astype(np.float32)
    before, after = train(params, rates)
    assert after < 0.98 * before


def test_every_optimizer_of_optax_is_there():
    """By its list of aliases; what is a partial function, as nadam is, too."""
    alias = [name for name in vars(optax._src.alias) if hasattr(optax, name) and name.islower()]
    rules = {n for n in alias if callable(getattr(optax, n)) and not inspect.isclass(getattr(optax, n))}
    assert {'nadam', 'nadamw', 'adamw', 'lion', 'rprop'} <= rules
    assert rules <= set(optimizers.entries())


def takes_decay(name):
    return 'weight_decay' in inspect.signature(catalogue.resolve('optimizer', name, optimizers.entries())).parameters


# These have no mask; and these decay by a rule of their own.
ANYWHERE = ('dadapt_adamw', 'madgrad', 'novograd', 'prodigy', 'schedule_free_adamw', 'schedule_free_sgd')
ON_OR_OFF = ('adadelta', 'cocob', 'dog', 'dowg', 'lamb', 'lars')
DECAYING = sorted(name for name in optimizers.entries() if name not in REFUSED and takes_decay(name))


@pytest.mark.parametrize('name', core(DECAYING))
def test_an_own_decay_moves_kernels_and_nothing_else(name):
    """Without a gradient, so that what moves is the decay; or it is refused."""
    params, _ = problem()
    params['conv'] = {'kernel': jnp.ones((3, 3, 3, 4))}
    if name in ANYWHERE:
        with pytest.raises(ConfigError, match='decays every parameter'):
            optim.create(config(name, 0.1, 0.5))
        return
    transformations = [optim.create(config(name, 0.1, decay)) for decay in (0.5, 0.0)]
    nothing = jax.tree.map(jnp.zeros_like, params)
    with_decay, without = (once(tx, nothing, params)[0] for tx in transformations)
    moved = jax.tree.map(lambda a, b: bool((np.asarray(a) != np.asarray(b)).any()), with_decay, without)
    assert moved == only_kernels(params)


@pytest.mark.parametrize('name', core(DECAYING))
def test_a_factor_of_decay_is_that_much_decay(name):
    """Twice 0.1 is 0.2, in float64: our stage does what the optimizer's own does. Or factors but 0 and 1 are refused."""
    double = config(name, 0.01, 0.1, decay_multipliers=(('*/kernel', 2.0),))
    refusals = dict.fromkeys(ANYWHERE, 'decays every parameter') | dict.fromkeys(ON_OR_OFF, 'on or off')
    if name in refusals:
        with pytest.raises(ConfigError, match=refusals[name]):
            optim.create(double)
        return
    ours, theirs = optim.create(double), optim.create(config(name, 0.01, 0.2))
    with jax.enable_x64(True):
        start = jax.tree.map(lambda p: jnp.asarray(p, jnp.float64), problem()[0])
        rng = np.random.default_rng(1)
        gradients = jax.tree.map(lambda p: rng.normal(size=(4, *p.shape)), start)

        def end(tx):
            def step(carry, gradient):
                params, state = carry
                updates, state = tx.update(gradient, state, params)
                return (optax.apply_updates(params, updates), state), None

            return jax.jit(lambda start: jax.lax.scan(step, (start, tx.init(start)), gradients)[0][0])(start)

        chex.assert_trees_all_close(end(ours), end(theirs), rtol=1e-12, atol=1e-13)


def test_adafactors_own_decay_keeps_to_kernels():
    params, _ = problem()
    tx = optim.create(config('adafactor', 0.1, weight_decay_rate=0.5))
    updates, _ = once(tx, jax.tree.map(jnp.zeros_like, params), params)
    chex.assert_trees_all_close(updates, jax.tree.map(lambda p, k: -0.5 * p * k, params, only_kernels(params)))
    with pytest.raises(ConfigError, match='on or off'):
        optim.create(config('adafactor', 0.1, weight_decay_rate=0.5, decay_multipliers=(('head/*', 0.5),)))
    optim.create(config('adafactor', 0.1, 0.5, decay_multipliers=(('head/*', 0.5),)))  # our stage


def test_multipliers_are_torchs_groups():
    """The head at half the rate, its decay tripled, the other bias decayed too: as two optimizers side by side would."""
    params, loss = problem()
    ours = config(
        'momentum',
        0.1,
        0.2,
        rate_multipliers=(('head/*', 0.5),),
        decay_multipliers=(('head/kernel', 3.0), ('hidden/bias', 1.0)),
    )
    factors = {'hidden': {'kernel': 1, 'bias': 1}, 'norm': {'scale': 0, 'bias': 0}, 'head': {'kernel': 3, 'bias': 0}}

    def reference(group):
        rate = 0.05 if group == 'head' else 0.1
        decay = optax.GradientTransformation(
            lambda p: (), lambda u, s, p: (jax.tree.map(lambda u, p, f: u - rate * 0.2 * f * p, u, p, factors[group]), s)
        )
        return optax.chain(optax.sgd(rate, 0.9), decay)

    txs, expected = {group: reference(group) for group in params}, params
    states = {group: tx.init(params[group]) for group, tx in txs.items()}

    @jax.jit
    def step(expected, states):
        gradient = jax.grad(loss)(expected)
        moved = {group: tx.update(gradient[group], states[group], expected[group]) for group, tx in txs.items()}
        updated = optax.apply_updates(expected, {group: updates for group, (updates, _) in moved.items()})
        return updated, {group: state for group, (_, state) in moved.items()}

    for _ in range(STEPS):
        expected, states = step(expected, states)
    chex.assert_trees_all_close(run(optim.create(ours)), expected, rtol=1e-4, atol=1e-5)


def test_the_last_pattern_that_matches_counts():
    pairs = (('*', 0.5), ('head/*', 2.0), ('head/bias', 0.0))
    params, _ = problem()
    found = multipliers.factors('rate_multipliers', pairs, params, jax.tree.map(lambda _: 1.0, params))
    assert found['hidden'] == {'kernel': 0.5, 'bias': 0.5}
    assert found['head'] == {'kernel': 2.0, 'bias': 0.0}


def test_each_layer_learns_slower_than_the_next():
    """Patterns multiply what the layer gives; parameters in no layer are as slow as the first."""
    params = {name: {'kernel': jnp.ones(1), 'bias': jnp.ones(1)} for name in ('block1', 'block2', 'embedding', 'head')}
    params['positions'] = jnp.ones(1)
    tx = optim.create(
        config('sgd', 1.0, layer_decay=0.5, rate_multipliers=(('*/bias', 3.0),)),
        layers=('embedding', 'block1', 'block2', 'head'),
    )
    updates, _ = once(tx, params, params)
    expected = {'embedding': 0.125, 'block1': 0.25, 'block2': 0.5, 'head': 1.0}
    assert {name: -float(updates[name]['kernel'][0]) for name in expected} == expected
    assert {name: -float(updates[name]['bias'][0]) / 3 for name in expected} == expected
    assert float(updates['positions'][0]) == -0.125


@pytest.mark.parametrize('field', ['rate_multipliers', 'decay_multipliers'])
@pytest.mark.parametrize('name', ['sgd', 'adamw'])
def test_a_pattern_that_matches_nothing_is_an_error_before_anything_compiles(field, name):
    params, _ = problem()
    tx = optim.create(config(name, weight_decay=0.1, **{field: (('haed/kernel', 1.0),)}))
    with pytest.raises(ConfigError, match=f"optimizer.{field}: 'haed/kernel' matches no parameter. Did you mean 'head/kernel'"):
        jax.eval_shape(tx.init, params)


def test_an_own_decay_is_on_or_off():
    params, _ = problem()
    tx = optim.create(config('adamw', 0.1, 0.5, decay_multipliers=(('head/*', 0),)))
    updates, _ = once(tx, jax.tree.map(jnp.zeros_like, params), params)
    assert float(jnp.abs(updates['head']['kernel']).max()) == 0
    np.testing.assert_allclose(updates['hidden']['kernel'], -0.05 * params['hidden']['kernel'], rtol=1e-6)
    with pytest.raises(ConfigError, match='on or off'):
        optim.create(config('lamb', weight_decay=0.1, decay_multipliers=(('head/*', 0.5),)))


@pytest.mark.parametrize('bound', [0.0, -1.0, float('nan')])
def test_a_bound_that_would_turn_the_update_is_refused(bound):
    with pytest.raises(ConfigError, match='optimizer.clip.max_norm is .* expected a bound above 0'):
        optim.create(config(clip='global_norm', max_norm=bound))


def test_muon_takes_hidden_kernels_and_leaves_the_rest_to_adam():
    """By itself it would take every leaf of two axes: the head, and no convolution."""
    params, _ = problem()
    params['conv'] = {'kernel': jnp.ones((3, 3, 6, 4))}
    params['first'] = {'kernel': jnp.ones((3, 3, 3, 4))}
    params['depthwise'] = {'kernel': jnp.ones((3, 3, 1, 4))}
    tx = optim.create(config('muon', 0.02, 0.1))
    rng = np.random.default_rng(0)
    gradient = jax.tree.map(lambda p: rng.normal(size=p.shape).astype(np.float32), params)
    updates, _ = once(tx, gradient, params)
    steps = jax.tree.map(
        lambda u, p, kernel: np.asarray(u) + 0.02 * 0.1 * np.asarray(p) * kernel, updates, params, only_kernels(params)
    )
    for group in ('conv', 'hidden'):
        step = np.asarray(steps[group]['kernel']).reshape(-1, params[group]['kernel'].shape[-1])
        singular = np.linalg.svd(step, compute_uv=False)
        assert singular.max() / singular.min() < 3, group  # nearly orthogonal, whatever the gradient was
        assert np.abs(step).std() > 0.1 * np.abs(step).mean(), group  # as a matrix of Adam's signs may be too
    # Adam's first step (here with Nesterov's look ahead) is as long in every entry.
    for step in (*(steps[group]['kernel'] for group in ('first', 'depthwise', 'head')), steps['hidden']['bias']):
        entries = np.abs(step).reshape(-1)
        np.testing.assert_allclose(entries, entries[0], rtol=1e-3)
        assert 0.02 <= entries[0] < 0.04


@pytest.mark.parametrize('changes', [{'warmup': '0.1run'}, {'warmup': '3ep'}, {'name': 'one_cycle', 'start': 0.0}])
@pytest.mark.parametrize('name, hint', [('prodigy', 'safeguard_warmup to True'), ('dadapt_adamw', "warmup to '0st'")])
def test_what_cannot_begin_at_a_rate_of_0_is_refused_behind_a_warm_up(name, hint, changes):
    settings = config(name, 1.0)
    optim.create(settings)
    settings.schedule.update(changes)
    with pytest.raises(ConfigError, match=hint):
        optim.create(settings)
