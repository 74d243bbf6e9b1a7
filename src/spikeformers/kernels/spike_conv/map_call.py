"""The call of the native kernel: a convolution of spikes, what is added to it, and the neurons behind it."""
# Shapes: T time steps, B batch, C channels, H W pixels of a map.

import ctypes

import torch
from torch import Tensor

from ..lif import Dynamics
from . import native
from .maps import check_windows, is_map, out_size
from .packed import Packed
from .weight import Weight, check_weight


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


def _check_call(
    spikes, weight, bias, stride, padding, addends, like, out, neuron, fired, v, v_out
) -> tuple[tuple[int, ...], torch.dtype]:
    """The potentials' shape and type, once it is sure that the native code, which knows addresses only, may work on all of these."""
    if len(addends) > 2:
        raise ValueError(f"expected at most two addends, not {len(addends)}")
    if spikes is None:
        if like is None or weight is not None:
            raise ValueError(
                "without spikes there is no convolution: say with `like` which potentials are wanted, and give no weight"
            )
        shape, dtype = tuple(like[0]), like[1]
        if len(shape) != 5 or dtype not in native.DTYPES or not all(isinstance(n, int) and n >= 0 for n in shape):
            raise ValueError(f"expected potentials [T, B, C, H, W] in float32 or float64, not {shape} of {dtype}")
    else:
        shape, dtype = check_operands(spikes, weight, None, stride, padding, ())
        if not spikes.words.is_contiguous():
            raise ValueError("words of spikes must be contiguous")
    t, b, c, h, w = shape
    state = (b, c, h, w)
    wanted = [(bias, (c,)), (out, shape), (v, state), (v_out, state), *((addend, shape) for addend in addends)]
    for tensor, size in wanted:
        if tensor is not None and (tuple(tensor.shape) != size or tensor.dtype != dtype or tensor.device.type != "cpu"):
            raise ValueError(
                f"expected {size} of {dtype} on the CPU, not {tuple(tensor.shape)} of {tensor.dtype} on {tensor.device}"
            )
    if (bias is not None and not bias.is_contiguous()) or any(x is not None and not is_map(x) for x in (v, v_out)):
        raise ValueError("the bias must be contiguous, and potentials of neurons channels last without gaps")
    if (neuron is None) != (fired is None):
        raise ValueError("neurons need a place for their spikes, and that needs neurons")
    if fired is not None and (
        fired.check().words.shape != (1, t, b, h, w, -(-c // 64))
        or fired.channels != c
        or not fired.words.is_contiguous()
        or not fired.words.device.type == "cpu"
    ):
        raise ValueError(f"the place for spikes of {shape} is {tuple(fired.words.shape)} for {fired.channels} channels")
    return shape, dtype


def check_operands(
    spikes: Packed | None,
    weight: Weight | None,
    bias: Tensor | None,
    stride: tuple[int, int],
    padding: tuple[int, int],
    addends: tuple[Tensor, ...],
) -> tuple[tuple[int, ...], torch.dtype]:
    """The shape of the potentials [T, B, C', H', W'], and their type.

    Args:
        spikes, weight, bias, stride, padding, addends: as for `spike_conv`.

    Raises:
        ValueError: they do not fit each other.
    """
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
        check_weight(weight)
        check_windows(weight.shape[2:], stride, padding)
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
