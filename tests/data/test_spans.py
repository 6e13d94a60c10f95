"""Words with tags and answers in contexts, from files to places of tokens."""

import json

import numpy as np
import pyarrow
import pytest
import tokenizers
from pyarrow import parquet

from research import data, tasks
from research.catalogue import ConfigError
from research.config import overrides
from research.data import spans, token_cache, tokenizer

WORDS = [['The', 'U.K.', "don't", 'sleep', '!'], ['Élan', 'cafe\u0301', 'a', 'of'], ['sleep', 'of', 'The', 'Élan', ',', 'O']]
TAGS = [['D', 'N', 'V', 'V', '.'], ['N', 'N', 'D', 'P'], ['N', 'P', 'D', 'N', '.', 'N']]
TAGGED = {'tokens': WORDS * 4, 'tags': TAGS * 4}

CONTEXT = 'In Paris the Cafe\u0301, an old house, was open in 1900. Un cafe\u0301'
ANSWERS = ['Paris', 'Cafe\u0301', 'an old house', ' house, ', '1900.', 'cafe\u0301', 'In', None]
ASKED = {
    'question': ['Paris'] * len(ANSWERS),
    'context': [CONTEXT] * len(ANSWERS),
    'answers': [
        {'text': [answer, 'In'], 'answer_start': [CONTEXT.index(answer), 0]} if answer else {'text': [], 'answer_start': []}
        for answer in ANSWERS
    ],
}
TOKENIZERS = {'word_piece': {'vocabulary_size': 120}, 'bpe': {'vocabulary_size': 400}, 'words': {'min_count': 1}}
COLUMNS = {'text': 'tokens', 'label': 'tags'}, {'text': 'question', 'pair': 'context', 'label': 'answers'}


def config(path, columns, name='word_piece', **changes):
    changes = {**columns, 'length': 48, **{f'tokenizer.{key}': value for key, value in TOKENIZERS[name].items()}, **changes}
    given = {'data.name': 'texts', 'data.path': str(path), 'data.tokenizer.name': name, 'data.validation': 0, 'data.test': 2}
    return overrides.apply(overrides.defaults(), given | {f'data.{key}': value for key, value in changes.items()})['data']


def write(path, rows):
    parquet.write_table(pyarrow.table(rows), path)
    return path


def loaded(*arguments, **changes):
    dataset = data.load(config(*arguments, **changes))
    return (
        dataset,
        {name: column[:] for name, column in dataset.arrays.items()},
        tokenizers.Tokenizer.from_str(dataset.tokenizer),
    )


@pytest.mark.parametrize('length', [48, 8])
@pytest.mark.parametrize('name', ['word_piece', 'words'])
def test_a_word_has_its_tag_where_transformers_puts_it(tmp_path, name, length):
    """At the first of each run of equal `word_ids()`, the usual alignment; tags are numbered by the alphabet."""
    dataset, rows, made = loaded(write(tmp_path / 'a.parquet', TAGGED), COLUMNS[0], name, length=length)
    names = sorted({tag for tags in TAGS for tag in tags})
    for row, (words, tags) in enumerate(zip(WORDS, TAGS, strict=True)):
        coded = made.encode(words, is_pretokenized=True)
        assert rows['tokens'][row].tolist() == coded.ids
        firsts = [
            word is not None and word != last for last, word in zip([None, *coded.word_ids], coded.word_ids, strict=False)
        ]
        expected = [names.index(tags[word]) if first else -1 for word, first in zip(coded.word_ids, firsts, strict=True)]
        assert rows['tags'][row].tolist() == expected
    assert dataset.facts['tags'] == len(names) and dataset.class_names == tuple(names)
    assert {name: (field.shape, field.dtype) for name, field in dataset.fields.items()} == {
        'tokens': ((length,), np.int32),
        'mask': ((length,), bool),
        'tags': ((length,), np.int32),
    }


@pytest.mark.parametrize(('size', 'alone'), [(262, 12), (400, 0)])
def test_a_token_of_bytes_is_of_the_word_behind_its_space(tmp_path, size, alone):
    """A space alone has no tag."""
    changes = {'tokenizer.vocabulary_size': size}
    _, rows, made = loaded(write(tmp_path / 'a.parquet', TAGGED), COLUMNS[0], 'bpe', **changes)
    for row, (words, tags) in enumerate(zip(WORDS, TAGS, strict=True)):
        tokens, expected = made.encode(' '.join(words)).tokens, []
        for place, token in enumerate(tokens):
            begins = token not in tokenizer.SPECIAL and (place == 1 or token.startswith('Ġ') or tokens[place - 1] == 'Ġ')
            alone -= token == 'Ġ'
            expected.append(begins and token != 'Ġ')
        assert rows['tags'][row].tolist() == [
            sorted({*sum(TAGS, [])}).index(tags[sum(expected[:place])]) if first else -1 for place, first in enumerate(expected)
        ]
    assert not alone


