"""Sentence pairs: every kind of file gives the same ones, rules do what they say, and no test sentence is in training."""

import gettext
import io
import struct
from unittest import mock

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pyarrow
import pytest
import tokenizers
from pyarrow import parquet

from research import catalogue, data
from research.catalogue import ConfigError
from research.config import overrides
from research.data import curation, duplicates, external, pairs, token_cache
from research.data.arrays import from_arrays
from research.models import transformer
from research.report import data_cards
from research.tasks import translation

PAIRS = [
    ('Open the "file" now', 'Die "Datei" jetzt öffnen'),
    ('No such directory, alas', 'Verzeichnis gibt es leider nicht'),
    ('Save all changes', 'Alle Änderungen speichern'),
    ('The street is long', 'Die Straße ist lang'),
    ('Fish & chips', 'Fisch und Pommes < 3 €'),
]
# Words that share few runs of letters, to build sentences of.
NOUNS = ('apple', 'bridge', 'cloud', 'desk', 'engine', 'forest', 'guitar', 'hammer', 'island', 'jungle', 'kettle', 'ladder')
VERBS = ('moves', 'shows', 'takes', 'writes', 'builds', 'finds', 'hides', 'keeps', 'lifts', 'opens', 'prints', 'quits')


def config(path='', **changes):
    given = {'name': 'parallel', 'path': str(path), 'text': 'en', 'pair': 'de', 'test': 2, 'validation': 0} | changes
    return overrides.apply(overrides.defaults(), {f'data.{name}'.replace('__', '.'): value for name, value in given.items()})[
        'data'
    ]


def read(path, **changes):
    arrays = data.read(config(path, **changes)).arrays
    return [*zip(*(arrays[side][:].tolist() for side in pairs.SIDES), strict=True)]


def cut(train, test=None, validation=None, share=0.0, **changes):
    parts = {'train': train, 'test': test, 'validation': validation}
    parts = {
        part: dict(zip(pairs.SIDES, map(list, zip(*rows, strict=True)), strict=True)) for part, rows in parts.items() if rows
    }
    changes = {'test': share, 'tokenizer': {'name': 'bpe', 'vocabulary_size': 300}, 'length': 32, **changes}
    return data.cut(from_arrays('mine', parts), config(**changes))


def mo(messages, order='<', charset='utf-8'):
    """A binary catalogue, from {source: target} that may hold contexts and plurals."""
    header = f'Language: de\nContent-Type: text/plain; charset={charset}\nPlural-Forms: nplurals=2; plural=n != 1;\n'
    content = [(key.encode(charset), value.encode(charset)) for key, value in sorted({'': header, **messages}.items())]
    start, body, tables = 28 + 16 * len(content), b'', []
    for column in zip(*content, strict=True):
        for text in column:
            tables.append(struct.pack(f'{order}2I', len(text), start + len(body)))
            body += text + b'\0'
    head = struct.pack(f'{order}7I', 0x950412DE, 0, len(content), 28, 28 + 8 * len(content), 0, 0)
    return head + b''.join(tables) + body


def quoted(text):
    return '"' + text.replace('\\', '\\\\').replace('"', '\\"').replace('\n', '\\n') + '"'


def tmx(rows, languages=('en', 'de-DE')):
    def escaped(text):
        return text.replace('&', '&amp;').replace('<', '&lt;')

    units = [
        '<tu>'
        + ''.join(f'<tuv xml:lang="{name}"><seg>{escaped(text)}</seg></tuv>' for name, text in zip(languages, row, strict=True))
        + '</tu>'
        for row in rows
    ]
    return f'<?xml version="1.0"?><tmx version="1.4"><header/><body>{"".join(units)}</body></tmx>'


