"""Repeated augmentation: each example stands several times in a batch, each time augmented with a draw of its own.

Idea: the copies differ in their augmentation alone, so what their gradients share does not depend on the
augmentation.

Sources: Hoffer et al. 2020 (Augment your batch, section 3); Berman et al. 2019 (MultiGrain, section 3), who keep the size of
the batch, as here.

Config: {'data.repeats': 3, 'augment.names': ('pad_crop', 'flip_horizontal')}

Cost: none; a batch of the same size has fewer different examples, and a pass over the data takes `repeats` times as long.
Claim: 80.86 instead of 80.67 % on ImageNet (ResNet-50, torchvision's recipe of 2021, its last step). Clashes: pointless without
an augmentation that draws.

Copies are B / repeats positions apart, so mixup and CutMix, which pair neighbours, mix different examples. The first batch
size, a multiple of `repeats`, decides this: where a batch shrinks during the run, copies come in several of them.
"""

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from research.config.files import Misfit

if TYPE_CHECKING:
    from research.data.sampling import Sampler


def create(sampler: 'Sampler', repeats: int, batch_size: int) -> 'Repeated':
    """Raises Misfit where a batch of this size does not hold several examples, each as often."""
    if batch_size % repeats or batch_size < 2 * repeats:
        raise Misfit(
            'data.repeats',
            f"'data.repeats' is {repeats}, and a batch has {batch_size} examples: expected a number of copies that divides "
            f'them, at most {max(1, batch_size // 2)}.',
        )
    return Repeated(sampler, repeats, batch_size)


@dataclasses.dataclass(frozen=True, eq=False)
class Repeated:
    """A sampler that takes each entry of another one `repeats` times within a batch.

    Attributes:
      sampler: gives the entries.
      repeats: R, copies of each.
      batch_size: B, over all hosts, a multiple of R; each batch holds B / R entries.
    """

    sampler: 'Sampler'
    repeats: int
    batch_size: int

    def __call__(self, seed: int, start: int, stop: int) -> np.ndarray:
        """The entries at positions `start` to `stop`."""
        distinct = self.batch_size // self.repeats
        positions = np.arange(start, stop)
        entries = positions // self.batch_size * distinct + positions % distinct
        if not len(entries):
            return self.sampler(seed, 0, 0)
        first = int(entries.min())
        return self.sampler(seed, first, int(entries.max()) + 1)[entries - first]
