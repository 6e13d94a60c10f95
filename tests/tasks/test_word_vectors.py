"""Word vectors: losses against the equations of the papers, pairs, draws, and a study of them."""

import functools
import json

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import research.study
from research import models, pretrained, tasks
from research.catalogue import ConfigError
from research.config import overrides
from research.models.word2vec import Word2Vec
from research.pretrained import word_vectors as vectors_in_files
from research.pretrained.files import Stored
from research.study import identity, launch
from research.tasks import word_vectors
from research.train import experiment as experiments
from research.train.clock import Clock
from research.train.program import Session

# Of 0 are the special tokens.
COUNTS = (0, 0, 0, 0, 0, 9, 1, 4, 4, 30, 2)
LENGTHS = (7, 4, 0)
TOKENS = np.random.default_rng(0).integers(4, len(COUNTS), (3, 8)).astype(np.int32)
MASK = np.arange(8) < np.array(LENGTHS)[:, None]
BATCH = {'tokens': TOKENS, 'mask': MASK, 'valid': np.ones(3, np.float32)}
ARCHITECTURES = pytest.mark.parametrize('architecture', ['skip_gram', 'cbow'])


def made(loss='negative_sampling', **changes):
    group = {'name': 'word_vectors', 'loss': loss, 'label_smoothing': 0.0, 'window': 3, 'subsample': 0.3, **changes}
    return tasks.create(group, {'token_counts': COUNTS})


@functools.cache
def tables():
    draw = np.random.default_rng(1)
    return [draw.normal(0, 0.7, (len(COUNTS), 5)).astype(np.float32) for _ in range(2)]


@functools.cache
def computed(loss, architecture):
    """Compiled, of a batch and the numbers that its keys are of: (the batch as prepared, sums, losses)."""
    task = made(loss, architecture=architecture, negatives=4, shared=6)
    params = dict(zip(('token_embedding', 'output'), ({'embedding': table} for table in tables()), strict=True))

    @jax.jit
    def of(batch, numbers):
        batch = task.prepare(jax.vmap(jax.random.key)(numbers), batch)
        args, kwargs = task.inputs(batch, task.constants)
        outputs = Word2Vec(vocabulary_size=len(COUNTS), dim=5).apply({'params': params}, *args, **kwargs)
        return batch, task.sums(outputs, batch, task.constants), task.losses(outputs, batch, task.constants)

    return lambda batch, numbers=(0, 1, 2): jax.tree.map(np.asarray, of(batch, np.array(numbers)))


def expected(batch, architecture, of_pair, window=3, subsample=0.3):
    """Mean over pairs, word by word; `of_pair` is (vector, word, draws that are left) -> loss."""
    found, share = [], np.array(COUNTS) / sum(COUNTS)
    for tokens, mask, draws in zip(batch['tokens'], batch['mask'], batch['draws'], strict=True):
        read, reach, rest = np.split(draws, (8, 16))
        words = []
        for word, there, number in zip(tokens, mask, read, strict=True):
            often = (np.sqrt(share[word] / subsample) + 1) * subsample / share[word] if COUNTS[word] else 0
            words += [word] if there and number < often else []
        for place, word in enumerate(words):
            far = 1 + int(reach[place] * window)
            around = words[max(0, place - far) : place] + words[place + 1 : place + 1 + far]
            if architecture == 'skip_gram':
                found += [of_pair(tables()[0][word], other, rest) for other in around]
            elif around:
                found.append(of_pair(tables()[0][around].mean(0), word, rest))
    return np.mean(found), len(found)


def log_sigmoid(x):
    return -np.log(1 + np.exp(-x))


@ARCHITECTURES
def test_negative_sampling_is_equation_4(architecture):
    """Of the paper on distributed representations, its expectation over what a row has drawn."""
    output = tables()[1]
    chances = np.cumsum(np.array(COUNTS) ** 0.75) / np.sum(np.array(COUNTS) ** 0.75)

    def of_pair(vector, word, draws):
        noise = [next(w for w, below in enumerate(chances) if number < below) for number in draws]
        others = [log_sigmoid(-output[other] @ vector) for other in noise if other != word]
        return -log_sigmoid(output[word] @ vector) - 4 / 6 * sum(others)

    batch, sums, losses = computed('negative_sampling', architecture)(BATCH)
    loss, count = expected(batch, architecture, of_pair)
    assert sums['count'] == count > 5
    assert made().metrics(sums)['loss'] == pytest.approx(loss, rel=1e-5)
    assert losses.sum() == pytest.approx(sums['loss'], rel=1e-6)


