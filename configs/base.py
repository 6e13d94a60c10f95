"""The defaults, which are in research/config/base.py, under their old name."""

from research.config.base import get_config, small_data

__all__ = ['get_config', 'small_data']
