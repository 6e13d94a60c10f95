"""A builder as those of TFDS's catalogue are: opens files and lists folders through TensorFlow, yields arrays."""

import json
import pathlib

import numpy as np
import PIL.Image
import synthetic
import tensorflow_datasets as tfds
from tensorflow_datasets.core.utils.lazy_imports_utils import tensorflow as tf


class FrugalToy(tfds.core.GeneratorBasedBuilder):
    """Images of three channels from a folder of .npy files."""

    VERSION = tfds.core.Version('1.2.3')
    MANUAL_DOWNLOAD_INSTRUCTIONS = 'Call write_folder.'

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(
                {
                    'id': np.int64,
                    'image': tfds.features.Image(shape=(6, 6, 3)),
                    'label': tfds.features.ClassLabel(num_classes=10),
                }
            ),
            supervised_keys=('image', 'label'),
        )

    def _split_generators(self, dl_manager):
        return {part: self._generate_examples(dl_manager.manual_dir / part) for part in ('train', 'test')}

    def _generate_examples(self, folder: pathlib.Path):
        for index, name in enumerate(sorted(tf.io.gfile.listdir(folder))):
            with tf.io.gfile.GFile(folder / name, 'rb') as file:
                yield index, {'id': index, 'image': np.load(file), 'label': index % 10}


class FrugalDecoder(FrugalToy):
    """One that wants more of TensorFlow than files."""

    def _generate_examples(self, folder: pathlib.Path):
        yield 0, {'id': 0, 'image': tf.io.decode_jpeg(b''), 'label': 0}


class FrugalJpeg(FrugalToy):
    """One whose arrays are stored with a loss."""

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(
                {
                    'id': np.int64,
                    'image': tfds.features.Image(shape=(6, 6, 3), encoding_format='jpeg'),
                    'label': tfds.features.ClassLabel(num_classes=10),
                }
            ),
        )


class FrugalSizes(FrugalToy):
    """Colour images of several sizes in folders by class, two columns of classes, hidden test labels; three splits."""

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(
                {
                    'image': tfds.features.Image(shape=(None, None, 3)),
                    'coarse': tfds.features.ClassLabel(num_classes=2),
                    'fine': tfds.features.ClassLabel(num_classes=4),
                }
            ),
        )

    def _split_generators(self, dl_manager):
        return {part: self._generate_examples(dl_manager.manual_dir / part) for part in ('train', 'validation', 'test')}

    def _generate_examples(self, folder: pathlib.Path):
        for path in sorted(folder.glob('*/*.png')):
            fine = -1 if folder.name == 'test' else int(path.parent.name)
            yield f'{path.parent.name} {path.name}', {'image': path, 'coarse': fine // 2, 'fine': fine}


class FrugalTrainAlone(FrugalToy):
    """One without a test split."""

    def _split_generators(self, dl_manager):
        return {'train': self._generate_examples(dl_manager.manual_dir / 'train')}


class FrugalSounds(FrugalToy):
    """Neither images nor texts."""

    def _info(self):
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict({'sound': np.float32}))

    def _generate_examples(self, folder: pathlib.Path):
        yield 0, {'sound': 0.0}


class FrugalTexts(FrugalToy):
    """Two columns of texts, one of classes, of whole numbers and of floats; what it has is in a file for each part."""

    FEATURES = {
        'premise': tfds.features.Text(),
        'claim': tfds.features.Text(),
        'label': tfds.features.ClassLabel(names=['no', 'maybe', 'yes']),
        'stars': np.int64,
        'score': np.float32,
    }
    SUPERVISED = None

    def _info(self):
        features = tfds.features.FeaturesDict(self.FEATURES)
        return tfds.core.DatasetInfo(builder=self, features=features, supervised_keys=self.SUPERVISED)

    def _split_generators(self, dl_manager):
        return {path.stem: self._generate_examples(path) for path in sorted(dl_manager.manual_dir.glob('*.json'))}

    def _generate_examples(self, path: pathlib.Path):
        for index, row in enumerate(json.loads(path.read_text())):
            yield index, {key: row[key] for key in self.FEATURES}


class FrugalSupervised(FrugalTexts):
    """One that says what is meant."""

    SUPERVISED = ('claim', 'stars')


class FrugalLines(FrugalTexts):
    """One column of texts, and nothing else that can be learned."""

    FEATURES = {'claim': tfds.features.Text()}


class FrugalTopics(FrugalTexts):
    """One column of texts, and one of classes of another name than 'label'."""

    FEATURES = {'claim': tfds.features.Text(), 'topic': tfds.features.ClassLabel(num_classes=4), 'stars': np.int64}


class FrugalDoubled(FrugalTexts):
    """Two columns of classes."""

    FEATURES = {**FrugalTopics.FEATURES, 'field': tfds.features.ClassLabel(num_classes=4)}


def write_folder(folder: pathlib.Path) -> pathlib.Path:
    """The files that `FrugalToy` reads."""
    for part, count, seed in (('train', 13, 1), ('test', 5, 2)):
        (folder / part).mkdir(parents=True)
        for index, image in enumerate(synthetic.images(3 * count, seed).reshape(count, 6, 6, 3)):
            np.save(folder / part / f'{index:03}.npy', image)
    return folder


def write_images(folder: pathlib.Path) -> pathlib.Path:
    """The files that `FrugalSizes` reads: PNG of 7 to 20 pixels a side, in folders by class."""
    draw = np.random.default_rng(0)
    for part, count in (('train', 40), ('validation', 8), ('test', 8)):
        for index in range(count):
            path = folder / part / str(index % 4) / f'{index:03}.png'
            path.parent.mkdir(parents=True, exist_ok=True)
            PIL.Image.fromarray(draw.integers(0, 256, (*draw.integers(7, 21, 2), 3), np.uint8)).save(path)
    return folder
