"""GPT-2 as Hugging Face's folders have it: its tokenizer, a step on texts, and what it writes behind prompts."""

import dataclasses
import shutil

import jax
import numpy as np
import pytest
import references
from config_file import written
from tokenizers import Tokenizer, decoders, pre_tokenizers, processors, trainers
from tokenizers.models import BPE

import research
from research import decoding, models, pretrained
from research.data import tokenizer
from research.study import launch
from research.study.trained import Trained

TEXTS = [
    'The quick brown fox',
    '  jumps over  the\tlazy dog ',
    'Füchse über Zäune',
    'a 🦊, and 🐕‍🦺!',
    "it's 1,000 foxes\n\nnow",
]


@pytest.fixture(scope='module')
def bytes_alone():
    """Byte pairs with GPT-2's one special token."""
    made = Tokenizer(BPE())
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    made.post_processor = processors.ByteLevel(trim_offsets=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=['<|endoftext|>'], initial_alphabet=alphabet, show_progress=False
    )
    made.train_from_iterator(TEXTS * 3, trainer)
    return made


@pytest.fixture(scope='module', params=['tokenizer.json', 'vocab.json and merges.txt'])
def folder(request, tmp_path_factory, bytes_alone):
    """transformers' GPT-2 with random weights; scales of norm layers are random too, so that texts differ."""
    torch, _, _ = references.libraries()
    import transformers

    torch.manual_seed(0)
    sizes = {'n_embd': 16, 'n_layer': 2, 'n_head': 2, 'n_positions': 64, 'initializer_range': 0.1}
    theirs = transformers.GPT2LMHeadModel(transformers.GPT2Config(vocab_size=300, **sizes, bos_token_id=0, eos_token_id=0))
    for name, parameter in theirs.named_parameters():
        if 'ln_' in name and name.endswith('weight'):
            parameter.data.normal_()
    made = tmp_path_factory.mktemp('gpt2')
    theirs.save_pretrained(made)
    if request.param == 'tokenizer.json':
        bytes_alone.save(str(made / request.param))
    else:
        bytes_alone.model.save(str(made))
    return made


def theirs_of(folder):
    import transformers

    if (folder / 'tokenizer.json').exists():
        return transformers.PreTrainedTokenizerFast(tokenizer_file=str(folder / 'tokenizer.json'))
    return transformers.GPT2TokenizerFast(vocab=str(folder / 'vocab.json'), merges=str(folder / 'merges.txt'))


@pytest.mark.parity
def test_tokens_are_those_of_transformers(folder):
    rows, _, made = tokenizer.rows(
        {'text': np.array(TEXTS, object)},
        {'train': np.arange(5)},
        {'tokenizer': {'name': 'file', 'path': str(folder)}, 'length': 40, 'pack': False},
    )
    for text, tokens, mask in zip(TEXTS, rows['tokens'], rows['mask'], strict=True):
        assert tokens[mask].tolist() == [0, *theirs_of(folder)(text).input_ids, 0]
        assert not tokens[~mask].any() and made.decode(tokens.tolist()) == text


STUDY = """
config.data.update({'name': 'texts', 'path': 'lines.txt', 'length': 16, 'test': 0.2, 'validation': 0, 'batch_size': 8})
config.data.eval_batch_size = 4
config.task.name = 'language_model'
config.model = {'name': 'gpt', 'num_classes': 0, 'init_from': 'gpt2'}
config.optimizer.update({'name': 'adam', 'learning_rate': 0.01})
config.train.devices = 1
config.study.update({'metric': 'test/loss', 'higher_is_better': False, 'budget': '1st'})
config.study.update({'seeds': 1, 'null': False, 'latency': ()})
"""


