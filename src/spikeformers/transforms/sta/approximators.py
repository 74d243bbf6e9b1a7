"""Non-linear functions by networks of rectified units alone (UGO: STA, ICLR 2024), made to hold at any scale.

A scalar function is fitted once, on an interval: 2^r on [0, 1), 1/m on [1, 2), 1/sqrt(m) on [1, 4), activations between their straight
tails. Exponents are added and shifted, so the relative error is that of the fit whatever the model's scale is. Softmax and
normalisations consist of these, of affine parts and of products.
"""
# Shapes: S samples, N hidden units.

import math
from collections.abc import Callable, Mapping
from functools import cache, partial
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import _disable_current_modes

from . import functions
from .rates.words import words

CELLS = 1 << 12  # equal parts of a fit's interval, with knots in between: a value's piece is looked up, not searched
GRID = 4 * CELLS + 1  # points to fit and to measure on
PART = 1 << 20  # values that are evaluated at a time: what is held for them fits into a cache

# fitting


class Approximator(nn.Module):
    """A universal group operator, y = w2 . ReLU(w1 x + b1) + b2 for every value x, with N hidden units.

    The function is piecewise linear and evaluated as such, by the slope and the intercept of the piece that a value lies in: nothing
    of N values per input is ever held. In running-rate form a hidden unit needs nothing but the sum S of its input: what it should
    have emitted after t steps is t ReLU(w1 S/t + b1) = ReLU(w1 S + b1 t). S is shared by all, so a unit that integrates and fires
    has one state, what it has emitted; and if only the output is transmitted (`Run.function`), there are two states in all.

    Args:
        w1, b1, w2: [N].
        b2: a number.
        cell: if the knots, where the slope changes, are the first one plus multiples of this, pieces are looked up, ten times faster.
    """

    def __init__(self, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor, cell: float | None = None):
        super().__init__()
        for name, value in dict(w1=w1, b1=b1, w2=w2, b2=b2).items():
            self.register_buffer(name, value.detach().double())
        self.cell = cell
        knots = (-self.b1 / self.w1)[self.w1 != 0].sort().values
        self.first = float(knots[0])
        if cell is None:
            self._knots = knots
            inside = (knots[1:] + knots[:-1]) / 2
        else:
            self._knots = None
            inside = self.first + cell * (
                torch.arange(round(float(knots[-1] - knots[0]) / cell), dtype=torch.double) + 0.5
            )
        inside = torch.cat([knots[:1] - 1, inside, knots[-1:] + 1])  # a point of every piece or cell
        active = (self.w1 * inside[:, None] + self.b1 > 0).double()
        self._slopes, self._intercepts = active @ (self.w1 * self.w2), active @ (self.b1 * self.w2) + self.b2

    @property
    def hidden(self) -> int:
        return len(self.w1)

    def forward(self, x: Tensor) -> Tensor:
        """x of any shape -> y of its shape and dtype."""
        slopes, intercepts = self._slopes.to(x), self._intercepts.to(x)
        parts = []
        for part in x.reshape(-1).split(PART):
            piece = self._piece(part)
            parts.append(intercepts.index_select(0, piece).addcmul_(slopes.index_select(0, piece), part))
        return (torch.cat(parts) if len(parts) > 1 else parts[0]).view(x.shape)

    def _piece(self, x):
        if self.cell is None:
            return torch.bucketize(x, self._knots.to(x), out_int32=True)
        cell = x.detach().sub(self.first - self.cell).mul_(1 / self.cell)
        return cell.nan_to_num_().clamp_(0, len(self._slopes) - 1).int()

    def network(self, x: Tensor) -> Tensor:
        """The same by its definition, with all hidden units [..., N] at once."""
        w1, b1, w2, b2 = (w.to(x) for w in (self.w1, self.b1, self.w2, self.b2))
        return F.relu(x[..., None] * w1 + b1) @ w2 + b2

    def extra_repr(self) -> str:
        return f"hidden={self.hidden}"


class Fit(NamedTuple):
    """What `fit` found.

    Attributes:
        approximator: the network.
        max_error, rms_error: on a dense grid over the interval; of a relative fit, relative ones.
    """

    approximator: Approximator
    max_error: float
    rms_error: float


