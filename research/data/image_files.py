"""Image files decoded once into one array, by Pillow, in threads and block by block, so that memory stays flat.

Grey files give one channel if all are grey, else all give three. Transparent pixels are composed on white. Palettes become
colours, of an animation the first frame counts, and the orientation that a camera notes is not applied. Files of more than 8
bits a channel are refused, because nobody knows which bits matter.

A file that cannot be decoded is left out; one that the system does not let us read is an error. What was prepared stays in
`research.data.decoded`'s folder, under a hash of the files' names, sizes and times: a second launch does not decode again, and
a changed file prepares all anew.
"""

import collections
import concurrent.futures
import errno
import functools
import hashlib
import json
import math
import os
import pathlib
import sys
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import PIL
import PIL.Image

from research.catalogue import ConfigError
from research.data import arrays, decoded, images
from research.data.dataset import Arrays, Column

SUFFIXES = ('.png', '.jpg', '.jpeg', '.webp', '.bmp', '.gif')

_GREY, _COLOUR = ('1', 'L', 'LA'), ('P', 'PA', 'RGB', 'RGBA', 'CMYK', 'YCbCr', 'HSV')

# Of an error that comes from a decoder or the file itself; others come from the system.
_OF_THE_FILE = (None, errno.EINVAL, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP)

# Bytes that are decoded before they are written.
_BLOCK = 4 << 20

# A new number prepares everything anew: raise it where the same files give other arrays.
_VERSION = 1


class Decoded(NamedTuple):
    """What image files hold; N are those that could be decoded, in the order given.

    Attributes:
      pixels: uint8 [N, H, W, C], memory-mapped.
      moments: of research.data.arrays.
      keys: uint64 [N], the same for the same picture under any name: a hash of its pixels, brought to size, as RGB.
      rows: int64 [N], which of the files.
      checksum: of the pixels.
    """

    pixels: np.ndarray
    moments: np.ndarray
    keys: np.ndarray
    rows: np.ndarray
    checksum: str


def decode(name: str, root: pathlib.Path, files: Sequence[str], config: Mapping[str, Any], whole: bool = False) -> Decoded:
    """The content of image files, decoded now or earlier; warns of those left out.

    Args:
      name: of the data, for messages.
      root: folder of the data.
      files: N paths relative to it.
      config: `config.data`; reads `resize`, `crop` and `bad_files`.
      whole: compare prepared pixels with their checksum, which reads all of them.

    Raises:
      ConfigError: images of several sizes and no size to bring them to; too many files that cannot be decoded;
        a failure of the system.
    """
    digest = hashlib.sha256(json.dumps([_VERSION, PIL.__version__, config['resize'], config['crop']]).encode())
    for file in files:
        try:
            found = os.stat(os.path.join(root, file))
            told = f'{found.st_size} {found.st_mtime_ns}'
        except OSError:
            told = 'none'
        digest.update(f'{told} {file}\0'.encode(errors='surrogateescape'))
    folder = decoded.home() / 'frugal_images' / f'{root.resolve().name}-{digest.hexdigest()[:16]}' / 'decoded'
    if not folder.exists():
        with decoded.alone(folder.parent / '.lock'):
            if not folder.exists():  # unless another process has prepared it meanwhile
                print(f'Decoding {len(files):,} image files once, into {folder}', file=sys.stderr, flush=True)
                decoded.write(folder, functools.partial(_write, name, root, files, config))
    content, read = decoded.read(folder, name, ('image', 'moments', 'key', 'row'))
    _report(name, folder, content['bad'], len(files), config['bad_files'])
    if content['index'] != _index(read['key'], read['row']):
        raise decoded.damaged(folder, name, 'key.npy or row.npy is damaged: its content is another than was written')
    if whole and content['checksum'] != arrays.checksum({'image': Column(read['image'])}):
        raise decoded.damaged(folder, name, 'image.npy is damaged: its content is another than was written')
    moments, keys, rows = (np.asarray(read[field]) for field in ('moments', 'key', 'row'))
    return Decoded(read['image'], moments, keys, rows, content['checksum'])


