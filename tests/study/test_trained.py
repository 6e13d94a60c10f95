"""A trained model back: it predicts what its run was scored with, from inputs as they are stored."""

import dataclasses
import json

import numpy as np
import pytest

from research import tasks
from research.catalogue import ConfigError
from research.config import overrides
from research.study import identity, trained
from research.train import experiment as experiments
from research.train import loop
from research.train.program import Session

CONFIG = {
    'model.widths': (2,),
    'model.hidden': (),
    'train.devices': 1,
    'train.precision': 'bfloat16',
    'data.batch_size': 100,
    'data.eval_batch_size': 100,
    'study.budget': '4st',
}


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    """(experiment, outcome, model) of a short run."""
    config, directory = overrides.apply(overrides.defaults(), CONFIG), tmp_path_factory.mktemp('run')
    built = experiments.build(config, Session(), identity.compile_key(config))
    outcome = loop.train(built, directory, progress=lambda *_: None, stop=lambda: False)
    told = {**config, 'model': {**config['model'], 'num_classes': 10}}
    for name, content in (('config.json', told), (trained.DATA, trained.described(built.dataset))):
        (directory / name).write_text(json.dumps(content))
    return built, outcome, trained.read(directory)


def test_predicts_what_was_scored(run):
    """In bfloat16, which moves the loss by more than this; batches are padded."""
    built, outcome, model = run
    rows = built.dataset.splits['test']
    images, labels = (built.dataset.arrays[name][rows] for name in ('image', 'label'))
    found = model.predict(images)
    assert (found.shape, found.dtype) == ((360, 10), np.float32)
    np.testing.assert_array_equal(found.argmax(-1) == labels, outcome.correct)
    np.testing.assert_allclose(found.sum(-1), 1, rtol=1e-5)
    np.testing.assert_allclose(-np.log(found[np.arange(360), labels]).mean(), outcome.metrics['test/loss'], rtol=1e-5)
    np.testing.assert_array_equal(model.predict({'image': images[:150, :, :, 0]}), found[:150])


def test_unpacks_into_module_and_variables(run):
    module, variables = run[2]
    assert module.num_classes == 10 and 'head' in variables['params']


def test_sigmoid_answers_each_question_by_itself():
    task = tasks.create({'name': 'classification', 'loss': 'sigmoid', 'label_smoothing': 0.0}, {})
    np.testing.assert_allclose(task.predictions(np.log(np.array([[1.0, 3.0]]))), [[0.5, 0.75]])


@pytest.mark.parametrize(
    ('inputs', 'message'),
    [
        (np.zeros((2, 8, 8, 1), np.float32), r"'image' is float32 \[2, 8, 8, 1\], expected .*: uint8 \[B, 8, 8, 1\]"),
        (np.zeros((2, 9, 9, 1), np.uint8), r'expected .*: uint8 \[B, 8, 8, 1\]'),
        ({'picture': np.zeros((2, 8, 8, 1), np.uint8)}, "no field 'picture', but image, label"),
    ],
)
def test_refuses_other_inputs(run, inputs, message):
    with pytest.raises(ConfigError, match=message):
        run[2].predict(inputs)


def test_an_earlier_run_has_kept_nothing_of_its_data(run):
    with pytest.raises(ConfigError, match='kept no mean and deviation'):
        dataclasses.replace(run[2], data={}).predict(np.zeros((1, 8, 8, 1), np.uint8))


@pytest.mark.parametrize(
    ('task', 'message'),
    [
        ({'loss': 'optax:softmax_cross_entropy_with_integer_labels'}, 'makes no predictions'),
        ({'name': 'generation'}, 'Two players predict nothing'),
    ],
)
def test_a_task_without_probabilities(run, task, message):
    config = {**run[2].config, 'task': {**run[2].config['task'], **task}}
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(run[2], config=config).predict(np.zeros((1, 8, 8, 1), np.uint8))
