"""Event-driven convolution: weights are added where a spike is. Bits in, potentials and bits out; a linear layer is its 1x1 case."""
# Shapes: T time steps, B batch, C channels, H W pixels of a map (W = 1 for tokens).

import math
from typing import cast

import torch
from torch import Tensor

from ..lif import Dynamics
from . import native, reference
from .bits import pack_signed, pool, pooled_into, unpacked_into
from .map_call import call, check_operands, run, scratch_bytes
from .maps import aligned, aligned_room, channels_last, empty_map, out_size
from .packed import Packed, pack, unpack
from .weight import MOST_ROWS, Weight, prepare, signed

__all__ = [
    "MOST_ROWS",
    "Packed",
    "Weight",
    "aligned",
    "aligned_room",
    "call",
    "channels_last",
    "empty_map",
    "native",
    "out_size",
    "pack",
    "pack_signed",
    "pool",
    "pooled_into",
    "prepare",
    "run",
    "scratch_bytes",
    "signed",
    "spike_conv",
    "status",
    "unpack",
    "unpacked_into",
]


def spike_conv(
    spikes: Packed | None,
    weight: Weight | None = None,
    bias: Tensor | None = None,
    *,
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] = 0,
    addends: tuple[Tensor, ...] = (),
    neuron: Dynamics | None = None,
    v: Tensor | None = None,
) -> tuple[Tensor, Packed | None, Tensor | None]:
    """Convolution of spikes, what is added to it, and the neurons behind it, in one pass over time.

    x[t] = W * s[t] + bias + sum of addends[t];  spikes = LIF(x). The time grows with the number of spikes. Nothing is differentiated.

    Args:
        spikes: what `pack` or another call returned, or None: only the addends.
        weight: what `prepare` made of W.
        bias: [C'] in the type of the sums, or None.
        stride, padding: of the convolution; for tokens (W = 1) with kernels of 1 x 1 their defaults.
        addends: at most two of [T, B, C', H', W'], such as a shortcut or another layer's sums; T may be expanded.
        neuron: which neurons fire, or None.
        v: their potentials [B, C', H', W'] before the first step; rest if None.

    Returns:
        Potentials x [T, B, C', H', W'], channels last; the spikes that they cause; and the neurons' potentials
        [B, C', H', W'] after the last step. The last two are None without neurons.

    Raises:
        ValueError: shapes or types that do not fit.
    """
    strides, paddings = _pair(stride), _pair(padding)
    shape, dtype = check_operands(spikes, weight, bias, strides, paddings, addends)
    if v is not None and (v.shape != (shape[1], *shape[2:]) or v.dtype != dtype):
        raise ValueError(
            f"v is {tuple(v.shape)} of {v.dtype}; expected [B, C, H, W] = {(shape[1], *shape[2:])} of {dtype}"
        )
    known = neuron is None or native.knows(neuron)
    if native.load()[0] is None or not known or math.prod(shape) == 0:
        x = reference.spike_conv(
            spikes,
            weight and weight.dense,
            bias,
            strides,
            paddings,
            shape[2] if weight and weight.depthwise else 1,
            list(addends),
        )
        x = channels_last(x)
        return (x, *reference.fire(x, v, neuron)) if neuron else (x, None, None)
    x, fired, v_out = empty_map(*shape, dtype=dtype), None, None
    if neuron is not None:
        t, b, c, h, w = shape
        fired = Packed(torch.empty(1, t, b, h, w, -(-c // 64), dtype=torch.int64, device="cpu"), c)
        v_out = empty_map(1, b, c, h, w, dtype=dtype)[0]
        v = None if v is None else channels_last(v[None])[0].contiguous(memory_format=torch.channels_last)
    bias = None if bias is None else bias.contiguous()
    addends = tuple(channels_last(addend) for addend in addends)
    spikes = spikes and Packed(spikes.words.contiguous(), spikes.channels)
    given = call(
        spikes, weight, bias, stride=strides, padding=paddings, addends=addends, like=(shape, dtype), out=x, neuron=neuron,
        fired=fired, v=v, v_out=v_out,
    )  # fmt: skip
    scratch = aligned_room(scratch_bytes(given))
    given.scratch = scratch.data_ptr()
    run(given)
    return x, fired, v_out


def _pair(sides: int | tuple[int, int]) -> tuple[int, int]:
    return (
        (sides, sides) if isinstance(sides, int) else cast("tuple[int, int]", tuple(sides))
    )  # `_check_windows` counts them


def status() -> list[tuple[str, bool, str]]:
    """What is live on this machine: (implementation, whether it runs here, why or why not and what to do)."""
    library, sentence = native.load()
    return [("reference", True, "plain PyTorch, any device"), ("native", library is not None, sentence)]
