"""Word vectors by skip-gram and CBOW: Mikolov et al. 2013, "Efficient estimation of word representations in vector space" (the
two networks, windows, hierarchical softmax) and "Distributed representations of words and phrases and their compositionality"
(negative sampling, equation 4; subsampling of frequent words; hierarchical softmax, equation 3).

Skip-gram tells from a word each word in its window, CBOW a word from the mean of its window. How far a window reaches is drawn
for each word, from 1 to `window`, over the words that subsampling leaves, as in the authors' program; its formula for how many
it leaves is taken, not the paper's. Rows are computed as matrices: every word of a row against every other, weighted by whether
they are a pair. So a row's negative words are drawn once for all its pairs: each of `shared` words counts `negatives / shared`.
What is no word (special tokens, unknown words, padding) is left out before windows are laid.

Config: {'task.name': 'word_vectors', 'task.loss': 'negative_sampling', 'model.name': 'word2vec'}, and the tokenizer 'words'.
Loss: the mean over pairs. Losses of one window and one number of negatives can be compared. Claim and cost: against gensim in
benchmarks/word_vectors.md. Clashes: hierarchical softmax computes the whole path of a word against each word of its row.

B rows, T words a row, C candidates, V words in all, L inner nodes above a word.
"""

import heapq
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from research import catalogue
from research.catalogue import ConfigError
from research.tasks import Task


def negative_sampling(tokens, targets, draws, constants):
    """Each target against words drawn by their counts to the power 3/4, less those that are the target itself."""
    drawn = jnp.searchsorted(constants['noise'], draws, side='right')
    others = targets @ (tokens[:, :, None] != drawn[:, None]).astype(jnp.float32)
    signs = jnp.where(jnp.arange(tokens.shape[1] + draws.shape[1]) < tokens.shape[1], 1.0, -1.0)
    weights = jnp.concatenate([targets, others * constants['negatives'] / max(draws.shape[1], 1)], -1)
    return jnp.concatenate([tokens, drawn], 1), signs[None, None], weights


def hierarchical_softmax(tokens, targets, draws, constants):
    """Each target by the turns on the way to it in a Huffman tree, in which frequent words are near the root."""
    del draws
    nodes, turns = (jnp.take(constants[name], tokens, 0).reshape(len(tokens), -1) for name in ('nodes', 'turns'))
    weights = jnp.repeat(targets, constants['nodes'].shape[1], -1) * jnp.abs(turns)[:, None]
    return nodes, turns[:, None], weights


# Name -> (words int [B, T], targets float32 [B, T, T], draws [B, shared], constants) -> (candidates int [B, C], whether each is
# to be met, 1, or not, -1, [1 or B, 1, C], weights [B, T, C] of the loss of each).
LOSSES = {
    'negative_sampling': 'research.tasks.word_vectors:negative_sampling',
    'hierarchical_softmax': 'research.tasks.word_vectors:hierarchical_softmax',
}


