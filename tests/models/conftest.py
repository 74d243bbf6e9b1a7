"""Shared by the tests of models."""

import pytest


@pytest.fixture(scope="module", autouse=True)
def threads(one_thread):
    """All tests here run with one."""
