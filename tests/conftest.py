"""Every test runs on 4 host devices, with silent broadcasting refused and the same examples each time."""

import gc
import importlib.metadata
import os

os.environ['XLA_FLAGS'] = (
    os.environ.get('XLA_FLAGS', '')
    + ' --xla_force_host_platform_device_count=4'
    # Where cores are few and busy, the last of four devices may come late to a sum: by itself XLA ends the process after 40 s.
    + ' --xla_cpu_collective_call_terminate_timeout_seconds=600'
)

import hypothesis  # noqa: E402
import jax  # noqa: E402
import pytest  # noqa: E402
import xla_cache  # noqa: E402

import research  # noqa: E402, F401
from research.layers import formulation  # noqa: E402
from research.report import classes, figures, forest  # noqa: E402

jax.config.update('jax_numpy_rank_promotion', 'raise')

hypothesis.settings.register_profile('repeatable', derandomize=True, deadline=None)
hypothesis.settings.load_profile('repeatable')


def pytest_configure(config):
    if 'not long' in config.option.markexpr:
        # The default suite's programs run for a moment; compiling them as training does took half of its time.
        os.environ['XLA_FLAGS'] += ' --xla_backend_optimization_level=0'
        if importlib.metadata.version('jaxlib').startswith('0.10.'):  # an unknown flag aborts the process
            os.environ['XLA_FLAGS'] += ' --xla_cpu_use_fusion_emitters=false'
    os.environ['XDG_CACHE_HOME'] = str(config.cache.mkdir('home'))  # launches keep tokens there
    folder = config.cache.mkdir('xla')
    if not hasattr(config, 'workerinput'):
        xla_cache.shrink(folder)
    xla_cache.use(folder)
    jax.devices()  # reads the flags now: a test that changes them may be the first to need a device


def pytest_collection_finish():
    gc.freeze()  # a run collects garbage before it measures memory: by itself a third of test_loop's time


@pytest.fixture
def plain():
    """For tests of shapes and names, which every formulation has: the plain one is traced in half the time."""
    with formulation.plain():
        yield


@pytest.fixture
def without_plots(monkeypatch):
    """Drawing takes most of a report's time; test_report.py, test_forest.py and test_classes.py have the pictures."""
    monkeypatch.setattr(figures, 'pareto', lambda chart, workdir: None)
    monkeypatch.setattr(forest, 'draw', lambda *arguments: None)
    monkeypatch.setattr(classes, 'draw', lambda *arguments: '')
