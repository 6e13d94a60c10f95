"""Greedy decoding and sampling, and what all ways of decoding refuse."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats
import toys

from research import decoding
from research.catalogue import ConfigError

BOS, EOS = 0, 1
TRIGRAM, TRANSLATOR = toys.Trigram(), toys.Translator()
TABLE = TRIGRAM.init(jax.random.key(0))
WEIGHTS = TRANSLATOR.init(jax.random.key(1), jnp.zeros((1, 1), jnp.int32))
RNG = np.random.default_rng(0)
PROMPTS, SOURCES = RNG.integers(0, 4, (12, 3)), RNG.integers(0, 5, (12, 4))


def by_hand(module, variables, row, length):
    """The most likely tokens behind one row, step by step, without a program."""
    state, token = module.apply(variables, row[None], None, length, method='start')
    token, found = np.array([BOS]) if token is None else token, []
    while len(found) < length and EOS not in found:
        logits, state = module.apply(variables, token, state, method='step')
        token = np.argmax(logits, -1)
        found.append(int(token[0]))
    return found + [EOS] * (length - len(found))


@pytest.mark.parametrize('module, variables, inputs', [(TRIGRAM, TABLE, PROMPTS), (TRANSLATOR, WEIGHTS, SOURCES)])
def test_each_row_is_decoded_as_alone(module, variables, inputs):
    found = decoding.greedy(module, variables, inputs, 7, BOS, EOS)
    expected = [by_hand(module, variables, row, 7) for row in inputs]
    np.testing.assert_array_equal(found, expected)
    lengths = {text.index(EOS) if EOS in text else 7 for text in expected}
    assert len(lengths) > 1, 'texts are to end at different times'


def test_of_equals_the_lowest_token_wins():
    tables = {'params': {'table': RNG.integers(0, 2, (4, 4, 4)).astype(np.float32)}}
    found = decoding.greedy(TRIGRAM, tables, PROMPTS, 7, BOS, EOS)
    np.testing.assert_array_equal(found, [by_hand(TRIGRAM, tables, row, 7) for row in PROMPTS])


def test_padding_of_sources_is_not_read():
    mask = np.arange(4)[None] < RNG.integers(1, 5, (12, 1))
    found = decoding.greedy(TRANSLATOR, WEIGHTS, SOURCES, 7, BOS, EOS, mask=mask)
    np.testing.assert_array_equal(found, [by_hand(TRANSLATOR, WEIGHTS, a[m], 7) for a, m in zip(SOURCES, mask, strict=True)])


def counting_down(vocabulary=10):
    """A network and its table: from any token down to 1, the end, and from 0 without end."""
    following = np.where(np.arange(vocabulary), np.maximum(np.arange(vocabulary) - 1, 1), 0)
    return toys.Trigram(vocabulary), {'params': {'table': np.tile(9 * np.eye(vocabulary)[following], (vocabulary, 1, 1))}}


def test_decoding_ends_with_the_longest_text():
    toys.counts.clear()
    found = decoding.greedy(*counting_down(), np.array([[0, 5], [0, 3], [0, 2], [0, 7]]), 100, BOS, EOS)
    jax.effects_barrier()
    assert found.shape == (4, 100) and found.dtype == jnp.int32
    assert (found[:, :6] == np.array([[4, 3, 2, 1, 1, 1], [2, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1], [6, 5, 4, 3, 2, 1]])).all()
    assert (found[:, 6:] == EOS).all()
    assert toys.counts['step'] == 6


def test_one_program_for_any_number_of_steps_and_three_for_three_batch_sizes():
    module, table = counting_down(11)
    toys.counts.clear()
    for batch in (1, 2, 5):
        for prompt in (2, 10, 0):
            decoding.greedy(module, table, np.full((batch, 2), prompt), 200, BOS, EOS)
    jax.effects_barrier()
    assert toys.counts['start'] == 3
    assert toys.counts['step'] == 3 * (1 + 9 + 200)


def test_a_network_with_the_fields_of_a_config_keeps_its_program():
    class Configured(toys.Trigram):
        norm: Any = None
        parts: Any = None

    expected = decoding.greedy(TRIGRAM, TABLE, PROMPTS, 7, BOS, EOS)
    toys.counts.clear()
    for _ in range(2):
        module = Configured(norm={'name': 'layer', 'axes': [1]}, parts=[nn.Dense(3), {'part': nn.Dense(4)}])
        np.testing.assert_array_equal(decoding.greedy(module, TABLE, PROMPTS, 7, BOS, EOS), expected)
    assert toys.counts['start'] == 1


def test_inside_a_program_of_the_callers():
    inside = jax.jit(lambda prompts, mask: decoding.greedy(TRIGRAM, TABLE, prompts, 7, BOS, EOS, mask=mask))
    np.testing.assert_array_equal(
        inside(PROMPTS, np.ones(PROMPTS.shape, bool)), decoding.greedy(TRIGRAM, TABLE, PROMPTS, 7, BOS, EOS)
    )


def likely(logits, temperature, top_k, top_p):
    """Probabilities of sampling, by sorting in NumPy."""
    shares = scipy.special.softmax(logits.astype(float) / temperature)
    order = np.argsort(-shares)
    order = order[: top_k or None]
    shares = shares[order] / shares[order].sum()
    kept = 1 + np.flatnonzero(np.cumsum(shares) >= top_p - 1e-9)[0]
    found = np.zeros(len(logits))
    found[order[:kept]] = shares[:kept] / shares[:kept].sum()
    return found


@pytest.mark.parametrize(
    'temperature, top_k, top_p, kept',
    [(1.0, 0, 1.0, 9), (0.5, 0, 1.0, 9), (2.0, 4, 1.0, 4), (1.5, 0, 0.7, 4), (1.5, 5, 0.7, 3)],
)
def test_frequencies_are_the_probabilities(temperature, top_k, top_p, kept):
    module, n = toys.Trigram(9), 5000
    logits = np.random.default_rng(3).permutation(np.linspace(-1.5, 2, 9)).astype(np.float32)
    table = {'params': {'table': np.tile(logits, (9, 9, 1))}}
    given = {'temperature': temperature, 'top_k': top_k, 'top_p': top_p}
    found = decoding.sample(module, table, np.zeros((n, 2), int), 1, BOS, EOS, jax.random.key(2), **given)
    counts, expected = np.bincount(found[:, 0], minlength=9), n * likely(logits, **given)
    assert (expected > 0).sum() == kept
    assert not counts[expected == 0].any()
    assert scipy.stats.chisquare(counts[expected > 0], expected[expected > 0]).pvalue > 0.01


def sampled(rows, length=6, seed=0, **kwargs):
    table = {'params': {'table': np.zeros((30, 30, 30), np.float32)}}
    prompts = np.zeros((len(rows), 2), int)
    key = jax.random.key(seed)
    return np.asarray(decoding.sample(toys.Trigram(30), table, prompts, length, BOS, EOS, key, examples=rows, **kwargs))


def test_a_draw_is_a_function_of_seed_example_and_step():
    rows = np.arange(40)
    texts = sampled(rows)
    for batch in (rows[::-1], rows[17:18]):
        np.testing.assert_array_equal(sampled(batch), texts[batch])
    np.testing.assert_array_equal(sampled(rows, length=3), texts[:, :3])
    for others in (sampled(rows, seed=1), sampled(rows + 40)):
        assert (others != texts).mean() > 0.8
    steps = texts[(texts != EOS).all(1)]
    assert len(steps) > 20 and np.mean(steps[:, 1:] == steps[:, :-1]) < 0.2, 'each step has draws of its own'


@pytest.mark.parametrize('given', [{'top_k': 1}, {'top_p': 1e-6}, {'temperature': 1e-6}], ids=str)
def test_sampling_from_one_token_is_greedy(given):
    found = decoding.sample(TRIGRAM, TABLE, PROMPTS, 7, BOS, EOS, jax.random.key(0), **given)
    np.testing.assert_array_equal(found, decoding.greedy(TRIGRAM, TABLE, PROMPTS, 7, BOS, EOS))


PADDED = np.array([[True, True, True], [True, True, False]])


@pytest.mark.parametrize(
    'call, said',
    [
        (lambda: decoding.greedy(TRIGRAM, TABLE, PROMPTS, 0, BOS, EOS), 'max_length is 0'),
        (lambda: decoding.greedy(nn.Dense(4), {}, PROMPTS, 3, BOS, EOS), 'Dense has no method `start`'),
        (lambda: decoding.greedy(TRIGRAM, TABLE, PROMPTS[:, :0], 3, BOS, EOS), 'no tokens'),
        (lambda: decoding.greedy(TRIGRAM, TABLE, PROMPTS, 3, BOS, EOS, mask=PROMPTS < 0), 'Row 0 .* no tokens'),
        (lambda: decoding.greedy(TRIGRAM, TABLE, PROMPTS, 3, BOS, EOS, mask=PADDED), r'mask is \[2, 3\]'),
        (lambda: decoding.greedy(TRIGRAM, TABLE, PROMPTS[:2], 3, BOS, EOS, mask=PADDED), 'row 1 .* on the left'),
        (lambda: decoding.greedy(TRIGRAM, TABLE, PROMPTS / 2, 3, BOS, EOS), 'expected integers'),
        (lambda: decoding.greedy(TRIGRAM, TABLE, PROMPTS, 3, BOS, 4), 'eos is 4, .* tokens 0 to 3'),
        (lambda: decoding.beam(TRANSLATOR, WEIGHTS, SOURCES, 3, -1, EOS), 'bos is -1, .* tokens 0 to 4'),
        (lambda: sampled([0], temperature=0), 'temperature is 0'),
        (lambda: sampled([0], top_k=-1), 'top_k is -1'),
        (lambda: sampled([0], top_p=0), 'top_p is 0'),
        (lambda: sampled([0], top_p=1.5), 'top_p is 1.5'),
        (lambda: decoding.sample(TRIGRAM, TABLE, PROMPTS, 3, BOS, EOS, jax.random.key(0), examples=[1]), 'one number a row'),
        (lambda: decoding.beam(TRIGRAM, TABLE, PROMPTS, 3, BOS, EOS, beam_size=0), 'beam_size is 0'),
        (lambda: decoding.beam(TRIGRAM, TABLE, PROMPTS, 3, BOS, EOS, n_best=5), 'n_best is 5, .* beam_size, 4'),
        (lambda: decoding.beam(TRIGRAM, TABLE, PROMPTS, 3, BOS, EOS, penalty='Wu'), "Did you mean 'wu'"),
    ],
)
def test_bad_input_is_answered_with_a_sentence(call, said):
    with pytest.raises(ConfigError, match=said):
        call()