def write(path, kind):
    sources, targets = zip(*PAIRS, strict=True)
    if kind == 'lines':
        for side, texts in (('en', sources), ('de', targets)):
            (path / f'train.{side}').write_text('\n'.join(texts) + '\n', 'utf-8')
    elif kind == 'tsv':
        (path / 'train.tsv').write_text('\n'.join(['en\tde', *map('\t'.join, PAIRS)]), 'utf-8')
    elif kind == 'parquet':
        parquet.write_table(pyarrow.table({'en': sources, 'de': targets}), path / 'train.parquet')
    elif kind == 'tmx':
        (path / 'train.tmx').write_text(tmx(PAIRS), 'utf-8')
    elif kind == 'po':
        entries = '\n'.join(f'#: a.c:1\nmsgid {quoted(source)}\nmsgstr {quoted(target)}\n' for source, target in PAIRS)
        (path / 'mine.po').write_text(f'msgid ""\nmsgstr "Language: de\\n"\n\n{entries}', 'utf-8')
    else:
        folder = path / 'share' / 'de' / 'LC_MESSAGES'
        folder.mkdir(parents=True)
        (folder / 'mine.mo').write_bytes(mo(dict(PAIRS)))
    return path


@pytest.mark.parametrize('kind', ['lines', 'tsv', 'parquet', 'tmx', 'po', 'mo'])
def test_every_kind_of_file_gives_the_same_pairs(tmp_path, kind):
    assert sorted(read(write(tmp_path, kind))) == sorted(PAIRS)


def test_parts_have_files_of_their_own(tmp_path):
    write(tmp_path, 'lines')
    for side, text in (('en', 'a test here'), ('de', 'hier ein Test')):
        (tmp_path / f'test.{side}').write_text(text + '\n' + text)
    store = data.read(config(tmp_path, test=0))
    assert store.parts == {'train': range(5), 'test': range(5, 7)} and store.arrays['target'][5] == 'hier ein Test'


@pytest.mark.parametrize('order, charset', [('<', 'utf-8'), ('>', 'utf-8'), ('<', 'latin-1')])
def test_binary_catalogues_are_read_as_gettext_reads_them(tmp_path, order, charset):
    messages = {
        'one bird\0many birds': 'ein Vogel\0viele Vögel',
        'menu\4Über uns': 'Ueber\nuns',
        'left': '',
        'größer': 'größere',
    }
    raw = mo(messages, order, charset)
    (tmp_path / 'a.mo').write_bytes(raw)
    theirs = gettext.GNUTranslations(io.BytesIO(raw))
    found = dict(read(tmp_path))
    assert found == {
        'one bird': theirs.ngettext('one bird', 'many birds', 1),
        'Über uns': theirs.pgettext('menu', 'Über uns').replace('\n', ' '),
        'größer': theirs.gettext('größer'),
    }
    assert 'left' not in found, 'nobody has translated it'


def test_a_catalogue_as_text_has_entries_that_do_not_count(tmp_path):
    (tmp_path / 'a.po').write_text(
        'msgid ""\nmsgstr ""\n"Language: de\\n"\n\n'
        '#, fuzzy\nmsgid "guessed"\nmsgstr "geraten"\n'
        'msgctxt "menu"\nmsgid "in "\n"two \\"lines\\"\\n"\nmsgstr ""\n"in zwei\\tZeilen"\n'
        '# a comment ends an entry\nmsgid "bird"\nmsgid_plural "birds"\nmsgstr[0] "Vogel"\nmsgstr[1] "Vögel"\n'
        '#, c-format\n#| msgid "older"\nmsgid "later"\nmsgstr "später"\n\nmsgid "untranslated"\nmsgstr ""\n'
        '#, fuzzy\n#~ msgid "gone"\n#~ msgstr "weg"\n\nmsgid "last\u2028one"\nmsgstr "letzter\x85hier"\r\n',
        'utf-8',
        newline='',
    )
    assert read(tmp_path) == [
        *[('in two "lines"', 'in zwei Zeilen'), ('bird', 'Vogel'), ('later', 'später'), ('last one', 'letzter hier')]
    ]


