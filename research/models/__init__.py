"""Networks by name. Images `[B, H, W, C]` in, float32 logits `[B, num_classes]` out; C is read from the images.

The MLP reads features `[B, F]` too. BERT, the recurrent networks, alone or over a BERT, the text CNN and the average of word
vectors read tokens, int `[B, T]`; a `head` says what they give. So does word2vec, which gives products of vectors. GPT and the
Transformer give logits of the vocabulary, `[B, T, V]`; the Transformer reads two texts, `(source, target)`.
"""

import inspect
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax

from research import catalogue

# File of research.models -> its networks. Names are timm's where timm has the network, else torchvision's or the paper's; `tf_`
# is a network as TensorFlow computes it: padding and epsilon.
FAMILIES = {
    'resnet': (
        *('resnet18', 'resnet34', 'resnet50', 'resnet101', 'resnet152'),
        *('resnet20', 'resnet32', 'resnet44', 'resnet56'),
    ),
    'alexnet': ('alexnet',),
    'vgg': tuple(f'vgg{layers}{norm}' for norm in ('', '_bn') for layers in (11, 13, 16, 19)),
    'googlenet': ('googlenet',),
    'xception': ('legacy_xception',),
    'mobilenetv1': tuple(f'mobilenetv1_{width}' for width in ('025', '050', '075', '100', '125')),
    'mobilenetv2': tuple(f'mobilenetv2_{width}' for width in ('035', '050', '075', '100', '110d', '120d', '140')),
    'mobilenetv3': (
        *(f'mobilenetv3_{size}' for size in ('small_050', 'small_075', 'small_100', 'large_075', 'large_100')),
        *(f'tf_mobilenetv3_{size}_{kind}' for size in ('small', 'large') for kind in ('075', '100', 'minimal_100')),
    ),
    'efficientnet': tuple(f'{origin}efficientnet_b{i}' for origin in ('', 'tf_') for i in range(8)),
    'tinynet': tuple(f'tinynet_{size}' for size in 'edcba'),
    'coatnet': ('coatnet_0_224', 'coatnet_1_224', 'coatnet_2_224', 'coatnet_3_224'),
    'vit': ('vit_tiny_patch16_224', 'vit_small_patch16_224', 'vit_base_patch16_224'),
    'bert': tuple(f'bert_{size}' for size in ('tiny', 'mini', 'small', 'medium', 'base', 'large')),
    'transformer': tuple(f'transformer_{size}' for size in ('tiny', 'small', 'base', 'big')),
    'gpt': ('gpt2', 'gpt2_medium', 'gpt2_large', 'gpt2_xl'),
    'recurrent': ('rnn', 'gru', 'lstm'),
}
MODELS = {
    'cnn': 'research.models.cnn:CNN',
    'mlp': 'research.models.mlp:MLP',
    'vit': 'research.models.vit:ViT',
    'bert': 'research.models.bert:BERT',
    'transformer': 'research.models.transformer:Transformer',
    'gpt': 'research.models.gpt:GPT',
    'bert_lstm': 'research.models.bert_lstm:BertLSTM',
    'text_cnn': 'research.models.text_cnn:TextCNN',
    'word_average': 'research.models.word_average:WordAverage',
    'word2vec': 'research.models.word2vec:Word2Vec',
} | {name: f'research.models.{family}:{name}' for family, names in FAMILIES.items() for name in names}

# Fields of the group `model` that are not arguments of its constructor.
OWN = ('num_classes', 'init_from')

# Generator and discriminator in one network, for the task of generation: latents `[B, Z]` in, images in [-1, 1] out.
GENERATORS = {'dcgan': 'research.models.dcgan:DCGAN'}


def names() -> list[str]:
    """Every model name, sorted."""
    return sorted(MODELS)


def features(module: nn.Module, variables: Mapping[str, Any], x: jax.Array) -> dict[str, jax.Array]:
    """Intermediate maps of an inference: name ('stem', 'stage1', ...) -> `[B, H', W', C']`, from the first to the last
    (in alphabetical order if it leaves a `jax.jit`).

    Args:
      module, variables: a network and its variables; maps of your own network are what it sows into 'intermediates'.
      x: images `[B, H, W, C]`.
    """
    _, collections = module.apply(variables, x, train=False, mutable=['intermediates'])
    return dict(collections.get('intermediates', {}))


def layers(module: nn.Module, *args: Any, **kwargs: Any) -> tuple[str, ...]:
    """Top-level names of a network's parameters, in the order in which the input meets them; `args` are those of a call."""
    met: dict[str, None] = {}

    def note(call, positional, keywords, context):
        if context.module.path:
            met[context.module.path[0]] = None
        return call(*positional, **keywords)

    with nn.intercept_methods(note):
        shapes = jax.eval_shape(lambda key: module.init(key, *args, **kwargs), jax.random.key(0))
    return tuple(name for name in met if name in shapes['params'])


def rematerializes(name: str) -> bool:
    """Whether a network has blocks whose activations can be recomputed (research.layers.remat)."""
    return 'remat' in inspect.signature(catalogue.resolve('model', name, MODELS | GENERATORS)).parameters


def reads_tokens(name: str) -> bool:
    """Whether a network has a vocabulary."""
    return 'vocabulary_size' in inspect.signature(catalogue.resolve('model', name, MODELS | GENERATORS)).parameters


def has_encoder(name: str) -> bool:
    """Whether a network has a part that begins with another network's weights and does not learn."""
    return hasattr(catalogue.resolve('model', name, MODELS | GENERATORS), 'ENCODER')


def create(
    name: str, num_classes: int = 1000, *, axis_name: str | None = None, remat: str = 'none', **kwargs: Any
) -> nn.Module:
    """A network; nothing is computed. Use as `module.init(key, x)` and `module.apply(variables, x, train=False)`.

    Args:
      name: one of `names()`, or an import path (`my_paper.nets:TinyResNet`) of anything that returns a linen module.
      num_classes: length of the logits, where they are classes.
      axis_name: the `pmap` axis over which batches are split; not passed to constructors without it.
      remat: what is recomputed for the gradient (research.layers.remat); 'none' is not passed on.
      **kwargs: to the constructor, e.g. `norm='batch'` or `norm={'name': 'ghost_batch', 'virtual_batch_size': 16}`.

    Raises:
      ConfigError: an unknown name or argument, with the nearest valid one; a negative number of classes; no linen module.
    """
    constructor = catalogue.resolve('model', name, MODELS)
    if inspect.isclass(constructor):
        _check_linen(name, constructor)
    if num_classes < 0:
        raise catalogue.ConfigError(f'num_classes is {num_classes}, expected the number of logits, 1 or more.')
    accepted = inspect.signature(constructor).parameters
    given = {'num_classes': num_classes}
    if axis_name is not None and 'axis_name' in accepted:
        given['axis_name'] = axis_name
    if remat != 'none':
        if not rematerializes(name):
            raise catalogue.ConfigError(f"Model '{name}' has no blocks to rematerialize: set train.remat to 'none'.")
        given['remat'] = remat
    catalogue.check('model', name, constructor, given | kwargs)
    module = constructor(**given, **kwargs)
    _check_linen(name, type(module))
    return module


def _check_linen(name: str, kind: type) -> None:
    if not issubclass(kind, nn.Module):
        raise catalogue.ConfigError(
            f"Model '{name}' is a {kind.__name__}, expected a linen module, of a class derived from flax.linen.Module; NNX "
            'modules are not supported.'
        )
