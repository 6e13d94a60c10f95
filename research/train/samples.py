"""Generated images of a run, as pictures in its folder: what the report shows of the course of its training."""

import os
import pathlib

import numpy as np
from PIL import Image


def write(folder: pathlib.Path, step: int, images: np.ndarray) -> None:
    """Writes `STEP.png` into a folder, whole or not at all.

    Args:
      images: uint8 [N, H, W, C], C 1 or 3.
    """
    folder.mkdir(exist_ok=True)
    aside = folder / f'.{step}.png'
    table = grid(images)
    Image.fromarray(table[..., 0] if table.shape[-1] == 1 else table).save(aside)
    os.replace(aside, folder / f'{step}.png')


def grid(images: np.ndarray, columns: int = 10) -> np.ndarray:
    """Images [N, H, W, C] in rows of `columns`, a white pixel between: uint8 [rows (H + 1) - 1, columns (W + 1) - 1, C]."""
    count, height, width, channels = images.shape
    rows = -(-count // columns)
    padded = np.full((rows * columns, height + 1, width + 1, channels), 255, np.uint8)
    padded[:count, :height, :width] = images
    table = padded.reshape(rows, columns, height + 1, width + 1, channels).swapaxes(1, 2)
    return table.reshape(rows * (height + 1), columns * (width + 1), channels)[:-1, :-1]
