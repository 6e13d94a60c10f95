"""Parameters of ours and of others, one to one: `research.models.network.Layer` says which, this file moves them.

A path is a tuple with the collection in front: ('params', 'stage1_block1', 'conv1', 'kernel').
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
from research.layers import low_rank
from research.models.network import Layer, Network, Source

Path = tuple[str, ...]

# What PyTorch calls a leaf of ours.
_LEAVES = {'kernel': 'weight', 'scale': 'weight', 'bias': 'bias', 'mean': 'running_mean', 'var': 'running_var'}
# Tensors that are no part of what a network computes: counters, tables that follow from sizes, a head that is never called.
_NO_PLACE = re.compile(r'num_batches_tracked$|position_ids$|relative_position_index$|pooler\.dense\.(weight|bias)$')
_SHOWN = 8


class Entry(NamedTuple):
    """A leaf of ours, `shape`, and the names of the tensors of theirs that it is made of."""

    path: Path
    shape: tuple[int, ...]
    theirs: tuple[str, ...]
    form: str

    def outward(self, leaf: Any) -> list[Any]:
        """The leaf as their tensors."""
        width = leaf.shape[-1] // len(self.theirs)
        parts = [leaf[..., i * width : (i + 1) * width] for i in range(len(self.theirs))]
        if self.path[-1] != 'kernel':
            return parts
        turned = [part.transpose(3, 2, 0, 1) if part.ndim == 4 else part.T for part in parts]
        if self.form == 'flat':
            return [part.reshape(len(part), -1) for part in turned]
        return [part[..., None, None] for part in turned] if self.form == 'pointwise' else turned

    def inward(self, tensors: list[np.ndarray]) -> np.ndarray:
        """Their tensors as the leaf."""
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
    """What was read for a network.

    Attributes:
      leaves: path -> array, float32.
      fresh: paths that are to be drawn: heads of another number of classes.
      image: shape of the images.
      foreign: what has no place in a network, by its name.
    """

    leaves: dict[Path, np.ndarray]
    fresh: list[Path]
    image: tuple[int, ...]
    foreign: dict[str, np.ndarray]

    def completed(self, module: nn.Module) -> dict[str, Any]:
        """Variables of the module: what was read, and the rest drawn with key 0."""
        leaves = dict(self.leaves)
        if self.fresh:

            def drawn(rng):
                variables = flatten_dict(module.init(rng, jnp.zeros(self.image)))
                return {'/'.join(path): variables[path] for path in self.fresh}

            found = jax.jit(drawn)(jax.random.key(0))
            leaves |= {path: np.asarray(found['/'.join(path)]) for path in self.fresh}
        return unflatten_dict(leaves) | ({'foreign': self.foreign} if self.foreign else {})


def source_of(module: nn.Module, source: str) -> Source:
    """The named source of a network's family."""
    sources = module.SOURCES if isinstance(module, Network) else {}
    if source not in sources:
        raise ConfigError(f"No weights for a {type(module).__name__} from '{source}'.{nearest(source, sources)}")
    return sources[source]


def nested(leaves: Mapping[Path, np.ndarray]) -> dict[str, Any]:
    """Leaves by path as variables."""
    return unflatten_dict(leaves)


def recognized(name: str, tensors: Collection[str]) -> Source:
    """Whose tensors these are: the source most of whose names are there.

    Raises:
      ConfigError: nobody's.
    """
    module = models.create(name)
    sources = module.SOURCES if isinstance(module, Network) else {}
    if not sources:
        raise ConfigError(f"Nobody's weights are known for '{name}'.")

    def known(source: Source) -> int:
        return sum(theirs in tensors for entry in entries(module, source, shapes_of(module)) for theirs in entry.theirs)

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
    """The network that tensors are of, and whose they are."""
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
    """Every leaf of a network, of these shapes, with its names in a source.

    Raises:
      ConfigError: a leaf has none.
    """
    layers = {layer.ours: layer for layer in (Layer(*row) for row in source.layers(module))}
    found, nameless = [], []
    for path, shape in shapes.items():
        ours, leaf = '/'.join(path[1:-1]), path[-1]
        if whole := layers.get('/'.join(path[1:])):
            theirs = whole.theirs
            found.append(Entry(path, shape, (theirs,) if isinstance(theirs, str) else theirs, whole.form))
        elif ours in layers and leaf in _LEAVES:
            theirs = layers[ours].theirs
            theirs = (theirs,) if isinstance(theirs, str) else theirs
            found.append(Entry(path, shape, tuple(f'{name}.{_LEAVES[leaf]}' for name in theirs), layers[ours].form))
        else:
            nameless.append('/'.join(path))
    if nameless:
        raise ConfigError(
            f'No name elsewhere for {_listed(nameless)}: the network has been changed beyond what weights are for.'
        )
    return found


def shapes_of(module: nn.Module, image: tuple[int, ...] = (1, 224, 224, 3)) -> dict[Path, tuple[int, ...]]:
    """Of the parameters and running statistics of a network, leaf by leaf, for images of this shape."""
    variables = jax.eval_shape(module.init, jax.random.key(0), jax.ShapeDtypeStruct(image, jnp.float32))
    return {path: leaf.shape for path, leaf in flatten_dict(variables).items() if path[0] in ('params', 'batch_stats')}


