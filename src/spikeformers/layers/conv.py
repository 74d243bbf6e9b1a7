"""Convolutions over [T, B, C, H, W], each followed by batch normalisation."""

from collections import OrderedDict
from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from .._arguments import Count, Index, Ratio, checked
from .hooks import changes_of, refresh
from .merging import MergeChoices, Part, affine, composed, convolution, fold, must_be_parameters
from .residual import per_step
from .shrink import Redistributed


class PerStep(Part, nn.Sequential):
    """Layers without state, one after the other, at every time step: what merging leaves of ConvBN and RepConv."""

    takes_redistributed = True

    def forward(self, input: Tensor | Redistributed) -> Tensor:
        """[T, B, C, H, W] -> [T, B, C', H', W']"""
        x = input
        if isinstance(x, Redistributed):
            if len(self) == 1 and isinstance(conv := self[0], nn.Conv2d):  # a merged ConvBN
                return x.through(conv)
            x = x.frames
        return per_step(super().forward, x)

    @property
    def chain(self) -> tuple[str, ...]:
        """Those of a RepConv that was merged for CPUs."""
        return RepConv.CHAIN if tuple(self._modules) == RepConv.CHAIN else ()

    def merged(self, choices: MergeChoices) -> nn.Module:
        """One 3x3, of a RepConv that was merged for CPUs."""
        if not choices.repconv or not self.chain or not choices.free(self):
            return self
        layers = [cast(nn.Conv2d, layer) for layer in self]
        kernel = composed([(layer.weight, layer.groups) for layer in layers])
        return PerStep(OrderedDict(conv=convolution(kernel, layers[-1].bias, layers[-1].weight)))


class ConvBN(Part):
    """Convolution and batch normalisation, at every time step.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, groups, bias: as for `nn.Conv2d`; padding keeps the size
            of odd kernels at stride 1 if None.
    """

    takes_redistributed = True

    @checked
    def __init__(
        self,
        in_channels: Count,
        out_channels: Count,
        kernel_size: Count = 1,
        stride: Count = 1,
        padding: Index | None = None,
        groups: Count = 1,
        bias: bool = False,
    ):
        super().__init__()
        padding = kernel_size // 2 if padding is None else padding
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, groups=groups, bias=bias)
        self.bn = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor | Redistributed) -> Tensor:
        """[T, B, C, H, W] -> [T, B, C', H', W']"""
        if isinstance(x, Redistributed):
            return x.through(self.conv, self.bn)
        return per_step(lambda x: self.bn(self.conv(x)), x)

    def merged(self, choices: MergeChoices) -> nn.Module:
        """The convolution with the normalisation in its weights.

        Raises:
            ValueError: the weight is computed by a hook.
        """
        must_be_parameters(self.conv)
        return PerStep(OrderedDict(conv=fold(self.conv, self.bn))) if choices.free(self) else self


