"""Shared by the tests of transforms."""

import pytest


@pytest.fixture(scope="module", autouse=True)
def threads(one_thread):
    """All tests here run with one."""
