"""Spikes as bits."""

import pytest
import torch
from torch.testing import assert_close

from spikeformers.kernels.spike_conv import (
    pack,
    unpack,
)

CHANNELS = [1, 5, 17, 63, 64, 65, 130, 360]
pytestmark = pytest.mark.usefixtures("uninitialised_memory_is_nan")


def spikes(*shape, density=0.3, most=1):
    """Whole numbers up to `most` [T, B, C, H, W], of which a share `density` is not 0."""
    return (torch.rand(shape) < density) * torch.randint(1, most + 1, shape)


DTYPES = [torch.bool, torch.uint8, torch.int64, torch.float16, torch.bfloat16, torch.float32, torch.float64]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("channels", CHANNELS)
def test_pack_and_unpack_are_inverse(channels, dtype):
    x = spikes(2, 3, channels, 3, 2, most=1 if dtype == torch.bool else 3).to(dtype)
    packed = pack(x)
    assert packed.shape == x.shape and packed.words.shape[1:] == (2, 3, 3, 2, -(-channels // 64))
    assert_close(unpack(packed, dtype), x, rtol=0, atol=0)
    assert unpack(packed).movedim(2, 4).is_contiguous()


def test_bits_of_channels_by_hand():
    x = torch.zeros(1, 1, 66, 1, 2)
    x[0, 0, 0, 0, 0], x[0, 0, 5, 0, 0], x[0, 0, 65, 0, 0], x[0, 0, 63, 0, 1] = 1, 2, 1, 1
    packed = pack(x)
    assert packed.words[:, 0, 0, 0].tolist() == [[[33, 2], [-(2**63), 0]], [[32, 0], [0, 0]]]
    assert packed.density == 5 / 132
    assert pack(torch.zeros(1, 1, 66, 1, 2)).density == 0 and pack(torch.ones(2, 3, 66, 4, 2)).density == 1
    assert pack(torch.full((2, 3, 5, 4, 2), 3)).density == 3
    assert pack(torch.zeros(2, 0, 5, 4, 2)).density == 0


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(2, 3, 4), r"not \(2, 3, 4\); tokens \[T, B, N, C\]"),
        (torch.full((1, 1, 2, 1, 1), 0.5), "whole numbers"),
        (torch.full((1, 1, 2, 1, 1), -1), "whole numbers"),
        (torch.full((1, 1, 2, 1, 1), torch.nan), "whole numbers"),
        (torch.full((1, 1, 2, 1, 1), torch.inf), "whole numbers"),
    ],
    ids=["shape", "fraction", "negative", "nan", "infinity"],
)
def test_pack_takes_whole_numbers_only(x, message):
    with pytest.raises(ValueError, match=message):
        pack(x)
