"""Regression, tagging and answers from texts: losses and metrics by their definitions, and what may not change them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import references
import scipy.special
import scipy.stats
import sklearn.metrics

from research import tasks
from research.catalogue import ConfigError
from research.config import overrides

LENGTH, TAGS, VOCABULARY = 9, 4, 12
OUTPUTS = {'text_regression': (1,), 'tagging': (LENGTH, TAGS), 'question_answering': (LENGTH, 2)}


def task(name, facts=None, **changes):
    changes = {'name': name, **({'loss': 'squared'} if name == 'text_regression' else {}), **changes}
    group = overrides.apply(overrides.defaults(), {f'task.{key}': value for key, value in changes.items()})['task']
    return tasks.create(group, facts or {})


def summed(name, found, rows, **changes):
    # As one program: compiled operation by operation this file takes three times as long.
    return jax.jit(task(name, **changes).sums)(found, rows, {})


def batch(seed=0, rows=8):
    """Texts of 2 to 9 tokens with what every task asks of them; the last row is no example."""
    draw = np.random.default_rng(seed)
    lengths = np.array([LENGTH, 2, *draw.integers(3, LENGTH, rows - 2)])
    mask = np.arange(LENGTH) < lengths[:, None]
    counts = mask & (draw.random(mask.shape) < 0.7)
    ends = draw.integers(1, lengths)
    return {
        'tokens': draw.integers(0, VOCABULARY, mask.shape),
        'mask': mask,
        'label': draw.normal(2, 1, rows).astype(np.float32),
        'tags': np.where(counts, draw.integers(0, TAGS, mask.shape), -1).astype(np.int32),
        'start': draw.integers(1, ends + 1).astype(np.int32),
        'end': ends.astype(np.int32),
        'valid': np.append(np.ones(rows - 1), 0).astype(np.float32),
    }


def outputs(name, seed=1, rows=8):
    return np.random.default_rng(seed).normal(0, 2, (rows, *OUTPUTS[name])).astype(np.float32)


def nll(logits, right):
    return -scipy.special.log_softmax(logits.astype(np.float64), -1)[np.arange(len(right)), right]


def by_definition(name, found, rows):
    """(each row's share of the loss, what it is divided by), float64."""
    if name == 'text_regression':
        return np.square(found[:, 0].astype(np.float64) - rows['label']), np.ones(len(found))
    if name == 'tagging':
        kept = [tags >= 0 for tags in rows['tags']]
        each = [nll(logits[k], tags[k]).sum() for logits, tags, k in zip(found, rows['tags'], kept, strict=True)]
        return np.array(each), np.array([k.sum() for k in kept])
    logits = np.where(rows['mask'][..., None], found, -np.inf)
    return (nll(logits[..., 0], rows['start']) + nll(logits[..., 1], rows['end'])) / 2, np.ones(len(found))


@pytest.mark.parametrize('name', OUTPUTS)
def test_losses_are_those_of_the_definition(name):
    """Fails where the divisor is texts instead of tags, a place that is masked has a say, or an end is left out."""
    rows, found = batch(), outputs(name)
    losses, counts = by_definition(name, found, rows)
    given = summed(name, found, rows)
    np.testing.assert_allclose(jax.jit(task(name).losses)(found, rows, {}), losses * rows['valid'], rtol=1e-5)
    np.testing.assert_allclose(given['loss'], (losses * rows['valid']).sum(), rtol=1e-5)
    assert given['count'] == (counts * rows['valid']).sum()
    assert {np.dtype(s.dtype) for s in summed(name, found.astype(jnp.bfloat16), rows).values()} == {np.dtype(np.float32)}


@pytest.mark.parametrize('name', OUTPUTS)
def test_rows_and_tokens_that_are_none_have_no_say_and_no_gradient(name):
    rows, found = batch(), outputs(name)
    there = (rows['valid'] > 0).reshape(-1, *[1] * len(OUTPUTS[name])) & np.ones(found.shape, bool)
    if name == 'tagging':
        there &= (rows['tags'] >= 0)[..., None]
    elif name == 'question_answering':
        there &= rows['mask'][..., None]
    sums = jax.jit(functools.partial(task(name).sums, constants={}))
    spoilt = {**rows, 'mask': rows['mask'] & (rows['valid'] > 0)[:, None]}  # an empty row has no token at all
    for key, value in sums(np.where(there, found, 50 * found[::-1]), spoilt).items():
        assert value == sums(found, rows)[key], key
    gradient = jax.jit(jax.grad(lambda x: sums(x, spoilt)['loss']))(found)
    assert np.isfinite(gradient).all() and not gradient[~there].any() and gradient[there].all()


def test_correlations_are_scipys_and_0_where_there_are_none():
    label, answer = np.random.default_rng(0).normal(0, 1, (2, 40))
    judged = task('text_regression').judge({'label': label, 'answer': answer})
    assert judged == pytest.approx(
        {'pearson': np.corrcoef(label, answer)[0, 1], 'spearman': scipy.stats.spearmanr(label, answer)[0]}
    )
    assert {*judged} == {*task('text_regression').judged}
    assert task('text_regression').judge({'label': label, 'answer': np.ones(40)}) == {'pearson': 0, 'spearman': 0}


def test_tags_are_scored_one_by_one():
    rows, found = batch(), outputs('tagging')
    tagging = task('tagging')
    seen = (rows['tags'] >= 0) & (rows['valid'] > 0)[:, None]
    right, answer = rows['tags'][seen], found.argmax(-1)[seen]
    sums = {key: float(value) for key, value in summed('tagging', found, rows).items()}
    assert tagging.metrics(sums)['accuracy'] == pytest.approx((right == answer).mean())
    kept = {key: np.asarray(values)[rows['valid'] > 0] for key, values in tagging.rows(found, rows).items()}
    expected = sklearn.metrics.f1_score(right, answer, average='macro', zero_division=0)
    assert tagging.judge(kept) == pytest.approx({'f1_macro': expected})


def test_smoothing_of_tags_is_that_of_classes():
    rows, found = batch(), outputs('tagging')
    seen = (rows['tags'] >= 0) & (rows['valid'] > 0)[:, None]
    plain = tasks.create({'name': 'classification', 'loss': 'softmax', 'label_smoothing': 0.1}, {})
    expected = plain.train_sums(found[seen], {'label': rows['tags'][seen], 'valid': np.ones(seen.sum(), np.float32)}, {})
    given = task('tagging', label_smoothing=0.1).train_sums(found, rows, {})
    np.testing.assert_allclose(given['loss'], expected['loss'], rtol=1e-5)


def searched(logits, mask, longest):
    """The best span, by looking at all of them."""
    count = mask.sum()
    spans = [(0, 0), *((i, j) for i in range(1, count) for j in range(i, min(count, i + longest)))]
    return max(spans, key=lambda span: logits[span[0], 0] + logits[span[1], 1])


@pytest.mark.parametrize('longest', [1, 3, 30])
def test_answers_are_the_best_spans_and_scored_as_squad_does(longest):
    """Fails where a span runs backwards, is too long, holds [CLS] or padding, or an overlap is not one of multisets."""
    rows, found, answering = (
        batch(rows=40),
        outputs('question_answering', rows=40),
        task('question_answering', max_answer=longest),
    )
    rows['start'][::5], rows['end'][::5] = -1, -1
    rows['end'][1] = LENGTH  # cut off
    scores = []
    for i, logits in enumerate(found[:-1]):
        start, end = searched(logits, rows['mask'][i], longest)
        whole = rows['start'][i] >= 0 and rows['end'][i] < rows['mask'][i].sum()
        right = set(range(rows['start'][i], rows['end'][i] + 1)) if whole else {0}
        given = set(range(start, end + 1))
        common = len(given & right)
        precision, recall = common / len(given), common / len(right)
        scores.append((given == right, 2 * precision * recall / (precision + recall) if common else 0))
    sums = {key: float(value) for key, value in summed('question_answering', found, rows, max_answer=longest).items()}
    metrics = answering.metrics(sums)
    assert (metrics['exact_match'], metrics['f1']) == pytest.approx(np.mean(scores, 0))
    assert answering.rows(found, rows)['correct'][:-1].tolist() == [exact for exact, _ in scores]
    assert any(exact for exact, _ in scores) and any(0 < f1 < 1 for _, f1 in scores)


@pytest.mark.parametrize('name', OUTPUTS)
@pytest.mark.parametrize('wrong', [np.zeros((8, 3)), (np.zeros((8, 1)),)])
def test_other_outputs_are_refused(name, wrong):
    with pytest.raises(ConfigError, match=f"task '{name}' expects .* of the network, and gets"):
        task(name).sums(wrong, batch(), {})


@pytest.mark.parity
def test_losses_are_those_of_transformers():
    """The heads' own losses, of texts without padding: transformers lets padding take part in the softmax over places."""
    references.libraries()
    import torch
    import transformers

    config = transformers.BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        max_position_embeddings=LENGTH,
        num_labels=1,
    )
    rows = batch()
    rows['mask'][:], rows['valid'][:] = True, 1
    tokens = {'input_ids': torch.tensor(rows['tokens']), 'attention_mask': torch.tensor(rows['mask'])}
    label, start, end = (torch.tensor(rows[field]) for field in ('label', 'start', 'end'))
    asked = {
        'text_regression': (transformers.BertForSequenceClassification, 1, {'labels': label}),
        'tagging': (
            transformers.BertForTokenClassification,
            TAGS,
            {'labels': torch.tensor(np.where(rows['tags'] < 0, -100, rows['tags']), dtype=torch.long)},
        ),
        'question_answering': (
            transformers.BertForQuestionAnswering,
            2,
            {'start_positions': start.long(), 'end_positions': end.long()},
        ),
    }
    for name, (kind, labels, targets) in asked.items():
        config.num_labels = labels
        with torch.no_grad():
            theirs = kind(config).eval()(**tokens, **targets)
        found = (
            torch.stack([theirs.start_logits, theirs.end_logits], -1)
            if kind == asked['question_answering'][0]
            else theirs.logits
        )
        sums = task(name).sums(found.numpy(), rows, {})
        np.testing.assert_allclose(sums['loss'] / sums['count'], theirs.loss.item(), rtol=1e-5)