def test_of_catalogues_in_folders_by_language_only_the_one_asked_for_is_read(tmp_path):
    for number, language in enumerate(('de', 'de_AT', 'pt_BR', 'fr')):
        folder = tmp_path / language / 'LC_MESSAGES'
        folder.mkdir(parents=True)
        (folder / 'a.mo').write_bytes(mo({'one word': f'Wort {number}'}))
    assert read(tmp_path) == [('one word', 'Wort 0')]
    assert read(tmp_path, pair='pt') == [('one word', 'Wort 2')], 'by a region where there is none without'
    with pytest.raises(ConfigError, match=r"'frr', and no catalogue of it .* only of de, de_AT, fr, pt_BR.* mean 'fr'"):
        read(tmp_path, pair='frr')


@pytest.mark.parametrize(
    'given, kept',
    [
        (('_File', '_Datei'), ('File', 'Datei')),
        (('E~xit now', 'Jetzt ~beenden'), ('Exit now', 'Jetzt beenden')),
        (('Save && &Close', 'Sichern && S&chließen'), ('Save && Close', 'Sichern && Schließen')),
        (('_New Path', 'Neuer Pfad'), ('New Path', 'Neuer Pfad')),
        (('_OK then', '_OK dann'), ('OK then', 'OK dann')),
        (('set file_size now', 'file_size setzen'), ('set file_size now', 'file_size setzen')),
        (('R&D budget', 'Etat für R&D'), ('R&D budget', 'Etat für R&D')),
        (('a &lt; b', 'a &lt; c'), ('a &lt; b', 'a &lt; c')),
    ],
)
def test_accelerators_of_menus_are_no_part_of_a_sentence(tmp_path, given, kept):
    (tmp_path / 'a.mo').write_bytes(mo(dict([given])))
    assert read(tmp_path) == [kept]


def test_a_translation_memory_has_markup_of_its_own_and_other_languages(tmp_path):
    (tmp_path / 'a.tmx').write_text(
        tmp := tmx([('plain', 'schlicht')]).replace(
            '</body>',
            '<tu><tuv lang="EN-us"><seg>Press <bpt i="1">&lt;b&gt;</bpt><hi>the <ph>x</ph>key</hi><ept i="1"/> now</seg></tuv>'
            '<tuv xml:lang="fr"><seg>Appuyez</seg></tuv><tuv xml:lang="de"><seg>Taste drücken</seg></tuv></tu>'
            '<tu><tuv xml:lang="en"><seg>alone</seg></tuv></tu></body>',
        ),
        'utf-8',
    )
    assert read(tmp_path / 'a.tmx') == [('plain', 'schlicht'), ('Press the key now', 'Taste drücken')]
    with pytest.raises(ConfigError, match=r"no 'fre', only EN-us, de, de-DE, en, fr\. Did you mean 'fr'\?"):
        read(tmp_path / 'a.tmx', pair='fre')
    (tmp_path / 'a.tmx').write_text(tmp[:-40])
    with pytest.raises(ConfigError, match=r'a\.tmx is torn, or no TMX'):
        read(tmp_path / 'a.tmx')


def test_wherever_a_binary_catalogue_is_torn_its_name_is_told(tmp_path):
    whole = mo(dict(PAIRS))
    for end in range(0, len(whole) - 1, 5):
        (tmp_path / 'torn.mo').write_bytes(whole[:end])
        with pytest.raises(ConfigError, match=r'torn\.mo is torn, or no \.mo catalogue: '):
            read(tmp_path)
    (tmp_path / 'torn.mo').write_bytes(b'PK' + whole[2:])
    with pytest.raises(ConfigError, match='does not begin as one'):
        read(tmp_path)


def remove_a_line(path):
    (path / 'train.de').write_text((path / 'train.de').read_text('utf-8').partition('\n')[2], 'utf-8')


