"""Stage 1: `(keys [B], batch) -> batch`, on the device, only in training.

An augmentation of images only is a function `(keys, images) -> images`, applied to the field 'image' [B, H, W, C]; one
that changes other fields too takes the `batch`: {field: [B, ...]}, with 'valid' and 'position'. Keys are typed, one per
example. Each is also `research.augment.NAME`, to be called alone.

Config: {'augment.names': ('pad_crop', 'flip_horizontal'), 'augment.pad_crop.padding': 4}. They are applied in this order, and
each has draws of its own, which stay the same whatever else is in the list.
"""

import functools
import zlib
from collections.abc import Callable, Collection, Mapping
from typing import Any

import jax

from research import catalogue
from research.config.files import Misfit
from research.layers import formulation

IMAGES = {
    'augmix': 'research.augment.policies:augmix',
    'blur': 'research.augment.blurring:blur',
    'brightness': 'research.augment.colors:brightness',
    'color_jitter': 'research.augment.colors:color_jitter',
    'contrast': 'research.augment.colors:contrast',
    'cutmix': 'research.augment.mixing:cutmix',
    'cutout': 'research.augment.erasing:cutout',
    'flip_horizontal': 'research.augment.flips:flip_horizontal',
    'flip_vertical': 'research.augment.flips:flip_vertical',
    'gaussian_noise': 'research.augment.noises:gaussian_noise',
    'hue': 'research.augment.colors:hue',
    'mixup': 'research.augment.mixing:mixup',
    'pad_crop': 'research.augment.crops:pad_crop',
    'randaugment': 'research.augment.policies:randaugment',
    'random_erasing': 'research.augment.erasing:random_erasing',
    'random_resized_crop': 'research.augment.crops:random_resized_crop',
    'rotate': 'research.augment.affine:rotate',
    'salt_and_pepper': 'research.augment.noises:salt_and_pepper',
    'saturation': 'research.augment.colors:saturation',
    'scale': 'research.augment.affine:scale',
    'shear': 'research.augment.affine:shear',
    'translate': 'research.augment.affine:translate',
    'trivialaugment': 'research.augment.policies:trivialaugment',
}
TEXTS = {
    'span_deletion': 'research.augment.tokens:span_deletion',
    'token_dropout': 'research.augment.tokens:token_dropout',
    'token_mask': 'research.augment.tokens:token_mask',
    'token_swap': 'research.augment.tokens:token_swap',
}
AUGMENTATIONS = IMAGES | TEXTS
OWN = ('names', 'resize')
# What a config may not set: what each step hands over, and facts of the data (research.data.Dataset.facts) if asked for.
GIVEN = ('keys', 'images', 'batch', 'facts')


def __getattr__(name: str) -> Callable[..., Any]:
    if name in AUGMENTATIONS:
        return catalogue.resolve('augmentation', name, AUGMENTATIONS)
    raise AttributeError(f"module 'research.augment' has no attribute '{name}'")


def groups(config: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """`config.augment` as {key: {'name': name, **arguments}}, in the order in which they are applied."""
    named = {catalogue.key_of(name): name for name in config['names']}
    return {key: {**config.get(key, {}), 'name': name} for key, name in named.items()}


def shows(fields: Collection[str]) -> bool:
    """Whether data with these fields have images, of which `contact_sheet` draws a picture."""
    return 'image' in fields


def paired(config: Mapping[str, Any]) -> list[str]:
    """Of `config.augment.names` those that mix the examples at positions 2k and 2k + 1."""
    resolved = functools.partial(catalogue.resolve, 'augmentation', entries=AUGMENTATIONS)
    return [name for name in config['names'] if resolved(name) in map(resolved, ('cutmix', 'mixup'))]


def check_pairs(config: Mapping[str, Any], size: int, devices: int) -> None:
    """Raises Misfit where `paired` examples would not share a device: `size` examples of a (micro-)batch on all of them."""
    if (mixed := paired(config)) and (size % 2 or size % devices == 0 and size // devices % 2):
        raise Misfit(
            'augment.names',
            f"augmentation '{mixed[0]}' mixes neighbours on one device, and {devices} of them share {size} examples of a step "
            f'(or of a micro-batch): expected a multiple of {2 * devices}.',
        )


def create(config: Mapping[str, Any], facts: Mapping[str, Any], reads: Collection[str] | None = None) -> Callable[..., Any]:
    """The augmentation (keys [B], batch) -> batch that applies those of `config.augment.names` in their order.

    Args:
      config: the group.
      facts: of the data, for an augmentation that has an argument of this name.
      reads: fields that it may add, since the task reads them; None: any.

    Raises:
      ConfigError: arguments that do not fit; while a step is traced, a result that is no such batch.
    """
    stages = {key: _stage(group, facts, reads) for key, group in groups(config).items()}

    def augment(keys, batch):
        for key, stage in stages.items():
            purpose = zlib.crc32(key.encode())
            batch = stage(jax.vmap(lambda k, purpose=purpose: jax.random.fold_in(k, purpose))(keys), batch)
        return batch

    return augment


def _stage(group: Mapping[str, Any], facts: Mapping[str, Any], reads: Collection[str] | None) -> Callable[..., Any]:
    """One augmentation of batches."""
    function = catalogue.bind('augmentation', group, AUGMENTATIONS, GIVEN)
    named = catalogue.parameters(function)[0]
    if 'facts' in named:
        function = functools.partial(function, facts=facts)
    if 'images' not in named:
        expected = "the batch with the same fields, shapes and dtypes, such as {**batch, 'label': labels}"
        return lambda keys, batch: _checked(group['name'], batch, function(keys, batch), reads, expected)

    def of_images(keys, batch):
        if 'image' not in batch:
            has = ', '.join(sorted(set(batch) - {'valid', 'position'}))
            fit = f'choose one for these ({", ".join(TEXTS)})' if 'tokens' in batch else 'set augment.names to ()'
            raise catalogue.ConfigError(
                f"augmentation '{group['name']}' changes the field 'image', and the data has {has}: {fit}, or write your own."
            )
        augmented = {**batch, 'image': function(keys, batch['image'])}
        if formulation.parts_augmentations():
            augmented['image'] = jax.lax.optimization_barrier(augmented['image'])
        return _checked(group['name'], batch, augmented, reads, 'images of the same shape and dtype')

    return of_images


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
