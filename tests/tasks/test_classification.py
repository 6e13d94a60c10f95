"""Sums of a classification against NumPy in float64 and torch; what is padding must not count."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special

from research import tasks
from research.catalogue import ConfigError

LOSSES = ('softmax', 'sigmoid')


def task(loss, smoothing=0.0):
    return tasks.create({'name': 'classification', 'loss': loss, 'label_smoothing': smoothing}, {})


def examples(seed, rows, classes, scale=3.0):
    """(logits float32 [rows, classes], labels, valid with zeros in it)."""
    rng = np.random.default_rng(seed)
    logits = (scale * rng.normal(size=(rows, classes))).astype(np.float32)
    valid = (rng.random(rows) < 0.7).astype(np.float32)
    return logits, rng.integers(classes, size=rows).astype(np.int32), valid


def reference(loss, logits, labels):
    """Loss of each example, float64, straight from the definition."""
    logits = logits.astype(np.float64)
    if loss == 'softmax':
        return -special.log_softmax(logits, axis=-1)[np.arange(len(labels)), labels]
    signs = np.where(np.eye(logits.shape[-1], dtype=bool)[labels], 1, -1)
    return -special.log_expit(signs * logits).sum(-1)


@pytest.mark.parametrize('loss', LOSSES)
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), classes=st.sampled_from((2, 10)), scale=st.just(0.0) | st.floats(1e-3, 30))
def test_sums_are_those_of_the_definition(loss, seed, classes, scale):
    logits, labels, valid = examples(seed, 7, classes, scale)
    sums = task(loss).sums(logits, {'label': labels, 'valid': valid}, {})
    np.testing.assert_allclose(sums['loss'], (reference(loss, logits, labels) * valid).sum(), rtol=1e-5, atol=1e-5)
    assert sums['correct'] == ((logits.argmax(-1) == labels) * valid).sum()
    assert sums['count'] == valid.sum()
    assert {np.dtype(s.dtype) for s in sums.values()} == {np.dtype(np.float32)}


@pytest.mark.parametrize('loss', LOSSES)
def test_a_blended_target_has_the_blend_of_the_losses_and_accuracy_goes_by_label(loss):
    logits, labels, valid = examples(0, 8, 10)
    target = 0.7 * np.eye(10, dtype=np.float32)[labels] + 0.3 * np.eye(10, dtype=np.float32)[labels[::-1]]
    batch = {'label': labels, 'target': target, 'valid': valid}
    expected = 0.7 * reference(loss, logits, labels) + 0.3 * reference(loss, logits, labels[::-1])
    np.testing.assert_allclose(task(loss).losses(logits, batch, {}), expected * valid, rtol=1e-5)
    assert task(loss).train_sums(logits, batch, {})['correct'] == ((logits.argmax(-1) == labels) * valid).sum()


@pytest.mark.parametrize('loss', LOSSES)
def test_rows_that_are_padding_have_no_say_and_no_gradient(loss):
    logits, labels, valid = examples(0, 32, 10)
    sums, hidden = task(loss).sums, valid == 0
    assert hidden.any()
    other = np.where(hidden[:, None], 100 * logits[::-1], logits)
    for name, value in sums(other, {'label': labels, 'valid': valid}, {}).items():
        assert value == sums(logits, {'label': labels, 'valid': valid}, {})[name]
    gradient = jax.grad(lambda x: sums(x, {'label': labels, 'valid': valid}, {})['loss'])(logits)
    assert not gradient[hidden].any()
    assert gradient[~hidden].any(axis=1).all()


@pytest.mark.parametrize('loss', LOSSES)
def test_sums_of_parts_add_up_to_the_metrics_of_the_whole(loss):
    """Batches of unequal size, one of them padded: one division at the end, never an average of averages."""
    logits, labels, valid = examples(1, 30, 10)
    judge = task(loss)
    parts = [
        judge.sums(logits[s], {'label': labels[s], 'valid': valid[s]}, {}) for s in (slice(0, 4), slice(4, 23), slice(23, 30))
    ]
    metrics = judge.metrics({name: sum(float(part[name]) for part in parts) for name in parts[0]})
    seen = valid == 1
    assert metrics['accuracy'] == pytest.approx((logits[seen].argmax(-1) == labels[seen]).mean(), abs=1e-12)
    assert metrics['loss'] == pytest.approx(reference(loss, logits, labels)[seen].mean(), rel=1e-5)


@pytest.mark.parametrize('loss', LOSSES)
def test_large_logits_stay_finite(loss):
    logits = np.array([[1e4, -1e4], [-1e4, 1e4]], np.float32)
    batch = {'label': np.zeros(2, np.int32), 'valid': np.ones(2, np.float32)}
    value, gradient = jax.value_and_grad(lambda x: task(loss).sums(x, batch, {})['loss'])(logits)
    assert value == pytest.approx(2e4)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize('loss', LOSSES)
def test_bfloat16_logits_are_summed_in_float32(loss):
    logits, labels, valid = examples(2, 32, 10)
    short = jnp.asarray(logits, jnp.bfloat16)
    sums = task(loss).sums(short, {'label': labels, 'valid': valid}, {})
    expected = (reference(loss, np.asarray(short, np.float32), labels) * valid).sum()
    np.testing.assert_allclose(sums['loss'], expected, rtol=1e-5)


def test_correct_is_the_largest_logit():
    logits, labels, _ = examples(3, 64, 10)
    np.testing.assert_array_equal(task('sigmoid').rows(logits, {'label': labels})['correct'], logits.argmax(-1) == labels)


def test_a_misspelt_loss_names_the_nearest():
    with pytest.raises(ConfigError, match="Did you mean 'sigmoid'"):
        task('sigmoyd')


@pytest.mark.parametrize('loss', LOSSES)
def test_losses_are_the_shares_of_the_training_loss(loss):
    logits, labels, valid = examples(5, 32, 10)
    batch, smoothed = {'label': labels, 'valid': valid}, task(loss, 0.2)
    losses = smoothed.losses(logits, batch, {})
    assert losses.dtype == np.float32 and not losses[valid == 0].any() and losses[valid == 1].all()
    np.testing.assert_allclose(losses.sum(), smoothed.train_sums(logits, batch, {})['loss'], rtol=1e-6)


@pytest.mark.parametrize('loss', LOSSES)
def test_smoothing_is_for_training_alone(loss):
    logits, labels, valid = examples(6, 32, 10)
    batch, smoothed = {'label': labels, 'valid': valid}, task(loss, 0.2)
    judged, trained = smoothed.sums(logits, batch, {}), smoothed.train_sums(logits, batch, {})
    assert judged == task(loss).sums(logits, batch, {})
    assert {name for name in judged if judged[name] != trained[name]} == {'loss'}


@pytest.mark.parametrize('loss', LOSSES)
def test_without_smoothing_training_is_the_same_program_as_judging(loss):
    logits, labels, valid = examples(6, 32, 10)
    plain, smoothed = (
        str(jax.make_jaxpr(task(loss, s).train_sums)(logits, {'label': labels, 'valid': valid}, {})) for s in (0.0, 0.1)
    )
    assert plain == str(jax.make_jaxpr(task(loss).sums)(logits, {'label': labels, 'valid': valid}, {}))
    assert plain != smoothed


@pytest.mark.parametrize('smoothing', [-0.1, 1.0, 1.5, float('nan')])
def test_a_share_outside_is_refused(smoothing):
    with pytest.raises(ConfigError, match='from 0 below 1'):
        task('softmax', smoothing)


def test_a_loss_that_cannot_be_smoothed_is_refused_at_the_door():
    assert task('optax:softmax_cross_entropy_with_integer_labels')
    with pytest.raises(ConfigError, match="takes no argument 'smoothing'"):
        task('optax:softmax_cross_entropy_with_integer_labels', 0.1)


@pytest.mark.parity
@pytest.mark.parametrize('loss', LOSSES)
def test_smoothed_value_and_gradient_are_torchs(loss):
    torch = pytest.importorskip('torch')
    functional = torch.nn.functional
    logits, labels, valid = examples(7, 32, 10)
    theirs, target = torch.tensor(logits, requires_grad=True), torch.tensor(labels, dtype=torch.long)
    if loss == 'softmax':
        per_example = functional.cross_entropy(theirs, target, reduction='none', label_smoothing=0.1)
    else:
        soft = functional.one_hot(target, 10).float() * 0.9 + 0.1 / 10
        per_example = functional.binary_cross_entropy_with_logits(theirs, soft, reduction='none').sum(-1)
    total = (per_example * torch.tensor(valid)).sum()
    total.backward()
    train_sums, batch = task(loss, 0.1).train_sums, {'label': labels, 'valid': valid}
    value, gradient = jax.value_and_grad(lambda x: train_sums(x, batch, {})['loss'])(logits)
    np.testing.assert_allclose(value, total.item(), rtol=1e-5)
    np.testing.assert_allclose(gradient, theirs.grad.numpy(), atol=1e-6)


@pytest.mark.parity
@pytest.mark.parametrize('loss', LOSSES)
def test_value_and_gradient_are_torchs(loss):
    torch = pytest.importorskip('torch')
    functional = torch.nn.functional
    logits, labels, valid = examples(4, 32, 10)
    theirs = torch.tensor(logits, requires_grad=True)
    target = torch.tensor(labels, dtype=torch.long)
    if loss == 'softmax':
        per_example = functional.cross_entropy(theirs, target, reduction='none')
    else:
        yes = functional.one_hot(target, 10).float()
        per_example = functional.binary_cross_entropy_with_logits(theirs, yes, reduction='none').sum(-1)
    total = (per_example * torch.tensor(valid)).sum()
    total.backward()
    value, gradient = jax.value_and_grad(lambda x: task(loss).sums(x, {'label': labels, 'valid': valid}, {})['loss'])(logits)
    np.testing.assert_allclose(value, total.item(), rtol=1e-5)
    np.testing.assert_allclose(gradient, theirs.grad.numpy(), atol=1e-6)
