"""GPT: what a logit depends on, a cache that changes nothing, and transformers' GPT-2 by its own files."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import references
from safetensors.numpy import load_file, save_file
from sequences import compiled, dependences, initial, stepped

from research import cost, models, pretrained
from research.catalogue import ConfigError

SIZES = {'vocabulary_size': 50, 'dim': 16, 'depth': 2, 'heads': 2, 'width': 24, 'max_length': 12}
TOKENS = np.random.default_rng(0).integers(0, 50, (3, 8))
LEFT = np.arange(8)[None] >= np.array([0, 3, 5])[:, None]


def created(**kwargs):
    return models.create('gpt', **SIZES | kwargs)


def test_a_logit_depends_on_the_real_tokens_up_to_its_own_alone():
    mask = LEFT.copy()
    mask[0, [2, 7]] = False  # in the midst, and on the right
    found = dependences(created(), 'token_embedding', (3, 8, 16), TOKENS, mask)
    real = np.tril(np.ones((8, 8), bool))[None] & mask[:, None] | np.eye(8, dtype=bool)  # each begins with its own vector
    np.testing.assert_array_equal(found, np.eye(3, dtype=bool)[:, None, :, None] & real[:, :, None])


VARIANTS = [
    {'positions': 'learned'},
    {'positions': 'rotary', 'key_heads': 1, 'depth': 1},
    {'positions': 'sinusoidal', 'share_layers': True},
]


@pytest.mark.parametrize('kwargs', VARIANTS, ids=str)
def test_steps_with_a_cache_give_what_the_whole_pass_gives(kwargs):
    module = created(**kwargs)
    expected = compiled(module)(TOKENS, LEFT)
    state, first = compiled(module, 'start', (2,))(TOKENS[:, :6], LEFT[:, :6], 3)
    np.testing.assert_array_equal(first, TOKENS[:, 5])
    np.testing.assert_allclose(stepped(module, TOKENS[:, 5:], state), expected[:, 5:], rtol=0, atol=1e-5)


@pytest.mark.long
def test_a_prompt_may_be_one_token_without_a_mask():
    module = created()
    state, first = compiled(module, 'start', (2,))(TOKENS[:, :1], None, 8)
    np.testing.assert_array_equal(first, TOKENS[:, 0])
    np.testing.assert_allclose(stepped(module, TOKENS, state), compiled(module)(TOKENS), rtol=0, atol=1e-5)


@pytest.mark.parametrize('kwargs', [VARIANTS[0], *(pytest.param(v, marks=pytest.mark.long) for v in VARIANTS[1:])], ids=str)
def test_neither_padding_nor_another_text_in_the_row_changes_a_text(kwargs):
    module = created(**kwargs)
    alone = compiled(module)(TOKENS[:, 3:])
    padded = compiled(module)(TOKENS, np.broadcast_to(np.arange(8) >= 3, TOKENS.shape))
    np.testing.assert_allclose(padded[:, 3:], alone, rtol=0, atol=1e-5)
    packed = np.array([[1, 1, 1, 2, 2, 2, 2, 2]]).repeat(3, 0)
    together = compiled(module)(TOKENS, packed=packed)
    np.testing.assert_allclose(together[:, 3:], alone, rtol=0, atol=1e-5)
    np.testing.assert_allclose(together[:, :3], compiled(module)(TOKENS)[:, :3], rtol=0, atol=1e-5)


def counted(dim, depth, vocabulary=50257, length=1024):
    """By hand: two tables, and a block's four norms' vectors, 3 + 1 matrices of attention and 4 + 4 of the MLP, with biases."""
    attention, mlp = (3 + 1) * dim * dim + (3 + 1) * dim, 2 * 4 * dim * dim + (4 + 1) * dim
    return (vocabulary + length) * dim + depth * (attention + mlp + 2 * 2 * dim) + 2 * dim


@pytest.mark.parametrize(
    ('name', 'millions', 'sizes'),
    [
        ('gpt2', 124, (768, 12)),
        *(
            pytest.param(f'gpt2_{size}', *row, marks=pytest.mark.long)
            for size, *row in (('medium', 355, (1024, 24)), ('large', 774, (1280, 36)), ('xl', 1558, (1600, 48)))
        ),
    ],
)
def test_number_of_parameters(name, millions, sizes):
    module = models.create(name)
    found = cost.parameters(jax.eval_shape(module.init, jax.random.key(0), module.EXAMPLE))
    assert found == counted(*sizes) and round(found / 1e6) == millions


def test_weights_begin_as_gpt_2s():
    module = created(vocabulary_size=200, dim=32, width=0, depth=2, share_layers=True, max_length=200)
    params = jax.jit(module.init)(jax.random.key(0), TOKENS)['params']
    for path, leaf in jax.tree.leaves_with_path(params):
        name = jax.tree_util.keystr(path)
        if leaf.ndim > 1:
            last = "['projection']" in name or "['mlp_out']" in name
            assert np.std(leaf) == pytest.approx(0.02 / 2 if last else 0.02, rel=0.06), name
        else:
            assert (leaf == ('scale' in name)).all(), name


def test_layers_are_in_the_order_of_the_forward_pass():
    found = models.layers(created(), TOKENS)
    assert found == ('token_embedding', 'position_embedding', 'block1', 'block2', 'norm')


def test_dropout_is_after_the_embeddings_and_at_the_end_of_branches_and_on_weights():
    example = jax.eval_shape(created(depth=1).init, jax.random.key(0), TOKENS)['example']
    assert set(example) == {'dropout', 'block1'}
    assert set(example['block1']) == {'attention_dropout', 'weights_dropout', 'mlp_dropout'}


@pytest.mark.parametrize(
    ('kwargs', 'tokens', 'message'),
    [
        ({'positions': 'alibi'}, TOKENS, "positions 'alibi'. Valid: learned, rotary, sinusoidal"),
        ({}, np.zeros((2, 13), int), '13 tokens.*for 12'),
        ({}, np.zeros((2, 8), np.float32), r'GPT reads tokens, int \[B, T\], got float32 \[2, 8\]'),
        ({'vocabulary_size': 0}, TOKENS, 'vocabulary_size is 0, expected'),
        ({'heads': 3}, TOKENS, '3 heads cannot share 16'),
    ],
)
def test_refuses_what_does_not_fit_before_anything_is_compiled(kwargs, tokens, message):
    with pytest.raises(ConfigError, match=message):
        jax.eval_shape(created(**kwargs).init, jax.random.key(0), tokens)


def test_refuses_more_steps_than_there_are_positions():
    start = functools.partial(created().apply, size=6, method='start')
    with pytest.raises(ConfigError, match='Texts of 13 tokens, and there are learned positions for 12'):
        jax.eval_shape(start, {'params': initial(created())}, TOKENS, None)


CONFIG = {
    'model_type': 'gpt2',
    'vocab_size': 50,
    'n_embd': 16,
    'n_layer': 2,
    'n_head': 2,
    'n_inner': 24,
    'n_positions': 12,
    'activation_function': 'gelu_new',
    'layer_norm_epsilon': 1e-4,
}


@pytest.fixture
def folder(tmp_path):
    """A network as Hugging Face's folders have it, and its parameters."""
    module, params = created(), initial(created())
    pretrained.save(module, {'params': params}, tmp_path / 'model.safetensors', 'huggingface')
    (tmp_path / 'config.json').write_text(json.dumps(CONFIG))
    return tmp_path, params


