"""Softmax and normalisations."""

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from spikeformers.transforms.sta import approximators as approximated

DTYPES = torch.float32, torch.float64
SCALES = [1e-4, 1e-2, 1.0, 1e2, 1e4]


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def relative(got, want):
    """Of vectors along the last axis, the largest."""
    return float(((got - want).norm(dim=-1) / want.norm(dim=-1)).max())


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("sd", [0.5, 1, 2, 4, 1e3])
def test_softmax(sd, dtype):
    x = sd * torch.randn(2, 100, 197, dtype=dtype)
    for dim in (-1, 1):
        error = (approximated.softmax(x, dim) - x.softmax(dim)).abs().sum(dim)
        assert error.max() < 1e-3


def test_softmax_of_masked_rows():
    x = 4 * torch.randn(3, 197)
    x[0, 5:] = -torch.inf
    x[1] = -torch.inf
    x[2, 7:] = torch.finfo(x.dtype).min
    weights = approximated.softmax(x)
    assert weights[1].abs().max() == 0
    for row, keys in ((0, 5), (2, 7)):
        assert weights[row, keys:].abs().max() == 0
        assert_close(weights[row, :keys], x[row, :keys].softmax(-1), rtol=1e-4, atol=0)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("variance", SCALES)
def test_normalisations(variance, dtype):
    x = variance**0.5 * (torch.randn(4, 6, 5, 8, dtype=dtype) + 3)
    weight, bias = torch.randn(2, 5, 8, dtype=dtype)
    assert relative(approximated.layer_norm(x, (5, 8), weight), F.layer_norm(x, (5, 8), weight)) < 0.01
    assert_close(
        approximated.layer_norm(x, (5, 8), weight, bias), F.layer_norm(x, (5, 8), weight, bias), rtol=0.01, atol=0.01
    )
    assert relative(approximated.rms_norm(x, (8,), weight[0], 1e-6), F.rms_norm(x, (8,), weight[0], 1e-6)) < 0.01
    assert relative(approximated.rms_norm(x, 8), F.rms_norm(x, (8,))) < 0.01
    assert relative(approximated.normalize(x, dim=-1), F.normalize(x, dim=-1)) < 0.01
    assert relative(approximated.norm(x, 2, (1, 2)), x.norm(2, (1, 2))) < 0.01
    scale, shift = torch.randn(2, 6, dtype=dtype)
    for groups in (1, 2, 6):
        got, want = (f(x, groups, scale, shift) for f in (approximated.group_norm, F.group_norm))
        assert_close(got, want, rtol=0.01, atol=0.01)


def test_normalisations_of_zeros_are_zeros():
    x = torch.zeros(2, 8)
    assert approximated.layer_norm(x, (8,)).abs().max() == 0
    assert approximated.rms_norm(x, (8,)).abs().max() == 0
    assert approximated.normalize(x).abs().max() == 0
