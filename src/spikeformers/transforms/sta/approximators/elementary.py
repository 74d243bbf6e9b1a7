"""Scalar functions at any scale: a fit on one interval, and what brings other values into it.

A scalar function is fitted once, on an interval: 2^r on [0, 1), 1/m on [1, 2), 1/sqrt(m) on [1, 4), activations between their straight
tails. Exponents are added and shifted, so the relative error is that of the fit whatever the model's scale is.
"""

import math
from collections.abc import Callable
from functools import cache, partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import _disable_current_modes

from .. import functions
from .fitting import Approximator, Fit, fit


class _Activation(NamedTuple):
    """A function with straight tails: from -reach down it is `below`, from reach up `above` + `slope` x, to 1e-4."""

    function: Callable[[Tensor], Tensor]
    reach: int
    below: float = 0.0
    above: float = 0.0
    slope: float = 1.0


ACTIVATIONS = {
    "gelu": _Activation(F.gelu, 6),
    "gelu_tanh": _Activation(partial(F.gelu, approximate="tanh"), 6),
    "quick_gelu": _Activation(functions.quick_gelu, 8),
    "silu": _Activation(F.silu, 14),
    "sigmoid": _Activation(torch.sigmoid, 12, above=1, slope=0),
    "tanh": _Activation(torch.tanh, 6, below=-1, above=1, slope=0),
}
MANTISSAS = {
    "exp": (torch.exp2, 0, 1, 32),
    "reciprocal": (torch.reciprocal, 1, 2, 64),
    "rsqrt": (torch.rsqrt, 1, 4, 8),
}
_KEPT: list[Approximator] = []
HIDDEN = 64  # units of an activation
WIDEST = 64  # from here on every tail is straight in any dtype


@cache
def mantissa(name: str) -> Fit:
    """The fit of "exp" (of base 2, on [0, 1)), "reciprocal" (on [1, 2)) or "rsqrt" (on [1, 4))."""
    with _disable_current_modes():  # an audit that follows the network's operations must not see the fit's
        return _kept(fit(*MANTISSAS[name], relative=True))


@cache
def activation(name: str, reach: int) -> Fit:
    """The fit of one of `ACTIVATIONS` on [-reach, reach]."""
    kind = ACTIVATIONS[name]
    with _disable_current_modes():
        return _kept(
            fit(kind.function, -reach, reach, HIDDEN, tails=(kind.below, kind.above + kind.slope * reach, kind.slope))
        )


def _kept(fit):
    _KEPT.append(fit.approximator)
    return fit


def tables() -> list[Tensor]:
    """The tensors [...] of all approximators so far, which are constants of every network that is converted with them."""
    return [x for approximator in _KEPT for x in vars(approximator).values() if isinstance(x, Tensor)]


def _activate(name, x, reach):
    return activation(name, fitted_reach(name, reach)).approximator(x)


def fitted_reach(name: str, reach: float) -> int:
    """The R of the interval [-R, R] on which an activation is fitted that is to reach so far."""
    return min(max(ACTIVATIONS[name].reach, math.ceil(reach)), WIDEST)


def gelu(x: Tensor, approximate: str = "none", *, reach: float = 0.0) -> Tensor:
    """x Phi(x), or its "tanh" form, of x [...]: fitted between -R and R, 0 below, x above.

    Args:
        reach: R, if it is more than 6.
    """
    return _activate("gelu" if approximate == "none" else f"gelu_{approximate}", x, reach)


def quick_gelu(x: Tensor, *, reach: float = 0.0) -> Tensor:
    """x sigmoid(1.702 x) of x [...], fitted between -R and R, at least 8."""
    return _activate("quick_gelu", x, reach)


def silu(x: Tensor, *, reach: float = 0.0) -> Tensor:
    """x sigmoid(x) of x [...], fitted between -R and R, at least 14."""
    return _activate("silu", x, reach)


def sigmoid(x: Tensor, *, reach: float = 0.0) -> Tensor:
    """1 / (1 + e^-x) of x [...], fitted between -R and R, at least 12."""
    return _activate("sigmoid", x, reach)


def tanh(x: Tensor, *, reach: float = 0.0) -> Tensor:
    """tanh of x [...], fitted between -R and R, at least 6."""
    return _activate("tanh", x, reach)


def hardswish(x: Tensor) -> Tensor:
    """x ReLU6(x + 3) / 6 of x [...]: a product, nothing to fit."""
    return x * F.relu6(x + 3) / 6


def _shifted(x, exponent):
    """2^exponent x, in place: exact, as exponents are whole, and many times faster than torch.ldexp."""
    return x.mul_(torch.exp2(exponent))


def exp(x: Tensor) -> Tensor:
    """e^x = 2^n 2^r, n = floor(x / ln 2), with 2^r fitted, of x [...]; 0 for -inf."""
    x = (x * (1 / math.log(2))).clamp_(-2000, 2000)  # beyond any dtype's range
    whole = x.floor()
    return _shifted(mantissa("exp").approximator(x.sub_(whole)), whole)


def reciprocal(x: Tensor) -> Tensor:
    """1 / x of x [...] = 2^-e 1/m for |x| = m 2^e, m in [1, 2), with 1/m fitted; infinite for 0."""
    fraction, exponent = torch.frexp(x.abs())
    y = _shifted(mantissa("reciprocal").approximator(fraction.mul_(2)), 1 - exponent.to(x.dtype))
    return y.masked_fill_(x == 0, torch.inf).copysign_(x)


def rsqrt(x: Tensor) -> Tensor:
    """1 / sqrt(x) of x [...] = 2^-e 1/sqrt(m) for x = m 4^e, m in [1, 4), with 1/sqrt(m) fitted; infinite for x <= 0."""
    fraction, exponent = torch.frexp(x)
    half = (exponent - 1) >> 1
    fraction = _shifted(fraction, (exponent - 2 * half).to(x.dtype))
    return _shifted(mantissa("rsqrt").approximator(fraction), -half.to(x.dtype)).masked_fill_(x <= 0, torch.inf)


def sqrt(x: Tensor) -> Tensor:
    """x rsqrt(x) of x [...]; 0 for x <= 0, to 1e-19."""
    x = x.clamp_min(torch.finfo(x.dtype).tiny)
    return x * rsqrt(x)


def divide(a: Tensor | float, b: Tensor, rounding_mode: str | None = None) -> Tensor:
    """a times the reciprocal of b, both [...].

    Args:
        a: what is divided.
        b: by what.
        rounding_mode: of torch.div; must be None.

    Raises:
        ValueError: the division rounds.
    """
    if rounding_mode is not None:
        raise ValueError(
            f"a division that rounds (rounding_mode={rounding_mode!r}) has jumps, which are not approximated"
        )
    return a * reciprocal(b)


def power(x: Tensor, exponent: float) -> Tensor:
    """x [...] to a power that is a whole number above zero (products), -1, 0.5 or -0.5.

    Raises:
        ValueError: another power.
    """
    if not isinstance(x, Tensor) or (isinstance(exponent, Tensor) and exponent.numel() > 1):
        raise ValueError("only powers with a fixed number as exponent are approximated; use exp for others")
    exponent = float(exponent)
    if exponent in (-1, 0.5, -0.5):
        return {-1: reciprocal, 0.5: sqrt, -0.5: rsqrt}[exponent](x)
    if exponent < 1 or exponent % 1:
        raise ValueError(f"a power of {exponent:g} is not approximated; whole numbers above zero, -1, 0.5 and -0.5 are")
    return math.prod([x] * int(exponent))
