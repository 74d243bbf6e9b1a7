"""Errors of the approximators against the published ones: float, and with spikes for T = 8 to 128.

    uv run python benchmarks/approximators.py

Ours with spikes: running-rate neurons (`neurons.fire`) that transmit the fitted function of a constant input; what they emitted over T
is compared with the true function. They round and emit up to 4 thresholds per step of either sign: 9 levels, as many as the
published neurons. The whole domain has one threshold, for which the table has two rules: the largest value over the levels, for which
nothing is clipped, and the least squared error for each T (`neurons.fit_threshold`), which cuts rare peaks and so has the lower RMS
and sometimes the higher maximum. The first one is compared; both should be better in RMS.

Exits with an error if a line is not better than the published one.
"""

import argparse
import sys
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from spikeformers.transforms.sta import approximators
from spikeformers.transforms.sta.neurons import fire, fit_threshold

# Measured on the published weights of STA (ICLR 2024): gelu_64, exp_32, inv_64, sqrtinv_8; maximum and RMS of the absolute error.
PUBLISHED_FLOAT = {
    "GELU, published for QuickGELU": ((-10, 10), F.gelu, approximators.gelu, 0.0201, 0.0076),
    "QuickGELU": ((-10, 10), lambda x: x * torch.sigmoid(1.702 * x), approximators.quick_gelu, 0.0046, 0.0007),
    "exp": ((-20, 3), torch.exp, approximators.exp, 0.164, 0.0111),
    "1/x": ((2, 50), torch.reciprocal, approximators.reciprocal, 0.0411, 0.0036),
    "1/sqrt(x)": ((0.01, 1.1), torch.rsqrt, approximators.rsqrt, 0.525, 0.063),
}
PUBLISHED_SPIKING = {  # {T, None for no limit: (maximum, RMS)}
    "GELU": (
        (-10, 10),
        F.gelu,
        approximators.gelu,
        {
            8: (0.412, 0.202),
            16: (0.220, 0.106),
            32: (0.124, 0.057),
            64: (0.067, 0.030),
            128: (0.046, 0.018),
            None: (0.0201, 0.0076),
        },
    ),
    "exp": (
        (-20, 3),
        torch.exp,
        approximators.exp,
        {
            8: (0.575, 0.114),
            16: (0.471, 0.068),
            32: (0.286, 0.037),
            64: (0.201, 0.024),
            128: (0.156, 0.017),
            None: (0.149, 0.014),
        },
    ),
    "1/x": (
        (2, 48),
        torch.reciprocal,
        approximators.reciprocal,
        {
            8: (0.0556, 0.0062),
            16: (0.0484, 0.0051),
            32: (0.0454, 0.0047),
            64: (0.0428, 0.0044),
            128: (0.0415, 0.0043),
            None: (0.0411, 0.0043),
        },
    ),
    "1/sqrt(x)": (
        (0.01, 1.1),
        torch.rsqrt,
        approximators.rsqrt,
        {
            8: (0.839, 0.105),
            16: (0.654, 0.081),
            32: (0.575, 0.069),
            64: (0.553, 0.066),
            128: (0.533, 0.064),
            None: (0.525, 0.063),
        },
    ),
}
PUBLISHED_SOFTMAX = {0.5: 0.034, 1: 0.177, 2: 0.84, 4: 1.53}  # {sd of normal logits: mean L1 error of rows of 197 keys}
PUBLISHED_LAYER_NORM = {0.05: 0.017, 0.2: 0.009, 1: 0.054, 2: 0.52, 4: 0.08, 16: 3.8}  # {variance: relative error}


def decoded(values: Tensor, time_steps: int, levels: int, threshold: Tensor) -> Tensor:
    """What running-rate neurons have transmitted of constant values [S] after T steps."""
    emitted = torch.zeros_like(values)
    for t in range(1, time_steps + 1):
        emitted += fire(t * values, emitted, threshold, levels)
    return emitted * threshold / time_steps


