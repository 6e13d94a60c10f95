"""Generation by two players, and how generated examples are judged: by features of a classifier, against held-out examples.

The loss is the non-saturating one (Goodfellow et al. 2014, Generative adversarial nets, section 3). Label smoothing is on one
side alone (Salimans et al. 2016, Improved techniques for training GANs, section 3.5): the discriminator's target for real
examples is 1 - smoothing. Config: {'task.label_smoothing': 0.1}. Claim: a discriminator that is less sure, and less easily
fooled by examples far from the data.

Fréchet distance: Heusel et al. 2017, GANs trained by a two time-scale update rule, equation 6. Precision and recall:
Kynkäänniemi et al. 2019, Improved precision and recall metric for assessing generative models, equations 1 and 2. All three
compare as many generated examples as real ones, and depend on how many: compare at one count, and by one classifier.
"""

import functools
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from research import catalogue, models
from research.data import Dataset
from research.tasks import check_smoothing, standardize

# The classifier whose features are compared; trained once a study and data set (research.train.judge).
JUDGE = {'name': 'cnn', 'widths': (16, 32), 'hidden': (64,)}
# Sums that a step adds up, each divided by the count of examples.
MEANS = {
    'loss': 'loss',
    'discriminator_loss': 'discriminator_loss',
    'caught': 'discriminator_accuracy',
    'judge_correct': 'judge_accuracy',
}
# Stored pixels 0 to 255 are what the players see as -1 to 1.
_HALF = 127.5
# Distances are held for so many rows at a time; from products they are exact to this share of a member's square.
_ROWS, _ROUNDING = 1024, 1e-13


class Generation(NamedTuple):
    """What two players are trained and judged by.

    Attributes:
      fields: as in `research.tasks.Task`.
      discriminator: (logits of real, of generated examples, float32 [B] each) -> losses [B].
      generator: logits of generated examples [B] -> losses [B].
      real: batch -> its examples as the players see them, float32 [B, H, W, C] in [-1, 1].
      stored: generated examples in [-1, 1] -> as the data store them.
      recognized: (constants, examples in [-1, 1], batch) -> (features [B, F], whether the classes are right bool [B]), by the
        classifier in the constants.
      check: (name of the network, shape of what it makes, Dataset); raises ConfigError where these do not fit.
      metrics: sums, added up over batches on the host -> {name: float}.
      judge: {'real', 'generated': features [N, F]} -> {name: float}.
      show: {'samples': stored examples} -> {'samples': a picture of them in rows}.
      optional, constants, durations, judged, recorded, examples, outputs, falls, fits: as in `research.tasks.Task`.
    """

    fields: tuple[str, ...]
    discriminator: Callable[[jax.Array, jax.Array], jax.Array]
    generator: Callable[[jax.Array], jax.Array]
    real: Callable[[Mapping[str, jax.Array]], jax.Array]
    stored: Callable[[jax.Array], jax.Array]
    recognized: Callable[..., tuple[jax.Array, jax.Array]]
    check: Callable[[str, tuple[int, ...], Dataset], None]
    metrics: Callable[[Mapping[str, float]], dict[str, float]]
    judge: Callable[[Mapping[str, np.ndarray]], dict[str, float]]
    show: Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]
    optional: tuple[str, ...] = ()
    constants: Mapping[str, Any] = types.MappingProxyType({})
    durations: Mapping[str, str] = types.MappingProxyType({})
    judged: tuple[str, ...] = ('frechet', 'precision', 'recall')
    recorded: Callable[[Mapping[str, Any]], dict[str, Any]] = lambda rows: {}
    examples: Callable[[Mapping[str, Any], Dataset], dict[str, Any]] = lambda rows, dataset: {}
    outputs: int = 0
    falls: bool = False
    fits: bool = False  # distances between sets would cost as much again