@ARCHITECTURES
def test_hierarchical_softmax_is_equation_3(architecture):
    output, (nodes, turns) = tables()[1], word_vectors.huffman(COUNTS)

    def of_pair(vector, word, draws):
        del draws
        way = [(node, turn) for node, turn in zip(nodes[word], turns[word], strict=True) if turn]
        return -sum(log_sigmoid(turn * (output[node] @ vector)) for node, turn in way)

    batch, sums, _ = computed('hierarchical_softmax', architecture)(BATCH)
    loss, count = expected(batch, architecture, of_pair)
    assert sums['count'] == count > 5
    assert made().metrics(sums)['loss'] == pytest.approx(loss, rel=1e-5)


def test_the_tree_is_huffmans():
    """Chances of all words sum to 1 whatever the vectors, and the mean way is as short as sums of merged counts make it."""
    nodes, turns = word_vectors.huffman(COUNTS)
    products = np.random.default_rng(0).normal(0, 2, len(COUNTS))
    chances = np.where(turns == 0, 1, 1 / (1 + np.exp(-turns * products[nodes]))).prod(1)[np.array(COUNTS) > 0]
    assert chances.sum() == pytest.approx(1)
    lengths, left, merged = np.abs(turns).sum(1), sorted(filter(None, COUNTS)), 0
    while len(left) > 1:
        merged += left[0] + left[1]
        left = sorted([left[0] + left[1], *left[2:]])
    assert lengths @ COUNTS == merged and not lengths[:5].any()
    assert word_vectors.huffman([0, 3])[1].tolist() == [[0], [0]]


@ARCHITECTURES
@pytest.mark.parametrize('loss', ['negative_sampling', 'hierarchical_softmax'])
def test_nothing_reaches_over_the_mask(loss, architecture):
    """Padding changes no loss, and a row's loss is its own: the same at another place of a batch."""
    compute = computed(loss, architecture)
    _, sums, losses = compute(BATCH)
    np.testing.assert_array_equal(losses, compute(BATCH | {'tokens': np.where(MASK, TOKENS, 9)})[2])
    assert losses[2] == 0 and (losses[:2] > 0).all()
    moved = {name: values[[2, 1, 0]] for name, values in BATCH.items()}
    np.testing.assert_allclose(compute(moved, (2, 1, 0))[2], losses[::-1], rtol=1e-6)
    _, fewer, _ = compute(BATCH | {'valid': np.float32([1, 0, 1])})
    assert fewer['loss'] == pytest.approx(losses[0]) and 0 < fewer['count'] < sums['count']


def laid(tokens, keep):
    draws = np.random.default_rng(0).uniform(size=(len(tokens), 16)).astype(np.float32)
    batch = {'tokens': tokens, 'mask': tokens > 0, 'draws': draws}
    return jax.tree.map(np.asarray, jax.jit(word_vectors.pairs_of, static_argnums=2)(batch, keep, 3))[:2]


def test_windows_are_drawn_over_the_words_that_are_left():
    """A word between two others that is never read does not part them, and each reach is as likely."""
    tokens = np.tile(np.int32([9, 3, 9, 1, 9, 9, 9, 9]), (4000, 1))
    keep = np.where(np.arange(len(COUNTS)) == 9, 1.0, 0.0)
    closed, pairs = laid(tokens, keep)
    assert (closed[:, :6] == 9).all()
    reached = pairs.mean(0)
    assert not reached[6:].any() and not reached[:, 6:].any() and not np.diag(reached).any()
    np.testing.assert_allclose(reached[0, :6], [0, 1, 2 / 3, 1 / 3, 0, 0], atol=0.03)


def test_frequent_words_are_read_less():
    """As often as word2vec.c says."""
    share = 30 / sum(COUNTS)
    keep = word_vectors.kept(np.array(COUNTS), 0.05)
    assert keep[9] == pytest.approx((np.sqrt(share / 0.05) + 1) * 0.05 / share) and keep[6] == 1 and not keep[:5].any()
    assert word_vectors.kept(np.array(COUNTS), 0)[[0, 9]].tolist() == [0, 1]
    closed, _ = laid(np.full((4000, 8), 9, np.int32), keep)
    assert (closed == 9).mean() == pytest.approx(keep[9], abs=0.02)


