"""The Transformer: what a logit depends on, a cache that changes nothing, the paper's sizes, and PyTorch's own."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import references
from sequences import compiled, dependences, initial, stepped

from research import cost, models
from research.catalogue import ConfigError

SIZES = {'vocabulary_size': 40, 'dim': 16, 'depth': 2, 'heads': 2, 'width': 24, 'max_length': 9}
SOURCE, TARGET = (np.random.default_rng(0).integers(0, 40, (3, n)) for n in (7, 6))
SOURCE_MASK = np.arange(7)[None] < np.array([7, 4, 1])[:, None]
TARGET_MASK = np.arange(6)[None] < np.array([6, 2, 5])[:, None]
MASKS = SOURCE_MASK, TARGET_MASK


def created(**kwargs):
    return models.create('transformer', **SIZES | kwargs)


def shapes(module):
    return jax.eval_shape(module.init, jax.random.key(0), SOURCE, TARGET)


def parameters(**kwargs):
    return cost.parameters(shapes(created(**kwargs)))


@pytest.mark.parametrize('kind', ['softmax', 'average'])
def test_a_logit_depends_on_the_real_source_and_on_the_real_target_up_to_its_own(kind):
    module = created(share_embeddings='none', depth=1, decoder_depth=2, decoder_attention=kind)
    same = np.eye(3, dtype=bool)[:, None, :, None]
    source = dependences(module, 'source_embedding', (3, 7, 16), SOURCE, TARGET, *MASKS)
    np.testing.assert_array_equal(source, np.broadcast_to(same & SOURCE_MASK[:, None, None], source.shape))
    target = dependences(module, 'target_embedding', (3, 6, 16), SOURCE, TARGET, *MASKS)
    real = np.tril(np.ones((6, 6), bool))[None] & TARGET_MASK[:, None] | np.eye(6, dtype=bool)  # each begins with its own
    np.testing.assert_array_equal(target, same & real[:, :, None])


VARIANTS = [
    {'positions': 'sinusoidal', 'decoder_depth': 1},
    {'positions': 'learned', 'norm_first': True, 'depth': 1},
    {'positions': 'rotary', 'share_layers': True, 'depth': 1, 'decoder_depth': 2},
    {'decoder_attention': 'average', 'norm_first': True, 'depth': 1, 'decoder_depth': 2},
]


@pytest.mark.parametrize('kwargs', VARIANTS, ids=str)
def test_steps_with_a_cache_give_what_the_whole_pass_gives(kwargs):
    module = created(**kwargs)
    expected = compiled(module)(SOURCE, TARGET, SOURCE_MASK)
    state, first = compiled(module, 'start', (2,))(SOURCE, SOURCE_MASK, 6)
    assert first is None
    np.testing.assert_allclose(stepped(module, TARGET, state), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize('kind', ['softmax', 'average'])
def test_several_pairs_in_a_row_do_not_see_each_other(kind):
    module = created(depth=1, decoder_attention=kind)
    packed, apply, source = np.array([[1, 1, 1, 2, 2, 2]] * 3), compiled(module), SOURCE[:, :6]
    together = apply(source, TARGET, source_packed=packed, target_packed=packed)
    for part in (slice(0, 3), slice(3, 6)):
        alone = apply(source[:, part], TARGET[:, part])
        np.testing.assert_allclose(together[:, part], alone, rtol=0, atol=1e-5)


def counted(dim, width, depth=6, vocabulary=37000):
    """By hand: one table; of each block its attentions' four matrices and biases, the MLP, and two norms' vectors a branch."""
    attention, mlp, norm = 4 * dim * dim + 4 * dim, 2 * dim * width + width + dim, 2 * dim
    encoder, decoder = attention + mlp + 2 * norm, 2 * attention + mlp + 3 * norm
    return vocabulary * dim + depth * (encoder + decoder)


# Millions in table 3 of the paper: 65 and 213.
@pytest.mark.parametrize(('name', 'dim', 'width', 'millions'), [('base', 512, 2048, 63.1), ('big', 1024, 4096, 214.2)])
def test_number_of_parameters(name, dim, width, millions):
    found = cost.parameters(shapes(models.create(f'transformer_{name}')))
    assert found == counted(dim, width) and round(found / 1e6, 1) == millions


def test_average_attention_has_gates_in_place_of_four_matrices():
    own, gates = 4 * 16 * 16 + 4 * 16, 2 * 16 * 2 * 16 + 2 * 16
    assert parameters(decoder_attention='average') == parameters() + 2 * (gates - own)


def test_layers_that_are_shared_and_a_shallow_decoder_are_counted_once():
    attention, mlp, norm, table = 4 * 16 * 16 + 4 * 16, 2 * 16 * 24 + 24 + 16, 2 * 16, 40 * 16
    encoder, decoder = attention + mlp + 2 * norm, 2 * attention + mlp + 3 * norm
    assert parameters(depth=5, decoder_depth=1) == table + 5 * encoder + decoder
    assert parameters(depth=5, decoder_depth=3, share_layers=True) == table + encoder + decoder


@pytest.mark.parametrize(
    ('share', 'tables'),
    [
        ('all', {'embedding': 40}),
        ('target', {'source_embedding': 40, 'target_embedding': 30}),
        ('none', {'source_embedding': 40, 'target_embedding': 30, 'output_embedding': 30}),
    ],
)
def test_tables_are_shared_as_told(share, tables):
    module = created(share_embeddings=share, target_vocabulary_size=0 if share == 'all' else 30)
    variables = shapes(module)
    found = {name: layer['embedding'].shape[0] for name, layer in variables['params'].items() if 'embedding' in layer}
    assert found == tables
    logits = jax.eval_shape(module.apply, {'params': variables['params']}, SOURCE, TARGET)
    assert logits.shape == (3, 6, 40 if share == 'all' else 30) and logits.dtype == jnp.float32


def test_layers_are_in_the_order_of_the_forward_pass():
    found = models.layers(
        created(positions='learned', norm_first=True, share_embeddings='none', decoder_depth=1), SOURCE, TARGET
    )
    encoder = ('source_embedding', 'encoder_positions', 'encoder1', 'encoder2', 'encoder_norm')
    assert found == (*encoder, 'target_embedding', 'decoder_positions', 'decoder1', 'decoder_norm', 'output_embedding')


def test_dropout_is_where_the_paper_has_it():
    example = shapes(created(depth=1))['example']
    assert set(example) == {'encoder_dropout', 'decoder_dropout', 'encoder1', 'decoder1'}
    assert set(example['encoder1']) == {'attention_dropout', 'mlp_dropout'}
    assert set(example['decoder1']) == {'attention_dropout', 'cross_dropout', 'mlp_dropout'}
    example = shapes(created(depth=1, attention_dropout=0.1))['example']
    assert set(example['decoder1']) - {'attention_dropout', 'cross_dropout', 'mlp_dropout'} == {
        'weights_dropout',
        'cross_weights_dropout',
    }


@pytest.mark.long
@pytest.mark.parametrize('remat', ['products', 'block'])
def test_blocks_computed_again_have_the_same_gradients(remat):
    def gradients(remat):
        module = created(remat=remat)
        params = initial(created())
        return jax.jit(jax.grad(lambda p: jnp.sin(module.apply({'params': p}, SOURCE, TARGET, *MASKS)).sum()))(params)

    expected, found = gradients('none'), gradients(remat)
    scale = max(np.abs(leaf).max() for leaf in jax.tree.leaves(expected))
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=0, atol=1e-6 * scale), found, expected)


@pytest.mark.parametrize(
    ('kwargs', 'source', 'target', 'message'),
    [
        ({'positions': 'sinusodial'}, SOURCE, TARGET, "positions 'sinusodial'.*'sinusoidal'"),
        ({'share_embeddings': 'both'}, SOURCE, TARGET, "share_embeddings 'both'. Valid: all, none, target"),
        ({'decoder_attention': 'averge'}, SOURCE, TARGET, "decoder_attention 'averge'.*'average'"),
        ({'target_vocabulary_size': 30}, SOURCE, TARGET, 'One table of embeddings for two vocabularies, 40 and 30: set'),
        ({'vocabulary_size': 0}, SOURCE, TARGET, 'Vocabularies of 0 and 0 tokens: expected'),
        ({'target_vocabulary_size': -1}, SOURCE, TARGET, 'Vocabularies of 40 and -1 tokens: expected'),
        ({'positions': 'learned'}, np.zeros((3, 10), int), TARGET, 'A source of 10 tokens.*for 9'),
        ({'positions': 'learned'}, SOURCE, np.zeros((3, 10), int), 'A target of 10 tokens.*for 9'),
        ({}, np.zeros((3, 7), np.float32), TARGET, r"Transformer's source reads tokens, int \[B, T\], got float32 \[3, 7\]"),
        ({}, SOURCE, np.zeros(3, int), r"Transformer's target reads tokens, int \[B, T\], got int\d+ \[3\]"),
        ({'heads': 3}, SOURCE, TARGET, '3 heads cannot share 16'),
    ],
)
def test_refuses_what_does_not_fit_before_anything_is_compiled(kwargs, source, target, message):
    with pytest.raises(ConfigError, match=message):
        jax.eval_shape(created(**kwargs).init, jax.random.key(0), source, target)


def test_refuses_more_steps_than_there_are_positions():
    module = created(positions='learned')
    with pytest.raises(ConfigError, match='A target of 10 tokens, and there are learned positions for 9'):
        jax.eval_shape(functools.partial(module.apply, size=10, method='start'), {'params': initial(module)}, SOURCE, None)


def copied(block, layer):
    """A block's parameters as those of one of PyTorch's layers."""
    dim, leaves = layer.linear2.out_features, {}
    theirs = {'mlp_in': layer.linear1, 'mlp_out': layer.linear2, 'projection': layer.self_attn.out_proj}
    theirs |= {f'{name}_norm': norm for name, norm in zip(_BRANCHES[len(block) > 6], _norms(layer), strict=True)}
    leaves['qkv'] = layer.self_attn.in_proj_weight, layer.self_attn.in_proj_bias
    if len(block) > 6:
        theirs['cross_projection'] = layer.multihead_attn.out_proj
        weight, bias = layer.multihead_attn.in_proj_weight, layer.multihead_attn.in_proj_bias
        leaves['cross_query'] = weight[:dim], bias[:dim]
        leaves['cross_key_value'] = weight[dim:], bias[dim:]
    leaves |= {name: (module.weight, module.bias) for name, module in theirs.items()}
    found = {}
    for name, ours in block.items():
        weight, bias = (a.detach().numpy() for a in leaves[name])
        found[name] = {'scale': weight, 'bias': bias} if 'scale' in ours else {'kernel': weight.T, 'bias': bias}
    return found


_BRANCHES = {False: ('attention', 'mlp'), True: ('attention', 'cross', 'mlp')}


def _norms(layer):
    return [getattr(layer, f'norm{i}') for i in (1, 2, 3) if hasattr(layer, f'norm{i}')]


@pytest.mark.parity
@pytest.mark.parametrize('norm_first', [False, True])
def test_logits_and_gradients_are_those_of_pytorch(norm_first):
    torch, *_ = references.libraries()
    torch.manual_seed(0)
    network = torch.nn.Transformer(16, 2, 2, 2, 24, dropout=0.0, layer_norm_eps=1e-6, batch_first=True, norm_first=norm_first)
    if not norm_first:  # theirs normalizes once more at the end
        network.encoder.norm = network.decoder.norm = None
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    table = torch.randn(40, 16, requires_grad=True)
    at, feature = np.arange(7)[:, None], np.arange(16)[None]
    angles = at / 10000 ** (feature // 2 * 2 / 16)  # section 3.5 of the paper
    waves = torch.tensor(np.where(feature % 2, np.cos(angles), np.sin(angles)), dtype=torch.float32)
    source, target = (table[torch.tensor(a)] * math.sqrt(16) + waves[: a.shape[1]] for a in (SOURCE, TARGET))
    hidden = network(
        source,
        target,
        tgt_mask=torch.triu(torch.ones(6, 6, dtype=torch.bool), 1),
        src_key_padding_mask=torch.tensor(~SOURCE_MASK),
        memory_key_padding_mask=torch.tensor(~SOURCE_MASK),
        tgt_key_padding_mask=torch.tensor(~TARGET_MASK),
    )
    expected = (hidden @ table.T)[torch.tensor(TARGET_MASK)]
    torch.sin(expected).sum().backward()

    module = created(norm_first=norm_first)
    shape = shapes(module)['params']
    params = {'embedding': {'embedding': table.detach().numpy()}}
    for side in ('encoder', 'decoder'):
        layers = getattr(network, side)
        params |= {f'{side}{i + 1}': copied(shape[f'{side}{i + 1}'], layer) for i, layer in enumerate(layers.layers)}
        if norm_first:
            scale, bias = (a.detach().numpy() for a in (layers.norm.weight, layers.norm.bias))
            params[f'{side}_norm'] = {'scale': scale, 'bias': bias}
    assert jax.tree.map(np.shape, params) == jax.tree.map(lambda s: s.shape, shape)

    def loss(params):
        logits = module.apply({'params': params}, SOURCE, TARGET, *MASKS)[TARGET_MASK]
        return jnp.sin(logits).sum(), logits

    (_, found), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    for ours, theirs in ((found, expected.detach()), (gradients['embedding']['embedding'], table.grad)):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4 * np.abs(theirs.numpy()).max())
