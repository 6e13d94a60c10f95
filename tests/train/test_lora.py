"""LoRA: its definition, where it starts, what stays, and what it refuses. What any technique owes: test_techniques.py."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from research import compress
from research.catalogue import ConfigError
from research.compress.lora import Lora
from research.study import measure
from research.train.steps import players

HIDDEN = {'model.name': 'techniques:Small'}
ON = {**HIDDEN, 'compress.name': 'lora', 'compress.rank': 2, 'compress.targets': ('hidden/kernel',)}
X = np.random.default_rng(0).normal(size=(5, 7, 16)).astype(np.float32)


@pytest.fixture(scope='module')
def trained(session):
    """(experiment, state before, state behind 3 steps) of an Adam run."""
    built = tiny.build(session, ON, {'optimizer.name': 'adam', 'optimizer.average.name': 'ema'})
    return built, *(tiny.steps(built, count)[0] for count in (0, 3))


class Attention(nn.Module):
    """Two layers of one width, named as in a block of BERT, and a head."""

    @nn.compact
    def __call__(self, x):
        for i in (1, 2):
            x = x + jnp.tanh(nn.Dense(48, name=f'block{i}_qkv')(x)).reshape(*x.shape, 3).sum(-1)
        return nn.Dense(3, name='head')(x.mean(1))


@pytest.fixture(scope='module')
def params():
    return Attention().init(jax.random.key(0), X)['params']


@pytest.mark.parametrize('shape', [(6, 9), (3, 3, 2, 5)])
def test_a_kernel_is_its_own_and_a_product_of_two_thin_ones(shape):
    draw = np.random.default_rng(0)
    rows, kernel = int(np.prod(shape[:-1])), draw.normal(size=shape).astype(np.float32)
    a, b = draw.normal(size=(rows, 2)), draw.normal(size=(2, shape[-1]))
    lora = Lora(rank=2, alpha=3, targets=('*/kernel',), trained=())
    learns, kept = lora.split(jax.random.key(0), {'layer': {'kernel': kernel, 'bias': np.ones(shape[-1])}})
    assert jax.tree.map(jnp.shape, learns) == jax.tree.map(jnp.shape, adapters(a, b))
    seen = lora(adapters(a, b), kept)['layer']
    np.testing.assert_allclose(seen['kernel'], kernel + 1.5 * np.einsum('ir,ro->io', a, b).reshape(shape), rtol=1e-5)
    np.testing.assert_array_equal(seen['bias'], 1)


def adapters(a, b):
    return {'layer': {'kernel': {'lora_a': {'kernel': a}, 'lora_b': {'kernel': b}}}}


def test_it_starts_at_the_network_itself_and_at_the_paper_s_draw(params):
    lora = Lora()
    learns, kept = lora.split(jax.random.key(0), params)
    tiny.assert_same_bits(lora(learns, kept), params)
    assert sorted(learns) == ['block1_qkv', 'block2_qkv', 'head']
    first, second = (np.asarray(learns[layer]['kernel']['lora_a']['kernel']) for layer in sorted(learns)[:2])
    assert first.shape == (16, 8) and 0.2 < np.abs(first).max() <= 0.25  # 1 / sqrt(16)
    assert not np.allclose(first, second)


def test_merged_is_as_good_as_beside(params):
    """x W + s (x A) B, layer by layer, against the network with W + s A B."""
    lora = Lora(rank=4, alpha=8)
    learns, kept = lora.split(jax.random.key(0), params)
    drawn = np.random.default_rng(0)
    learns = jax.tree.map(lambda leaf: leaf + drawn.normal(0, 0.1, leaf.shape).astype(np.float32), learns)
    seen = lora(learns, kept)

    def beside(call, args, kwargs, context):
        if context.module.name not in kept:
            return call(*args, **kwargs)
        ab = learns[context.module.name]['kernel']
        return call(*args, **kwargs) + 2 * (args[0] @ ab['lora_a']['kernel']) @ ab['lora_b']['kernel']

    with nn.intercept_methods(beside):
        expected = Attention().apply({'params': {**kept, 'head': seen['head']}}, X)
    found = Attention().apply({'params': seen}, X)
    assert np.abs(found - Attention().apply({'params': {**kept, 'head': seen['head']}}, X)).max() > 0.01
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_only_adapters_and_what_is_named_learn(trained):
    _, before, after = trained
    tiny.assert_same_bits(before.masks, after.masks)
    assert set(after.masks['hidden']) == {'kernel', 'bias'} and set(after.params) == {'hidden', 'head'}
    moved = jax.tree.map(lambda old, new: bool((old != new).any()), before.params, after.params)
    assert all(jax.tree.leaves(moved))


def test_the_optimizer_and_the_average_know_nothing_of_the_rest(trained):
    """64 x 2 and 2 x 8 beside the head; a moment of the base would have 64 x 8 or 8 numbers."""
    built, _, after = trained
    own = {leaf.shape for leaf in jax.tree.leaves(after.params)}
    assert own == {(64, 2), (2, 8), (8, 10), (10,)}
    assert {leaf.shape for leaf in jax.tree.leaves(after.opt_state)} - {()} == own
    assert measure.costs(built)['parameters'] == 64 * 8 + 8 + 8 * 10 + 10


def test_costs_of_inference_are_the_plain_network_s(session, trained):
    plain, lora = measure.costs(tiny.build(session, HIDDEN)), measure.costs(trained[0])
    assert lora['inference_flops'] == plain['inference_flops']


@pytest.mark.long
def test_what_is_saved_is_merged(session, tmp_path):
    built = tiny.build(session, ON, {'study.budget': '2st'})
    assert tiny.train(built, tmp_path).status == 'finished'
    saved, state = tiny.scored(tmp_path)['params'], tiny.steps(built, 2)[0]
    seen = built.program.step.weights(state.params, state.masks)
    assert jax.tree.structure(saved) == jax.tree.structure(seen)
    np.testing.assert_allclose(saved['hidden']['kernel'], seen['hidden']['kernel'], rtol=1e-6)
    assert not np.array_equal(saved['hidden']['kernel'], state.masks['hidden']['kernel'])


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'compress.targets': ('*qkv/kernel',)}, "compress.targets: '.qkv/kernel' matches no parameter. Did you mean"),
        ({'compress.trained': ('heads/*',)}, "compress.trained: 'heads/.' matches no parameter"),
        ({'compress.targets': ('hidden/*',)}, r"'hidden/bias' has the shape \[8\], no matrix"),
        ({'compress.targets': ('*/kernel',)}, "'head/kernel' trains as a whole"),
    ],
)
def test_what_is_refused(session, changes, message):
    with pytest.raises(ConfigError, match=message):
        tiny.build(session, ON, changes)


def test_two_players_have_nothing_to_adapt():
    with pytest.raises(ConfigError, match="'lora' is for one network"):
        players._check(tiny.config({'task.name': 'generation', 'model.name': 'dcgan', 'compress.name': 'lora'}))


def test_nothing_is_split_where_nothing_is_compressed(session):
    state = tiny.build(session, HIDDEN).program.shapes
    assert compress.create({'name': 'none'}).split is None and state.masks == {}


def test_weights_to_start_from_are_put_in_before_the_split(trained):
    weights = {'params': {'hidden': {'kernel': np.ones((64, 8), np.float32)}}}
    state = trained[0].program.step.init(jax.random.key(0), {}, weights)
    np.testing.assert_array_equal(state.masks['hidden']['kernel'], 1)
