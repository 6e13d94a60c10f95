"""Training targets as a trained network writes them: which rows, in which order, written once, told apart."""

import numpy as np
import pytest
from tokenizers import Tokenizer, models

from research import data
from research.catalogue import ConfigError
from research.config import overrides
from research.data.arrays import from_arrays
from research.pretrained import runs
from research.study import trained

TRAIN = [('a long sentence of the source', 'eins'), ('b', 'zwei'), ('nothing is said of this', 'drei'), ('cc dd', 'vier')]
TEST = [('what is scored', 'was zählt'), ('as it was read', 'wie gelesen')]


class Teacher:
    """Turns letters around, says nothing of 'nothing', and counts its calls."""

    tokenizer = target_tokenizer = Tokenizer(models.WordLevel({'a': 0}, 'a'))

    def __init__(self):
        self.asked = []

    def translate(self, texts, beam_size, length_penalty):
        self.asked.append((texts, beam_size, length_penalty))
        return ['' if 'nothing' in text else f' {text[::-1]}\n' for text in texts]


@pytest.fixture
def teacher(monkeypatch, tmp_path):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    made = Teacher()
    monkeypatch.setattr(trained, 'load', lambda workdir, variant, seed: made)
    monkeypatch.setattr(runs, 'digest', lambda run: 'weights')
    return made, f'{tmp_path / "none"}:baseline:0'


def cut(targets):
    parts = {
        part: dict(zip(('source', 'target'), map(list, zip(*rows, strict=True)), strict=True))
        for part, rows in (('train', TRAIN), ('test', TEST))
    }
    changes = {'test': 0.0, 'validation': 0.0, 'length': 32, 'tokenizer': {'name': 'bpe', 'vocabulary_size': 300}}
    config = {**overrides.apply(overrides.defaults(), {})['data'], **changes, 'targets': targets}
    return data.cut(from_arrays('mine', parts), config)


def test_training_targets_alone_are_written_once_and_each_beside_its_source(teacher):
    made, run = teacher
    plain, taught = cut({'name': 'given'}), cut({'name': 'translated', 'run': run, 'beam_size': 3})
    rows = taught.splits['train']
    assert taught.sentences['source'][rows].tolist() == [source for source, _ in TRAIN]
    expected = [target if 'nothing' in source else source[::-1] for source, target in TRAIN]
    assert taught.sentences['target'][rows].tolist() == expected
    assert taught.sentences['target'][taught.splits['test']].tolist() == [target for _, target in TEST]
    (asked,) = made.asked
    assert sorted(asked[0], key=len) == asked[0] and asked[1:] == (3, 0.6)
    again = cut({'name': 'translated', 'run': run, 'beam_size': 3})
    assert len(made.asked) == 1 and again.checksum == taught.checksum != plain.checksum
    np.testing.assert_array_equal(again.arrays['target'][:], taught.arrays['target'][:])
    cut({'name': 'translated', 'run': run})
    assert made.asked[1][1:] == (None, 0.6)


def test_what_is_no_run_is_refused():
    with pytest.raises(ConfigError, match=r"data\.targets\.run is 'teacher', expected a finished run"):
        cut({'name': 'translated', 'run': 'teacher'})
