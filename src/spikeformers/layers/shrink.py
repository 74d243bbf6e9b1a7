"""Between two stages of a network: fewer time steps for the later one (SSNN, AAAI 2024, arXiv 2401.01912)."""

import torch
from torch import Tensor, nn

from .conv import ConvBN, PerStep

TEMPORAL = ("softmax", "sum")


class TimestepShrink(nn.Module):
    """The temporal transformer: T1 frames become T2 in which the sum over time is redistributed.

    softmax:  a[t] = mean of frame t;  d = softmax(W a + b);  out[t'] = d[t'] * sum over t of x[t]
    sum:      each of T2 contiguous groups of frames, as even as T2 allows, is summed; no parameters

    The sum over time is kept by both. With "softmax" every frame is a positive multiple of one map: the order within the later stage
    lives in the scores d alone, and a convolution behind it is computed once, see `forward`. W and b start at zero, hence
    d = 1 / T2; that W has a bias, and how it starts, is our choice.

    Args:
        time_steps: T1.
        shrunk: T2, at most T1.
        temporal: "softmax" (the paper's) or "sum".

    Raises:
        ValueError: more steps than before, or no such kind.
    """

    def __init__(self, time_steps: int, shrunk: int, temporal: str = "softmax"):
        super().__init__()
        if not 1 <= shrunk <= time_steps:
            raise ValueError(f"time steps can shrink from {time_steps} to 1 .. {time_steps}, not to {shrunk}")
        if temporal not in TEMPORAL:
            raise ValueError(f"temporal must be one of {', '.join(TEMPORAL)}, not {temporal!r}")
        self.time_steps, self.shrunk, self.temporal = time_steps, shrunk, temporal
        if temporal == "softmax":
            self.scores = nn.Linear(time_steps, shrunk)
            nn.init.zeros_(self.scores.weight)
            nn.init.zeros_(self.scores.bias)

    def parts(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """[T1, B, ...] -> the sum over time [B, ...] and the scores d [T2, B], which sum to 1 over T2. Of "softmax" only."""
        self._check(x)
        activity = x.flatten(2).mean(2).transpose(0, 1)
        return x.sum(0), self.scores(activity).softmax(1).transpose(0, 1)

    def forward(self, x: Tensor, then: nn.Module | None = None) -> Tensor:
        """[T1, B, ...] -> [T2, B, ...], or what the layer `then` makes of that.

        If `then` is a convolution, with or without a BN, it is computed once for all frames: it sees the sum over time, and its
        result z is scaled to d[t] * z. Batch statistics over all frames follow from z and d without making the frames:
        mean = mean of d * z, and E[x^2] = mean over b of (mean over t of d^2) * (mean of z^2).

        Args:
            x: [T1, B, ...]; [T1, B, C, H, W] for a convolution.
            then: what follows, [T, B, C, H, W] -> [T, B, C', H', W'].
        """
        if self.temporal == "sum":
            self._check(x)
            frames = torch.stack([group.sum(0) for group in x.tensor_split(self.shrunk)])
            return frames if then is None else then(frames)
        total, scores = self.parts(x)
        scores = scores.reshape(*scores.shape, *[1] * (total.ndim - 1))
        if then is None or not computed_once(then):
            return total * scores if then is None else then(total * scores)
        z = then.conv(total)
        bias = then.conv.bias
        if bias is not None:
            z = z - bias[:, None, None]
        else:
            bias = torch.zeros_like(z[0, :, 0, 0])
        gain, shift = (None, bias) if isinstance(then, PerStep) else _affine(then.bn, z, scores[:, :, 0, 0, 0], bias)
        if gain is not None:
            z = z * gain[:, None, None]
        return z * scores + shift[:, None, None]

    def _check(self, x: Tensor) -> None:
        if x.shape[0] != self.time_steps:
            raise ValueError(f"this network shrinks {self.time_steps} time steps here, but got {x.shape[0]}; give it as many frames")

    def extra_repr(self) -> str:
        return f"time_steps={self.time_steps}, shrunk={self.shrunk}, temporal={self.temporal!r}"


def computed_once(layer: nn.Module) -> bool:
    """Whether `TimestepShrink` knows how to compute the layer once for all frames."""
    if isinstance(layer, PerStep):  # a merged ConvBN
        return len(layer) == 1 and type(layer[0]) is nn.Conv2d and hasattr(layer, "conv") and layer.conv.padding_mode == "zeros"
    if not isinstance(layer, ConvBN) or type(layer.bn) is not nn.BatchNorm2d or layer.bn.running_mean is None:
        return False
    return layer.conv.bias is None or not layer.training  # batch statistics leave nothing of the bias for its gradient


def _affine(bn: nn.BatchNorm2d, z: Tensor, scores: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """What convolution bias and BN do to the frames d[t] * z: gain and shift [C]; in train mode the running statistics are updated.

    Args:
        z: [B, C, H, W], without the bias.
        scores: d [T, B].
    """
    if bn.training:
        wide = torch.promote_types(z.dtype, torch.float32)  # as BN itself keeps its statistics
        first = scores.to(wide).mean(0)[:, None] * z.mean((2, 3), dtype=wide)
        second = scores.to(wide).square().mean(0)[:, None] * z.to(wide).square().mean((2, 3))
        mean = first.mean(0)
        variance = (second.mean(0) - mean.square()).clamp_min(0)
        count = len(scores) * z[:, 0].numel()
        with torch.no_grad():
            bn.num_batches_tracked += 1
            momentum = 1 / float(bn.num_batches_tracked) if bn.momentum is None else bn.momentum
            bn.running_mean.lerp_((mean + bias).to(bn.running_mean.dtype), momentum)
            bn.running_var.lerp_((variance * (count / max(1, count - 1))).to(bn.running_var.dtype), momentum)
    else:
        mean, variance = bn.running_mean - bias, bn.running_var
    gain = torch.rsqrt(variance + bn.eps)
    if bn.affine:
        gain = gain * bn.weight
    shift = -mean * gain
    if bn.affine:
        shift = shift + bn.bias
    return gain.to(z.dtype), shift.to(z.dtype)
