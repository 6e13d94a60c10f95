"""What is personal by a pattern and a check is masked; what fails the check, or is something else, stays."""

import random

import pytest
import synthetic
from hypothesis import given
from hypothesis import strategies as st

from research import data
from research.catalogue import ConfigError
from research.data import arrays, curation, personal

# Published examples, and valid by their rules.
FOUND = {
    'EMAIL': ['jane.doe+x@mail.example.org', "o'brien@example.ie", 'jörg@bücher.example', 'a_b@x-y.co.uk'],
    'PHONE': [
        '+49 30 901820',
        '+1 (212) 555-0123',
        '0044 20 7946 0958',
        '+33.1.23.45.67.89',
        '(212) 555-2368',
        '1-800-555-2368',
    ],
    'CARD': ['4111 1111 1111 1111', '5555555555554444', '3782-822463-10005', '6011111111111117'],
    'IBAN': ['DE89 3704 0044 0532 0130 00', 'GB82WEST12345698765432', 'FR1420041010050500013M02606', 'NO9386011117947'],
    'NATIONAL_ID': [
        '86095742719',  # Steuer-ID
        '47 036 892 816',
        '2 55 08 14 168 025 38',  # NIR
        '1 85 06 2A 004 001 97',  # of Corsica: 97 less the rest of 1850619004001
        '44051401359',  # PESEL
        'RSSMRA85T10A562S',  # codice fiscale
        '078-05-1120',  # SSN
    ],
    'IP': ['192.0.2.235', '2001:db8::8a2e:370:7334', 'fe80::1', '2001:0db8:85a3:0000:0000:8a2e:0370:7334'],
}
KEPT = [
    'write to me @home or @twitter, a@b',
    '4111 1111 1111 1112',  # a digit changed
    'DE88 3704 0044 0532 0130 00',
    '86095742718',
    '2 55 08 14 168 025 39',
    '44051401358',
    'RSSMRA85T10A562T',
    '11223456785',  # a check digit of a Steuer-ID, which has one digit alone more than once
    '44131401350',  # a check digit of a PESEL, in month 13
    '666-05-1120 and 078-00-1120',
    '256.1.1.1 and 1.2.3 and 1.2.3.4.5',
    'at 12:30:45, std::string, 3:4',
    'order 12345678, in 2002-09-12, ISBN 978-3-16-148410-0, pi 3.14159265358979',
    'made 1,234,567,890 of 10.000.000 in 0049 steps',
]


@pytest.mark.parametrize('kind, value', [(kind, value) for kind, values in FOUND.items() for value in values])
@pytest.mark.parametrize('around', ['{}', 'Call {}, now.', '<{}>', 'is ({}); BUT', 'a {}\n10 of B'])
def test_it_is_masked_wherever_it_stands(kind, value, around):
    assert personal.mask(around.format(value)) == (around.format(f'[{kind}]'), {kind: 1})


@pytest.mark.parametrize('text', KEPT)
def test_what_only_looks_like_it_stays(text):
    assert personal.mask(text) == (text, {})


@pytest.mark.parametrize('text', ['Ann wrote to ann@example.org from 192.0.2.1, and to ann@example.org.'])
def test_all_are_counted_and_what_is_masked_stays_so(text):
    masked, counts = personal.mask(text)
    assert masked == 'Ann wrote to [EMAIL] from [IP], and to [EMAIL].' and counts == {'EMAIL': 2, 'IP': 1}
    assert personal.mask(masked) == (masked, {})


def test_what_is_joined_to_a_word_or_a_number_stays():
    for value in ('4111111111111111', '192.0.2.235', '44051401359', 'RSSMRA85T10A562S', '+4930901820'):
        for text in (f'x{value}', f'{value}x', f'_{value}', f'1.{value}'):
            assert personal.mask(text) == (text, {})


@given(digits=st.text('0123456789', min_size=13, max_size=19))
def test_the_luhn_sum_is_that_of_the_definition(digits):
    doubled = [int(digit) * (2 if (len(digits) - place) % 2 == 0 else 1) for place, digit in enumerate(digits)]
    assert personal.luhn(digits) == (sum(n if n < 10 else n - 9 for n in doubled) % 10 == 0)


@pytest.mark.parametrize(
    'check, example',
    [
        (personal.luhn, '4111111111111111'),
        (personal.iban, 'DE89370400440532013000'),
        (personal.steuer_id, '86095742719'),
        (personal.nir, '255081416802538'),
        (personal.pesel, '44051401359'),
        (personal.codice_fiscale, 'RSSMRA85T10A562S'),
    ],
)
def test_a_changed_last_character_is_noticed(check, example):
    assert check(example)
    others = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ' if example[-1].isalpha() else '0123456789'
    assert not any(check(example[:-1] + other) for other in others if other != example[-1])


