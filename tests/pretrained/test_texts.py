"""BERT's weights from Hugging Face's folders, and back: sizes from the config, heads of other tasks, tensors that are tied."""

import json

import jax
import numpy as np
import pytest
import references
from safetensors.numpy import load_file, save_file

from research import models, pretrained
from research.catalogue import ConfigError

SIZES = {'vocabulary_size': 20, 'dim': 8, 'depth': 2, 'heads': 2, 'width': 12, 'max_length': 6}
CONFIG = {
    'model_type': 'bert',
    'vocab_size': 20,
    'hidden_size': 8,
    'num_hidden_layers': 2,
    'num_attention_heads': 2,
    'intermediate_size': 12,
    'max_position_embeddings': 6,
    'type_vocab_size': 2,
    'layer_norm_eps': 1e-6,
    'hidden_act': 'gelu',
}
TOKENS = np.random.default_rng(0).integers(1, 20, (3, 6))


def same(found, expected):
    jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.fixture
def folder(tmp_path):
    """A pretrained network as Hugging Face's folders have it, and its variables."""
    module = models.create('bert', head='pretraining', **SIZES)
    shapes, rng = jax.eval_shape(module.init, jax.random.key(0), TOKENS), np.random.default_rng(0)
    variables = {'params': jax.tree.map(lambda s: rng.normal(size=s.shape).astype(np.float32), shapes['params'])}
    pretrained.save(module, variables, tmp_path / 'model.safetensors', 'huggingface')
    (tmp_path / 'config.json').write_text(json.dumps(CONFIG))
    return tmp_path, variables


def changed(path, change):
    tensors = load_file(path / 'model.safetensors')
    save_file(change(tensors), path / 'model.safetensors', {'format': 'pt'})


def test_sizes_come_from_the_config_beside_the_weights(folder):
    path, expected = folder
    module, variables = pretrained.load('bert', path, head='pretraining')
    assert {key: getattr(module, key) for key in SIZES} == SIZES and module.norm['epsilon'] == 1e-6
    same(variables, expected)


def test_another_head_is_drawn_and_the_files_own_is_kept_aside(folder, tmp_path):
    path, expected = folder
    with pytest.warns(UserWarning, match="'head', because the file has none"):
        module, variables = pretrained.load('bert', path, head='classification', num_classes=3)
    assert variables['params'].pop('head')['kernel'].shape == (8, 3)
    same(variables['params'], {key: expected['params'][key] for key in variables['params']})
    variables['params']['head'] = {'kernel': np.ones((8, 3), np.float32), 'bias': np.zeros(3, np.float32)}
    pretrained.save(module, variables, tmp_path / 'new' / 'model.safetensors', 'huggingface')
    new, old = (load_file(p / 'model.safetensors') for p in (tmp_path / 'new', path))
    assert set(new) - set(old) == {'classifier.weight', 'classifier.bias'}
    same({name: new[name] for name in old}, old)


def test_a_tensor_that_repeats_the_embedding_is_used_once(folder):
    path, expected = folder
    table, decoder = 'bert.embeddings.word_embeddings.weight', 'cls.predictions.decoder.weight'
    changed(path, lambda t: {**t, decoder: t[table]})
    same(pretrained.load('bert', path, head='pretraining')[1], expected)
    changed(path, lambda t: {name: a for name, a in t.items() if name != table})
    same(pretrained.load('bert', path, head='pretraining')[1], expected)
    changed(path, lambda t: {**t, table: t[decoder] + 1})
    with pytest.raises(ConfigError, match=f"'{decoder}' .* has no place"):
        pretrained.load('bert', path, head='pretraining')


def test_names_of_the_first_files_are_read(folder):
    path, expected = folder
    old = {'LayerNorm.weight': 'LayerNorm.gamma', 'LayerNorm.bias': 'LayerNorm.beta'}

    def spelt(name):
        return next((name.replace(new, first) for new, first in old.items() if name.endswith(new)), name)

    changed(path, lambda t: {spelt(name): a for name, a in t.items()})
    same(pretrained.load('bert', path, head='pretraining')[1], expected)


