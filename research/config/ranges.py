"""Ranges of numbers, and durations: of the fields in research/config/base.py, and of the arguments of what catalogues name."""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

from research import durations
from research.catalogue import ConfigError
from research.config.files import Misfit


class Range(NamedTuple):
    """Numbers from `least` to `most` that are more than `above` and less than `below`; no NaN is in any."""

    least: float = -math.inf
    most: float = math.inf
    above: float = -math.inf
    below: float = math.inf

    def holds(self, value: float) -> bool:
        """Whether a number is in it; an infinite one never is."""
        return math.isfinite(value) and self.least <= value <= self.most and self.above < value < self.below

    def told(self, value: float) -> str:
        """What is expected in the place of a value; a bound that only keeps out the absurd is told to the absurd."""
        ends = {'at least': self.least, 'above': self.above, 'at most': self.most, 'below': self.below}
        told = [f'{end} {n:.10g}' for end, n in ends.items() if math.isfinite(n) and (end != 'at most' or n <= 1 or value > n)]
        return ('' if math.isfinite(value) else 'a finite number, ') + ' and '.join(told)


# Rates and factors become float32.
_FLOAT32 = 3.4e38
# Counts and rows become int32 on the device.
_INT32 = 2**31 - 1
_FROM_0, _FROM_1, _ABOVE_0 = Range(least=0, most=_INT32), Range(least=1, most=_INT32), Range(above=0, most=_FLOAT32)
_NOT_NEGATIVE = Range(least=0, most=_FLOAT32)
# A decay of 1 never forgets, a dropout of 1 leaves nothing.
_BELOW_1, _SHARE, _PART = Range(least=0, below=1), Range(least=0, most=1), Range(above=0, most=1)
# Wider than any layer that a machine holds.
_WIDTH = Range(least=1, most=2**20)

FIELDS = {
    'data.batch_size': _FROM_0,
    'data.eval_batch_size': _FROM_1,
    'data.validation': Range(least=0, most=_INT32),
    'data.test': Range(least=0, most=_INT32),
    'data.resize': Range(least=0, most=2**13),
    'data.crop': Range(least=0, most=2**13),
    'data.bad_files': _SHARE,
    'data.length': Range(least=3, most=2**20),
    'data.target_length': Range(least=0, most=2**20),
    'data.examples': _FROM_0,
    'data.reference_size': _FROM_1,
    'data.repeats': Range(least=1, most=2**10),
    'data.workers': Range(least=0, most=2**10),
    'data.split_seed': Range(least=0, most=2**64 - 1),
    'data.redraw': _FROM_0,
    'model.num_classes': Range(least=0, most=2**24),
    'gradient.micro_batch': _FROM_0,
    'optimizer.learning_rate': _NOT_NEGATIVE,
    'optimizer.weight_decay': _NOT_NEGATIVE,
    'optimizer.layer_decay': _PART,
    'task.label_smoothing': _BELOW_1,
    'train.devices': _FROM_0,
    'study.alpha': Range(above=0, below=1),
    'study.margin': _NOT_NEGATIVE,
    'study.tune.points': Range(most=10_000),
}