@pytest.mark.parity
@pytest.mark.parametrize(
    'check, module, length',
    [('luhn', 'luhn', 16), ('steuer_id', 'de.idnr', 11), ('nir', 'fr.nir', 15), ('pesel', 'pl.pesel', 11)],
)
def test_checks_agree_with_stdnum(check, module, length):
    theirs = pytest.importorskip(f'stdnum.{module}')
    draw, both = random.Random(0), 0
    for _ in range(20_000):
        number = ''.join(draw.choice('0123456789') for _ in range(length))
        if check == 'pesel':  # by chance one in a hundred has a month, and a day
            number = f'{number[:2]}{draw.randint(1, 12):02d}{draw.randint(1, 28):02d}{number[6:]}'
        if check == 'nir':
            number = f'{draw.choice("12")}{number[1:3]}{draw.randint(1, 12):02d}{number[5:]}'
        ours = getattr(personal, check)(number)
        assert ours == theirs.is_valid(number), number
        both += ours
    assert both > 20


@given(st.text(), st.integers(0, 2**32))
def test_any_text_is_taken(text, seed):
    draw = random.Random(seed)
    parts = [draw.choice(draw.choice([*FOUND.values()])) for _ in range(2)]
    masked, counts = personal.mask(f'{parts[0]} {text} {parts[1]}')
    assert sum(counts.values()) >= 1 and masked.count('[') >= sum(counts.values())


MAIL = 'From ann@example.org, again'
PLAIN = 'nothing of that kind here'


def cut(setting, changes=(), **fields):
    parts = {
        'train': {'text': [MAIL, PLAIN, 'call +49 30 901820 now', 'or not'], 'label': [0, 1, 0, 1]},
        'test': {'text': [MAIL, PLAIN], 'label': [0, 1]},
    }
    parts = {part: {**table, **{field: of(table) for field, of in fields.items()}} for part, table in parts.items()}
    store = arrays.from_arrays('mails', parts)
    more = {'tokenizer': {'name': 'words', 'min_count': 1}, 'length': 8, 'pack': False}
    return data.cut(store, {**synthetic.BASE, **more, **dict(changes), 'personal': setting})


def test_masked_texts_are_what_is_learnt_and_scored():
    kept, masked = cut('keep'), cut('mask')
    assert 'ann' in kept.tokenizer and 'example' not in masked.tokenizer and 'email' in masked.tokenizer
    assert kept.card == {} and masked.card['personal'] == dict.fromkeys(personal.NAMES, 0) | {'EMAIL': 2, 'PHONE': 1}
    assert masked.checksum != kept.checksum and len(masked.splits['train']) == 4


def test_dropped_texts_are_those_of_training():
    dropped = cut('drop')
    assert dropped.splits['train'].tolist() == [1, 3] and len(dropped.splits['test']) == 2
    assert dropped.card['sources'][0]['removed'] == {curation.DROPPED: 2}
    assert 'example' not in dropped.tokenizer


def test_what_is_counted_is_in_a_split():
    none = dict.fromkeys(personal.NAMES, 0)
    assert cut('drop').card['personal'] == none | {'EMAIL': 1}  # of the test split
    few = [cut('mask', {'examples': 1, 'split_seed': seed}) for seed in range(8)]
    for dataset in few:
        assert dataset.card['personal'] == none | {0: {'EMAIL': 2}, 2: {'EMAIL': 1, 'PHONE': 1}}.get(
            int(dataset.splits['train'][0]), {'EMAIL': 1}
        )
    assert len({int(dataset.splits['train'][0]) for dataset in few}) > 2


def test_second_texts_are_masked_too():
    pairs = cut('mask', pair=lambda table: table['text'][::-1])
    assert 'example' not in pairs.tokenizer and pairs.card['personal']['EMAIL'] == 4


def test_masks_are_read_from_disk_the_next_time(tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    first = cut('mask')
    monkeypatch.setattr(personal, 'mask', None)
    assert cut('mask').tokenizer == first.tokenizer and cut('mask').card['personal'] == first.card['personal']


def test_data_without_texts_are_refused():
    with pytest.raises(ConfigError, match="data.personal is 'mask', and 'synthetic' has no texts: set it to 'keep'"):
        data.cut(arrays.from_arrays('synthetic', synthetic.load('')), {**synthetic.BASE, 'personal': 'mask'})
