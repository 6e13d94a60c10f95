"""Our parameters and another library's, one to one: `research.models.network.Layer` pairs them, this file converts them.

A path is a tuple, collection first: ('params', 'stage1_block1', 'conv1', 'kernel').
"""

import dataclasses
import re
import warnings
from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from research import models
from research.catalogue import ConfigError, nearest
from research.layers import formulation, low_rank
from research.models.network import Layer, Network, Source

Path = tuple[str, ...]

# PyTorch's name of our leaf.
_LEAVES = {'kernel': 'weight', 'scale': 'weight', 'bias': 'bias', 'mean': 'running_mean', 'var': 'running_var'}
# Tensors that do not affect a network's output: counters, tables that follow from sizes, a head that is never called.
_NO_PLACE = re.compile(r'num_batches_tracked$|position_ids$|relative_position_index$|pooler\.dense\.(weight|bias)$')
_SHOWN = 8


class Entry(NamedTuple):
    """Our leaf, of `shape`, and the names of their tensors that make it up."""

    path: Path
    shape: tuple[int, ...]
    theirs: tuple[str, ...]
    form: str

    def outward(self, leaf: Any) -> list[Any]:
        """The leaf, an array of `shape`, as their tensors, of shapes `expected`."""
        width = leaf.shape[-1] // len(self.theirs)
        parts = [leaf[..., i * width : (i + 1) * width] for i in range(len(self.theirs))]
        if self.path[-1] != 'kernel':
            return parts
        turned = [part.transpose(3, 2, 0, 1) if part.ndim == 4 else part.T for part in parts]
        if self.form == 'flat':
            return [part.reshape(len(part), -1) for part in turned]
        return [part[..., None, None] for part in turned] if self.form == 'pointwise' else turned

    def inward(self, tensors: list[np.ndarray]) -> np.ndarray:
        """Their tensors, of shapes `expected`, as the leaf, of `shape`."""
        if self.path[-1] == 'kernel':
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


@dataclasses.dataclass
class Weights:
    """Weights read for a network.

    Attributes:
      leaves: path -> array, float32.
      fresh: paths to be drawn: heads of another number of classes.
      image: shape of the images [1, H, W, C].
      foreign: tensors without a place in the network, by name.
    """

    leaves: dict[Path, np.ndarray]
    fresh: list[Path]
    image: tuple[int, ...]
    foreign: dict[str, np.ndarray]

    def completed(self, module: nn.Module) -> dict[str, Any]:
        """Variables of the module: those read, and the rest drawn with key 0."""
        leaves = dict(self.leaves)
        if self.fresh:

            def drawn(rng):
                variables = flatten_dict(module.init(rng, jnp.zeros(self.image)))
                return {'/'.join(path): variables[path] for path in self.fresh}

            heads = jax.jit(drawn)(jax.random.key(0))
            leaves |= {path: np.asarray(heads['/'.join(path)]) for path in self.fresh}
        return unflatten_dict(leaves) | ({'foreign': self.foreign} if self.foreign else {})


def source_of(module: nn.Module, source: str) -> Source:
    """The named source of a network's family; raises ConfigError if it has none."""
    sources = module.SOURCES if isinstance(module, Network) else {}
    if source not in sources:
        raise ConfigError(f"No weights for a {type(module).__name__} from '{source}'.{nearest(source, sources)}")
    return sources[source]


def recognized(name: str, tensors: Collection[str]) -> Source:
    """The source of these tensors: the one most of whose names are there.

    Raises:
      ConfigError: no name of any source is there.
    """
    module = models.create(name)
    sources = module.SOURCES if isinstance(module, Network) else {}
    if not sources:
        raise ConfigError(f"No pretrained weights are known for '{name}'.")

    shapes = shapes_of(module)

    def known(source: Source) -> int:
        return sum(theirs in tensors for entry in entries(module, source, shapes) for theirs in entry.theirs)

    source = max(sources.values(), key=known)
    if not known(source):
        raise ConfigError(
            f"None of the names in the file is one of '{name}' in {', '.join(sources)}: it begins with "
            f'{", ".join(map(repr, sorted(tensors)[:3]))}. Are these weights of another network?'
        )
    return source


def network(
    name: str, tensors: Mapping[str, np.ndarray], num_classes: int, kwargs: Mapping[str, Any]
) -> tuple[nn.Module, Source]:
    """The network that tensors belong to, and their source."""
    source = recognized(name, tensors)
    given = dict(source.arguments(name, tensors)) | dict(kwargs)
    module = models.create(name)
    return models.create(name, num_classes or _classes(module, source, tensors), **given), source


