"""Multiplication by weights, and of two rates by each other."""
# Shapes: N tokens, C channels, K the length of a product.

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .channels import channel_axis, channels_of, channels_read
from .rate import Kind, Rate, is_rate, plain
from .words import CONVOLUTIONS, PRODUCTS

if TYPE_CHECKING:
    from .run import Run


_PARAMETERS = {
    "linear": ("input", "weight", "bias"),
    "addmm": ("input", "mat1", "mat2"),
    "baddbmm": ("input", "batch1", "batch2"),
}
_CONVOLUTION = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")


def weighted(run: "Run", func, name, args, kwargs, rates):
    """Multiplication by weights, or of two rates: linear layers, convolutions and matrix products.

    Args:
        run: the network's state.
        func: the function.
        name: its name.
        args, kwargs: what it is called with.
        rates: those among them.
    """
    if name == "einsum":
        raise run.refusal(name, "write it as a matrix product")
    place = run.place(name)
    args, kwargs = _positional(name, args, kwargs)
    if len(rates) == 1 and rates[0].kind.constant and rates[0].kind.analog:
        if place not in run.constants:
            run.constants[place] = func(*plain(args), **plain(kwargs))
        return Rate.of(
            run.constants[place], Kind(analog=True, constant=True, axes=channels_of(name, run.constants[place], args))
        )
    operands = list(args)
    if len(rates) == 2:
        return product(run, place, func, name, operands, kwargs)
    if len(rates) > 2:
        raise run.refusal(name, f"it multiplies {len(rates)} things that vary")
    index = next(i for i, x in enumerate(operands) if is_rate(x))
    if not rates[0].kind.spikes and not rates[0].kind.analog:
        operands[index] = run.neuron(place, rates[0], channels_read(name, index, rates[0]))
    x = operands[index]
    result = _folded(run, place, func, name, operands, kwargs, index) if x.kind.factors else None
    if result is None:
        result = func(*plain(operands), **plain(kwargs))
    return Rate.of(result, Kind(analog=x.kind.analog, axes=channels_of(name, result, operands)))


def _folded(run: "Run", place, func, name, operands, kwargs, index):
    """The layer of whole numbers, its weights multiplied by the thresholds; None if those differ along other axes."""
    counts, threshold = operands[index].kind.factors
    axis = channel_axis(name, threshold.ndim)
    if name not in CONVOLUTIONS and not (name == "linear" and index == 0):
        return None
    first = threshold[tuple(slice(None) if i == axis else slice(1) for i in range(threshold.ndim))]
    expanded = all(stride == 0 for i, stride in enumerate(threshold.stride()) if i != axis)
    if not expanded and not torch.equal(first.expand_as(threshold), threshold):
        return None
    weight, first = operands[1], first.flatten()
    if run.carry_out is not None:
        rest = _named(name, plain(operands[2:]), plain(kwargs))
        result = run.carry_out(place, name, counts, first, plain(weight), rest.pop("bias", None), rest)
        if result is not None:
            return result
    if name in CONVOLUTIONS:
        if name.startswith("conv_transpose"):
            return None
        groups = kwargs.get("groups", operands[6] if len(operands) > 6 else 1)
        scale = first.reshape(groups, -1).repeat_interleave(len(weight) // groups, 0)
        weight = weight * scale.reshape(*scale.shape, *[1] * (weight.ndim - 2))
    else:
        weight = weight * first
    return func(counts, weight, *plain(operands[2:]), **plain(kwargs))


def product(run: "Run", place, func, name, operands, kwargs):
    """The product of two rates: of all spikes so far of one side with all of the other, divided by t^2.

    Args:
        run: the network's state.
        place: name of the operation.
        func: the function.
        name: its name.
        operands: its arguments by position, two rates among them.
        kwargs: those by name.
    """
    places = [i for i, x in enumerate(operands) if is_rate(x)]
    for i in places:
        if not operands[i].kind.spikes:
            operands[i] = run.neuron(f"{place}/{i}", operands[i], channels_read(name, i, operands[i]))
    left, right = (operands[i] for i in places)
    if name in PRODUCTS or (name in ("matmul", "bmm", "mm") and left.ndim > 1 and right.ndim > 1):
        result = multiplied(run, place, left, right, matrices=name not in PRODUCTS)
    else:
        for i in places:
            operands[i] = run.mean(f"{place}/{i}", operands[i])
        result = func(*operands, **plain(kwargs))
    if left.kind.total is not None:
        result = run.approximation("div", f"{place}/total", torch.div)(result, left.kind.total)
    return run.rate_of(place, result)


def multiplied(run: "Run", place: str, left: Tensor, right: Tensor, matrices: bool) -> Tensor:
    """The product of two means so far, element by element or of matrices.

    In the form "spikes" one side of every product is what came in this step: S_a[t] S_b[t] = S_a[t-1] S_b[t-1] + S_a[t] b[t] +
    a[t] S_b[t-1], whole numbers times sums into which the thresholds of both sides have been multiplied.

    Args:
        run: the network's state.
        place: name of the operation.
        left, right: the sides, [..., N, K] and [..., K, M] or both [...].
        matrices: whether it is a product of matrices.
    """
    multiply = torch.matmul if matrices else torch.mul
    scales = _scales(left, right, matrices) if run.form == "spikes" else None
    if scales is None:
        return multiply(
            *(run.mean(f"{place}/{i}", x) if isinstance(x, Rate) else x for i, x in enumerate((left, right)))
        )
    (a, _), (b, _) = left.kind.factors, right.kind.factors
    on_left, on_right, behind = scales
    come = multiply(run.received(f"{place}/0", a * on_left), b)
    if behind is not None:
        come = come * behind
    b = b * on_right
    come = come + multiply(a, run.sum_at(f"{place}/1", b))
    run.received(f"{place}/1", b)
    return run.received(f"{place}/product", come) / run.t**2


def _positional(name, args, kwargs):
    """A layer's operands in order."""
    kwargs = dict(kwargs)
    names = _CONVOLUTION if name in CONVOLUTIONS else _PARAMETERS.get(name, ("input", "other"))
    args = list(args)
    while len(args) < len(names) and names[len(args)] in kwargs:
        args.append(kwargs.pop(names[len(args)]))
    return args, kwargs


def _named(name, behind, kwargs):
    """A layer's operands behind the weight, by their names."""
    return dict(zip(_CONVOLUTION[2:], behind, strict=False)) | kwargs


def _scales(left, right, matrices):
    """Factors by which the thresholds of both sides enter: for the sum of the left, for the sum of the right, and for the products with
    new spikes on the right (None if there is none). None altogether if thresholds differ along other axes."""
    if not all(isinstance(x, Rate) and x.kind.factors for x in (left, right)):
        return None
    a, b = left.kind.factors[1], right.kind.factors[1]
    if not matrices:
        return a * b, a * b, None
    row = a[..., :1, :]
    if not torch.equal(row.expand_as(a), a):
        return None
    column, channels = b[..., :1], b[..., :1, :]
    if torch.equal(column.expand_as(b), b):
        return row * column.transpose(-2, -1), b * row.transpose(-2, -1), None
    if torch.equal(channels.expand_as(b), b):
        return row, b * row.transpose(-2, -1), channels
    return None
