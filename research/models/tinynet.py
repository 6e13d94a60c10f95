"""TinyNet (Han et al. 2020, Model Rubik's cube: twisting resolution, depth and width for TinyNets).

EfficientNet-B0 made smaller: in small networks image size and depth matter more than width, so width shrinks most.
"""

import functools

import flax.linen as nn

from research.models.efficientnet import EfficientNet
from research.models.mobilenetv2 import timm
from research.models.network import Preprocessing, Source

# Sizes of the images; the widths and depths below follow the same formulas, as in the authors' code.
SIZES = {'tinynet_a': 192, 'tinynet_b': 188, 'tinynet_c': 184, 'tinynet_d': 152, 'tinynet_e': 106}


class TinyNet(EfficientNet):
    """EfficientNet whose first and last convolution keep their channels and whose blocks are rounded to the nearest number.

    Attributes are those of `EfficientNet`.
    """

    fixed_ends: bool = True

    SOURCES = {'timm': Source(timm, {n: n for n in SIZES}, lambda name: Preprocessing(SIZES.get(name, 224)))}

    @nn.nowrap
    def depths(self) -> list[int]:
        """Blocks of each stage."""
        return [max(1, round(stage.depth * self.depth)) for stage in self.STAGES]


tinynet_a = functools.partial(TinyNet, width=1.0, depth=1.2)
tinynet_b = functools.partial(TinyNet, width=0.75, depth=1.1)
tinynet_c = functools.partial(TinyNet, width=0.54, depth=0.85)
tinynet_d = functools.partial(TinyNet, width=0.54, depth=0.695)
tinynet_e = functools.partial(TinyNet, width=0.51, depth=0.6)
