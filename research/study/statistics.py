"""The statistics of research.report under the name that papers and other programs call."""

from research.report.statistics import *  # noqa: F403