@pytest.mark.parity
@pytest.mark.usefixtures('without_plots')
def test_a_step_from_its_weights_and_then_it_writes_as_transformers_does(folder, tmp_path, monkeypatch):
    import torch
    import transformers

    monkeypatch.chdir(tmp_path)
    (tmp_path / 'gpt2').symlink_to(folder)
    (tmp_path / 'lines.txt').write_text('\n'.join(f'{number} {text.strip()}' for number in range(20) for text in TEXTS[:4]))
    assert launch.launch(str(written(tmp_path, STUDY)), 'runs', {}) == 0
    model = research.study.load('runs', 'baseline', 0)
    assert model.data['facts']['special_tokens'] == [0, None, 0, 0, None]
    start, after = pretrained.load('gpt', folder)[1]['params'], model.variables['params']
    moved = jax.tree.map(lambda one, other: float(np.abs(one - other).max()), start, after)
    assert 0 < max(jax.tree.leaves(moved)) < 0.011  # a step of Adam is as long as its rate

    pretrained.save(*model, tmp_path / 'after' / 'model.safetensors', 'huggingface')
    shutil.copy(folder / 'config.json', tmp_path / 'after')
    theirs, read = transformers.GPT2LMHeadModel.from_pretrained(tmp_path / 'after').eval(), theirs_of(folder)
    said = model.generate(TEXTS, max_length=12, temperature=0)
    assert len({*said}) > 2
    for text, ours in zip(TEXTS, said, strict=True):
        ids = torch.tensor([[0, *read(text).input_ids]])
        with torch.inference_mode():
            found = theirs.generate(ids, max_new_tokens=12, do_sample=False, pad_token_id=0)[0, ids.shape[1] :]
        assert ours == read.decode(found, skip_special_tokens=True)


@pytest.fixture(scope='module')
def model(tmp_path_factory, bytes_alone):
    """One with random weights, which takes two prompts at a time."""
    path = tmp_path_factory.mktemp('tokenizer') / 'tokenizer.json'
    bytes_alone.save(str(path))
    made = tokenizer.create({'name': 'file', 'path': str(path)}, ())
    made.save(str(path))
    module, rng = models.create('gpt', vocabulary_size=300, dim=16, depth=1, heads=2), np.random.default_rng(0)
    shapes = jax.eval_shape(module.init, jax.random.key(0), np.zeros((1, 1), int))
    variables = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes)
    train = {'precision': 'float32', 'matmul_precision': 'default'}
    config = {'task': {'name': 'language_model'}, 'train': train, 'data': {'eval_batch_size': 2}}
    return Trained(module, variables, config, {}, tokenizer.saved(path))


def with_config(model, group, **changes):
    return dataclasses.replace(model, config={**model.config, group: {**model.config[group], **changes}})


def test_what_is_drawn_for_a_prompt_is_the_same_in_parts_of_any_size(model):
    drawn = model.generate(TEXTS, max_length=12)
    assert drawn == with_config(model, 'data', eval_batch_size=100).generate(TEXTS, max_length=12)
    assert drawn[:1] == model.generate(TEXTS[:1], max_length=12) != model.generate(TEXTS[:1], max_length=12, seed=1)
    same = model.generate(TEXTS[:1] * 5, max_length=12)
    assert len({*same}) == 5, 'each has draws of its own, the last part too'


def test_it_writes_behind_the_start_and_the_prompt_in_the_runs_precision(model):
    start = model.tokenizer.token_to_id('<|endoftext|>')
    prompt = np.array([[start, *model.tokenizer.encode('a fox', add_special_tokens=False).ids]])
    written, options = [], {'temperature': 10.0, 'top_k': 50}
    for precision in ('float32', 'bfloat16'):
        variables = jax.tree.map(lambda leaf, precision=precision: leaf.astype(precision), model.variables)
        tokens = decoding.sample(model.module, variables, prompt, 30, start, start, jax.random.key(0), **options)
        written += with_config(model, 'train', precision=precision).generate(['a fox'], max_length=30, **options)
        assert written[-1] == model.tokenizer.decode(np.asarray(tokens)[0].tolist())
    assert written[0] != written[1]
