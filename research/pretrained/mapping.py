"""Tensors of a file as a network's variables, and back."""

import dataclasses
import json
import re
import warnings
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from research.catalogue import ConfigError, nearest
from research.config import files as configs
from research.layers import low_rank
from research.models.network import Layer, Source
from research.pretrained import files
from research.pretrained.entries import (
    NO_PLACE,
    Entry,
    Path,
    canonical,
    cut,
    entries,
    example_of,
    has_twin,
    is_own,
    shapes_of,
    source_of,
)
from research.pretrained.files import Stored
from research.pretrained.likeness import looks_like

# Where 'foreign' keeps the texts of a file: JSON in bytes, so that variables stay a tree of arrays.
_TEXTS = '__metadata__'
# Fields of a network that its caller gives.
_GIVEN = ('num_classes', 'axis_name', 'remat', 'parent', 'name')


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
                example = example_of(module, self.image)
                variables = flatten_dict(module.init(rng, jnp.zeros(example.shape, example.dtype)))
                return {'/'.join(path): variables[path] for path in self.fresh}

            heads = jax.jit(drawn)(jax.random.key(0))
            leaves |= {path: np.asarray(heads['/'.join(path)]) for path in self.fresh}
        return unflatten_dict(leaves) | ({'foreign': self.foreign} if self.foreign else {})


def tensors_of(source: Source, stored: Stored) -> dict[str, np.ndarray]:
    """The tensors, by the names that the source has for a whole network; each once, where it ties two."""
    spelt = canonical(source, stored.names)
    tensors = {spelt.get(name, name): tensor for name, tensor in stored.read().items()}
    for copy, original in source.tied.items():
        if copy in tensors and np.array_equal(tensors[copy], tensors.setdefault(original, tensors[copy])):
            del tensors[copy]
    return tensors


def classes_of(module: nn.Module, source: Source, tensors: Mapping[str, np.ndarray]) -> int:
    """Length of the logits that the tensors give; the module's where they have no head."""
    bias = _tensor(module, source, 'head', 'bias', tensors)
    return module.num_classes if bias is None else len(bias)


def channels_of(module: nn.Module, source: Source, tensors: Mapping[str, np.ndarray]) -> int:
    """Channels of the images that the tensors were trained on."""
    kernel = _tensor(module, source, getattr(module, 'FIRST', ''), 'kernel', tensors)
    return 3 if kernel is None else kernel.shape[-2 if is_own(source) else 1]


def _tensor(module: nn.Module, source: Source, layer: str, leaf: str, tensors: Mapping[str, np.ndarray]) -> np.ndarray | None:
    """What a leaf is made of, for a layer with one name there; None if it is not in the file."""
    if is_own(source):
        return tensors.get(f'params/{layer}/{leaf}')
    theirs = next((row.names[0] for row in (Layer(*row) for row in source.layers(module)) if row.ours == layer), '')
    return tensors.get(f'{theirs}.{"weight" if leaf == "kernel" else leaf}')


def into(
    name: str, module: nn.Module, source: Source, stored: Stored, tensors: Mapping[str, np.ndarray], image: tuple[int, ...]
) -> Weights:
    """Tensors as float32 leaves of a network for images [B, H, W, C], each used once.

    Args:
      name: of the network, for messages.
      module: traced once, where it has factors twice.
      source: as recognized.
      stored, tensors: the weights, and what was read of them.
      image: shape of the images.

    Raises:
      ConfigError: tensors that are missing, left over, of another shape, or no finite numbers, by name.
    """
    whole = module
    if getattr(module, 'low_rank', 0) and (stored.network or {}).get('low_rank', 0) != module.low_rank:
        whole = module.clone(low_rank=0.0)  # factorized layers have no names there
    shapes = shapes_of(module, image)
    reading = _Reading(whole, tensors)
    for entry in entries(whole, source, shapes if whole is module else shapes_of(whole, image)):
        reading.read(entry)
    if is_own(source):  # what norm layers keep that the network does not have, and other heads
        aside = {theirs for theirs in tensors if not theirs.startswith('params/') or theirs.split('/')[1] in reading.heads}
        foreign = {}
    else:
        aside = {theirs for theirs in tensors if NO_PLACE.search(theirs) or re.match(source.heads, theirs)} - {*source.tied}
        aside |= _statistics(whole, source, reading.leaves)
        foreign = {theirs: np.asarray(tensors[theirs]) for theirs in sorted(aside - reading.used) if theirs in tensors}
    reading.complain(name, aside)
    if reading.drawn:
        told = '; '.join(f"'{layer}', because {why}" for layer, why in sorted(reading.drawn.items()))
        warnings.warn(f'Drawn anew: {told}.', stacklevel=3)
    if texts := {key: text for key, text in stored.texts.items() if (key, text) not in files.FORMAT.items()}:
        foreign[_TEXTS] = np.frombuffer(json.dumps(texts, sort_keys=True).encode(), np.uint8)
    leaves = _factored(reading.leaves, shapes)
    kinds = {path[0] for path in leaves}
    return Weights(leaves, [path for path in shapes if path not in leaves and path[0] in kinds], image, foreign)


