"""Beam search against all texts there are, and what holds for any search."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import toys

from research import decoding
from research.decoding import beam_search

BOS, EOS = 0, 1
TRIGRAM, TRANSLATOR = toys.Trigram(), toys.Translator()
TABLE = TRIGRAM.init(jax.random.key(0))
WEIGHTS = TRANSLATOR.init(jax.random.key(1), jnp.zeros((1, 1), jnp.int32))
RNG = np.random.default_rng(0)
PROMPTS, SOURCES = RNG.integers(0, 4, (16, 3)), RNG.integers(0, 5, (16, 4))
BOTH = pytest.mark.parametrize('module, variables, inputs', [(TRIGRAM, TABLE, PROMPTS), (TRANSLATOR, WEIGHTS, SOURCES)])
# Length, length_penalty -> divisor, from the papers.
DIVISORS = {'wu': lambda n, alpha: (5 + n) ** alpha / 6**alpha, 'power': lambda n, alpha: n**alpha}


def score(prompt, text, penalty, alpha):
    """Of a text behind a prompt by the table, whose tokens behind the first `eos` do not count."""
    text = text[: list(text).index(EOS) + 1] if EOS in text else text
    before, last = prompt[-2:]
    total = 0.0
    for token in text:
        total += scipy.special.log_softmax(np.asarray(TABLE['params']['table'])[before, last])[token]
        before, last = last, token
    return total / DIVISORS[penalty](len(text), alpha)


def all_texts(length=4, vocabulary=4):
    """Each text once, filled up with `eos`."""
    texts = itertools.product(range(vocabulary), repeat=length)
    return [text for text in texts if EOS not in text or set(text[text.index(EOS) :]) == {EOS}]


@pytest.mark.parametrize('penalty', ['wu', 'power'])
@pytest.mark.parametrize('alpha', [0.6, 1.5, -0.5])
def test_a_wide_beam_is_exhaustive_search(penalty, alpha):
    """At most 27 beginnings go on, with 108 continuations; there are 121 texts."""
    given = {'beam_size': 128, 'length_penalty': alpha, 'penalty': penalty}
    found, scores = decoding.beam(TRIGRAM, TABLE, PROMPTS, 4, BOS, EOS, n_best=128, **given)
    best, best_scores = decoding.beam(TRIGRAM, TABLE, PROMPTS, 4, BOS, EOS, **given)
    for i, prompt in enumerate(PROMPTS):
        expected = {text: score(prompt, text, penalty, alpha) for text in all_texts()}
        assert len(expected) == 121
        order = sorted(expected, key=expected.get, reverse=True)
        np.testing.assert_allclose(scores[i, :121], [expected[text] for text in order], rtol=2e-5)
        np.testing.assert_allclose([expected[tuple(text.tolist())] for text in found[i, :121]], scores[i, :121], rtol=2e-5)
        assert {tuple(text.tolist()) for text in found[i, :121]} == set(expected)
        assert (scores[i, 121:] == -np.inf).all()
        assert tuple(best[i].tolist()) == order[0]
        np.testing.assert_allclose(best_scores[i], expected[order[0]], rtol=2e-5)


@pytest.mark.parametrize('early_stopping', [False, True])
def test_scores_are_those_of_the_texts(early_stopping):
    found, scores = decoding.beam(TRIGRAM, TABLE, PROMPTS, 7, BOS, EOS, 3, early_stopping=early_stopping, n_best=3)
    assert (np.diff(scores) <= 0).all()
    for prompt, texts, given in zip(PROMPTS, np.asarray(found), scores, strict=True):
        np.testing.assert_allclose([score(prompt, text.tolist(), 'wu', 0.6) for text in texts], given, rtol=2e-5)
        assert len({tuple(text) for text in texts}) == 3


@BOTH
@pytest.mark.parametrize('alpha', [0.0, 2.0])
def test_one_beam_is_greedy(module, variables, inputs, alpha):
    found, _ = decoding.beam(module, variables, inputs, 7, BOS, EOS, beam_size=1, length_penalty=alpha)
    np.testing.assert_array_equal(found, decoding.greedy(module, variables, inputs, 7, BOS, EOS))


def test_a_beam_finds_what_greedy_misses():
    """Token 2 is likelier than 3 at first, and is followed by uncertainty."""
    table = np.full((5, 5, 5), -50.0, np.float32)
    table[:, 0, (2, 3)] = np.log((0.6, 0.4))
    table[:, 2] = np.log(0.2)
    table[:, 3, 4] = table[:, 4, EOS] = 0
    module, variables, prompt = toys.Trigram(5), {'params': {'table': table}}, np.zeros((1, 2), int)
    assert decoding.greedy(module, variables, prompt, 3, BOS, EOS)[0, 0] == 2
    found, scores = decoding.beam(module, variables, prompt, 3, BOS, EOS, beam_size=2, length_penalty=1.0, penalty='power')
    np.testing.assert_array_equal(found, [[3, 4, EOS]])
    np.testing.assert_allclose(scores, np.log(0.4) / 3, rtol=1e-5)


def test_a_text_that_ends_takes_no_beam_from_the_others():
    """The end is likeliest at first, and two beams go on beside it; the second of them becomes the best text."""
    table = np.full((8, 8, 8), -50.0, np.float32)
    table[:, 0, (EOS, 2, 3)] = np.log((0.5, 0.3, 0.2))
    table[:, 2] = np.log(0.125)
    table[:, 3, EOS] = 0
    given = {'beam_size': 2, 'length_penalty': 4.0, 'penalty': 'power'}
    found, scores = decoding.beam(toys.Trigram(8), {'params': {'table': table}}, np.zeros((1, 2), int), 2, BOS, EOS, **given)
    np.testing.assert_array_equal(found, [[3, EOS]])
    np.testing.assert_allclose(scores, np.log(0.2) / 16, rtol=1e-5)


@BOTH
@pytest.mark.parametrize('early_stopping', [False, True])
def test_rows_do_not_depend_on_their_neighbours(module, variables, inputs, early_stopping):
    given = {'early_stopping': early_stopping, 'n_best': 2}
    found, scores = decoding.beam(module, variables, inputs, 9, BOS, EOS, **given)
    for i in range(0, 16, 3):
        alone, its_scores = decoding.beam(module, variables, inputs[i : i + 1], 9, BOS, EOS, **given)
        np.testing.assert_array_equal(found[i], alone[0])
        np.testing.assert_allclose(scores[i], its_scores[0], rtol=1e-5)
    lengths = (np.asarray(found) != EOS).sum(-1)
    assert len(np.unique(lengths)) > 2, 'texts are to end at different times'


def ending(share, vocabulary=6):
    """A network that ends with this probability at each step; all other tokens are equally likely."""
    shares = np.full(vocabulary, (1 - share) / (vocabulary - 1), np.float32)
    shares[EOS] = share
    return toys.Trigram(vocabulary), {'params': {'table': np.tile(np.log(shares), (vocabulary, vocabulary, 1))}}


@pytest.mark.parametrize(
    'share, given, steps',
    [
        # log(0.9) is more than any later score: log(0.02) / (105 / 6)^0.6 is the best that is open.
        (0.9, {}, 1),
        (0.9, {'length_penalty': 0.0}, 1),
        # One text ends in step 1, the others in step 2.
        (0.9, {'early_stopping': True, 'length_penalty': 10.0}, 2),
        # An open beam could still win by its length.
        (0.9, {'length_penalty': 10.0}, 100),
        # The last text that is asked for counts: it ends in step 2.
        (0.9, {'n_best': 4, 'length_penalty': 0.0}, 2),
    ],
)
def test_a_search_ends_when_no_open_beam_can_win(share, given, steps):
    toys.counts.clear()
    decoding.beam(*ending(share), np.zeros((3, 2), int), 100, BOS, EOS, **given)
    jax.effects_barrier()
    assert toys.counts['step'] == steps


def test_equal_texts_come_by_their_tokens():
    table = {'params': {'table': np.zeros((4, 4, 4), np.float32)}}
    found, _ = decoding.beam(TRIGRAM, table, PROMPTS[:2], 2, BOS, EOS, length_penalty=0.0, n_best=4)
    np.testing.assert_array_equal(found[0], [[1, 1], [0, 0], [0, 1], [0, 2]])


def test_one_program_for_all_prompts_and_penalties():
    module, variables = ending(0.3, 7)
    toys.counts.clear()
    for batch in (1, 2, 5):
        for prompt, alpha in ((0, 0.6), (3, 1.0)):
            decoding.beam(module, variables, np.full((batch, 2), prompt), 200, BOS, EOS, length_penalty=alpha)
    jax.effects_barrier()
    assert toys.counts['start'] == 3


def test_both_penalties_are_tested():
    assert set(DIVISORS) == set(beam_search.PENALTIES)
