"""Fits of scalar functions by networks of rectified units with one hidden layer (UGO: STA, ICLR 2024)."""
# Shapes: S samples, N hidden units.

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CELLS = 1 << 12  # equal parts of a fit's interval, with knots in between: a value's piece is looked up, not searched
GRID = 4 * CELLS + 1  # points to fit and to measure on
PART = 1 << 20  # values that are evaluated at a time, so that intermediate ones fit into a cache


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
