"""The picture of what augmentation does, and which variants share one."""

import numpy as np
import tiny
from PIL import Image

from research.report import augmented
from research.study import augmentation


def turned_over(keys, images):
    return images[:, ::-1]


def test_each_example_stands_above_what_the_first_step_sees(session):
    built = tiny.build(session, {'augment.names': ('test_contact_sheet:turned_over',)})
    sheet = augmentation.sheet(built)
    rows = built.sampler(built.order_seed, 0, 32)
    stored = built.dataset.arrays['image'][rows][..., 0]
    shown = np.round(stored / stored.max() * 255).repeat(8, 1).repeat(8, 2)
    down, across = 2 * 64 + 6, 64 + 2
    assert sheet.shape == (4 * down, 8 * across, 3)
    for place in (0, 7, 9, 31):
        row, column = divmod(place, 8)
        tile = sheet[row * down : (row + 1) * down, column * across : (column + 1) * across, 0]
        np.testing.assert_array_equal(tile[:64, :64], shown[place])
        np.testing.assert_array_equal(tile[64:128, :64], shown[place][::-1])
        assert (tile[128:] == 255).all() and (tile[:, 64:] == 255).all()


def test_variants_of_one_augmentation_share_a_picture_and_a_page_shows_what_is_there(tmp_path):
    config = tiny.config()
    flip = {'augment.names': ('flip_horizontal',)}
    variants = {
        'baseline': {},
        'flip': flip,
        'flip/more': {**flip, 'model.widths': (8,)},
        'crop': {'augment.names': ('pad_crop',)},
    }
    assert augmented.owners(config, variants) == {'flip': ['flip', 'flip/more'], 'crop': ['crop']}
    path = augmented.picture(tmp_path, 'flip')
    path.parent.mkdir()
    Image.new('RGB', (2, 2)).save(path)
    [shown] = augmented.read(tmp_path, {'config': config, 'variants': variants}, tmp_path)
    assert (shown['names'], shown['path']) == ('flip, flip/more', 'augmented/flip.png')


def test_a_name_with_a_slash_is_one_file(tmp_path):
    assert augmented.picture(tmp_path, 'a/b').parent == tmp_path / 'augmented'