def test_what_cannot_be_is_refused():
    with pytest.raises(ConfigError, match='Valid: hierarchical_softmax, negative_sampling'):
        made('softmax')
    with pytest.raises(ConfigError, match='no labels to smooth'):
        made(label_smoothing=0.1)
    with pytest.raises(ConfigError, match='lower data.tokenizer.min_count'):
        tasks.create({'name': 'word_vectors', 'loss': 'negative_sampling', 'label_smoothing': 0.0}, {'token_counts': (0, 0)})
    with pytest.raises(ConfigError, match='reads tokens'):
        jax.eval_shape(Word2Vec().init, jax.random.key(0), jnp.zeros((2, 8, 8, 1)))


CONFIG = """
from research.config import base


def get_config(arg=''):
    config = base.get_config()
    config.task = {'name': 'word_vectors', 'loss': 'negative_sampling', 'label_smoothing': 0.0}
    config.model = {'name': 'word2vec', 'dim': 8, 'num_classes': 0, 'init_from': ''}
    config.optimizer.name = 'adam'
    config.data.update({'name': 'texts', 'path': PATH, 'test': 0.2, 'length': 12, 'tokenizer': {'name': 'words'}})
    config.study.update({'budget': '10ep', 'metric': 'test/loss', 'higher_is_better': False, 'seeds': 1, 'null': False})
    config.study.latency = ()
    config.study.variants = {
        'tree': {'task.loss': 'hierarchical_softmax'},
        'bag': {'task.architecture': 'cbow'},
        'wide': {'task.window': 8, 'model.dim': 16},
    }
    return config
"""


@pytest.mark.long
def test_a_study_of_vectors(tmp_path):
    """From lines of text to vectors: words that stand together are near, those that never do are not."""
    draw = np.random.default_rng(0)
    lines = [' '.join(draw.choice([*'abcdef'] if row % 2 else [*'uvwxyz'], 10)) for row in range(400)]
    (tmp_path / 'train.txt').write_text('\n\n'.join(lines))
    (tmp_path / 'study.py').write_text(CONFIG.replace('PATH', repr(str(tmp_path / 'train.txt'))))
    assert launch.launch(str(tmp_path / 'study.py'), str(tmp_path / 'runs'), {'optimizer.learning_rate': '0.05'}) == 0
    results = [json.loads(path.read_text()) for path in (tmp_path / 'runs').glob('runs/*/result.json')]
    assert len(results) == 4 and all(np.isfinite(result['metrics']['test/loss']) for result in results)
    for variant in ('baseline', 'tree', 'bag'):
        trained = research.study.load(tmp_path / 'runs', variant, 0)
        of = trained.tokenizer.token_to_id
        vectors = trained.variables['params']['token_embedding']['embedding']
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        inside, across = (np.mean([unit[of('a')] @ unit[of(word)] for word in words]) for words in ('bcdef', 'uvwxyz'))
        assert inside > across + 0.3


def test_other_networks_start_from_word_vectors(monkeypatch):
    """The vectors are those of the run, and so is their length; nothing else is taken. BERT takes none."""
    table = np.random.default_rng(0).normal(size=(11, 3)).astype(np.float32)
    tensors = {'params/token_embedding/embedding': table, 'params/output/embedding': table}
    stored = Stored('a run', frozenset(), lambda: tensors, network={'name': 'word2vec', 'dim': 3})
    monkeypatch.setattr(pretrained, '_stored', lambda path: stored)
    group = {'name': 'lstm', 'head': 'classification', 'width': 4, 'init_from': 'a run', 'num_classes': 0}
    given = pretrained.arguments(group)
    assert given == {'dim': 3, 'head': 'classification', 'width': 4}
    module = models.create('lstm', 2, vocabulary_size=11, **given)
    found = pretrained.weights(module, 'lstm', 'a run', (1, 1))
    chex.assert_trees_all_equal(found, {'params': {'token_embedding': {'embedding': table}}})
    with pytest.raises(ConfigError, match=r"word vectors \[11, 3\], and 'lstm' takes \[12, 3\]"):
        pretrained.weights(module.clone(vocabulary_size=12), 'lstm', 'a run', (1, 1))
    with pytest.raises(ConfigError, match="is a 'word2vec', not a 'bert'"):
        pretrained.arguments({**group, 'name': 'bert'})


