"""Latencies belong to runs and to programs, whatever variants are called."""

import json
import types

import jax
import jax.numpy as jnp
import pytest

from research import cost
from research.study import latency


@pytest.fixture
def measured(tmp_path, monkeypatch):
    """`measure` of runs named after their programs, with the calls that were timed."""
    timed, writes = [], set()
    widths = {'narrow': 2, 'again': 2, 'wide': 4}

    def inference(workdir, run, session, batch):
        width = widths[run.variant]
        return (
            jax.jit(lambda weights, x: x @ weights),
            (jnp.ones((3, width)), jnp.ones((batch, 3))),
            4 if run.variant in writes else 1,
        )

    def interleaved(calls, rounds):
        timed.append(len(calls))
        assert rounds == (15 if writes else 60)
        return {name: {'p50': 10.0 * len(timed) + number, 'n': rounds} for number, name in enumerate(calls)}

    monkeypatch.setattr(latency, '_inference', inference)
    monkeypatch.setattr(cost, 'interleaved', interleaved)

    def measure(*variants, anew=False, batches=(1, 64), seed=0, of_texts=()):
        writes.update(of_texts)
        runs = [types.SimpleNamespace(variant=v, id=f'{v}-{seed}') for v in variants]
        for run in runs:
            (tmp_path / 'runs' / run.id / 'scored').mkdir(parents=True, exist_ok=True)
        latency.measure(tmp_path, types.SimpleNamespace(runs=runs, study={'latency': batches}), None, anew)
        return json.loads((tmp_path / 'latency.json').read_text()), timed

    return measure


def test_the_same_program_is_timed_once_for_all_that_share_it(measured):
    found, timed = measured('narrow', 'again', 'wide')
    assert timed == [2, 2]
    assert found['narrow-0'] == found['again-0'] == {'1': {'p50': 10.0, 'n': 60}, '64': {'p50': 20.0, 'n': 60}}
    assert found['wide-0'] == {'1': {'p50': 11.0, 'n': 60}, '64': {'p50': 21.0, 'n': 60}}


def test_what_is_known_of_the_same_runs_is_kept_and_anything_else_measured_anew(measured):
    measured('narrow', 'wide')
    assert measured('wide', 'narrow')[1] == [2, 2]
    assert measured('wide', batches=(1,))[1] == [2, 2]
    assert len(measured('wide', seed=1)[1]) == 4
    found, timed = measured('wide', seed=1, anew=True)
    assert len(timed) == 6 and set(found) == {'wide-1'}


def test_texts_are_timed_for_each_variant_as_weights_say_how_long_they_are(measured):
    found, timed = measured('narrow', 'again', 'wide', of_texts=('narrow', 'again', 'wide'))
    assert timed == [3, 3] and found['again-0'] == {'1': {'p50': 11 / 4, 'n': 15}, '64': {'p50': 21 / 4, 'n': 15}}


def test_a_study_of_which_no_run_has_ended_has_none(measured):
    assert measured(anew=True)[0] == {}
