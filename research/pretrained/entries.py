"""Our parameters and another library's, one to one: names, shapes and forms; `research.models.network.Layer` pairs them.

A path is a tuple, collection first: ('params', 'stage1_block1', 'conv1', 'kernel').
"""

import itertools
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict

from research.catalogue import ConfigError, nearest
from research.layers import formulation
from research.models.network import Layer, Preprocessing, Source

Path = tuple[str, ...]

# What this package itself writes: a tensor is called as its path, 'params/conv1/kernel', and is stored as it is.
OWN = 'frugal'
_OWN = Source(lambda net: (), {}, lambda name: Preprocessing())
# Collections that hold no weights.
_PASSING = ('example', 'intermediates', 'auxiliary', 'foreign')
# PyTorch's name of our leaf.
_LEAVES = {'kernel': 'weight', 'scale': 'weight', 'bias': 'bias', 'mean': 'running_mean', 'var': 'running_var'}
# Tensors that do not affect a network's output: counters, tables that follow from sizes (GPT-2's of which tokens see which), a
# head that is never called.
NO_PLACE = re.compile(
    r'num_batches_tracked$|position_ids$|relative_position_index$|pooler\.dense\.(weight|bias)$|\.attn\.(masked_)?bias$'
)
# Put in front of all names by PyTorch's wrappers of a network.
_WRAPPERS = re.compile(r'^((module|_orig_mod)\.)+')
_SHOWN = 8


class Entry(NamedTuple):
    """Our leaf, of `shape`, and the names of their tensors that make it up; `form` as in Layer, or OWN."""

    path: Path
    shape: tuple[int, ...]
    theirs: tuple[str, ...]
    form: str

    def outward(self, leaf: Any) -> list[Any]:
        """The leaf, an array of `shape`, as their tensors, of shapes `expected`."""
        if self.form == OWN:
            return [leaf]
        width = leaf.shape[-1] // len(self.theirs)
        parts = [leaf[..., i * width : (i + 1) * width] for i in range(len(self.theirs))]
        if self.path[-1] != 'kernel' or self.form == 'conv1d':
            return parts
        turned = [part.transpose(3, 2, 0, 1) if part.ndim == 4 else part.T for part in parts]
        if self.form == 'flat':
            return [part.reshape(len(part), -1) for part in turned]
        return [part[..., None, None] for part in turned] if self.form == 'pointwise' else turned

    def inward(self, tensors: list[np.ndarray]) -> np.ndarray:
        """Their tensors, of shapes `expected`, as the leaf, of `shape`."""
        if self.form == OWN:
            return tensors[0]
        if self.path[-1] == 'kernel' and self.form != 'conv1d':
            if self.form == 'flat':
                height, width, channels, _ = self.shape
                tensors = [part.reshape(len(part), channels, height, width) for part in tensors]
            elif self.form == 'pointwise':
                tensors = [part[..., 0, 0] for part in tensors]
            tensors = [part.transpose(2, 3, 1, 0) if part.ndim == 4 else part.T for part in tensors]
        return np.concatenate(tensors, -1)

    @property
    def expected(self) -> list[tuple[int, ...]]:
        """The shapes of their tensors."""
        return [a.shape for a in jax.eval_shape(self.outward, jax.ShapeDtypeStruct(self.shape, jnp.float32))]

    @property
    def channels(self) -> int:
        """The axis of their kernels over input channels."""
        return -2 if self.form == OWN else 1

    @property
    def classes(self) -> int:
        """The axis of a head's tensors over classes."""
        return -1 if self.form == OWN else 0


def sources_of(module: nn.Module) -> Mapping[str, Source]:
    """Other libraries with weights for a network, by name."""
    return getattr(module, 'SOURCES', {})


def source_of(module: nn.Module, source: str) -> Source:
    """The named source of a network's family, or OWN; raises ConfigError if it has none."""
    sources = {OWN: _OWN, **sources_of(module)}
    if source not in sources:
        raise ConfigError(f"No weights for a {type(module).__name__} from '{source}'.{nearest(source, sources)}")
    return sources[source]


def is_own(source: Source) -> bool:
    """Whether this package wrote the weights."""
    return source is _OWN


def layers_of(module: nn.Module, source: Source) -> set[str]:
    """Their names of layers that a network may have; nothing is traced."""
    return {theirs for row in source.layers(module) for theirs in Layer(*row).names}


def canonical(source: Source, names: Collection[str]) -> dict[str, str]:
    """Names in a file -> as the source has them for a whole network: without wrappers, with what a backbone leaves out."""
    spelt = {name: _WRAPPERS.sub('', name) for name in names}
    for pattern, replacement in source.spellings:
        spelt = {name: re.sub(pattern, replacement, bare) for name, bare in spelt.items()}
    prefix = f'{source.backbone}.'
    if source.backbone and not any(bare.startswith(prefix) for bare in spelt.values()):
        return {name: prefix + bare for name, bare in spelt.items()}
    return spelt


def entries(module: nn.Module, source: Source, shapes: Mapping[Path, tuple[int, ...]]) -> list[Entry]:
    """Every leaf of a network, given their shapes, with its names in a source.

    Raises:
      ConfigError: a leaf has no name there.
    """
    if is_own(source):
        return [Entry(path, shape, ('/'.join(path),), OWN) for path, shape in shapes.items()]
    layers = {layer.ours: layer for layer in (Layer(*row) for row in source.layers(module))}
    named, nameless = [], []
    for path, shape in shapes.items():
        if path[0] not in ('params', 'batch_stats'):
            continue
        if whole := layers.get('/'.join(path[1:])):
            named.append(Entry(path, shape, whole.names, whole.form))
        elif (layer := layers.get('/'.join(path[1:-1]))) and path[-1] in _LEAVES:
            theirs = tuple(f'{name}.{_LEAVES[path[-1]]}' for name in layer.names)
            named.append(Entry(path, shape, theirs, layer.form))
        else:
            nameless.append('/'.join(path))
    if nameless:
        raise ConfigError(
            f'No pretrained name for {listed(nameless)}: the network differs too much from the one of the weights.'
        )
    return named


def has_twin(path: Path) -> bool:
    """Whether PyTorch has a name for a leaf in every layer of its kind; else it is a parameter by itself."""
    return path[-1] in _LEAVES


def example_of(module: nn.Module, image: tuple[int, ...]) -> jax.ShapeDtypeStruct:
    """An input of a network: its own `EXAMPLE`, or images of this shape."""
    return getattr(module, 'EXAMPLE', jax.ShapeDtypeStruct(image, jnp.float32))


def shapes_of(module: nn.Module, image: tuple[int, ...]) -> dict[Path, tuple[int, ...]]:
    """Path -> shape of a network's variables, for images [B, H, W, C] of this shape; one trace."""
    with formulation.plain():  # the same parameters, traced in half the time
        variables = jax.eval_shape(module.init, jax.random.key(0), example_of(module, image))
    return {path: leaf.shape for path, leaf in flatten_dict(variables).items() if path[0] not in _PASSING}


def cut(items: Collection[Any], text: Callable[[Any], str]) -> list[str]:
    """Texts of the first of many, and how many more there are."""
    texts = [text(item) for item in itertools.islice(items, _SHOWN)]
    return texts if len(items) <= _SHOWN else [*texts, f'... and {len(items) - _SHOWN} more']


def listed(names: Collection[str]) -> str:
    """Quoted, the first of many."""
    return ', '.join(cut(names, lambda name: f"'{name}'"))
