"""Losses of next tokens against optax's of blended targets and sums in float64; what a row must not guess."""

import jax
import numpy as np
import optax
import pytest

from research import tasks
from research.catalogue import ConfigError
from research.config.files import Misfit
from research.data import tokenizer
from research.tasks import next_token

DRAW = np.random.default_rng(0)
TOKENS = DRAW.integers(0, 7, (4, 6)).astype(np.int32)
LOGITS = (3 * DRAW.normal(size=(4, 6, 7))).astype(np.float32)
MASK = np.arange(6)[None] < np.array([[6], [4], [2], [6]])
# The end of a row without padding may be that of a text that was cut.
COUNTS = MASK[:, 1:] & (np.arange(5) < 4)
BATCH = {'tokens': TOKENS, 'mask': MASK, 'valid': np.array([1, 1, 1, 0], np.float32)}
BYTES = (0, 1, 2, 3, 4, 5, 6)


def task(**changes):
    group = {'name': 'language_model', 'loss': 'softmax', 'label_smoothing': 0.0, **changes}
    return tasks.create(group, {'token_bytes': BYTES})


def test_each_token_is_told_from_those_before_it():
    made = task()
    total = jax.tree.map(float, made.sums(LOGITS, BATCH, made.constants))
    logits, targets, counts = LOGITS[:, :-1].astype(float), TOKENS[:, 1:], COUNTS * BATCH['valid'][:, None]
    each = np.log(np.exp(logits).sum(-1)) - np.take_along_axis(logits, targets[..., None], -1)[..., 0]
    assert total['loss'] == pytest.approx((each * counts).sum(), rel=1e-5) and total['count'] == 8
    assert total['correct'] == ((logits.argmax(-1) == targets) * counts).sum()
    metrics = made.metrics(total)
    assert metrics['perplexity'] == pytest.approx(np.exp(total['loss'] / 8))
    assert metrics['bits_per_byte'] == pytest.approx(total['loss'] / np.log(2) / (targets * counts).sum())
    np.testing.assert_allclose(made.losses(LOGITS, BATCH, made.constants).sum(), total['loss'], rtol=1e-6)


def test_of_equal_logits_the_first_is_the_answer():
    made, logits = task(), np.round(LOGITS / 4)  # many are equal, as in half precision
    first = (logits[:, :-1].argmax(-1) == TOKENS[:, 1:]) * COUNTS * BATCH['valid'][:, None]
    reached = np.take_along_axis(logits[:, :-1], TOKENS[:, 1:, None], -1)[..., 0] == logits[:, :-1].max(-1)
    assert 0 < first.sum() < (reached * COUNTS * BATCH['valid'][:, None]).sum()
    assert made.sums(logits, BATCH, made.constants)['correct'] == first.sum()


def test_smoothing_is_of_training_alone():
    smooth, plain = task(label_smoothing=0.2), task()
    assert smooth.sums(LOGITS, BATCH, smooth.constants) == plain.sums(LOGITS, BATCH, plain.constants)
    blended = optax.smooth_labels(jax.nn.one_hot(TOKENS[:, 1:], 7), 0.2)
    expected = optax.softmax_cross_entropy(LOGITS[:, :-1], blended) * COUNTS * BATCH['valid'][:, None]
    np.testing.assert_allclose(smooth.losses(LOGITS, BATCH, {}), expected.sum(1), rtol=1e-5)
    assert float(smooth.train_sums(LOGITS, BATCH, smooth.constants)['loss']) == pytest.approx(float(expected.sum()), rel=1e-5)


def test_packed_texts_do_not_guess_each_others_first_token():
    packed = np.array([[1, 1, 2, 2, 2, 0]] * 4)
    counted = task().sums(LOGITS, {**BATCH, 'mask': packed > 0, 'packed': packed}, task().constants)['count']
    assert counted == 3 * 3  # of each valid row 1 and 2


def test_the_end_of_a_text_that_fills_its_row_does_not_count():
    """It may have been cut; one that ends a row behind another text has not."""
    packed = np.array([[1, 1, 1, 1], [1, 1, 2, 2]])
    assert next_token.uncut(packed > 0, packed).tolist() == [[True, True, False], [True, False, True]]
    assert next_token.uncut(packed > 0).tolist() == [[True, True, False]] * 2


def test_bytes_of_tokens_add_up_to_those_of_texts():
    texts = ['Straße, nach Köln', 'x = {0}; größer\tals 7 €']
    made = tokenizer.create({'name': 'bpe'}, texts)
    sizes = np.array(tokenizer.facts(made)['token_bytes'])
    for text in (*texts, 'Köln'):
        assert sizes[made.encode(text).ids].sum() == len(text.encode())
    assert 'token_bytes' not in tokenizer.facts(tokenizer.create({'name': 'word_piece'}, texts))


def test_other_outputs_and_losses_are_refused():
    made = task()
    with pytest.raises(Misfit, match=r"'language_model' expects \[4, 5, 7\]"):
        made.sums(LOGITS[:, :3], BATCH, made.constants)
    with pytest.raises(ConfigError, match="'softmax', not 'sigmoid'"):
        task(loss='sigmoid')