@pytest.mark.parametrize(
    'kind, change, changes, message',
    [
        ('lines', remove_a_line, {}, r'train\.en has 5 lines, and train\.de has 4: expected as many'),
        ('lines', lambda path: None, {'pair': 'dee'}, r"no 'train\.dee', only train\.de, train\.en\. Did you mean 'train\.de'"),
        ('lines', lambda path: None, {'text': 'fr', 'pair': 'es'}, r'It has train\.de, train\.en'),
        ('lines', lambda path: (path / 'train.de').write_bytes(b'\xff\n' * 5), {}, r'train\.de is no UTF-8'),
        ('tsv', lambda path: None, {'pair': 'dee'}, r"no column 'dee' for the target\. Did you mean 'de'"),
        ('tsv', lambda path: None, {'pair': ''}, "data.pair '': expected a file or a folder, and the columns or languages"),
        ('tsv', lambda path: (path / 'train.tsv').unlink(), {}, 'expected train.en and train.de, a table'),
        ('po', lambda path: (path / 'mine.po').write_text('msgid "a"\nmsg'), {}, r"mine\.po, line 2: 'msg' is no line"),
        ('po', lambda path: (path / 'mine.po').write_text('msgid "a"\n'), {}, r'mine\.po is torn: an entry lacks its msgstr'),
    ],
)
def test_what_is_wrong_with_files_is_said_in_a_sentence(tmp_path, kind, change, changes, message):
    change(write(tmp_path, kind))
    with pytest.raises(ConfigError, match=message):
        read(tmp_path, **changes)


SENTENCES = [(f'the {noun} {verb} well', f'{noun[::-1]} {verb[::-1]} eben') for noun, verb in zip(NOUNS, VERBS, strict=True)]


def test_an_empty_side_is_an_error_that_names_its_row_or_a_rule():
    broken = [*SENTENCES[:4], ('left alone', ' \t'), *SENTENCES[4:]]
    with pytest.raises(ConfigError, match="'mine': 1 train pairs have an empty target, the first is at row 4, from 0"):
        cut(broken, SENTENCES[:2])
    with pytest.raises(ConfigError, match='1 test pairs have an empty source, the first is at row 1'):
        cut(SENTENCES, [*SENTENCES[:1], ('', 'x')], filters=('empty',))
    card = cut(broken, SENTENCES[:2], clean=('empty',)).card
    assert card['sources'][0]['removed']['empty'] == 1


def test_equal_sources_stay_on_one_side_and_no_pair_moves_when_others_come():
    copies = [(f'{source.upper()}!', f'{target} {number}') for number in range(3) for source, target in SENTENCES]

    def sources_of_test(rows):
        # Which would hide what the cut itself leaves in training.
        with mock.patch.object(pairs, 'leaked', lambda ours, theirs: np.zeros(len(ours), bool)):
            found = cut(rows, share=0.3)
        of_split = [{duplicates.normalized(rows[row][0]) for row in found.splits[split]} for split in ('train', 'test')]
        assert not of_split[0] & of_split[1] and all(of_split)
        return of_split[1]

    assert sources_of_test([*SENTENCES, *copies]) == sources_of_test(SENTENCES) == sources_of_test(SENTENCES[::-1])


GOOD = ('This is a good one', 'Das ist ein guter Satz')