class TestFile:
    """Word vectors in a file of word2vec's: 'cat' and 'sat' among the data's words, 'whale' of none of them."""

    WORDS = ['sat', 'whale', 'cat']
    VECTORS = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)

    @pytest.fixture
    def config(self, tmp_path):
        """(changes of a config) -> a config of texts that starts from the file."""
        rows = ['text\tlabel', *(f'the {animal} sat\t{i % 2}' for i, animal in enumerate(('cat', 'Dog') * 20))]
        (tmp_path / 'texts.tsv').write_text('\n'.join(rows))
        (tmp_path / 'vocab.txt').write_text('sat 40\nwhale 2\ncat 20\n')  # as word2vec.c leaves it

        def made(file='vectors.vec', words=self.WORDS, **changes):
            if file:
                vectors = np.where(np.array(words)[:, None] == 'nan', np.nan, self.VECTORS)
                vectors_in_files.save(tmp_path / file, words, vectors, binary=file.endswith('.bin'))
            given = {
                'task.name': 'text_classification',
                'data.name': 'texts',
                'data.path': str(tmp_path / 'texts.tsv'),
                'data.test': 0.2,
                'data.batch_size': 8,
                'data.tokenizer.name': 'words',
                'model.name': 'word_average',
                'model.init_from': str(tmp_path / file) if file else '',
                'study.budget': '2st',
            }
            return overrides.apply(overrides.defaults(), given | changes)

        return made

    @staticmethod
    def built(config):
        return experiments.build(config, Session(), identity.compile_key(config))

    @pytest.mark.parametrize('file', ['vectors.vec', 'vectors.txt', 'vectors.bin'])
    def test_words_take_their_vectors_and_the_others_are_drawn(self, config, file):
        with pytest.warns(UserWarning, match=r'has vectors of 2 of the 9 tokens; the others are drawn'):
            started = self.built(config(file))
        drawn = self.built(config('', **{'model.dim': 5})).init(Clock()).params
        params = started.init(Clock()).params
        tokens = json.loads(started.dataset.tokenizer)['model']['vocab']
        expected = np.array(drawn['token_embedding']['embedding'])
        expected[[tokens['sat'], tokens['cat']]] = self.VECTORS[[0, 2]]
        np.testing.assert_array_equal(params['token_embedding']['embedding'], expected)
        chex.assert_trees_all_equal(params['head'], drawn['head'])

    @pytest.mark.filterwarnings('ignore:.*has vectors of')
    def test_of_two_vectors_of_a_word_the_first_counts(self, config):
        built = self.built(config(words=['sat', 'cat', 'cat']))
        row = json.loads(built.dataset.tokenizer)['model']['vocab']['cat']
        np.testing.assert_array_equal(built.weights['params']['token_embedding']['embedding'].table[row], self.VECTORS[1])

    @pytest.mark.filterwarnings('ignore:.*has vectors of')
    def test_another_tokenizer_of_as_many_words_is_another_table(self, config):
        """In one process, which keeps what it has read."""
        session, known = Session(), []
        for lowercase in (True, False):
            asked = config(words=['sat', 'whale', 'Dog'], **{'data.tokenizer.lowercase': lowercase})
            built = experiments.build(asked, session, identity.compile_key(asked))
            known.append(int(built.weights['params']['token_embedding']['embedding'].known.sum()))
        assert known == [1, 2]

    @pytest.mark.parametrize(
        ('asked', 'message'),
        [
            ({'words': ['Sat', 'whale', 'Cat']}, "a vector of none of the 9 tokens.*name is 'words'.*lowercase"),
            ({'words': ['sat', 'whale', 'nan']}, "a vector of 'nan' that is not finite"),
            ({'model.dim': 6}, 'vectors of 5 numbers, and model.dim is 6: leave model.dim out'),
        ],
    )
    def test_one_that_does_not_fit_is_refused(self, config, asked, message):
        with pytest.raises(ConfigError, match=message):
            self.built(config(**asked))

    def test_words_mean_nothing_to_other_tokens(self, config):
        group = config()['model']
        module = models.create('word_average', 2, vocabulary_size=9, dim=5)
        with pytest.raises(ConfigError, match='the data have no tokenizer'):
            pretrained.weights(module, 'word_average', group['init_from'], (1, 1))
        with pytest.raises(ConfigError, match='is not a safetensors file'):
            pretrained.arguments({**group, 'name': 'bert'})
