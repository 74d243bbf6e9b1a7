"""Non-linear functions by networks of rectified units alone (UGO: STA, ICLR 2024), made to hold at any scale."""

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType

from .. import functions
from ..rates.words import words
from .composed import group_norm, layer_norm, norm, normalize, rms_norm, softmax, vector_norm
from .elementary import (
    ACTIVATIONS,
    MANTISSAS,
    activation,
    divide,
    exp,
    fitted_reach,
    gelu,
    hardswish,
    mantissa,
    power,
    quick_gelu,
    reciprocal,
    rsqrt,
    sigmoid,
    silu,
    sqrt,
    tables,
    tanh,
)

__all__ = ["FITTED", "approximations", "tables"]


_UNUSED = words("inplace _stacklevel out")  # keywords that say how torch should do it
_COMPOSED = {
    "softmax": softmax,
    "layer_norm": layer_norm,
    "rms_norm": rms_norm,
    "group_norm": group_norm,
    "normalize": normalize,
    "norm": norm,
    "linalgvector_norm": vector_norm,
    "hardswish": hardswish,
    "exp": exp,
    "reciprocal": reciprocal,
    "rsqrt": rsqrt,
    "sqrt": sqrt,
    "div": divide,
    "divide": divide,
    "true_divide": divide,
    "rdiv": lambda x, a: divide(a, x),
    "pow": power,
    "square": lambda x: x * x,
    "relu_squared": functions.relu_squared,
}
FITTED = {"gelu": gelu, "quick_gelu": quick_gelu, "silu": silu, "sigmoid": sigmoid, "tanh": tanh}
COMPARISONS = words(
    "relu relu6 hardtanh hardsigmoid leaky_relu prelu abs clamp clamp_min clamp_max clip max min amax amin maximum minimum max_pool1d "
    "max_pool2d max_pool3d adaptive_max_pool2d"
)
"""Piecewise linear: networks of rectified units as they are."""


def approximations(ranges: Mapping[str, float] | None = None) -> dict[str, Callable]:
    """What stands for functions where everything is to be spikes, by the name that torch has for them.

    Args:
        ranges: the largest magnitude that went into an activation function during calibration, by the function's name; inside of it
            the function is fitted, outside it is straight. What is missing or small gets the function's least range, outside of
            which it is straight to 1e-4.

    Returns:
        {name: approximation(place, exact, arguments, keywords) -> Tensor}: `place` is named in errors, `exact` the function with its
        keywords bound, `arguments` its positional arguments and `keywords` the others, all plain tensors, numbers and so on.

    Raises:
        ValueError: a range is of a function that is not fitted on one. Approximations raise one, which names the place, for
            arguments such as a power of 1.7.
    """
    ranges = dict(ranges or {})
    if unknown := ranges.keys() - FITTED.keys():
        raise ValueError(f"ranges are for {', '.join(sorted(FITTED))}, not for {', '.join(sorted(unknown))}")
    for name in MANTISSAS:  # everything is fitted now, not when it is first met
        mantissa(name)
    for name, reach in ranges.items():
        for kind in {name, f"{name}_tanh"} & ACTIVATIONS.keys():
            activation(kind, fitted_reach(kind, reach))
    fitted = {name: partial(function, reach=ranges.get(name, 0.0)) for name, function in FITTED.items()}
    table = {name: partial(_called, function) for name, function in (fitted | _COMPOSED).items()}
    return table | dict.fromkeys(COMPARISONS, _exact)


def _exact(place, exact, arguments, keywords=MappingProxyType({})):
    return exact(*arguments)


def _called(function, place, exact, arguments, keywords=MappingProxyType({})):
    try:
        return function(*arguments, **{name: value for name, value in keywords.items() if name not in _UNUSED})
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from None
