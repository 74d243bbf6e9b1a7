"""From values to spikes over time: images as rate, latency, phase or delta codes, which any model takes as a sequence."""

import math

import torch
from torch import Tensor

from .._arguments import Positive, Share, Steps, checked


@checked
def rate_code(x: Tensor, time_steps: Steps, *, generator: torch.Generator | None = None) -> Tensor:
    """Spikes drawn anew at every time step, each with the value as its probability (Bernoulli; also called Poisson code).

    Args:
        x: values [...] in [0, 1].
        time_steps: T.
        generator: where random numbers come from; torch's own by default.

    Returns:
        Spikes [T, ...] in x's dtype, whose mean over time approaches x.

    Raises:
        ValueError: values outside [0, 1].
    """
    _must_be_in_unit_range(x)
    chance = torch.rand(time_steps, *x.shape, generator=generator, device=x.device)
    return (chance < x).to(x.dtype)


@checked
def latency_code(x: Tensor, time_steps: Steps, *, threshold: Share = 0.0, logarithmic: bool = False) -> Tensor:
    """One spike for each value, the earlier the larger the value is (time to first spike).

    Args:
        x: values [...] in [0, 1]. 1 fires at the first step.
        time_steps: T.
        threshold: values up to it never fire; the smallest above it fire at the last step.
        logarithmic: the spike's time follows log(1 / x), which is when a leaky membrane driven by x would reach a threshold, instead of
            falling along a line.

    Returns:
        Spikes [T, ...] in x's dtype, at most one for each value.

    Raises:
        ValueError: values outside [0, 1].
    """
    _must_be_in_unit_range(x)
    fires = x > threshold
    if logarithmic:
        floor = max(threshold, 1 / 256)  # one step of an 8-bit image, below which a logarithm has no end
        late = x.clamp(min=floor).log() / math.log(floor)
    else:
        late = (1 - x) / (1 - threshold)
    time = (late.clamp(0, 1) * (time_steps - 1)).round().long()
    steps = torch.arange(time_steps, device=x.device).view(-1, *[1] * x.ndim)
    return ((steps == time) & fires).to(x.dtype)


@checked
def phase_code(x: Tensor, time_steps: Steps) -> Tensor:
    """The binary digits of the values, the largest first: a spike at step t is worth 2^-(t + 1) (weighted phase code, Kim et al., 2018).

    Args:
        x: values [...] in [0, 1]; 1 is coded as the largest number of T digits.
        time_steps: T, at most 24, the digits of a float32.

    Returns:
        Spikes [T, ...] in x's dtype, with sum over t of s[t] 2^-(t + 1) = x rounded down to T digits.

    Raises:
        ValueError: values outside [0, 1], or more time steps than there are digits.
    """
    _must_be_in_unit_range(x)
    if time_steps > 24:
        raise ValueError(
            f"time_steps must be at most 24 in a phase code, not {time_steps}: a float32 has no more digits"
        )
    whole = (x.double() * 2**time_steps).floor().clamp(max=2**time_steps - 1).long()
    places = torch.arange(time_steps - 1, -1, -1, device=x.device).view(-1, *[1] * x.ndim)
    return ((whole >> places) & 1).to(x.dtype)


@checked
def delta_code(x: Tensor, threshold: Positive = 0.1, *, off_spikes: bool = True) -> Tensor:
    """A spike where a sequence has risen or fallen by the threshold since the last step, as an event camera's pixels fire.

    Args:
        x: sequence [T, ...]. Before it everything is 0, so the first step shows what is there.
        threshold: the smallest change that fires, in units of x.
        off_spikes: whether falls fire too, as -1.

    Returns:
        [T, ...] in x's dtype: 1 for a rise, -1 for a fall, otherwise 0.

    Raises:
        ValueError: x has no axis of time.
    """
    if x.ndim < 1:
        raise ValueError("x must be a sequence [T, ...], not a single number")
    change = x.diff(dim=0, prepend=torch.zeros_like(x[:1]))
    rises = (change >= threshold).to(x.dtype)
    return rises - (change <= -threshold).to(x.dtype) if off_spikes else rises


def _must_be_in_unit_range(x: Tensor) -> None:
    if not x.is_floating_point() or (x.numel() and not bool(((x >= 0) & (x <= 1)).all())):
        least, most = (x.min().item(), x.max().item()) if x.numel() else (None, None)
        raise ValueError(
            f"x must hold floats in [0, 1], not {x.dtype} from {least} to {most}; scale images as x / 255, and normalise nothing"
        )