class RepConv(Part):
    """Re-parameterisable convolution: 1x1 - BN - depthwise 3x3 - 1x1 - BN - BN, one dense 3x3 in effect.

    No activation lies inside. The depthwise convolution sees the first BN's output padded with what that BN makes of zero,
    from running statistics in both modes and without gradient, so that in eval mode the chain equals one 3x3 convolution
    with zero padding exactly (Yao et al., ICLR 2024).

    Args:
        channels: C of input and output.
    """

    CHAIN = ("expand", "depthwise", "project")

    @checked
    def __init__(self, channels: Count):
        super().__init__()
        self.expand = nn.Conv2d(channels, channels, 1, bias=False)
        self.expand_bn = nn.BatchNorm2d(channels)
        self.depthwise = nn.Conv2d(channels, channels, 3, groups=channels, bias=False)
        self.project = nn.Conv2d(channels, channels, 1, bias=False)
        self.project_bn = nn.BatchNorm2d(channels)
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """[T, B, C, H, W] -> [T, B, C, H, W]"""
        return per_step(self._one_step, x)

    def _one_step(self, x: Tensor) -> Tensor:
        x = self._depthwise(self.expand_bn(self.expand(x)))
        return self.bn(self.project_bn(self.project(x)))

    def _depthwise(self, x: Tensor) -> Tensor:
        """The depthwise convolution of x [N, C, H, W] padded with BN(0) = beta - gamma * mean / sqrt(var + eps).

        Zero padding inside the convolution, and what the border adds once for all N: no padded copy of x.
        """
        bn, (height, width) = self.expand_bn, x.shape[2:]
        mean, variance = bn.running_mean, bn.running_var
        assert mean is not None and variance is not None, "the padding needs running statistics"
        at_zero = bn.bias.detach() - bn.weight.detach() * mean / torch.sqrt(variance + bn.eps)
        border = functional.pad(x.new_zeros(1, 1, height, width), (1, 1, 1, 1), value=1.0)
        if changes_of(self.depthwise):  # as a module, so that hooks see it
            at_zero = at_zero.to(x.dtype)[:, None, None]
            return self.depthwise(functional.pad(x - at_zero, (1, 1, 1, 1)) + at_zero)
        refresh(self.depthwise)
        weight = self.depthwise.weight
        border = functional.conv2d(border * at_zero.to(x.dtype)[:, None, None], weight, groups=len(weight))
        return functional.conv2d(x, weight, padding=1, groups=len(weight)) + border

    @property
    def chain(self) -> tuple[str, ...]:
        """All three."""
        return self.CHAIN

    def merged(self, choices: MergeChoices) -> nn.Module:
        """P D A and the three BN: the second 1x1, the depthwise 3x3 and the first 1x1, each with a scale, and one bias.

        The depthwise convolution sees BN(0) as border, that is x' + t1 with x' padded with zeros. Hence, border included,
        b = s3 (s2 P (sum_uv D) t1 + t2) + t3, whether the rest is three convolutions or one.
        """
        if not choices.free(self):
            return self
        (s1, t1), (s2, t2), (s3, t3) = map(affine, (self.expand_bn, self.project_bn, self.bn))
        depthwise = self.depthwise.weight.double()
        expand = s1[:, None, None, None] * self.expand.weight.double()
        project = (s3 * s2)[:, None, None, None] * self.project.weight.double()
        bias = project[..., 0, 0] @ (depthwise.sum((1, 2, 3)) * t1) + s3 * t2 + t3
        like, channels = self.expand.weight, len(depthwise)
        if choices.repconv:
            kernel = composed([(expand, 1), (depthwise, channels), (project, 1)])
            return PerStep(OrderedDict(conv=convolution(kernel, bias, like)))
        parts = (
            convolution(expand, None, like),
            convolution(depthwise, None, like, channels),
            convolution(project, bias, like),
        )
        return PerStep(OrderedDict(zip(self.CHAIN, parts, strict=True)))


class ChannelMixer(nn.Module):
    """Convolution - BN - LIF - convolution - BN with a wider middle: an MLP (1x1) or Meta-SpikeFormer's ChannelConv (3x3).

    Args:
        channels: C of input and output.
        neuron: makes the spiking neuron in the middle.
        ratio: width of the middle in units of C.
        kernel_size: of both convolutions.
        bias: whether the convolutions have biases, though a BN follows: the published MLPs do.
    """

    @checked
    def __init__(
        self,
        channels: Count,
        neuron: Callable[[], nn.Module],
        ratio: Ratio = 4.0,
        kernel_size: Count = 1,
        bias: bool = False,
    ):
        super().__init__()
        hidden = int(channels * ratio)
        self.fc1 = ConvBN(channels, hidden, kernel_size, bias=bias)
        self.lif = neuron()
        self.fc2 = ConvBN(hidden, channels, kernel_size, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Spikes [T, B, C, H, W] -> potentials [T, B, C, H, W]"""
        return self.fc2(self.lif(self.fc1(x)))
