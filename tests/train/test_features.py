"""A recurrent network over a BERT is trained: it starts from BERT's weights, and these stay, bit for bit."""

import json

import jax
import numpy as np
import pytest
import tiny

from research import models, pretrained
from research.catalogue import ConfigError
from research.train import checkpoint
from research.train.clock import Clock

SIZES = {'vocabulary_size': 32, 'dim': 8, 'depth': 1, 'heads': 2, 'max_length': 12}
TEXTS = {
    'data.name': 'text:load',
    'task.name': 'text:task',
    'data.batch_size': 16,
    'model': {'name': 'bert_lstm', 'head': 'classification', 'width': 6},
    'optimizer': {'name': 'adamw', 'learning_rate': 0.01, 'weight_decay': 0.1},
    'train.devices': 1,
    'study.budget': '40st',
}
STAYS = {'optimizer.rate_multipliers': (('encoder/*', 0.0),)}


def drawn(name, num_classes=3, **kwargs):
    """(module, its parameters, none of them as it begins)."""
    module = models.create(name, num_classes, **kwargs)
    shapes, draw = jax.eval_shape(module.init, jax.random.key(0), np.zeros((1, 3), int))['params'], np.random.default_rng(0)
    return module, jax.tree.map(lambda s: draw.normal(0, 0.1, s.shape).astype(np.float32), shapes)


@pytest.fixture
def folder(tmp_path):
    """(a folder of Hugging Face's, the parameters in it)."""
    module, params = drawn('bert', head='pretraining', width=12, **SIZES)
    pretrained.save(module, {'params': params}, tmp_path / 'model.safetensors', 'huggingface')
    theirs = {'vocab_size': 32, 'hidden_size': 8, 'num_hidden_layers': 1, 'num_attention_heads': 2, 'intermediate_size': 12}
    (tmp_path / 'config.json').write_text(
        json.dumps({'model_type': 'bert', 'max_position_embeddings': 12, 'layer_norm_eps': 1e-6, **theirs})
    )
    return tmp_path, params


def run_of(folder, name, params, **kwargs):
    """A finished run of a network, as a path."""
    checkpoint.save_variables(folder / 'runs' / 'a' / 'scored', {'params': params})
    group = {'name': name, 'num_classes': 3, 'init_from': '', **kwargs}
    for record, content in (('config', {'model': group}), ('result', {'status': 'finished'})):
        (folder / 'runs' / 'a' / f'{record}.json').write_text(json.dumps(content))
    (folder / 'study.json').write_text(json.dumps({'runs': {'baseline': {'0': 'a'}}}))
    return f'{folder}:baseline:0'


def test_a_folders_weights_are_the_encoders_and_stay(folder, session):
    """Under a decay that would move them. The rest is drawn, by the seed."""
    path, theirs = folder
    built = tiny.build(session, TEXTS, STAYS, {'model.init_from': str(path)})
    module = built.program.step.module
    assert module.encoder['width'] == 12 and module.encoder['norm']['epsilon'] == 1e-6 and module.vocabulary_size == 32
    before, after = built.init(Clock()).params, tiny.steps(built, 2)[0].params
    tiny.assert_same_bits(before['encoder'], {name: theirs[name] for name in before['encoder']})
    tiny.assert_same_bits(after['encoder'], before['encoder'])
    for name in ('forward1', 'backward1', 'head'):
        assert all((a != b).any() for a, b in zip(*map(jax.tree.leaves, (after[name], before[name])), strict=True)), name


def test_a_runs_weights_are_the_encoders(tmp_path, session):
    """Of a network with a name of its own, which says what the run's record does not: the width of 'bert_mini' is 1024."""
    _, theirs = drawn('bert_mini', head='pretraining', **SIZES)
    path = run_of(tmp_path, 'bert_mini', theirs, head='pretraining', **SIZES)
    built = tiny.build(session, TEXTS, {'model.init_from': path})
    before = built.init(Clock()).params
    tiny.assert_same_bits(before['encoder'], {name: theirs[name] for name in before['encoder']})
    assert before['encoder']['block1']['mlp_in']['kernel'].shape == (8, 1024)


def test_a_run_of_its_own_is_all_of_it(tmp_path, session):
    whole = {'vocabulary_size': 32, 'encoder': {'dim': 8, 'depth': 1, 'width': 12}, 'width': 6, 'head': 'classification'}
    _, theirs = drawn('bert_lstm', **whole)
    built = tiny.build(session, TEXTS, {'model.init_from': run_of(tmp_path, 'bert_lstm', theirs, **whole)})
    tiny.assert_same_bits(built.init(Clock()).params, theirs)


def test_what_a_config_says_of_the_encoder_is_over_what_its_weights_say(folder):
    group = {'name': 'bert_lstm', 'num_classes': 0, 'init_from': str(folder[0]), 'width': 6, 'encoder': {'activation': 'relu'}}
    given = pretrained.arguments(group)
    assert given['encoder']['activation'] == 'relu' and given['encoder']['dim'] == 8 and given['width'] == 6
    assert not {'head', 'dropout', 'vocabulary_size'} & set(given['encoder'])


def test_a_bert_of_our_own_file_is_the_encoders(tmp_path, session):
    module, theirs = drawn('bert', width=12, **SIZES)
    pretrained.save(module, {'params': theirs}, tmp_path / 'a.safetensors', 'frugal')
    built = tiny.build(session, TEXTS, {'model.init_from': str(tmp_path / 'a.safetensors')})
    before = built.init(Clock()).params
    tiny.assert_same_bits(before['encoder'], {name: theirs[name] for name in before['encoder']})


def test_an_encoder_without_weights_is_told(folder):
    with pytest.warns(UserWarning, match="'bert_lstm' learns over an encoder that is drawn and stays so"):
        pretrained.arguments({'name': 'bert_lstm', 'num_classes': 0, 'init_from': ''})


@pytest.mark.parametrize(
    ('encoder', 'message'), [({'dropout': 0.5}, "takes no argument 'dropout'"), ('bert_mini', 'expected its fields')]
)
def test_what_is_no_field_of_the_encoder_is_refused_with_weights_too(folder, encoder, message):
    with pytest.raises(ConfigError, match=message):
        pretrained.arguments({'name': 'bert_lstm', 'num_classes': 0, 'init_from': str(folder[0]), 'encoder': encoder})


def test_a_run_of_another_kind_is_refused(tmp_path):
    path = run_of(tmp_path, 'cnn', {'head': np.zeros(3, np.float32)})
    with pytest.raises(ConfigError, match="is a 'cnn', and 'bert_lstm' starts from a BERT or a 'bert_lstm'"):
        pretrained.arguments({'name': 'bert_lstm', 'num_classes': 0, 'init_from': path})
