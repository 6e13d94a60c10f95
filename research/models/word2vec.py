"""word2vec (Mikolov et al. 2013): a table of word vectors, a table of what they are held against, and the products of the two.

Which words are held against which, and what is wanted of a product, is the task's (research.tasks.word_vectors). The first
table is 'token_embedding', as in the other networks over tokens. B rows, T words, C candidates, D features, V words in all.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from research.models.network import check_tokens


class Word2Vec(nn.Module):
    """Products `[B, T, C]` of T word vectors and C candidates a row. Begins as the authors' program: small, and at 0.

    Attributes:
      num_classes: not read; a word is told from others two at a time.
      vocabulary_size: V; tokens are below it.
      dim: D.
    """

    num_classes: int = 0
    vocabulary_size: int = 30522
    dim: int = 100

    HEADS = ()
    EXAMPLE = jax.ShapeDtypeStruct((1, 1), jnp.int32)

    @nn.compact
    def __call__(
        self, tokens: jax.Array, candidates: jax.Array | None = None, mixture: jax.Array | None = None, train: bool = False
    ) -> jax.Array:
        """The products.

        Args:
          tokens: int `[B, T]`, below V.
          candidates: int `[B, C]`, rows of the second table, below V; None for the tokens.
          mixture: float `[B, T, T]`, the weights by which vectors of a row are summed before the product, as CBOW does; None
            for each alone.
          train: not read.

        Raises:
          ConfigError: no tokens.
        """
        del train
        check_tokens('word2vec', tokens)
        small = nn.initializers.uniform(1 / self.dim)
        vectors = nn.Embed(
            self.vocabulary_size, self.dim, embedding_init=lambda *args: small(*args) - 0.5 / self.dim, name='token_embedding'
        )(tokens)
        if mixture is not None:
            vectors = mixture @ vectors
        output = nn.Embed(self.vocabulary_size, self.dim, embedding_init=nn.initializers.zeros, name='output')
        return vectors @ output(tokens if candidates is None else candidates).swapaxes(1, 2)
