"""AlexNet in one column (Krizhevsky 2014, One weird trick for parallelizing convolutional neural networks, section 5).

The network of Krizhevsky et al. 2012 without the split over two GPUs and without local response normalization; channels are
torchvision's. Average pooling fits a map of any size to the first fully connected layer; pixels of smaller maps are repeated.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import flax.linen as nn
import jax

from research.catalogue import ConfigError
from research.layers.dropout import Dropout
from research.layers.initializers import he_normal
from research.layers.pooling import adaptive_avg_pool
from research.models.network import Network, Preprocessing, Source, divisible
from research.models.vgg import Stage, convolve

# Channels, kernel, stride and padding of the first convolution; then channels and kernel of those at each resolution.
STEM = (64, 11, 4, 2)
STAGES = (((192,), 5), ((384, 256, 256), 3))
# Window and stride of the max pooling after the stem and after each stage; windows overlap (2012, section 3.4).
POOL = (3, 2)
# Units of the fully connected layers, and side of the map that the first one takes.
HIDDEN = 4096
SIDE = 6
# Smallest side of images: a stride of 4 and two of 2 reduce it to 3, the window of the last pooling.
SMALLEST = 63


def _torchvision(net: 'AlexNet') -> Iterator[tuple[str, ...]]:
    """No names for norm layers: torchvision's network has none."""
    yield from (('conv1', 'features.0'), ('stage1_block1/conv1', 'features.3'))
    yield from ((f'stage2_block1/conv{i}', f'features.{4 + 2 * i}') for i in (1, 2, 3))
    yield from (('fc1', 'classifier.1', 'flat'), ('fc2', 'classifier.4'), ('head', 'classifier.6'))


class AlexNet(Network):
    """Five convolutions, three poolings and three fully connected layers.

    Attributes, besides those of `Network`:
      norm: as in `Network`, after each convolution; 'none' adds no layer, because convolutions have biases.
      width: multiplier of channels and hidden units, which are rounded to multiples of 8.
      dropout: rate on the input of each of the two hidden layers (2012, section 4.2).
    """

    norm: str | Mapping[str, Any] = 'none'
    width: float = 1.0
    dropout: float = 0.5

    SOURCES = {
        'torchvision': Source(_torchvision, {'alexnet': 'alexnet'}, lambda name: Preprocessing(interpolation='bilinear'))
    }

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Images `[B, H, W, C]` to logits `[B, K]`."""
        if min(x.shape[1:3]) < SMALLEST:
            raise ConfigError(f'AlexNet takes images of {SMALLEST} pixels a side or more, got {x.shape[1]} x {x.shape[2]}.')
        kit, stage, hidden = self.kit(train), self.block(Stage), divisible(HIDDEN * self.width)
        features, kernel, strides, padding = STEM
        x = convolve(kit, x, divisible(features * self.width), kernel, strides, number=1, padding=padding)
        x = kit.max_pool(self.tap('stem', x), *POOL)
        for s, (features, kernel) in enumerate(STAGES, 1):
            x = stage(kit, tuple(divisible(n * self.width) for n in features), kernel, name=f'stage{s}_block1')(x)
            x = kit.max_pool(self.tap(f'stage{s}', x), *POOL)
        x = Dropout(self.dropout, name='drop1')(adaptive_avg_pool(x, SIDE), train)
        x = kit.activate(kit.conv(x, hidden, SIDE, name='fc1', use_bias=True, padding='VALID', kernel_init=he_normal()))
        x = Dropout(self.dropout, name='drop2')(x.reshape(x.shape[0], -1), train)
        x = kit.activate(kit.dense(x, hidden, name='fc2', kernel_init=he_normal()))
        return kit.dense(x, self.num_classes, name='head')


alexnet = AlexNet
