"""What `frugal list` prints, against the catalogues that it reads from source."""

import os
import signal
import subprocess
import sys

import pytest

from research import cli, listing, models
from research.catalogue import ConfigError
from research.config import overrides
from research.layers import activation, conv, norm
from research.optim import optimizers, schedules


def names(kind):
    return {name for item in listing.KINDS[kind][1]() for name in item.names}


def test_every_name_that_a_config_takes_is_listed():
    assert names('models') == {*models.MODELS, *models.GENERATORS}
    assert names('schedules') == {*schedules.SCHEDULES}
    layers = {'norm': norm.NORMS, 'conv': conv.CONVS, 'activation': activation.ACTIVATIONS}
    assert names('layers') == {f'{kind} {name}' for kind, entries in layers.items() for name in entries}
    refused = {name for name, target in optimizers.entries().items() if target.endswith(':asks_for_more')}
    assert names('optimizers') == {*optimizers.entries()} - refused


def test_every_field_is_listed_with_its_default_and_meaning():
    items = [(item.names[0].split(' = ', 1), item.line) for item in listing.KINDS['fields'][1]()]
    listed = {key: overrides.parse(default) for (key, default), _ in items}
    assert listed == overrides.flatten(overrides.defaults())
    unsaid = [key for (key, _), line in items if not line]
    assert all(key.rpartition('.')[2] in ('name', 'higher_is_better') for key in unsaid), unsaid


@pytest.mark.parametrize('kind', listing.KINDS)
def test_everything_listed_is_explained_in_80_columns(kind, monkeypatch):
    monkeypatch.setenv('COLUMNS', '80')
    items = list(listing.KINDS[kind][1]())
    assert items
    assert all(item.line for item in items if kind != 'fields')
    assert max(map(len, listing.text(kind).partition('\nFiles are in ')[0].splitlines())) <= 80


def test_techniques_say_how_they_are_turned_on():
    """Their settings are overrides that a config takes."""
    settings = [
        setting for item in listing.KINDS['techniques'][1]() for setting in item.settings if 'milestones' not in setting
    ]
    assert "{'gradient.name': 'sam', 'gradient.rho': 0.05}" in settings and "{'model.low_rank': 0.25}" in settings
    for setting in settings:
        if 'log' not in setting:  # a space to search, of no override
            overrides.apply(overrides.defaults(), overrides.parse(setting))


def test_what_is_not_listed_is_answered_with_the_nearest(capsys):
    assert cli.run(['list', 'model']) == 2 and "Did you mean 'models'?" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="Did you mean 'optimizer'?"):
        listing.text('fields', 'optimiser')
    assert 'optimizer.learning_rate = 0.05\n    peak' in listing.text('fields', 'optimizer.learning_rate')
    assert 'research/models/resnet.py' in listing.text('models', 'resnet') and 'vgg' not in listing.text('models', 'resnet')


def test_a_list_needs_no_jax_and_no_reader():
    """`frugal list fields | head` has all it wants, and the rest ends without a word."""
    code = "import sys; from research import listing; listing.text('models'); assert 'jax' not in sys.modules"
    subprocess.run([sys.executable, '-c', code], check=True)
    gone, pipe = os.pipe()
    os.close(gone)
    done = subprocess.run(
        [sys.executable, '-m', 'research', 'list', 'fields'], stdout=pipe, stderr=subprocess.PIPE, check=False
    )
    os.close(pipe)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, b'')
