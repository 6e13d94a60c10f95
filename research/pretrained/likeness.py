"""Which network of the catalogue some weights look like, for messages: by names first, then by the shapes of a few."""

import time
from collections.abc import Mapping

import flax.linen as nn
import numpy as np

from research import models
from research.models.network import Network
from research.pretrained.entries import NO_PLACE, canonical, entries, layers_of, shapes_of, sources_of

# Seconds after which no further network is traced, which takes one or two.
_PATIENCE = 5.0
_IMAGE = (1, 224, 224, 3)


def looks_like(tensors: Mapping[str, np.ndarray], instead_of: str = '') -> str:
    """' They look like ...': networks that have a place for all the tensors; '' if there is none, or `instead_of` is one."""
    if ':' in instead_of:
        return ''  # somebody's own network, and so are its weights
    by_surplus: list[tuple[int, str, str]] = []
    for name in models.names():
        module = models.create(name)
        for library, source in sources_of(module).items():
            layers = layers_of(module, source)
            spelt = {theirs for theirs in canonical(source, tensors).values() if not NO_PLACE.search(theirs)}
            found = (spelt | {theirs.rpartition('.')[0] for theirs in spelt}) & layers
            if found and all(theirs in layers or theirs.rpartition('.')[0] in layers for theirs in spelt):
                by_surplus.append((len(layers - found), name, library))
    began = time.monotonic()
    for surplus, name, library in sorted(by_surplus):
        if time.monotonic() - began > _PATIENCE:
            break
        if _fits(name, library, tensors):
            alike = [n for s, n, lib in sorted(by_surplus) if (s, lib) == (surplus, library) and _plain(n) == _plain(name)]
            return '' if instead_of in alike else f' They look like {" or ".join(map(repr, alike))}.'
    return ''


def _plain(name: str) -> nn.Module:
    """The network, whatever it computes from its parameters."""
    module = models.create(name)
    return module.clone(norm='batch', padding='half') if isinstance(module, Network) else module


def _fits(name: str, library: str, tensors: Mapping[str, np.ndarray]) -> bool:
    """Whether every tensor that the network has a name for has its shape too; heads aside."""
    module = models.create(name)
    source = module.SOURCES[library]
    shapes = {spelt: np.shape(tensors[theirs]) for theirs, spelt in canonical(source, tensors).items()}
    return all(
        shapes.get(theirs, shape) == shape
        for entry in entries(module, source, shapes_of(module, _IMAGE))
        for theirs, shape in zip(entry.theirs, entry.expected, strict=True)
        if entry.path[-2] not in module.HEADS
    )
