"""Writes the tables of techniques.md and networks.md from the catalogues: `python docs/write.py`."""

import inspect
import pathlib
import re
import sys
from typing import Any

from research import augment, catalogue, models
from research.config.signatures import GROUPS, Group
from research.layers import conv, norm
from research.layers.activation import ACTIVATIONS

# Fields with a catalogue, or groups of `AUGMENTATIONS` -> heading, and the card of entries that come from a library.
CHOICES = {
    'optimizer': ('Optimizers', 'optim/optimizers.py'),
    'schedule': ('Learning-rate schedules', ''),
    'optimizer.clip': ('Gradient clipping', 'optim/clipping.py'),
    'optimizer.average': ('Averages of the weights', ''),
    'gradient': ('Gradients', ''),
    'gradient.freeze': ('Layers that stop learning', ''),
    'data.batch': ('Batch sizes that change', ''),
    'data.sampling': ('Which examples make up an epoch', ''),
    'data.imbalance': ('Class imbalance, made on purpose', ''),
    'images': ('Augmentations of images', ''),
    'texts': ('Augmentations of texts', ''),
    'augment.resize': ('Image sizes that change', ''),
    'compress': ('Compression', ''),
    'model.norm': ('Normalization', 'layers/norm.py'),
    'model.conv': ('Convolutions', ''),
}
AUGMENTATIONS = {
    'images': Group('augmentation', augment.IMAGES, augment.GIVEN),
    'texts': Group('augmentation', augment.TEXTS, augment.GIVEN),
}
LAYERS = {
    'model.norm': Group('norm layer', norm.NORMS, ('use_running_average', 'axis_name')),
    'model.conv': Group('convolution', conv.CONVS, conv.GIVEN),
}
# Techniques that are a field alone: a line of a config -> card, what it does.
FIELDS = {
    "schedule.warmup = '0.1run'": ('optim/schedules.py', 'the rate rises from 0 at first'),
    'optimizer.weight_decay = 1e-3': ('optim/optimizers.py', 'decoupled decay of kernels'),
    'optimizer.layer_decay = 0.75': ('optim/layer_decay.py', 'the nearer a layer is to the input, the slower it learns'),
    "optimizer.rate_multipliers = (('head/*', 0.1),)": ('optim/multipliers.py', 'a rate of its own for some parameters'),
    "optimizer.decay_multipliers = (('head/*', 0.0),)": ('optim/multipliers.py', 'a decay of its own for some parameters'),
    'data.repeats = 3': (
        'data/repeated.py',
        'each example stands several times in a batch, each with an augmentation of its own',
    ),
    "data.external = ({'name': 'mnist'},)": ('data/external.py', 'more training data, with a data card in the report'),
    "data.filters = ('duplicates',)": ('data/duplicates.py', 'copies are left out of the training split'),
    "data.filters = ('quality',)": ('data/quality.py', 'junk is left out of the training split'),
    "data.filters = ('label_suspects',)": ('data/label_suspects.py', 'labels that look wrong are left out; needs cleanlab'),
    "data.personal = 'mask'": ('data/personal.py', 'addresses and numbers of people are masked in texts'),
    'data.pack = True': ('data/packed_pairs.py', 'several training pairs, or texts without labels, share a row'),
    "data.targets.name = 'translated'": (
        'pretrained/sequence_distillation.py',
        'learns from the translations that a finished run writes, `data.targets.run`',
    ),
    'data.batch_size = 0': ('optim/optimizers.py', 'full-batch gradient descent'),
    'gradient.micro_batch = 16': ('gradients/accumulated.py', 'the gradient of a batch as a sum over parts of it'),
    'gradient.noise_scale = True': ('gradients/accumulated.py', 'measures the gradient noise scale; needs micro-batches'),
    'task.label_smoothing = 0.1': ('tasks/classification.py', 'a share of each target goes to the other classes'),
    "task.class_weights = 'effective_number'": ('tasks/balancing.py', 'rare classes weigh more in the loss'),
    "task.reweight_from = '0.8run'": ('tasks/balancing.py', 'these weights are 1 before'),
    'task.focal = 2.0': ('tasks/balancing.py', 'examples that are learnt already weigh less'),
    'task.logit_adjustment = 1.0': ('tasks/balancing.py', 'logits are shifted by the class frequencies in training'),
    'task.group_dro = 0.01': ('tasks/group_dro.py', 'the groups with the largest losses weigh most; needs data.group'),
    "task.loss = 'sigmoid'": ('tasks/classification.py', 'a yes or no for each class, in place of softmax'),
    "train.precision = 'bfloat16'": ('train/precision.py', 'the network computes in 16 bits'),
    "train.precision = 'float16'": ('optim/scaling.py', 'likewise, with dynamic loss scaling'),
    "train.remat = 'block'": ('layers/remat.py', 'activations are computed again for the gradient'),
    "train.memory_budget = '6GiB'": ('train/memory.py', 'micro-batches and remat are chosen to fit'),
    "model.init_from = 'resnet18.safetensors'": ('pretrained/__init__.py', 'starts from trained weights'),
    'model.dropout = 0.2': ('layers/dropout.py', 'zeroes a random part of the activations'),
    'model.stochastic_depth = 0.1': ('layers/dropout.py', 'skips residual branches at random'),
    'model.squeeze_excite = 0.0625': ('layers/squeeze_excite.py', 'weighs each channel by the means of all'),
    'model.blur_pool = True': ('layers/blur.py', 'a low-pass filter before everything that subsamples'),
    'model.share_layers = True': ('models/bert.py', 'one block is applied as often as the network is deep'),
    'model.decoder_depth = 1': ('models/transformer.py', 'a deep encoder with a shallow decoder'),
    "model.decoder_attention = 'average'": (
        'layers/average_attention.py',
        'decoding keeps the sum of earlier tokens in place of their keys and values',
    ),
    'model.embedding_dim = 128': ('models/bert.py', 'small embeddings, which a matrix maps to the width of the network'),
    'model.low_rank = 0.25': ('layers/low_rank.py', 'large layers become products of two thin ones'),
}
ENTRIES = models.MODELS | models.GENERATORS
# Fields that the task of generation refuses, or has no use for.
ONE_NETWORK = (
    'augment.resize',
    'compress',
    'gradient.freeze',
    'model.init_from',
    'optimizer.layer_decay',
    *(f'task.{field}' for field in ('class_weights', 'focal', 'group_dro', 'logit_adjustment', 'loss', 'reweight_from')),
    'train.remat',
)
# Fields of texts alone -> families, tasks.
TEXTS = {
    'data.pack': (['bert', 'transformer', 'gpt'], 'masked_language_model, language_model, translation'),
    'data.targets.name': (['transformer'], 'translation'),
}
MARK = '<!-- Below: python docs/write.py -->\n\n'
FIRST = (
    {'cnn': 'cnn', 'mlp': 'mlp'}
    | {family: names[0] for family, names in models.FAMILIES.items()}
    | {name: name for name in ('bert_lstm', 'text_cnn', 'word_average', 'word2vec', 'dcgan')}
)


