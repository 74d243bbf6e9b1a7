"""Attention between bit-packed spikes by counting bits; the operation of `layers.attention.spike_attention`."""

import ctypes
import functools

import torch
from torch import Tensor

from .._library import load_library
from ..spike_conv import Packed, aligned_room, channels_last, empty_map
from ..spike_conv.native import DTYPES, must_work
from . import reference

__all__ = ["call", "run", "scratch_bytes", "spike_attention", "status"]


class AttentionCall(ctypes.Structure):
    """`AttentionCall` of native.c."""

    _fields_ = (
        [(name, ctypes.c_void_p) for name in ("q", "k", "v", "out", "scratch")]
        + [(name, ctypes.c_int64) for name in ("maps", "tokens", "channels", "words", "heads")]
        + [("dtype", ctypes.c_int32), ("threads", ctypes.c_int32)]
    )


@functools.cache
def load() -> tuple[ctypes.CDLL | None, str]:
    """The fastest build that this processor runs and one sentence about it; None and the reason where there is none."""
    library, sentence = load_library(__file__)
    if library is not None:
        library.spike_attention.argtypes, library.spike_attention.restype = (
            [ctypes.POINTER(AttentionCall)],
            ctypes.c_int,
        )
        library.spike_attention_scratch.argtypes = [ctypes.POINTER(AttentionCall)]
        library.spike_attention_scratch.restype = ctypes.c_int64
    return library, sentence


def _library() -> ctypes.CDLL:
    library = load()[0]
    assert library is not None, "calls are only carried out where `load` found a library"
    return library


def call(q: Packed, k: Packed, v: Packed, num_heads: int, out: Tensor) -> AttentionCall:
    """The operation on these tensors for `run`, which may repeat it. It keeps them alive.

    Args:
        q, k, v: binary spikes of the same shape [T, B, C, H, W], their words contiguous.
        num_heads: h, a divisor of C.
        out: where the counts go.

    Raises:
        ValueError: as for `spike_attention`, or words that are not contiguous, or an `out` that is not [T, B, C, H, W], channels last
            without gaps.
    """
    _check(q, k, v, num_heads, out.dtype)
    if (
        out.device.type != "cpu"
        or tuple(out.shape) != q.shape
        or not out.movedim(2, 4).is_contiguous()
        or not all(z.words.is_contiguous() for z in (q, k, v))
    ):
        raise ValueError(
            f"words must be contiguous, and counts {q.shape}, channels last without gaps, not {tuple(out.shape)}"
        )
    _, t, b, h, w, words = q.words.shape
    given = AttentionCall(
        q=q.words.data_ptr(), k=k.words.data_ptr(), v=v.words.data_ptr(), out=out.data_ptr(), maps=t * b, tokens=h * w,
        channels=q.channels, words=words, heads=num_heads, dtype=DTYPES[out.dtype], threads=torch.get_num_threads(),
    )  # fmt: skip
    given.alive = q, k, v, out
    return given


def scratch_bytes(given: AttentionCall) -> int:
    """How much memory `given.scratch` must point to, from an address that 64 divides."""
    return must_work(_library().spike_attention_scratch(ctypes.byref(given))) * given.threads


def run(given: AttentionCall) -> None:
    """Carries out what `call` prepared, with `given.scratch` set."""
    must_work(_library().spike_attention(ctypes.byref(given)))


def _check(q: Packed, k: Packed, v: Packed, num_heads: int, dtype: torch.dtype) -> None:
    if dtype not in DTYPES:
        raise ValueError(f"counts are in float32 or float64, not {dtype}")
    q.check()
    if (
        not isinstance(num_heads, int)
        or num_heads < 1
        or q.channels < 1
        or q.channels % num_heads
        or q.channels // num_heads > 2**24
    ):
        raise ValueError(
            f"num_heads={num_heads} does not divide the {q.channels} channels of the queries, or heads have more than 2^24"
        )
    if not q.check().shape == k.check().shape == v.check().shape or any(len(z.words) != 1 for z in (q, k, v)):
        raise ValueError(
            f"expected binary spikes of one shape, not {q.shape}, {k.shape}, {v.shape} in {[len(z.words) for z in (q, k, v)]} planes"
        )
    if any(z.words.device.type != "cpu" for z in (q, k, v)):
        raise ValueError("event-driven kernels run on the CPU; move the spikes there")


def spike_attention(q: Packed, k: Packed, v: Packed, num_heads: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Q (K^T V) per head: for each token and channel, the number of paths through the spikes of a head.

    Args:
        q, k, v: binary spikes of the same shape [T, B, C, H, W]; channel c belongs to head c // (C / num_heads).
        num_heads: h, a divisor of C.
        dtype: float32 or float64.

    Returns:
        Counts [T, B, C, H, W], integers 0 .. H*W*C/h, channels last in memory. In float32 they are exact below 2^24.

    Raises:
        ValueError: heads that do not divide, shapes that differ, spikes that are not binary, another dtype.
    """
    _check(q, k, v, num_heads, dtype)
    if load()[0] is None or not q.words.numel():
        return channels_last(reference.spike_attention(q, k, v, num_heads, dtype))
    t, b, c, h, w = q.shape
    out = empty_map(t, b, c, h, w, dtype)
    q, k, v = (Packed(z.words.contiguous(), z.channels) for z in (q, k, v))
    given = call(q, k, v, num_heads, out)
    scratch = aligned_room(scratch_bytes(given))
    given.scratch = scratch.data_ptr()
    run(given)
    return out


def status() -> list[tuple[str, bool, str]]:
    """What is live on this machine: (implementation, whether it runs here, why or why not and what to do)."""
    library, sentence = load()
    return [("reference", True, "plain PyTorch, any device"), ("native", library is not None, sentence)]
