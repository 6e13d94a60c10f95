"""XLA's flag against slow convolutions: set, or its absence told."""

import importlib.metadata
import os
import warnings

import pytest

from research import process


def test_a_jaxlib_that_was_not_tried_is_told(monkeypatch):
    monkeypatch.setattr(importlib.metadata, 'version', lambda name: '99.0')
    monkeypatch.setenv('XLA_FLAGS', '--other=1')
    with pytest.warns(RuntimeWarning, match='jaxlib 99.0 was not tried with --xla_cpu_experimental_ynn'):
        process.configure()
    assert os.environ['XLA_FLAGS'] == '--other=1'


@pytest.mark.parametrize('flags', ['', '--xla_cpu_experimental_ynn_fusion_type=x'])
def test_nothing_is_told_where_the_flag_is_set_by_us_or_by_hand(monkeypatch, flags):
    monkeypatch.setattr(process, '_backend_is_up', lambda: False)
    monkeypatch.setattr(process, '_YNN_VERSIONS', (importlib.metadata.version('jaxlib'),) if not flags else ())
    monkeypatch.setenv('XLA_FLAGS', flags)
    with warnings.catch_warnings(action='error'):
        process.configure()
    assert os.environ['XLA_FLAGS'] == (flags or process._YNN_FLAG)
