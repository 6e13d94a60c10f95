"""Pictures of a run in its folder: what the report shows of the course of its training."""

import io
import pathlib

import numpy as np
from PIL import Image

from research import files


def write(folder: pathlib.Path, name: str | int, picture: np.ndarray) -> None:
    """Writes `NAME.png` into a folder, whole or not at all.

    Args:
      picture: uint8 [H, W] or [H, W, C], C 1 or 3.
    """
    folder.mkdir(parents=True, exist_ok=True)
    content = io.BytesIO()
    Image.fromarray(picture.squeeze(-1) if picture.shape[2:] == (1,) else picture).save(content, format='png')
    files.write(folder / f'{name}.png', content.getvalue())
