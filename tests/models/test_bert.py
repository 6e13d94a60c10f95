"""BERT: sizes and shapes of the papers, transformers' outputs and gradients, and texts that do not see each other."""

import functools

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import references

from research import cost, models
from research.catalogue import ConfigError
from research.pretrained import entries

SMALL = {'vocabulary_size': 50, 'dim': 16, 'depth': 1, 'heads': 2, 'width': 24, 'max_length': 12}
TOKENS = np.random.default_rng(0).integers(1, 50, (3, 8))
LENGTHS = np.array([8, 5, 2])
MASK = np.arange(8)[None] < LENGTHS[:, None]
SEGMENTS = (np.arange(8)[None] > 2).astype(int).repeat(3, 0)


def created(head='none', num_classes=3, **kwargs):
    return models.create('bert', num_classes, head=head, **SMALL | kwargs)


@functools.cache
def initial(module):
    """Variables of a network, away from the zeros that biases begin with."""
    variables = jax.jit(module.init)(jax.random.key(0), jnp.asarray(TOKENS))
    rng = np.random.default_rng(1)
    params = jax.tree.map(lambda a: a + rng.normal(0, 0.2, a.shape).astype(np.float32), variables['params'])
    return {**variables, 'params': params}


@functools.cache
def compiled(module):
    return jax.jit(functools.partial(module.apply, initial(module)))


def shapes(name, head, **kwargs):
    module = models.create(name, 4, head=head, **kwargs)
    tokens = jax.ShapeDtypeStruct((2, 7), jnp.int32)
    return module, tokens, jax.eval_shape(module.init, jax.random.key(0), tokens)


# transformers' BertModel and BertForPreTraining of the same sizes, and Devlin et al. 2019 (110M and 340M).
PARAMETERS = {
    'bert_tiny': (4_385_920, 4_433_468),
    'bert_mini': (11_170_560, 11_267_900),
    'bert_small': (28_763_648, 29_058_876),
    'bert_medium': (41_373_184, 41_668_412),
    'bert_base': (109_482_240, 110_106_428),
    'bert_large': (335_141_888, 336_226_108),
}


@pytest.mark.parametrize('head', ['none', 'pretraining'])
@pytest.mark.parametrize(
    'name', [n if n in ('bert_tiny', 'bert_base') else pytest.param(n, marks=pytest.mark.long) for n in PARAMETERS]
)
def test_number_of_parameters(name, head):
    assert cost.parameters(shapes(name, head)[2]) == PARAMETERS[name][head == 'pretraining']


def test_layers_are_in_the_order_of_the_forward_pass():
    """Which freezing and layer-wise rates go by; parameters by name would have the blocks first."""
    first = ('token_embedding', 'segment_embedding', 'position_embedding', 'embedding_norm')
    found = models.layers(created('classification', depth=2), jnp.asarray(TOKENS))
    assert found == (*first, 'block1', 'block2', 'pooler', 'head')


@pytest.mark.parametrize(
    ('head', 'expected'),
    [
        ('none', [(2, 7, 128), (2, 128)]),
        ('pretraining', [(2, 7, 30522), (2, 2)]),
        ('classification', [(2, 4)]),
        ('tagging', [(2, 7, 4)]),
        ('question_answering', [(2, 7, 2)]),
    ],
)
def test_what_each_head_gives(head, expected):
    module, tokens, variables = shapes('bert_tiny', head)
    found = jax.tree.leaves(jax.eval_shape(module.apply, variables, tokens))
    assert [a.shape for a in found] == expected and all(a.dtype == jnp.float32 for a in found)


VARIANTS = [{}, {'positions': 'rotary', 'norm_first': True, 'gated': True}, {'positions': 'alibi', 'key_heads': 1}]


