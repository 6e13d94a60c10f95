"""Personal data in texts: e-mail addresses, phone, card, account and identity numbers, and IP addresses.

Idea: what a pattern finds and a check digit confirms is replaced by its kind, [EMAIL], so that no model can learn or repeat it.

Sources: e-mail RFC 5322 section 3.4.1 (without quotes and comments); phones ITU-T E.164 (international form) and the North
American Numbering Plan; cards ISO/IEC 7812-1 (Luhn's check digit); IBAN ISO 13616-1, with ISO/IEC 7064 MOD 97-10. Identity
numbers: Germany's Steuer-ID (ISO/IEC 7064 MOD 11,10), France's NIR (97 less the rest by 97), Poland's PESEL (weights 1, 3, 7,
9), Italy's codice fiscale (decree of 23 December 1976), the SSN of the United States (no check digit, so ranges alone). IP
addresses are what Python's `ipaddress` reads.

Config: {'data.personal': 'mask'} replaces them in the texts of every split; 'drop' also leaves training texts with any of them
out, and keeps those of validation and test, masked, so that the same examples are scored.

Cost: about 1 s a million characters, once, kept on disk. Claim: none; benchmarks/filters.md has what was measured.

Names, postal addresses, and phone numbers in a national form other than North America's are not found: masked texts are not
anonymous. Clashes: tags and answers that lie at places in a text; tasks whose label hangs on such data.
"""

import collections
import ipaddress
import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np

# Characters of an IBAN by country (the SWIFT registry of 2024, its most used).
_IBANS: Mapping[int, str] = {
    15: 'NO',
    16: 'BE',
    18: 'DK FI NL',
    19: 'SI',
    20: 'AT EE LT LU',
    21: 'CH HR LI LV',
    22: 'BG DE GB IE',
    23: 'AE IL',
    24: 'CZ ES RO SA SE SK',
    25: 'PT',
    26: 'IS TR',
    27: 'FR GR IT MC SM',
    28: 'CY HU PL',
    31: 'MT',
}
# Of a codice fiscale: what letters and digits at odd places count, in the order of 0 to 9 and of A to Z.
_ODD = (1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23)
# Months of a PESEL are shifted by the century.
_CENTURIES = (0, 20, 40, 60, 80)


def mask(text: str) -> tuple[str, dict[str, int]]:
    """(the text with each find replaced by its kind in brackets, kind -> how many)."""
    counts: collections.Counter[str] = collections.Counter()
    for kind, pattern, holds in KINDS:

        def replaced(match: re.Match[str], kind: str = kind, holds: Callable[[str], bool] = holds) -> str:
            if not holds(match[0]):
                return match[0]
            counts[kind] += 1
            return f'[{kind}]'

        text = pattern.sub(replaced, text)
    return text, dict(counts)


