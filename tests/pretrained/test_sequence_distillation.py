"""Training targets as a trained network writes them: which rows, in which order, written once, told apart."""

import numpy as np
import pytest

from research import data
from research.catalogue import ConfigError
from research.config import overrides
from research.data import tokenizer
from research.data.arrays import from_arrays
from research.pretrained import runs
from research.study import trained

TRAIN = [
    ('a long sentence of the source', 'eins'),
    ('b', 'zwei'),
    ('nothing is said of this', 'drei'),
    ('cc dd', 'vier'),
    ('much longer than rows of the teacher are', 'fünf'),
]
TEST = [('what is scored', 'was zählt'), ('as it was read', 'wie gelesen')]


class Teacher:
    """Turns letters around, says nothing of 'nothing', and counts its calls; a row of its own holds 34 letters."""

    def __init__(self, own_beam=1):
        learnt = tokenizer.create({'name': 'bpe', 'vocabulary_size': 261}, [])
        self.tokenizer = self.target_tokenizer = tokenizer.fitted(learnt, {'length': 36, 'pack': False})
        self.config = {'task': {'beam_size': own_beam}, 'train': {'precision': 'float32'}}
        self.asked = []

    def translate(self, texts, beam_size):
        self.asked.append((texts, beam_size))
        return ['' if 'nothing' in text else f' {text[::-1]}\n' for text in texts]


@pytest.fixture
def teach(monkeypatch, tmp_path):
    """Puts a teacher of some weights in the place of a finished run."""
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))

    def put(teacher, weights='some'):
        monkeypatch.setattr(trained, 'load', lambda workdir, variant, seed: teacher)
        monkeypatch.setattr(runs, 'digest', lambda run: weights)
        return teacher

    return put


def cut(targets):
    parts = {
        part: dict(zip(('source', 'target'), map(list, zip(*rows, strict=True)), strict=True))
        for part, rows in (('train', TRAIN), ('test', TEST))
    }
    changes = {'test': 0.0, 'validation': 0.0, 'length': 32, 'tokenizer': {'name': 'bpe', 'vocabulary_size': 300}}
    config = {**overrides.apply(overrides.defaults(), {})['data'], **changes, 'targets': targets}
    return data.cut(from_arrays('mine', parts), config)


def taught(**changes):
    return cut({'name': 'translated', 'run': 'none/runs:baseline:0', **changes})


def test_training_targets_alone_are_written_and_each_stands_beside_its_source(teach):
    made, plain = teach(Teacher()), cut({'name': 'given'})
    with pytest.warns(UserWarning, match='1 of 5 training pairs keep their target'):
        found = taught(beam_size=3)
    rows = found.splits['train']
    assert found.sentences['source'][rows].tolist() == [source for source, _ in TRAIN]
    expected = [target if 'nothing' in source or len(source) > 33 else source[::-1] for source, target in TRAIN]
    assert found.sentences['target'][rows].tolist() == expected and found.checksum != plain.checksum
    assert found.sentences['target'][found.splits['test']].tolist() == [target for _, target in TEST]
    ((texts, beam),) = made.asked
    assert sorted(texts, key=len) == texts and beam == 3


@pytest.mark.filterwarnings('ignore:1 of 5')
def test_the_same_teacher_writes_once_and_another_one_anew(teach):
    made = teach(Teacher())
    first, again = taught(), taught()
    assert made.asked[0][1] is None and len(made.asked) == 1 and again.checksum == first.checksum
    np.testing.assert_array_equal(again.arrays['target'][:], first.arrays['target'][:])
    for other, weights, changes in (
        (Teacher(), 'others', {}),
        (Teacher(own_beam=4), 'some', {}),
        (Teacher(), 'some', {'beam_size': 2}),
    ):
        teach(other, weights)
        taught(**changes)
        assert len(other.asked) == 1


def test_what_is_no_run_is_refused():
    with pytest.raises(ConfigError, match=r"data\.targets\.run is 'teacher', expected a finished run"):
        cut({'name': 'translated', 'run': 'teacher'})
