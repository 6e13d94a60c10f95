"""A picture of examples as they are stored, and below each what an augmentation makes of it."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

# Images in a row, and pixels that the side of a small one has about.
_ACROSS, _SIDE = 8, 64


def draw(augment: Callable[..., Any], keys: Any, positions: Any, examples: Mapping[str, np.ndarray]) -> np.ndarray:
    """The sheet as uint8 [H, W, 3].

    Args:
      augment: (keys [B], batch) -> batch.
      keys, positions: of the examples, typed [B] and uint32 [B, 2].
      examples: {field: [B, ...]}, 'image' among them; its range, of these examples, is shown from black to white.
    """
    batch = {**examples, 'valid': jnp.ones(len(positions)), 'position': positions}
    seen = jax.jit(augment)(keys, batch)['image']
    stored = examples['image'].astype(np.float32)
    least, most = min(stored.min(), 0), max(stored.max(), np.finfo(np.float32).tiny)
    pairs = np.stack([stored, np.asarray(seen, np.float32)], 1)
    pairs = np.clip((pairs - least) / (most - least) * 255, 0, 255).round().astype(np.uint8)
    return _grid(pairs[..., :3] if pairs.shape[-1] >= 3 else pairs[..., :1].repeat(3, -1))


def _grid(pairs: np.ndarray) -> np.ndarray:
    """Images uint8 [N, 2, H, W, 3] in pairs one above the other, as one [H', W', 3] with white lines between pairs."""
    scale = max(1, round(_SIDE / pairs.shape[2]))
    pairs = pairs.repeat(scale, 2).repeat(scale, 3)
    count, _, height, width, _ = pairs.shape
    tiles = pairs.reshape(count, 2 * height, width, 3)
    tiles = np.pad(tiles, ((0, -count % _ACROSS), (0, 6), (0, 2), (0, 0)), constant_values=255)
    down = len(tiles) // _ACROSS
    grid = tiles.reshape(down, _ACROSS, *tiles.shape[1:]).transpose(0, 2, 1, 3, 4)
    return grid.reshape(down * tiles.shape[1], _ACROSS * tiles.shape[2], 3)
