"""What the filters of training data find, against faults that were planted, and what they flag in clean data.

    pip install python-stdnum
    python benchmarks/filters.py [--mails=DIR] > figures.md

Images: research/data/spoiled.py beside 3,000 images of Fashion-MNIST, and Fashion-MNIST itself. Personal data: addresses in the
header lines of Spam Assassin's mails (DIR as `data.path` of 'spam_assassin'), as Python's email.utils reads them; and numbers
with check digits by python-stdnum, each also with one character changed.
"""

import argparse
import email
import email.utils
import pathlib
import random
import time

import numpy as np
import stdnum.de.idnr
import stdnum.fr.nir
import stdnum.iban
import stdnum.iso7064.mod_11_10
import stdnum.it.codicefiscale
import stdnum.luhn
import stdnum.pl.pesel

from research.config import overrides
from research.data import duplicates, label_suspects, order, personal, quality, sources, spoiled

_HEADERS = ('from', 'to', 'cc', 'reply-to', 'sender', 'return-path', 'delivered-to')
_NUMBERS = 2000


def images() -> None:
    """Prints the tables of planted and of clean images."""
    store = sources.read({**overrides.defaults()['data'], 'name': 'fashion_mnist'})
    made, pixels, labels = spoiled.made_from(''), store.arrays['image'][:], store.arrays['label'][:]
    train, validation = order.split(60_000, spoiled.VALIDATION, spoiled.MAIN, 0)
    scored = np.concatenate([pixels[validation], pixels[60_000:]])
    leaked = np.zeros(spoiled.SIZE, bool)
    leaked[duplicates.find(made.images, scored)[0]] = True
    both = np.concatenate([pixels[train], made.images]), np.concatenate([labels[train], made.labels])
    main = np.arange(len(both[0])) < spoiled.MAIN
    found = {'copies of scored images': leaked}
    for look in (quality.junk, duplicates.repeated, label_suspects.suspects):
        found[look.__module__.rpartition('.')[2]] = look(*both, main)[~main]
    wanted = {'copies of scored images': (2,), 'quality': (3,), 'label_suspects': (1,)}
    print(f'| filter | precision | recall | {" | ".join(f"flagged: {kind}" for kind in spoiled.KINDS)} |')
    print('| --- ' * (3 + len(spoiled.KINDS)) + '|')
    for name, flags in found.items():
        truth = np.isin(made.kinds, wanted.get(name, ()))
        shares = [f'{(flags & truth).sum() / count:.1%}' if truth.any() else '–' for count in (flags.sum(), truth.sum())]
        by_kind = [f'{flags[made.kinds == kind].sum()} of {(made.kinds == kind).sum()}' for kind in range(len(spoiled.KINDS))]
        print(f'| {name} | {" | ".join(shares + by_kind)} |')
    print(f'\nPlanted copies of test images left: {(~leaked & (made.kinds == 2)).sum()}.\n')

    start = time.perf_counter(), time.process_time()
    rows, of_test, _ = duplicates.find(pixels[:60_000], pixels[60_000:])
    seconds = time.perf_counter() - start[0], time.process_time() - start[1]
    print('Clean Fashion-MNIST:\n')
    print(f'- quality flags {quality.junk(pixels[:60_000], None, np.ones(60_000, bool)).sum()} of 60,000 training images.')
    differing = (labels[rows] != labels[60_000 + of_test]).sum()
    print(
        f'- {len(np.unique(rows))} of 60,000 training images are copies of {len(np.unique(of_test))} of 10,000 test images; '
        f'{differing} of these {len(rows)} pairs differ in class. {seconds[0]:.0f} s, of one core {seconds[1]:.0f} s.'
    )
    some = order.split(60_000, 0, 10_000, 0)[0]
    suspected = label_suspects.suspects(pixels[some], labels[some], np.ones(len(some), bool))
    print(f'- label_suspects flags {suspected.sum()} of 10,000 training images.\n')