def create(loss: str, label_smoothing: float, facts: Mapping[str, Any], neighbours: int = 3) -> Generation:
    """The task of a generator and a discriminator.

    Args:
      loss: 'non_saturating', or an import path of `smoothing -> (discriminator, generator)`, as in `Generation`.
      label_smoothing: what the target of real examples is short of 1, from 0 below 1.
      facts: of the data; 'classes' is asked for.
      neighbours: k, how far an example's surroundings reach in precision and recall.
    """
    players = catalogue.resolve('loss', loss, LOSSES)
    check_smoothing(label_smoothing)
    if neighbours < 1:
        raise catalogue.ConfigError(f'task.neighbours is {neighbours}, expected 1 or more, such as 3.')
    features = penultimate(models.create(num_classes=facts.get('classes', 0), **JUDGE))

    def recognized(constants, examples, batch):
        judge = constants['judge']
        stored = jnp.round((examples + 1) * _HALF)  # as an image file holds them
        of_examples, logits = features(judge['variables'], standardize(stored, judge))
        return of_examples, jnp.argmax(logits, -1) == batch['label']

    def judge(features: Mapping[str, np.ndarray]) -> dict[str, float]:
        real, generated = features['real'], features['generated']
        precision, recall = precision_and_recall(real, generated, neighbours)
        return {'frechet': frechet(*moments(real), *moments(generated)), 'precision': precision, 'recall': recall}

    discriminator, generator = players(label_smoothing)
    return Generation(
        fields=('image', 'label'),
        discriminator=discriminator,
        generator=generator,
        real=lambda batch: batch['image'].astype(jnp.float32) / _HALF - 1,
        stored=lambda made: jnp.round((made + 1) * _HALF).astype(jnp.uint8),
        recognized=recognized,
        check=functools.partial(_check, neighbours + 1),
        metrics=metrics,
        judge=judge,
        show=lambda rows: {'samples': grid(rows['samples'])},
    )


def _check(least: int, name: str, made: tuple[int, ...], dataset: Dataset) -> None:
    """Refuses splits of fewer examples than `least`, and images that the network does not make."""
    for split in ('validation', 'test'):
        if 0 < (count := len(dataset.splits[split])) < least:
            raise catalogue.ConfigError(
                f'The {split} split has {count} examples, and generated ones are judged by at least {least}: make it '
                'larger, or lower task.neighbours.'
            )
    image = dataset.fields['image']
    if made != image.shape or image.dtype != np.uint8:
        raise catalogue.ConfigError(
            f"'{name}' makes uint8 images of {made}, and data '{dataset.name}' has {image.dtype} {image.shape}: "
            'set model.side and model.channels to the data.'
        )


