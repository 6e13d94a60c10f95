"""Parts of one's own that do not fit: a sentence each, before anything compiles."""

import re

import flax.linen as nn
import numpy as np
import pytest
from config_file import written
from flax import nnx
from test_launch import SMALL

from research.study import launch
from research.train import program


class InNNX(nnx.Module):
    def __init__(self, num_classes, rngs):
        self.head = nnx.Linear(64, num_classes, rngs=rngs)


def made_in_nnx(num_classes):
    return InNNX(num_classes, nnx.Rngs(0))


class Wide(nn.Module):
    num_classes: int

    @nn.compact
    def __call__(self, x, train=False):
        return nn.Dense(self.num_classes + 7)(x.reshape(len(x), -1))


class Pair(Wide):
    def __call__(self, x, train=False):
        return super().__call__(x), x


class OnlyInference(Wide):
    def __call__(self, x, train=False):
        assert not train, 'nothing to train'
        return super().__call__(x)[:, : self.num_classes]


def nothing(keys, images):
    return None


def cropped(keys, images):
    return images[:, :4]


def scaled(keys, images):
    return images / 16


def no_batch(keys, batch):
    return None


def examples(classes=(0, 1, 2), value=0.0):
    images = np.zeros((60, 4, 4), np.float32)
    images[7, 1, 2] = value
    parts = images, np.resize(classes, 60)
    return {'train': parts, 'test': parts}


def with_gaps(path):
    return examples((0, 1, 3))


def with_nan(path):
    return examples(value=np.nan)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'model.name': 'InNNX'}, "'test_own_parts:InNNX' is a InNNX, expected a linen module.*NNX modules are not supported"),
        ({'model.name': 'made_in_nnx'}, "'test_own_parts:made_in_nnx' is a InNNX, expected a linen module"),
        ({'model.name': 'Wide'}, r'Wide gives \[2, 17\] for 2 examples, expected logits \[2, 10\].*num_classes=10'),
        ({'model.name': 'Pair'}, r'Pair gives a tuple for 2 examples, expected logits \[2, 10\]'),
        ({'model.name': 'OnlyInference'}, 'building it failed with AssertionError: nothing to train'),
        (
            {'augment.names': 'nothing'},
            "'test_own_parts:nothing' made 'image' a NoneType.*Expected images of the same shape",
        ),
        (
            {'augment.names': 'cropped'},
            r"made 'image' uint8 \(100, 4, 8, 1\), which was uint8 \(100, 8, 8, 1\)",
        ),
        ({'augment.names': 'scaled'}, "'test_own_parts:scaled' made 'image' float32 .*, which was uint8"),
        (
            {'augment.names': 'no_batch'},
            "'test_own_parts:no_batch' returned a NoneType. Expected the batch with the same fields",
        ),
        ({'data.name': 'with_nan'}, '1 of 60 train images hold NaN or infinite values, the first is at index 7'),
        ({'data.name': 'with_gaps'}, 'labels up to 3 and no example of class 2.*set model.num_classes to 4'),
    ],
)
def test_what_does_not_fit_is_a_sentence(tmp_path, capsys, monkeypatch, changes, message):
    monkeypatch.setattr(program.Compiled, 'prepare', lambda *a: pytest.fail('compiled'))
    changes = {key: f'test_own_parts:{name}' for key, name in changes.items()}
    assert launch.launch(str(written(tmp_path, SMALL)), str(tmp_path / 'dir'), changes) == launch.REFUSED
    told = capsys.readouterr().err
    assert told.count('\n') == 1
    assert re.search(message, told), told


def test_classes_may_be_missing_where_the_config_says_how_many(tmp_path):
    changes = {'data.name': 'test_own_parts:with_gaps', 'model.num_classes': '4', 'data.batch_size': '20'}
    assert launch.launch(str(written(tmp_path, SMALL)), str(tmp_path / 'dir'), changes, 'plan') == launch.OK
