"""Durations: every unit against the arithmetic that it stands for, and what is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from research import durations
from research.catalogue import ConfigError


@given(number=st.integers(0, 10_000), batch_size=st.integers(1, 4096), epoch=st.integers(1, 10**7), total=st.integers(1, 10**9))
def test_units(number, batch_size, epoch, total):
    assert durations.examples(f'{number}st', batch_size, epoch, total) == number * batch_size
    assert durations.examples(f'{number}ep', batch_size, epoch, total) == number * epoch
    assert durations.examples(f'{number}ex', batch_size, epoch, total) == number
    assert durations.examples('1run', batch_size, epoch, total) == total


def test_fractions_are_rounded_to_whole_examples():
    assert durations.examples('0.3run', 64, 1000, 999) == 300
    assert durations.examples('.5ep', 64, 1437) == 718
    assert durations.examples('1e-3run', 64, total=10_000) == 10


@pytest.mark.parametrize('text', ['500', '', 'ep', '-1ep', '5 epochs', '5epst', 'infst', 500, 0.3, None])
def test_a_number_without_a_unit_is_refused(text):
    with pytest.raises(ConfigError, match='500st.*5ep.*0.3run.*1000ex'):
        durations.examples(text, 64, 1000, 1000)


def test_units_need_what_they_refer_to():
    with pytest.raises(ConfigError, match='length of an epoch'):
        durations.examples('5ep', 64)
    with pytest.raises(ConfigError, match='length of the run'):
        durations.examples('0.3run', 64, 1000)
    assert durations.examples('0ep', 64) == 0
