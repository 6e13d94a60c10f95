"""Everybody's weights: timm's, torchvision's and Hugging Face's `.safetensors` in and out, with no torch installed."""

import os
import pathlib
from collections.abc import Mapping
from typing import Any

import flax.linen as nn

from research import models
from research.catalogue import ConfigError, nearest
from research.models.network import Preprocessing
from research.pretrained import files, mapping


def load(
    name: str, path: str | os.PathLike, *, num_classes: int = 0, channels: int = 0, size: int = 0, **kwargs: Any
) -> tuple[nn.Module, dict[str, Any]]:
    """A network with weights of timm, torchvision or Hugging Face, which of them is seen from the parameters' names.

    Args:
      name: in `research.models.names()`.
      path: a `.safetensors` file, or a folder with a `model.safetensors`.
      num_classes: of the network; 0 = as many as the file has. Where the file has another number the head is drawn anew, and a
        warning says so.
      channels: of the images; 0 = as many as the file has. One channel instead of three gets the sum over these.
      size: side of the images that the network is for; 0 = the source's own. Where parameters depend on it (a ViT's positions)
        they are resampled from the file's, as the family's `resized` says.
      **kwargs: to `research.models.create`; they stand above what the source asks for.

    Returns:
      (module, variables), variables as `module.init` gives them, float32. Beside these the collection 'foreign' holds what has
      no place in a network, such as counters of batches; `save` writes it back.

    Raises:
      ConfigError: no such model or file; tensors that are missing, left over, or of another shape, each by its name.
    """
    tensors = files.read(pathlib.Path(path))
    module, source = mapping.network(name, tensors, num_classes, kwargs)
    weights = mapping.into(module, source, tensors, mapping.image(module, name, source, tensors, channels, size))
    return module, weights.completed(module)


def arguments(name: str, path: str) -> dict[str, Any]:
    """What the constructor of a model takes beside a config so that weights of a file mean what they did; {} for path ''.

    Raises:
      ConfigError: no such file, or not this model's.
    """
    if not path:
        return {}
    tensors = files.names(pathlib.Path(path))
    return dict(mapping.recognized(name, tensors).arguments(name, tensors))


def weights(module: nn.Module, name: str, path: str, image: tuple[int, ...]) -> dict[str, Any]:
    """The weights of a file for a network, `{'params': ..., 'batch_stats': ...}`, without those of a head that has to be drawn.

    Args:
      module: the network, made with the `arguments` that the file asks for.
      name, path: as in `load`.
      image: shape of the images [B, H, W, C]; with one channel kernels over three are summed.

    Raises:
      ConfigError: what does not fit, by its name.
    """
    tensors = files.read(pathlib.Path(path))
    return mapping.nested(mapping.into(module, mapping.recognized(name, tensors), tensors, image).leaves)


def digest(path: str) -> str:
    """12 hexadecimal digits over the content of a file or folder of weights; '' for path ''."""
    return files.digest(pathlib.Path(path)) if path else ''


def save(module: nn.Module, variables: Mapping[str, Any], path: str | os.PathLike, source: str = 'timm') -> None:
    """Writes variables under another library's names and shapes; float32 that `load` has read comes out as it was,
    tensor by tensor, and half precision as float32.

    Args:
      module, variables: a network of this package and its variables.
      path: of the `.safetensors` file.
      source: 'timm', 'torchvision' or 'huggingface'.

    Raises:
      ConfigError: the family has no such source, or a parameter has no name there.
    """
    files.write(pathlib.Path(path), mapping.out_of(module, variables, source))


def preprocessing(name: str, source: str = 'timm') -> Preprocessing:
    """Input size, crop, interpolation, mean and standard deviation of a pretrained source.

    Raises:
      ConfigError: no such model, or the source has no weights for it.
    """
    found = mapping.source_of(models.create(name), source)
    if name not in found.names:
        raise ConfigError(f"'{source}' has no '{name}'.{nearest(name, found.names)}")
    return found.preprocessing(name)
