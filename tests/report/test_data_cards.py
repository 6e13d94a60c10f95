"""The report's table of what the training data are made of."""

import json

import fabricate

from research.report import data_cards, pages

MAIN = {'name': 'digits', 'licence': '', 'price': 0.0, 'weight': 0.0, 'rows': 300, 'removed': {'leaked': 4}, 'kept': 296}
MORE = {'name': 'more', 'licence': 'CC0', 'price': 0.25, 'weight': 0.0, 'rows': 80, 'removed': {'leaked': 9}, 'kept': 71}
CARD = {'steps': ['leaked'], 'sources': [MAIN, MORE]}
JUNK = {'steps': ['leaked', 'junk'], 'sources': [MAIN, MORE | {'removed': {'leaked': 9, 'junk': 5}, 'kept': 66}]}


def test_a_row_is_a_source_and_variants_with_the_same_data_share_it():
    found = data_cards.table({'a': CARD, 'b': JUNK, 'c': CARD})
    assert found['headings'] == ['variant', 'source', 'licence', 'examples', 'leaked', 'junk', 'left', 'price']
    assert found['rows'] == [
        ['a, c', 'digits', '–', '300', '4', '–', '296', '–'],
        ['a, c', 'more', 'CC0', '80', '9', '–', '71', '20'],
        ['b', 'digits', '–', '300', '4', '–', '296', '–'],
        ['b', 'more', 'CC0', '80', '9', '5', '66', '20'],
    ]


def test_size_and_time_are_told_and_time_alone_makes_no_other_data():
    def card(seconds):
        return {**CARD, 'sources': [{**MAIN, 'bytes': 47_040_000, 'seconds': seconds}], 'seconds': {'leaked': seconds}}

    found = data_cards.table({'a': card(1.25), 'b': card(3.0)})
    assert found['headings'][-2:] == ['megabytes', 'seconds to read']
    assert found['rows'] == [['a, b', 'digits', '300', '4', '296', '47', '1.2']]
    assert 'Seconds of each step when it was made, a, b: 1.2 s leaked.' in found['caption']


def test_nothing_is_told_of_plain_data():
    assert data_cards.table({})['rows'] == [] and data_cards.lines({'baseline': {}, 'null': {}}) == []


def test_a_plan_tells_what_is_left_of_each_source():
    assert data_cards.lines({'baseline': {}, 'b': JUNK}) == [
        "training data of b: 296 of 300 from 'digits' (removed: 4 leaked)",
        "training data of b: 66 of 80 from 'more' (removed: 9 leaked, 5 junk), price 20",
    ]


def test_the_report_has_a_section_where_there_is_something_to_tell(tmp_path):
    workdir = fabricate.study(tmp_path / 'study', evaluations=2, seeds=3)
    pages.write(workdir)
    assert 'Data</h2>' not in (workdir / 'report.html').read_text() and '## Data' not in (workdir / 'report.md').read_text()
    study = json.loads((workdir / 'study.json').read_text())
    masked = {**CARD, 'personal': {'EMAIL': 12, 'IP': 0}}
    (workdir / 'study.json').write_text(json.dumps(study | {'data': {'adam': masked}}))
    pages.write(workdir)
    html, markdown = ((workdir / f'report.{suffix}').read_text() for suffix in ('html', 'md'))
    assert '| adam | more | CC0 | 80 | 9 | 71 | 20 |' in markdown and '>CC0<' in html and 'Data</h2>' in html
    assert 'masked in the texts of all splits, adam: 12 EMAIL.' in markdown
