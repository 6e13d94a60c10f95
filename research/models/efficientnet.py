"""EfficientNet (Tan and Le 2019, EfficientNet: rethinking model scaling for convolutional neural networks).

MobileNetV2 with some larger kernels, squeeze-and-excitation in every block and SiLU. Width, depth and image size grow
together.
"""

import functools
import math
from collections.abc import Collection, Iterator
from typing import Any, NamedTuple

import flax.linen as nn

from research.models.mobilenetv2 import TOP, MobileNetV2, Stage, timm
from research.models.mobilenetv3 import torchvision_block
from research.models.network import HALF, TENSORFLOW, Preprocessing, Source, divisible


class Scale(NamedTuple):
    """Multipliers of channels and of blocks, side of the images in pixels and dropout rate, as in the authors' code."""

    width: float
    depth: float
    size: int
    dropout: float


# Section 3.3: each has about twice the FLOPs of the one before.
SCALES = {
    'efficientnet_b0': Scale(1.0, 1.0, 224, 0.2),
    'efficientnet_b1': Scale(1.0, 1.1, 240, 0.2),
    'efficientnet_b2': Scale(1.1, 1.2, 260, 0.3),
    'efficientnet_b3': Scale(1.2, 1.4, 300, 0.3),
    'efficientnet_b4': Scale(1.4, 1.8, 380, 0.4),
    'efficientnet_b5': Scale(1.6, 2.2, 456, 0.4),
    'efficientnet_b6': Scale(1.8, 2.6, 528, 0.5),
    'efficientnet_b7': Scale(2.0, 3.1, 600, 0.5),
}

# Preprocessing of the libraries' weights; timm has the authors' own, ported from TensorFlow, under names with `tf_`.
_TIMM = {
    'efficientnet_b0': Preprocessing(224),
    'efficientnet_b1': Preprocessing(240, 0.9, mean=HALF, std=HALF),
    'efficientnet_b2': Preprocessing(256),
    'efficientnet_b3': Preprocessing(288),
    'efficientnet_b4': Preprocessing(320),
    'efficientnet_b5': Preprocessing(448, 1.0),
    'efficientnet_b6': Preprocessing(528, 0.942),
    'efficientnet_b7': Preprocessing(600, 0.949),
} | {
    f'tf_{name}': Preprocessing(scale.size, crop)
    for (name, scale), crop in zip(SCALES.items(), (0.875, 0.882, 0.89, 0.904, 0.922, 0.934, 0.942, 0.949), strict=True)
}
_TORCHVISION = {
    'efficientnet_b0': Preprocessing(224, 224 / 256),
    'efficientnet_b1': Preprocessing(240, 240 / 255, 'bilinear'),
    'efficientnet_b2': Preprocessing(288, 1.0),
    'efficientnet_b3': Preprocessing(300, 300 / 320),
    'efficientnet_b4': Preprocessing(380, 380 / 384),
    'efficientnet_b5': Preprocessing(456, 1.0),
    'efficientnet_b6': Preprocessing(528, 1.0),
    'efficientnet_b7': Preprocessing(600, 1.0),
}


def _torchvision_arguments(name: str, tensors: Collection[str]) -> dict[str, Any]:
    del tensors
    tensorflows = {'epsilon': 1e-3, 'momentum': 0.99} if name.endswith(('_b5', '_b6', '_b7')) else {'epsilon': 1e-5}
    return {'padding': 'half', 'norm': {'name': 'batch', **tensorflows}}


def _torchvision(net: 'EfficientNet') -> Iterator[tuple[str, ...]]:
    for i, n in ((1, 0), (2, len(net.STAGES) + 1)):
        yield from ((f'conv{i}', f'features.{n}.0'), (f'norm{i}', f'features.{n}.1'))
    yield 'head', 'classifier.1'
    for ours, s, b in net.blocks():
        yield from torchvision_block(ours, f'features.{s}.{b - 1}.block', s > 1, net.squeeze_excite > 0)