def checksum(found: Decoded, others: Arrays) -> str:
    """Of pixels and of other fields, as of `research.data.arrays`, without reading the pixels."""
    return hashlib.sha256(f'{found.checksum} {arrays.checksum(others)}'.encode()).hexdigest()[:16]


def warn_of_copies(data: str, rows: Mapping[str, range], keys: np.ndarray) -> None:
    """Warns of images of another part that training has too; a cut makes none. `rows` are of parts, `keys` uint64 [N]."""
    for part in [part for part in rows if part != 'train']:
        copies = int(np.isin(keys[rows[part].start : rows[part].stop], keys[rows['train'].start : rows['train'].stop]).sum())
        if copies:
            warnings.warn(
                f'{data}: {copies} of the {len(rows[part])} {part} images are among the training images too: scores on them '
                'tell little.',
                stacklevel=3,
            )


def _report(name: str, folder: pathlib.Path, bad: Sequence[Sequence[str]], count: int, allowed: float) -> None:
    """Warns of files that were left out; raises ConfigError where they are more than the share that is allowed."""
    if not bad:
        return
    told = f'{len(bad)} of {count} files of {name} cannot be decoded, see {folder / "left_out.tsv"}: {_told(bad[:5], len(bad))}'
    if len(bad) > allowed * count:
        raise ConfigError(f'{told}. Mend or remove them, or allow a larger share than data.bad_files={allowed}.')
    warnings.warn(f'{told}. They are left out.', stacklevel=4)


def _told(bad: Iterable[Sequence[str]], count: int) -> str:
    listed = [f'{file} ({reason})' for file, reason in bad]
    return ', '.join(listed) + (f' and {count - len(listed)} more' if count > len(listed) else '')


def _index(keys: np.ndarray, rows: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(keys).tobytes() + np.ascontiguousarray(rows).tobytes()).hexdigest()[:16]