@pytest.mark.parametrize('kwargs', [VARIANTS[0], *(pytest.param(v, marks=pytest.mark.long) for v in VARIANTS[1:])], ids=str)
def test_neither_padding_nor_neighbours_change_a_text(kwargs):
    apply = compiled(created(**kwargs))
    sequence, pooled = apply(TOKENS, SEGMENTS, MASK)
    other = np.where(MASK, TOKENS, 7)
    other[2] = 9
    again, pooled_again = apply(other, SEGMENTS, MASK)
    assert np.abs(again - sequence)[2].max() > 1e-2  # its own text
    kept = MASK[:2, :, None]
    np.testing.assert_allclose(again[:2] * kept, sequence[:2] * kept, rtol=0, atol=1e-6)
    np.testing.assert_allclose(pooled_again[:2], pooled[:2], rtol=0, atol=1e-6)
    alone, _ = apply(TOKENS[1:2, :5], SEGMENTS[1:2, :5])
    np.testing.assert_allclose(sequence[1:2, :5], alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    'positions', ['learned', *(pytest.param(p, marks=pytest.mark.long) for p in ('rotary', 'alibi', 'none'))]
)
def test_the_order_of_words_matters_by_their_positions_alone(positions):
    apply, order = compiled(created(positions=positions)), np.array([3, 0, 2, 1, 7, 6, 5, 4])
    whole, _ = apply(TOKENS, positions=np.arange(8)[None])
    moved, _ = apply(TOKENS[:, order], positions=order[None])
    np.testing.assert_allclose(moved, whole[:, order], rtol=0, atol=1e-5)
    np.testing.assert_allclose(apply(TOKENS)[0], whole, rtol=0, atol=1e-6)  # counted from 0 where they are left out
    moved, _ = apply(TOKENS[:, order])
    assert (np.abs(moved - whole[:, order]).max() > 1e-3) == (positions != 'none')


@pytest.mark.long
def test_dropout_draws_by_position():
    module = created('classification', dropout=0.3, attention_dropout=0.3)
    example = jax.eval_shape(module.init, jax.random.key(0), TOKENS)['example']

    @jax.jit
    def logits(tokens, positions):
        told = {'position': positions, 'rng': jax.random.key(2)}
        filled = jax.tree_util.tree_map_with_path(lambda path, _: told[path[-1].key], example)
        return module.apply({**initial(module), 'example': filled}, tokens, train=True)

    positions, order = np.stack([np.zeros(3), np.arange(3)], -1).astype(np.uint32), np.array([2, 0, 1])
    whole = logits(TOKENS, positions)
    np.testing.assert_allclose(logits(TOKENS[order], positions[order]), whole[order], rtol=0, atol=1e-6)
    assert np.abs(logits(TOKENS, positions[order]) - whole).max() > 1e-3


@pytest.mark.long
def test_blocks_computed_again_have_the_same_gradients():
    def gradients(remat):
        module = created('pretraining', depth=2, remat=remat)
        params = initial(created('pretraining', depth=2))['params']
        return jax.jit(jax.grad(lambda p: jnp.sin(module.apply({'params': p}, TOKENS, SEGMENTS, MASK)[0]).sum()))(params)

    none, *others = map(gradients, ('none', 'products', 'block'))
    scale = max(np.abs(leaf).max() for leaf in jax.tree.leaves(none))
    for found in others:
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=0, atol=1e-6 * scale), found, none)


@pytest.mark.parametrize(
    ('kwargs', 'tokens', 'message'),
    [
        ({'head': 'classifier'}, TOKENS, "head 'classifier'.*'classification'"),
        ({'positions': 'rotory'}, TOKENS, "positions 'rotory'.*'rotary'"),
        ({}, np.zeros((2, 13), int), '13 tokens.*for 12'),
        ({}, np.zeros((2, 8, 8, 3), np.float32), r'int \[B, T\], got float32 \[2, 8, 8, 3\]'),
        ({'heads': 3}, TOKENS, '3 heads cannot share 16'),
        ({'key_heads': 3, 'heads': 4}, TOKENS, '4 heads cannot share 3'),
    ],
)
def test_refuses_what_does_not_fit_before_anything_is_compiled(kwargs, tokens, message):
    with pytest.raises(ConfigError, match=message):
        jax.eval_shape(created(**kwargs).init, jax.random.key(0), tokens)


ALBERT = {'depth': 3, 'share_layers': True, 'embedding_dim': 6}


def test_one_block_is_applied_as_often_as_the_network_is_deep():
    """Its parameters are there once, its multiply-adds twice."""

    def counted(**kwargs):
        module = created(**kwargs)
        variables = jax.eval_shape(module.init, jax.random.key(0), TOKENS)
        return cost.parameters(variables), cost.multiply_adds(module.apply, variables, TOKENS)

    shared = counted(depth=2, share_layers=True)
    assert shared == (counted(depth=1)[0], counted(depth=2)[1])


