"""Operations on bits without weights: packing of signed numbers, unpacking, and pooling."""
# Shapes: T time steps, B batch, C channels, H W pixels of a map.

import ctypes

import torch
from torch import Tensor

from . import native, reference
from .maps import check_windows, is_map, out_size
from .packed import Packed, pack


def pack_signed(x: Tensor, levels: int) -> tuple[Packed, int]:
    """Signed whole numbers [T, B, C, H, W] -> bits, as many planes as levels, and the sum of the magnitudes.

    The channels are C rounded up to a multiple of 64, for numbers above 0, and as many again for those below: see `signed`. Numbers
    beyond the levels are clipped.

    Raises:
        ValueError: x is no map on the CPU, or levels is out of range.
    """
    if x.ndim != 5 or x.device.type != "cpu" or not isinstance(levels, int) or not 1 <= levels < 2**15:
        raise ValueError(
            f"expected whole numbers [T, B, C, H, W] and from 1 to {2**15 - 1} levels, not {tuple(x.shape)} on {x.device} and {levels}"
        )
    t, b, c, h, w = x.shape
    library, half = native.load()[0], -(-c // 64)
    if library is None or x.dtype not in native.DTYPES or not x.numel():
        x = torch.nn.functional.pad(x.clamp(-levels, levels), (0, 0, 0, 0, 0, -c % 64))
        return pack(torch.cat([x.clamp_min(0), (-x).clamp_min(0)], 2)), int(x.abs().sum())
    x = x.movedim(2, 4).contiguous()
    words = torch.empty(levels, t, b, h, w, 2 * half, dtype=torch.int64, device="cpu")
    given = native.BitsCall(
        planes=levels, maps=t * b, height=h, width=w, channels=c, words=2 * half, dtype=native.DTYPES[x.dtype],
        threads=torch.get_num_threads(),
    )  # fmt: skip
    units = native.must_work(library.spike_pack(ctypes.byref(given), x.data_ptr(), words.data_ptr()))
    return Packed(words, 128 * half), units


def unpacked_into(spikes: Packed, out: Tensor | torch.dtype) -> native.BitsCall:
    """The call of `spike_unpack` that fills `out` [T, B, C, H, W], channels last without gaps; of a type alone, `out` is to be set in it.

    Raises:
        ValueError: words that are not contiguous on the CPU, another type, or an `out` of another shape or memory
            format.
    """
    planes, t, b, h, w, words = spikes.check().words.shape
    dtype, to = (out, None) if isinstance(out, torch.dtype) else (out.dtype, out)
    if not spikes.words.is_contiguous() or spikes.words.device.type != "cpu" or dtype not in native.DTYPES:
        raise ValueError(f"words of spikes must be contiguous, on the CPU, and numbers float32 or float64, not {dtype}")
    if to is not None and (to.device.type != "cpu" or tuple(to.shape) != spikes.shape or not is_map(to)):
        raise ValueError(
            f"{spikes.shape} spikes do not go into {tuple(to.shape)}, or that is not channels last without gaps"
        )
    given = native.BitsCall(
        spikes=spikes.words.data_ptr(), out=None if to is None else to.data_ptr(), planes=planes, maps=t * b, height=h, width=w,
        channels=spikes.channels, words=words, dtype=native.DTYPES[dtype], threads=torch.get_num_threads(),
    )  # fmt: skip
    given.alive = spikes, out
    return given


def pooled_into(spikes: Packed, kernel: int, stride: int, padding: int, out: Packed) -> native.BitsCall:
    """The call of `spike_pool` that fills `out`.

    Args:
        spikes: bits [T, B, C, H, W] in one plane.
        kernel, stride, padding: of square windows.
        out: bits [T, B, C, H', W'] that are filled.

    Raises:
        ValueError: several planes, windows or sizes that do not fit, or words that are not contiguous on the CPU.
    """
    planes, t, b, h, w, words = spikes.check().words.shape
    out.check()
    check_windows((kernel, kernel), (stride, stride), (padding, padding))
    size = out_size(h, kernel, stride, padding), out_size(w, kernel, stride, padding)
    if (
        planes != 1
        or out.words.shape != (1, t, b, *size, words)
        or any(not z.words.is_contiguous() or z.words.device.type != "cpu" for z in (spikes, out))
    ):
        raise ValueError(
            f"spikes {tuple(spikes.words.shape)} do not go into {tuple(out.words.shape)}, or either is not contiguous"
        )
    given = native.BitsCall(
        spikes=spikes.words.data_ptr(), out=out.words.data_ptr(), planes=1, maps=t * b, height=h, width=w, channels=spikes.channels,
        words=words, out_height=out.words.shape[3], out_width=out.words.shape[4], kernel=kernel, stride=stride, padding=padding,
        threads=torch.get_num_threads(),
    )  # fmt: skip
    given.alive = spikes, out
    return given


def pool(spikes: Packed, kernel: int, stride: int, padding: int = 0) -> Packed:
    """Maximum over windows of binary spikes: a pixel fires where any of its window's does.

    Args:
        spikes: bits [T, B, C, H, W] in one plane.
        kernel, stride, padding: of square windows.

    Raises:
        ValueError: the spikes have several planes, or windows do not fit the map.
    """
    if len(spikes.check().words) != 1:
        raise ValueError(f"only binary spikes can be pooled as bits, and these have {len(spikes.words)} planes")
    check_windows((kernel, kernel), (stride, stride), (padding, padding))
    if 2 * padding > kernel or min(spikes.shape[3:]) + 2 * padding < kernel:
        raise ValueError(
            f"windows of {kernel} with padding {padding} do not fit a map of {spikes.shape[3]} x {spikes.shape[4]}"
        )
    library = native.load()[0]
    if library is None or not spikes.words.numel():
        return reference.pool(spikes, kernel, stride, padding)
    _, t, b, h, w, words = spikes.words.shape
    size = out_size(h, kernel, stride, padding), out_size(w, kernel, stride, padding)
    out = Packed(torch.empty(1, t, b, *size, words, dtype=torch.int64, device="cpu"), spikes.channels)
    spikes = Packed(spikes.words.contiguous(), spikes.channels)
    native.must_work(library.spike_pool(ctypes.byref(pooled_into(spikes, kernel, stride, padding, out))))
    return out
