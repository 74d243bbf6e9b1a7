"""Surrogate gradients: what stands in for the derivative of a neuron's step, by name or as a function."""
# Shapes: z, how far potentials are above the threshold, and slopes [...], element by element.

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class Surrogate(NamedTuple):
    """One surrogate gradient.

    Attributes:
        slope: (z, alpha) -> slope. Those that are defined here have unit area for every alpha, and a peak proportional to it.
        alpha: the customary sharpness.
    """

    slope: Callable[[Tensor, float], Tensor]
    alpha: float


def _sigmoid(z, alpha):
    # alpha * s * (1 - s) with s = sigmoid(alpha * z), written so that nothing cancels or overflows
    e = torch.exp(-(alpha * z).abs())
    return alpha * e / ((1 + e) * (1 + e))


def _atan(z, alpha):
    y = (math.pi / 2 * alpha) * z
    return (alpha / 2) / (1 + y * y)


def _rectangle(z, alpha):
    return alpha * ((alpha * z).abs() < 0.5).to(z.dtype)


def _triangle(z, alpha):
    return alpha * (1 - (alpha * z).abs()).clamp(min=0)


def _erf(z, alpha):
    y = alpha * z
    return (alpha / math.sqrt(math.pi)) * torch.exp(-(y * y))


def _softsign(z, alpha):
    y = 1 + (alpha * z).abs()
    return (alpha / 2) / (y * y)


def _exponential(z, alpha):
    return (alpha / 2) * torch.exp(-(alpha * z).abs())


SURROGATES: dict[str, Surrogate] = {
    "sigmoid": Surrogate(_sigmoid, 4.0),
    "atan": Surrogate(_atan, 2.0),
    "rectangle": Surrogate(_rectangle, 1.0),
    "triangle": Surrogate(_triangle, 1.0),  # also called piecewise quadratic, which is its integral
    "erf": Surrogate(_erf, 2.0),  # a normal distribution
    "softsign": Surrogate(_softsign, 2.0),  # twice it is the slope called fast sigmoid or SuperSpike
    "exponential": Surrogate(_exponential, 1.0),  # piecewise exponential
}
"""By name. In exported programs each is its place in this order, so new ones come last."""


def register_surrogate(name: str, function: Callable[[Tensor], Tensor], alpha: float = 1.0) -> str:
    """Makes a surrogate gradient known by a name, which every model and recipe takes from then on, in this process.

    Neurons compute its gradient in plain PyTorch, on any device; their spikes come from the fast kernels all the same.

    Args:
        name: not yet taken, or by this same function.
        function: u [...] -> slope [...], where u = alpha * (h - v_threshold); the gradient is alpha times it.
        alpha: the customary sharpness.

    Returns:
        The name.

    Raises:
        ValueError: another surrogate has this name, or the function does not return slopes of u's shape.
    """
    known = SURROGATES.get(name)
    if known is not None:
        if getattr(known.slope, "function", None) is function:
            return name
        raise ValueError(f"there is a surrogate {name!r} already; give yours another name")
    tried = function(torch.tensor([-1.0, 0.0, 1.0]))
    if not isinstance(tried, Tensor) or tried.shape != (3,):
        raise ValueError(f"the surrogate {name} must return a slope for each element, but makes {tried} of 3 elements")

    def slope(z, alpha):
        return alpha * function(alpha * z)

    slope.function = function  # pyright: ignore[reportFunctionMemberAccess]  to know it again
    SURROGATES[name] = Surrogate(slope, alpha)
    return name


def surrogate_name(surrogate: str | Callable[[Tensor], Tensor]) -> str:
    """The name of a surrogate that is given by name or as a function, which is registered by its own name when it is first seen.

    Args:
        surrogate: one of SURROGATES, or a function u [...] -> slope [...] as for `register_surrogate`.

    Raises:
        ValueError: there is none of this name, or as for `register_surrogate`.
    """
    if callable(surrogate):
        for name, known in SURROGATES.items():
            if getattr(known.slope, "function", None) is surrogate:
                return name
        base = getattr(surrogate, "__name__", type(surrogate).__name__)
        taken = sum(name == base or name.startswith(f"{base}#") for name in SURROGATES)
        return register_surrogate(f"{base}#{taken + 1}" if taken else base, surrogate)
    if surrogate not in SURROGATES:
        raise ValueError(
            f"surrogate must be one of {', '.join(SURROGATES)}, not {surrogate!r}; your own is made known by register_surrogate, or given "
            "as a function"
        )
    return surrogate
