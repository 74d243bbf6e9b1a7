"""Shared by the tests of kernels."""

import pytest
import torch


@pytest.fixture
def uninitialised_memory_is_nan():
    """What a kernel does not write, or reads before it has, shows: deterministic torch fills `empty` with NaN or large integers."""
    torch.manual_seed(0)
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def set_num_threads():
    """`torch.set_num_threads` for the length of a test."""
    threads = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(threads)
