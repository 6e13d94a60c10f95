"""Pretrained weights: reads and writes `.safetensors` of timm, torchvision, Hugging Face and our own, without torch."""

import os
import pathlib
import warnings
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
from flax.traverse_util import unflatten_dict

from research import models
from research.catalogue import ConfigError, nearest
from research.models.network import Preprocessing
from research.pretrained import entries, files, mapping, recognition, runs, word_vectors

# Where networks over tokens have their word vectors.
_TABLE = 'params/token_embedding/embedding'


def load(
    name: str, path: str | os.PathLike, *, num_classes: int = 0, channels: int = 0, size: int = 0, **kwargs: Any
) -> tuple[nn.Module, dict[str, Any]]:
    """A network with weights from elsewhere; the source is recognized by the parameters' names.

    Args:
      name: in `research.models.names()`.
      path: a `.safetensors` file of timm, torchvision, Hugging Face or `save`; a folder with a `model.safetensors`, or with its
        parts and an index; or 'WORKDIR:VARIANT:SEED', a finished run. A `config.json` beside it must be of this network.
      num_classes: of the network; 0 = as in the file. If the file has another number, or no head, the head is newly drawn,
        with a warning.
      channels: of the images; 0 = as in the file. For one channel instead of three, kernels are summed over the three.
      size: side of the images in pixels; 0 = the source's own, for our own networks 224. Parameters that depend on it (a ViT's
        positions) are resampled from the file's by the family's `resized`.
      **kwargs: to `research.models.create`; they override what the source needs: its padding, epsilon and momentum, and for
        'bert' and 'gpt' all sizes, from the folder's `config.json`. BERT's `head` is 'none' if left out; a file's other heads
        are kept in 'foreign'.

    Returns:
      (module, variables), variables as from `module.init`, float32. The collection 'foreign' holds tensors without a place in
      the network, such as counters of batches, and the file's metadata; `save` writes them back.

    Raises:
      ConfigError: no such model or file; tensors that are missing, left over, of another shape or no numbers, each by its
        name; another network's weights.
    """
    stored = _stored(path)
    source = recognition.recognized(name, stored)
    tensors = mapping.tensors_of(source, stored)
    given, module = recognition.arguments(name, stored, source, kwargs), models.create(name)
    module = models.create(name, num_classes or mapping.classes_of(module, source, tensors), **given)
    size = size or source.preprocessing(name).size
    image = (1, size, size, channels or mapping.channels_of(module, source, tensors))
    return module, mapping.into(name, module, source, stored, tensors, image).completed(module)


def arguments(group: Mapping[str, Any]) -> dict[str, Any]:
    """The constructor's arguments by the group `config.model`: what the config says, over what its weights need.

    Raises:
      ConfigError: no such weights, or not this model's.
    """
    name, kwargs = group['name'], {key: value for key, value in group.items() if key not in ('name', *models.OWN)}
    if models.has_encoder(name):
        if not isinstance(kwargs.get('encoder', {}), Mapping):
            raise ConfigError(f"model.encoder is '{kwargs['encoder']}', expected its fields, such as {{'dim': 256}}.")
        whole = models.create(name, encoder=kwargs.get('encoder', {}))
        whole.part()  # refuses what is no field of it
        if not group['init_from']:
            warnings.warn(f"'{name}' learns over an encoder that is drawn and stays so: model.init_from is ''.", stacklevel=2)
    if not group['init_from']:
        return kwargs
    if _is_file_of_words(name, group['init_from']):
        return {'dim': word_vectors.dim(group['init_from']), **kwargs}
    stored = _stored(group['init_from'])
    if _of_words(name, stored):
        return {'dim': models.create(**stored.network).dim, **kwargs}
    if theirs := _of_encoder(name, stored):
        inside = recognition.arguments(theirs, stored, recognition.recognized(theirs, stored), kwargs.get('encoder', {}))
        said = mapping.arguments(models.create(theirs, **inside))
        vocabulary = {key: said[key] for key in ('vocabulary_size',) if key in said}
        return {**vocabulary, **kwargs, 'encoder': {key: value for key, value in said.items() if key not in whole.FIXED}}
    return recognition.arguments(name, stored, recognition.recognized(name, stored), kwargs)


