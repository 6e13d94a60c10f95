"""Images of several sizes, brought to one."""

import numpy as np
import PIL.Image
import pytest
import references
import synthetic

from research import data
from research.catalogue import ConfigError
from research.data import images


@pytest.mark.parity
@pytest.mark.parametrize('size', [(50, 37), (37, 50), (9, 40), (24, 24), (25, 24)])
@pytest.mark.parametrize('mode', ['L', 'RGB'])
@pytest.mark.parametrize('resize, crop', [(24, 0), (24, 17), (30, 24)])
def test_it_is_torchvisions_resize_and_centre_crop(size, mode, resize, crop):
    references.libraries()
    from torchvision.transforms import v2

    pixels = np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), np.uint8)
    image = PIL.Image.fromarray(pixels).convert(mode)
    expected = v2.CenterCrop(crop or resize)(v2.Resize(resize, antialias=True)(image))
    np.testing.assert_array_equal(np.asarray(images.fit(image, resize, crop)), np.asarray(expected))


def test_arrays_are_resized_as_images_are_in_every_channel():
    pixels = np.random.default_rng(0).integers(0, 256, (2, 12, 9, 3), np.uint8)
    found = images.fit_all('mine', pixels, 6, 5)
    assert found.shape == (2, 5, 5, 3)
    for one, image in zip(found, pixels, strict=True):
        np.testing.assert_array_equal(one, np.asarray(images.fit(PIL.Image.fromarray(image), 6, 5)))


def test_the_crop_alone_cuts_out_the_middle():
    dataset = data.load({**synthetic.BASE, 'name': 'synthetic:load', 'crop': 4})
    whole = synthetic.load('')['train'][0]
    np.testing.assert_array_equal(dataset.arrays['image'][dataset.splits['train']][..., 0], whole[:, 1:5, 1:5])


@pytest.mark.parametrize(
    'name, change, said',
    [
        ('synthetic:load', {'crop': 7}, 'an image is 6 x 6, smaller than the square of 7'),
        ('synthetic:load_texts', {'resize': 4}, 'it has no images'),
        (f'{__name__}:floats', {'resize': 4}, 'images float32'),
    ],
)
def test_what_cannot_be_brought_to_size_is_refused(name, change, said):
    with pytest.raises(ConfigError, match=said):
        data.load({**synthetic.BASE, 'name': name, **change})


def floats(path):
    part = (np.zeros((2, 6, 6, 1), np.float32), np.arange(2))
    return {'train': part, 'test': part}
