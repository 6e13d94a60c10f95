"""Progressive resizing: small images (short sequences) first, full ones at the end.

Idea: networks learn coarse features first, for which small images suffice; a step at half the side costs a quarter.

Sources: fast.ai and Composer's progressive resizing; Touvron et al. 2019 (Fixing the train-test resolution discrepancy) for
what a change of size does; for sequences Li et al. 2022 (The stability-efficiency dilemma: sequence length warmup).

Of sentence pairs the side is that of the sources, and targets are cut to the same share of their own length.

Config: {'augment.resize.name': 'progressive', 'augment.resize.start': 0.5, 'augment.resize.until': '0.8run'}

Cost: each size is a separate program. Claim: less time at little loss of accuracy on ImageNet (Composer, without a number);
up to 2.2 times fewer tokens and 3.7 times less time for GPT-2 (Li et al.). Evaluation uses full images. Clashes: networks for
one size only; it needs global pooling.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

from research import catalogue

RESIZES = {
    'constant': 'research.augment.resize:constant',
    'progressive': 'research.augment.resize:progressive',
}
GIVEN = ('full', 'convert')

# Fields of sentence pairs whose length is not that of the network's first array.
_TARGETS = ('target', 'target_mask', 'target_packed')


class Sides(NamedTuple):
    """`at`: position -> side of images in pixels (length of sequences); `changes`: positions where it changes, rising."""

    at: Callable[[int], int]
    changes: tuple[int, ...]


def create(config: Mapping[str, Any], full: int, convert: Callable[[str], int]) -> Sides:
    """The sides of the group `augment.resize`, up to the side `full`; `convert` turns durations into examples."""
    return catalogue.build('resize', config['resize'], RESIZES, full=full, convert=convert)


def constant(full: int, convert: Callable[[str], int]) -> Sides:
    """The full side throughout."""
    del convert
    return Sides(lambda position: full, ())


def progressive(
    full: int, convert: Callable[[str], int], start: float = 0.5, until: str = '0.8run', rungs: int = 4, multiple: int = 4
) -> Sides:
    """From `start` of the side to all of it at `until`, in `rungs` equal times before it, in multiples of `multiple`."""
    if not 0 < start <= 1 or rungs < 1 or multiple < 1:
        raise catalogue.ConfigError(
            f'augment.resize: expected a start in (0, 1], and rungs and multiple from 1, not {start}, {rungs} and {multiple}.'
        )
    end = convert(until)
    sides = [full * (start + (1 - start) * k / rungs) for k in range(rungs)]
    sides = [min(full, max(multiple, round(side / multiple) * multiple)) for side in sides]
    changes = tuple(end * k // rungs for k in range(1, rungs + 1))
    return Sides(lambda position: [*sides, full][sum(position >= change for change in changes)], changes)


def side_of(inputs: Any) -> int:
    """Height (or length) of (args, kwargs) of a network, whose first array is [B, H or T, ...]; 1 where it is [B]."""
    return (*jax.tree.leaves(inputs)[0].shape, 1)[1]


def resized(inputs: Any, side: int) -> Any:
    """Every array of a network's inputs as tall (or long) as the first one, scaled or cut to `side`; 0 is as they are."""
    full = side_of(inputs)
    return jax.tree.map(lambda x: resize(x, side) if side and x.shape[1:2] == (full,) else x, inputs)


def shortened(batch: Mapping[str, Any], inputs: Any, side: int) -> Mapping[str, Any]:
    """A batch whose network takes sequences, with every field as long as these cut to `side`: targets too; 0 is as they are.

    Both sides of sentence pairs keep the same share of their length, a target at least two tokens: one is read, one learnt.
    Images are scaled as inputs, see `resized`.
    """
    if not side or jax.tree.leaves(inputs)[0].ndim == 4:
        return batch
    full = side_of(inputs)
    targets = _TARGETS if {'source_mask', 'target_mask'} <= {*batch} else ()

    def cut(name: str, x: jax.Array) -> jax.Array:
        if name in targets:
            return x[:, : max(2, round(x.shape[1] * side / full))]
        return x[:, :side] if x.shape[1:2] == (full,) else x

    return {name: cut(name, x) for name, x in batch.items()}


def resize(x: jax.Array, side: int) -> jax.Array:
    """Images [B, H, W, C] scaled to H = side, W in proportion, bilinear with antialiasing; sequences [B, T, ...] cut to `side`.

    Dtypes stay. Side 0 changes nothing.
    """
    if not side:
        return x
    if x.ndim != 4:
        return x[:, :side]
    width = max(1, round(x.shape[2] * side / x.shape[1]))
    return jax.image.resize(x, (x.shape[0], side, width, x.shape[3]), 'bilinear')