@pytest.mark.parametrize(
    'rule, bad, kept',
    [
        ('empty', [('', 'x'), ('x', '')], [('x', 'y')]),
        ('short', [('Open file', 'Datei öffnen'), ('x', 'x')], [('Open the file', 'Datei öffnen')]),
        ('long', [('w ' * 81, 'x'), ('x', 'w ' * 81)], [('w ' * 80, 'x')]),
        ('ratio', [('a' * 31, 'b' * 10), ('b', 'a' * 13)], [('a' * 30, 'b' * 10), ('b', 'a' * 12)]),
        ('script', [('Открыть', 'Datei'), ('File', '開く')], [('Open α', 'α öffnen'), ('12 %', '12 %')]),
        ('identical', [('OK now', 'ok NOW')], [('OK', 'Gut')]),
        ('duplicates', [('This is a good one!', 'das ist ein guter Satz')], [('This is a bad one', 'Das ist ein übler Satz')]),
        (
            'markup',
            [
                *((f'see {what} here', 'siehe da') for what in ('%s', '%d', '%1', '%-5.2f', '%(name)s', '%lu', "%qs", '%<x')),
                *((f'see {what} here', 'siehe da') for what in ('{0}', '{name}', '{}', '$(ARG)', '${x}', '$1', '<b>', '</a>')),
                *(('siehe da', f'see {what} here') for what in ('&amp;', '&#38;', '<img src="x"/>', '@GPG@', '~a')),
            ],
            [('50 % of all', '50% of all.'), ('a < b > c', 'Fish & chips; 3 $'), ('x@y.org', '~10 s'), ('{ x; }', '100%')],
        ),
    ],
)  # fmt: skip
def test_a_rule_leaves_out_what_it_says_and_nothing_else(rule, bad, kept):
    rows = [GOOD, *bad, *kept]
    find = catalogue.resolve('rule', rule, curation.RULES)
    examples = pairs.joined(*zip(*rows, strict=True))
    found = find(examples, None, np.arange(len(rows)) == 0)
    assert found.tolist() == [False, *[True] * len(bad), *[False] * len(kept)]


def test_clean_is_of_every_split_filters_of_training_alone_and_both_are_counted():
    odd = [('The <b>bold</b> one', 'Der fette dort'), ('OK OK OK', 'OK OK OK')]
    rows, test = [*SENTENCES[:8], *odd], [*SENTENCES[8:], *odd[:1]]
    filtered = cut(rows, test, filters=('markup', 'identical'))
    cleaned = cut(rows, test, clean=('markup', 'identical'))
    assert [len(of.splits['test']) for of in (filtered, cleaned)] == [5, 4]
    assert [len(of.splits['train']) for of in (filtered, cleaned)] == [8, 8]
    assert cleaned.card['sources'][0]['removed'] == {'markup': 1, 'identical': 1, 'in validation or test': 0}
    assert filtered.card['sources'][0]['removed'] == {'in validation or test': 1, 'markup': 0, 'identical': 1}
    assert 'Left out of test, a: 1 markup.' in data_cards.lines({'a': cleaned.card})
    with pytest.raises(ConfigError, match=r'data\.clean leaves out all 2 test examples .*identical: 2'):
        cut(rows, odd[1:] * 2, clean=('identical',))


def test_rules_on_pairs_refuse_other_texts():
    store = from_arrays('mine', {'train': {'text': ['one line', 'a\nb\nc'] * 9}})
    with pytest.raises(ConfigError, match=r"1 lines at row 0, expected a pair of lines: choose data\.name 'parallel'"):
        data.cut(store, config(test=2, filters=('ratio',)))
    with pytest.raises(ConfigError, match="'mine' has no sentence pairs, whose targets it is for"):
        data.cut(store, config(test=2, target_tokenizer={'name': 'bpe'}))


@pytest.mark.parametrize(
    'changes, message',
    [
        ({'clean': ('duplicates', 'short')}, "The rule 'short' looks at sentence pairs, and 'mine' has images: leave it out"),
        ({'filters': ('markup',)}, "The rule 'markup' looks at sentence pairs"),
        ({'target_tokenizer': {'name': 'bpe'}}, r"data\.target_tokenizer is 'bpe', and 'mine' has no sentence pairs"),
        (
            {'targets': {'name': 'translated', 'run': 'a:b:0'}},
            r"data\.targets is 'translated', and 'mine' has no sentence pairs",
        ),
        ({'pack': True}, "puts several texts in a row, and 'mine' has none"),
    ],
)
def test_settings_of_sentence_pairs_are_refused_for_images(changes, message):
    store = from_arrays('mine', {'train': (np.arange(9 * 16, dtype=np.uint8).reshape(9, 4, 4, 1), np.arange(9) % 2)})
    with pytest.raises(ConfigError, match=message):
        data.cut(store, config(test=2, **changes))


