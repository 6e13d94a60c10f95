"""A session for each module: what it holds is made once."""

import pytest
from sessions import cleared


@pytest.fixture(scope='module')
def session():
    with cleared() as session:
        yield session
