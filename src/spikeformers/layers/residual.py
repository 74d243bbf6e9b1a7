"""What surrounds a branch: the time axis, the shortcut and stochastic depth."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from .._arguments import Share, checked

SHORTCUTS = ("ms", "vs", "sew")


def per_step(layer: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Applies a layer without state to every time step at once: [T, B, ...] as one batch of T*B."""
    return layer(x.flatten(0, 1)).unflatten(0, x.shape[:2])


class DropPath(nn.Module):
    """Stochastic depth (Huang et al., ECCV 2016): drops the branch of a whole sample, the same one at every time step.

    Args:
        rate: probability that a sample's branch is dropped in training; the others are scaled by 1 / (1 - rate).
    """

    @checked
    def __init__(self, rate: Share = 0.0):
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """[T, B, ...] -> [T, B, ...]"""
        if not self.training or self.rate == 0:
            return x
        keep = torch.rand((1, x.shape[1]) + (1,) * (x.ndim - 2), device=x.device) >= self.rate
        return x * (keep.to(x.dtype) / (1 - self.rate))

    def extra_repr(self) -> str:
        return f"rate={self.rate}"


class Residual(nn.Module):
    """A branch of spike-fed layers that ends in a membrane potential, and the shortcut around it.

    ms:  U + branch(LIF(U))       membrane shortcut: potentials in and out, float addition
    vs:  LIF(s + branch(s))       vanilla shortcut: spikes in and out
    sew: s + LIF(branch(s))       spike-element-wise: integers in and out (drop_path scales them in training)

    Args:
        branch: module from spikes [T, B, C, H, W] to potentials [T, B, C, H, W].
        neuron: the spiking neuron before (ms) or behind (vs, sew) the branch.
        shortcut: "ms", "vs" or "sew". The placement of vs and sew is our reading of the ablation in Yao et al., ICLR 2024.
        drop_path: rate of stochastic depth.

    Raises:
        ValueError: no such shortcut.
    """

    @checked
    def __init__(self, branch: nn.Module, neuron: nn.Module, shortcut: str = "ms", drop_path: Share = 0.0):
        super().__init__()
        if shortcut not in SHORTCUTS:
            raise ValueError(f"shortcut must be one of {', '.join(SHORTCUTS)}, not {shortcut!r}")
        self.lif = neuron
        self.branch = branch
        self.shortcut = shortcut
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """[T, B, C, H, W] -> [T, B, C, H, W]"""
        if self.shortcut == "ms":
            return x + self.drop_path(self.branch(self.lif(x)))
        if self.shortcut == "vs":
            return self.lif(x + self.drop_path(self.branch(x)))
        return x + self.drop_path(self.lif(self.branch(x)))

    def extra_repr(self) -> str:
        return f"shortcut={self.shortcut!r}"