def technique_table(field: str) -> str:
    """The section of a field with a catalogue; '' if there is nothing to choose."""
    heading, shared = CHOICES[field]
    group = (GROUPS | LAYERS | AUGMENTATIONS)[field]
    homes = {n: entry.partition(':')[0] for n, entry in group.entries.items() if n not in ('constant', 'plain')}
    homes = {n: home for n, home in homes.items() if not group.entries[n].endswith((':none', ':identity', ':asks_for_more'))}
    rows, libraries = [], []
    for name, home in sorted(homes.items()):
        constructor, ours = catalogue.resolve(group.kind, name, group.entries), home.startswith('research.')
        if field == 'optimizer' and not ours:
            libraries.append(f'`{name}`')
            continue
        # The docstring of a file with a single technique says more than that of its constructor.
        text = sentence(inspect.getmodule(constructor) if ours and [*homes.values()].count(home) == 1 else constructor)
        parameters = catalogue.parameters(constructor, group.given)[0].values()
        needs = ', '.join(f'`{p.name}`' for p in parameters if p.default is p.empty) or '–'
        takes = ', '.join(f'`{p.name}={p.default!r}`' for p in parameters if isinstance(p.default, int | float | str | tuple))
        card = home.removeprefix('research.').replace('.', '/') + '.py' if ours else shared
        rows.append((f'[`{name}`](../research/{card})', needs, takes or '–' if ours else f'as in {home}', text))
    line = f"{field}.name = '...'"
    if field in AUGMENTATIONS:
        line = "augment.names = ('...', '...')`, in their order; arguments as `augment.NAME.ARGUMENT = ..."
    where = f'`{line}`. Networks: {networks_with(field)}. Tasks: {tasks(field)}.\n'
    more = f'\nFrom optax, with the arguments of its documentation: {", ".join(libraries)}.\n' if libraries else ''
    return f'## {heading}\n\n{where}\n{table("name", "needs", "takes", "what it does", rows=rows)}\n{more}' if rows else ''