def test_no_training_pair_has_a_sentence_of_the_test_or_nearly_one():
    test = [('Toggle the names of all stars', 'Namen aller Sterne zeigen'), ('Remove the last page', 'Letzte Seite entfernen')]
    leaks = [
        ('toggle the names of ALL stars...', 'ganz anders gesagt'),
        ('Toggle the names of all the stars', 'wieder anders'),
        ('Quite something else', 'Die letzte Seite entfernen'),
    ]
    fine = [('Remove another book', 'Anderes Buch wegnehmen'), ('Toggle lines', 'Linien umschalten')]
    found = cut([*SENTENCES, *leaks, *fine], test)
    assert found.card['sources'][0]['removed'] == {'in validation or test': 3}
    assert found.splits['train'].tolist() == [*range(len(SENTENCES)), len(SENTENCES) + 3, len(SENTENCES) + 4]
    assert (
        cut([*SENTENCES, *leaks], test=SENTENCES[:2], validation=test, official_validation=True).card['sources'][0]['kept']
        == 10
    )


def test_sentences_without_words_are_copies_of_their_like_alone():
    ours, theirs = ['!!!', '→ ←', '%', 'कि', 'की', 'के', '%'], ['%', 'की']
    found = pairs.leaked(pairs.joined(ours, map(str, range(7))), pairs.joined(theirs, 'xy'))
    assert found.tolist() == [False, False, True, False, True, False, True]
    assert duplicates.repeated(np.array(ours, object), None, None).tolist() == [*[False] * 6, True]


def test_copies_are_those_of_a_search_of_all_pairs():
    draw = np.random.default_rng(0)

    def sentences(count):
        words = [*NOUNS, *VERBS]
        return np.array([' '.join(draw.choice(words, draw.integers(1, 7))) for _ in range(count)], object)

    def runs(text):
        padded = f' {text} '
        return {padded[k : k + 4] for k in range(len(padded) - 3)}

    ours, theirs = sentences(400), sentences(150)
    expected = [any(len(runs(a) & runs(b)) >= 0.7 * len(runs(a) | runs(b)) for b in theirs) for a in ours]
    other = [np.array([f'{letter}{number}xq' for number in range(size)], object) for letter, size in (('a', 400), ('b', 150))]
    found = pairs.leaked(pairs.joined(ours, other[0]), pairs.joined(theirs, other[1]))
    assert found.tolist() == expected and 20 < sum(expected) < 380


def test_both_sides_are_framed_rows_that_read_as_they_were():
    rows = [('Save Änderungen: naïve “quotes” …', 'Größe überprüfen; Maß 3 €'), *SENTENCES]
    found = cut(rows, SENTENCES[:2], length=48, target_length=56)
    made = tokenizers.Tokenizer.from_str(found.tokenizer)
    assert {name: field.shape for name, field in found.fields.items()} == {
        **{'source': (48,), 'source_mask': (48,), 'target': (56,), 'target_mask': (56,)}
    }
    for side, column in zip(pairs.SIDES, zip(*rows, strict=True), strict=True):
        tokens, mask = found.arrays[side][: len(rows)], found.arrays[f'{side}_mask'][: len(rows)]
        assert made.decode_batch(tokens.tolist()) == [*column]
        lengths = mask.sum(1)
        assert (tokens[:, 0] == found.facts['bos']).all() and (tokens[~mask] == found.facts['pad']).all()
        assert (tokens[np.arange(len(rows)), lengths - 1] == found.facts['eos']).all()
        assert (mask == (np.arange(mask.shape[1]) < lengths[:, None])).all()
    assert found.facts['vocabulary_size'] == found.facts['target_vocabulary_size'] == made.get_vocab_size()
    assert found.target_tokenizer == ''


