"""Scalar functions at any scale."""

from functools import partial

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from spikeformers.transforms.sta import approximators as approximated

DTYPES = torch.float32, torch.float64


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    "name, exact",
    [
        ("gelu", F.gelu),
        ("quick_gelu", lambda x: x * torch.sigmoid(1.702 * x)),
        ("silu", F.silu),
        ("sigmoid", torch.sigmoid),
        ("tanh", torch.tanh),
        ("hardswish", F.hardswish),
    ],
)
def test_activations(name, exact, dtype):
    x = torch.cat([torch.linspace(-20, 20, 20001, dtype=dtype), torch.tensor([-1e4, 1e4], dtype=dtype)])
    assert_close(getattr(approximated, name)(x), exact(x), rtol=1e-6, atol=5e-4)


@pytest.mark.parametrize("reach", [0.0, 24.5, 1e6])
def test_a_wider_range_is_no_less_accurate(reach):
    x = torch.linspace(-70, 70, 40001)
    assert_close(approximated.gelu(x, reach=reach), F.gelu(x), rtol=1e-6, atol=5e-4)
    assert_close(approximated.gelu(x, "tanh", reach=reach), F.gelu(x, approximate="tanh"), rtol=1e-6, atol=5e-4)
    assert_close(approximated.sigmoid(x, reach=reach), x.sigmoid(), rtol=1e-6, atol=5e-4)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_functions_of_any_scale(dtype):
    x = torch.logspace(-30, 30, 5001, dtype=dtype)
    close = partial(assert_close, atol=0)
    close(approximated.reciprocal(x), 1 / x, rtol=3e-5)
    close(approximated.reciprocal(-x), -1 / x, rtol=3e-5)
    close(approximated.divide(3.0, x), 3 / x, rtol=3e-5)
    close(approximated.rsqrt(x), x.rsqrt(), rtol=2e-3)
    close(approximated.sqrt(x), x.sqrt(), rtol=2e-3)
    z = torch.linspace(-85, 85, 5001, dtype=dtype)
    close(approximated.exp(z), z.exp(), rtol=5e-5)


def test_edges():
    zero = torch.tensor([0.0, -0.0])
    assert approximated.reciprocal(zero).tolist() == [torch.inf, -torch.inf]
    assert approximated.rsqrt(zero).tolist() == [torch.inf, torch.inf]
    assert approximated.sqrt(torch.tensor([0.0, -1e-3])).abs().max() < 1e-15
    assert approximated.exp(torch.tensor([-torch.inf, -1e30, 1e30])).tolist() == [0, 0, torch.inf]