def test_a_small_embedding_is_mapped():
    shapes = jax.eval_shape(created('pretraining', **ALBERT).init, jax.random.key(0), TOKENS)['params']
    assert {name for name in shapes if name.startswith('block')} == {'block1'}
    assert shapes['token_embedding']['embedding'].shape == (50, 6) and shapes['transform']['kernel'].shape == (16, 6)
    assert shapes['embedding_projection']['kernel'].shape == (6, 16)


@pytest.mark.long
@pytest.mark.parametrize('remat', ['none', 'block'])
def test_shared_layers_drop_out_apart(remat):
    """With the branches' weights at 0 a block is dropout of its bias: the same mask in both turns would leave 0 or twice."""
    module = created(depth=2, share_layers=True, dropout=0.5, attention_dropout=0.0, norm='none', remat=remat)
    variables = jax.jit(module.init)(jax.random.key(0), TOKENS)
    told = {'position': np.stack([np.zeros(3), np.arange(3)], -1).astype(np.uint32), 'rng': jax.random.key(2)}
    filled = jax.tree_util.tree_map_with_path(lambda path, _: told[path[-1].key], variables['example'])
    params = jax.tree.map(jnp.zeros_like, variables['params'])
    params['block1']['mlp_out']['bias'] += 1
    found = jax.jit(functools.partial(module.apply, train=True))({'params': params, 'example': filled}, TOKENS)[0]
    assert set(np.unique(found)) == {0, 2, 4}


@pytest.mark.parametrize('kwargs', [{'share_layers': True}, {'embedding_dim': 6}], ids=str)
def test_weights_of_bert_are_refused(kwargs):
    with pytest.raises(ConfigError, match='do not fit shared layers'):
        list(created().SOURCES['huggingface'].layers(created(**kwargs)))


# Head, transformers' class without 'Bert', its outputs.
CLASSES = {
    'none': ('Model', ('last_hidden_state', 'pooler_output')),
    'pretraining': ('ForPreTraining', ('prediction_logits', 'seq_relationship_logits')),
    'classification': ('ForSequenceClassification', ('logits',)),
    'tagging': ('ForTokenClassification', ('logits',)),
    'question_answering': ('ForQuestionAnswering', ('start_logits', 'end_logits')),
}


def theirs(head):
    """transformers' network of the same sizes at random weights, in which every bias and scale shows."""
    references.libraries()
    import torch
    import transformers

    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=50,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=12,
        num_labels=2 if head == 'question_answering' else 3,
        attn_implementation='sdpa',
    )
    network = getattr(transformers, f'Bert{CLASSES[head][0]}')(config).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return torch, network


def as_ours(module, tensors):
    """Tensors by transformers' names as the network's parameters."""
    source = module.SOURCES['huggingface']
    spelt = {whole: tensors[name] for name, whole in entries.canonical(source, tensors).items()}
    shapes = flax.traverse_util.flatten_dict(jax.eval_shape(module.init, jax.random.key(0), TOKENS))
    rows = entries.entries(module, source, {path: leaf.shape for path, leaf in shapes.items()})
    leaves = {row.path: row.inward([spelt[name] for name in row.theirs]) for row in rows}
    return flax.traverse_util.unflatten_dict(leaves)