def techniques() -> str:
    """The tables of techniques.md."""
    rows = []
    for line, (card, text) in FIELDS.items():
        field = line.split(' = ')[0]
        rows.append((f'[`{line}`](../research/{card})', networks_with(field), tasks(field), text))
    fields = f'## One field\n\n{table("line of a config", "networks", "tasks", "what it does", rows=rows)}\n'
    return '\n'.join([*filter(None, map(technique_table, CHOICES)), fields])


def networks() -> str:
    """The tables of networks.md."""
    sections = [f'Activations: {", ".join(f"`{name}`" for name in ACTIVATIONS)}.\n']
    for family, first in FIRST.items():
        constructor = catalogue.resolve('model', first, ENTRIES)
        fields = catalogue.parameters(constructor, ('num_classes', 'axis_name', 'remat'))[0]
        text = f'{sentence(sys.modules[f"research.models.{family}"])} Fields: {", ".join(f"`{f}`" for f in fields)}.'
        sources = getattr(getattr(constructor, 'func', constructor), 'SOURCES', {})
        names = [name for name, entry in ENTRIES.items() if entry.startswith(f'research.models.{family}:')]
        rows = [(f'`{n}`', *(f'`{s.names[n]}`' if n in s.names else '–' for s in sources.values())) for n in names]
        sections.append(f'## [{family}](../research/models/{family}.py)\n\n{text}\n\n{table("name", *sources, rows=rows)}\n')
    return '\n'.join(sections)


def taken_by(field: str) -> list[str]:
    """The families of networks that a field is for."""
    if field in TEXTS:
        return TEXTS[field][0]
    if field in AUGMENTATIONS:
        texts = [family for family, name in FIRST.items() if family != 'dcgan' and models.reads_tokens(name)]
        return texts if field == 'texts' else [family for family in FIRST if family not in texts]
    if not field.startswith('model.') and field != 'train.remat' or field == 'model.init_from':
        return list(FIRST)
    arguments = {f: catalogue.parameters(catalogue.resolve('model', name, ENTRIES))[0] for f, name in FIRST.items()}
    return [family for family in FIRST if field.partition('.')[2] in arguments[family]]


def networks_with(field: str) -> str:
    """The same in words."""
    families = taken_by(field)
    without = [family for family in FIRST if family not in families]
    return ', '.join(families) if len(without) > 3 else 'all but ' + ', '.join(without) if without else 'all'


def tasks(field: str) -> str:
    """The tasks that a field is for."""
    if field in AUGMENTATIONS:
        return f'of {field}'
    if field in TEXTS:
        return TEXTS[field][1]
    if field.startswith('task.') and field in ONE_NETWORK:
        return 'classification'
    return 'all but generation' if field in ONE_NETWORK or 'dcgan' not in taken_by(field) else 'all'


def sentence(documented: Any) -> str:
    """The first sentence of a docstring."""
    text = ' '.join((inspect.getdoc(documented) or '').split('\n\n')[0].split())
    return re.split(r'(?<=[\w)`]\.) (?=[A-Z])', text)[0]


def table(*head: str, rows: list[tuple[str, ...]]) -> str:
    """A table of Markdown."""
    return '\n'.join(f'| {" | ".join(row)} |' for row in [head, ['---'] * len(head), *rows])


def page(name: str) -> tuple[pathlib.Path, str, str]:
    """A file, its text up to the tables, and the tables."""
    path = pathlib.Path(__file__).with_name(f'{name}.md')
    return path, path.read_text().partition(MARK)[0] + MARK, {'techniques': techniques, 'networks': networks}[name]()


if __name__ == '__main__':
    for path, text, tables in map(page, ('techniques', 'networks')):
        path.write_text(text + tables)
