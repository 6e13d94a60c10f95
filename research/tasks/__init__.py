"""Losses and metrics as sums and counts, so that padding, accumulation and sharding cannot average averages."""

import types
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from research import catalogue, models
from research.config.files import Misfit
from research.data import Dataset

TASKS = {
    'classification': 'research.tasks.classification:create',
    'generation': 'research.tasks.generation:create',
    'language_model': 'research.tasks.language_model:create',
    'masked_language_model': 'research.tasks.masked_language_model:create',
    'multilabel': 'research.tasks.multilabel:create',
    'question_answering': 'research.tasks.question_answering:create',
    'regression': 'research.tasks.regression:create',
    'tagging': 'research.tasks.tagging:create',
    'text_classification': 'research.tasks.text_classification:create',
    'text_regression': 'research.tasks.text_regression:create',
    'translation': 'research.tasks.translation:create',
    'word_vectors': 'research.tasks.word_vectors:create',
}


def _as_it_is(keys: Any, batch: Mapping[str, Any]) -> Mapping[str, Any]:
    del keys
    return batch


def _nothing(rows: Mapping[str, Any]) -> dict[str, Any]:
    del rows
    return {}


def _nothing_told(rows: Mapping[str, Any], dataset: Dataset) -> dict[str, Any]:
    del rows, dataset
    return {}


class Writing(NamedTuple):
    """Texts that a network writes token by token, to be scored whole.

    Attributes:
      write: (module, variables, batch) -> {name: [B, ...]}, kept of each example like `Task.rows`.
      score: (rows of a whole split, Dataset, the split's name) -> {name: float}.
      scores: the names that `score` gives.
      always: whether validation is scored so at every evaluation, or at the end alone.
    """

    write: Callable[[Any, Any, Mapping[str, Any]], dict[str, Any]]
    score: Callable[[Mapping[str, Any], Dataset, str], dict[str, float]]
    scores: tuple[str, ...]
    always: bool