def grid(images: np.ndarray, columns: int = 10) -> np.ndarray:
    """Images [N, H, W, C] in rows of `columns`, a white pixel between: uint8 [rows (H + 1) - 1, columns (W + 1) - 1, C]."""
    count, height, width, channels = images.shape
    rows = -(-count // columns)
    padded = np.full((rows * columns, height + 1, width + 1, channels), 255, np.uint8)
    padded[:count, :height, :width] = images
    table = padded.reshape(rows, columns, height + 1, width + 1, channels).swapaxes(1, 2)
    return table.reshape(rows * (height + 1), columns * (width + 1), channels)[:-1, :-1]


def non_saturating(smoothing: float) -> tuple[Callable[..., jax.Array], Callable[..., jax.Array]]:
    """Cross-entropy of both answers; the generator is trained on the opposite answer, not on the opposite loss."""

    def discriminator(real: jax.Array, generated: jax.Array) -> jax.Array:
        target = jnp.full_like(real, 1 - smoothing)
        return optax.sigmoid_binary_cross_entropy(real, target) + jax.nn.softplus(generated)

    def generator(generated: jax.Array) -> jax.Array:
        return jax.nn.softplus(-generated)

    return discriminator, generator


LOSSES = {'non_saturating': 'research.tasks.generation:non_saturating'}


def metrics(total: Mapping[str, float]) -> dict[str, float]:
    """Means of what was added up: 'loss' is the generator's; 'discriminator_accuracy' is over real and generated examples."""
    return {name: total[key] / total['count'] for key, name in MEANS.items() if key in total}


def moments(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean [F] and covariance [F, F] of features [N, F], in float64."""
    features = np.asarray(features, np.float64)
    return features.mean(0), np.atleast_2d(np.cov(features, rowvar=False))


def frechet(mean: np.ndarray, covariance: np.ndarray, other_mean: np.ndarray, other_covariance: np.ndarray) -> float:
    """The Fréchet distance d^2 of two normal distributions: |m - m'|^2 + Tr(C + C' - 2 (C C')^(1/2)).

    The trace of the root of C C' is the sum of the singular values of C^(1/2) C'^(1/2), which are real whatever rounding
    does, also where a covariance is singular.

    Args:
      mean, other_mean: float64 [F].
      covariance, other_covariance: float64 [F, F], symmetric.

    Returns:
      0 or more, in the features' unit squared; infinity where an input is not finite.
    """
    if not all(np.isfinite(part).all() for part in (mean, covariance, other_mean, other_covariance)):
        return float('inf')
    between = np.linalg.svd(_root(covariance) @ _root(other_covariance), compute_uv=False).sum()
    distance = np.sum((mean - other_mean) ** 2) + np.trace(covariance) + np.trace(other_covariance) - 2 * between
    return max(float(distance), 0.0)


def precision_and_recall(real: np.ndarray, generated: np.ndarray, neighbours: int = 3) -> tuple[float, float]:
    """How many of the generated examples are like real ones, and how many of the real ones are like generated ones.

    An example is like a set when it is no farther from some member than that member's k-th nearest other member is.

    Args:
      real: features [N, F].
      generated: features [M, F].
      neighbours: k, less than N and M.

    Returns:
      (precision, recall), shares from 0 to 1.
    """
    real, generated = np.asarray(real, np.float64), np.asarray(generated, np.float64)
    centre = real.mean(0)  # distances are differences of squares, which leave no digits far from 0
    real, generated = real - centre, generated - centre
    return _covered(generated, real, neighbours), _covered(real, generated, neighbours)


def penultimate(classifier: nn.Module) -> Callable[[Any, jax.Array], tuple[jax.Array, jax.Array]]:
    """(variables, images [B, H, W, C]) -> (features [B, F], logits [B, K]): what goes into the layer `head`, and comes out."""

    def of(variables: Any, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        met = []

        def note(call, args, kwargs, context):
            if context.module.path == ('head',) and context.method_name == '__call__':
                met.append(args[0])
            return call(*args, **kwargs)

        with nn.intercept_methods(note):
            logits = classifier.apply(variables, images)
        return met[0], logits

    return of


def _root(covariance: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(covariance)
    return vectors * np.sqrt(np.maximum(values, 0)) @ vectors.T


def _covered(points: np.ndarray, members: np.ndarray, neighbours: int) -> float:
    """Share of the points that lie within the radius of some member."""
    if len(members) <= neighbours:
        raise catalogue.ConfigError(
            f'{len(members)} examples have no {neighbours} neighbours each: judge more, or lower task.neighbours.'
        )
    # Each member is its own nearest.
    radii = np.concatenate([np.partition(rows, neighbours, axis=1)[:, neighbours] for rows in _distances(members, members)])
    reach = radii + _ROUNDING * np.square(members).sum(1)
    return float(np.mean(np.concatenate([(rows <= reach).any(1) for rows in _distances(points, members)])))


def _distances(points: np.ndarray, members: np.ndarray) -> Iterator[np.ndarray]:
    """Squared distances [rows, members], some rows at a time."""
    squares = np.square(members).sum(1)
    for first in range(0, len(points), _ROWS):
        part = points[first : first + _ROWS]
        yield np.square(part).sum(1, keepdims=True) + squares - 2 * part @ members.T
