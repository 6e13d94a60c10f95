"""Whose weights these are: from the tensors' names, and from the `config.json` beside them."""

import warnings
from collections.abc import Mapping
from typing import Any

from research import catalogue, models
from research.catalogue import ConfigError
from research.layers import norm
from research.models.network import Source
from research.pretrained.entries import OWN, canonical, layers_of, source_of, sources_of
from research.pretrained.files import Stored
from research.pretrained.likeness import looks_like

# Arguments of a source's norm layer that hold for whichever one a config puts in its place.
_KEPT = ('epsilon', 'momentum')


def recognized(name: str, stored: Stored) -> Source:
    """The source of weights for the network `name`: the one that knows most of their names. Nothing is traced.

    Raises:
      ConfigError: no source knows any of the names, or the weights are said to be another network's.
    """
    module = models.create(name)
    if stored.network is not None:
        if (trained := stored.network.get('name', name)) != name:
            raise ConfigError(f"'{stored.where}' is a '{trained}', not a '{name}': set model.name to '{trained}'.")
        return source_of(module, OWN)
    sources = sources_of(module)
    if not sources:
        raise ConfigError(f"No pretrained weights are known for '{name}'.{looks_like(stored.read())}")

    def known(library: str) -> int:
        layers = layers_of(module, sources[library])
        spelt = canonical(sources[library], stored.names).values()
        return sum(name in layers or name.rpartition('.')[0] in layers for name in spelt)

    library = max(sources, key=known)
    if not known(library):
        raise ConfigError(
            f"None of the names in the file is one of '{name}' in {', '.join(sources)}: it begins with "
            f'{", ".join(map(repr, sorted(stored.names)[:3]))}. Are these weights of another network?'
            f'{looks_like(stored.read())}'
        )
    _ask_config(name, library, sources[library], stored)
    return sources[library]


def _ask_config(name: str, library: str, source: Source, stored: Stored) -> None:
    """Refuses what the `config.json` beside the weights says is another network's."""
    kind, theirs = stored.config.get('model_type'), stored.config.get('architecture')
    if library == 'huggingface' and kind not in (None, source.model_type or source.backbone):
        raise ConfigError(f"The config.json beside '{stored.where}' says that it is a '{kind}', and '{name}' is none.")
    if theirs is None or name not in source.names or theirs == source.names[name]:
        return
    said = f"The config.json beside '{stored.where}' says that it is a '{theirs}', not a '{name}'."
    if theirs in models.MODELS:
        raise ConfigError(f"{said} Load it by that name: '{theirs}'.")
    warnings.warn(f'{said} Nobody has checked that both compute the same from the same weights.', stacklevel=2)


def arguments(name: str, stored: Stored, source: Source, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of a network's constructor: what the weights need, and over it what was asked for.

    Another norm layer keeps the epsilon and the momentum of the source, unless it is asked for others.
    """
    needed = {key: value for key, value in (stored.network or {}).items() if key != 'name'}
    needed |= {**source.arguments(name, canonical(source, stored.names).values()), **source.configured(name, stored.config)}
    if 'norm' not in needed or 'norm' not in kwargs:
        return {**needed, **kwargs}
    theirs, asked = (dict(catalogue.named('norm layer', layer, norm.NORMS)) for layer in (needed['norm'], kwargs['norm']))
    accepted, _ = catalogue.parameters(catalogue.resolve('norm layer', asked['name'], norm.NORMS))
    return {**needed, **kwargs, 'norm': {key: theirs[key] for key in _KEPT if key in theirs and key in accepted} | asked}