def errors(got: Tensor, want: Tensor) -> tuple[float, float]:
    return float((got - want).abs().max()), float((got - want).square().mean().sqrt())


def pair(numbers: tuple[float, ...]) -> str:
    return " / ".join(f"{x:.2g}" for x in numbers)


def line(name: str, published: tuple[float, ...], ours: tuple[float, ...], *others: tuple[float, ...]) -> bool:
    """Prints a row; whether every number of ours is better."""
    better = all(a < b for a, b in zip(ours, published, strict=True))
    print(f"| {name} | {' | '.join(pair(x) for x in (published, ours, *others))} | {'yes' if better else 'NO'} |")
    return better


def table(title: str, rows: list[tuple], *others: str) -> bool:
    columns = [title, "published", "ours", *others, "better"]
    print(f"\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    return all([line(*row) for row in rows])


def float_rows(points: int):
    for name, ((low, high), exact, approximate, *published) in PUBLISHED_FLOAT.items():
        x = torch.linspace(low, high, points)
        yield f"{name} on [{low}, {high}]", tuple(published), errors(approximate(x), exact(x))


def spiking_rows(points: int, levels: int):
    for name, ((low, high), exact, approximate, published) in PUBLISHED_SPIKING.items():
        x = torch.linspace(low, high, points)
        y = approximate(x)
        for time_steps, numbers in published.items():
            domain = f"{name} on [{low}, {high}]"
            if time_steps is None:
                yield f"{domain}, limit", numbers, *[errors(y, exact(x))] * 2
                continue
            thresholds = y.abs().max() / levels, fit_threshold(y[:, None], time_steps, levels)
            found = [errors(decoded(y, time_steps, levels, threshold), exact(x)) for threshold in thresholds]
            yield f"{domain}, T = {time_steps}", numbers, *found


def softmax_rows(rows: int):
    for sd, published in PUBLISHED_SOFTMAX.items():
        x = sd * torch.randn(rows, 197)
        error = (approximators.softmax(x) - x.softmax(-1)).abs().sum(-1).mean()
        yield f"softmax, 197 keys, sd {sd}", (published,), (float(error),)


def layer_norm_rows(rows: int, channels: int = 768):
    for variance, published in PUBLISHED_LAYER_NORM.items():
        x = variance**0.5 * torch.randn(rows, channels)
        exact = F.layer_norm(x, (channels,))
        error = (approximators.layer_norm(x, (channels,)) - exact).norm() / exact.norm()
        yield f"LayerNorm, variance {variance}", (published,), (float(error),)


def sizes() -> list[tuple[str, int]]:
    fitted: list[tuple[str, Callable]] = [(name, approximators.mantissa(name)) for name in approximators.MANTISSAS]
    fitted += [(name, approximators.activation(name, kind.reach)) for name, kind in approximators.ACTIVATIONS.items()]
    return [(name, fit.approximator.hidden) for name, fit in fitted]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--points", type=int, default=20001, help="evenly over each domain")
    parser.add_argument("--rows", type=int, default=2000, help="of softmax and LayerNorm")
    parser.add_argument("--levels", type=int, default=4, help="thresholds that a neuron may emit per step")
    options = parser.parse_args()
    torch.manual_seed(0)
    print("Hidden units:", ", ".join(f"{name} {hidden}" for name, hidden in sizes()))
    print("Published: measured on the published weights. Pairs are maximum / RMS of the absolute error.")
    better = [
        table("float", list(float_rows(options.points))),
        table(
            "spiking, constant input", list(spiking_rows(options.points, options.levels)), "threshold of least squares"
        ),
        table("mean L1 error of a row, float", list(softmax_rows(options.rows))),
        table("relative error, float", list(layer_norm_rows(options.rows))),
    ]
    if not all(better):
        sys.exit("not every line is better than the published one")


if __name__ == "__main__":
    main()
