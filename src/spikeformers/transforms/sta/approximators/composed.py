"""Softmax and normalisations: elementary functions, affine parts and products."""

from typing import Any

import torch
from torch import Tensor

from .elementary import exp, reciprocal, rsqrt, sqrt


def softmax(x: Tensor, dim: int = -1, dtype: torch.dtype | None = None) -> Tensor:
    """exp(x - max) times the reciprocal of its sum; zeros where everything is -inf.

    Args:
        x: [...].
        dim: the axis.
        dtype: in which it is computed; that of x if None.

    Raises:
        ValueError: no axis is given.
    """
    if dim is None:
        raise ValueError("softmax needs to know its axis: give dim")
    x = x if dtype is None else x.to(dtype)
    largest = x.amax(dim, keepdim=True).clamp_min_(torch.finfo(x.dtype).min)
    weights = exp(x - largest)
    return weights.mul_(reciprocal(weights.sum(dim, keepdim=True).clamp_min_(torch.finfo(x.dtype).tiny)))


def layer_norm(
    x: Tensor, normalized_shape, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    """(x - mean) rsqrt(variance + eps) weight + bias over the last axes, which have the normalized shape.

    Args:
        x: [..., normalized shape].
        normalized_shape: the sizes of the last axes.
        weight, bias: of the normalized shape, or None.
        eps: added to the variance.
    """
    return _affine(_scaled(*_centred(x, _last(normalized_shape)), eps), weight, bias)


def rms_norm(x: Tensor, normalized_shape, weight: Tensor | None = None, eps: float | None = None) -> Tensor:
    """x rsqrt(mean square + eps) weight over the last axes.

    Args:
        x: [..., normalized shape].
        normalized_shape: the sizes of the last axes.
        weight: of the normalized shape, or None.
        eps: added to the mean square; the smallest step from 1 if None.
    """
    return _affine(_scaled(x, _last(normalized_shape), torch.finfo(x.dtype).eps if eps is None else eps), weight, None)


def group_norm(
    x: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    """The same as `layer_norm`, over the values of each group of channels of x [B, C, ...]; weight and bias are [C].

    Args:
        x: [B, C, ...].
        num_groups: a divisor of C.
        weight, bias: [C], or None.
        eps: added to the variance.
    """
    shape = [-1, *[1] * (x.ndim - 2)]
    y = _scaled(*_centred(x.reshape(len(x), num_groups, -1), -1), eps).view(x.shape)
    return _affine(y, *(None if p is None else p.view(shape) for p in (weight, bias)))


def normalize(x: Tensor, p: float = 2.0, dim: int = 1, eps: float = 1e-12) -> Tensor:
    """x over its Euclidean norm along an axis, or over eps if that is more.

    Args:
        x: [...].
        p: must be 2.
        dim: the axis.
        eps: the smallest norm.
    """
    _only_euclidean(p)
    square = (x * x).sum(dim, keepdim=True)
    return x * rsqrt(square.clamp_min_(max(eps * eps, torch.finfo(x.dtype).tiny)))


def norm(x: Tensor, p: Any = 2, dim: Any = None, keepdim: bool = False, dtype: torch.dtype | None = None) -> Tensor:
    """The Euclidean norm along axes, or of everything.

    Args:
        x: [...].
        p: must be 2.
        dim: the axes; all if None.
        keepdim: whether they stay, with size 1.
        dtype: in which it is computed; that of x if None.
    """
    _only_euclidean(p)
    x = x if dtype is None else x.to(dtype)
    return sqrt((x * x).sum(dim, keepdim))


def vector_norm(
    x: Tensor, ord: Any = 2, dim: Any = None, keepdim: bool = False, *, dtype: torch.dtype | None = None
) -> Tensor:
    """`norm` with the arguments of torch.linalg.vector_norm.

    Args:
        x: [...].
        ord, dim, keepdim, dtype: as for `norm`.
    """
    return norm(x, ord, dim, keepdim, dtype)


def _only_euclidean(p):
    if p not in (2, "fro", None):
        raise ValueError(f"only the Euclidean norm is approximated, not p = {p}")


def _last(shape):
    return tuple(range(-(1 if isinstance(shape, int) else len(shape)), 0))


def _centred(x, dims):
    return x - x.mean(dims, keepdim=True), dims


def _scaled(x, dims, eps):
    return x * rsqrt((x * x).mean(dims, keepdim=True) + eps)


def _affine(x, weight, bias):
    x = x if weight is None else x * weight
    return x if bias is None else x + bias
