"""Between two stages of a network: fewer time steps for the later one (SSNN, AAAI 2024, arXiv 2401.01912)."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .._arguments import checked
from .hooks import changes_of, computed
from .residual import per_step

TEMPORAL = ("softmax", "sum")
MOST_STEPS = 1024
"""Time steps before a shrinking: an input has as many frames, and the scores of the temporal transformer as many weights squared."""


@dataclass
class Redistributed:
    """The frames d[t] * total, which need not be made: a convolution behind them is computed once, see `through`.

    Args:
        total: sum over time [B, ...].
        scores: d [T, B], which sum to 1 over T.
        dtype: of the frames.
    """

    total: Tensor
    scores: Tensor
    dtype: torch.dtype

    @property
    def frames(self) -> Tensor:
        """[T, B, ...], made anew each time: checkpointing recomputes what it did."""
        return (self.total * self._factors(self.total)).to(self.dtype)

    def _factors(self, x: Tensor) -> Tensor:
        return self.scores.reshape(*self.scores.shape, *[1] * (x.ndim - 1))

    def through(self, conv: nn.Conv2d, bn: nn.Module | None = None) -> Tensor:
        """What a convolution, with or without a BN, makes of the frames: [T, B, C, H, W] -> [T, B, C', H', W'].

        The convolution sees the total, and its result z is scaled to d[t] * z. Batch statistics over all frames follow from z
        and d without making the frames, see `_moments`. Where they do not, as for biases that learn or batch statistics of several
        processes, the frames are made.
        """
        if not _computed_once(conv, bn):
            return per_step(lambda x: conv(x) if bn is None else bn(conv(x)), self.frames)
        z = conv(self.total)
        dtype = z.dtype
        z = z.to(torch.promote_types(dtype, torch.float32))  # as BN itself computes
        bias = z.new_zeros(z.shape[1]) if conv.bias is None else conv.bias.to(z)
        z = z - bias[:, None, None]
        gain, shift = (
            _affine(bn, z, self.scores, bias) if isinstance(bn, nn.BatchNorm2d) else (torch.ones_like(bias), bias)
        )
        return (z * (self._factors(z) * gain[:, None, None]) + shift[:, None, None]).to(dtype)


def frames_of(x: Tensor | Redistributed) -> Tensor:
    """[T, B, ...]"""
    return x if isinstance(x, Tensor) else x.frames


class TimestepShrink(nn.Module):
    """The temporal transformer: T1 frames become T2 in which the sum over time is redistributed.

    softmax:  a[t] = mean of frame t;  d = softmax(W a + b);  out[t'] = d[t'] * sum over t of x[t]
    sum:      each of T2 contiguous groups of frames, as even as T2 allows, is summed; no parameters

    The sum over time is kept by both. With "softmax" every frame is a positive multiple of one map: the order within the later stage
    lives in the scores d alone, and a convolution behind it can be computed once, see `Redistributed`. W and b start at zero, hence
    d = 1 / T2; that W has a bias, and how it starts, is our choice.

    Args:
        time_steps: T1.
        shrunk: T2, at most T1.
        temporal: "softmax" (the paper's) or "sum".

    Raises:
        ValueError: more steps than before, or no such kind.
    """

    @checked
    def __init__(self, time_steps: int, shrunk: int, temporal: str = "softmax"):
        super().__init__()
        if not 1 <= shrunk <= time_steps:
            raise ValueError(f"time steps can shrink from {time_steps} to 1 .. {time_steps}, not to {shrunk}")
        check_steps(time_steps)
        check_temporal(temporal)
        self.time_steps, self.shrunk, self.temporal = time_steps, shrunk, temporal
        if temporal == "softmax":
            self.scores = nn.Linear(time_steps, shrunk)
            nn.init.zeros_(self.scores.weight)
            nn.init.zeros_(self.scores.bias)

    def forward(self, x: Tensor, made: bool = True) -> Tensor | Redistributed:
        """[T1, B, ...] -> [T2, B, ...]

        Args:
            made: whether the frames are made; if not, "softmax" returns a `Redistributed`, which a `ConvBN` takes as well.
        """
        if x.shape[0] != self.time_steps:
            raise ValueError(
                f"this network shrinks {self.time_steps} time steps here, but got {x.shape[0]}; give it as many frames"
            )
        if self.temporal == "sum":
            return torch.stack([group.sum(0) for group in x.tensor_split(self.shrunk)])
        activity = x.flatten(2).mean(2).transpose(0, 1)
        scores = self.scores(activity)
        scores = scores.to(torch.promote_types(scores.dtype, torch.float32)).softmax(1).transpose(0, 1)
        redistributed = Redistributed(x.sum(0), scores, x.dtype)
        return redistributed.frames if made else redistributed

    def extra_repr(self) -> str:
        return f"time_steps={self.time_steps}, shrunk={self.shrunk}, temporal={self.temporal!r}"


def check_steps(*time_steps: int) -> None:
    """Refuses more time steps than networks here are made for.

    Raises:
        ValueError: one of them is above MOST_STEPS.
    """
    if any(isinstance(steps, int) and steps > MOST_STEPS for steps in time_steps):
        raise ValueError(
            f"at most {MOST_STEPS:,} time steps, not {max(time_steps):,}: an input has as many frames, and shrinking as many weights squared"
        )


def check_temporal(temporal: str) -> None:
    """Refuses what is no kind of `TimestepShrink`.

    Raises:
        ValueError: it is not in TEMPORAL.
    """
    if temporal not in TEMPORAL:
        raise ValueError(f"temporal must be one of {', '.join(TEMPORAL)}, not {temporal!r}")


def _computed_once(conv: nn.Conv2d, bn: nn.Module | None) -> bool:
    """Whether frames that are multiples of one map need one convolution."""
    if type(conv) is not nn.Conv2d or conv.padding_mode != "zeros":
        return False
    if changes_of(conv) or (
        bn is not None and (changes_of(bn) or computed(bn))
    ):  # they are to see frames, and BN is no call here
        return False
    if bn is None:
        return True
    if type(bn) is not nn.BatchNorm2d or bn.running_mean is None:
        return False
    return conv.bias is None or not bn.training  # batch statistics leave nothing of the bias for its gradient


def _moments(z: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance [C] of the frames d[t] * z over time, batch and pixels: the mean variance within a frame and the variance of
    the frames' means."""
    means = scores[:, :, None] * z.mean((2, 3))
    mean = means.mean((0, 1))
    within = (scores.square().mean(0)[:, None] * z.var((2, 3), correction=0)).mean(0)
    return mean, within + (means - mean).square().mean((0, 1))


def _affine(bn: nn.BatchNorm2d, z: Tensor, scores: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """What convolution bias and BN do to the frames d[t] * z: gain and shift [C]; in train mode the running statistics are updated.

    Args:
        z: [B, C, H, W], without the bias.
        scores: d [T, B].
    """
    running_mean, running_var = bn.running_mean, bn.running_var
    assert running_mean is not None and running_var is not None, "`_computed_once` has looked"
    if bn.training:
        count = len(scores) * z[:, 0].numel()
        if count == 1:
            raise ValueError(
                f"batch statistics need more than one value per channel, not {list(z.shape)} at one time step; give a larger batch"
            )
        mean, variance = _moments(z, scores)
        with torch.no_grad():
            momentum = bn.momentum
            if bn.num_batches_tracked is not None:  # None while a pass is recomputed, with a momentum of 0
                bn.num_batches_tracked += 1
                momentum = 1 / float(bn.num_batches_tracked) if momentum is None else momentum
            assert momentum is not None
            running_mean.lerp_((mean + bias).to(running_mean.dtype), momentum)
            running_var.lerp_((variance * (count / (count - 1))).to(running_var.dtype), momentum)
    else:
        mean, variance = running_mean.to(z) - bias, running_var.to(z)
    gain = torch.rsqrt(variance + bn.eps)
    if bn.affine:
        gain = gain * bn.weight.to(z)
    shift = -mean * gain
    if bn.affine:
        shift = shift + bn.bias.to(z)
    return gain, shift
