"""Images of one's own in folders by class."""

import concurrent.futures
import errno
import json
import os
import pathlib
import shutil
import warnings

import numpy as np
import PIL.Image
import pytest
import references
import synthetic
from config_file import written

from research import data
from research.catalogue import ConfigError
from research.data import decoded, folders, image_files, images, order
from research.study import launch


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv('TFDS_DATA_DIR', str(tmp_path / 'prepared'))
    return tmp_path / 'prepared'


def config(folder, **changes):
    return {**synthetic.BASE, 'name': 'images', 'path': str(folder), 'bad_files': 0.01, 'test': 0.25, **changes}


def drawn(seed, mode='L', size=(6, 6)):
    shape = (*size[::-1], len(mode))
    return PIL.Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, np.uint8).squeeze(-1 if mode == 'L' else ()))


def write(root, name, image):
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **({'lossless': True} if path.suffix == '.webp' else {}))


@pytest.fixture
def folder(tmp_path):
    """40 grey files in two classes, some in a folder inside a class."""
    root = tmp_path / 'mine'
    for i in range(40):
        write(root, f'{("cat", "dog")[i % 2]}/{"deep/" * (i % 3 == 0)}{i}.png', drawn(i))
    return root


def rows(dataset, split):
    """The images of a split as hashable bytes."""
    return {image.tobytes() for image in dataset.arrays['image'][dataset.splits[split]]}


def test_files_come_through_unchanged_and_sorted_by_name(folder):
    (folder / 'cat' / 'notes.txt').write_text('no image')
    (folder / 'cat' / '._1.png').write_text('a hidden file')
    (folder / '.hidden').mkdir()
    store = data.read(config(folder))
    files = sorted(folder.rglob('[!.]*.png'), key=lambda file: file.relative_to(folder).as_posix())
    np.testing.assert_array_equal(store.arrays['image'][:], [np.asarray(PIL.Image.open(file))[..., None] for file in files])
    labels = [('cat', 'dog').index(file.relative_to(folder).parts[0]) for file in files]
    assert store.arrays['label'][:].tolist() == labels and store.class_names == ('cat', 'dog') and store.classes == 2
    assert isinstance(store.arrays['image'].parts[0], np.memmap)
    dataset = data.load(config(folder))
    training = dataset.arrays['image'][dataset.splits['train']]
    np.testing.assert_allclose(dataset.facts['mean'], training.mean((0, 1, 2), np.float64))


def test_the_folder_may_be_the_one_that_one_is_in(folder, monkeypatch):
    before = data.read(config(folder)).checksum
    monkeypatch.chdir(folder)
    assert data.read(config('.')).checksum == before


def test_parts_may_have_folders_of_their_own(tmp_path):
    for part, seeds in (('train', range(9)), ('test', range(9, 14)), ('val', range(14, 18))):
        for seed in seeds:
            write(tmp_path / 'mine', f'{part}/{"ab"[seed % 2]}/{seed}.png', drawn(seed))
    store = data.read(config(tmp_path / 'mine'))
    assert store.parts == {'train': range(9), 'test': range(9, 14), 'validation': range(14, 18)}
    dataset = data.load(config(tmp_path / 'mine', test=0, official_validation=True))
    for split, seeds in (('train', range(9)), ('test', range(9, 14)), ('validation', range(14, 18))):
        assert rows(dataset, split) == {np.asarray(drawn(seed)).tobytes() for seed in seeds}


def test_a_class_may_be_called_train(tmp_path):
    for seed in range(8):
        write(tmp_path / 'mine', f'{("bus", "train")[seed % 2]}/{seed}.png', drawn(seed))
    assert data.read(config(tmp_path / 'mine')).class_names == ('bus', 'train')


@pytest.mark.parametrize('mode, suffix', [('L', 'png'), ('RGB', 'png'), ('RGB', 'webp'), ('L', 'bmp'), ('RGB', 'bmp')])
def test_formats_without_loss_give_their_pixels(tmp_path, mode, suffix):
    for seed in range(4):
        write(tmp_path / 'mine', f'{"ab"[seed % 2]}/{seed}.{suffix}', drawn(seed, mode))
    expected = [np.asarray(drawn(seed, mode)).reshape(6, 6, -1) for seed in (0, 2, 1, 3)]
    np.testing.assert_array_equal(data.read(config(tmp_path / 'mine')).arrays['image'][:], expected)