@pytest.mark.parametrize('name', TOKENIZERS)
def test_an_answer_is_from_its_first_to_its_last_character(tmp_path, name):
    """Never in the question, with what a normalizer drops at its end, and none where it is cut."""
    path = write(tmp_path / 'a.parquet', ASKED)
    _, rows, made = loaded(path, COLUMNS[1], name, length=90)
    assert {*rows} == {'tokens', 'mask', 'segments', 'start', 'end'} and rows['start'].dtype == rows['end'].dtype == np.int32
    assert (rows['start'][-1], rows['end'][-1]) == (-1, -1)
    for row, answer in enumerate(ANSWERS[:-1]):
        start, end = rows['start'][row], rows['end'][row]
        found = made.decode(rows['tokens'][row, start : end + 1].tolist())
        assert found.replace(' ', '') == made.normalizer.normalize_str(answer).replace(' ', '')
        assert rows['segments'][row, start : end + 1].all()
    if name == 'words':
        _, inner, _ = loaded(write(tmp_path / 'b.parquet', ASKED | answered(['ous'], [CONTEXT.index('ous')])), COLUMNS[1], name)
        assert made.decode(inner['tokens'][-1, inner['start'][-1] : inner['end'][-1] + 1].tolist()) == 'house'
    start, end = rows['start'][2], rows['end'][2]
    for length, expected in ((end + 2, (start, end)), (end + 1, (-1, -1))):
        with pytest.warns(UserWarning, match=rf'of 7 answers are not whole among {length} tokens and count as no answer'):
            _, short, _ = loaded(path, COLUMNS[1], name, length=int(length))
        assert (short['start'][2], short['end'][2]) == expected
    last = {'answers': [{'text': [CONTEXT[-3:]], 'answer_start': [len(CONTEXT) - 3]}] * len(ASKED['answers'])}
    with pytest.raises(ConfigError, match='8 of 8 answers are not whole among 9 tokens, and there are no others: raise'):
        loaded(write(tmp_path / 'c.parquet', ASKED | last), COLUMNS[1], name, length=9)


@pytest.mark.parametrize('name', ['a.jsonl', 'saved'])
@pytest.mark.parametrize(('columns', 'rows'), [*zip(COLUMNS, (TAGGED, ASKED), strict=True)], ids=['tags', 'answers'])
def test_tables_of_other_kinds_give_the_same(tmp_path, name, columns, rows):
    path, table = tmp_path / name, pyarrow.table(rows)
    if path.suffix:
        path.write_text('\n'.join(map(json.dumps, table.to_pylist())))
    else:
        path.mkdir()
        with pyarrow.ipc.new_stream(path / 'a.arrow', table.schema) as file:
            file.write_table(table)
    assert data.load(config(path, columns)).checksum == data.load(config(write(tmp_path / 'a.parquet', rows), columns)).checksum


def test_numbers_are_tags_too_and_all_parts_are_of_the_training_part(tmp_path):
    """Parts whose longest rows differ; a tag that has few words is counted wherever it is cut."""
    write(tmp_path / 'train.parquet', {'tokens': WORDS, 'tags': [[7] * 5, [7, 3, 7, 7], [7] * 5 + [20]]})
    write(tmp_path / 'test.parquet', {'tokens': WORDS[1:2], 'tags': [[20, 3, 3, 7]]})
    dataset, rows, _ = loaded(tmp_path, COLUMNS[0], 'words', test=0, length=6)
    assert rows['tags'][-1].tolist() == [-1, 2, 0, 0, 1, -1] and rows['tags'][:-1].max() == 1
    assert dataset.facts['tags'] == 3 and dataset.class_names == ('3', '7', '20')
    write(tmp_path / 'test.parquet', {'tokens': WORDS[1:2], 'tags': [[20, -100, 3, 7]]})
    dataset, rows, _ = loaded(tmp_path, COLUMNS[0], 'words', test=0, length=6)
    assert rows['tags'][-1].tolist() == [-1, 2, -1, 0, 1, -1] and dataset.class_names == ('3', '7', '20')
    write(tmp_path / 'test.parquet', {'tokens': WORDS[1:2], 'tags': [[20, 3, 3, 8]]})
    with pytest.raises(ConfigError, match="the test part has 1 labels that the training part has not, such as '8'"):
        loaded(tmp_path, COLUMNS[0], 'words', test=0)
    write(tmp_path / 'test.parquet', {'tokens': ['The'], 'tags': ['D']})
    with pytest.raises(
        ConfigError, match='in the rows of the test part data.text is a str, data.label is a str. Expected of all'
    ):
        loaded(tmp_path, COLUMNS[0], 'words', test=0)


