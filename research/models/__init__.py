"""Networks by name. Images `[B, H, W, C]` in, float32 logits `[B, num_classes]` out; C is read from the images."""

import inspect
from typing import Any

import flax.linen as nn

from research import catalogue

MODELS = {
    'cnn': 'research.models.cnn:CNN',
    'resnet18': 'research.models.resnet:resnet18',
    'resnet20': 'research.models.resnet:resnet20',
    'vit': 'research.models.vit:ViT',
    'vit_base_patch16_224': 'research.models.vit:vit_base_patch16_224',
    'vit_small_patch16_224': 'research.models.vit:vit_small_patch16_224',
    'vit_tiny_patch16_224': 'research.models.vit:vit_tiny_patch16_224',
}

# Two players in one network, for the task of generation: latents `[B, Z]` in, images in [-1, 1] out.
GENERATORS = {'dcgan': 'research.models.dcgan:DCGAN'}


def names() -> list[str]:
    """Every model name, sorted."""
    return sorted(MODELS)


def rematerializes(name: str) -> bool:
    """Whether a network has blocks whose activations can be computed again (research.layers.remat)."""
    return 'remat' in inspect.signature(catalogue.resolve('model', name, MODELS | GENERATORS)).parameters


def create(
    name: str, num_classes: int = 1000, *, axis_name: str | None = None, remat: str = 'none', **kwargs: Any
) -> nn.Module:
    """A network; nothing is computed. Use as `module.init(key, x)` and `module.apply(variables, x, train=False)`.

    Args:
      name: one of `names()`, or an import path of your own (`my_paper.nets:TinyResNet`) to whatever returns a linen module.
      num_classes: length of the logits.
      axis_name: the `pmap` axis over which batches are split; kept from a constructor that does not take it.
      remat: what is computed again for the gradient (research.layers.remat); 'none' is kept from a constructor likewise.
      **kwargs: to the constructor, e.g. `norm='batch'` or `norm={'name': 'ghost_batch', 'virtual_batch_size': 16}`.

    Raises:
      ConfigError: an unknown name or argument, with the nearest valid one.
    """
    constructor = catalogue.resolve('model', name, MODELS)
    accepted = inspect.signature(constructor).parameters
    given = {'num_classes': num_classes}
    if axis_name is not None and 'axis_name' in accepted:
        given['axis_name'] = axis_name
    if remat != 'none':
        if not rematerializes(name):
            raise catalogue.ConfigError(f"Model '{name}' has no blocks to rematerialize: set train.remat to 'none'.")
        given['remat'] = remat
    catalogue.check('model', name, constructor, given | kwargs)
    return constructor(**given, **kwargs)
