"""Spam Assassin's mails, from a made-up folder."""

import base64

import numpy as np
import pytest
import synthetic

from research import data
from research.catalogue import ConfigError
from research.data import spam_assassin

PAGE = '<html><style>p {color: red}</style><script>run()</script>Buy&nbsp;<b class="big">now</b> &amp; save at AT&T'
ALTERNATIVE = """Subject: two forms
MIME-Version: 1.0
Content-Type: multipart/alternative; boundary="cut"

--cut
Content-Type: text/html

<p>the page
--cut
Content-Type: text/plain

the words
--cut--
"""
MAILS = {
    'easy-ham-1/001': b'From list@x.org  Thu Aug 22 2002\nX-Status: secret\nSubject: [ILUG] Lunch\n\nAt  noon,\nas ever\n',
    **{f'easy-ham-1/{copy:03d}': b'Subject: Re: Lunch\n\nAT NOON, as ever' for copy in range(2, 40)},  # the same body
    'easy-ham-2/1': ALTERNATIVE.encode(),
    'easy-ham-2/2': b'Subject: only this\n\n\n',
    'hard-ham-1/1': b'Subject: =?iso-8859-1?Q?Caf=E9?= =?nonsense?Q?_at?= =?big5?B?sA==?= six\n\nCome',
    'spam-1/1': b'Subject: offer\nContent-Type: text/html\n\n' + PAGE.encode(),
    'spam-1/2': b'Subject: again\nContent-Type: text/plain; charset=default\n\nbad \xff byte',
    'spam-2/1': b'Content-Transfer-Encoding: base64\nContent-Type: text/plain; charset=iso-8859-1\n\n'
    + base64.b64encode('hid\xe9'.encode('latin-1')),
    'spam-2/2': b'Subject: another\n\nat noon, as ever',  # a body of the other class: the first is kept
    'spam-2/3': b'Subject: and this\n\n',
    'spam-2/4': b'X-Status: secret\n\n\n',  # neither subject nor body
}
TEXTS = {
    '[ILUG] Lunch At noon, as ever': 0,
    'two forms the words': 0,
    'only this': 0,
    'Caf\xe9 at\ufffd six Come': 0,
    'offer Buy now & save at AT&T': 1,
    'again bad \ufffd byte': 1,
    'hid\xe9': 1,
    'and this': 1,
}


@pytest.fixture
def folder(tmp_path):
    for name, mail in MAILS.items():
        file = tmp_path / f'{name}.txt'
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(mail)
    return tmp_path


def test_a_text_is_the_subject_and_the_body_of_a_mail_and_no_body_is_there_twice(folder):
    parts = spam_assassin.mails(str(folder))
    assert {t: k for part in parts.values() for t, k in zip(part['text'], part['label'].tolist(), strict=True)} == TEXTS
    assert {part: np.bincount(fields['label']).tolist() for part, fields in parts.items()} == {'train': [3, 3], 'test': [1, 1]}
    assert sum(len(fields['text']) for fields in parts.values()) == len(TEXTS)


def test_a_config_reads_them_by_name(folder):
    store = data.read({**synthetic.BASE, 'name': 'spam_assassin', 'path': str(folder)})
    assert (store.classes, store.parts) == (2, {'train': range(6), 'test': range(6, 8)})


def test_a_folder_without_mails_is_refused(folder):
    (folder / 'hard-ham-1' / '1.txt').unlink()
    with pytest.raises(ConfigError, match=r'has no hard-ham-1/\*\.txt: expected the folder data of npm'):
        spam_assassin.mails(str(folder))
