"""What README.md and the configs state as results is what benchmarks/stated.py runs again and compares."""

import pathlib
import re
import runpy

import pytest

from research.config import overrides

ROOT = pathlib.Path(__file__).parents[1]
STATED = runpy.run_path(str(ROOT / 'benchmarks' / 'stated.py'))
STUDIES = STATED['STUDIES']
FILES = sorted({file for study in STUDIES.values() for file in study.stated})
# A mean with its spread, or a difference with its sign.
NUMBER = re.compile(r'\d\d\.\d\d ± \d|(?<!to )[+−-]\d+\.\d\d(?! to)')


@pytest.mark.parametrize('file', FILES)
def test_each_result_stands_in_its_file_once_and_no_other_number_does(file):
    text = ' '.join((ROOT / file).read_text().partition('\n"""\n')[0].split())
    for name, study in STUDIES.items():
        for result in study.stated.get(file, ()):
            assert text.count(result.text) == 1, (
                f"'{result.text}' of {name} is not once in {file}; it and the table go together"
            )
            text = text.replace(result.text, '')
    assert not NUMBER.findall(text), 'stated in the file, but not in benchmarks/stated.py'


@pytest.mark.parametrize('name', STUDIES)
def test_each_study_has_the_variants_that_are_stated(name):
    config, *_ = overrides.load(str(ROOT / STUDIES[name].flags[0].removeprefix('--config=')), {})
    known = {'baseline', 'null', STATED['OTHERS'], *config['study']['variants']}
    for results in STUDIES[name].stated.values():
        variants = [result.variant for result in results]
        assert set(variants) <= known and len(set(variants)) == len(variants)


@pytest.mark.parametrize(
    ('mean', 'interval', 'verdict', 'inside'),
    [(0.9258, None, '', 'yes'), (0.9230, None, '', 'NO'), (0.9259, (-0.013, -0.008), 'worse', 'yes')],
)
def test_a_stated_number_is_held_to_the_interval_measured_again(mean, interval, verdict, inside):
    own = {'name': 'lion' if verdict else 'baseline', 'scores': [mean - 1e-3, mean, mean + 1e-3], 'mean': mean, 'spread': 1e-3}
    contrasts = [{'name': 'lion', 'difference': -0.01, 'interval': interval}] if verdict else []
    summary = {'metric': 'test/accuracy', 'alpha': 0.05, 'variants': [own], 'contrasts': contrasts}
    text = '| lion | 92.59 ± 0.05 | −1.20 (−1.50 to −0.90) |' if verdict else 'mean 92.59 over seeds 0 to 2'
    assert STATED['measured'](text, own['name'], summary)[1] == inside
