"""Regression and yes-or-no answers: metrics are scikit-learn's over all batches, and padding and units change nothing."""

import importlib
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.metrics
from config_file import written

import research
from research import models, tasks
from research.catalogue import ConfigError
from research.config import overrides
from research.study import launch
from research.tasks import multilabel

FACTS = {'features': 3, 'mean': (1.0, 2.0, 3.0), 'std': (1.0, 2.0, 4.0)}
NUMBERS = {**FACTS, 'label_mean': 200.0, 'label_std': 50.0}


def task(name, facts, **changes):
    changes = {'name': name, 'loss': {'regression': 'squared', 'multilabel': 'sigmoid'}.get(name, 'softmax'), **changes}
    group = overrides.apply(overrides.defaults(), {f'task.{key}': value for key, value in changes.items()})['task']
    return tasks.create(group, facts)


def scored(made, outputs, batch, size=8):
    """Metrics and kept rows of outputs [N, ...], counted in batches of `size`, the last padded with nonsense."""
    count = len(outputs)
    total, kept = {}, {}
    sums = jax.jit(made.sums)
    for first in range(0, count, size):
        rows = np.arange(first, first + size)
        valid = rows < count
        rows = np.minimum(rows, count - 1)
        part = {name: values[rows] for name, values in batch.items()} | {'valid': valid.astype(np.float32)}
        for name, value in sums(outputs[rows], part, made.constants).items():
            total[name] = total.get(name, 0.0) + float(value)
        for name, value in made.rows(jnp.asarray(outputs[rows]), part).items():
            kept.setdefault(name, []).append(np.asarray(value)[valid])
    return made.metrics(total), {name: np.concatenate(values) for name, values in kept.items()}


def test_regression_is_scored_as_scikit_learn_does_in_the_targets_unit():
    draw = np.random.default_rng(0)
    label = draw.normal(210, 40, 37).astype(np.float32)
    outputs = ((label - 200) / 50 + draw.normal(0, 0.3, 37)).astype(np.float32)[:, None]
    found, kept = scored(task('regression', NUMBERS), outputs, {'label': label})
    answers = outputs[:, 0] * 50 + 200
    assert found == pytest.approx(
        {
            'loss': np.mean((outputs[:, 0] - (label - 200) / 50) ** 2),
            'rmse': sklearn.metrics.root_mean_squared_error(label, answers),
            'mae': sklearn.metrics.mean_absolute_error(label, answers),
            'r2': sklearn.metrics.r2_score(label, answers),
        },
        rel=1e-4,
    )
    assert not kept


def test_targets_that_are_all_the_same_explain_nothing():
    label = np.full(9, 260, np.float32)
    found, _ = scored(task('regression', NUMBERS), np.ones((9, 1), np.float32), {'label': label})
    assert found['r2'] == 0 and found['rmse'] == pytest.approx(10)


def test_numbers_share_a_program_whatever_their_unit():
    """Metrics come from sums alone: they may not be those of the first data that a program was made for."""
    label = np.random.default_rng(0).normal(size=9).astype(np.float32)
    made = task('regression', NUMBERS)
    batch = {'label': label, 'valid': np.ones(9, np.float32)}
    other = {**made.constants, 'label_mean': np.float32(0), 'label_std': np.float32(2)}
    sums = made.sums(jnp.zeros((9, 1)), batch, other)
    assert made.metrics({k: float(v) for k, v in sums.items()})['rmse'] == pytest.approx(np.sqrt(np.mean(label**2)), rel=1e-5)