def test_transparent_pixels_are_white_and_palettes_become_colours(tmp_path):
    root, colours = tmp_path / 'mine', drawn(1, 'RGB')
    alpha = PIL.Image.fromarray(np.where(np.eye(6), 0, 255).astype(np.uint8))
    seen = colours.copy()
    seen.putalpha(alpha)
    write(root, 'a/1.png', seen)
    few = PIL.Image.fromarray(np.asarray(drawn(2, 'RGB')) // 128 * 255)
    write(root, 'a/2.png', few.quantize(8))
    write(root, 'b/1.png', drawn(3))  # grey among colours
    write(root, 'b/2.gif', few.quantize(8))
    found = data.read(config(root)).arrays['image'][:]
    white = np.where(np.eye(6)[..., None], 255, np.asarray(colours))
    grey = np.repeat(np.asarray(drawn(3))[..., None], 3, -1)
    np.testing.assert_array_equal(found, [white, np.asarray(few), grey, np.asarray(few)])


@pytest.mark.filterwarnings('ignore:.*one training example alone')
def test_transparent_grey_stays_one_channel(tmp_path):
    seen = drawn(1)
    seen.putalpha(PIL.Image.fromarray(np.where(np.eye(6), 0, 255).astype(np.uint8)))
    write(tmp_path / 'mine', 'a/1.png', seen)
    write(tmp_path / 'mine', 'b/1.png', drawn(2))
    found = data.read(config(tmp_path / 'mine')).arrays['image'][:]
    np.testing.assert_array_equal(found[0, ..., 0], np.where(np.eye(6), 255, np.asarray(drawn(1))))
    assert found.shape == (2, 6, 6, 1)


def test_several_sizes_are_brought_to_one(tmp_path):
    for seed in range(6):
        write(tmp_path / 'mine', f'{"ab"[seed % 2]}/{seed}.png', drawn(seed, 'RGB', (9 + seed, 12)))
    asked = config(tmp_path / 'mine', resize=8, crop=7)
    expected = [np.asarray(images.fit(drawn(seed, 'RGB', (9 + seed, 12)), 8, 7)) for seed in (0, 2, 4, 1, 3, 5)]
    np.testing.assert_array_equal(data.read(asked).arrays['image'][:], expected)
    assert data.read({**asked, 'crop': 6}).arrays['image'].shape == (6, 6, 6, 3)


@pytest.mark.parity
def test_images_are_those_of_torchvision(tmp_path):
    references.libraries()
    from torchvision import datasets, transforms

    for seed in range(12):
        write(tmp_path / 'mine', f'{"abc"[seed % 3]}/{seed}.jpg', drawn(seed, 'RGB', (20 + seed, 31)))
    whole = transforms.Compose([transforms.Resize(16, antialias=True), transforms.CenterCrop(14)])
    theirs = datasets.ImageFolder(tmp_path / 'mine', whole)
    store = data.read(config(tmp_path / 'mine', resize=16, crop=14))
    assert [*store.class_names] == theirs.classes
    by_theirs = {np.asarray(image).tobytes(): label for image, label in theirs}
    ours = zip(store.arrays['image'][:], store.arrays['label'][:].tolist(), strict=True)
    assert {image.tobytes(): label for image, label in ours} == by_theirs


def sides(folder, **changes):
    dataset = data.load(config(folder, validation=0.2, **changes))
    of_rgb = {split: dataset.arrays['image'][rows] for split, rows in dataset.splits.items()}
    channels = 3 // dataset.fields['image'].shape[-1]
    return {split: {np.repeat(i, channels, -1).tobytes() for i in images} for split, images in of_rgb.items()}


def test_a_file_stays_on_its_side_when_files_are_added(folder):
    before = sides(folder)
    for seed in range(100, 130):
        write(folder, f'{("cat", "ant")[seed % 2]}/{seed}.png', drawn(seed, 'RGB'))  # a new class, and colours
    after = sides(folder)
    assert all(before[split] < after[split] for split in before)


def test_copies_of_a_picture_are_on_one_side(folder):
    for i, file in enumerate([*folder.rglob('*.png')]):
        shutil.copy(file, folder / ('dog', 'cat')[i % 2] / f'copy{i}.png')
    for changes in ({}, {'test': 13.0}, {'split_seed': 5}):
        found = sides(folder, **changes)
        assert not found['train'] & found['test'] and not (found['train'] | found['test']) & found['validation']
        assert sum(map(len, found.values())) == 40


def test_cuts_are_drawn_by_seed_and_hold_the_share_that_is_asked_for():
    keys = np.random.default_rng(0).integers(0, 2**63, 20_000, np.uint64)
    train, test = order.cut_test(len(keys), 0.2, 0, keys)
    assert abs(len(test) - 4000) < 4 * np.sqrt(20_000 * 0.2 * 0.8) and len(train) + len(test) == 20_000
    assert np.array_equal(test, order.cut_test(len(keys), 0.2, 0, keys)[1])
    elsewhere = order.cut_test(len(keys), 0.2, 1, keys)[1]
    assert abs(np.isin(test, elsewhere).mean() - 0.2) < 0.05  # another seed is another draw
    _, validation = order.split(len(train), 0.5, 0, 0, keys[train])
    assert abs(len(validation) / len(train) - 0.5) < 0.03  # and another stream
    assert len(order.cut_test(len(keys), 17, 3, keys)[1]) == 17
    # Fewer examples are a subset of more, and none of validation.
    few, _ = order.split(20_000, 0.1, 50, 0, keys)
    more, held = order.split(20_000, 0.1, 90, 0, keys)
    assert set(few) < set(more) and not set(more) & set(held) and len(few) == 50


BROKEN = {
    'cut.png': lambda whole: whole[:60],
    'empty.png': lambda whole: b'',
    'text.png': lambda whole: b'not an image at all',
    'flipped.png': lambda whole: whole[:45] + bytes(30) + whole[75:],
}


def break_some(folder):
    for name, harm in BROKEN.items():
        (folder / 'cat' / name).write_bytes(harm((folder / 'cat' / '2.png').read_bytes()))
    deep = np.zeros((6, 6), np.uint16)
    PIL.Image.fromarray(deep).save(folder / 'dog' / 'deep.png')


def test_broken_files_are_left_out_and_listed(folder, home):
    whole = data.read(config(folder))
    break_some(folder)
    with pytest.warns(UserWarning, match=r'5 of 45 files .* cat/cut.png .*truncated.* cat/empty.png \(empty\)') as caught:
        left = data.read(config(folder, bad_files=0.2))
    assert 'cat/text.png (no image)' in str(caught[0].message) and 'dog/deep.png (mode I;16' in str(caught[0].message)
    assert left.checksum == whole.checksum and np.array_equal(left.keys, whole.keys)
    (listed,) = home.rglob('left_out.tsv')
    assert [line.partition('\t')[0] for line in listed.read_text().splitlines()] == sorted(
        [*(f'cat/{name}' for name in BROKEN), 'dog/deep.png']
    )
    with pytest.warns(UserWarning, match='5 of 45 files'):  # once more, from the prepared copy
        data.read(config(folder, bad_files=0.2))
    with pytest.raises(ConfigError, match=r'5 of 45 files .* cannot be decoded.*cat/cut.png.*data.bad_files=0.1'):
        data.read(config(folder, bad_files=0.1))


def test_where_nothing_can_be_decoded_the_reason_is_said(tmp_path):
    for name in 'ab':
        (tmp_path / 'mine' / name).mkdir(parents=True)
        (tmp_path / 'mine' / name / '1.png').write_bytes(b'x')
    with pytest.raises(ConfigError, match=r'None of the 2 files .* a/1.png \(no image\)'):
        data.read(config(tmp_path / 'mine', bad_files=1.0))


def test_blocks_of_any_size_give_the_same(folder, home, monkeypatch):
    break_some(folder)
    found = []
    for block in (1, 5 * 36, 1 << 20):
        monkeypatch.setattr(image_files, '_BLOCK', block)
        shutil.rmtree(home, ignore_errors=True)
        with pytest.warns(UserWarning):
            store = data.read(config(folder, bad_files=0.2))
        found.append((store.checksum, store.keys.tolist(), store.moments.tolist()))
    assert found[0] == found[1] == found[2]


def test_a_second_launch_decodes_nothing_and_a_changed_folder_all(folder, monkeypatch):
    write(folder, 'cat/x.bmp', drawn(76))
    before = data.read(config(folder)).checksum
    decode, decoding = image_files._picture, []
    monkeypatch.setattr(image_files, '_picture', lambda file, *rest: decoding.append(file) or decode(file, *rest))
    moved = folder.with_name('moved')  # the same files elsewhere are the same data, though decoded again
    assert data.read(config(folder)).checksum == before and not decoding
    shutil.copytree(folder, moved)
    assert data.read(config(moved)).checksum == before and len(decoding) == 41
    decoding.clear()
    write(folder, 'cat/x.bmp', drawn(77))  # as many bytes as before
    os.utime(folder / 'cat' / 'x.bmp', ns=(1, 1))
    assert data.read(config(folder)).checksum != before and len(decoding) == 41


def test_launches_at_once_decode_once(folder, monkeypatch):
    fill, filled = image_files._write, []
    monkeypatch.setattr(image_files, '_write', lambda *arguments: filled.append(1) or fill(*arguments))
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        found = {store.checksum for store in pool.map(data.read, [config(folder)] * 4)}
    assert len(found) == 1 and len(filled) == 1


@pytest.mark.parametrize('name', ['image.npy', 'key.npy', 'row.npy', 'moments.npy', 'content.json'])
@pytest.mark.parametrize('harm', ['cut', 'flip', 'remove'])
def test_a_damaged_copy_names_its_cure(folder, home, monkeypatch, name, harm):
    before = data.read(config(folder)).checksum
    (file,) = home.rglob(name)
    content = bytearray(file.read_bytes())
    if harm == 'remove':
        file.unlink()
    elif harm == 'cut':
        file.write_bytes(content[:-9])
    else:
        content[-10] ^= 1
        file.write_bytes(content)
    monkeypatch.setattr(decoded, 'SAMPLE', 64)
    with pytest.raises(ConfigError, match='Remove .* and give the same command again'):
        data.read(config(folder), whole=True)
    shutil.rmtree(file.parent)
    assert data.read(config(folder)).checksum == before


def remove(folder, name):
    shutil.rmtree(folder / name)


@pytest.mark.parametrize(
    'change, setting, said',
    [
        (lambda folder: None, {'path': ''}, 'data.path is empty'),
        (lambda folder: None, {'path': '/nowhere'}, "'/nowhere' is not a folder"),
        (lambda folder: [remove(folder, name) for name in ('cat', 'dog')], {}, 'has no folders of classes'),
        (lambda folder: remove(folder, 'dog'), {}, "one class alone, 'cat'"),
        (lambda folder: (folder / 'eel').mkdir(), {}, "The class 'eel' in .* has no images"),
        (lambda folder: write(folder, 'Cat/1.png', drawn(1)), {}, "'Cat' and 'cat', which differ in case alone"),
        (
            lambda folder: write(folder, 'cat/x.png', drawn(1, 'L', (7, 9))),
            {},
            r'2 sizes: 6x6 \(40\), 7x9 \(1\).*Set data.resize',
        ),
        (lambda folder: None, {'crop': 7}, 'is 6x6, .* smaller than the square of 7'),
        (lambda folder: None, {'resize': 4, 'crop': 5}, 'smaller than the square of 5'),
        (lambda folder: None, {'test': 0}, 'has no test split.*Set data.test'),
        (lambda folder: None, {'test': 1.0}, 'The test split .* has 1 examples'),
        (lambda folder: None, {'validation': 1.0}, 'The validation split .* has 1 examples'),
        (lambda folder: None, {'examples': 1}, 'The train split .* has 1 examples'),
        (lambda folder: None, {'test': 40.0}, 'leaves none of 40'),
        (lambda folder: None, {'label': 'coarse'}, "data.label is 'coarse'"),
        (lambda folder: write(folder, 'train/deep/1.png', drawn(1)), {}, "folders 'train' and 'cat': expected either"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(folder, change, setting, said):
    change(folder)
    with pytest.raises(ConfigError, match=said) as caught:
        data.load(config(folder, **setting))
    assert '\n' not in str(caught.value)


def test_a_class_that_only_the_test_has_is_refused_and_copies_are_warned_of(tmp_path):
    for seed in range(8):
        write(tmp_path / 'mine', f'train/{"ab"[seed % 2]}/{seed}.png', drawn(seed))
        write(tmp_path / 'mine', f'test/{"ab"[seed % 2]}/{seed + 6}.png', drawn(seed + 6))
    with pytest.warns(UserWarning, match='2 of the 8 test images are among the training images'):
        data.read(config(tmp_path / 'mine'))
    write(tmp_path / 'mine', 'test/c/1.png', drawn(1))
    with pytest.raises(ConfigError, match="the test part has the class 'c'"):
        data.read(config(tmp_path / 'mine'))


def test_a_class_of_one_image_is_warned_of(folder):
    write(folder, 'eel/1.png', drawn(100))
    with pytest.warns(UserWarning, match="one training example alone of 1 classes, such as 'eel'"):
        data.read(config(folder))
    (folder / 'eel' / '1.png').write_bytes(b'')
    with pytest.warns(UserWarning), pytest.raises(ConfigError, match="no training example of the class 'eel' can be decoded"):
        data.read(config(folder, bad_files=0.1))


def test_nothing_is_warned_of_without_reason(folder):
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        data.load(config(folder))


def test_suffixes_are_those_that_the_messages_name():
    assert (
        folders._is_image('A.JPG') and not folders._is_image('a.tif') and pathlib.Path('a.webp').suffix in image_files.SUFFIXES
    )


@pytest.mark.long
def test_a_study_of_a_folder(tmp_path, capsys):
    """From files to scores; what is wrong with a folder ends the launch with a sentence."""
    for seed in range(120):
        bright = PIL.Image.fromarray((np.asarray(drawn(seed, size=(8, 8))) // 2 + seed % 2 * 100).astype(np.uint8))
        write(tmp_path / 'mine', f'{("dark", "light")[seed % 2]}/{seed}.png', bright)
    lines = f"config.data.update({{'name': 'images', 'path': {str(tmp_path / 'mine')!r}, 'test': 0.25, 'validation': 0.0}})\n"
    lines += "config.study.update({'seeds': 1, 'null': False, 'latency': (), 'budget': '8ep'})\nconfig.train.devices = 1\n"
    path = written(tmp_path, lines + 'config.model.widths = (4,)\nconfig.model.hidden = ()')
    assert launch.launch(str(path), str(tmp_path / 'runs'), {}) == 0
    (file,) = (tmp_path / 'runs').glob('runs/*/result.json')
    assert json.loads(file.read_text())['metrics']['test/accuracy'] > 0.9
    shutil.rmtree(tmp_path / 'mine' / 'dark')
    capsys.readouterr()
    assert launch.launch(str(path), str(tmp_path / 'other'), {}) == launch.REFUSED
    said = capsys.readouterr().err
    assert "one class alone, 'light'" in said and 'Traceback' not in said


@pytest.mark.parametrize('names', [('Train', 'Test'), ('training', 'testing'), ('TRAIN', 'val'), ('test', 'validation')])
def test_folders_that_look_like_parts_are_no_classes(tmp_path, names):
    for number, name in enumerate(f'{part}/{kind}' for part in names for kind in ('cat', 'dog')):
        write(tmp_path, f'mine/{name}/{number}.png', drawn(number))
    with pytest.raises(ConfigError, match=f'has the folders {", ".join(sorted(names))}, which would be classes and look like'):
        data.read(config(tmp_path / 'mine'))


def test_a_class_may_be_called_as_a_part_is(tmp_path):
    for number in range(8):
        write(tmp_path, f'mine/{("test", "Train")[number % 2]}/{number}.png', drawn(number))
    assert data.read(config(tmp_path / 'mine', test=0)).class_names == ('Train', 'test')


def test_images_by_folder_have_no_groups(folder):
    with pytest.raises(ConfigError, match="data.group is 'town', but images by folder have no groups"):
        data.read(config(folder, group='town'))


@pytest.mark.parametrize('reads', [1, 60])  # of the heads of 40 files, and of their content
def test_a_failure_of_the_system_is_not_kept(folder, monkeypatch, reads):
    calls, opened = [], PIL.Image.open

    def fails(file):
        calls.append(file)
        if len(calls) == reads:
            raise OSError(errno.EMFILE, 'Too many open files')
        return opened(file)

    monkeypatch.setattr(PIL.Image, 'open', fails)
    with pytest.raises(ConfigError, match='An image file cannot be read: .*Too many open files. Mend that'):
        data.read(config(folder, bad_files=0.5))
    assert len(data.read(config(folder, bad_files=0.5)).arrays['image']) == 40