def test_sizes_come_from_the_config_beside_the_weights(folder):
    path, expected = folder
    tensors = load_file(path / 'model.safetensors')
    assert tensors['transformer.h.1.attn.c_attn.weight'].shape == (16, 48)
    # As the hub's own files: without the backbone's name, with tables of which tokens see which, and the head that is tied.
    bare = {name.removeprefix('transformer.'): tensor for name, tensor in tensors.items()}
    bare['h.0.attn.bias'] = np.tril(np.ones((1, 1, 12, 12), np.float32))
    save_file(bare, path / 'model.safetensors')
    module, variables = pretrained.load('gpt', path)
    assert {key: getattr(module, key) for key in SIZES} == SIZES
    assert module.norm['epsilon'] == 1e-4 and module.activation == 'gelu_tanh'
    jax.tree.map(np.testing.assert_array_equal, variables['params'], expected)


@pytest.mark.parametrize(
    ('name', 'config', 'message'),
    [
        ('gpt2', {}, r"'dim': 16.*not a 'gpt2' .*load it as 'gpt'"),
        ('gpt', {'model_type': 'gpt_neo'}, "is a 'gpt_neo', and 'gpt' is none"),
        ('gpt', {'scale_attn_by_inverse_layer_idx': True}, "'scale_attn_by_inverse_layer_idx': True.*does not compute"),
    ],
)
def test_a_folder_of_another_network_is_refused(folder, name, config, message):
    path, _ = folder
    (path / 'config.json').write_text(json.dumps(CONFIG | config))
    with pytest.raises(ConfigError, match=message):
        pretrained.load(name, path)


@pytest.mark.parity
def test_logits_and_gradients_are_those_of_transformers(tmp_path):
    """Of a folder that transformers wrote, texts padded on the left."""
    torch, *_ = references.libraries()
    import transformers

    torch.manual_seed(0)
    network = transformers.GPT2LMHeadModel(transformers.GPT2Config(**CONFIG)).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    network.save_pretrained(tmp_path)
    positions = np.maximum(np.cumsum(LEFT, 1) - 1, 0)
    told = torch.tensor(TOKENS), torch.tensor(LEFT).long(), torch.tensor(positions)
    expected = network(told[0], attention_mask=told[1], position_ids=told[2]).logits[torch.tensor(LEFT)]
    torch.sin(expected).sum().backward()
    module, variables = pretrained.load('gpt', tmp_path)

    def loss(params):
        logits = module.apply({'params': params}, TOKENS, LEFT)[LEFT]
        return jnp.sin(logits).sum(), logits

    (_, found), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(variables['params'])
    expected = expected.detach().numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * np.abs(expected).max())
    for ours, theirs in (('token_embedding', network.transformer.wte), ('position_embedding', network.transformer.wpe)):
        grad = theirs.weight.grad.numpy()
        np.testing.assert_allclose(gradients[ours]['embedding'], grad, rtol=0, atol=1e-4 * np.abs(grad).max())
    pretrained.save(module, variables, tmp_path / 'new' / 'model.safetensors', 'huggingface')
    old, new = (load_file(p / 'model.safetensors') for p in (tmp_path, tmp_path / 'new'))
    jax.tree.map(np.testing.assert_array_equal, new, old)