def test_answers_are_scored_as_scikit_learn_does():
    draw = np.random.default_rng(1)
    labels = (draw.random((37, 4)) < (0.5, 0.3, 0.2, 0)).astype(np.uint8)  # nobody says yes to the last
    logits = (2.0 * labels - 1 + draw.normal(0, 1.5, labels.shape)).astype(np.float32)
    made = task('multilabel', {**FACTS, 'labels': 4})
    found, kept = scored(made, logits, {'labels': labels})
    chances = 1 / (1 + np.exp(-logits.astype(np.float64)))
    assert found == pytest.approx(
        {
            'loss': np.mean([sklearn.metrics.log_loss(labels[:, k], chances[:, k], labels=(0, 1)) for k in range(4)]),
            'exact_match': sklearn.metrics.accuracy_score(labels, logits > 0),
        },
        rel=1e-4,
    )
    precision = [sklearn.metrics.average_precision_score(labels[:, k], chances[:, k]) for k in range(3)]
    right = labels & (logits > 0)
    f1 = 2 * right.sum(0) / np.maximum(labels.sum(0) + (logits > 0).sum(0), 1)
    assert made.judge(kept) == pytest.approx(
        {
            'mean_average_precision': np.mean(precision),
            'f1_micro': 2 * right.sum() / (labels.sum() + (logits > 0).sum()),
            'f1_macro': f1.mean(),
        },
        rel=1e-6,
    )
    assert {*made.judge(kept)} == {*made.judged} == {*multilabel.JUDGED} and made.outputs == 4
    assert kept['correct'].mean() == pytest.approx(found['exact_match'])


def test_of_a_single_question_yes_alone_is_scored():
    labels = np.array([[1], [0], [0], [0], [1]], np.uint8)
    chances = np.array([[0.9], [0.6], [0.1], [0.2], [0.3]])
    found = multilabel._judge({'labels': labels, 'chances': chances})
    f1 = sklearn.metrics.f1_score(labels[:, 0], chances[:, 0] > 0.5)
    assert found == pytest.approx({'mean_average_precision': 5 / 6, 'f1_micro': f1, 'f1_macro': f1})


def test_smoothing_of_answers_is_for_training_alone():
    batch = {'labels': np.array([[1, 0]], np.uint8), 'valid': np.ones(1, np.float32)}
    logits = jnp.array([[0.4, -2.0]])
    smooth, plain = (task('multilabel', {**FACTS, 'labels': 2}, label_smoothing=share) for share in (0.2, 0.0))
    wanted = -np.mean(0.9 * jax.nn.log_sigmoid(jnp.array([0.4, 2.0])) + 0.1 * jax.nn.log_sigmoid(jnp.array([-0.4, -2.0])))
    assert float(smooth.train_sums(logits, batch, {})['loss']) == pytest.approx(float(wanted))
    assert float(smooth.sums(logits, batch, {})['loss']) == float(plain.train_sums(logits, batch, {})['loss'])


@pytest.mark.parametrize('name', ['classification', 'regression', 'multilabel'])
def test_features_are_standardized_by_column(name):
    made = task(name, {**NUMBERS, 'labels': 2})
    assert made.fields[0] == 'features'
    (found,), _ = made.inputs({'features': jnp.array([[2.0, 2.0, 7.0]])}, made.constants)
    assert found.tolist() == [[1, 0, 1]]


def test_what_does_not_fit_is_said():
    with pytest.raises(ConfigError, match="'NAME:number'"):
        task('regression', {**FACTS, 'classes': 3})
    with pytest.raises(ConfigError, match='has no classes to spread a target over'):
        task('regression', NUMBERS, label_smoothing=0.1)
    made = task('regression', NUMBERS)
    with pytest.raises(ConfigError, match=r"'regression' expects \[2, 1\]"):
        made.sums(jnp.zeros((2, 3)), {'label': jnp.zeros(2), 'valid': jnp.ones(2)}, made.constants)
    made = task('multilabel', {**FACTS, 'labels': 3})
    with pytest.raises(ConfigError, match=r"'multilabel' expects \[2, 3\]"):
        made.sums(jnp.zeros((2, 1)), {'labels': jnp.zeros((2, 3)), 'valid': jnp.ones(2)}, made.constants)


