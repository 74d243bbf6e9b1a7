"""Small networks, see tests/conftest.py."""

import pytest


@pytest.fixture(scope="module", autouse=True)
def threads(one_thread):
    """All tests here run with one."""