def close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parity
@pytest.mark.parametrize('head', CLASSES)
def test_outputs_and_gradients_are_those_of_transformers(head):
    torch, network = theirs(head)
    module = created(head, depth=2)
    params = as_ours(module, {name: tensor.detach().numpy() for name, tensor in network.named_parameters()})['params']
    positions = np.random.default_rng(3).integers(0, 12, (3, 8))

    def outputs(params, tokens, segments=None, mask=None, positions=None):
        found = module.apply({'params': params}, tokens, segments, mask, positions=positions)
        return (found[..., 0], found[..., 1]) if head == 'question_answering' else jax.tree.leaves(found)

    def real(output):  # padding's own outputs mean nothing
        return output[MASK] if output.shape[:2] == MASK.shape else output

    def loss(params, *inputs):
        found = outputs(params, *inputs)
        return sum(jnp.sin(real(a)).sum() for a in found), found

    inputs = TOKENS, SEGMENTS, MASK, positions
    (_, found), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(params, *inputs)
    told = [torch.tensor(a) for a in inputs]
    result = network(told[0], token_type_ids=told[1], attention_mask=told[2].long(), position_ids=told[3])
    expected = [real(getattr(result, name)) for name in CLASSES[head][1]]
    sum(torch.sin(a).sum() for a in expected).backward()
    for ours, a in zip(found, expected, strict=True):
        close(real(ours), a.detach().numpy())
    grads = {name: tensor.grad.numpy() for name, tensor in network.named_parameters() if tensor.grad is not None}
    scale = max(np.abs(g).max() for g in grads.values())
    expected = as_ours(module, grads)['params']
    for (path, ours), a in zip(jax.tree.leaves_with_path(gradients), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(ours, a, rtol=0, atol=1e-4 * scale, err_msg=jax.tree_util.keystr(path))
    for name in ('token_embedding', 'position_embedding', 'segment_embedding'):
        close(gradients[name]['embedding'], expected[name]['embedding'])
    another = outputs(params, np.roll(TOKENS, 1), *inputs[1:])
    assert all(np.abs(a - b).max() > 1e-2 for a, b in zip(another, found, strict=True))


_ALBERT_BLOCK = 'albert.encoder.albert_layer_groups.0.albert_layers.0.'
_ALBERT = {
    'token_embedding/embedding': 'albert.embeddings.word_embeddings.weight',
    'position_embedding/embedding': 'albert.embeddings.position_embeddings.weight',
    'segment_embedding/embedding': 'albert.embeddings.token_type_embeddings.weight',
    'embedding_norm': 'albert.embeddings.LayerNorm',
    'embedding_projection': 'albert.encoder.embedding_hidden_mapping_in',
    'block1/projection': _ALBERT_BLOCK + 'attention.dense',
    'block1/attention_norm': _ALBERT_BLOCK + 'attention.LayerNorm',
    'block1/mlp_in': _ALBERT_BLOCK + 'ffn',
    'block1/mlp_out': _ALBERT_BLOCK + 'ffn_output',
    'block1/mlp_norm': _ALBERT_BLOCK + 'full_layer_layer_norm',
    'pooler': 'albert.pooler',
    'transform': 'predictions.dense',
    'transform_norm': 'predictions.LayerNorm',
    'vocabulary_bias': 'predictions.bias',
    'next_sentence': 'sop_classifier.classifier',
}


@pytest.mark.parity
def test_shared_layers_and_a_small_embedding_are_transformers_albert():
    references.libraries()
    import torch
    import transformers

    torch.manual_seed(0)
    config = transformers.AlbertConfig(
        vocab_size=50,
        embedding_size=6,
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=12,
        hidden_act='gelu',
    )
    network = transformers.AlbertForPreTraining(config).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    tensors = {name: tensor.detach().numpy() for name, tensor in network.named_parameters()}
    leaves, module = {}, created('pretraining', **ALBERT)
    for ours, theirs in _ALBERT.items():
        if theirs in tensors:
            leaves[ours] = tensors[theirs]
        else:
            leaves[f'{ours}/{"scale" if ours.endswith("norm") else "kernel"}'] = tensors[f'{theirs}.weight'].T
            leaves[f'{ours}/bias'] = tensors[f'{theirs}.bias']
    for ours, theirs in (('kernel', 'weight'), ('bias', 'bias')):
        parts = [tensors[f'{_ALBERT_BLOCK}attention.{part}.{theirs}'].T for part in ('query', 'key', 'value')]
        leaves[f'block1/qkv/{ours}'] = np.concatenate(parts, -1)
    params = flax.traverse_util.unflatten_dict(leaves, sep='/')
    found = jax.jit(module.apply)({'params': params}, TOKENS, SEGMENTS, MASK)
    told = [torch.tensor(a) for a in (TOKENS, SEGMENTS, MASK)]
    with torch.no_grad():
        expected = network(told[0], token_type_ids=told[1], attention_mask=told[2].long())
    close(found[0][MASK], expected.prediction_logits.numpy()[MASK])
    close(found[1], expected.sop_logits.numpy())