def test_a_linear_mlp_is_a_matrix_and_a_hidden_layer_is_not():
    x = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    linear = models.create('mlp', 3, hidden=())
    variables = linear.init(jax.random.key(1), x)
    head = jax.tree.map(np.asarray, variables['params'])['head']
    np.testing.assert_allclose(linear.apply(variables, x), x @ head['kernel'] + head['bias'], rtol=1e-5)
    bent = models.create('mlp', 3, hidden=(5,), norm='none')
    variables = bent.init(jax.random.key(1), x)
    params = jax.tree.map(np.asarray, variables['params'])
    hidden, head = params['hidden1'], params['head']
    expected = np.maximum(x @ hidden['kernel'] + hidden['bias'], 0) @ head['kernel'] + head['bias']
    np.testing.assert_allclose(bent.apply(variables, x), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('norm', ['batch', 'virtual_batch', {'name': 'ghost_batch', 'virtual_batch_size': 2}, 'none'])
def test_an_mlp_has_the_norm_layer_of_its_config_and_float32_logits(norm):
    x = jax.ShapeDtypeStruct((4, 5), jnp.float32)
    module = models.create('mlp', 3, hidden=(4,), norm=norm, dropout=0.1, axis_name=None)
    variables = jax.eval_shape(module.init, jax.random.key(0), x)
    assert ('batch_stats' in variables) == (norm not in ('none', 'virtual_batch'))
    logits = jax.eval_shape(module.apply, variables, x)
    assert (logits.shape, logits.dtype) == ((4, 3), jnp.float32)


def test_an_mlp_reads_images_as_rows():
    images = jax.random.normal(jax.random.key(0), (2, 3, 3, 2))
    module = models.create('mlp', 3, hidden=(4,))
    variables = module.init(jax.random.key(1), images)
    np.testing.assert_array_equal(module.apply(variables, images), module.apply(variables, images.reshape(2, -1)))


STUDY = """
config.model = {'name': 'mlp', 'num_classes': 0, 'init_from': '', 'hidden': (8,)}
config.data.update({'name': 'table', 'path': PATH, 'test': 0.25})
config.train.devices = 1
config.study.update({'seeds': 1, 'null': False, 'latency': (), 'budget': '30ep'})
config.optimizer.learning_rate = 0.02
"""
KINDS = {
    'classification': '',
    'regression': "config.data.label = 'size:number'\nconfig.task.update({'name': 'regression', 'loss': 'squared'})\n"
    "config.study.update({'metric': 'test/rmse', 'higher_is_better': False})",
    'multilabel': "config.data.label = 'big,odd'\nconfig.task.update({'name': 'multilabel', 'loss': 'sigmoid'})\n"
    "config.study.metric = 'test/f1_micro'",
}


@pytest.mark.long
@pytest.mark.parametrize('kind', KINDS)
def test_a_study_of_a_table(tmp_path, monkeypatch, kind):
    """From a CSV to scores that are much better than a guess; a finished run is not run again."""
    pyarrow, csv = (importlib.import_module(name) for name in ('pyarrow', 'pyarrow.csv'))
    draw = np.random.default_rng(0)
    x = draw.normal(size=(400, 3))
    size = np.round(100 * x[:, 0] - 50 * x[:, 1] + 1000).astype(int)
    target = {
        'classification': {'label': np.where(size > 1000, 'big', 'small')},
        'regression': {'size': size},
        'multilabel': {'big': size > 1000, 'odd': x[:, 2] > 0.5},
    }[kind]
    csv.write_csv(pyarrow.table({**{f'x{i}': 5 + x[:, i] for i in range(3)}, **target}), tmp_path / 'all.csv')
    path = written(tmp_path, STUDY.replace('PATH', repr(str(tmp_path / 'all.csv'))) + KINDS[kind])
    assert launch.launch(str(path), str(tmp_path / 'runs'), {}) == 0
    (file,) = (tmp_path / 'runs').glob('runs/*/result.json')
    metrics = json.loads(file.read_text())['metrics']
    found = research.study.load(tmp_path / 'runs', 'baseline', 0).predict((5 + x).astype(np.float32))
    if kind == 'regression':
        assert metrics['test/rmse'] < 0.4 * size.std() and metrics['test/r2'] > 0.8
        assert np.sqrt(((found - size) ** 2).mean()) < 0.4 * size.std()
    elif kind == 'classification':
        assert metrics['test/accuracy'] > 0.9 and ((found.argmax(1) == 1) == (size < 1000)).mean() > 0.9
    else:
        assert metrics['test/f1_micro'] > 0.9 and found.shape == (400, 2)
    changed = file.stat().st_mtime_ns
    assert launch.launch(str(path), str(tmp_path / 'runs'), {}) == 0 and file.stat().st_mtime_ns == changed
