"""Pretrained weights: reads and writes `.safetensors` of timm, torchvision and Hugging Face without torch."""

import os
import pathlib
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
from flax.traverse_util import unflatten_dict

from research import models
from research.catalogue import ConfigError, nearest
from research.models.network import Preprocessing
from research.pretrained import files, mapping


def load(
    name: str, path: str | os.PathLike, *, num_classes: int = 0, channels: int = 0, size: int = 0, **kwargs: Any
) -> tuple[nn.Module, dict[str, Any]]:
    """A network with weights of timm, torchvision or Hugging Face; the source is recognized by the parameters' names.

    Args:
      name: in `research.models.names()`.
      path: a `.safetensors` file, or a folder with a `model.safetensors`.
      num_classes: of the network; 0 = as in the file. If the file has another number the head is newly drawn, with a
        warning.
      channels: of the images; 0 = as in the file. For one channel instead of three, kernels are summed over the three.
      size: side of the images in pixels; 0 = the source's own. Parameters that depend on it (a ViT's positions) are
        resampled from the file's by the family's `resized`.
      **kwargs: to `research.models.create`; they override what the source needs.

    Returns:
      (module, variables), variables as from `module.init`, float32. The collection 'foreign' holds tensors without a place in
      the network, such as counters of batches; `save` writes them back.

    Raises:
      ConfigError: no such model or file; tensors that are missing, left over, or of another shape, each by its name.
    """
    tensors = files.read(pathlib.Path(path))
    module, source = mapping.network(name, tensors, num_classes, kwargs)
    weights = mapping.into(module, source, tensors, mapping.image(module, name, source, tensors, channels, size))
    return module, weights.completed(module)


def arguments(name: str, path: str) -> dict[str, Any]:
    """Arguments that a model's constructor needs so that a file's weights compute what they did at the source; {} for path ''.

    Raises:
      ConfigError: no such file, or not this model's.
    """
    if not path:
        return {}
    tensors = files.names(pathlib.Path(path))
    return dict(mapping.recognized(name, tensors).arguments(name, tensors))


def weights(module: nn.Module, name: str, path: str, image: tuple[int, ...]) -> dict[str, Any]:
    """A file's weights for a network, float32 `{'params': ..., 'batch_stats': ...}`, without a head that has to be drawn.

    Args:
      module: the network, made with the `arguments` that the file needs.
      name, path: as in `load`.
      image: shape of the images [B, H, W, C]; for one channel, kernels are summed over three.

    Raises:
      ConfigError: what does not fit, by its name.
    """
    tensors = files.read(pathlib.Path(path))
    return unflatten_dict(mapping.into(module, mapping.recognized(name, tensors), tensors, image).leaves)


def digest(path: str) -> str:
    """12 hexadecimal digits over the content of a file or folder of weights; '' for path ''."""
    return files.digest(pathlib.Path(path)) if path else ''


def save(module: nn.Module, variables: Mapping[str, Any], path: str | os.PathLike, source: str = 'timm') -> None:
    """Writes variables under another library's names and shapes. Float32 tensors that `load` has read are written back
    unchanged, half precision as float32.

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
    origin = mapping.source_of(models.create(name), source)
    if name not in origin.names:
        raise ConfigError(f"'{source}' has no '{name}'.{nearest(name, origin.names)}")
    return origin.preprocessing(name)
