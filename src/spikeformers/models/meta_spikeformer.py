"""Meta-SpikeFormer: Spike-driven Transformer V2 (Yao et al., ICLR 2024).

A meta architecture of convolution blocks at high resolution and transformer blocks at low resolution; every block adds to a
membrane potential what a branch makes of its spikes. The final stride is 16: both transformer stages see 14 x 14 tokens at 224.
"""
# Shapes: T time steps, B batch, C channels, H W pixels, N = H*W tokens, h heads, d = C/h.

from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from typing import cast

from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import generate_default_cfgs
from torch import Tensor, nn

from .._arguments import Count, Index, Positive, Ratio, Share, Steps, checked
from ..layers import ChannelMixer, ConvBN, Part, PerStep, RepConv, Residual, SpikingSelfAttention, per_step
from ..layers.merging import MergeChoices, composed, convolution
from ..neurons import LIF
from ._backbone import SpikingBackbone
from ._registry import build, register_model

__all__ = ["MetaSpikeFormer"]

BLOCKS = ("conv", "transformer")
PROJECTIONS = {"repconv": RepConv, "linear": lambda channels: ConvBN(channels, channels)}


class Downsample(nn.Module):
    """LIF - strided convolution - BN. The stem has no LIF: it sees the analog image. No shortcut.

    Behind a vanilla or SEW shortcut the input already consists of spikes, so the LIF follows instead.

    Args:
        in_channels, out_channels, kernel_size, stride: of the convolution.
        neuron: makes the LIF.
        shortcut: of the blocks around; "ms" puts the LIF first.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, stride: int, neuron, shortcut: str = "ms"
    ):
        super().__init__()
        conv = ConvBN(in_channels, out_channels, kernel_size, stride, bias=True)
        self.lif_first = shortcut == "ms"
        self.lif = neuron()
        self.conv_bn = conv

    def forward(self, x: Tensor) -> Tensor:
        """[T, B, C, H, W] -> [T, B, C', H/stride, W/stride]"""
        return self.conv_bn(self.lif(x)) if self.lif_first else self.lif(self.conv_bn(x))


class SepConv(Part):
    """Inverted separable convolution: 1x1 - BN - LIF - depthwise 7x7 - 1x1 - BN. Nothing lies between the last two convolutions.

    Args:
        channels: C of input and output.
        neuron: makes the LIF.
        expansion: width of the middle in units of C.
        kernel_size: of the depthwise convolution.
    """

    def __init__(self, channels: int, neuron, expansion: int = 2, kernel_size: int = 7):
        super().__init__()
        hidden = expansion * channels
        self.expand = ConvBN(channels, hidden)
        self.lif = neuron()
        self.depthwise = nn.Conv2d(hidden, hidden, kernel_size, padding=kernel_size // 2, groups=hidden, bias=False)
        self.project = ConvBN(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Spikes [T, B, C, H, W] -> potentials [T, B, C, H, W]"""
        return self.project(per_step(self.depthwise, self.lif(self.expand(x))))

    @property
    def chain(self) -> tuple[str, ...]:
        """The last two, unless they are one already."""
        return ("depthwise", "project.conv") if isinstance(self.depthwise, nn.Conv2d) else ()

    def merged(self, choices: MergeChoices) -> nn.Module:
        """One 7x7 of the last two, whose normalisation is folded already: K[o,c,u,v] = W[o,c] D[c,u,v], with the bias of W."""
        if choices.sepconv and self.chain and choices.free(self.depthwise, self.project):
            depthwise, project = (cast(nn.Conv2d, self.get_submodule(name)) for name in self.chain)
            kernel = composed([(depthwise.weight, depthwise.groups), (project.weight, 1)])
            self.project = PerStep(OrderedDict(conv=convolution(kernel, project.bias, project.weight)))
            self.depthwise = nn.Identity()
        return self


class ConvBlock(nn.Module):
    """U + SepConv(LIF(U)), then U + ChannelConv(LIF(U)).

    Args:
        channels: C of input and output.
        neuron: makes the LIFs.
        residual: puts a shortcut around a branch.
        mlp_ratio: width of the ChannelConv's middle in units of C.
    """

    def __init__(self, channels: int, neuron, residual: Callable[..., Residual], mlp_ratio: float):
        super().__init__()
        self.sep_conv = residual(SepConv(channels, neuron))
        self.channel_conv = residual(ChannelMixer(channels, neuron, mlp_ratio, kernel_size=3))

    def forward(self, x: Tensor) -> Tensor:
        """Potentials [T, B, C, H, W] -> [T, B, C, H, W]"""
        return self.channel_conv(self.sep_conv(x))


class TransformerBlock(nn.Module):
    """U + SDSA(LIF(U)), then U + MLP(LIF(U)).

    Args:
        channels: C of input and output.
        neuron: makes the LIFs, for a threshold.
        residual: puts a shortcut around a branch.
        mlp_ratio: width of the MLP's middle in units of C.
        num_heads: of the attention.
        sdsa: its operator, 1 to 4.
        qkv: its projections, one of PROJECTIONS.
    """

    def __init__(
        self,
        channels: int,
        neuron,
        residual: Callable[..., Residual],
        mlp_ratio: float,
        num_heads: int,
        sdsa: int,
        qkv: str,
    ):
        super().__init__()
        attention = SpikingSelfAttention(channels, num_heads, PROJECTIONS[qkv], neuron, operator=sdsa)
        self.attention = residual(attention)
        self.mlp = residual(ChannelMixer(channels, neuron, mlp_ratio, bias=True))

    def forward(self, x: Tensor) -> Tensor:
        """Potentials [T, B, C, H, W] -> [T, B, C, H, W]"""
        return self.mlp(self.attention(x))


class Stage(nn.Module):
    """A downsampling layer (none in the first stage, where it is the stem) and blocks of one kind."""

    def __init__(self, downsample: nn.Module, blocks: Sequence[nn.Module]):
        super().__init__()
        self.downsample = downsample
        self.blocks = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        """[T, B, C, H, W] -> [T, B, C', H', W']"""
        return self.blocks(self.downsample(x))


class MetaSpikeFormer(SpikingBackbone):
    """Meta-SpikeFormer backbone and classifier.

    Args:
        dims: channels d0, d1, d2, d3; the first of the five stages has d0 / 2.
        depths: blocks per stage.
        blocks: kind of the blocks of each stage, "conv" or "transformer".
        strides: of the stem and of the downsampling in front of the other stages.
        stem_kernel: kernel size of the stem.
        num_heads: attention heads, a divisor of the channels of every transformer stage.
        mlp_ratio: width of ChannelConv's and the MLP's middle, in units of C.
        sdsa: attention operator, 1 to 4; see `SpikingSelfAttention`.
        qkv: "repconv" or "linear": the projections of the attention.
        shortcut: "ms" (membrane), "vs" (vanilla) or "sew"; see `Residual`.
        distillation: a second head for distillation: a pair of logits in train mode, their mean in eval mode.
        num_classes: 0 leaves the pooled features.
        in_chans: channels of the input.
        time_steps: T, how often a static image is shown.
        tau: membrane time constant of all neurons, in time steps.
        alpha: slope of the surrogate gradient of all neurons, 4 as published; the gradient of a smaller one reaches further from the
            threshold.
        drop_rate: dropout before the classifier.
        drop_path_rate: stochastic depth of the last block, growing linearly from 0. The reference builds it and never applies it.
        global_pool: "avg", or "" with num_classes=0: the last map as it is, averaged over time.

    Raises:
        ValueError: heads that do not divide, options that do not exist, tuples of the wrong length.
    """

    @checked
    def __init__(
        self,
        dims: Sequence[Count] = (64, 128, 256, 360),
        depths: Sequence[Index] = (1, 1, 2, 6, 2),
        blocks: Sequence[str] = ("conv", "conv", "conv", "transformer", "transformer"),
        strides: Sequence[Count] = (2, 2, 2, 2, 1),
        stem_kernel: Count = 7,
        num_heads: int = 8,
        mlp_ratio: Ratio = 4.0,
        sdsa: int = 3,
        qkv: str = "repconv",
        shortcut: str = "ms",
        distillation: bool = False,
        num_classes: Index = 1000,
        in_chans: Count = 3,
        time_steps: Steps = 4,
        tau: float = 2.0,
        alpha: Positive = 4.0,
        drop_rate: Share = 0.0,
        drop_path_rate: Share = 0.0,
        global_pool: str = "avg",
    ):
        super().__init__(in_chans, time_steps, global_pool)
        for name, values, count in (
            ("dims", dims, 4),
            ("depths", depths, 5),
            ("blocks", blocks, 5),
            ("strides", strides, 5),
        ):
            if len(values) != count:
                raise ValueError(f"{name} needs {count} values, one per stage, not {len(values)}: {tuple(values)}")
        for name, value, choices in [("qkv", qkv, PROJECTIONS), *(("blocks", kind, BLOCKS) for kind in blocks)]:
            if value not in choices:
                raise ValueError(f"{name} must be one of {', '.join(choices)}, not {value!r}")
        self.num_heads, self.tau, self.alpha, self.strides = num_heads, tau, alpha, tuple(strides)
        neuron = partial(LIF, tau, alpha=alpha)
        channels = (dims[0] // 2, *dims)
        rates = iter([drop_path_rate * i / max(sum(depths) - 1, 1) for i in range(sum(depths))])

        def block(kind: str, width: int) -> nn.Module:
            rate = next(rates)

            def residual(branch: nn.Module) -> Residual:
                return Residual(branch, neuron(), shortcut, rate)

            if kind == "conv":
                return ConvBlock(width, neuron, residual, mlp_ratio)
            return TransformerBlock(width, neuron, residual, mlp_ratio, num_heads, sdsa, qkv)

        self.stem = ConvBN(in_chans, channels[0], stem_kernel, strides[0], bias=True)
        first = nn.Identity() if shortcut == "ms" else neuron()  # spikes for the shortcuts that pass spikes on
        downsamples = [first] + [
            Downsample(channels[i - 1], channels[i], 3, strides[i], neuron, shortcut) for i in range(1, 5)
        ]
        self.stages = nn.ModuleList(
            Stage(downsamples[i], [block(blocks[i], channels[i]) for _ in range(depths[i])]) for i in range(5)
        )
        self.feature_info, reduction = [], 1
        for i in range(5):
            reduction *= strides[i]
            self.feature_info.append({"num_chs": channels[i], "reduction": reduction, "module": f"stages.{i}"})
        self.build_head(channels[-1], num_classes, drop_rate, neuron(), distillation)


def _cfg(**kwargs) -> dict:
    """timm's description of how a model wants its input: resize to 256 bicubic, crop 224 (Yao et al., ICLR 2024)."""
    return {
        "num_classes": 1000,
        "input_size": (3, 224, 224),
        "pool_size": (14, 14),
        "crop_pct": 0.875,
        "interpolation": "bicubic",
        "mean": IMAGENET_DEFAULT_MEAN,
        "std": IMAGENET_DEFAULT_STD,
        "first_conv": "stem.conv",
        "classifier": "head",
        **kwargs,
    }


default_cfgs = generate_default_cfgs(
    {
        "meta_spikeformer_15m": _cfg(),
        "meta_spikeformer_31m": _cfg(),
        "meta_spikeformer_55m": _cfg(),
        "meta_spikeformer_124m": _cfg(),
        "meta_spikeformer_cifar": _cfg(
            num_classes=10,
            input_size=(3, 32, 32),
            pool_size=(8, 8),
            crop_pct=1.0,
            mean=(0.4914, 0.4822, 0.4465),
            std=(0.2470, 0.2435, 0.2616),
        ),
    }
)


@register_model
def meta_spikeformer_15m(pretrained: bool = False, **kwargs) -> MetaSpikeFormer:
    """15,112,208 parameters; ImageNet-1K."""
    return build(MetaSpikeFormer, "meta_spikeformer_15m", pretrained, {"dims": (64, 128, 256, 360), **kwargs})


@register_model
def meta_spikeformer_31m(pretrained: bool = False, **kwargs) -> MetaSpikeFormer:
    """31,333,864 parameters; ImageNet-1K."""
    return build(MetaSpikeFormer, "meta_spikeformer_31m", pretrained, {"dims": (96, 192, 384, 480), **kwargs})


@register_model
def meta_spikeformer_55m(pretrained: bool = False, **kwargs) -> MetaSpikeFormer:
    """55,350,248 parameters, 55,991,248 with the distillation head; ImageNet-1K."""
    return build(MetaSpikeFormer, "meta_spikeformer_55m", pretrained, {"dims": (128, 256, 512, 640), **kwargs})


@register_model
def meta_spikeformer_124m(pretrained: bool = False, **kwargs) -> MetaSpikeFormer:
    """123,741,160 parameters; in the reference's factory list, not in the paper."""
    return build(MetaSpikeFormer, "meta_spikeformer_124m", pretrained, {"dims": (192, 384, 768, 960), **kwargs})


@register_model
def meta_spikeformer_cifar(pretrained: bool = False, **kwargs) -> MetaSpikeFormer:
    """Our size for 32-pixel images: full resolution in the first stage, 8 x 8 tokens in the last two."""
    sizes = dict(
        dims=(32, 64, 128, 192), depths=(1, 1, 1, 2, 1), strides=(1, 2, 2, 1, 1), stem_kernel=3, num_classes=10
    )
    return build(MetaSpikeFormer, "meta_spikeformer_cifar", pretrained, {**sizes, **kwargs})
