"""Fashion-MNIST with faults that are known: a source for studies of filters (configs/external.py, benchmarks/filters.py).

6,000 images of the training part that a baseline of 3,000 (`data.examples`, with 5,000 of validation and split seed 0) does not
use, or made of others, drawn once: 75 % are as they were; 10 % have another label; 10 % are copies of test images, half of them
mirrored, shifted by a pixel, brightened or as JPEG; 5 % are junk, constant or noise, with a label by chance.
"""

import io
from typing import NamedTuple

import numpy as np
import PIL.Image

from research.config import overrides
from research.data import order, sources

VALIDATION, MAIN, SIZE = 5000, 3000, 6000
KINDS = ('clean', 'wrong label', 'copy of a test image', 'junk')
_COUNTS = (4500, 600, 600, 300)


class Spoiled(NamedTuple):
    """uint8 [N, 28, 28, 1], int32 [N], and what each row is: its place in `KINDS`, int64 [N]."""

    images: np.ndarray
    labels: np.ndarray
    kinds: np.ndarray


def load(path: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """{'train': (images, labels)}; `path` is `data.path` of Fashion-MNIST."""
    made = made_from(path)
    return {'train': (made.images, made.labels)}


def made_from(path: str) -> Spoiled:
    """The images with their truth; the same every time."""
    store = sources.read({**overrides.defaults()['data'], 'name': 'fashion_mnist', 'path': path})
    draw = np.random.Generator(np.random.Philox(key=0))
    train, test = (np.arange(store.parts[part].start, store.parts[part].stop) for part in ('train', 'test'))
    used = np.concatenate(order.split(len(train), VALIDATION, MAIN, 0))
    _, wrong, copied, junk = _COUNTS
    own = draw.permutation(np.setdiff1d(train, train[used]))[: SIZE - copied - junk]
    others = draw.permutation(test)[:copied]
    rows = np.concatenate([own, others])
    images, labels = np.array(store.arrays['image'][rows]), store.arrays['label'][rows]
    labels[:wrong] = (labels[:wrong] + draw.integers(1, 10, wrong)) % 10
    for place in range(copied // 2):
        images[len(own) + place] = _CHANGES[place % len(_CHANGES)](images[len(own) + place])
    constant = np.broadcast_to(draw.integers(0, 256, (junk // 2, 1, 1, 1), np.uint8), (junk // 2, 28, 28, 1))
    noise = draw.integers(0, 256, (junk - junk // 2, 28, 28, 1), np.uint8)
    kinds = np.repeat([1, 0, 2, 3], [wrong, len(own) - wrong, copied, junk])
    shuffled = draw.permutation(SIZE)
    images = np.concatenate([images, constant, noise])
    labels = np.concatenate([labels, draw.integers(0, 10, junk, np.int32)])
    return Spoiled(images[shuffled], labels[shuffled], kinds[shuffled])


def _jpeg(image: np.ndarray) -> np.ndarray:
    file = io.BytesIO()
    PIL.Image.fromarray(image[..., 0]).save(file, 'JPEG', quality=75)
    return np.asarray(PIL.Image.open(file))[..., None]


_CHANGES = (
    lambda image: image[:, ::-1],
    lambda image: np.pad(image, ((1, 0), (0, 0), (0, 0)), 'edge')[:-1],
    lambda image: np.minimum(255, image * 1.2 + 20).astype(np.uint8),
    _jpeg,
)
