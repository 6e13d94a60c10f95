"""Trained models back from a study's folder."""

import dataclasses
import functools
import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from research import tasks
from research.catalogue import ConfigError
from research.config import files
from research.data import Dataset, texts, tokenizer
from research.layers import formulation
from research.pretrained import runs
from research.report import records
from research.study import blanks, writing
from research.tasks import masked_language_model, translation
from research.train import checkpoint, precision
from research.train.steps import players, supervised
from research.train.steps.network import Network

# What a run keeps of its data.
DATA = 'data.json'
TOKENIZER = 'tokenizer.json'
TARGET_TOKENIZER = 'target_tokenizer.json'


@dataclasses.dataclass(frozen=True, eq=False)
class Trained:
    """A trained model as it was scored; `module, variables = model` unpacks it.

    Attributes:
      module: the network; its `apply` computes in float32, on inputs that are standardized as in training.
      variables: its variables.
      config: of the run, resolved.
      data: what `described` tells of the data that it was trained on; {} for a run that has kept nothing of them.
      tokenizer: of texts, from the library `tokenizers`; None of other data.
      target_tokenizer: of translations; `tokenizer` itself where both sides share it.
    """

    module: nn.Module
    variables: Mapping[str, Any]
    config: Mapping[str, Any]
    data: Mapping[str, Any]
    tokenizer: Any = None
    target_tokenizer: Any = None

    def __getitem__(self, place: int) -> Any:
        return (self.module, self.variables)[place]  # Python unpacks by it too

    def predict(self, inputs: Any) -> np.ndarray:
        """Probabilities of the classes, float32 [B, K], or numbers in the label's unit [B], computed as the run was scored:
        standardized by its data's mean and deviation, in `train.precision`, `data.eval_batch_size` examples at a time.

        Args:
          inputs: [B, ...] as the data are stored, such as uint8 images [B, H, W, C], or [B, H, W] of one channel. Several
            fields are given by name. Of texts: B texts, or pairs of texts.

        Raises:
          ConfigError: inputs of another shape or type, a task without predictions.
        """
        if self._task.predictions is None:
            raise ConfigError(
                f"Task '{self.config['task']['name']}' makes no predictions: module.apply(variables, inputs) gives the "
                'outputs, for standardized inputs.'
            )
        return self._in_parts(self._predictions, self._stored(inputs))

    def fill(self, texts: Sequence[str], count: int = 5) -> list[list[list[tuple[str, float]]]]:
        """What may stand where a text has a `[MASK]`, by a run of the task masked_language_model.

        Args:
          texts: B texts, each with a `[MASK]` for every token to be guessed.
          count: of guesses for each.

        Returns:
          A list a text, of a list a `[MASK]`, of `count` pairs (token, probability), best first. A token that continues a word
          begins with '##'; one of byte pairs that begins a word, with a space.

        Raises:
          ConfigError: a run of another task, or of data without a tokenizer; a text that is none, that has no `[MASK]`, or one
            behind the `data.length` tokens that the network reads.
        """
        writing.check(self, 'masked_language_model', 'over texts fills blanks')
        read = self._chances  # which asks for the data first
        batch, masks = blanks.coded(self.tokenizer, texts, self.data['fields'])
        chances = self._in_parts(read, batch)
        return [blanks.best(self.tokenizer, chances[row, :number], count) for row, number in enumerate(masks)]

    def translate(self, texts: Sequence[str], beam_size: int | None = None, length_penalty: float | None = None) -> list[str]:
        """Translations of texts, by a run of the task translation.

        Args:
          texts: B texts, of which `data.length` tokens are read.
          beam_size, length_penalty: as of `research.tasks.translation`; None for the run's own.

        Raises:
          ConfigError: a run of another task; a text that is none.
        """
        writing.check(self, 'translation', 'translates')
        own = {**translation.DECODING, **self.config['task']}
        beam_size = own['beam_size'] if beam_size is None else beam_size
        length_penalty = own['length_penalty'] if length_penalty is None else length_penalty
        found = self._in_parts(self._translator(beam_size, length_penalty), writing.sources(self.tokenizer, texts))
        return tokenizer.written(self.target_tokenizer, found)

    @functools.cached_property
    def _translator(self) -> Callable[..., Callable[[Any, Mapping[str, Any]], jax.Array]]:
        """(beam_size, length_penalty) -> what translates a batch, compiled once."""
        length = self.data['fields']['target']['shape'][0] - 1
        given = self.module, self.config, self.target_tokenizer, length
        return functools.cache(lambda beam_size, length_penalty: writing.translator(*given, beam_size, length_penalty))

    def generate(
        self,
        prompts: Sequence[str],
        max_length: int = 64,
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
        seed: int = 0,
    ) -> list[str]:
        """What follows each prompt, by a run of the task language_model, in `train.precision`.

        A prompt begins a text, as in training: what starts one stands in front of it, of GPT-2's tokenizer `<|endoftext|>`,
        which transformers leaves to its caller. For the same tokens both write the same.

        Args:
          prompts: B texts; `data.eval_batch_size` of them at a time.
          max_length: the most tokens that are written.
          temperature, top_k, top_p: as of `research.decoding.sample`; a temperature of 0 takes the likeliest token each time.
          seed: of the draws, which for the prompt at a place are the same whatever the others are.

        Raises:
          ConfigError: a run of another task, no text as a prompt, more tokens than the network has positions for.
        """
        writing.check(self, 'language_model', 'goes on with a prompt')
        options = {'temperature': temperature, 'top_k': top_k, 'top_p': top_p}
        write = writing.continuer(self.module, self.config, self.tokenizer, max_length, seed, **options)
        return tokenizer.written(self.tokenizer, self._in_parts(write, writing.openings(self.tokenizer, prompts)))

    def _in_parts(self, function: Callable[..., jax.Array], batch: Mapping[str, np.ndarray]) -> np.ndarray:
        """(variables, {field: [b, ...]}) -> [b, ...] of a batch of any size, at most `data.eval_batch_size` rows at a time."""
        count = len(next(iter(batch.values())))
        size = min(count, self.config['data']['eval_batch_size'])
        parts = []
        for first in range(0, count, size):
            part = {name: values[first : first + size] for name, values in batch.items()}
            rows = len(next(iter(part.values())))
            # By the last row, so that texts are written for no longer than it takes.
            padded = {name: np.pad(a, ((0, size - rows), *((0, 0),) * (a.ndim - 1)), 'edge') for name, a in part.items()}
            parts.append(np.asarray(function(self.variables, padded))[:rows])
        return np.concatenate(parts)

    @functools.cached_property
    def _task(self) -> tasks.Task:
        if tasks.generative(self.config):
            raise ConfigError('Two players predict nothing: module.apply(variables, latents) gives samples.')
        if not self.data:
            raise ConfigError(
                'This run has kept no mean and deviation of its data: standardize the inputs by those of research.data.load '
                'and call module.apply(variables, inputs), or run it again.'
            )
        return tasks.create(self.config['task'], files.plain('facts', self.data['facts']))

    @functools.cached_property
    def _predictions(self) -> Callable[[Any, Mapping[str, Any]], jax.Array]:
        return self._compiled(self._task.predictions)

    @functools.cached_property
    def _chances(self) -> Callable[[Any, Mapping[str, Any]], jax.Array]:
        return self._compiled(
            lambda outputs: jax.nn.softmax(masked_language_model.vocabulary_logits(outputs).astype(jnp.float32))
        )

    def _compiled(self, read: Callable[[Any], jax.Array]) -> Callable[[Any, Mapping[str, Any]], jax.Array]:
        """(variables, batch) -> what `read` makes of the network's outputs."""
        task, train = self._task, self.config['train']
        network = Network(self.module, {}, (), *precision.casts(train['precision']))

        def outputs(variables, batch):
            with jax.default_matmul_precision(train['matmul_precision']):
                inputs = task.inputs({**batch, 'valid': jnp.ones(len(next(iter(batch.values()))))}, task.constants)
                collections = {name: tree for name, tree in variables.items() if name != 'params'}
                return read(network.predict(variables['params'], collections, inputs))

        return jax.jit(outputs, compiler_options=formulation.compiler_options(jax.default_backend()) or None)

    def _stored(self, inputs: Any) -> dict[str, np.ndarray]:
        """Inputs as {field: [B, ...]}, checked."""
        task = self._task
        if self.tokenizer and not isinstance(inputs, Mapping):
            columns = zip(*inputs, strict=True) if 'segments' in self.data['fields'] else [inputs]
            coded = tokenizer.encode(self.tokenizer, *(texts.checked('The input', column).tolist() for column in columns))
            inputs = {name: values for name, values in coded.items() if name in self.data['fields']}
        batch = dict(inputs) if isinstance(inputs, Mapping) else {task.fields[0]: inputs}
        for name, values in batch.items():
            if name not in self.data['fields']:
                raise ConfigError(f"The data have no field '{name}', but {', '.join(self.data['fields'])}.")
            values, field = np.asarray(values), self.data['fields'][name]
            shape, dtype = tuple(field['shape']), np.dtype(field['dtype'])
            if shape[-1:] == (1,) and values.shape[1:] == shape[:-1]:
                values = values[..., None]
            floats = values.dtype.kind == dtype.kind == 'f'
            if values.shape[1:] != shape or not values.size or not (floats or values.dtype == dtype):
                raise ConfigError(
                    f"'{name}' is {values.dtype} {list(values.shape)}, expected inputs as the data are stored, before they are "
                    f'standardized: {dtype} [{", ".join(["B", *map(str, shape)])}], B of at least 1.'
                )
            batch[name] = values.astype(dtype)
        return batch