def masked(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """(the masked texts [N], int64 [N, K] of how many of each of `NAMES` were in each)."""
    found = [mask(text) for text in texts]
    counts = [[counts.get(name, 0) for name in NAMES] for _, counts in found]
    return np.array([text for text, _ in found], object), np.array(counts, np.int64).reshape(-1, len(NAMES))


def luhn(digits: str) -> bool:
    """Whether every second digit from the right, doubled, and the others sum to a multiple of 10."""
    return sum(sum(divmod(int(d) * (1 + place % 2), 10)) for place, d in enumerate(reversed(digits))) % 10 == 0


def iban(text: str) -> bool:
    """Whether the number that letters make, the first four characters behind the others, is 1 modulo 97."""
    return int(''.join(str(int(character, 36)) for character in text[4:] + text[:4])) % 97 == 1


def steuer_id(digits: str) -> bool:
    """Whether of the first ten of eleven digits one alone comes twice or three times, and the last checks them."""
    most = sorted(collections.Counter(digits[:10]).values(), reverse=True)
    product = 10
    for digit in digits[:10]:
        product = ((product + int(digit)) % 10 or 10) * 2 % 11
    return digits[0] != '0' and most[0] in (2, 3) and most[1] == 1 and (11 - product) % 10 == int(digits[10])


def nir(text: str) -> bool:
    """Whether the last two of fifteen digits are 97 less the rest of the others by 97; Corsica's 2A and 2B count 19 and 18."""
    number = int(text[:13].replace('2A', '19').replace('2B', '18'))
    return 97 - number % 97 == int(text[13:])


def pesel(digits: str) -> bool:
    """Whether the first six of eleven digits are a date, and the last checks the others."""
    weighted = sum(int(digit) * weight for digit, weight in zip(digits, (1, 3, 7, 9) * 3, strict=False))
    check = weighted - int(digits[10]) * 7 + int(digits[10])
    month, day = int(digits[2:4]), int(digits[4:6])
    return any(1 <= month - century <= 12 for century in _CENTURIES) and 1 <= day <= 31 and check % 10 == 0


def codice_fiscale(text: str) -> bool:
    """Whether the last of sixteen characters is the letter that the others sum to."""
    values = [int(character, 36) for character in text]
    values = [value - 10 if value > 9 else value for value in values]
    return (sum(_ODD[value] for value in values[:15:2]) + sum(values[1:15:2])) % 26 == values[15]


def _address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return any(character.isalnum() for character in text)


def _bare(holds: Callable[[str], bool]) -> Callable[[str], bool]:
    return lambda text: holds(re.sub(r'[\s./()-]', '', text))


def _alone(pattern: str) -> re.Pattern[str]:
    """Neither inside a word or number, nor behind a sign of one."""
    return re.compile(rf'(?<![\w+@])(?<!\d[.,-]){pattern}(?![\w@])(?![.,-]\d)')


_IBAN = '|'.join(rf'(?:{names.replace(" ", "|")})\d\d(?: ?[A-Z0-9]){{{n - 4}}}' for n, names in _IBANS.items())

# Kind, pattern, what else must hold; in the order in which they are looked for.
KINDS: tuple[tuple[str, re.Pattern[str], Callable[[str], bool]], ...] = (
    ('EMAIL', re.compile(r"(?<![\w.+-])[\w.!#$%&'*+/=?^`{|}~-]{1,64}@(?:[^\W_](?:[\w-]{0,61}[^\W_])?\.)+[^\W\d_]{2,}"), bool),
    ('IBAN', _alone(rf'(?:{_IBAN})'), _bare(iban)),
    ('NATIONAL_ID', _alone(r'[A-Z]{6}\d\d[A-EHLMPRST]\d\d[A-Z]\d{3}[A-Z]'), codice_fiscale),
    ('NATIONAL_ID', _alone(r'[12378] ?\d\d ?\d\d ?(?:\d\d|2[AB]) ?\d{3} ?\d{3} ?\d\d'), _bare(nir)),
    ('NATIONAL_ID', _alone(r'(?!000|666|9)\d{3}-(?!00)\d\d-(?!0000)\d{4}'), bool),
    (
        'CARD',
        _alone(r'(?:[46](?:[ -]?\d){12,18}|(?:5\d|2[2-7])(?:[ -]?\d){14}|3\d(?:[ -]?\d){12,14})'),
        lambda text: luhn(re.sub('[ -]', '', text)),
    ),
    ('PHONE', _alone(r'(?:\+|(?<!\d )00 ?)[1-9](?:[ ./()-]{0,2}\d){6,14}'), bool),
    ('PHONE', _alone(r'(?:1[ .-])?(?:\([2-9]\d\d\) ?|[2-9]\d\d[ .-])[2-9]\d\d[ .-]\d{4}'), bool),
    ('NATIONAL_ID', _alone(r'\d\d ?\d{3} ?\d{3} ?\d{3}'), _bare(lambda digits: steuer_id(digits) or pesel(digits))),
    ('IP', _alone(r'(?:\d{1,3}\.){3}\d{1,3}'), _address),
    ('IP', re.compile(r'(?<![\w:.])(?=[0-9A-Fa-f]*:[0-9A-Fa-f]*:)[0-9A-Fa-f:]{3,39}(?:\d\.[\d.]{5,13})?(?![\w:])'), _address),
)
NAMES = tuple(dict.fromkeys(kind for kind, *_ in KINDS))