def test_one_token_may_start_end_and_pad_both_sides(tmp_path):
    """Of bytes alone none is unknown; masks tell what is padding."""
    named = cut(SENTENCES, SENTENCES[:2]).tokenizer.replace('[SEP]', '<|endoftext|>')
    for ours in ('PAD', 'UNK', 'CLS', 'MASK'):
        named = named.replace(f'[{ours}]', f'<|not {ours}|>')
    (tmp_path / 'tokenizer.json').write_text(named)
    found = cut(SENTENCES, SENTENCES[:2], tokenizer={'name': 'file', 'path': str(tmp_path)})
    assert [found.facts[name] for name in ('bos', 'eos', 'pad')] == [3, 3, 3]
    tokens, mask = found.arrays['target'][:], found.arrays['target_mask'][:]
    assert ((tokens == 3) & mask).sum() == 2 * len(tokens) and (tokens[~mask] == 3).all() and not mask.all()


def test_one_tokenizer_learns_from_both_sides_of_training_and_two_from_one_each():
    train = [(f'{source} zebra', f'{target} quagga') for source, target in SENTENCES]
    words = {'name': 'words', 'min_count': 1}
    one = cut(train, [('the okapi sleeps', 'ipako tfälhcs')] * 2, tokenizer=words)
    two = cut(train, SENTENCES[:2], tokenizer=words, target_tokenizer={**words, 'vocabulary_size': 20})
    known = [
        {*tokenizers.Tokenizer.from_str(text).get_vocab()} for text in (one.tokenizer, two.tokenizer, two.target_tokenizer)
    ]
    assert [('zebra' in has, 'quagga' in has, 'okapi' in has) for has in known] == [
        *[(True, True, False), (True, False, False), (False, True, False)]
    ]
    assert two.facts['target_vocabulary_size'] == len(known[2]) == 20 and two.facts['vocabulary_size'] == len(known[1])
    assert one.checksum != two.checksum


def test_tokens_that_are_kept_are_those_made_anew(tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    words = {'name': 'words', 'min_count': 1}
    for target in ({'name': 'shared'}, words):
        changes = {'tokenizer': words, 'target_tokenizer': target}
        anew = cut(SENTENCES, SENTENCES[:2], **changes)
        monkeypatch.setattr(token_cache, '_LEAST', 1)
        for again in (cut(SENTENCES, SENTENCES[:2], **changes), cut(SENTENCES, SENTENCES[:2], **changes)):
            assert (again.tokenizer, again.target_tokenizer, again.facts) == (anew.tokenizer, anew.target_tokenizer, anew.facts)
            for name in anew.fields:
                np.testing.assert_array_equal(again.arrays[name], anew.arrays[name])
        monkeypatch.setattr(token_cache, '_LEAST', 1 << 60)


def test_a_vocabulary_that_lacks_a_side_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"data\.target_tokenizer\.path='.*none': expected a tokenizer\.json"):
        cut(SENTENCES, SENTENCES[:2], target_tokenizer={'name': 'file', 'path': str(tmp_path / 'none')})
    (tmp_path / 'vocab.txt').write_text(
        '\n'.join(['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', 'the', 'well', *NOUNS, *VERBS])
    )
    with pytest.raises(
        ConfigError, match=r'% of the tokens of the target side are unknown to the vocabulary of data\.tokenizer'
    ):
        cut(SENTENCES, SENTENCES[:2], tokenizer={'name': 'file', 'path': str(tmp_path)})
    with pytest.raises(ConfigError, match=r'of the source side are unknown .* of data\.tokenizer'):
        cut([pair[::-1] for pair in SENTENCES], SENTENCES[:2], tokenizer={'name': 'file', 'path': str(tmp_path)})