def image(
    module: Network, name: str, source: Source, tensors: Mapping[str, np.ndarray], channels: int, size: int = 0
) -> tuple[int, ...]:
    """The shape of the images that a network with these weights takes: [1, H, W, C]; 0 stands for as the weights have it."""
    size = size or source.preprocessing(name).size
    return (1, size, size, channels or _channels(module, source, tensors, size))


def _channels(module: Network, source: Source, tensors: Mapping[str, np.ndarray], size: int) -> int:
    """Of the images that the weights were trained on: where the first kernel's input is."""
    module = module.clone(low_rank=0.0)  # whose layers have their names
    found = entries(module, source, shapes_of(module, (1, size, size, 3)))
    other = shapes_of(module, (1, size, size, 4))
    stems = [e for e in found if e.shape != other[e.path] and e.theirs[0] in tensors]
    return tensors[stems[0].theirs[0]].shape[1] if stems else 3


def into(module: Network, source: Source, tensors: Mapping[str, np.ndarray], image: tuple[int, ...]) -> Weights:
    """Tensors as leaves of a network, each used once.

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
            f'Drawn anew, because the weights are of another number of classes than {module.num_classes} or have no head: '
            f'{_listed(sorted(drawn))}.',
            stacklevel=3,
        )
    shapes = shapes_of(module, image)
    leaves = _factored(leaves, shapes)
    return Weights(leaves, [path for path in shapes if path not in leaves], image, foreign)


def _statistics(module: Network, source: Source, leaves: Mapping[Path, np.ndarray]) -> set[str]:
    """Running statistics of theirs where the norm layers of ours, by the config's choice, keep none."""
    layers = [layer for row in source.layers(module) if isinstance((layer := Layer(*row)).theirs, str)]
    plain = [layer.theirs for layer in layers if ('params', *layer.ours.split('/'), 'scale') in leaves]
    return {f'{name}.{leaf}' for name in plain for leaf in ('running_mean', 'running_var')}


def _resized(module: Network, entry: Entry, given: list[np.ndarray]) -> np.ndarray | None:
    """A parameter of the network's own at another size of the images, if its family knows how."""
    if entry.path[-1] in _LEAVES or len(given) > 1 or given[0].ndim != len(entry.shape):
        return None
    return module.resized(entry.path, given[0], entry.shape)


def _of_one_channel(tensor: np.ndarray, expected: tuple[int, ...]) -> np.ndarray:
    """A kernel over colours as one over a gray image, which is the same image in every colour."""
    gray = tensor.ndim == 4 and expected == (len(tensor), 1, *tensor.shape[2:]) and tensor.shape[1] == 3
    return tensor.sum(1, keepdims=True) if gray else tensor


def _factored(leaves: dict[Path, np.ndarray], shapes: Mapping[Path, tuple[int, ...]]) -> dict[Path, np.ndarray]:
    """Kernels that a network has in two factors, see research.layers.low_rank."""
    found = dict(leaves)
    for path, shape in shapes.items():
        if path[-2].endswith('_in') and path[-1] == 'kernel' and path not in leaves:
            layer = path[-2].removesuffix('_in')
            if (kernel := found.pop((*path[:-2], layer, 'kernel'), None)) is None:
                continue  # of a head that is drawn
            first, last = low_rank.factors(kernel, shape[-1])
            behind = (*path[:-2], f'{layer}_out')
            found |= {path: first, (*behind, 'kernel'): last.reshape(shapes[*behind, 'kernel'])}
            if (bias := found.pop((*path[:-2], layer, 'bias'), None)) is not None:
                found[*behind, 'bias'] = bias
    return found


def _complain(
    missing: Mapping[str, tuple[int, ...]], misfits: list[str], left: list[str], tensors: Mapping[str, np.ndarray]
) -> None:
    if not (missing or misfits or left):
        return
    lines = []
    for name, expected in sorted(missing.items()):
        lines.append(f"'{name}' {list(expected)} is not in the file.{nearest(name, left) if left else ''}")
    lines += [f'{misfit}.' for misfit in misfits]
    for name in left:
        lines.append(f"'{name}' {list(tensors[name].shape)} has no place.{nearest(name, missing) if missing else ''}")
    raise ConfigError('The weights do not fit:\n  ' + '\n  '.join(_cut(lines)))


def _cut(lines: list[str]) -> list[str]:
    return lines if len(lines) <= _SHOWN else [*lines[:_SHOWN], f'... and {len(lines) - _SHOWN} more']


def _listed(names: Iterable[str]) -> str:
    return ', '.join(_cut([f"'{name}'" for name in names]))


def out_of(module: nn.Module, variables: Mapping[str, Any], source: str) -> dict[str, np.ndarray]:
    """Variables as another library's tensors by name."""
    family = source_of(module, source)
    leaves = flatten_dict({kind: variables.get(kind, {}) for kind in ('params', 'batch_stats')})
    tensors = dict(variables.get('foreign', {}))
    for entry in entries(module, family, {path: np.shape(leaf) for path, leaf in leaves.items()}):
        tensors |= zip(entry.theirs, entry.outward(np.asarray(leaves[entry.path])), strict=True)
    return tensors
