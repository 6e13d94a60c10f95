"""A small text task over fields of its own: the masked mean of embeddings, over tokens of unequal length."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from research.tasks import classification

LENGTH, VOCABULARY, CLASSES = 12, 32, 3

CONFIG = {
    'data.name': 'text:load',
    'task.name': 'text:task',
    'model.name': 'text:Mean',
    'data.validation': 0.2,
    'data.batch_size': 16,
    'data.eval_batch_size': 20,
    'optimizer.learning_rate': 1.0,
    'train.devices': 1,
    'train.eval_every': '20st',
    'study.budget': '40st',
}


def load(path):
    """Sentences of 1 to 12 tokens; a class prefers a third of the vocabulary. Behind the last token stands rubbish."""
    del path
    draw = np.random.default_rng(0)

    def part(count):
        label = draw.integers(0, CLASSES, count)
        tokens = (draw.integers(0, VOCABULARY // 2, (count, LENGTH)) + label[:, None] * 8) % VOCABULARY
        mask = np.arange(LENGTH) < draw.integers(1, LENGTH + 1, (count, 1))
        return {'tokens': np.where(mask, tokens, VOCABULARY - 1).astype(np.int32), 'mask': mask, 'label': label}

    return {'train': part(240), 'test': part(60)}


def task(loss, label_smoothing, facts):
    """Classification of tokens."""
    plain = classification.create(loss, label_smoothing, facts)
    return plain._replace(
        fields=('tokens', 'mask', 'label'),
        inputs=lambda batch, constants: ((batch['tokens'],), {'mask': batch['mask']}),
    )


class Mean(nn.Module):
    """The mean embedding of the tokens that are there, and a linear layer."""

    num_classes: int

    @nn.compact
    def __call__(self, tokens, mask, train=False):
        x = nn.Embed(VOCABULARY, 8, name='embed')(tokens)
        there = mask[..., None].astype(x.dtype)
        return nn.Dense(self.num_classes, name='head')((x * there).sum(1) / jnp.maximum(there.sum(1), 1))