def _write(
    name: str, root: pathlib.Path, files: Sequence[str], config: Mapping[str, Any], folder: pathlib.Path
) -> dict[str, Any]:
    """Decodes all files into arrays in `folder`; returns what is to be known beside them."""
    resize, crop = config['resize'], config['crop']
    with concurrent.futures.ThreadPoolExecutor() as pool:
        blocks = [range(first, min(first + 4096, len(files))) for first in range(0, len(files), 4096)]
        heads = [head for rows in blocks for head in pool.map(lambda row: _head(root / files[row]), rows)]
        bad = {row: head for row, head in enumerate(heads) if isinstance(head, str)}
        sizes = {row: head[:2] for row, head in enumerate(heads) if row not in bad}
        side = _side(name, files, sizes, resize, crop)
        mode = 'RGB' if any(heads[row][2] in _COLOUR for row in sizes) else 'L'
        shape = (*side, len(PIL.Image.new(mode, (1, 1)).getbands()))
        good, keys, moments, size = [*sizes], [], [], max(1, min(1024, _BLOCK // max(1, math.prod(shape))))
        rows = []
        with open(folder / 'image.npy', 'wb') as file:
            _header(file, 0, shape)
            for first in range(0, len(good), size):
                some = good[first : first + size]
                made = pool.map(lambda row: _picture(root / files[row], mode, resize, crop), some)
                told = dict(zip(some, made, strict=True))
                bad |= {row: reason for row, reason in told.items() if isinstance(reason, str)}
                kept = [row for row in some if row not in bad]
                if kept:
                    pixels = np.stack([told[row][0] for row in kept])
                    file.write(pixels.tobytes())
                    keys += [told[row][1] for row in kept]
                    moments.append(arrays.moments(pixels))
                    rows += kept
            file.seek(0)
            _header(file, len(rows), shape)
    listed = [(files[row], bad[row]) for row in sorted(bad)]
    if not rows:
        raise ConfigError(f'None of the {len(files)} files of {name} can be decoded: {_told(listed[:5], len(listed))}.')
    found = {'moments': np.concatenate(moments), 'key': np.array(keys, np.uint64), 'row': np.array(rows, np.int64)}
    for field, array in found.items():
        np.save(folder / f'{field}.npy', array)
    if listed:
        (folder / 'left_out.tsv').write_text(
            ''.join(f'{file}\t{reason}\n' for file, reason in listed), errors='backslashreplace'
        )
    pixels = np.load(folder / 'image.npy', mmap_mode='r')
    return {'checksum': arrays.checksum({'image': Column(pixels)}), 'index': _index(found['key'], found['row']), 'bad': listed}


def _header(file: BinaryIO, count: int, shape: tuple[int, ...]) -> None:
    """The header of image.npy, as long for any count: NumPy leaves room for the first axis to grow."""
    np.lib.format.write_array_header_1_0(file, {'descr': '|u1', 'fortran_order': False, 'shape': (count, *shape)})


def _side(name: str, files: Sequence[str], sizes: Mapping[int, tuple[int, int]], resize: int, crop: int) -> tuple[int, int]:
    """(H, W) of all images once they are brought to size; `sizes` are row -> (width, height)."""
    found = collections.Counter(sizes.values())
    if not resize and not crop:
        if len(found) > 1:
            told = ', '.join(f'{width}x{height} ({count})' for (width, height), count in found.most_common(5))
            rarest = next(row for row, size in sizes.items() if size == found.most_common()[-1][0])
            short = min(found.most_common(1)[0][0])
            raise ConfigError(
                f'{name} has images of {len(found)} sizes: {told}{", ..." if len(found) > 5 else ""}; {files[rarest]} has the '
                f'rarest. Set data.resize to the shorter side that all are brought to, such as {short}, and data.crop to the '
                'side of the square that is kept.'
            )
        return (*found,)[0][::-1] if found else (0, 0)
    side = crop or resize
    for row, size in sizes.items():
        if side > (resize or min(size)):
            raise ConfigError(
                f'{name}: {files[row]} is {size[0]}x{size[1]}, and data.resize={resize}: smaller than the square of {side} '
                'that data.crop keeps. Set data.resize, or a smaller data.crop.'
            )
    return side, side


def _head(file: pathlib.Path) -> tuple[int, int, str] | str:
    """(width, height, mode) of a file, or why it is no image."""
    try:
        if not file.stat().st_size:
            return 'empty'
        with PIL.Image.open(file) as image:
            if not min(image.size):
                return 'no pixels'
            if image.mode not in (*_GREY, *_COLOUR):
                return f'mode {image.mode}, expected 8 bits a channel'
            return (*image.size, image.mode)
    except Exception as error:  # a decoder of foreign bytes may raise anything
        return _reason(error)


def _picture(file: pathlib.Path, mode: str, resize: int, crop: int) -> tuple[np.ndarray, int] | str:
    """(uint8 [H, W, C], its key) of a file, or why it cannot be decoded."""
    try:
        with PIL.Image.open(file) as image:
            image.load()
            if 'A' in image.getbands() or 'transparency' in image.info:
                image = image.convert('RGBA')
                image = PIL.Image.alpha_composite(PIL.Image.new('RGBA', image.size, 'white'), image)
            fitted = images.fit(image.convert(mode), resize, crop)
    except Exception as error:  # a decoder of foreign bytes may raise anything
        return _reason(error)
    # As RGB, since one coloured file more turns all others from grey into RGB and must not move them to another split.
    content = hashlib.sha256(f'{fitted.size}'.encode() + fitted.convert('RGB').tobytes()).digest()
    return np.asarray(fitted).reshape(fitted.height, fitted.width, -1), int.from_bytes(content[:8], 'little')


def _reason(error: Exception) -> str:
    """Why a file is left out, for good.

    Raises:
      ConfigError: a failure of the system, which may be gone the next time.
    """
    if isinstance(error, OSError) and error.errno not in _OF_THE_FILE:
        raise ConfigError(f'An image file cannot be read: {error}. Mend that and start again; nothing was kept.') from error
    if isinstance(error, PIL.UnidentifiedImageError):
        return 'no image'
    if isinstance(error, FileNotFoundError):
        return 'no such file'
    return ' '.join(str(error).split()) or type(error).__name__
