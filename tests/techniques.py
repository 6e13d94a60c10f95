"""Every technique, a row each: what it is set to, beside what, and when it must change nothing.

tests/train/test_techniques.py demands of every row that it trains, resumes bit for bit, changes something, and equals what
theory says. What is off, and what no setting within a few steps can make neutral, tests/train/test_plain.py compares with steps
written by hand. A new technique needs a row here and no new test.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_digits

from research.data import sources
from research.layers import norm as norms
from research.layers.conv import Conv

# A plain run that compiles fast: what every row is laid over.
BASELINE = {
    'data.batch_size': 32,
    'data.eval_batch_size': 100,
    'model.widths': (4,),
    'model.hidden': (),
    'optimizer.learning_rate': 0.0625,
    'train.devices': 1,
    'train.eval_every': '20st',
    'study.budget': '60st',
}


# One batch is the whole training split, and the reference batch is the same examples.
_ONE_BATCH = {'data.examples': 32, 'data.reference_size': 32}

# What compiles fastest.
_SMALL = {'model.name': 'techniques:Small'}
_LONG_TAIL = {'data.imbalance.name': 'long_tail', 'data.imbalance.ratio': 20.0}
# A residual block wide enough to learn in three intervals.
_RESNET = {
    'model.name': 'research.models.resnet:ResNet',
    'model.depths': (1,),
    'model.widths': (8,),
    'model.stem': 'cifar',
    'optimizer.learning_rate': 0.25,
}
# Texts, and what compiles fastest of them.
_TEXT = {
    'task.name': 'text_classification',
    'data.name': 'techniques:sentences',
    'data.length': 10,
    'model.name': 'techniques:Bag',
    'optimizer.learning_rate': 0.25,
}
# Images with three channels.
_COLOURS = {**_SMALL, 'data.name': 'techniques:colours'}
# Of an augmentation of images, a strength that shows on images of 8 x 8, and one that does nothing.
_AUGMENTATIONS = {
    'mixup': ({'alpha': 0.5}, {'alpha': 0.0}),
    'cutmix': ({}, {'alpha': 0.0}),
    'rotate': ({}, {'degrees': 0.0}),
    'translate': ({}, {'share': 0.0}),
    'scale': ({}, {'share': 0.0}),
    'shear': ({}, {'degrees': 0.0}),
    'flip_horizontal': ({}, {'share': 0.0}),
    'flip_vertical': ({}, {'share': 0.0}),
    'pad_crop': ({'padding': 1}, {'padding': 0}),
    'random_resized_crop': ({'area': (0.5, 1.0)}, {'area': (1.0, 1.0), 'ratio': (1.0, 1.0)}),
    'brightness': ({}, {'share': 0.0}),
    'contrast': ({}, {'share': 0.0}),
    'saturation': ({}, {'share': 0.0}),
    'hue': ({}, {'share': 0.0}),
    'color_jitter': ({}, {'brightness': 0.0, 'contrast': 0.0, 'saturation': 0.0, 'hue': 0.0}),
    'gaussian_noise': ({}, {'std': 0.0}),
    'salt_and_pepper': ({}, {'share': 0.0}),
    'blur': ({}, {'sigma': 0.0}),
    'cutout': ({'size': 3}, {'size': 0}),
    'random_erasing': ({}, {'share': 0.0}),
    'randaugment': ({'magnitude': 5}, {'operations': 0}),
    'trivialaugment': ({}, {'strength': 0.0}),
    'augmix': ({}, {'width': 0}),
}
# Takes images of any size.
_POOLED = {'model.name': 'techniques:Pooled', 'optimizer.learning_rate': 1.0}


class Technique(NamedTuple):
    """One row; all of it dotted overrides.

    Attributes:
      name: for test ids.
      on: the technique.
      neutral: over `on`; then 3 steps in float64 are within 1e-10 of ...
      equals: ... these overrides without it. `neutral` is None where nothing is claimed.
      beside: what it is laid over, on top of the baseline: a network, a rate that suits it.
    """

    name: str
    on: Mapping[str, Any]
    neutral: Mapping[str, Any] | None
    equals: Mapping[str, Any] = {}
    beside: Mapping[str, Any] = _SMALL

    @property
    def setting(self) -> dict[str, Any]:
        """The technique beside what it is laid over."""
        return {**self.beside, **self.on}


TECHNIQUES = (
    Technique(
        'clip',
        on={'optimizer.clip.name': 'global_norm', 'optimizer.clip.max_norm': 0.5},
        neutral={'optimizer.clip.max_norm': float('inf')},
    ),
    Technique(
        'weight_decay',
        on={'optimizer.weight_decay': 0.01},
        neutral=None,
    ),
    Technique(
        'sgd',
        on={'optimizer.name': 'sgd'},
        neutral={},
        equals={'optimizer.momentum': 0.0},
    ),
    Technique(
        'adam',
        on={'optimizer.name': 'adam'},
        # Beside a huge eps the root of the second moment is nothing, and rate / eps is sgd's rate.
        neutral={'optimizer.b1': 0.0, 'optimizer.eps': 2.0**40, 'optimizer.learning_rate': 2.0**36},
        equals={'optimizer.name': 'sgd', 'optimizer.learning_rate': 2.0**-4},
        beside={**_SMALL, 'optimizer.learning_rate': 2.0**-6},
    ),
    Technique(
        'cosine_with_warmup',
        on={'schedule.name': 'cosine', 'schedule.warmup': '0.1run'},
        neutral={'schedule.alpha': 1.0, 'schedule.warmup': '0st'},
    ),
    Technique(
        'exponential',
        on={'schedule.name': 'exponential', 'schedule.decay_rate': 0.3},
        neutral={'schedule.decay_rate': 1.0},
    ),
    Technique(
        'virtual_batch_norm',
        on={'model.norm.name': 'virtual_batch'},
        neutral={'model.norm.example_weight': 0.0, **_ONE_BATCH},
        equals=_ONE_BATCH,
        beside={},
    ),
    Technique(
        'ghost_batch_norm',
        on={'model.norm.name': 'ghost_batch', 'model.norm.virtual_batch_size': 12},  # the last group is smaller
        neutral={'model.norm.virtual_batch_size': 32},
        beside={},
    ),
    Technique(
        'sigmoid_loss',
        on={'task.loss': 'sigmoid'},
        neutral={},
        equals={'task.loss': 'techniques:yes_or_no'},
    ),
    Technique(
        'streaming',
        on={'data.streaming': True},
        neutral={},
    ),
    Technique(
        'nesterov',
        on={'optimizer.name': 'nesterov'},
        neutral={'optimizer.momentum': 0.0},
        equals={'optimizer.name': 'sgd'},
    ),
    Technique(
        'full_batch',
        on={'data.batch_size': 0},
        neutral={'data.examples': 32},
        equals={'data.examples': 32},
        beside={**_SMALL, 'optimizer.learning_rate': 0.5},
    ),
    Technique(
        'clip_by_value',
        on={'optimizer.clip.name': 'value', 'optimizer.clip.max_value': 0.02},
        neutral={'optimizer.clip.max_value': float('inf')},
    ),
    Technique(
        'clip_by_parameter',
        on={'optimizer.clip.name': 'parameter_norm', 'optimizer.clip.max_norm': 0.2},
        neutral={'optimizer.clip.max_norm': float('inf')},
    ),
    Technique(
        'adaptive_clip',
        on={'optimizer.clip.name': 'adaptive', 'optimizer.clip.clipping': 0.05},
        neutral={'optimizer.clip.clipping': float('inf')},
    ),
    Technique(
        'adaptive_clip_but_the_head',
        on={'optimizer.clip': {'name': 'adaptive', 'clipping': 0.05, 'exclude': ('head/*',)}},
        neutral={'optimizer.clip.clipping': float('inf')},
    ),
    Technique(
        'adamw',
        on={'optimizer.name': 'adamw', 'optimizer.weight_decay': 0.1},
        neutral={'optimizer.weight_decay': 0.0},
        equals={'optimizer.name': 'adam'},
        beside={**_SMALL, 'optimizer.learning_rate': 2.0**-6},
    ),
    Technique(
        'rate_multipliers',
        on={'optimizer.rate_multipliers': (('head/*', 0.5),)},
        neutral={'optimizer.rate_multipliers': (('*', 0.5),), 'optimizer.learning_rate': 0.125},
    ),
    Technique(
        'layer_decay',
        on={'optimizer.layer_decay': 0.5},
        neutral={},
        equals={'optimizer.rate_multipliers': (('hidden/*', 0.5),)},
    ),
    Technique(
        'decay_multipliers',
        on={'optimizer.decay_multipliers': (('head/*', 2.0),)},
        neutral={'optimizer.decay_multipliers': (('*/kernel', 1.0),)},
        beside={**_SMALL, 'optimizer.weight_decay': 0.05},
    ),
    Technique(
        'ema',
        on={'optimizer.average.name': 'ema', 'optimizer.average.decay': 0.9},
        neutral=None,
    ),
    Technique(
        'swa',
        on={'optimizer.average.name': 'swa', 'optimizer.average.start': '0.5run', 'optimizer.average.every': '5st'},
        neutral=None,
    ),
    Technique(
        'accumulation',
        on={'gradient.micro_batch': 8},
        neutral={},
    ),
    Technique(
        'noise_scale',
        on={'gradient.noise_scale': True},
        neutral={},
        beside={**_SMALL, 'gradient.micro_batch': 8},
    ),
    Technique(
        'sam',
        on={'gradient.name': 'sam', 'gradient.rho': 0.05},
        neutral={'gradient.rho': 0.0},
    ),
    Technique(
        'selective_backprop',
        on={'gradient.name': 'selective_backprop', 'gradient.keep': 0.5},
        neutral={'gradient.keep': 1.0},
    ),
    Technique(
        'dp_sgd',
        on={
            'gradient.name': 'dp_sgd',
            'gradient.clip_norm': 1.0,
            'gradient.noise_multiplier': 0.2,
            'data.sampling.name': 'without_replacement',
        },
        # Dropout draws by example, so that it is the same in a batch of one.
        neutral={'gradient.clip_norm': float('inf'), 'gradient.noise_multiplier': 0.0},
        equals={'data.sampling.name': 'without_replacement'},
        beside={'model.norm.name': 'layer', 'model.dropout': 0.2, 'optimizer.learning_rate': 0.25},
    ),
    Technique(
        'without_replacement',
        on={'data.sampling.name': 'without_replacement'},
        neutral={'data.examples': 32},
        equals={'data.examples': 32},
        beside={**_SMALL, 'data.batch_size': 32},
    ),
    Technique(
        'freezing',
        on={
            'gradient.freeze.name': 'progressive',
            'gradient.freeze.start': '0ep',
            'gradient.freeze.levels': 1,
        },
        neutral=None,
        beside={**_SMALL, 'optimizer.learning_rate': 0.25},
    ),
    Technique(
        'progressive_resizing',
        on={'augment.resize.name': 'progressive', 'augment.resize.multiple': 2},
        neutral={'augment.resize.start': 1.0},
        beside=_POOLED,
    ),
    Technique(
        'label_smoothing',
        on={'task.label_smoothing': 0.1},
        neutral={},
        equals={'task.loss': 'techniques:smoothed'},
    ),
    Technique(
        'class_weights',
        on={'task.class_weights': 'effective_number'},
        neutral={'task.beta': 0.0},
        beside={**_SMALL, **_LONG_TAIL},
    ),
    Technique(
        'deferred_weights',
        on={'task.class_weights': 'inverse_frequency', 'task.reweight_from': '1st'},
        neutral={'task.reweight_from': '1run'},
        beside={**_SMALL, **_LONG_TAIL},
    ),
    Technique(
        'focal_loss',
        on={'task.focal': 2.0},
        neutral={'task.focal': 1e-30},
    ),
    Technique(
        'logit_adjustment',
        on={'task.logit_adjustment': 1.0},
        neutral={'task.logit_adjustment': 1e-30},
        beside={**_SMALL, **_LONG_TAIL},
    ),
    Technique(
        'group_dro',
        on={'task.group_dro': 0.1, 'data.name': 'techniques:grouped', 'data.group': 'fifth'},
        neutral={'data.group': 'everyone'},  # who are one group
        equals={'data.name': 'techniques:grouped', 'data.group': 'everyone'},
    ),
    Technique(
        'dropout',
        on={'model.dropout': 0.2},
        neutral={'model.dropout': 1e-30},
        beside={},
    ),
    Technique(
        'stochastic_depth',
        on={'model.stochastic_depth': 0.5},
        neutral={'model.stochastic_depth': 1e-30},
        beside=_RESNET,
    ),
    Technique(
        'blur_pool',
        on={'model.blur_pool': True},
        neutral={**_RESNET, 'model.blur_pool': True},  # which leaves no pixel out
        equals=_RESNET,
        beside={},
    ),
    Technique(
        'weight_standardization',
        on={'model.conv.name': 'standardized'},
        neutral={},
        equals={'model.conv.name': 'techniques:Standardized'},
        beside={},
    ),
    Technique(
        'low_rank',
        on={'model.low_rank': 0.25},
        neutral={'model.hidden': (16,)},  # too small to be factored
        equals={'model.hidden': (16,)},
        beside={'model.hidden': (1024,)},
    ),
    Technique(
        'lora',
        on={'compress.name': 'lora', 'compress.rank': 4, 'compress.alpha': 4.0, 'compress.targets': ('hidden/kernel',)},
        neutral={'compress.alpha': 0.0},
        equals={'optimizer.rate_multipliers': (('hidden/*', 0.0),)},
    ),
    Technique(
        'squeeze_excite',
        on={'model.squeeze_excite': 0.25},
        neutral=None,
        beside=_RESNET,
    ),
    Technique(
        'remat_products',
        on={'train.remat': 'products'},
        neutral={},
        beside={},
    ),
    Technique(
        'remat_block',
        on={'train.remat': 'block'},
        neutral={},
        beside={'model.dropout': 0.2},
    ),
    Technique(
        'growing_batch',
        on={'data.batch.name': 'grow', 'data.batch.milestones': ('2st', '0.9run')},
        neutral=None,
    ),
    Technique(
        'shrinking_batch',
        on={'data.batch.name': 'shrink', 'data.batch.patience': 1},
        neutral=None,
        beside={**_SMALL, 'data.batch_size': 64},
    ),
    Technique(
        'bfloat16',
        on={'train.precision': 'bfloat16'},
        neutral=None,
    ),
    Technique(
        'float16',
        on={'train.precision': 'float16'},
        neutral=None,
        beside={**_SMALL, 'study.budget': '90st', 'train.eval_every': '30st'},  # the first steps find the scale
    ),
    Technique(
        'plateau',
        on={'schedule.name': 'plateau', 'schedule.patience': 1},
        neutral=None,
        beside={**_SMALL, 'optimizer.learning_rate': 0.03},
    ),
    Technique(
        'one_cycle',
        on={'schedule.name': 'one_cycle'},
        neutral={'schedule.start': 1.0, 'schedule.end': 1.0},
    ),
    Technique(
        'warm_restarts',
        on={'schedule.name': 'cosine_restarts', 'schedule.cycle': '0.25run', 'schedule.peak_decay': 0.8},
        neutral={'schedule.alpha': 1.0, 'schedule.peak_decay': 1.0},
    ),
    Technique(
        'step_schedule',
        on={'schedule.name': 'step', 'schedule.milestones': ('1st', '0.5run')},
        neutral={'schedule.factor': 1.0},
        beside={**_SMALL, 'optimizer.learning_rate': 0.25},
    ),
    Technique(
        'linear',
        on={'schedule.name': 'linear'},
        neutral={'schedule.end': 1.0},
    ),
    Technique(
        'polynomial',
        on={'schedule.name': 'polynomial'},
        neutral={'schedule.power': 0.0},
    ),
    Technique(
        'inverse_sqrt',
        on={'schedule.name': 'inverse_sqrt', 'schedule.timescale': '16ex'},
        neutral={'schedule.timescale': '1run'},
    ),
    Technique(
        'imbalance',
        on={'data.imbalance.name': 'long_tail', 'data.imbalance.ratio': 20.0},
        neutral={'data.imbalance.ratio': 1.0},
    ),
    Technique(
        'external',
        on={'data.external': ({'name': 'techniques:inverted', 'weight': 0.5},)},
        neutral=None,
    ),
    Technique(
        'balanced_sampling',
        on={'data.sampling.name': 'class_balanced'},
        neutral=None,
    ),
    *(
        Technique(
            name,
            on={'augment.names': (name,), **{f'augment.{name}.{field}': value for field, value in strong.items()}},
            neutral={f'augment.{name}.{field}': value for field, value in off.items()},
            beside=_COLOURS,
        )
        for name, (strong, off) in _AUGMENTATIONS.items()
    ),
    Technique(
        'several_augmentations',
        on={'augment.names': ('pad_crop', 'cutout', 'gaussian_noise'), 'augment.gaussian_noise.std': 0.1},
        neutral={'augment.pad_crop.padding': 0, 'augment.cutout.size': 0, 'augment.gaussian_noise.std': 0.0},
        beside=_COLOURS,
    ),
    Technique(
        'repeated_augmentation',
        on={'data.repeats': 2, 'augment.names': ('pad_crop',), 'augment.pad_crop.padding': 1},
        neutral={'data.repeats': 1, 'augment.pad_crop.padding': 0},
        beside=_COLOURS,
    ),
    *(
        Technique(
            name,
            on={'augment.names': (name,), f'augment.{name}.share': 0.2},
            neutral={f'augment.{name}.share': 0.0},
            beside=_TEXT,
        )
        for name in ('token_mask', 'token_dropout', 'token_swap', 'span_deletion')
    ),
    Technique(
        'pmap',
        on={'train.engine': 'pmap', 'train.devices': 2},
        neutral={},
    ),
)


def one_a_field(techniques):
    """The first of those that choose by the same field: the others go the same way through the trainer."""
    return list({next(iter(t.on)): t for t in reversed(techniques)}.values())[::-1]


class Small(nn.Module):
    """A layer and the logits."""

    num_classes: int

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.relu(nn.Dense(8, name='hidden')(x.reshape(len(x), -1)))
        return nn.Dense(self.num_classes, name='head')(x)


class Pooled(nn.Module):
    """A convolution, a norm and the mean over the map."""

    num_classes: int
    norm: str = 'batch'
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x, train=False):
        x = Conv(16, 3, name='conv')(x)
        x = norms.create(self.norm, use_running_average=not train, axis_name=self.axis_name, name='norm')(x)
        return nn.Dense(self.num_classes, name='head')(nn.relu(x).mean((1, 2)))


def colours(path):
    """The digits, each class in a colour of its own."""
    parts = sources.digits('')
    tints = np.random.default_rng(0).uniform(4, 16, (10, 3))
    return {
        part: ((images[..., None] * tints[labels][:, None, None]).astype(np.uint8), labels)
        for part, (images, labels) in parts.items()
    }


def grouped(path):
    """The digits, 0 and 5 apart from the others."""

    def part(images, labels):
        return {'image': images, 'label': labels, 'fifth': (labels % 5 == 0).astype(int), 'everyone': 0 * labels}

    return {name: part(*arrays) for name, arrays in sources.digits('').items()}


def sentences(path):
    """Of 3 to 8 words out of ten that a class prefers; neighbouring classes share half of theirs."""
    draw = np.random.default_rng(0)

    def part(count):
        label = draw.integers(0, 3, count)
        words = [(draw.integers(0, 10, draw.integers(3, 9)) + 5 * k) % 15 for k in label]
        return {'text': [' '.join(f'w{word}' for word in text) for text in words], 'label': label}

    return {'train': part(1440), 'test': part(100)}


def translations(path):
    """Of 3 to 5 letters, each the next one in the target, in the other order."""
    draw = np.random.default_rng(0)

    def part(count):
        rows = [draw.integers(0, 8, draw.integers(3, 6)) for _ in range(count)]
        sides = {'source': rows, 'target': [(row[::-1] + 1) % 8 for row in rows]}
        return {side: [' '.join(f'w{word}' for word in row) for row in of_side] for side, of_side in sides.items()}

    return {'train': part(1600), 'test': part(100)}


class Bag(nn.Module):
    """The mean over pairs of neighbours, so that order counts, and the logits."""

    num_classes: int
    vocabulary_size: int = 512

    @nn.compact
    def __call__(self, tokens, mask, train=False):
        x = nn.Embed(self.vocabulary_size, 16, name='embed')(tokens) * mask[..., None]
        pairs = nn.relu(nn.Dense(16, name='hidden')(jnp.concatenate([x[:, 1:], x[:, :-1]], -1)))
        return nn.Dense(self.num_classes, name='head')(pairs.mean(1))


def smoothed(logits, labels):
    """Cross-entropy against nine tenths of the answer and a tenth spread over all classes."""
    log_probabilities = logits - jnp.log(jnp.exp(logits).sum(-1, keepdims=True))
    right = jnp.take_along_axis(log_probabilities, labels[:, None], -1)[:, 0]
    return -(0.9 * right + 0.1 * log_probabilities.mean(-1))


def inverted(path):
    """The digits in white on black."""
    images, labels = load_digits(return_X_y=True)
    return {'train': (16 - images.reshape(-1, 8, 8).astype(np.uint8), labels)}


def yes_or_no(logits, labels):
    """Sigmoid cross-entropy as its definition reads: of each class, the logarithm of the probability of the right answer."""
    right = jnp.where(jnp.arange(logits.shape[-1])[None] == labels[:, None], logits, -logits)
    return -jnp.log(1 / (1 + jnp.exp(-right))).sum(-1)


class Standardized(Conv):
    """Filters less their mean, over their deviation, as the paper writes it."""

    def seen(self, kernel):
        flat = kernel.reshape(-1, kernel.shape[-1])
        flat = (flat - jnp.mean(flat, 0, keepdims=True)) / jnp.sqrt(jnp.var(flat, 0, keepdims=True) + 1e-6)
        return flat.reshape(kernel.shape)
