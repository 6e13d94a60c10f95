"""Progressive resizing: which side where, and what becomes of images and sequences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from research.augment import resize
from research.catalogue import ConfigError


def made(full=32, **group):
    return resize.create({'resize': {'name': 'progressive', **group}}, full, lambda t: round(float(t[:-3]) * 1000))


def test_sides_rise_in_rungs_to_the_whole():
    sides = made(start=0.5, until='0.8run', rungs=4, multiple=4)
    assert sides.changes == (200, 400, 600, 800)
    assert [sides.at(p) for p in (0, 199, 200, 400, 799, 800, 10**6)] == [16, 16, 20, 24, 28, 32, 32]


@given(full=st.integers(4, 300), start=st.floats(0.05, 1), rungs=st.integers(1, 9), multiple=st.integers(1, 8))
def test_sides_never_fall_and_end_whole(full, start, rungs, multiple):
    sides = made(full, start=start, rungs=rungs, multiple=multiple)
    found = [sides.at(p) for p in range(0, 1001, 25)]
    assert found == sorted(found) and found[-1] == full and min(found) >= min(multiple, full)


@pytest.mark.parametrize('group', [{'start': 0.0}, {'start': 2.0}, {'rungs': 0}, {'multiple': 0}, {'strat': 0.5}])
def test_nonsense_is_refused(group):
    with pytest.raises(ConfigError):
        made(**group)


@settings(max_examples=10)
@given(height=st.integers(2, 40), width=st.integers(1, 40), share=st.floats(0.1, 1))
@pytest.mark.long
def test_images_keep_their_proportions_and_a_flat_colour(height, width, share):
    side = max(1, round(height * share))
    small = jax.jit(resize.resize, static_argnums=1)(np.full((2, height, width, 3), 0.7, np.float32), side)
    assert small.shape == (2, side, max(1, round(width * side / height)), 3)
    np.testing.assert_allclose(small, 0.7, rtol=1e-5)


def test_a_pattern_finer_than_the_small_image_is_gone():
    """Of stripes one pixel wide, a third of the side would keep some and drop others; antialiased, they are grey."""
    stripes = jnp.broadcast_to((jnp.arange(36) % 2).astype(jnp.float32)[None, :, None, None], (1, 36, 36, 1))
    inner = resize.resize(stripes, 12)[:, 1:-1]
    assert np.abs(inner - 0.5).max() < 0.1
    every_third = stripes[:, 1::3]
    assert np.abs(every_third - 0.5).min() == 0.5


def test_nothing_is_traced_where_nothing_changes():
    images = jnp.ones((2, 8, 8, 1))
    assert resize.resize(images, 0) is images
    assert not jax.make_jaxpr(lambda x: resize.resize(x, 0))(images).eqns


@pytest.mark.parity
@pytest.mark.parametrize('side', [28, 16, 12, 5])
def test_images_are_torchs(side):
    import torch

    images = np.random.default_rng(0).normal(size=(2, 32, 48, 3)).astype(np.float32)
    shape = (side, round(48 * side / 32))
    theirs = torch.nn.functional.interpolate(
        torch.tensor(images).permute(0, 3, 1, 2), shape, mode='bilinear', align_corners=False, antialias=True
    )
    np.testing.assert_allclose(resize.resize(jnp.asarray(images), side), theirs.permute(0, 2, 3, 1), atol=1e-5)


def test_sequences_are_cut():
    tokens = jnp.arange(20).reshape(2, 10)
    np.testing.assert_array_equal(resize.resize(tokens, 4), tokens[:, :4])
    assert resize.resize(jnp.ones((2, 10, 8)), 4).shape == (2, 4, 8)


@pytest.mark.parametrize('length', [16, 24, 5])
def test_sentence_pairs_keep_the_same_share_of_both_sides(length):
    batch = {
        **{name: jnp.arange(32).reshape(2, 16) for name in ('source', 'source_mask', 'tags')},
        **{name: jnp.arange(2 * length).reshape(2, length) for name in ('target', 'target_mask')},
        'label': jnp.arange(2),
    }
    inputs = ((batch['source'], batch['target'][:, :-1]), {})
    for side in (4, 8, 12):
        cut = resize.shortened(batch, inputs, side)
        assert all((cut[name] == batch[name][:, :side]).all() for name in ('source', 'source_mask', 'tags'))
        kept = max(2, round(length * side / 16))
        assert all(
            cut[name].shape == (2, kept) and (cut[name] == batch[name][:, :kept]).all() for name in ('target', 'target_mask')
        )
        assert cut['label'] is batch['label']
    alone = {'tokens': batch['source'], 'target': batch['target']}
    assert resize.shortened(alone, inputs, 4)['target'].shape[1] == (4 if length == 16 else length), 'of no pair'