class Task(NamedTuple):
    """What a model is trained and judged by. A batch is {field: [B, ...]} with 'valid' float32 [B], 0 on padding.

    Facts given to a constructor are static; numbers among them (`research.data.NUMBERS`: class counts, mean, std) belong in
    `constants`, since runs of other numbers share the program.

    Attributes:
      fields: names that a batch must have.
      inputs: (batch, constants) -> (args, kwargs) of the module's `apply`.
      sums: (outputs [B, ...], batch, constants) -> {'loss', 'count', ...}: float32 sums over the valid rows; what an
        evaluation is made of.
      train_sums: the same in training, where `loss / count` is what is trained on.
      losses: (outputs, batch, constants) -> float32 [B], each row's share of the training loss.
      rows: (outputs, batch) -> {name: [B, ...]}, kept of each example of an evaluation; bool 'correct' gives intervals over
        examples, 'loss' tells how well it gives away who was trained on (research.train.membership).
      metrics: sums, added up over batches on the host -> {name: float}, one division each, 'loss' among them.
      optional: names that an augmentation may add; any other is refused.
      constants: arrays beside the examples, by name.
      durations: name -> duration, such as '0.8run'; a run puts its examples, a float32 number, in the place of the constant of
        this name.
      learnt: arrays by name that training moves beside the network, as they are at its start; among the constants of
        `train_sums` and `losses`.
      learn: (learnt, sums over the batch, constants) -> learnt, after each update; sums that are arrays are for it alone. None
        where nothing is learnt.
      prepare: (keys [B], batch) -> batch; draws that an evaluation needs too, such as masked targets. In training a key is of
        the seed and the position, in an evaluation of the row alone.
      judge: rows of a whole split -> {name: float}; for what is no mean over rows.
      judged: the names that `judge` gives, and those of `writing`.
      writing: texts that are scored beside the outputs; None for none.
      recorded: rows of the test split -> {name: plain JSON}, kept in result.json beside the metrics.
      show: rows -> {name: uint8 [H, W] or [H, W, C]}, pictures for the report.
      examples: (rows of the test split, Dataset) -> texts for the report, see `research.tasks.examples`; {} for none.
      decodes: whether the network must have `start` and `step` (research.decoding), which none that sees the future has.
      predictions: outputs -> what a trained model's `predict` gives: probabilities of the classes [B, K], numbers [B]; None
        where the outputs do not tell.
      classifies: whether outputs are logits [B, K] of K = `model.num_classes` classes.
      outputs: K where `model.num_classes` is 0, and the least that it may be; 0: the number of classes of the data.
      falls: whether a training loss that does not fall means that nothing was learnt.
      fits: whether scores on training examples tell how well these were fitted, at a price worth paying.
    """

    fields: tuple[str, ...]
    inputs: Callable[[Mapping[str, Any], Mapping[str, Any]], tuple[tuple[Any, ...], dict[str, Any]]]
    sums: Callable[[Any, Mapping[str, Any], Mapping[str, Any]], dict[str, Any]]
    train_sums: Callable[[Any, Mapping[str, Any], Mapping[str, Any]], dict[str, Any]]
    losses: Callable[[Any, Mapping[str, Any], Mapping[str, Any]], Any]
    rows: Callable[[Any, Mapping[str, Any]], dict[str, Any]]
    metrics: Callable[[Mapping[str, float]], dict[str, float]]
    optional: tuple[str, ...] = ()
    constants: Mapping[str, Any] = types.MappingProxyType({})
    durations: Mapping[str, str] = types.MappingProxyType({})
    learnt: Mapping[str, Any] = types.MappingProxyType({})
    learn: Callable[[Mapping[str, Any], Mapping[str, Any], Mapping[str, Any]], Mapping[str, Any]] | None = None
    prepare: Callable[[Any, Mapping[str, Any]], Mapping[str, Any]] = _as_it_is
    judge: Callable[[Mapping[str, Any]], dict[str, float]] = _nothing
    judged: tuple[str, ...] = ()
    writing: Writing | None = None
    recorded: Callable[[Mapping[str, Any]], dict[str, Any]] = _nothing
    show: Callable[[Mapping[str, Any]], dict[str, Any]] = _nothing
    examples: Callable[[Mapping[str, Any], Dataset], dict[str, Any]] = _nothing_told
    decodes: bool = False
    predictions: Callable[[Any], Any] | None = None
    classifies: bool = False
    outputs: int = 0
    falls: bool = True
    fits: bool = True


def check_smoothing(share: float) -> None:
    """Raises ConfigError where `task.label_smoothing` is no share from 0 below 1."""
    if not 0 <= share < 1:
        raise catalogue.ConfigError(f'task.label_smoothing is {share}, expected a share from 0 below 1, such as 0.1.')


def refuse_smoothing(name: str, share: float) -> None:
    """Raises ConfigError where a task of this name, which has no classes, is to smooth its labels."""
    if share:
        raise catalogue.ConfigError(
            f"task.label_smoothing is {share}, and task '{name}' has no classes to spread a target over: set it to 0."
        )


def check_outputs(name: str, outputs: Any, expected: tuple[int, ...]) -> None:
    """Raises Misfit where a network does not give what a task of this name reads, an array of the shape `expected`."""
    found = list(outputs.shape) if hasattr(outputs, 'shape') else f'a {type(outputs).__name__}'
    if found != [*expected]:
        raise Misfit(
            'model.head',
            f"task '{name}' expects {[*expected]} of the network, and gets {found}. Set model.head ('classification' gives "
            "[B, K], 'tagging' [B, T, K], 'question_answering' [B, T, 2]), and leave K, model.num_classes, at 0.",
        )