def create(
    loss: str,
    label_smoothing: float,
    facts: Mapping[str, Any],
    architecture: Literal['skip_gram', 'cbow'] = 'skip_gram',
    window: int = 5,
    negatives: int = 5,
    shared: int = 64,
    subsample: float = 1e-3,
) -> Task:
    """A task of vectors for words; the network is called with `(tokens, candidates, mixture)`, as research.models.word2vec is.

    Args:
      loss: 'negative_sampling' or 'hierarchical_softmax'.
      label_smoothing: 0.
      facts: of the data; 'token_counts' is asked for.
      architecture: 'skip_gram' or 'cbow'.
      window: words to each side at most.
      negatives: words against each target, in negative sampling.
      shared: words that are drawn for them, for a whole row.
      subsample: t; of a word whose share of the text is f, the share (sqrt(f / t) + 1) t / f is read. 0 = all.

    Raises:
      ConfigError: another loss, a smoothing, data without words.
    """
    chosen = catalogue.resolve('loss', loss, LOSSES)
    if label_smoothing:
        raise ConfigError(f'task.label_smoothing is {label_smoothing}: word vectors have no labels to smooth. Set it to 0.')
    counts = np.array(facts.get('token_counts', (1,)), np.float64)
    if not counts.any():
        raise ConfigError('The training texts have no word that data.tokenizer keeps: lower data.tokenizer.min_count.')
    constants = {'keep': kept(counts, subsample)}
    if chosen is hierarchical_softmax:
        constants['nodes'], constants['turns'] = huffman(counts)
    else:
        noise = np.cumsum(counts**0.75)
        constants |= {'noise': (noise / noise[-1]).astype(np.float32), 'negatives': np.float32(negatives)}

    def prepare(keys, batch):
        many = 2 * batch['tokens'].shape[1] + shared
        return {**batch, 'draws': jax.vmap(lambda key: jax.random.uniform(key, (many,)))(keys)}

    def posed(batch, constants):
        tokens, pairs, draws = pairs_of(batch, constants['keep'], window)
        if architecture == 'skip_gram':
            return tokens, None, *chosen(tokens, pairs, draws, constants)
        size = pairs.sum(-1, keepdims=True)
        itself = jnp.eye(tokens.shape[1])[None] * (size > 0)
        return tokens, pairs / jnp.maximum(size, 1), *chosen(tokens, itself, draws, constants)

    def inputs(batch, constants):
        tokens, mixture, candidates, _, _ = posed(batch, constants)
        return (tokens, candidates, mixture), {}

    def losses(outputs, batch, constants):
        *_, signs, weights = posed(batch, constants)
        return (weights * jax.nn.softplus(-signs * outputs)).sum((1, 2)) * batch['valid']

    def sums(outputs, batch, constants):
        _, pairs, _ = pairs_of(batch, constants['keep'], window)
        found = pairs.sum((1, 2)) if architecture == 'skip_gram' else pairs.any(-1).sum(1)
        return {'loss': losses(outputs, batch, constants).sum(), 'count': (found * batch['valid']).sum()}

    return Task(
        fields=('tokens', 'mask'),
        inputs=inputs,
        sums=sums,
        train_sums=sums,
        losses=losses,
        rows=lambda outputs, batch: {},
        metrics=lambda total: {'loss': total['loss'] / total['count']},
        constants=constants,
        prepare=prepare,
    )


def pairs_of(batch: Mapping[str, jax.Array], keep: jax.Array, window: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The words that are read, closed up, and which are pairs.

    Args:
      batch: 'tokens' int [B, T], 'mask' bool [B, T], 'draws' uniform [B, 2 T + shared].
      keep: float [V], how often a word is read.
      window: words to each side at most.

    Returns:
      (int [B, T]; float32 [B, T, T], 1 where the second word is in the window of the first; the draws that are left).
    """
    tokens, length = batch['tokens'], batch['tokens'].shape[1]
    read, reach, rest = jnp.split(batch['draws'], (length, 2 * length), 1)
    read = batch['mask'] & (read < jnp.take(keep, tokens))
    places = jnp.where(read, read.cumsum(1) - 1, length)
    tokens = jax.vmap(lambda row, place: jnp.zeros_like(row).at[place].set(row, mode='drop'))(tokens, places)
    places = jnp.arange(length)
    there = places[None] < read.sum(1, keepdims=True)
    apart = jnp.abs(places[:, None] - places[None])[None]
    pairs = (apart > 0) & (apart <= 1 + jnp.floor(reach * window)[..., None]) & there[:, :, None] & there[:, None]
    return tokens, pairs.astype(jnp.float32), rest


def kept(counts: np.ndarray, subsample: float) -> np.ndarray:
    """How often each word is read, float32 [V]; never one of count 0."""
    if not subsample:
        return (counts > 0).astype(np.float32)
    rarity = subsample / np.maximum(counts / counts.sum(), 1e-30)
    return np.where(counts > 0, np.minimum(np.sqrt(rarity) + rarity, 1), 0).astype(np.float32)


def huffman(counts: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """The way to each word in the binary tree of the shortest mean way: (inner nodes int32 [V, L], turns float32 [V, L]).

    Turns are 1 and -1, and 0 behind the word; words of count 0 have no way. Nodes are numbered from 0, the root is the last.
    """
    order = itertools.count(len(counts))  # beyond the words, and the later of two alike
    heap = [(count, word) for word, count in enumerate(counts) if count]
    heapq.heapify(heap)
    above: dict[int, tuple[int, float]] = {}
    while len(heap) > 1:
        (less, left), (more, right) = heapq.heappop(heap), heapq.heappop(heap)
        node = next(order)
        above[left], above[right] = (node, 1.0), (node, -1.0)
        heapq.heappush(heap, (less + more, node))
    ways = []
    for word in range(len(counts)):
        way = []
        while word in above:
            word, turn = above[word]
            way.append((word - len(counts), turn))
        ways.append(way[::-1])
    longest = max(1, *map(len, ways))
    table = np.array([way + [(0, 0.0)] * (longest - len(way)) for way in ways])
    return table[..., 0].astype(np.int32), table[..., 1].astype(np.float32)
