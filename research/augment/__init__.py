"""Stage 1: `(keys [B], images [B, H, W, C]) -> images`, on the device; same shape and dtype."""

from collections.abc import Callable, Mapping
from typing import Any

from research import catalogue

AUGMENTATIONS = {
    'none': 'research.augment:none',
}
OWN = ('resize',)


def none(keys, images):
    """The images as they are."""
    del keys
    return images


def create(config: Mapping[str, Any]) -> Callable[..., Any]:
    """The augmentation named by `config.augment`, its keyword arguments bound."""
    return catalogue.bind('augmentation', {k: v for k, v in config.items() if k not in OWN}, AUGMENTATIONS, ('keys', 'images'))
