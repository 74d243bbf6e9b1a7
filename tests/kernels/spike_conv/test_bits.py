"""Operations on bits: signed numbers, numbers from bits, pooling."""

import ctypes

import pytest
import torch
from torch.nn import functional
from torch.testing import assert_close

from spikeformers.kernels.spike_conv import (
    channels_last,
    empty_map,
    native,
    pack,
    pack_signed,
    pool,
    unpack,
    unpacked_into,
)

CHANNELS = [1, 5, 17, 63, 64, 65, 130, 360]
pytestmark = pytest.mark.usefixtures("uninitialised_memory_is_nan")
needs_native = pytest.mark.skipif(native.load()[0] is None, reason="the native kernel is not built")


def spikes(*shape, density=0.3, most=1):
    """Whole numbers up to `most` [T, B, C, H, W], of which a share `density` is not 0."""
    return (torch.rand(shape) < density) * torch.randint(1, most + 1, shape)


@needs_native
@pytest.mark.parametrize("layout", ["channels_last", "contiguous", "gaps"])
@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("levels", [1, 3])
def test_signed_numbers_as_bits(levels, channels, layout, set_num_threads, monkeypatch):
    set_num_threads(2)
    dtype = torch.float64 if layout == "gaps" else torch.float32
    x = torch.randint(-4, 5, (2, 3, channels, 5, 16 if channels == 65 else 3)).to(dtype)
    if layout == "channels_last":
        x = channels_last(x.movedim(2, 4).contiguous().movedim(4, 2))
    elif layout == "gaps":
        x = torch.cat([x, x], 4)[..., ::2]
    clipped = x.clamp(-levels, levels)
    packed, units = pack_signed(x, levels)
    assert units == clipped.abs().sum() > 0
    half = packed.channels // 2
    numbers = unpack(packed, dtype)
    assert half % 64 == 0 and not numbers[:, :, channels:half].any() and not numbers[:, :, half + channels :].any()
    assert torch.equal(numbers[:, :, :channels] - numbers[:, :, half : half + channels], clipped)
    monkeypatch.setattr(native, "load", lambda: (None, "it is missing"))
    again, same = pack_signed(x, levels)
    assert same == units and torch.equal(again.words, packed.words) and again.channels == packed.channels


@needs_native
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("channels", CHANNELS)
def test_spikes_as_numbers(channels, dtype, set_num_threads):
    """What dense layers read: written over whatever the buffer held, for large maps by several threads."""
    set_num_threads(2)
    for size in ((3, 2), (14, 14)):
        packed = pack(spikes(2, 3, channels, *size, most=3))
        out = empty_map(2, 3, channels, *size, dtype=dtype)
        native.load()[0].spike_unpack(ctypes.byref(unpacked_into(packed, out)))
        assert_close(out, unpack(packed, dtype), rtol=0, atol=0)


@pytest.mark.parametrize("kernel, stride, padding", [(1, 1, 0), (2, 2, 0), (3, 2, 1), (3, 1, 1), (5, 3, 2)])
@pytest.mark.parametrize("channels", [1, 64, 65, 130])
def test_pool_is_maximum_pooling(channels, kernel, stride, padding, set_num_threads):
    set_num_threads(2)
    for size in ((5, 7), (24, 20)):
        for density in (0, 0.1, 1):
            x = spikes(2, 2, channels, *size, density=density).float()
            got = pool(pack(x), kernel, stride, padding)
            want = functional.max_pool2d(x.flatten(0, 1), kernel, stride, padding).unflatten(0, (2, 2))
            assert torch.equal(got.words, pack(want).words) and got.channels == channels


def test_only_binary_spikes_are_pooled():
    with pytest.raises(ValueError, match="these have 2 planes"):
        pool(pack(torch.full((1, 1, 2, 4, 4), 2)), 2, 2)