def test_targets_that_are_cut_are_counted():
    with pytest.warns(UserWarning, match=r'12 of 12 training targets fill all 5 tokens.*raise data\.target_length'):
        cut(SENTENCES, [('x y z', 'u v w')] * 2, target_length=5)


def test_packed_pairs_share_rows_and_score_as_they_do_alone():
    """Of all training pairs, but for the ends of sides that fill a row: these may have been cut."""
    test, sizes = [('x y z', 'u v w'), ('y', 'w')], {'length': 72, 'target_length': 64}
    alone, shared = (cut(SENTENCES, test, **sizes, pack=pack) for pack in (False, True))
    rows = shared.splits['train']
    assert len(rows) <= len(SENTENCES) / 2 and shared.facts['padding'] < 0.5 * alone.facts['padding']
    read = [[line for row in rows for line in shared.sentences[side][row].split('\n')] for side in pairs.SIDES]
    assert sorted(zip(*read, strict=True)) == sorted(SENTENCES)
    places = shared.splits['test']
    assert [*zip(*(shared.sentences[side][places] for side in pairs.SIDES), strict=True)] == test
    for name in ('source', 'source_mask', 'target', 'target_mask'):
        np.testing.assert_array_equal(shared.arrays[name][places], alone.arrays[name][alone.splits['test']])
    module = transformer.Transformer(vocabulary_size=alone.facts['vocabulary_size'], dim=16, depth=1, heads=2, width=32)
    task = translation.create('softmax', 0.1, alone.facts, written='never')
    sums, variables = {}, jax.jit(module.init)(jax.random.key(0), jnp.zeros((1, 4), jnp.int32))
    for dataset in (alone, shared):
        batch = data.take(dataset, dataset.splits['train'])
        batch['valid'] = np.ones(len(batch['source']), np.float32)
        args, kwargs = task.inputs(batch, {})
        sums[len(batch['source'])] = task.train_sums(jax.jit(module.apply)(variables, *args, **kwargs), batch, {})
    chex.assert_trees_all_close(*sums.values(), rtol=1e-5)
    narrow = cut(SENTENCES, test, length=72, target_length=40, pack=True)  # where targets fill a row before sources do
    tokens = [one.arrays['target_mask'][one.splits['train']].sum() for one in (alone, narrow)]
    assert tokens[0] == tokens[1]
    parts = {part: {'source': [part] * 3, 'target': [part] * 3, 'group': np.arange(3)} for part in ('train', 'test')}
    with pytest.raises(ConfigError, match="have a 'group' each: set it to False"):
        data.cut(from_arrays('mine', parts), config(pack=True, test=0.0))


def test_pairs_from_elsewhere_and_personal_data_are_looked_at_too(tmp_path):
    (tmp_path / 'more.tsv').write_text('en\tde\nan extra okapi\tein Okapi mehr\n' + '\t'.join(SENTENCES[0]) + '\n')
    rows = [*SENTENCES, ('write to a.b@example.org now', 'an a.b@example.org schreiben')]
    more = ({'name': 'parallel', 'path': str(tmp_path / 'more.tsv')},)
    parts = {'train': rows, 'test': SENTENCES[:2]}
    store = from_arrays(
        'parallel', {part: dict(zip(pairs.SIDES, zip(*of, strict=True), strict=True)) for part, of in parts.items()}
    )
    changed = config(test=0, external=more, personal='mask', tokenizer={'name': 'bpe', 'vocabulary_size': 300})
    joined = external.join(store, changed, data.read)
    found = data.cut(joined, changed)
    assert [source['removed'] for source in found.card['sources']] == [
        {'in validation or test': 2},
        {'in validation or test': 1},
    ]
    said = tokenizers.Tokenizer.from_str(found.tokenizer).decode_batch(found.arrays['source'][found.splits['train']].tolist())
    assert said[-2:] == ['write to [EMAIL] now', 'an extra okapi'] and found.card['personal']['EMAIL'] == 2
