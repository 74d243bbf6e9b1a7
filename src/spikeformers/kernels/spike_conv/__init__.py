"""Event-driven convolution: weights are added where a spike is. Bits in, potentials and bits out; a linear layer is its 1x1 case."""
# Shapes: T time steps, B batch, C channels, H W pixels of a map (W = 1 for tokens).

import ctypes
import math
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from ..lif import Dynamics
from . import native, reference
from .packed import Packed, pack, unpack

__all__ = [
    "Packed",
    "Weight",
    "call",
    "empty_map",
    "pack",
    "pack_signed",
    "pool",
    "prepare",
    "run",
    "signed",
    "spike_conv",
    "status",
    "unpack",
]

PRECISIONS = (torch.float32, torch.float64, torch.bfloat16, torch.int8)
LANES, TILE = 16, 64
MOST_ROWS = 65_535
"""Weight rows, that is taps times input channels: positions in lists have 16 bits."""


@dataclass(frozen=True)
class Weight:
    """A convolution's weight as the native kernel reads it, made by `prepare`.

    Attributes:
        tiles: bytes [tile][row][lanes], from an address that 64 divides: a row for every tap and input channel (for every tap where
            depthwise), a tile for every 64 output channels, its lanes filled up to a multiple of 16.
        scale: [C'] what the rows of int8 are to be multiplied by, or None.
        shape: (C', C / groups, kh, kw)
        dtype: of the sums.
        stored: of the rows.
    """

    tiles: Tensor
    scale: Tensor | None
    shape: tuple[int, int, int, int]
    dtype: torch.dtype
    stored: torch.dtype
    kind: int

    @property
    def depthwise(self) -> bool:
        return self.kind == native.WEIGHTS["depthwise"]

    @property
    def dense(self) -> Tensor:
        """The weight [C', C / groups, kh, kw] that the tiles stand for, in the type of the sums; made anew."""
        outputs, inputs, kh, kw = self.shape
        parts, start = [], 0
        for first in range(0, outputs, TILE):
            wanted = min(TILE, outputs - first)
            lanes = -(-wanted // LANES) * LANES
            size = kh * kw * inputs * lanes * self.stored.itemsize
            parts.append(self.tiles[start : start + size].view(self.stored).view(-1, lanes)[:, :wanted].to(self.dtype))
            start += size
        rows = torch.cat(parts, 1)
        rows = rows if self.scale is None else rows * self.scale
        return rows.view(kh, kw, inputs, outputs).permute(3, 2, 0, 1).contiguous()


def prepare(weight: Tensor, groups: int = 1, precision: torch.dtype | None = None) -> Weight:
    """A weight for `spike_conv`.

    Args:
        weight: [C', C / groups, kh, kw], or [C', C] of a linear layer; float32 or float64, which is the type of the sums.
        groups: 1, or C for a depthwise convolution (C' = C).
        precision: how the rows are kept: the weight's own type (None), torch.bfloat16, or torch.int8 with one scale for each output
            channel, |w| / 127 at most off by half a scale. Depthwise weights are kept as they are.

    Raises:
        ValueError: other groups, types or precisions.
    """
    weight = weight.detach()
    weight = weight[..., None, None] if weight.ndim == 2 else weight
    if weight.ndim != 4 or weight.dtype not in native.DTYPES:
        raise ValueError(
            f"expected a weight [C', C, kh, kw] in float32 or float64, not {tuple(weight.shape)} of {weight.dtype}"
        )
    outputs, inputs = weight.shape[:2]
    depthwise = groups != 1
    if depthwise and (groups != outputs or inputs != 1):
        raise ValueError(
            f"{groups} groups of a weight {tuple(weight.shape)}; only 1 group, or one for every channel, is event-driven"
        )
    if weight[0].numel() > MOST_ROWS:
        raise ValueError(
            f"a weight {tuple(weight.shape)} has {weight[0].numel()} inputs for each output; at most {MOST_ROWS} can be event-driven"
        )
    precision = precision or weight.dtype
    if precision not in PRECISIONS or (weight.dtype == torch.float64) != (precision == torch.float64):
        raise ValueError(
            f"precision must be float32, bfloat16 or int8 for float32 weights, float64 for float64 ones, not {precision}"
        )
    rows, scale = weight.permute(2, 3, 1, 0).reshape(-1, outputs), None
    if depthwise:
        kind = native.WEIGHTS["depthwise"]
    else:
        kind = native.WEIGHTS[precision]
        if precision == torch.int8:
            scale = (rows.abs().amax(0) / 127).clamp_min(torch.finfo(torch.float32).tiny)
            rows = (rows / scale).round_().clamp_(-127, 127)
        rows = rows.to(precision)
    tiles = []
    for part in rows.split(TILE, 1):
        lanes = -(-part.shape[1] // LANES) * LANES
        tile = torch.nn.functional.pad(part, (0, lanes - part.shape[1])).contiguous().flatten().view(torch.uint8)
        tiles.append(tile)
    shape = outputs, inputs, weight.shape[2], weight.shape[3]
    return Weight(aligned(torch.cat(tiles)), scale, shape, weight.dtype, rows.dtype, kind)


def signed(weight: Tensor) -> Tensor:
    """The weight [C', 2 * C, kh, kw], C rounded up to a multiple of 64, that makes of `pack_signed`'s bits what weight [C', C, kh, kw]
    makes of the numbers."""
    padded = torch.nn.functional.pad(weight, (0, 0, 0, 0, 0, -weight.shape[1] % 64))
    return torch.cat([padded, -padded], 1)


def pack_signed(x: Tensor, levels: int) -> tuple[Packed, int]:
    """Signed whole numbers [T, B, C, H, W] -> bits, as many planes as levels, and the sum of the magnitudes.

    The channels are C rounded up to a multiple of 64, for numbers above 0, and as many again for those below: see `signed`. Numbers
    beyond the levels are clipped.

    Raises:
        ValueError: x is no map on the CPU, or levels is out of range.
    """
    if x.ndim != 5 or x.device.type != "cpu" or not isinstance(levels, int) or not 1 <= levels < 2**15:
        raise ValueError(f"expected whole numbers [T, B, C, H, W] and from 1 to {2**15 - 1} levels, not {tuple(x.shape)} on {x.device} and {levels}")
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


def aligned(data: Tensor) -> Tensor:
    """The same bytes [N] from an address that 64 divides, with 64 bytes of room behind them."""
    room = aligned_room(data.numel())
    room[: data.numel()] = data
    return room


def aligned_room(size: int) -> Tensor:
    """Uninitialised bytes [size + 64 or more] from an address that 64 divides, with 64 bytes of room behind them."""
    room = torch.empty(size + 128, dtype=torch.uint8, device="cpu")
    return room[-room.data_ptr() % 64 :]


def empty_map(t: int, b: int, c: int, h: int, w: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Uninitialised [T, B, C, H, W], channels last in memory.

    Args:
        t, b, c, h, w: its sizes.
        dtype: of the potentials.
    """
    return torch.empty(t, b, h, w, c, dtype=dtype, device="cpu").movedim(4, 2)


def out_size(size: int, kernel: int, stride: int, padding: int) -> int:
    """Height or width of the result, of a map of `size` pixels along that axis.

    Args:
        size: pixels along one axis.
        kernel, stride, padding: of the windows along it.
    """
    return (size + 2 * padding - kernel) // stride + 1


def channels_last(x: Tensor) -> Tensor:
    """x [T, B, C, H, W] as the kernels take potentials: itself where its channels are contiguous and its rows without gaps."""
    _, _, c, h, w = x.stride()
    fine = (c == 1 or x.shape[2] == 1) and (h == w * x.shape[4] or 1 in x.shape[3:])
    return x if fine else x.movedim(2, 4).contiguous().movedim(4, 2)


def call(
    spikes: Packed | None,
    weight: Weight | None,
    bias: Tensor | None = None,
    *,
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0),
    addends: tuple[Tensor | None, ...] = (),
    like: tuple[tuple[int, ...], torch.dtype] | None = None,
    out: Tensor | None = None,
    neuron: Dynamics | None = None,
    fired: Packed | None = None,
    v: Tensor | None = None,
    v_out: Tensor | None = None,
    count: ctypes.Array | None = None,
) -> native.MapCall:
    """The operation on these tensors, which it keeps alive, for `run`, which may repeat it. See `spike_conv`.

    Without spikes, `like` is the shape of the potentials [T, B, C, H, W] and their type. Addends that are None can be set in the call
    later. `count` [threads] (int64) receives how many neurons fired.

    Args:
        spikes: bits [T, B, C, H, W], or None: only the addends.
        weight: what `prepare` made; needed with spikes, and with them only.
        bias: [C'], or None.
        stride, padding: of the convolution.
        addends: at most two of [T, B, C', H', W'].
        like: shape and type of the potentials, without spikes.
        out: where the potentials [T, B, C', H', W'] go, channels last; None if only spikes are wanted.
        neuron: which neurons fire.
        fired: where their spikes go; needed with neurons.
        v, v_out: their potentials [B, C', H', W'] before the first and after the last step.
        count: [threads], where the numbers of spikes go.

    Raises:
        ValueError: shapes, types or memory formats that do not fit; `spike_conv` changes memory formats where it must, this does not.
    """
    shape, dtype = _check_call(spikes, weight, bias, stride, padding, addends, like, out, neuron, fired, v, v_out)
    threads = torch.get_num_threads() if count is None else len(count)
    given = native.MapCall(threads=threads, planes=1, kernel_height=1, kernel_width=1, stride_height=1, stride_width=1)
    if spikes is not None and weight is not None:
        given.planes, given.steps, given.batch, given.height, given.width, given.in_words = spikes.words.shape
        given.spikes, given.channels = spikes.words.data_ptr(), spikes.channels
        _, _, given.kernel_height, given.kernel_width = weight.shape
        given.stride_height, given.stride_width = stride
        given.padding_height, given.padding_width = padding
        given.weights, given.weight = weight.kind, weight.tiles.data_ptr()
        given.scale = None if weight.scale is None else weight.scale.data_ptr()
    else:
        given.weights = native.WEIGHTS["none"]
    given.steps, given.batch, given.out_channels, given.out_height, given.out_width = shape
    given.dtype = native.DTYPES[dtype]
    given.out_words = -(-given.out_channels // 64)
    for name, tensor in (("bias", bias), ("v", v), ("v_out", v_out)):
        setattr(given, name, None if tensor is None else tensor.data_ptr())
    given.count = None if count is None else ctypes.addressof(count)
    for index, addend in enumerate(addends):
        given.addend[index] = native.values(addend)
    given.out = native.values(out)
    if neuron is not None and fired is not None:
        given.neuron = native.neurons(neuron)
        given.fired = fired.words.data_ptr()
    given.alive = spikes, weight, bias, addends, out, fired, v, v_out, count
    return given


def scratch_bytes(given: native.MapCall) -> int:
    """How much memory `given.scratch` must point to, from an address that 64 divides."""
    return native.must_work(native.loaded().spike_map_scratch(ctypes.byref(given))) * given.threads


def run(given: native.MapCall) -> None:
    """Carries out what `call` prepared, with `given.scratch` set."""
    native.must_work(native.loaded().spike_map(ctypes.byref(given)))


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
    shape, dtype = _check(spikes, weight, bias, strides, paddings, addends)
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
    return (sides, sides) if isinstance(sides, int) else cast("tuple[int, int]", tuple(sides))  # `_check_windows` counts them


def _check_windows(kernel, stride, padding) -> None:
    numbers = (*kernel, *stride, *padding)
    whole = all(isinstance(n, int) and n < 2**20 for n in numbers)  # as much as the native code takes
    if len(numbers) != 6 or not whole or min((*kernel, *stride)) < 1 or min(padding) < 0:
        raise ValueError(
            f"kernel, stride and padding must be two whole numbers each, from 1 and for padding from 0, not {kernel}, {stride}, {padding}"
        )


def _check_weight(weight: Weight) -> None:
    """That a weight is such as `prepare` makes."""
    outputs, inputs, kh, kw = weight.shape if len(weight.shape) == 4 else (0, 0, 0, 0)
    kinds = {native.WEIGHTS["depthwise"]} if inputs == 1 else set()
    kinds |= {native.WEIGHTS[weight.stored]} if weight.stored in PRECISIONS else set()
    own = weight.stored == weight.dtype or (weight.dtype == torch.float32 and weight.stored in (torch.bfloat16, torch.int8))
    fine = all(isinstance(n, int) and n > 0 for n in (outputs, inputs, kh, kw)) and weight.kind in kinds and own and weight.dtype in native.DTYPES and weight.tiles.dtype == torch.uint8
    fine = fine and (not weight.depthwise or weight.stored == weight.dtype) and inputs * kh * kw <= MOST_ROWS
    if fine:
        size = -(-outputs // LANES) * LANES * inputs * kh * kw * weight.stored.itemsize
        fine = weight.tiles.ndim == 1 and weight.tiles.is_contiguous() and weight.tiles.numel() >= size + 64  # with the room behind them
        fine = fine and not weight.tiles.data_ptr() % 64
    scale = weight.scale
    fine = fine and (scale is not None) == (weight.stored == torch.int8)
    if fine and scale is not None:
        fine = scale.shape == (outputs,) and scale.dtype == torch.float32 and scale.is_contiguous()
    if not fine:
        raise ValueError(f"this weight {weight.shape} was not made by prepare, or was changed since")


def _is_map(x: Tensor) -> bool:
    """Whether [..., C, H, W] lies channels last without any gaps."""
    return x.movedim(-3, -1).is_contiguous()


def _check_call(
    spikes, weight, bias, stride, padding, addends, like, out, neuron, fired, v, v_out
) -> tuple[tuple[int, ...], torch.dtype]:
    """That the native code may be let loose on these: it knows addresses only. The potentials' shape and type."""
    if len(addends) > 2:
        raise ValueError(f"expected at most two addends, not {len(addends)}")
    if spikes is None:
        if like is None or weight is not None:
            raise ValueError("without spikes there is no convolution: say with `like` which potentials are wanted, and give no weight")
        shape, dtype = tuple(like[0]), like[1]
        if len(shape) != 5 or dtype not in native.DTYPES or not all(isinstance(n, int) and n >= 0 for n in shape):
            raise ValueError(f"expected potentials [T, B, C, H, W] in float32 or float64, not {shape} of {dtype}")
    else:
        shape, dtype = _check(spikes, weight, None, stride, padding, ())
        if not spikes.words.is_contiguous():
            raise ValueError("words of spikes must be contiguous")
    t, b, c, h, w = shape
    state = (b, c, h, w)
    wanted = [(bias, (c,)), (out, shape), (v, state), (v_out, state), *((addend, shape) for addend in addends)]
    for tensor, size in wanted:
        if tensor is not None and (tuple(tensor.shape) != size or tensor.dtype != dtype or tensor.device.type != "cpu"):
            raise ValueError(f"expected {size} of {dtype} on the CPU, not {tuple(tensor.shape)} of {tensor.dtype} on {tensor.device}")
    if (bias is not None and not bias.is_contiguous()) or any(x is not None and not _is_map(x) for x in (v, v_out)):
        raise ValueError("the bias must be contiguous, and potentials of neurons channels last without gaps")
    if (neuron is None) != (fired is None):
        raise ValueError("neurons need a place for their spikes, and that needs neurons")
    if fired is not None and (
        fired.check().words.shape != (1, t, b, h, w, -(-c // 64)) or fired.channels != c or not fired.words.is_contiguous() or not fired.words.device.type == "cpu"
    ):
        raise ValueError(f"the place for spikes of {shape} is {tuple(fired.words.shape)} for {fired.channels} channels")
    return shape, dtype


def _check(spikes, weight, bias, stride, padding, addends) -> tuple[tuple[int, ...], torch.dtype]:
    """The shape of the potentials, and their type."""
    given = [spikes and spikes.words, weight and weight.tiles, weight and weight.scale, bias, *addends]
    if any(tensor is not None and tensor.device.type != "cpu" for tensor in given):
        raise ValueError("event-driven kernels run on the CPU; move what they take there")
    if spikes is None:
        if weight is not None or not addends:
            raise ValueError("without spikes there is no convolution: give addends, and no weight")
        shape, dtype = tuple(addends[0].shape), addends[0].dtype
    else:
        if weight is None:
            raise ValueError("spikes need a weight: see prepare")
        _check_weight(weight)
        _check_windows(weight.shape[2:], stride, padding)
        t, b, c, h, w = spikes.check().shape
        outputs, inputs, kh, kw = weight.shape
        if c != (outputs if weight.depthwise else inputs):
            raise ValueError(
                f"the spikes have {c} channels and the weight {weight.shape} takes {outputs if weight.depthwise else inputs}"
            )
        shape = (t, b, outputs, out_size(h, kh, stride[0], padding[0]), out_size(w, kw, stride[1], padding[1]))
        if min(shape[3:]) < 1 and h and w:
            raise ValueError(f"a map of {h} x {w} is too small for a kernel of {kh} x {kw} with padding {padding}")
        dtype = weight.dtype
    if len(shape) != 5 or dtype not in native.DTYPES or len(addends) > 2:
        raise ValueError(
            f"expected at most two addends [T, B, C, H, W] in float32 or float64, not {[tuple(a.shape) for a in addends]} of {dtype}"
        )
    for addend in addends:
        if tuple(addend.shape) != shape or addend.dtype != dtype:
            raise ValueError(f"an addend is {tuple(addend.shape)} of {addend.dtype}; expected {shape} of {dtype}")
    if bias is not None and (bias.shape != shape[2:3] or bias.dtype != dtype):
        raise ValueError(f"the bias is {tuple(bias.shape)} of {bias.dtype}; expected {shape[2:3]} of {dtype}")
    return shape, dtype


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
    if to is not None and (to.device.type != "cpu" or tuple(to.shape) != spikes.shape or not _is_map(to)):
        raise ValueError(f"{spikes.shape} spikes do not go into {tuple(to.shape)}, or that is not channels last without gaps")
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
    _check_windows((kernel, kernel), (stride, stride), (padding, padding))
    size = out_size(h, kernel, stride, padding), out_size(w, kernel, stride, padding)
    if planes != 1 or out.words.shape != (1, t, b, *size, words) or any(not z.words.is_contiguous() or z.words.device.type != "cpu" for z in (spikes, out)):
        raise ValueError(f"spikes {tuple(spikes.words.shape)} do not go into {tuple(out.words.shape)}, or either is not contiguous")
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
    _check_windows((kernel, kernel), (stride, stride), (padding, padding))
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


def status() -> list[tuple[str, bool, str]]:
    """What is live on this machine: (implementation, whether it runs here, why or why not and what to do)."""
    library, sentence = native.load()
    return [("reference", True, "plain PyTorch, any device"), ("native", library is not None, sentence)]