class _Reading:
    """Takes the leaves of a network out of tensors, one by one, and keeps count of what does not fit."""

    def __init__(self, module: nn.Module, tensors: Mapping[str, np.ndarray]):
        self.module, self.tensors = module, tensors
        self.heads = getattr(module, 'HEADS', ('head',))
        self.leaves: dict[Path, np.ndarray] = {}
        self.drawn: dict[str, str] = {}
        self.missing: dict[str, tuple[int, ...]] = {}
        self.misfits: list[str] = []
        self.used: set[str] = set()

    def read(self, entry: Entry) -> None:
        """One leaf: kept, to be drawn, or a misfit."""
        given = {theirs: self.tensors[theirs] for theirs in entry.theirs if theirs in self.tensors}
        self.used |= given.keys()
        head, expected = not {*entry.path[-2:]}.isdisjoint(self.heads), entry.expected
        layer = '/'.join(entry.path[1:-1]) or entry.path[-1]
        if len(given) < len(entry.theirs):
            if head:
                self.drawn[layer] = 'the file has none'
            elif entry.path[0] in ('params', 'batch_stats'):  # the reference of virtual batches comes with the first pass
                self.missing |= {n: e for n, e in zip(entry.theirs, expected, strict=True) if n not in given}
            return
        if no_numbers := [told for theirs, tensor in given.items() if (told := _no_numbers(theirs, tensor))]:
            self.misfits.extend(no_numbers)
            return
        parts = [
            _of_one_channel(np.asarray(tensor, np.float32), shape, entry.channels)
            for tensor, shape in zip(given.values(), expected, strict=True)
        ]
        wrong = [(n, a.shape, e) for n, a, e in zip(given, parts, expected, strict=True) if a.shape != e]
        if not wrong:
            self.leaves[entry.path] = entry.inward(parts)
        elif head and all(_but(entry.classes, found) == _but(entry.classes, shape) for _, found, shape in wrong):
            _, found, shape = wrong[0]
            self.drawn[layer] = f"the file's has {found[entry.classes]} classes, the network {shape[entry.classes]}"
        elif (leaf := _resized(self.module, entry, parts)) is not None:
            self.leaves[entry.path] = leaf
        else:
            self.misfits.extend(f"'{theirs}' is {list(found)}, expected {list(shape)}" for theirs, found, shape in wrong)

    def complain(self, name: str, aside: set[str]) -> None:
        """Raises ConfigError unless all fits but what is `aside`."""
        left, missing, tensors = sorted(set(self.tensors) - self.used - aside), self.missing, self.tensors
        if not (missing or self.misfits or left):
            return
        lines = [(f"'{n}' {list(e)} is not in the file.", n, left) for n, e in sorted(missing.items())]
        lines += [(f'{misfit}.', '', ()) for misfit in self.misfits]
        lines += [(f"'{n}' {list(tensors[n].shape)} has no place.", n, missing) for n in left]
        shown = cut(lines, lambda line: line[0] + (nearest(*line[1:]) if line[2] else ''))
        raise ConfigError(f"The weights do not fit '{name}'.{looks_like(tensors, name)}\n  " + '\n  '.join(shown))


def _no_numbers(name: str, tensor: np.ndarray) -> str:
    """Why a tensor cannot be a weight, '' if it can."""
    if not jnp.issubdtype(tensor.dtype, jnp.floating):
        return f"'{name}' is {tensor.dtype}, expected floating-point numbers: quantized weights are not read"
    bad = tensor.size - np.count_nonzero(np.isfinite(np.asarray(tensor, np.float32)))
    return f"'{name}' has {bad} of {tensor.size} values that are NaN or infinite" if bad else ''


def _but(axis: int, shape: tuple[int, ...]) -> list[int]:
    """A shape without one axis."""
    rest = list(shape)
    del rest[axis]
    return rest


def _statistics(module: nn.Module, source: Source, leaves: Mapping[Path, np.ndarray]) -> set[str]:
    """Their running statistics whose norm layers, by choice of the config, keep none here."""
    layers = [layer for row in source.layers(module) if isinstance((layer := Layer(*row)).theirs, str)]
    plain = [layer.theirs for layer in layers if ('params', *layer.ours.split('/'), 'scale') in leaves]
    return {f'{name}.{leaf}' for name in plain for leaf in ('running_mean', 'running_var')}


def _resized(module: nn.Module, entry: Entry, given: list[np.ndarray]) -> np.ndarray | None:
    """A parameter that depends on the image size, resampled, if its family can."""
    if has_twin(entry.path) or len(given) > 1 or given[0].ndim != len(entry.shape) or not hasattr(module, 'resized'):
        return None
    return module.resized(entry.path, given[0], entry.shape)


def _of_one_channel(tensor: np.ndarray, expected: tuple[int, ...], axis: int) -> np.ndarray:
    """A kernel over RGB summed to one over gray images, which have the same value in every colour."""
    if tensor.ndim == len(expected) == 4 and (tensor.shape[axis], expected[axis]) == (3, 1):
        return tensor.sum(axis, keepdims=True)
    return tensor


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


def out_of(module: nn.Module, variables: Mapping[str, Any], source: str) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """(variables as another library's tensors by name, texts for their file); raises as `entries` does."""
    family, foreign = source_of(module, source), dict(variables.get('foreign', {}))
    leaves = flatten_dict({kind: tree for kind, tree in variables.items() if kind != 'foreign'})
    texts = json.loads(bytes(np.asarray(foreign.pop(_TEXTS)))) if _TEXTS in foreign else {}
    if is_own(family):
        tensors, texts = {}, {**texts, files.NETWORK: json.dumps(arguments(module))}
    else:
        tensors, texts = foreign, {**files.FORMAT, **texts}
    for entry in entries(module, family, {path: np.shape(leaf) for path, leaf in leaves.items()}):
        tensors |= zip(entry.theirs, entry.outward(np.asarray(leaves[entry.path])), strict=True)
    return tensors, texts


def arguments(module: nn.Module) -> dict[str, Any]:
    """What a network's constructor was given beside its class's defaults."""
    fields = {field.name: getattr(module, field.name) for field in dataclasses.fields(module) if field.name not in _GIVEN}
    defaults = {field.name: field.default for field in dataclasses.fields(module)}
    return configs.plain('', {name: value for name, value in fields.items() if value != defaults[name]})