@pytest.mark.parametrize(
    ('name', 'config', 'message'),
    [
        ('bert_tiny', {}, r"'dim': 8.*not a 'bert_tiny' .*load it as 'bert'"),
        ('bert', {'model_type': 'roberta'}, "is a 'roberta', and 'bert' is none"),
        ('bert', {'hidden_act': 'gelu_new'}, "Unknown activation 'gelu_new'.*'gelu'"),
        ('bert', {'position_embedding_type': 'relative_key'}, "positions of kind 'relative_key'"),
        pytest.param(
            'bert', {'vocab_size': 21}, r"word_embeddings.weight' is \[20, 8\], expected \[21", marks=pytest.mark.long
        ),
    ],
)
def test_a_folder_of_another_network_is_refused(folder, name, config, message):
    path, _ = folder
    (path / 'config.json').write_text(json.dumps(CONFIG | config))
    with pytest.raises(ConfigError, match=message):
        pretrained.load(name, path, head='pretraining')


@pytest.mark.long
def test_a_missing_layer_is_named(folder):
    path, _ = folder
    changed(path, lambda t: {name: a for name, a in t.items() if 'layer.1.attention.self.key' not in name})
    with pytest.raises(ConfigError, match=r"bert.encoder.layer.1.attention.self.key.bias' \[8\] is not in the file"):
        pretrained.load('bert', path, head='pretraining')


CLASSES = {
    'none': 'Model',
    'pretraining': 'ForPreTraining',
    'classification': 'ForSequenceClassification',
    'tagging': 'ForTokenClassification',
    'question_answering': 'ForQuestionAnswering',
}


@pytest.mark.parity
@pytest.mark.parametrize('head', CLASSES)
def test_a_folder_of_transformers_is_read_and_written_back(head, tmp_path):
    torch, *_ = references.libraries()
    import transformers

    torch.manual_seed(0)
    sizes = {key: value for key, value in CONFIG.items() if key != 'model_type'}
    labels = 2 if head == 'question_answering' else 3
    network = getattr(transformers, f'Bert{CLASSES[head]}')(transformers.BertConfig(num_labels=labels, **sizes)).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
        network.save_pretrained(tmp_path)
        expected = [a.numpy() for a in network(torch.tensor(TOKENS)).to_tuple()]
    module, variables = pretrained.load('bert', tmp_path, head=head)
    found = jax.tree.leaves(jax.jit(module.apply)({'params': variables['params']}, TOKENS))
    found = [found[0][..., 0], found[0][..., 1]] if head == 'question_answering' else found
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4 * np.abs(theirs).max())
    pretrained.save(module, variables, tmp_path / 'new' / 'model.safetensors', 'huggingface')
    old, new = (load_file(p / 'model.safetensors') for p in (tmp_path, tmp_path / 'new'))
    same(new, {(name if head != 'none' else f'bert.{name}'): a for name, a in old.items()})


@pytest.mark.parity
def test_a_folder_of_transformers_is_read_beneath_a_recurrent_network(tmp_path):
    torch, *_ = references.libraries()
    import transformers

    torch.manual_seed(0)
    config = transformers.BertConfig(**{key: value for key, value in CONFIG.items() if key != 'model_type'})
    network = transformers.BertModel(config).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
        network.save_pretrained(tmp_path)
        expected = network(torch.tensor(TOKENS)).last_hidden_state.numpy()
    group = {'name': 'bert_lstm', 'num_classes': 0, 'init_from': str(tmp_path), 'width': 3}
    module = models.create('bert_lstm', **pretrained.arguments(group))
    variables = pretrained.weights(module, 'bert_lstm', str(tmp_path), (1, 1))
    assert set(variables['params']) == {'encoder'}
    found, _ = jax.jit(module.part().apply)({'params': variables['params']['encoder']}, TOKENS)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * np.abs(expected).max())