def described(dataset: Dataset) -> dict[str, Any]:
    """What a run keeps of its data, as JSON: facts, shape and type of an example's fields, names of classes and groups."""
    fields = {name: {'shape': field.shape, 'dtype': np.dtype(field.dtype).name} for name, field in dataset.fields.items()}
    names = {'class_names': dataset.class_names, 'group_names': dataset.group_names}
    return {'facts': dict(dataset.facts), 'fields': fields, **names}


def load(workdir: str, variant: str, seed: int) -> Trained:
    """See research.study.load."""
    directory = runs.find(runs.Reference(pathlib.Path(workdir).expanduser(), variant, seed))
    study = records.read_study(directory.parents[1])
    if 'config_folder' in study:
        files.reach(pathlib.Path(study['config_folder']))  # as at the launch
    return read(directory)


def read(directory: pathlib.Path) -> Trained:
    """The model of a finished run's folder."""
    config = json.loads((directory / 'config.json').read_text())
    data = records.derived(directory / DATA, {'facts': dict, 'fields': dict})
    made = tokenizer.saved(directory / TOKENIZER)
    of_target = tokenizer.saved(directory / TARGET_TOKENIZER) or made
    return Trained(module(config), checkpoint.load_variables(directory / 'scored'), config, data, made, of_target)


def module(config: Mapping[str, Any]) -> nn.Module:
    """The network of a run's config.json, which names the number of classes."""
    group = files.plain('model', config['model'])
    kind = players if tasks.generative(config) else supervised
    return kind.network({**group, 'init_from': ''}, group['num_classes'])
