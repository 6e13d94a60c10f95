"""Stage 1: `(keys [B], batch) -> batch`, on the device, only in training.

An augmentation of images only is a function `(keys, images) -> images`, applied to the field 'image' [B, H, W, C]; one
that changes other fields too takes the `batch`: {field: [B, ...]}, with 'valid' and 'position'. Keys are typed, one per
example.
"""

import functools
from collections.abc import Callable, Collection, Mapping
from typing import Any

from research import catalogue

AUGMENTATIONS = {
    'none': 'research.augment:none',
    'span_deletion': 'research.augment.tokens:span_deletion',
    'token_dropout': 'research.augment.tokens:token_dropout',
    'token_mask': 'research.augment.tokens:token_mask',
    'token_swap': 'research.augment.tokens:token_swap',
}
OWN = ('resize',)
# What a config may not set: what each step hands over, and facts of the data (research.data.Dataset.facts) if asked for.
GIVEN = ('keys', 'images', 'batch', 'facts')


def none(keys, batch):
    """The batch as it is."""
    del keys
    return batch


def create(config: Mapping[str, Any], facts: Mapping[str, Any], reads: Collection[str] | None = None) -> Callable[..., Any]:
    """The augmentation (keys [B], batch) -> batch named by `config.augment`, its keyword arguments bound.

    Args:
      config: the group.
      facts: of the data, for an augmentation that has an argument of this name.
      reads: fields that it may add, since the task reads them; None: any.

    Raises:
      ConfigError: arguments that do not fit; while a step is traced, a result that is no such batch.
    """
    group = {k: v for k, v in config.items() if k not in OWN}
    function = catalogue.bind('augmentation', group, AUGMENTATIONS, GIVEN)
    named = catalogue.parameters(function)[0]
    if 'facts' in named:
        function = functools.partial(function, facts=facts)
    if 'images' in named:

        def augment(keys, batch):
            augmented = {**batch, 'image': function(keys, batch['image'])}
            return _checked(config['name'], batch, augmented, reads, 'images of the same shape and dtype')

    else:

        def augment(keys, batch):
            expected = "the batch with the same fields, shapes and dtypes, such as {**batch, 'label': labels}"
            return _checked(config['name'], batch, function(keys, batch), reads, expected)

    return augment


def _checked(
    name: str, batch: Mapping[str, Any], augmented: Any, reads: Collection[str] | None, expected: str
) -> Mapping[str, Any]:
    """The augmented batch, which has every field of the batch with its shape and dtype, and maybe others that are read."""

    def told(array: Any) -> str:
        return f'{array.dtype} {array.shape}' if hasattr(array, 'dtype') else f'a {type(array).__name__}'

    if not isinstance(augmented, Mapping):
        problem = f'returned {told(augmented)}'
    elif missing := sorted(set(batch) - set(augmented)):
        problem = f"returned a batch without '{missing[0]}'"
    elif changed := [field for field, array in batch.items() if told(augmented[field]) != told(array)]:
        problem = f"made '{changed[0]}' {told(augmented[changed[0]])}, which was {told(batch[changed[0]])}"
    elif reads is not None and (unread := sorted(set(augmented) - set(batch) - set(reads))):
        problem = f"added '{unread[0]}', which the task does not read (it may read {', '.join(sorted(reads)) or 'no other'})"
    else:
        return augmented
    raise catalogue.ConfigError(f"augmentation '{name}' {problem}. Expected {expected}.")
