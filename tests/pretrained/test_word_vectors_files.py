"""Files of word vectors: what is written comes back, here and in gensim, and what is near."""

import numpy as np
import pytest

from research.catalogue import ConfigError
from research.pretrained import word_vectors

WORDS = ['king', 'queen', 'man', 'woman', 'é', '7', 'bread']
BOTH = pytest.mark.parametrize('binary', [False, True])


def drawn():
    return np.random.default_rng(0).normal(0, 1, (len(WORDS), 9)).astype(np.float32)


@BOTH
def test_what_is_written_comes_back(tmp_path, binary):
    """Bit for bit, whatever bytes the numbers have: a space and the end of a line among them."""
    vectors = drawn()
    vectors[0, :2] = np.frombuffer(b' \n \n \n  ', np.float32)
    word_vectors.save(tmp_path / 'vectors', WORDS, vectors, binary)
    words, found = word_vectors.load(tmp_path / 'vectors')
    assert words == WORDS and word_vectors.dim(tmp_path / 'vectors') == 9
    np.testing.assert_array_equal(found, vectors)


@pytest.mark.parity
@BOTH
def test_gensim_reads_and_writes_the_same(tmp_path, binary):
    from gensim.models import KeyedVectors

    word_vectors.save(tmp_path / 'ours', WORDS, drawn(), binary)
    theirs = KeyedVectors.load_word2vec_format(tmp_path / 'ours', binary=binary)
    assert theirs.index_to_key == WORDS
    np.testing.assert_array_equal(theirs.vectors, drawn())
    theirs.save_word2vec_format(tmp_path / 'theirs', binary=binary)
    words, found = word_vectors.load(tmp_path / 'theirs')
    assert words == WORDS
    np.testing.assert_array_equal(found, drawn())
    for plus, minus in ((['king'], []), (['king', 'woman'], ['man'])):
        ours = word_vectors.near(WORDS, drawn(), plus, minus, count=3)
        expected = theirs.most_similar(plus, minus, topn=3)
        assert [word for word, _ in ours] == [word for word, _ in expected]
        np.testing.assert_allclose([cosine for _, cosine in ours], [cosine for _, cosine in expected], atol=1e-6)


def test_an_analogy_leaves_its_own_words_out():
    vectors = np.float32([[1, 1, 0], [1, -1, 0], [0.1, 1, 0], [0.1, -1, 0], [0, 0, 1], [0, 0, 2], [0, 0.1, 1]])
    assert word_vectors.near(WORDS, vectors, ['king', 'woman'], ['man'], count=1)[0][0] == 'queen'
    assert word_vectors.near(WORDS, vectors, ['é'])[0] == ('7', pytest.approx(1))


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (None, "No word vectors at '.*vectors': No such file"),
        (b'', 'holds no word vectors'),
        (b'the 0.1 0.2\nof 0.3 0.4\n', 'files of GloVe lack that line'),
        (b'2 2\nthe 0.1 0.2\nof 0.3\n', "'of' has 1 numbers, not 2"),
        (b'3 2\nthe 0.1 0.2\nof 0.3 0.4\n', 'it has 2 words, not 3'),
        (b'2 2\nthe \0\0', 'buffer is smaller'),
        (b'2 0\nthe\nof\n', 'its first line says 2 words of 0 numbers'),
        (b'99999999999 300\nthe 1 2\n', 'says 99999999999 words of 300 numbers, more than it holds'),
    ],
)
def test_other_files_are_refused(tmp_path, content, message):
    if content is not None:
        (tmp_path / 'vectors').write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        word_vectors.load(tmp_path / 'vectors')


def test_what_no_file_holds_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="'New York' is no word"):
        word_vectors.save(tmp_path / 'vectors', ['New York'], np.ones((1, 2)))
    with pytest.raises(ConfigError, match=r'2 words and vectors \[1, 2\]'):
        word_vectors.save(tmp_path / 'vectors', ['a', 'b'], np.ones((1, 2)))
    with pytest.raises(ConfigError, match="no vector of 'quen'.*'queen'"):
        word_vectors.near(WORDS, drawn(), ['quen'])