# Kind of a group, or kind and name -> argument -> what its number, or each number in it, may be. An argument that is not here
# may be any number; a bound of clipping may be infinite.
_ARGUMENTS = {
    'optimizer': {
        **dict.fromkeys(('momentum', 'b1', 'b2', 'b3', 'adam_b1', 'adam_b2', 'betas', 'decay', 'rho'), _BELOW_1),
        **dict.fromkeys(('eps', 'eps_root', 'adam_eps_root', 'initial_accumulator_value'), _NOT_NEGATIVE),
    },
    'clip': {'eps': _NOT_NEGATIVE},
    'average': {'decay': _BELOW_1},
    'schedule': {
        **dict.fromkeys(('factor', 'power', 'end', 'start', 'alpha', 'floor', 'min_delta'), _NOT_NEGATIVE),
        **dict.fromkeys(('decay_rate', 'peak_decay'), _NOT_NEGATIVE),
        'rise': Range(above=0, below=1),
        'stretch': Range(least=1, most=_FLOAT32),
        'patience': _FROM_1,
    },
    'schedule plateau': {'factor': Range(above=0, below=1)},
    'compression': {'rank': _WIDTH, 'alpha': _NOT_NEGATIVE},
    'gradient': {
        **dict.fromkeys(('rho', 'noise_multiplier', 'epsilon'), _NOT_NEGATIVE),
        'keep': _PART,
        'delta': _BELOW_1,
    },
    'freezing': {'share': _PART, 'levels': _FROM_1},
    'resize': {'start': _PART, 'rungs': _FROM_1, 'multiple': _FROM_1},
    'imbalance': {'ratio': Range(least=1, most=_FLOAT32), 'share': _SHARE},
    'tokenizer': {'vocabulary_size': Range(least=16, most=2**24), 'min_count': _FROM_1},
    'batch size': {'patience': _FROM_1, 'floor': _FROM_1, 'ceiling': _FROM_0, 'min_delta': _NOT_NEGATIVE},
    'batch size shrink': {'factor': Range(above=0, below=1)},
    'batch size grow': {'factor': Range(above=1, most=_INT32)},
    'augmentation': {'share': _SHARE},
    'model': {
        **dict.fromkeys(('dropout', 'attention_dropout', 'auxiliary_dropout', 'stochastic_depth'), _BELOW_1),
        **dict.fromkeys(('low_rank', 'squeeze_excite'), _SHARE),
        **dict.fromkeys(('widths', 'hidden', 'depths', 'dim', 'heads', 'head_dim', 'patch', 'stem_width', 'middle'), _WIDTH),
        **dict.fromkeys(('width', 'depth', 'mlp_ratio'), _ABOVE_0),
        'auxiliary_weight': _NOT_NEGATIVE,
        **dict.fromkeys(('vocabulary_size', 'max_length', 'filters'), _FROM_1),
        **dict.fromkeys(('embedding_dim', 'decoder_depth', 'target_vocabulary_size', 'key_heads'), _FROM_0),
    },
    'norm layer': {
        'epsilon': _NOT_NEGATIVE,
        'momentum': _SHARE,
        **dict.fromkeys(('virtual_batch_size', 'num_groups'), _FROM_1),
        'example_weight': _SHARE,
    },
    'convolution': {'epsilon': _NOT_NEGATIVE},
    'task': {
        **dict.fromkeys(('neighbours', 'max_answer', 'window', 'negatives', 'shared', 'beam_size'), _FROM_1),
        'subsample': _SHARE,
        'beta': _BELOW_1,
        **dict.fromkeys(('focal', 'group_dro', 'logit_adjustment'), _NOT_NEGATIVE),
    },
}
_ARGUMENTS['generative model'] = {**_ARGUMENTS['model'], **dict.fromkeys(('latents', 'side', 'channels'), _WIDTH)}


# Fields that last, with the units that they know beside those of research.durations.
DURATIONS = {
    'schedule.warmup': (),
    'train.eval_every': (),
    'train.checkpoint_every': ('s',),
    'study.budget': ('s', 'flops'),
    'study.tune.budget': ('s', 'flops'),
}


def outside(value: Any, allowed: Range) -> str:
    """What is expected of a number, or of each in a sequence, if one is not in the range; else ''."""
    return next((allowed.told(number) for number in _numbers(value) if not allowed.holds(number)), '')


def argument(kind: str, name: str, key: str, value: Any) -> str:
    """What is expected of an argument of what a catalogue calls `name`, if its value is out of range; else ''."""
    allowed = _ARGUMENTS.get(f'{kind} {name}', {}).get(key) or _ARGUMENTS.get(kind, {}).get(key)
    if allowed is not None:
        return outside(value, allowed)
    return 'a number' if any(map(math.isnan, _numbers(value))) else ''


def _numbers(value: Any) -> Iterator[float]:
    if isinstance(value, tuple | list):
        for item in value:
            yield from _numbers(item)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield float(min(max(value, -_HUGE), _HUGE)) if isinstance(value, int) else value


# Of whole numbers, which have no end, and floats do.
_HUGE = 10**300


def check_duration(key: str, text: str) -> None:
    """Raises Misfit for a field that is no duration, or for a budget of nothing."""
    if not text and key == 'study.tune.budget':
        return
    try:
        number, unit = durations.parse(text, DURATIONS[key])
    except ConfigError as error:
        raise Misfit(key, f"'{key}': {error}") from error
    if key.endswith('budget') and unit == 'run':
        raise Misfit(key, f"'{key}' is '{text}', a fraction of itself: give it in steps ('500st'), epochs or examples.")
    if key.endswith('budget') and not number:
        raise Misfit(key, f"'{key}' is '{text}', which trains nothing: expected at least one step, such as '500st' or '20ep'.")