def _classes(module: Network, source: Source, tensors: Mapping[str, np.ndarray]) -> int:
    for entry in entries(module, source, shapes_of(module)):
        if entry.path == ('params', 'head', 'bias') and entry.theirs[0] in tensors:
            return len(tensors[entry.theirs[0]])
    return module.num_classes


def entries(module: Network, source: Source, shapes: Mapping[Path, tuple[int, ...]]) -> list[Entry]:
    """Every leaf of a network, given their shapes, with its names in a source.

    Raises:
      ConfigError: a leaf has no name there.
    """
    layers = {layer.ours: layer for layer in (Layer(*row) for row in source.layers(module))}
    named, nameless = [], []
    for path, shape in shapes.items():
        if whole := layers.get('/'.join(path[1:])):
            named.append(Entry(path, shape, whole.names, whole.form))
        elif (layer := layers.get('/'.join(path[1:-1]))) and path[-1] in _LEAVES:
            theirs = tuple(f'{name}.{_LEAVES[path[-1]]}' for name in layer.names)
            named.append(Entry(path, shape, theirs, layer.form))
        else:
            nameless.append('/'.join(path))
    if nameless:
        raise ConfigError(
            f'No pretrained name for {_listed(nameless)}: the network differs too much from the one of the weights.'
        )
    return named


def shapes_of(module: nn.Module, image: tuple[int, ...] = (1, 224, 224, 3)) -> dict[Path, tuple[int, ...]]:
    """Path -> shape of a network's parameters and running statistics, for images [B, H, W, C] of this shape."""
    with formulation.plain():  # the same parameters, traced in half the time
        variables = jax.eval_shape(module.init, jax.random.key(0), jax.ShapeDtypeStruct(image, jnp.float32))
    return {path: leaf.shape for path, leaf in flatten_dict(variables).items() if path[0] in ('params', 'batch_stats')}


def image(
    module: Network, name: str, source: Source, tensors: Mapping[str, np.ndarray], channels: int, size: int = 0
) -> tuple[int, ...]:
    """Shape [1, H, W, C] of the images of a network with these weights; 0 channels or size: as in the weights."""
    size = size or source.preprocessing(name).size
    return (1, size, size, channels or _channels(module, source, tensors, size))


def _channels(module: Network, source: Source, tensors: Mapping[str, np.ndarray], size: int) -> int:
    """Channels of the images that the weights were trained on: those of the first kernel's input."""
    module = module.clone(low_rank=0.0)  # factorized layers have no names there
    known = entries(module, source, shapes_of(module, (1, size, size, 3)))
    other = shapes_of(module, (1, size, size, 4))
    stems = [e for e in known if e.shape != other[e.path] and e.theirs[0] in tensors]
    return tensors[stems[0].theirs[0]].shape[1] if stems else 3


def into(module: Network, source: Source, tensors: Mapping[str, np.ndarray], image: tuple[int, ...]) -> Weights:
    """Tensors as float32 leaves of a network for images [B, H, W, C], each used once.

    Raises:
      ConfigError: tensors that are missing, left over or of another shape, by name.
    """
    whole = module.clone(low_rank=0.0)
    by_classes = shapes_of(whole.clone(num_classes=module.num_classes + 1), image)
    leaves, drawn, missing, misfits, used = {}, set(), {}, [], set()
    for entry in entries(whole, source, shapes_of(whole, image)):
        given = [np.asarray(tensors[name], np.float32) for name in entry.theirs if name in tensors]
        used |= {name for name in entry.theirs if name in tensors}
        head = by_classes[entry.path] != entry.shape
        if len(given) < len(entry.theirs):
            if head:
                drawn.add('/'.join(entry.path[1:-1]))
            else:
                missing |= {n: e for n, e in zip(entry.theirs, entry.expected, strict=True) if n not in tensors}
            continue
        given = [_of_one_channel(a, expected) for a, expected in zip(given, entry.expected, strict=True)]
        wrong = [(n, a.shape, e) for n, a, e in zip(entry.theirs, given, entry.expected, strict=True) if a.shape != e]
        if wrong and head:
            drawn.add('/'.join(entry.path[1:-1]))
        elif wrong and (leaf := _resized(whole, entry, given)) is not None:
            leaves[entry.path] = leaf
        elif wrong:
            misfits.extend(f"'{name}' is {list(shape)}, expected {list(expected)}" for name, shape, expected in wrong)
        else:
            leaves[entry.path] = entry.inward(given)
    no_place = {name for name in tensors if _NO_PLACE.search(name)} | _statistics(whole, source, leaves)
    foreign = {name: np.asarray(tensors[name]) for name in sorted(no_place - used) if name in tensors}
    _complain(missing, misfits, sorted(set(tensors) - used - set(foreign)), tensors)
    if drawn:
        warnings.warn(
            f'Drawn anew, because the weights have another number of classes than {module.num_classes} or no head: '
            f'{_listed(sorted(drawn))}.',
            stacklevel=3,
        )
    shapes = shapes_of(module, image)
    leaves = _factored(leaves, shapes)
    return Weights(leaves, [path for path in shapes if path not in leaves], image, foreign)


