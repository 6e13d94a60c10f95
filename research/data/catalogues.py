"""Sentence pairs from catalogues of messages by gettext: `.mo` as programs read them, `.po` as translators write them.

The message is the source, its translation the target; of plural forms the singular. Headers, untranslated, fuzzy and obsolete
entries are left out. Accelerators, the `_`, `&` or `~` before the letter of a menu's key (`_File`, `Save &As`), are removed
from both sides: they are no part of the sentence.
"""

import pathlib
import re
import struct
from collections.abc import Iterator, Sequence

from research.catalogue import ConfigError, nearest

SUFFIXES = ('.mo', '.po')

_MAGIC = 0x950412DE
_ACCELERATOR = re.compile(r'[_&~](?=[^\W_])(?!\w+;)')
# What is an accelerator though the other side has none.
_ALONE = re.compile(r'(?<!\S)[_&~](?=[^\W\d_a-z]\w*\b(?!;))')
_ESCAPES = {'n': '\n', 't': '\t', 'r': '\r', '"': '"', '\\': '\\'}
_LINE = re.compile(r'(msgctxt|msgid_plural|msgid|msgstr(?:\[(\d+)\])?)?\s*"(.*)"\s*$')


def files(folder: pathlib.Path) -> list[pathlib.Path]:
    """The catalogues in a folder, at any depth."""
    return sorted(path for path in folder.rglob('*') if path.suffix in SUFFIXES and path.is_file())


def read(found: Sequence[pathlib.Path], language: str) -> tuple[list[str], list[str]]:
    """(messages, translations) of the catalogues of a language, 'de' or 'pt_BR'.

    A catalogue's language is the folder before `LC_MESSAGES`, or its header's 'Language'; one that has neither is taken.

    Raises:
      ConfigError: none of this language, a file that is torn or no catalogue.
    """
    by_folder = {path: path.parts[-3] for path in found if path.parent.name == 'LC_MESSAGES' and len(path.parts) > 2}
    wanted = matching(language, by_folder.values()) if by_folder else set()
    pairs, seen = [], {*by_folder.values()}
    for path in found:
        if path in by_folder and by_folder[path] not in wanted:
            continue
        told, entries = (_mo if path.suffix == '.mo' else _po)(path)
        seen |= {told} - {''}
        if path in by_folder or not told or told in matching(language, [told]):
            pairs += entries
    if not pairs:
        raise ConfigError(
            f"data.pair is '{language}', and no catalogue of it is in data.path, only of {', '.join(sorted(seen)) or 'none'}."
            f'{nearest(language, seen)}'
        )
    pairs = [_without_accelerators(*pair) for pair in pairs]
    return [source for source, _ in pairs], [target for _, target in pairs]


def matching(language: str, among: Sequence[str]) -> set[str]:
    """Those of some languages that are meant: the one of this name, or else its regional ones ('de' by 'de-DE')."""
    names = {name: name.replace('-', '_').lower() for name in among}
    wanted = language.replace('-', '_').lower()
    exact = {name for name, plain in names.items() if plain == wanted}
    return exact or {name for name, plain in names.items() if plain.startswith(f'{wanted}_')}


def _without_accelerators(source: str, target: str) -> tuple[str, str]:
    found = [_ACCELERATOR.findall(text) for text in (source, target)]
    if found[0] != found[1] or len(found[0]) != 1:
        return _ALONE.sub('', source), _ALONE.sub('', target)
    words = [next(word for word in text.split() if _ACCELERATOR.search(word)) for text in (source, target)]
    if words[0] == words[1] and not _ACCELERATOR.match(words[0]):  # a name, such as 'file_size' or 'R&D'
        return source, target
    return _ACCELERATOR.sub('', source), _ACCELERATOR.sub('', target)


