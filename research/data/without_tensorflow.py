"""What TFDS needs of TensorFlow to prepare images and texts: files and PNG.

Most of its builders open files with `tf.io.gfile`, and those of images yield arrays, which TFDS encodes with TensorFlow. Here
Python opens the files, and Pillow writes PNG.
"""

import contextlib
import glob
import os
import sys
from collections.abc import Iterator
from typing import Any
from unittest import mock

import numpy as np
import PIL.Image
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download import downloader
from tensorflow_datasets.core.features import image_feature

from research.catalogue import ConfigError


class _Module:
    """A module with some attributes; any other needs TensorFlow, which is not installed."""

    def __init__(self, name: str, **attributes: Any):
        self.__dict__.update(attributes, _name=name)

    def __getattr__(self, attribute: str) -> Any:
        raise ConfigError(
            f'Its code calls {self._name}.{attribute}, and Frugal does not include TensorFlow. Prepare it once '
            "where TensorFlow is installed, with file_format='array_record', and copy TFDS_DATA_DIR here."
        )


_TENSORFLOW = _Module(
    'tf',
    io=_Module(
        'tf.io',
        gfile=_Module(
            'tf.io.gfile',
            GFile=open,
            exists=os.path.exists,
            glob=glob.glob,
            isdir=os.path.isdir,
            listdir=os.listdir,
            walk=os.walk,
        ),
    ),
)


@contextlib.contextmanager
def standing_in(builder: tfds.core.DatasetBuilder) -> Iterator[None]:
    """Inside the block the modules of `builder` use Python's files instead of TensorFlow, TFDS encodes arrays with Pillow, and
    a download without a network fails after seconds instead of minutes."""
    with contextlib.ExitStack() as stack:
        for name in {cls.__module__ for cls in type(builder).__mro__}:
            if name.split('.')[:2] != ['tensorflow_datasets', 'core'] and hasattr(sys.modules[name], 'tf'):
                stack.enter_context(mock.patch.object(sys.modules[name], 'tf', _TENSORFLOW))
        stack.enter_context(mock.patch.object(image_feature._ImageEncoder, '_encode_image', _png))
        stack.enter_context(mock.patch.object(downloader, 'MAX_RETRIES', 3))
        yield


def _png(encoder: Any, image: np.ndarray) -> bytes:
    if encoder.encoding_format != 'png' or image.dtype != np.uint8:
        raise ConfigError(
            f'Its images are {image.dtype} arrays to be stored as {encoder.encoding_format}. Without TensorFlow, '
            'expected uint8 as png.'
        )
    return encoder._encode_pil_image(PIL.Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image))
