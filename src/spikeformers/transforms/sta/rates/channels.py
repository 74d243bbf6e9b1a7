"""Along which axes of a result the channels lie, which share a threshold each: followed through functions, never guessed from positions."""

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from .rate import Rate, bare, is_rate
from .words import CONVOLUTIONS, MATMULS, SAME


def channel_axis(name, ndim):
    """Where the channels of a layer's input and output lie; a convolution takes a sample by itself, too."""
    return ndim - 1 - int(name[-2]) if name in CONVOLUTIONS else ndim - 1


def channels_of(name, result, operands):
    """Along which axes of a layer's result its channels lie.

    Args:
        name: of the function.
        result: what it returned.
        operands: what it was called with.
    """
    if name in CONVOLUTIONS or name == "linear":
        return (channel_axis(name, result.ndim),)
    at = 1 if name == "addmm" else 0
    fixed = (
        name in ("matmul", "mm", "addmm")
        and is_rate(operands[at])
        and operands[at].ndim > 1
        and operands[at + 1].ndim == 2
    )
    return (result.ndim - 1,) if fixed else None


def channels_read(name, index, x):
    """Along which axes of an operand the channels lie: never along tokens, whose number may change.

    Args:
        name: of the function.
        index: the operand's place among its arguments.
        x: the operand.
    """
    if name in CONVOLUTIONS or name == "linear":
        return (channel_axis(name, x.ndim),)
    axes = x.kind.axes
    if (
        axes and name in MATMULS and index == 0 and x.ndim > 1
    ):  # rows share thresholds, so that products of sums can be brought up to date
        axes = tuple(axis for axis in axes if axis != x.ndim - 2)
    return axes or None


def kept(rates, result):
    """The axes of channels where a function leaves every value in its place: those of the first operand of the result's shape."""
    return next((r.kind.axes for r in rates if r.shape == getattr(result, "shape", None) and r.kind.axes), None)


def moved(func, args, kwargs, result):
    """Along which axes of each result the channels lie: the function moves numbers of the channels, which then differ along those axes.

    Args:
        func: the function, which moves values.
        args, kwargs: what it is called with.
        result: what it returned.
    """
    if func.__name__ in SAME:
        return [args[0].kind.axes if isinstance(args[0], Rate) else None]
    numbers = None
    for number in (numbered, lambda x: numbered(x, whole=True)):
        try:
            numbers = func(*tree_map(number, args), **tree_map(number, kwargs))
            break
        except (RuntimeError, TypeError):  # not for numbers that share memory, or not for whole ones
            continue
    numbers = [x for x in tree_leaves(numbers) if isinstance(x, Tensor)]
    return [differing(x) for x in numbers] if len(numbers) == len(tree_leaves(result)) else None


def numbered(x, whole=False):
    """For a rate the number of each value's channel, from 1; 0 where there are none. Numbers of one channel share memory, which views need
    none of, unless they are to be `whole`."""
    if not isinstance(x, Tensor):
        return x
    if not x.is_floating_point():
        return bare(x)
    axes = x.kind.axes or () if isinstance(x, Rate) else ()
    sizes = [size if i in axes else 1 for i, size in enumerate(x.shape)]
    numbers = (
        torch.arange(1, torch.Size(sizes).numel() + 1, dtype=torch.int32, device=x.device)
        if axes
        else x.new_zeros(1, dtype=torch.int32)
    )
    numbers = numbers.view(sizes).expand(x.shape)
    return numbers.contiguous() if whole else numbers


def differing(numbers):
    """The axes along which numbers of channels differ, constants (0) aside; None if there are none."""
    for axis, stride in enumerate(numbers.stride()):
        if stride == 0:  # one and the same
            numbers = numbers.narrow(axis, 0, min(1, numbers.shape[axis]))
    found = []
    for axis, size in enumerate(numbers.shape):
        if size > 1:
            known = numbers.amax(axis, keepdim=True)
            if bool(((numbers != known) & (numbers != 0)).any()):
                found.append(axis)
    return tuple(found) or None
