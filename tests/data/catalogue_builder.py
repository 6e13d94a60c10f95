"""A builder as those of TFDS's catalogue are: opens files and lists folders through TensorFlow, yields arrays."""

import pathlib

import numpy as np
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
    """One with images of several sizes."""

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(
                {
                    'id': np.int64,
                    'image': tfds.features.Image(shape=(None, None, 3)),
                    'label': tfds.features.ClassLabel(num_classes=10),
                }
            ),
        )

    def _generate_examples(self, folder: pathlib.Path):
        for index in range(2):
            yield index, {'id': index, 'image': np.zeros((index + 1, 2, 3), np.uint8), 'label': 0}


class FrugalTexts(FrugalToy):
    """One without images."""

    def _info(self):
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict({'text': tfds.features.Text()}))

    def _generate_examples(self, folder: pathlib.Path):
        yield 0, {'text': 'none'}


def write_folder(folder: pathlib.Path) -> pathlib.Path:
    """The files that `FrugalToy` reads."""
    for part, count, seed in (('train', 13, 1), ('test', 5, 2)):
        (folder / part).mkdir(parents=True)
        for index, image in enumerate(synthetic.images(3 * count, seed).reshape(count, 6, 6, 3)):
            np.save(folder / part / f'{index:03}.npy', image)
    return folder
