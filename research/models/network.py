"""What the families of networks share: layers chosen by the config, intermediate maps, and names in other libraries.

A family is a `Network`. Every layer of its blocks comes from a `Kit`, so all families choose norm, activation and convolution
by the same fields.
"""

import dataclasses
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, ClassVar, Literal, NamedTuple

import flax.linen as nn
import jax
import numpy as np
from flax.linen.initializers import Initializer

from research import catalogue
from research.layers import activation, conv, initializers, low_rank, pooling, remat
from research.layers import norm as norms
from research.layers.blur import blur
from research.layers.dense import Dense

PADDINGS = ('half', 'same')
# The mean and standard deviation of ImageNet's training images, by channel, for images in [0, 1].
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# Mean and standard deviation in TensorFlow's own networks: images in [-1, 1].
HALF = (0.5, 0.5, 0.5)
# Arguments of networks that compute as TensorFlow's do, whose weights other libraries offer too.
TENSORFLOW = {'padding': 'same', 'norm': {'name': 'batch', 'epsilon': 1e-3}}


def divisible(channels: float) -> int:
    """The nearest multiple of 8, at least 8, that is at most a tenth smaller, as in Google's networks."""
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest if nearest >= 0.9 * channels else nearest + 8


class Preprocessing(NamedTuple):
    """The preprocessing of images that pretrained weights expect.

    Attributes:
      size: side of the square crop, in pixels.
      crop: share of the shorter side that the square covers: resize that side to size / crop, then cut out the middle.
      interpolation: of the resizing, 'bilinear', 'bicubic' or 'nearest'.
      mean, std: by channel, for images in [0, 1].
    """

    size: int = 224
    crop: float = 0.875
    interpolation: str = 'bicubic'
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD


class Layer(NamedTuple):
    """One of our layers and its name in another library.

    Attributes:
      ours: path of the layer in the parameters, 'stage1_block1/conv1'; or of a parameter itself, 'class_token'.
      theirs: 'layer1.0.conv1', without `.weight` and the like unless it is the parameter's own name. Several names: our
        outputs are theirs concatenated.
      form: of their weight: '' for the same kind of layer in PyTorch; 'pointwise' for a 1x1 convolution where ours is a
        matrix; 'flat' for a matrix over a map flattened channel by channel where ours is a convolution over the whole map;
        'conv1d' for transformers' layer of that name, a matrix that is stored as ours.
    """

    ours: str
    theirs: str | tuple[str, ...]
    form: str = ''

    @property
    def names(self) -> tuple[str, ...]:
        """`theirs` as a tuple."""
        return (self.theirs,) if isinstance(self.theirs, str) else self.theirs


class Source(NamedTuple):
    """Another library's version of a family.

    Attributes:
      layers: network -> rows of `Layer`, in any order; layers that the network lacks are ignored.
      names: model name -> theirs, for every network that they have: a function's name in timm and torchvision, a repository at
        Hugging Face.
      preprocessing: model name -> that of its images.
      arguments: model name, names of tensors in a file -> arguments of our constructor, if theirs computes something else
        from the same parameters: an epsilon, a momentum of running statistics, a padding.
      backbone: what the names of all layers but the head begin with ('vit' in 'vit.layernorm'), which files of a network
        without its head leave out.
      spellings: patterns of other names for the same tensors, and what they are replaced with, in this order.
      configured: model name, the `config.json` beside the weights -> arguments of our constructor; raises ConfigError if it is
        another network's.
      heads: pattern of the tensors of heads, which a network with another head leaves aside.
      tied: tensors that repeat another one, and which.
      model_type: Hugging Face's, in a `config.json`; '' for the backbone's name.
    """

    layers: Callable[[Any], Iterable[tuple]]
    names: Mapping[str, str]
    preprocessing: Callable[[str], Preprocessing] = lambda name: Preprocessing()
    arguments: Callable[[str, Collection[str]], Mapping[str, Any]] = lambda name, tensors: {}
    backbone: str = ''
    spellings: tuple[tuple[str, str], ...] = ()
    configured: Callable[[str, Mapping[str, Any]], Mapping[str, Any]] = lambda name, config: {}
    heads: str = '(?!)'
    tied: Mapping[str, str] = {}
    model_type: str = ''


