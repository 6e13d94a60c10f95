"""Losses for unequal classes against their formulas in float64, scikit-learn and torch; off, they leave no trace."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special
from sklearn.utils import class_weight

from research import tasks
from research.catalogue import ConfigError
from research.tasks import balancing

COUNTS = (50, 20, 7, 3)
DRAW = np.random.default_rng(0)
LOGITS = (3 * DRAW.normal(size=(32, 4))).astype(np.float32)
LABELS = DRAW.integers(4, size=32).astype(np.int32)
VALID = (DRAW.random(32) < 0.8).astype(np.float32)
TARGET = DRAW.dirichlet(np.ones(4), 32).astype(np.float32)
POSITION = np.stack([np.zeros(32), 1000 + np.arange(32)], 1).astype(np.uint32)
BATCH = {'label': LABELS, 'valid': VALID, 'position': POSITION}


def task(counts=COUNTS, loss='softmax', label_smoothing=0.0, **more):
    facts = {'classes': len(counts), 'counts': counts}
    return tasks.create({'name': 'classification', 'loss': loss, 'label_smoothing': label_smoothing, **more}, facts)


def losses(made, batch=BATCH, logits=LOGITS, **constants):
    return np.asarray(made.losses(logits, batch, {**made.constants, **constants}))


def test_weights_are_scikit_learns_up_to_their_mean():
    found = balancing.weights(np.array(COUNTS, float), None)
    theirs = class_weight.compute_class_weight('balanced', classes=np.arange(4), y=np.repeat(np.arange(4), COUNTS))
    np.testing.assert_allclose(found, theirs / theirs.mean(), rtol=1e-12)


@given(counts=st.lists(st.integers(0, 10**6), min_size=2, max_size=9).filter(any), beta=st.floats(0, 0.99999))
def test_weights_by_the_effective_number(counts, beta):
    counts = np.array(counts, float)
    found = balancing.weights(counts, beta)
    there = counts > 0
    assert not found[~there].any()
    assert found[there].mean() == pytest.approx(1)
    expected = (1 - beta) / (1 - beta ** counts[there])
    np.testing.assert_allclose(found[there] / found[there].max(), expected / expected.max(), rtol=1e-9)


def test_the_effective_number_lies_between_equal_weights_and_inverse_frequency():
    counts = np.array(COUNTS, float)
    np.testing.assert_array_equal(balancing.weights(counts, 0.0), np.ones(4))
    np.testing.assert_allclose(balancing.weights(counts, 1 - 1e-9), balancing.weights(counts, None), rtol=1e-5)


@pytest.mark.parametrize('loss', ['softmax', 'sigmoid'])
@pytest.mark.parametrize('smoothing', [0.0, 0.1])
def test_weights_multiply_the_loss_of_each_example(loss, smoothing):
    plain, made = (
        task(loss=loss, label_smoothing=smoothing),
        task(loss=loss, label_smoothing=smoothing, class_weights='inverse_frequency'),
    )
    by_class = balancing.weights(np.array(COUNTS, float), None)
    np.testing.assert_allclose(losses(made), losses(plain) * by_class[LABELS], rtol=1e-5)
    blended = {**BATCH, 'target': TARGET}
    np.testing.assert_allclose(losses(made, blended), losses(plain, blended) * (TARGET @ by_class), rtol=1e-5)
    sums = made.train_sums(LOGITS, BATCH, made.constants)
    assert sums['count'] == VALID.sum()
    np.testing.assert_allclose(sums['loss'], losses(made).sum(), rtol=1e-6)


def test_weights_begin_at_the_example_that_the_run_says_also_behind_32_bits():
    made, plain, whole = (
        task(class_weights='inverse_frequency', reweight_from='0.8run'),
        task(),
        task(class_weights='inverse_frequency'),
    )
    assert made.durations == {'reweight_from': '0.8run'} and not whole.durations
    late = POSITION[:, 1] >= 1010
    expected = np.where(late, losses(whole), losses(plain))
    np.testing.assert_array_equal(losses(made, reweight_from=np.float32(1010)), expected)
    far = {**BATCH, 'position': POSITION + np.array([[1, 0]], np.uint32)}
    np.testing.assert_array_equal(losses(made, far, reweight_from=np.float32(2**32)), losses(whole))


def test_logit_adjustment_is_cross_entropy_of_logits_plus_tau_log_prior():
    made = task(logit_adjustment=0.7)
    shifted = LOGITS.astype(float) + 0.7 * np.log(np.array(COUNTS) / sum(COUNTS))
    expected = -special.log_softmax(shifted, axis=1)[np.arange(32), LABELS] * VALID
    np.testing.assert_allclose(losses(made), expected, rtol=1e-5)
    found, plain = (t.train_sums(LOGITS, BATCH, t.constants) for t in (made, task()))
    assert found['correct'] == plain['correct']


def test_a_class_that_the_data_lack_is_taken_for_rare_and_stays_finite():
    made, more = task((50, 20, 0), logit_adjustment=1.0), np.pad(LOGITS, ((0, 0), (0, 2)))
    np.testing.assert_allclose(made.constants['logit_adjustment'][2], np.log(1 / 70), rtol=1e-6)
    assert np.isfinite(losses(made, {**BATCH, 'label': LABELS % 2}, more)).all()
    weighted = task((50, 20, 0), class_weights='inverse_frequency')
    target = np.pad(TARGET[:, :2], ((0, 0), (0, 4)))
    assert np.isfinite(losses(weighted, {**BATCH, 'target': target}, more)).all()


@settings(max_examples=12, deadline=None)
@given(gamma=st.sampled_from([0.3, 2.0, 5.0]), seed=st.integers(0, 99), scale=st.sampled_from([0.1, 3.0, 30.0]))
def test_focal_loss_is_its_formula(gamma, seed, scale):
    draw = np.random.default_rng(seed)
    logits, targets = (scale * draw.normal(size=(6, 4))).astype(np.float32), draw.dirichlet(np.ones(4), 6).astype(np.float32)
    log_p = special.log_softmax(logits.astype(float), axis=1)
    others = np.stack([special.logsumexp(np.delete(log_p, k, 1), axis=1) for k in range(4)], 1)
    expected = -(targets * np.exp(gamma * others) * log_p).sum(1)
    np.testing.assert_allclose(balancing.focal_softmax(logits, targets, gamma), expected, rtol=2e-4, atol=1e-7)
    yes, no = special.log_expit(logits.astype(float)), special.log_expit(-logits.astype(float))
    expected = -(targets * np.exp(gamma * no) * yes + (1 - targets) * np.exp(gamma * yes) * no).sum(1)
    np.testing.assert_allclose(balancing.focal_sigmoid(logits, targets, gamma), expected, rtol=2e-4, atol=1e-7)


def test_focal_sigmoid_is_optaxs():
    hard = np.eye(4, dtype=np.float32)[LABELS]
    theirs = optax.losses.sigmoid_focal_loss(LOGITS, hard, gamma=2.0).sum(1)
    np.testing.assert_allclose(balancing.focal_sigmoid(LOGITS, hard, 2.0), theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize('loss', ['softmax', 'sigmoid'])
def test_focal_gradients_are_finite_where_the_network_is_sure(loss):
    sure = np.array([[200.0, 0, 0, 0], [0, 0, 0, 0], [-1e4, 1e4, 0, 0]], np.float32)
    made, batch = task(loss=loss, focal=0.5), {'label': np.array([0, 1, 0]), 'valid': np.ones(3, np.float32)}
    value, gradient = jax.value_and_grad(lambda x: made.losses(x, batch, {}).sum())(sure)
    assert np.isfinite(value) and np.isfinite(gradient).all() and gradient[1:].any(axis=1).all()


def test_all_of_them_are_for_training_alone():
    made = task(class_weights='effective_number', focal=2.0, logit_adjustment=1.0)
    assert made.sums(LOGITS, BATCH, made.constants) == task().sums(LOGITS, BATCH, {})
    assert made.train_sums(LOGITS, BATCH, made.constants)['loss'] != task().train_sums(LOGITS, BATCH, {})['loss']


def test_off_they_leave_no_trace():
    off = task(class_weights='none', focal=0.0, logit_adjustment=0.0, reweight_from='0.8run')
    assert not off.constants and not off.durations
    assert str(jax.make_jaxpr(off.train_sums)(LOGITS, BATCH, {})) == str(jax.make_jaxpr(off.sums)(LOGITS, BATCH, {}))


def test_a_task_of_texts_has_the_same():
    group = {'name': 'text_classification', 'loss': 'softmax', 'label_smoothing': 0.0}
    both = {'class_weights': 'effective_number', 'beta': 0.9, 'reweight_from': '5st', 'focal': 2.0, 'logit_adjustment': 1.0}
    texts = tasks.create({**group, **both}, {'classes': 4, 'counts': COUNTS})
    np.testing.assert_array_equal(losses(texts), losses(task(**both)))
    assert texts.durations == {'reweight_from': '5st'}


def test_what_cannot_be_is_refused():
    with pytest.raises(ConfigError, match='the data have no classes'):
        tasks.create(
            {
                'name': 'classification',
                'loss': 'softmax',
                'label_smoothing': 0.0,
                'focal': 0.0,
                'class_weights': 'inverse_frequency',
            },
            {'mean': (0.0,), 'std': (1.0,)},
        )
    with pytest.raises(ConfigError, match="takes no argument 'focal', as task.focal needs"):
        task(loss='optax:softmax_cross_entropy_with_integer_labels', focal=1.0)


@pytest.mark.parity
def test_value_and_gradient_of_weighted_cross_entropy_are_torchs():
    torch = pytest.importorskip('torch')
    made, by_class = task(class_weights='inverse_frequency'), balancing.weights(np.array(COUNTS, float), None)
    theirs = torch.tensor(LOGITS, requires_grad=True)
    weight = torch.tensor(by_class, dtype=torch.float32)
    each = torch.nn.functional.cross_entropy(theirs, torch.tensor(LABELS, dtype=torch.long), weight=weight, reduction='none')
    total = (each * torch.tensor(VALID)).sum()
    total.backward()
    value, gradient = jax.value_and_grad(lambda x: made.train_sums(x, BATCH, made.constants)['loss'])(jnp.asarray(LOGITS))
    np.testing.assert_allclose(value, total.item(), rtol=1e-5)
    np.testing.assert_allclose(gradient, theirs.grad.numpy(), atol=1e-6)