def weights(module: nn.Module, name: str, path: str, image: tuple[int, ...], tokenizer: str = '') -> dict[str, Any]:
    """Weights for a network, float32 `{'params': ..., 'batch_stats': ...}`, without a head that has to be drawn; of a run of
    'word2vec', or a file in word2vec's formats, the word vectors alone, for a network that says `WORD_VECTORS`. Of a file they
    are `word_vectors.Rows`: a token that it lacks, special ones too, keeps the vector that the network draws for it.
    Of a BERT, for a network with an `ENCODER`, they are the encoder's.

    Args:
      module: the network, made with the `arguments` that the weights need.
      name, path: as in `load`; a file of word vectors ends in `.txt`, `.vec` or `.bin`.
      image: shape of the images [B, H, W, C]; for one channel, kernels are summed over three.
      tokenizer: of the data, as the text of a `tokenizer.json`: which token has which word; '' without one.

    Raises:
      ConfigError: what does not fit, by its name; a file that has none of the tokens.
    """
    if _is_file_of_words(name, path):
        rows = word_vectors.of_tokens(path, tokenizer, (module.vocabulary_size, module.dim))
        return unflatten_dict({tuple(_TABLE.split('/')): rows})
    stored = _stored(path)
    if _of_words(name, stored):
        table, expected = stored.read()[_TABLE], (module.vocabulary_size, module.dim)
        if table.shape != expected:
            raise ConfigError(f"'{path}' has word vectors {list(table.shape)}, and '{name}' takes {list(expected)}.")
        return unflatten_dict({tuple(_TABLE.split('/')): table})
    theirs = _of_encoder(name, stored)
    network, part = (theirs, module.part()) if theirs else (name, module)
    source = recognition.recognized(network, stored)
    leaves = mapping.into(network, part, source, stored, mapping.tensors_of(source, stored), image).leaves
    at = (module.ENCODER,) if theirs else ()
    return unflatten_dict({(kind, *at, *path): leaf for (kind, *path), leaf in leaves.items()})


def _of_words(name: str, stored: files.Stored) -> bool:
    """Whether weights are word vectors, for a network that begins with such and draws the rest."""
    return (stored.network or {}).get('name') == 'word2vec' and getattr(models.create(name), 'WORD_VECTORS', False)


def _of_encoder(name: str, stored: files.Stored) -> str:
    """The network that weights are of, where they are for the encoder of a network that has one, and not for all of it.

    Raises:
      ConfigError: a run of a network that is no encoder of its kind.
    """
    if not models.has_encoder(name):
        return ''
    module = models.create(name)
    whole = any(tensor.startswith(f'params/{module.ENCODER}/') for tensor in stored.names)
    theirs = (stored.network or {}).get('name', name if whole else 'bert')
    if theirs == name:
        return ''
    if not isinstance(models.create(theirs), kind := type(module.part())):
        raise ConfigError(f"'{stored.where}' is a '{theirs}', and '{name}' starts from a {kind.__name__} or a '{name}'.")
    return theirs


def _is_file_of_words(name: str, path: str) -> bool:
    """Whether a path is of word vectors in a file, for a network that begins with such."""
    return pathlib.Path(path).suffix in word_vectors.SUFFIXES and getattr(models.create(name), 'WORD_VECTORS', False)


def tokenizers(config: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The groups `tokenizer` and `target_tokenizer` of `data` in a whole config: those of the weights, where any lie beside
    them, unless a file is named."""
    path, groups = config['model']['init_from'], {name: config['data'][name] for name in ('tokenizer', 'target_tokenizer')}
    # word2vec.c itself leaves a list of words and their counts beside the vectors, which may be called vocab.txt.
    if not path or _is_file_of_words(config['model']['name'], path):
        return groups
    run, given = runs.parse(path), pathlib.Path(path).expanduser()
    folder = runs.find(run) if run else given if given.is_dir() else given.parent
    beside = {'tokenizer': ('tokenizer.json', 'vocab.txt', 'vocab.json'), 'target_tokenizer': ('target_tokenizer.json',)}
    for name, files_there in beside.items():
        there = [folder / file for file in files_there if (folder / file).exists()]
        if there and groups[name]['name'] != 'file':
            groups[name] = {'name': 'file', 'path': str(folder if name == 'tokenizer' else there[0])}
    return groups


def digest(path: str) -> str:
    """12 hexadecimal digits over the content of what `load` would read; '' for path ''."""
    if run := runs.parse(path):
        return runs.digest(run)
    return files.digest(pathlib.Path(path).expanduser()) if path else ''


def _stored(path: str | os.PathLike) -> files.Stored:
    run = runs.parse(os.fspath(path))
    return runs.stored(run) if run else files.stored(pathlib.Path(path).expanduser())


def save(module: nn.Module, variables: Mapping[str, Any], path: str | os.PathLike, source: str = 'timm') -> None:
    """Writes variables under another library's names and shapes, or our own. Float32 tensors that `load` has read are written
    back unchanged, half precision as float32.

    Args:
      module, variables: a network of this package and its variables.
      path: of the `.safetensors` file; missing folders are made.
      source: 'timm', 'torchvision' or 'huggingface'; or 'frugal', which every network has, with the arguments of its
        constructor in the file's metadata.

    Raises:
      ConfigError: the family has no such source, a parameter has no name there, or the path is a folder.
    """
    files.write(pathlib.Path(path).expanduser(), *mapping.out_of(module, variables, source))


def preprocessing(name: str, source: str = 'timm') -> Preprocessing:
    """Input size, crop, interpolation, mean and standard deviation of a pretrained source.

    Raises:
      ConfigError: no such model, or the source has no weights for it.
    """
    origin = entries.source_of(models.create(name), source)
    if name not in origin.names:
        raise ConfigError(f"'{source}' has no '{name}'.{nearest(name, origin.names)}")
    return origin.preprocessing(name)
