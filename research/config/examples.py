"""The studies that come along: configs/ of a checkout, which a wheel has as research/configs/."""

import pathlib


def paths() -> dict[str, pathlib.Path]:
    """Name -> file of each: `--config=quickstart` is configs/quickstart.py, wherever one stands."""
    package = pathlib.Path(__file__).parents[1]
    folder = next((place for place in (package / 'configs', package.parent / 'configs') if place.is_dir()), package)
    return {path.stem: path for path in sorted(folder.glob('*.py')) if path.stem not in ('__init__', 'base')}
