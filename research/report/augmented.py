"""What augmentation does, in the report: the pictures that research.study.augmentation draws."""

import json
import urllib.parse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from research.config import overrides
from research.report import figures

FOLDER = 'augmented'


def owners(config: Mapping[str, Any], variants: Mapping[str, Mapping[str, Any]]) -> dict[str, list[str]]:
    """Each distinct list of augmentations: its first variant -> all variants with it; {} where none augments."""
    found: dict[str, list[str]] = {}
    for name, changes in variants.items():
        variant = overrides.apply(config, changes)
        group = variant.get('augment', {})
        if group.get('names'):  # studies of earlier versions have none
            found.setdefault(json.dumps(group, sort_keys=True), []).append(name)
    return {names[0]: names for names in found.values()}


def picture(workdir: Path, variant: str) -> Path:
    """Where the picture of a variant's augmentation is."""
    return workdir / FOLDER / f'{urllib.parse.quote(variant, safe="")}.png'


def read(workdir: Path, study: Mapping[str, Any], home: Path) -> list[dict[str, Any]]:
    """A list of {names: of the variants, path: relative to `home`, data: in base64}, of the pictures that are there."""
    found = owners(study['config'], study['variants']).items()
    return [
        {'names': ', '.join(names), **figures.embedded(file, home)}
        for name, names in found
        if (file := picture(workdir, name)).exists()
    ]
