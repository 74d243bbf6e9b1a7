"""The native CPU implementation: loads the compiled library and calls it on tensors. See native.c."""

import ctypes
import functools

import torch
from torch import Tensor

from .._library import load_library
from ..lif import Dynamics
from ..lif.native import INTEGRATIONS

WEIGHTS = {"none": 0, torch.float32: 1, torch.float64: 1, torch.bfloat16: 2, torch.int8: 3, "depthwise": 4}
DTYPES = {torch.float32: 0, torch.float64: 1}


class CNeuron(ctypes.Structure):
    """`Neuron` of native.c."""

    _fields_ = [
        ("tau", ctypes.c_double),
        ("v_threshold", ctypes.c_double),
        ("mode", ctypes.c_int32),
        ("soft_reset", ctypes.c_int32),
    ]


class CValues(ctypes.Structure):
    """`Values` of native.c."""

    _fields_ = [
        ("values", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("t_stride", "b_stride", "pixel_stride")),
    ]


class MapCall(ctypes.Structure):
    """`MapCall` of native.c."""

    _fields_ = (
        [(name, ctypes.c_void_p) for name in ("spikes", "weight", "scale", "bias")]
        + [("addend", CValues * 2), ("out", CValues)]
        + [(name, ctypes.c_void_p) for name in ("fired", "v", "v_out", "count", "scratch")]
        + [(name, ctypes.c_int64) for name in ("planes", "steps", "batch", "height", "width", "channels", "in_words")]
        + [(name, ctypes.c_int64) for name in ("out_height", "out_width", "out_channels", "out_words")]
        + [(name, ctypes.c_int64) for name in ("kernel_height", "kernel_width", "stride_height", "stride_width")]
        + [(name, ctypes.c_int64) for name in ("padding_height", "padding_width")]
        + [("neuron", CNeuron), ("weights", ctypes.c_int32), ("dtype", ctypes.c_int32), ("threads", ctypes.c_int32)]
    )


class BitsCall(ctypes.Structure):
    """`BitsCall` of native.c."""

    _fields_ = (
        [("spikes", ctypes.c_void_p), ("out", ctypes.c_void_p)]
        + [(name, ctypes.c_int64) for name in ("planes", "maps", "height", "width", "channels", "words")]
        + [(name, ctypes.c_int64) for name in ("out_height", "out_width", "kernel", "stride", "padding")]
        + [("dtype", ctypes.c_int32), ("threads", ctypes.c_int32)]
    )


@functools.cache
def load() -> tuple[ctypes.CDLL | None, str]:
    """The fastest build that this processor runs and one sentence about it; None and the reason where there is none."""
    library, sentence = load_library(__file__)
    if library is not None:
        for function, call in ((library.spike_map, MapCall), (library.spike_unpack, BitsCall)):
            function.argtypes, function.restype = [ctypes.POINTER(call)], ctypes.c_int
        library.spike_pool.argtypes, library.spike_pool.restype = [ctypes.POINTER(BitsCall)], ctypes.c_int64
        library.spike_pack.argtypes = [ctypes.POINTER(BitsCall), ctypes.c_void_p, ctypes.c_void_p]
        library.spike_pack.restype = ctypes.c_int64
        library.spike_map_scratch.argtypes, library.spike_map_scratch.restype = (
            [ctypes.POINTER(MapCall)],
            ctypes.c_int64,
        )
    return library, sentence


def loaded() -> ctypes.CDLL:
    """The library, where there is one: see `load`."""
    library = load()[0]
    assert library is not None, "calls are only carried out where `load` found a library"
    return library


def knows(neuron: Dynamics) -> bool:
    """Whether the native code has these neurons."""
    return neuron.integration in INTEGRATIONS


def neurons(neuron: Dynamics) -> CNeuron:
    """The neurons for C code, which differentiates nothing.

    Raises:
        ValueError: it does not have them.
    """
    if not knows(neuron):
        raise ValueError(
            f"the native code has no neurons that integrate like {neuron.integration!r}; it has {', '.join(INTEGRATIONS)}"
        )
    return CNeuron(float(neuron.tau), neuron.v_threshold, INTEGRATIONS.index(neuron.integration), neuron.soft_reset)


def type_of(given: MapCall) -> torch.dtype:
    """The type of the potentials."""
    return next(dtype for dtype, number in DTYPES.items() if number == given.dtype)


def must_work(result: int) -> int:
    """What a native function returned, if it did anything.

    Raises:
        ValueError: the call made no sense, and nothing was done.
    """
    if result < 0:
        raise ValueError(
            "the native kernel does not take such a call: make it as this package does, and set its memory"
        )
    return result


def values(tensor: Tensor | None) -> CValues:
    """A map [T, B, C, H, W] for C code: its channels are contiguous, and pixels lie in rows without gaps between them.

    Raises:
        ValueError: the map lies otherwise in memory.
    """
    if tensor is None:
        return CValues()
    t, b, c, h, w = tensor.stride()
    rows = h == w * tensor.shape[4] or 1 in tensor.shape[3:]
    if not ((c == 1 or tensor.shape[2] == 1) and rows):
        raise ValueError(
            f"a map {tuple(tensor.shape)} with strides {tensor.stride()} is not channels last without gaps in its rows"
        )
    return CValues(tensor.data_ptr(), t, b, w if tensor.shape[4] > 1 else h)