def mails(folder: pathlib.Path) -> None:
    """Prints precision and recall of addresses in header lines."""
    pattern, hits, truths, finds, lines, unread = personal.KINDS[0][1], 0, 0, 0, 0, 0
    start, letters = time.perf_counter(), 0
    for file in sorted(folder.glob('*/*.txt')):
        mail = email.message_from_bytes(file.read_bytes())
        for header in _HEADERS:
            for value in map(str, mail.get_all(header, [])):
                pairs = email.utils.getaddresses([value])
                truth = sorted(address for _, address in pairs if '@' in address)
                if not truth or any(not address for _, address in pairs):
                    unread += 1
                    continue
                lines, letters = lines + 1, letters + len(value)
                # A name may be the address once more, which is found twice.
                found = sorted({*pattern.findall(value)})
                truth = sorted({*truth})
                hits, truths, finds = hits + len({*truth} & {*found}), truths + len(truth), finds + len(found)
    print(f'\nAddresses in {lines} header lines ({unread} without an address that email.utils reads are left out):')
    print(f'precision {hits / finds:.2%} of {finds}, recall {hits / truths:.2%} of {truths}.\n')
    texts = sources.read({**overrides.defaults()['data'], 'name': 'spam_assassin', 'path': str(folder)}).arrays['text'][:]
    start = time.perf_counter()
    _, counts = personal.masked(texts)
    seconds, letters = time.perf_counter() - start, sum(map(len, texts))
    told = ', '.join(f'{count} {name}' for name, count in zip(personal.NAMES, counts.sum(0), strict=True))
    print(f'In the {len(texts)} texts that a network reads: {told}, in {(counts.sum(1) > 0).sum()} texts.')
    print(f'{seconds / letters * 1e6:.2f} s a million characters.\n')


def numbers() -> None:
    """Prints how many generated numbers are masked, valid and with a character changed."""
    draw = random.Random(0)

    def digits(count: int) -> str:
        return ''.join(draw.choice('0123456789') for _ in range(count))

    def card() -> str:
        number = draw.choice('3456') + digits(14)
        return number + stdnum.luhn.calc_check_digit(number)

    def iban() -> str:
        country, length = draw.choice([('DE', 22), ('ES', 24), ('PL', 28), ('NL', 18)])
        account = 'ABNA' + digits(10) if country == 'NL' else digits(length - 4)
        return country + stdnum.iban.calc_check_digits(f'{country}00{account}') + account

    def steuer_id() -> str:
        while True:
            number = draw.choice('123456789') + digits(9)
            number += stdnum.iso7064.mod_11_10.calc_check_digit(number)
            if stdnum.de.idnr.is_valid(number):
                return number

    def nir() -> str:
        number = draw.choice('12') + digits(2) + f'{draw.randint(1, 12):02d}' + f'{draw.randint(1, 95):02d}' + digits(6)
        return number + stdnum.fr.nir.calc_check_digits(number)

    def pesel() -> str:
        number = digits(2) + f'{draw.randint(1, 12) + draw.choice((0, 20)):02d}{draw.randint(1, 28):02d}' + digits(4)
        return number + stdnum.pl.pesel.calc_check_digit(number)

    def codice_fiscale() -> str:
        name, month = ''.join(draw.choice('BCDFGLMNPRSTV') for _ in range(6)), draw.choice('ABCDEHLMPRST')
        number = f'{name}{digits(2)}{month}{draw.randint(1, 28):02d}{draw.choice("ABCDEFGH")}{digits(3)}'
        return number + stdnum.it.codicefiscale.calc_check_digit(number)

    def changed(number: str) -> str:
        place = draw.randrange(2, len(number))
        alphabet = '0123456789' if number[place].isdigit() else 'ABCDEFGHIJKLMNOPQRSTUVWXYZ'
        return number[:place] + draw.choice([other for other in alphabet if other != number[place]]) + number[place + 1 :]

    print('| number | masked, valid | masked, a character changed |')
    print('| --- | --- | --- |')
    for make in (card, iban, steuer_id, nir, pesel, codice_fiscale):
        valid = [make() for _ in range(_NUMBERS)]
        shares = []
        for of_these in (valid, [changed(number) for number in valid]):
            found = [personal.mask(f'My number is {number}, thank you.')[1] for number in of_these]
            shares.append(f'{sum(map(bool, found)) / _NUMBERS:.2%}')
        print(f'| {make.__name__} | {" | ".join(shares)} |')


def main() -> None:
    """Prints all tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--mails', type=pathlib.Path, help="data.path of 'spam_assassin'")
    parser.add_argument('--only', choices=('images', 'personal'))
    arguments = parser.parse_args()
    if arguments.only != 'personal':
        images()
    if arguments.only != 'images':
        numbers()
        if arguments.mails:
            mails(arguments.mails)


if __name__ == '__main__':
    main()
