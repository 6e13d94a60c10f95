"""Images of several sizes brought to one, once, when data are prepared.

As torchvision's `Resize(size, antialias=True)` and `CenterCrop(size)` on Pillow images: the shorter side becomes `resize`, then
a square of side `crop` is cut out of the middle. Pillow filters 8-bit images in whole numbers, so the result is the same on
every machine.
"""

import numpy as np
import PIL.Image

from research.catalogue import ConfigError


def fit(image: PIL.Image.Image, resize: int, crop: int) -> PIL.Image.Image:
    """One image, brought to size.

    Args:
      image: of any size.
      resize: length of the shorter side, antialiased and bilinear; 0 leaves it.
      crop: side of the square that is kept; 0 is `resize`; both 0 leave the image as it is.

    Raises:
      ValueError: an image smaller than the square.
    """
    width, height = image.size
    if resize:
        short = min(width, height)
        width, height = resize * width // short, resize * height // short
        image = image.resize((width, height), PIL.Image.Resampling.BILINEAR)
    side = crop or resize
    if not side:
        return image
    if min(width, height) < side:
        raise ValueError(f'an image is {width} x {height}, smaller than the square of {side} that data.crop keeps')
    left, top = round((width - side) / 2), round((height - side) / 2)
    return image.crop((left, top, left + side, top + side))


def fit_all(data: str, images: np.ndarray | None, resize: int, crop: int) -> np.ndarray:
    """uint8 images [N, H, W, C] brought to size, [N, side, side, C]; messages begin with `data`.

    Raises:
      ConfigError: no such images, or images smaller than the square.
    """
    if images is None or images.dtype != np.uint8 or images.ndim != 4:
        what = 'no images' if images is None else f'images {images.dtype} {images.shape}'
        raise ConfigError(
            f'{data}: data.resize and data.crop take uint8 images [N, H, W, C], and it has {what}. Set them to 0.'
        )
    try:
        channels = [[np.asarray(fit(PIL.Image.fromarray(c), resize, crop)) for c in np.moveaxis(i, -1, 0)] for i in images]
    except ValueError as error:
        raise ConfigError(f'{data}: {error}. Set data.resize, or a smaller data.crop.') from error
    return np.moveaxis(np.array(channels), 1, -1)
