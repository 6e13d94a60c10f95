"""Group DRO against algorithm 1 of its paper in float64, over several updates and however the batch is cut."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research import tasks
from research.catalogue import ConfigError

STEP, COUNTS = 0.3, (60, 30, 0, 10)
DRAW = np.random.default_rng(0)


def task(**facts):
    group = {'name': 'classification', 'loss': 'softmax', 'label_smoothing': 0.0, 'group_dro': STEP}
    return tasks.create(group, {'classes': 3, 'counts': (40, 30, 30), 'groups': 4, 'group_counts': COUNTS} | facts)


def batch(rows=24):
    return {
        'label': DRAW.integers(3, size=rows).astype(np.int32),
        'group': DRAW.choice([0, 1, 3], rows).astype(np.int32),
        'valid': (DRAW.random(rows) < 0.8).astype(np.float32),
    }


def test_weights_and_losses_are_those_of_algorithm_1():
    made, shares = task(), np.array(COUNTS) / 100
    learnt, q = dict(made.learnt), np.array([1, 1, 0, 1]) / 3
    for _ in range(5):
        b, logits = batch(), (3 * DRAW.normal(size=(24, 3))).astype(np.float32)
        told = {**made.constants, **learnt}
        each = np.log(np.exp(logits.astype(float)).sum(1)) - logits[np.arange(24), b['label']]
        weight = np.where(b['group'] == 2, 0, q[b['group']] / np.where(shares, shares, 1)[b['group']])
        np.testing.assert_allclose(made.losses(logits, b, told), each * weight * b['valid'], rtol=1e-4)
        halves = [({k: v[i:j] for k, v in b.items()}, logits[i:j]) for i, j in ((0, 7), (7, 24))]
        sums = jax.tree.map(jnp.add, *(made.train_sums(outputs, part, told) for part, outputs in halves))
        assert float(sums['loss']) == pytest.approx((each * weight * b['valid']).sum(), rel=1e-4)
        learnt = made.learn(learnt, sums, made.constants)
        means = [np.average(each, weights=m) if (m := (b['group'] == g) * b['valid']).any() else 0 for g in range(4)]
        q = q * np.exp(STEP * np.array(means))
        q /= q.sum()
        np.testing.assert_allclose(learnt['group_weights'], q, rtol=1e-4)
    assert q.max() > 0.4  # else the updates did nothing


def test_an_evaluation_does_not_know_the_weights():
    made, b = task(), batch()
    logits = DRAW.normal(size=(24, 3)).astype(np.float32)
    assert set(made.sums(logits, b, made.constants)) == {'loss', 'correct', 'count'}


def test_data_without_groups_are_refused():
    with pytest.raises(ConfigError, match='name it by data.group'):
        tasks.create(
            {'name': 'classification', 'loss': 'softmax', 'label_smoothing': 0.0, 'group_dro': STEP},
            {'classes': 3, 'counts': (1, 1, 1)},
        )