def synthetic(
    low: float, high: float, mean: float | None = None, sd: float | None = None, count: int = 1 << 13, seed: int = 0
) -> Tensor:
    """Inputs [count] to train on: one half uniform over [low, high] widened by 10 %, the other normal.

    Args:
        mean, sd: of the normal half, such as calibration saw; the middle and a quarter of the interval if None.
    """
    generator = torch.Generator().manual_seed(seed)
    uniform = torch.rand(count - count // 2, generator=generator, dtype=torch.double)
    normal = torch.randn(count // 2, generator=generator, dtype=torch.double)
    middle, width = (low + high) / 2, high - low
    normal = normal * (width / 4 if sd is None else sd) + (middle if mean is None else mean)
    return torch.cat([(uniform - 0.5) * (1.1 * width) + middle, normal])


def fit(
    function: Callable[[Tensor], Tensor],
    low: float,
    high: float,
    hidden: int,
    samples: Tensor | None = None,
    *,
    method: str = "least_squares",
    relative: bool = False,
    tails: tuple[float, float, float] | None = None,
    loss: str = "huber",
    steps: int = 2000,
    seed: int = 0,
) -> Fit:
    """Fits an approximator to a function on an interval.

    "least_squares" places the knots so that every piece bends equally (density |f''|^(1/2), for which the pieces' largest errors are
    equal) and solves for the weights, which is optimal for these knots. "adam" trains all weights from evenly spaced knots, the
    learning rate falling from 1e-2 to 1e-4 along a cosine, as the paper's training does; it takes longer and is less accurate.

    Args:
        function: of float64 tensors [...], element-wise.
        low, high: the interval.
        hidden: N; a function that is straight in most places may need fewer, and gets fewer.
        samples: inputs to fit on, such as calibration's or those of `synthetic`. For "least_squares" they count as much as an even
            grid, on which it relies alone by default; "adam" uses `synthetic(low, high)` by default.
        relative: whether errors count relative to the function.
        tails: the value below the interval, and the value and the slope at and above its upper end, kept exactly; only of
            "least_squares". Without them the first unit starts at `low` and the last piece goes on.
        loss: "huber" or "mse", of "adam"; in units of the function's standard deviation.
        steps, seed: of "adam", whose batches are drawn from the samples.

    Raises:
        ValueError: an unknown method or loss, an empty interval, too few units, or tails with "adam".
    """
    if not low < high:
        raise ValueError(f"low must be below high, not {low} and {high}")
    if hidden < 2:
        raise ValueError(f"an approximator needs at least 2 hidden units, not {hidden}")
    if method not in ("least_squares", "adam"):
        raise ValueError(f"method must be 'least_squares' or 'adam', not {method!r}")
    if loss not in ("huber", "mse"):
        raise ValueError(f"loss must be 'huber' or 'mse', not {loss!r}")
    grid = torch.linspace(low, high, GRID, dtype=torch.double)
    with torch.inference_mode(False), torch.no_grad():
        if method == "least_squares":
            nodes = _nodes(function, grid, hidden + (tails is None), relative)
            approximator = _least_squares(function, nodes, grid, samples, relative, tails, (high - low) / CELLS)
        elif tails is not None:
            raise ValueError("tails can only be kept by method='least_squares'")
        else:
            even = torch.linspace(low, high, hidden + 1, dtype=torch.double)
            start = _least_squares(function, even, grid, None, relative, None)
            samples = synthetic(low, high, seed=seed) if samples is None else samples.double().flatten()
            approximator = _adam(function, start, samples, grid, relative, loss, steps, seed)
        error = (approximator(grid) - function(grid)) * _weight(function, grid, relative)
    return Fit(approximator, float(error.abs().max()), float(error.square().mean().sqrt()))


def _weight(function, x, relative):
    return 1 / function(x).abs() if relative else torch.ones_like(x)


def _nodes(function, grid, count, relative):
    """Where the pieces meet, both ends included."""
    bend = torch.zeros_like(grid)
    bend[1:-1] = function(grid).diff(n=2).abs()
    bend[0], bend[-1] = bend[1], bend[-2]
    density = (bend * _weight(function, grid, relative)).sqrt()
    density += 1e-2 * density.mean() + 1e-12  # straight stretches get knots too
    share = density.cumsum(0)
    share = (share - share[0]) / (share[-1] - share[0])
    place = torch.searchsorted(share, torch.linspace(0, 1, count, dtype=torch.double)) * CELLS / (len(grid) - 1)
    return grid[:: (len(grid) - 1) // CELLS][place.round().long().clamp_max(CELLS).unique()]


def _least_squares(function, nodes, grid, samples, relative, tails, cell=None):
    """The piecewise linear function whose values at its nodes [N + 1, with tails N] minimise the squared error."""
    x = grid
    if samples is not None:
        inside = samples.double().flatten()
        inside = inside[(inside >= nodes[0]) & (inside <= nodes[-1])]
        if len(inside):  # as many as there are points of the grid
            x = torch.cat([grid, inside[torch.linspace(0, len(inside) - 1, len(grid)).round().long()]])
    piece = torch.searchsorted(nodes, x).clamp_(1, len(nodes) - 1)
    position = (x - nodes[piece - 1]) / (nodes[piece] - nodes[piece - 1])
    design = torch.zeros(len(x), len(nodes), dtype=torch.double)
    design.scatter_(1, piece[:, None], position[:, None]).scatter_(1, piece[:, None] - 1, 1 - position[:, None])
    weight = _weight(function, x, relative)
    design, wanted = design * weight[:, None], function(x) * weight
    if tails is None:
        values = torch.linalg.lstsq(design, wanted).solution
        slopes = values.diff() / nodes.diff()
        nodes = nodes[:-1]
    else:
        below, at, above = tails
        wanted = wanted - below * design[:, 0] - at * design[:, -1]
        values = torch.linalg.lstsq(design[:, 1:-1], wanted).solution
        values = torch.cat([values.new_tensor([below]), values, values.new_tensor([at])])
        slopes = torch.cat([values.diff() / nodes.diff(), values.new_tensor([above])])
    w2 = slopes.diff(prepend=torch.zeros_like(slopes[:1]))
    return Approximator(torch.ones_like(nodes), -nodes, w2, values[0], cell)


@torch.enable_grad()
def _adam(function, start, samples, grid, relative, loss, steps, seed):
    """Trains in units of the interval and of the function's spread."""
    middle, half = (grid[0] + grid[-1]) / 2, (grid[-1] - grid[0]) / 2
    mean, spread = function(grid).mean(), function(grid).std().clamp_min(1e-12)
    inputs, targets = (samples - middle) / half, (function(samples) - mean) / spread
    weights = _weight(function, samples, relative)
    parameters = [start.w1, (start.b1 + middle) / half, start.w2 * half / spread, (start.b2 - mean) / spread]
    parameters = [x.clone().requires_grad_() for x in parameters]
    optimiser = torch.optim.Adam(parameters, lr=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps, eta_min=1e-4)
    criterion = F.huber_loss if loss == "huber" else F.mse_loss
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        chosen = torch.randint(len(inputs), (512,), generator=generator)
        w1, b1, w2, b2 = parameters
        outputs = F.relu(inputs[chosen, None] * w1 + b1) @ w2 + b2
        value = criterion(outputs * weights[chosen], targets[chosen] * weights[chosen])
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
        schedule.step()
    w1, b1, w2, b2 = (x.detach() for x in parameters)
    return Approximator(w1 / half, b1 - w1 * middle / half, w2 * spread, b2 * spread + mean)


# functions of any scale


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
    """What stands for "exp" (of base 2, on [0, 1)), "reciprocal" (on [1, 2)) or "rsqrt" (on [1, 4))."""
    with _disable_current_modes():  # what follows the network's operations is not to follow the fit's
        return _kept(fit(*MANTISSAS[name], relative=True))


@cache
def activation(name: str, reach: int) -> Fit:
    """What stands for one of `ACTIVATIONS`, fitted on [-reach, reach]."""
    kind = ACTIVATIONS[name]
    with _disable_current_modes():
        return _kept(fit(kind.function, -reach, reach, HIDDEN, tails=(kind.below, kind.above + kind.slope * reach, kind.slope)))


def _kept(fit):
    _KEPT.append(fit.approximator)
    return fit


def tables() -> list[Tensor]:
    """What the approximators of all functions so far hold, tensors [...]: constants of every network that is converted with them."""
    return [x for approximator in _KEPT for x in vars(approximator).values() if isinstance(x, Tensor)]


def _activate(name, x, reach):
    return activation(name, _whole(name, reach)).approximator(x)


def _whole(name, reach):
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


# what consists of them


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


def _vector_norm(x, ord=2, dim=None, keepdim=False, *, dtype=None):
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


# the table of a run

_UNUSED = words("inplace _stacklevel out")  # keywords that say how torch should do it
_COMPOSED = {
    "softmax": softmax,
    "layer_norm": layer_norm,
    "rms_norm": rms_norm,
    "group_norm": group_norm,
    "normalize": normalize,
    "norm": norm,
    "linalg_vector_norm": _vector_norm,
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
            activation(kind, _whole(kind, reach))
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