def check_fields(name: str, fields: Iterable[str], dataset: Dataset, num_classes: int) -> None:
    """Raises ConfigError where a task of this name reads fields that the data lack, or labels that are no classes."""
    if missing := [field for field in fields if field not in dataset.fields]:
        raise catalogue.ConfigError(
            f"task '{name}' reads the fields {', '.join(fields)}, and data '{dataset.name}' has "
            f'{", ".join(sorted(dataset.fields))}: no {missing[0]}. Choose another task or data.'
            + " For next sentences set data.pair to 'next', with lines of a .txt."
            * missing[0].startswith(('segments', 'other_'))
        )
    if 'label' in fields and not num_classes and 'classes' not in dataset.facts:
        label = dataset.fields['label']
        raise catalogue.ConfigError(
            f"Data '{dataset.name}' has no classes: an example's label is {label.dtype} {label.shape}, expected a whole "
            'number. Cast it, or set model.num_classes.'
        )
    # Data with a name say themselves which classes there are; of one's own only the labels do.
    if 'label' in fields and not num_classes and (':' in dataset.name or dataset.name == 'arrays'):
        _check_gaps(dataset)


def _check_gaps(dataset: Dataset) -> None:
    """Raises ConfigError where a class below the largest label has no example in any part of the data."""
    classes = dataset.facts['classes']
    found = np.unique(dataset.arrays['label'][:]).tolist()
    if absent := sorted(set(range(classes)) - set(found)):
        more = f' and {len(absent) - 1} more' if absent[1:] else ''
        raise catalogue.ConfigError(
            f"Data '{dataset.name}' has labels up to {classes - 1} and no example of class {absent[0]}{more}. Number the "
            'labels without gaps, as numpy.unique(labels, return_inverse=True)[1] does, or set model.num_classes to '
            f'{classes} to keep them so.'
        )


def token_inputs(batch: Mapping[str, Any], constants: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """How a network of texts is called: `(tokens, segments=..., mask=...)`, without segments where there are no pairs."""
    del constants
    return (batch['tokens'],), {name: batch[name] for name in ('segments', 'mask') if name in batch}


def input_field(facts: Mapping[str, Any]) -> str:
    """What a network without tokens reads: 'features' of data that have numbers and no images, else 'image'."""
    return 'features' if 'features' in facts else 'image'


def standardized_input(batch: Mapping[str, Any], constants: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """How a network of images or of features is called: `(standardized,)`.

    Raises:
      ConfigError: images of another type or shape than can be standardized.
    """
    field = 'image' if 'image' in batch else 'features'
    if 'mean' not in constants:
        raise catalogue.ConfigError(
            f"The field '{field}' is {batch[field].dtype} {batch[field].shape[1:]}: expected uint8 or float32 [H, W, C]."
        )
    return (standardize(batch[field], constants),), {}


def standardization(facts: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Constants 'mean' and 'std', float32 [1, 1, 1, C] of images and [1, F] of features; {} of data that have neither."""
    shape = (1, -1) if input_field(facts) == 'features' else (1, 1, 1, -1)
    return {name: np.asarray(facts[name], np.float32).reshape(shape) for name in ('mean', 'std') if name in facts}


def standardize(values: jax.Array, constants: Mapping[str, Any]) -> jax.Array:
    """Stored images [B, H, W, C] or features [B, F] -> float32 of mean 0 and deviation 1 over the training data, by channel."""
    return (values.astype(jnp.float32) - constants['mean']) / constants['std']


def generative(config: Mapping[str, Any]) -> bool:
    """Whether a whole config is for two players: of the task 'generation', or of one's own task with a network of theirs."""
    name = config['task']['name']
    return name == 'generation' or ':' in name and config['model']['name'] in models.GENERATORS


def create(config: Mapping[str, Any], facts: Mapping[str, Any]) -> Task:
    """The task named by the group `config.task`, for data with these facts (`research.data.Dataset.facts`)."""
    return catalogue.build('task', config, TASKS, facts=facts)
