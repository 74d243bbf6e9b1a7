"""Batch statistics over processes, of which this one plays both; test_distributed.py has two."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from spikeformers.layers import ConvBN
from spikeformers.training import parallel
from spikeformers.training.parallel import SyncBatchNorm2d, synchronise_norms


@pytest.fixture
def two(monkeypatch):
    """Another process that has the same batch."""
    monkeypatch.setattr(parallel.dist, "is_initialized", lambda: True)
    monkeypatch.setattr(parallel.dist, "get_world_size", lambda: 2)
    monkeypatch.setattr(parallel, "all_reduce", lambda x: 2 * x)


def pair(channels=5):
    torch.manual_seed(0)
    plain = nn.BatchNorm2d(channels)
    nn.init.normal_(plain.weight)
    nn.init.normal_(plain.bias)
    return plain, synchronise_norms(nn.Sequential(plain))[0]


@pytest.mark.parametrize("shape", [(3, 5, 2, 2), (1, 5, 7, 1)], ids=str)
def test_two_halves_are_normalised_as_their_whole(two, shape):
    plain, synchronised = pair()
    assert type(synchronised) is SyncBatchNorm2d
    x, grad = (2 * torch.randn(shape) + 1).requires_grad_(), torch.randn(shape)
    whole = x.detach().repeat(2, 1, 1, 1).requires_grad_()
    got, want = synchronised(x), plain(whole)
    assert_close(got, want[: len(x)])
    got.backward(grad)
    want.backward(grad.repeat(2, 1, 1, 1))
    assert_close(x.grad, whole.grad[: len(x)])
    assert_close(2 * synchronised.weight.grad, plain.weight.grad)
    assert_close(synchronised.state_dict(), plain.state_dict())


def test_all_pixels_count(two, monkeypatch):
    """More of them than float32 can count; and processes wait for each other twice only."""
    reduced = []
    monkeypatch.setattr(parallel, "all_reduce", lambda x: reduced.append(x) or 2 * x)
    _, synchronised = pair(1)
    with torch.no_grad():
        synchronised(torch.zeros(1, 1, 1, 1).expand(2**24 + 1, 1, 1, 1))
    assert len(reduced) == 2 and reduced[0][-1] == 2**24 + 1


def test_half_precision_keeps_whole_statistics(two):
    plain, synchronised = pair()
    x = (torch.randn(4, 5, 3, 3) + 100).bfloat16()
    got, want = synchronised(x), plain(x.float().repeat(2, 1, 1, 1))[:4]
    assert got.dtype == torch.bfloat16
    assert_close(got.float(), want, rtol=0.02, atol=0.02)
    assert_close(synchronised.running_var, plain.running_var)


def test_without_processes_and_in_eval_mode_nothing_changes(two, monkeypatch):
    plain, synchronised = pair()
    x = torch.randn(3, 5, 2, 2)
    assert torch.equal(synchronised.eval()(x), plain.eval()(x))
    monkeypatch.setattr(parallel.dist, "is_initialized", lambda: False)
    assert torch.equal(synchronised.train()(x), plain.train()(x))


def test_norms_inside_blocks_are_found():
    block = synchronise_norms(nn.Sequential(ConvBN(2, 3, 3)))
    assert [type(m) for m in block.modules() if isinstance(m, nn.BatchNorm2d)] == [SyncBatchNorm2d]