def _huggingface(net: 'EfficientNet') -> Iterator[tuple[str, ...]]:
    stem, top = 'efficientnet.embeddings', 'efficientnet.encoder.top'
    yield from (('conv1', f'{stem}.convolution'), ('norm1', f'{stem}.batchnorm'), ('head', 'classifier'))
    yield from (('conv2', f'{top}_conv'), ('norm2', f'{top}_bn'))
    parts = {
        'expand': 'expansion.expand_conv',
        'expand_norm': 'expansion.expand_bn',
        'depthwise': 'depthwise_conv.depthwise_conv',
        'depthwise_norm': 'depthwise_conv.depthwise_norm',
        'project': 'projection.project_conv',
        'project_norm': 'projection.project_bn',
    }
    for n, (ours, _, _) in enumerate(net.blocks()):
        theirs = f'efficientnet.encoder.blocks.{n}'
        yield from ((f'{ours}/{kind}', f'{theirs}.{name}') for kind, name in parts.items())
        for kind in ('reduce', 'expand'):
            yield f'{ours}/squeeze_excite/{kind}', f'{theirs}.squeeze_excite.{kind}', 'pointwise'


class EfficientNet(MobileNetV2):
    """MobileNetV2 with other stages; `width` and `depth` scale all of it, channels to multiples of 8 and blocks rounded up.

    Attributes are those of `MobileNetV2`; the defaults are the paper's.
    """

    activation: str = 'silu'
    squeeze_excite: float = 0.25
    dropout: float = 0.2
    stochastic_depth: float = 0.2

    # Table 1.
    STAGES = (
        Stage(1, 16, 1, 1, 3),
        Stage(6, 24, 2, 2, 3),
        Stage(6, 40, 2, 2, 5),
        Stage(6, 80, 3, 2, 3),
        Stage(6, 112, 3, 1, 5),
        Stage(6, 192, 4, 2, 5),
        Stage(6, 320, 1, 1, 3),
    )
    SOURCES = {
        'timm': Source(
            timm,
            {n: n for n in _TIMM},
            lambda name: _TIMM.get(name, Preprocessing()),
            lambda name, tensors: TENSORFLOW if name.startswith('tf_') else {},
        ),
        'torchvision': Source(
            _torchvision,
            {n: n for n in SCALES},
            lambda name: _TORCHVISION.get(name, Preprocessing()),
            _torchvision_arguments,
        ),
        # Theirs pads like TensorFlow only for images of the size in the table. It resizes images to a square, and divides them
        # twice by the square root of ImageNet's standard deviation. Its PyTorch layers take TensorFlow's momentum for one minus
        # it, so their running statistics are nearly the last batch's; ours keep the default, here and in MobileNets.
        'huggingface': Source(
            _huggingface,
            {n: f'google/{n.replace("_", "-")}' for n in SCALES},
            lambda name: Preprocessing(SCALES.get(name, SCALES['efficientnet_b0']).size, 1.0, 'nearest'),
            lambda name, tensors: TENSORFLOW,
            backbone='efficientnet',
        ),
    }

    @nn.nowrap
    def depths(self) -> list[int]:
        """Blocks of each stage."""
        return [math.ceil(stage.depth * self.depth) for stage in self.STAGES]

    @nn.nowrap
    def top(self) -> int:
        """Channels of the last convolution."""
        return TOP if self.fixed_ends else divisible(TOP * self.width)


def _scaled(name: str, **others: Any) -> functools.partial:
    scale = SCALES[name]
    return functools.partial(EfficientNet, width=scale.width, depth=scale.depth, dropout=scale.dropout, **others)


efficientnet_b0 = _scaled('efficientnet_b0')
efficientnet_b1 = _scaled('efficientnet_b1')
efficientnet_b2 = _scaled('efficientnet_b2')
efficientnet_b3 = _scaled('efficientnet_b3')
efficientnet_b4 = _scaled('efficientnet_b4')
efficientnet_b5 = _scaled('efficientnet_b5')
efficientnet_b6 = _scaled('efficientnet_b6')
efficientnet_b7 = _scaled('efficientnet_b7')
tf_efficientnet_b0 = _scaled('efficientnet_b0', **TENSORFLOW)
tf_efficientnet_b1 = _scaled('efficientnet_b1', **TENSORFLOW)
tf_efficientnet_b2 = _scaled('efficientnet_b2', **TENSORFLOW)
tf_efficientnet_b3 = _scaled('efficientnet_b3', **TENSORFLOW)
tf_efficientnet_b4 = _scaled('efficientnet_b4', **TENSORFLOW)
tf_efficientnet_b5 = _scaled('efficientnet_b5', **TENSORFLOW)
tf_efficientnet_b6 = _scaled('efficientnet_b6', **TENSORFLOW)
tf_efficientnet_b7 = _scaled('efficientnet_b7', **TENSORFLOW)