def _statistics(module: Network, source: Source, leaves: Mapping[Path, np.ndarray]) -> set[str]:
    """Their running statistics whose norm layers, by choice of the config, keep none here."""
    layers = [layer for row in source.layers(module) if isinstance((layer := Layer(*row)).theirs, str)]
    plain = [layer.theirs for layer in layers if ('params', *layer.ours.split('/'), 'scale') in leaves]
    return {f'{name}.{leaf}' for name in plain for leaf in ('running_mean', 'running_var')}


def _resized(module: Network, entry: Entry, given: list[np.ndarray]) -> np.ndarray | None:
    """A parameter that depends on the image size, resampled, if its family can."""
    if entry.path[-1] in _LEAVES or len(given) > 1 or given[0].ndim != len(entry.shape):
        return None
    return module.resized(entry.path, given[0], entry.shape)


def _of_one_channel(tensor: np.ndarray, expected: tuple[int, ...]) -> np.ndarray:
    """A kernel over RGB summed to one over gray images, which have the same value in every colour."""
    gray = tensor.ndim == 4 and expected == (len(tensor), 1, *tensor.shape[2:]) and tensor.shape[1] == 3
    return tensor.sum(1, keepdims=True) if gray else tensor


def _factored(leaves: dict[Path, np.ndarray], shapes: Mapping[Path, tuple[int, ...]]) -> dict[Path, np.ndarray]:
    """Leaves with the kernels of low-rank layers in two factors, see research.layers.low_rank."""
    factored = dict(leaves)
    for path, shape in shapes.items():
        if path[-2].endswith('_in') and path[-1] == 'kernel' and path not in leaves:
            layer = path[-2].removesuffix('_in')
            if (kernel := factored.pop((*path[:-2], layer, 'kernel'), None)) is None:
                continue  # a head to be drawn
            first, last = low_rank.factors(kernel, shape[-1])
            out = (*path[:-2], f'{layer}_out')
            factored |= {path: first, (*out, 'kernel'): last.reshape(shapes[*out, 'kernel'])}
            if (bias := factored.pop((*path[:-2], layer, 'bias'), None)) is not None:
                factored[*out, 'bias'] = bias
    return factored


def _complain(
    missing: Mapping[str, tuple[int, ...]], misfits: list[str], left: list[str], tensors: Mapping[str, np.ndarray]
) -> None:
    if not (missing or misfits or left):
        return
    lines = [f"'{n}' {list(e)} is not in the file.{nearest(n, left) if left else ''}" for n, e in sorted(missing.items())]
    lines += [f'{misfit}.' for misfit in misfits]
    lines += [f"'{n}' {list(tensors[n].shape)} has no place.{nearest(n, missing) if missing else ''}" for n in left]
    raise ConfigError('The weights do not fit:\n  ' + '\n  '.join(_cut(lines)))


def _cut(lines: list[str]) -> list[str]:
    return lines if len(lines) <= _SHOWN else [*lines[:_SHOWN], f'... and {len(lines) - _SHOWN} more']


def _listed(names: Iterable[str]) -> str:
    return ', '.join(_cut([f"'{name}'" for name in names]))


def out_of(module: nn.Module, variables: Mapping[str, Any], source: str) -> dict[str, np.ndarray]:
    """Variables as another library's tensors by name; raises as `entries` does."""
    family = source_of(module, source)
    leaves = flatten_dict({kind: variables.get(kind, {}) for kind in ('params', 'batch_stats')})
    tensors = dict(variables.get('foreign', {}))
    for entry in entries(module, family, {path: np.shape(leaf) for path, leaf in leaves.items()}):
        tensors |= zip(entry.theirs, entry.outward(np.asarray(leaves[entry.path])), strict=True)
    return tensors
