"""Names and arguments: what is refused, and what the message offers instead."""

import flax.linen as nn
import pytest

from research import catalogue
from research.catalogue import ConfigError

ENTRIES = {'dense': 'flax.linen:Dense', 'power': 'math:pow', 'dict': 'collections:OrderedDict', 'gone': 'flax.linen:Gone'}


def constructor(given, width, depth=2, *, scale: 'float' = 1.0):
    return given, width, depth, scale


def open_ended(width=1, **more):
    return width, more


@pytest.mark.parametrize(
    ('name', 'message'),
    [
        ('dens', "Unknown layer 'dens'. Did you mean 'dense'?"),
        ('qqqq', "Unknown layer 'qqqq'. Valid: dense, dict, gone, power."),
        ('gone', "Cannot import layer 'gone'"),
        ('no_such_module:Net', "Cannot import layer 'no_such_module:Net': No module named 'no_such_module'"),
        ('flax.linen:Dens', "Cannot import layer 'flax.linen:Dens'"),
        ('flax.linen:', "Cannot import layer 'flax.linen:'"),
        (':Dense', "Cannot import layer ':Dense'"),
        ('math:pi', "layer 'math:pi' is a float, expected something that can be called"),
    ],
)
def test_a_name_that_leads_nowhere_is_refused(name, message):
    with pytest.raises(ConfigError, match='^' + message.replace('.', r'\.').replace('?', r'\?')):
        catalogue.resolve('layer', name, ENTRIES)


def test_an_import_path_may_lead_into_a_class():
    assert catalogue.resolve('layer', 'flax.linen:Dense.__call__', {}) is nn.Dense.__call__


@pytest.mark.parametrize(
    ('kwargs', 'message'),
    [
        ({'width': 1, 'dept': 2}, "takes no argument 'dept'. Did you mean 'depth'?"),
        ({'width': 1, 'given': 2}, "takes no argument 'given'"),
        ({'width': 1, 'learning_rte': 2}, "Did you mean 'learning_rate'?"),
        ({'depth': 1}, "needs 'width'"),
    ],
)
def test_arguments_are_held_against_the_signature(kwargs, message):
    with pytest.raises(ConfigError) as caught:
        catalogue.check('thing', 'x', constructor, kwargs, given=('given',), fields=('learning_rate',))
    assert message in str(caught.value)


def test_what_a_signature_takes_passes():
    catalogue.check('thing', 'x', constructor, {'width': 1, 'scale': 2.0}, given=('given',))
    catalogue.check('thing', 'x', open_ended, {'anything': 1})
    with pytest.raises(ConfigError, match="takes no argument 'more_given'"):
        catalogue.check('thing', 'x', open_ended, {'more_given': 1}, given=('more_given',))


def test_a_linen_module_fills_in_its_name_and_parent():
    named, others = catalogue.parameters(nn.Dense)
    assert 'features' in named and not {'name', 'parent'} & set(named) and not others


def test_annotations_in_quotes_are_resolved():
    assert catalogue.parameters(constructor)[0]['scale'].annotation is float


def test_build_and_bind_call_with_what_is_given():
    entries = {'mine': f'{__name__}:constructor'}
    assert catalogue.build('thing', {'name': 'mine', 'width': 3}, entries, given=7) == (7, 3, 2, 1.0)
    assert catalogue.bind('thing', {'name': 'mine', 'width': 3}, entries, ('given',))(given=7, depth=5) == (7, 3, 5, 1.0)