@dataclasses.dataclass(frozen=True)
class Kit:
    """The layers of a network: each method adds one, called `name`, to the module that is running.

    Attributes:
      norm_layer, activation, low_rank, axis_name, conv_layer, blur_pool, padding: as in `Network`.
      train: whether norm layers use the batch's statistics, and dropout is on.
    """

    norm_layer: str | Mapping[str, Any]
    activation: str
    train: bool
    low_rank: float = 0.0
    axis_name: str | None = None
    conv_layer: str | Mapping[str, Any] = 'plain'
    blur_pool: bool = False
    padding: str = 'half'

    def conv(
        self,
        x: jax.Array,
        features: int,
        kernel: int | conv.Pair,
        strides: int = 1,
        *,
        name: str,
        groups: int = 1,
        **others: Any,
    ) -> jax.Array:
        """Convolution, `[B, H, W, C]` to `[B, H', W', features]`.

        Other arguments are those of `research.layers.conv.Conv`; by default there is no bias, the padding is the network's and
        the initializer is He's.
        """
        size = (kernel, kernel) if isinstance(kernel, int) else tuple(kernel)
        if self.blur_pool and strides > 1 and size != (strides, strides):  # adjacent patches skip no pixels
            x = blur(x)
        given = {
            'kernel_size': size,
            'strides': strides,
            'padding': 'SAME' if self.padding == 'same' else tuple((k - 1) // 2 for k in size),
            'groups': groups,
            'use_bias': False,
            'kernel_init': initializers.he_normal_fan_out(groups),
            **others,
        }
        rank = low_rank.rank((*size, x.shape[-1], features), self.low_rank) if groups == 1 else 0
        if rank:
            # No activation between the two, so the first gets LeCun's initializer.
            first = given | {'use_bias': False, 'kernel_init': initializers.lecun_normal()}
            x = conv.create(self.conv_layer, features=rank, name=f'{name}_in', **first)(x)
            given |= {'kernel_size': 1, 'strides': 1, 'padding': 0}
            name = f'{name}_out'
        return conv.create(self.conv_layer, features=features, name=name, **given)(x)

    def dense(self, x: jax.Array, features: int, *, name: str, kernel_init: Initializer | None = None) -> jax.Array:
        """Matrix and bias, `[..., C]` to `[..., features]`; kernel_init None is LeCun's."""
        kernel_init = kernel_init or initializers.lecun_normal()
        if rank := low_rank.rank((x.shape[-1], features), self.low_rank):
            x = remat.product(Dense(rank, use_bias=False, name=f'{name}_in')(x))
            name = f'{name}_out'
        return remat.product(Dense(features, kernel_init=kernel_init, name=name)(x))

    def norm(self, x: jax.Array, *, name: str) -> jax.Array:
        """Norm layer, `[B, ..., C]` to the same shape."""
        return norms.create(self.norm_layer, use_running_average=not self.train, axis_name=self.axis_name, name=name)(x)

    def activate(self, x: jax.Array) -> jax.Array:
        """The network's activation, any shape to the same shape."""
        return activation.create(self.activation)(x)

    def max_pool(self, x: jax.Array, window: int, strides: int, padding: Any = 'VALID') -> jax.Array:
        """Maximum over square windows, `[B, H, W, C]` to `[B, H', W', C]`; padding as in research.layers.pooling.max_pool."""
        if self.blur_pool and strides > 1:
            return blur(pooling.max_pool(x, (window, window), (1, 1), padding), strides)
        return pooling.max_pool(x, (window, window), (strides, strides), padding)


class Network(nn.Module):
    """A network over images, `[B, H, W, C]` to logits `[B, K]`; a family adds its own fields and `__call__(x, train=False)`.

    Attributes:
      num_classes: K, logits.
      norm: a name in `research.layers.norm.NORMS`, or a mapping with `name` and its arguments.
      activation: a name in `research.layers.activation.ACTIVATIONS`.
      conv: a name in `research.layers.conv.CONVS`, or a mapping with `name` and its arguments.
      blur_pool: whether maps are low-pass filtered before they are sampled, see research.layers.blur.
      low_rank: rank of large layers as a share of the full rank, 0 for whole ones, see research.layers.low_rank.
      padding: 'half' the kernel on each side, as in PyTorch, or 'same' as in TensorFlow, whose strided layers pad high first.
      remat: what of a block is recomputed for the gradient, see research.layers.remat.
      axis_name: the `pmap` axis over which batches are split.
    """

    num_classes: int = 1000
    norm: str | Mapping[str, Any] = 'batch'
    activation: str = 'relu'
    conv: str | Mapping[str, Any] = 'plain'
    blur_pool: bool = False
    low_rank: float = 0.0
    padding: Literal['half', 'same'] = 'half'
    remat: str = 'none'
    axis_name: str | None = None

    # Library ('timm', 'torchvision', 'huggingface') -> how its weights map to ours.
    SOURCES: ClassVar[Mapping[str, Source]] = {}
    # The layer that sees the images, and those whose outputs are the classes.
    FIRST: ClassVar[str] = 'conv1'
    HEADS: ClassVar[Collection[str]] = ('head',)

    @nn.nowrap
    def kit(self, train: bool) -> Kit:
        """The layers that the fields choose; raises ConfigError for an unknown padding."""
        if self.padding not in PADDINGS:
            raise catalogue.ConfigError(f"Unknown padding '{self.padding}'.{catalogue.nearest(self.padding, PADDINGS)}")
        return Kit(
            norm_layer=self.norm,
            activation=self.activation,
            conv_layer=self.conv,
            blur_pool=self.blur_pool,
            low_rank=self.low_rank,
            padding=self.padding,
            axis_name=self.axis_name,
            train=train,
        )

    @nn.nowrap
    def block(self, module: Any) -> Any:
        """A block's class under the network's `remat`; the block takes only a map."""
        return remat.block(module, self.remat, static_argnums=())

    @nn.nowrap
    def resized(self, path: tuple[str, ...], leaf: np.ndarray, shape: tuple[int, ...]) -> np.ndarray | None:
        """A pretrained parameter resampled for images of another size, or None if it cannot be.

        Args:
          path: of the parameter, collection first.
          leaf: float32, as in the file.
          shape: of the result.
        """
        del path, leaf, shape

    @nn.nowrap
    def tap(self, name: str, x: jax.Array, collection: str = 'intermediates') -> jax.Array:
        """The identity; stores `x` in a collection. `research.models.features` returns those in 'intermediates'."""
        self.sow(collection, name, x, init_fn=lambda: None, reduce_fn=lambda _, new: new)
        return x


def check_tokens(what: str, tokens: jax.Array) -> None:
    """Raises ConfigError where `what` is given something else than tokens, int `[B, T]`."""
    if tokens.ndim != 2 or not jax.numpy.issubdtype(tokens.dtype, jax.numpy.integer):
        raise catalogue.ConfigError(f'{what} reads tokens, int [B, T], got {tokens.dtype} {list(tokens.shape)}.')
