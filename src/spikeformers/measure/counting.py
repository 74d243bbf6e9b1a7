"""How many products there are, and of how many both sides are not zero: exactly, the zeros of the padding left out."""
# Shapes: T time steps; rows of any layout with T in front.

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def fan_out(size: int, out: int, kernel: int, stride: int, padding: int, dilation: int, transposed: bool) -> Tensor:
    """How many products each of `size` input places along one axis takes part in, per channel of the output: fewer at borders [size].

    Args:
        size, out: places of the input and of the output along the axis.
        kernel, stride, padding, dilation: of the convolution.
        transposed: whether it is a transposed one.
    """
    places, taps = torch.arange(size)[:, None], torch.arange(kernel)[None] * dilation
    if transposed:
        reached = places * stride - padding + taps
        return ((reached >= 0) & (reached < out)).sum(1).double()
    reached = places + padding - taps
    return ((reached % stride == 0) & (reached >= 0) & (reached < out * stride)).sum(1).double()


def by_step(x: Tensor, steps: int) -> Tensor:
    """Sums of a tensor whose leading axis runs over time most slowly: [T]."""
    return x.reshape(steps, -1).sum(1, dtype=torch.float64)


def reached(amounts: Tensor, fans: Sequence[Tensor], channels: int) -> Tensor:
    """Products per output channel that inputs with these amounts take part in.

    Args:
        amounts: sums over batch and channels [T, pixels].
        fans: for each axis of the pixels what `fan_out` says.
        channels: of the output, for one of the input.

    Returns:
        [T].
    """
    amounts = amounts.double()
    for fan in fans:
        amounts = torch.tensordot(fan.to(amounts.device), amounts, dims=([0], [1]))  # pyright: ignore[reportArgumentType]  torch's
        # annotation knows numbers only; the next axis moves up
    return amounts * channels


def all_reached(x: Tensor, fans: Sequence[Tensor], channels: int) -> float:
    """What `reached` sums to if every value counts; the zeros of the padding do not.

    Args:
        x: [N, C, pixels...], only its shape.
        fans: for each axis of the pixels what `fan_out` says.
        channels: of the output, for one of the input.
    """
    return x.shape[0] * x.shape[1] * channels * math.prod(float(fan.sum()) for fan in fans)


def met(left: Tensor, right: Tensor, steps: int) -> Tensor:
    """Sums of the products in a matrix product. If the sides are 1 where some tensors are not zero, it counts products without a zero.

    Args:
        left: [..., N, K] or [K]; the leading axis may run over time.
        right: [..., K, M] or [K].

    Returns:
        [T], or [1] where time cannot be told apart.
    """
    columns = right.sum(-1, dtype=torch.float64) if right.ndim > 1 else right.double()  # [..., K]
    if left.ndim == 1:
        return (left.double() * columns).sum()[None]
    if columns.ndim == 1 and left.shape[0] % steps == 0:
        return left.reshape(steps, -1, left.shape[-1]).sum(1, dtype=torch.float64) @ columns
    products = left.sum(-2, dtype=torch.float64) * columns
    return by_step(products, steps) if products.ndim > 1 and products.shape[0] % steps == 0 else products.sum()[None]