def _mo(path: pathlib.Path) -> tuple[str, list[tuple[str, str]]]:
    """(the header's language; pairs) of a binary catalogue."""
    data = path.read_bytes()
    try:
        order = '<' if struct.unpack_from('<I', data)[0] == _MAGIC else '>'
        magic, version, count, *tables = struct.unpack_from(f'{order}5I', data)
        if magic != _MAGIC or version >> 16 > 1:
            raise ValueError('it does not begin as one')
        raw = [[*_strings(data, order, count, table)] for table in tables]
        messages = dict(zip(*raw, strict=True))
        header = messages.get(b'', b'').decode('latin-1')
        charset = re.search(r'charset=([\w.-]+)', header)
        decoded = [
            (source.partition(b'\0')[0].rpartition(b'\4')[2], target.partition(b'\0')[0])
            for source, target in messages.items()
            if source
        ]
        code = charset[1] if charset else 'utf-8'
        pairs = [(source.decode(code), target.decode(code)) for source, target in decoded]
    except (struct.error, ValueError, LookupError) as error:
        raise ConfigError(f'{path} is torn, or no .mo catalogue: {error}. Fetch it again, or leave it out.') from error
    return _language(header), [pair for pair in pairs if all(map(str.strip, pair))]


def _strings(data: bytes, order: str, count: int, table: int) -> Iterator[bytes]:
    for number in range(count):
        length, start = struct.unpack_from(f'{order}2I', data, table + 8 * number)
        if start + length > len(data):
            raise ValueError(f'string {number} of {count} ends behind its end, byte {len(data)}')
        yield data[start : start + length]


def _po(path: pathlib.Path) -> tuple[str, list[tuple[str, str]]]:
    """(the header's language; pairs) of a catalogue as text."""
    header, pairs = '', []
    for entry in _entries(path):
        source, target = entry.get('msgid'), entry.get('msgstr', entry.get('msgstr[0]'))
        if source is None or target is None:
            raise ConfigError(f'{path} is torn: an entry lacks its {"msgid" if source is None else "msgstr"}. Fetch it again.')
        if not source and 'msgctxt' not in entry:
            header = target
        elif 'fuzzy' not in entry and source.strip() and target.strip():
            pairs.append((source, target))
    return _language(header), pairs


def _entries(path: pathlib.Path) -> Iterator[dict[str, str]]:
    """{'msgid': .., 'msgstr': .. or 'msgstr[0]': .., ..} of each entry, with a key 'fuzzy' if it is."""
    entry: dict[str, str] = {}
    key = ''
    try:
        lines = path.read_text('utf-8-sig').split('\n')  # by no other sign that a text may hold
    except UnicodeDecodeError as error:
        raise ConfigError(f'{path} is no UTF-8: {error.reason} at byte {error.start}. Convert it by msgconv.') from error
    for number, line in enumerate(map(str.strip, lines), 1):
        found = _LINE.match(line)
        if not line:
            continue
        if not found and not line.startswith('#'):
            raise ConfigError(f"{path}, line {number}: '{line[:40]}' is no line of a .po catalogue. Mend it, or leave it out.")
        begins = not found or found[1] in ('msgctxt', 'msgid')
        if begins and key.startswith('msgstr'):
            yield entry
            entry, key = {}, ''
        if not found:
            if line.startswith('#~'):
                entry.pop('fuzzy', None)  # which was of an obsolete entry
            elif line.startswith('#,') and 'fuzzy' in line:
                entry['fuzzy'] = ''
            continue
        key = found[1] or key
        if not key:
            raise ConfigError(f'{path}, line {number}: a text stands before its msgid. Mend it, or leave it out.')
        text = re.sub(r'\\(.)', lambda escape: _ESCAPES.get(escape[1], escape[0]), found[3])
        entry[key] = entry.get(key, '') + text
    if key:
        yield entry


def _language(header: str) -> str:
    found = re.search(r'^Language:[ \t]*([\w@-]+)', header, re.MULTILINE)
    return found[1] if found else ''
