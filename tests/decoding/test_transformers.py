"""GPT and the Transformer, decoded: with caches as without, and as transformers decodes."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import references

from research import decoding, models, pretrained

BOS, EOS, VOCABULARY, LENGTH = 0, 1, 12, 10
SMALL = {'dim': 16, 'depth': 2, 'heads': 2, 'width': 32, 'vocabulary_size': VOCABULARY}
NETWORKS = [
    ('gpt', {}),
    pytest.param('gpt', {'positions': 'rotary', 'key_heads': 1}, marks=pytest.mark.long),
    pytest.param('transformer', {}, marks=pytest.mark.long),
    ('transformer', {'positions': 'learned', 'norm_first': True, 'decoder_depth': 1}),
    ('transformer', {'decoder_attention': 'average', 'decoder_depth': 1}),
]
RNG = np.random.default_rng(0)
TOKENS = RNG.integers(2, VOCABULARY, (5, 6))
LENGTHS = np.array([[6], [1], [3], [4], [2]])


class Anew(nn.Module):
    """A network without its cache: it is called with the whole text at each step."""

    net: nn.Module
    continues: bool

    def start(self, inputs, mask, size):
        mask = jnp.ones(inputs.shape, bool) if mask is None else mask
        room = jnp.zeros((len(inputs), size), jnp.int32)
        if not self.continues:
            return {'source': inputs, 'mask': mask, 'text': room, 'seen': room.astype(bool), 'at': jnp.int32(0)}, None
        text = jnp.concatenate([inputs[:, :-1], room], axis=1)
        seen = jnp.concatenate([mask[:, :-1], room.astype(bool)], axis=1)
        return {'text': text, 'seen': seen, 'at': jnp.int32(inputs.shape[1] - 1)}, inputs[:, -1]

    def step(self, tokens, state):
        at = state['at']
        text, seen = state['text'].at[:, at].set(tokens), state['seen'].at[:, at].set(True)
        logits = self.net(text, seen) if self.continues else self.net(state['source'], text, state['mask'], seen)
        return logits[:, at], state | {'text': text, 'seen': seen, 'at': at + 1}


def created(name: str, fields: dict[str, Any]) -> tuple[nn.Module, Any]:
    """Texts differ where scales of norm layers are random, as a token is then not its own likeliest successor."""
    module, rng = models.create(name, **SMALL, **fields), np.random.default_rng(0)

    def drawn(path, leaf):
        return rng.normal(size=leaf.shape).astype(np.float32) if path[-1].key == 'scale' else 5 * leaf

    params = jax.jit(module.init)(jax.random.key(0), TOKENS[:1])['params']
    return module, {'params': jax.tree_util.tree_map_with_path(drawn, params)}


@pytest.mark.parametrize('name, fields', NETWORKS, ids=str)
def test_decoding_with_a_cache_is_decoding_the_whole_text_anew(name, fields):
    module, variables = created(name, fields)
    anew, its = Anew(module, name == 'gpt'), {'params': {'net': variables['params']}}
    places = np.arange(6)[None]
    given = {'max_length': LENGTH, 'bos': BOS, 'eos': EOS, 'mask': places >= 6 - LENGTHS if name == 'gpt' else places < LENGTHS}
    greedy = decoding.greedy(module, variables, TOKENS, **given)
    np.testing.assert_array_equal(greedy, decoding.greedy(anew, its, TOKENS, **given))
    assert len(np.unique(greedy, axis=0)) > 1
    (found, scores), (expected, its_scores) = (
        decoding.beam(*network, TOKENS, n_best=2, **given) for network in ((module, variables), (anew, its))
    )
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_allclose(scores, its_scores, rtol=1e-4)


def test_one_beam_over_sums_is_greedy():
    module, variables = created('transformer', {'decoder_attention': 'average', 'decoder_depth': 1})
    given = {'max_length': 8, 'bos': BOS, 'eos': EOS}
    texts, _ = decoding.beam(module, variables, TOKENS, beam_size=1, **given)
    np.testing.assert_array_equal(texts, decoding.greedy(module, variables, TOKENS, **given))
    assert len(np.unique(texts, axis=0)) > 1


@pytest.fixture(scope='module')
def gpt2(tmp_path_factory):
    """transformers' GPT-2, with random weights as above, and ours with the same."""
    torch, _, _ = references.libraries()
    import transformers

    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=VOCABULARY, n_embd=16, n_layer=2, n_head=2, n_positions=64, initializer_range=0.1, bos_token_id=BOS,
        eos_token_id=EOS, pad_token_id=EOS,
    )  # fmt: skip
    theirs = transformers.GPT2LMHeadModel(config).eval()
    for name, parameter in theirs.named_parameters():
        if 'ln_' in name and name.endswith('weight'):
            parameter.data.normal_()
    folder = tmp_path_factory.mktemp('gpt2')
    theirs.save_pretrained(folder)
    return theirs, *pretrained.load('gpt', folder)


def generated(theirs, mask, length=20, **options):
    """transformers' texts behind the prompts, filled up with `eos`, and what else it gives."""
    import torch

    with torch.inference_mode():
        found = theirs.generate(
            torch.tensor(TOKENS), attention_mask=torch.tensor(mask).long(), max_new_tokens=length, do_sample=False,
            return_dict_in_generate=True, output_scores=True, **options,
        )  # fmt: skip
    texts = found.sequences[:, TOKENS.shape[1] :].numpy()
    return np.pad(texts, ((0, 0), (0, length - texts.shape[1])), constant_values=EOS), found


@pytest.mark.parity
@pytest.mark.parametrize('lengths', [np.full((5, 1), 6), LENGTHS], ids=['full', 'padded'])
def test_greedy_is_that_of_transformers(gpt2, lengths):
    theirs, module, variables = gpt2
    mask = np.arange(6)[None] >= 6 - lengths
    expected, _ = generated(theirs, mask)
    np.testing.assert_array_equal(decoding.greedy(module, variables, TOKENS, 20, BOS, EOS, mask=mask), expected)
    assert len({tuple(text) for text in expected.tolist()}) > 2


@pytest.mark.parity
@pytest.mark.parametrize('lengths', [np.full((5, 1), 6), LENGTHS], ids=['full', 'padded'])
@pytest.mark.parametrize('early_stopping', [False, True])
@pytest.mark.parametrize('alpha', [0.0, 0.6, 1.0, 2.0, -0.5])
def test_beam_search_is_that_of_transformers(gpt2, lengths, early_stopping, alpha):
    theirs, module, variables = gpt2
    mask = np.arange(6)[None] >= 6 - lengths
    options = {'num_beams': 4, 'length_penalty': alpha, 'early_stopping': early_stopping or 'never', 'num_return_sequences': 3}
    expected, found = generated(theirs, mask, **options)
    given = {'length_penalty': alpha, 'penalty': 'power', 'early_stopping': early_stopping, 'n_best': 3, 'mask': mask}
    texts, scores = decoding.beam(module, variables, TOKENS, 20, BOS, EOS, **given)
    np.testing.assert_array_equal(texts.reshape(15, 20), expected)
    np.testing.assert_allclose(scores.reshape(15), found.sequences_scores.numpy(), rtol=1e-4)