def answered(text, begin):
    return {'answers': [*ASKED['answers'][:-1], {'text': text, 'answer_start': begin}]}


@pytest.mark.parametrize(
    ('columns', 'rows', 'changes', 'message'),
    [
        (0, {'tokens': [*TAGGED['tokens'][:-1], ['a', 'New York', *'bcde']]}, {}, "has 'New York' among the words of row 11"),
        (
            0,
            {'tokens': [[''], *TAGGED['tokens'][1:]]},
            {},
            "has '' among the words of row 0, expected texts that are not empty",
        ),
        (0, {'tags': [TAGS[0][1:], *TAGGED['tags'][1:]]}, {}, 'has 5 words and 4 tags at row 0, expected a tag for each word'),
        (0, {'tags': [[*'DNVV', None], *TAGGED['tags'][1:]]}, {}, 'has None among the tags of row 0, expected names or whole'),
        (0, {'tags': [[0.5] * len(words) for words in TAGGED['tokens']]}, {}, 'has 0.5 among the tags of row 0'),
        (0, {'tags': ['N'] * 12}, {}, 'data.text is a list, data.label is a str. Expected of all parts either a list of words'),
        (0, {}, {'label': ''}, 'data.text is a list. Expected of all parts'),
        (0, {}, {'pair': 'tokens'}, 'data.pair is a list'),
        (0, {}, {'pack': True}, "data.pack puts several texts in a row, and these have a 'tags of words' each"),
        (1, answered(['paris'], [3]), {}, "the answer 'paris' at row 7, and its context has 'Paris' at character 3: expected"),
        (1, answered(['Paris'], [-49]), {}, r"has \{'text': \['Paris'\], 'answer_start': \[-49\]\} at row 7, expected"),
        (1, answered([' '], [2]), {}, 'texts that are not empty and as many whole numbers'),
        (1, answered(['In'], []), {}, 'at row 7, expected .*two empty lists for no answer'),
        (1, answered(None, [0]), {}, 'at row 7, expected .*two empty lists for no answer'),
        (1, {}, {'pair': ''}, 'data.text is a str, data.label is a dict. Expected of all parts .* its context as data.pair'),
        (1, {}, {'pack': True}, "data.pack puts several texts in a row, and these have a 'pair' each"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, columns, rows, changes, message):
    with pytest.raises(ConfigError, match=message):
        data.load(config(write(tmp_path / 'a.parquet', (TAGGED, ASKED)[columns] | rows), COLUMNS[columns], **changes))


@pytest.mark.parametrize('name', ['text_classification', 'tagging', 'question_answering'])
def test_a_task_of_other_fields_is_refused_before_a_step_is_made(tmp_path, name):
    for columns, rows, read in zip(COLUMNS, (TAGGED, ASKED), ('tagging', 'question_answering'), strict=True):
        dataset = data.load(config(write(tmp_path / 'a.parquet', rows), columns))
        task = tasks.create(overrides.apply(overrides.defaults(), {'task.name': name})['task'], dataset.facts)
        if name == read:
            tasks.check_fields(name, task.fields, dataset, task.outputs)
            continue
        with pytest.raises(ConfigError, match=f"task '{name}' reads the fields .*: no (label|tags|start). Choose another task"):
            tasks.check_fields(name, task.fields, dataset, task.outputs)


@pytest.mark.parametrize(('columns', 'rows'), [*zip(COLUMNS, (TAGGED, ASKED), strict=True)], ids=['tags', 'answers'])
def test_tokens_that_are_kept_have_their_tags_and_answers(tmp_path, monkeypatch, columns, rows):
    """And none of another column, or of other code."""
    path = write(tmp_path / 'a.parquet', rows)
    _, anew, _ = loaded(path, columns)
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    monkeypatch.setattr(token_cache, '_LEAST', 1)
    loaded(path, columns)
    with monkeypatch.context() as patch:
        patch.setattr(tokenizer, 'encode', None)
        _, kept, _ = loaded(path, columns)
    assert {*kept} == {*anew} and all((kept[field] == anew[field]).all() for field in anew)
    changed = {'tags': [['N'] * len(tags) for tags in TAGS] * 4} if rows is TAGGED else answered(['In'], [0])
    _, other, _ = loaded(write(tmp_path / 'b.parquet', rows | changed), columns)
    assert any((other[field] != anew[field]).any() for field in {'tags', 'start'} & {*anew})
    before = len([*tmp_path.glob('frugal/tokens/*')])
    (tmp_path / 'code.py').write_text('# other')
    monkeypatch.setattr(spans, '__file__', str(tmp_path / 'code.py'))
    loaded(path, columns)
    assert len([*tmp_path.glob('frugal/tokens/*')]) == before + 2
