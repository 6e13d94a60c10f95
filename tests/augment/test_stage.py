"""Stage 1: what an augmentation gets, and what it must give back."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research import augment
from research.catalogue import ConfigError

FACTS = {'classes': 10}


def batch():
    return {
        'image': jnp.arange(32, dtype=jnp.uint8).reshape(2, 4, 4, 1),
        'label': jnp.array([3, 9]),
        'valid': jnp.ones(2),
        'position': jnp.zeros((2, 2), jnp.uint32),
    }


def flipped(keys, images, axis=2):
    return jnp.flip(images, axis)


def next_class(keys, batch, facts, step=1):
    return {**batch, 'label': (batch['label'] + step) % facts['classes'], 'seen': batch['label']}


def made(name, reads=None, **kwargs):
    function = augment.create({'names': (f'test_stage:{name}',), 'resize': {}, name: kwargs}, FACTS, reads)
    return function(jax.random.split(jax.random.key(0), 2), batch())


def test_a_function_of_images_is_lifted_and_leaves_the_rest():
    result = made('flipped', axis=1)
    np.testing.assert_array_equal(result['image'], np.flip(batch()['image'], 1))
    assert all((result[field] == batch()[field]).all() for field in ('label', 'valid', 'position'))


def test_a_function_of_the_batch_may_change_labels_and_add_fields_and_knows_facts():
    result = made('next_class', reads=('seen',), step=2)
    assert result['label'].tolist() == [5, 1] and result['seen'].tolist() == [3, 9]


WRONG = {
    'array': (lambda keys, batch: batch['image'], 'returned uint8'),
    'pair': (lambda keys, images: (images, 1), "made 'image' a tuple, which was uint8"),
    'drops': (lambda keys, batch: {'image': batch['image'], 'label': batch['label']}, "without 'position'"),
    'shape': (lambda keys, images: images[:, 1:], r"made 'image' uint8 \(2, 3, 4, 1\), which was uint8 \(2, 4, 4, 1\)"),
    'soft': (lambda keys, batch: {**batch, 'label': jax.nn.one_hot(batch['label'], 10)}, "made 'label' float32"),
}
globals().update({name: function for name, (function, _) in WRONG.items()})


@pytest.mark.parametrize('name', WRONG)
def test_anything_but_such_a_batch_is_refused(name):
    with pytest.raises(ConfigError, match=WRONG[name][1]):
        made(name)


def test_mixing_is_known_by_any_name():
    names = ('cutout', 'research.augment.mixing:mixup', 'test_stage:flipped', 'cutmix')
    assert augment.paired({'names': names}) == ['research.augment.mixing:mixup', 'cutmix']
    with pytest.raises(ConfigError, match='4 of them share 12 examples.*expected a multiple of 8'):
        augment.check_pairs({'names': names}, 12, 4)
    augment.check_pairs({'names': names}, 16, 4)
    augment.check_pairs({'names': ('cutout',)}, 3, 4)


def test_a_field_that_nobody_reads_is_refused():
    with pytest.raises(ConfigError, match=r"added 'seen', which the task does not read \(it may read target\)"):
        made('next_class', reads=('target',))
