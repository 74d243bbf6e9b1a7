"""Spikingformer: spike-driven residual learning (Zhou et al., 2023, arXiv 2304.11954).

A convolutional tokenizer and transformer blocks in which every convolution but the first sees spikes; the residual stream is a
membrane potential. The published checkpoints also hold two LayerNorms per block that the forward pass never used; they are left
out here, and `load_published` accepts them.
"""
# Shapes: T time steps, B batch, C channels (D in the blocks), H W pixels, N = H*W tokens, h heads, d = D/h.

from collections.abc import Sequence
from functools import partial

from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import generate_default_cfgs
from torch import Tensor, nn

from .._arguments import Count, Index, Ratio, Share, Steps, checked
from ..layers import ChannelMixer, ConvBN, Residual, SpikingSelfAttention, per_step
from ..neurons import LIF
from ._backbone import SpikingBackbone
from ._registry import build, register_model

__all__ = ["Spikingformer"]


class TokenizerLayer(nn.Module):
    """LIF - (max pooling 3x3, stride 2) - convolution 3x3 - BN.

    With `cml` the pooling comes before the LIF, so that the gradient finds the largest potential (CML, Zhou et al., 2023,
    arXiv 2308.04672).

    Args:
        in_channels, out_channels: C and C'.
        neuron: makes the LIF.
        pool: whether it pools.
        cml: whether potentials are pooled instead of spikes.
    """

    def __init__(self, in_channels: int, out_channels: int, neuron, pool: bool, cml: bool):
        super().__init__()
        self.lif = neuron()
        self.pool = nn.MaxPool2d(3, 2, 1) if pool else nn.Identity()
        self.conv_bn = ConvBN(in_channels, out_channels, 3)
        self.cml = cml

    def forward(self, x: Tensor) -> Tensor:
        """Potentials [T, B, C, H, W] -> [T, B, C', H', W'], half as large if it pools"""
        x = self.lif(per_step(self.pool, x)) if self.cml else per_step(self.pool, self.lif(x))
        return self.conv_bn(x)


class Block(nn.Module):
    """U + SSA(LIF(U)), then U + MLP(LIF(U)).

    Args:
        dim: D.
        num_heads: of the attention.
        mlp_ratio: width of the MLP's middle in units of D.
        neuron: makes the LIFs, for a threshold.
        sdsa: operator of the attention, 1 to 4.
        shortcut: see `Residual`.
        drop_path: rate of stochastic depth.
    """

    def __init__(self, dim: int, num_heads: int, mlp_ratio: float, neuron, sdsa: int, shortcut: str, drop_path: float):
        super().__init__()
        attention = SpikingSelfAttention(
            dim,
            num_heads,
            projection=lambda channels: ConvBN(channels, channels),
            out_projection=lambda channels: ConvBN(channels, channels, bias=True),
            neuron=neuron,
            operator=sdsa,
        )
        mlp = ChannelMixer(dim, neuron, mlp_ratio, bias=True)
        self.attention = Residual(attention, neuron(), shortcut, drop_path)
        self.mlp = Residual(mlp, neuron(), shortcut, drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """Potentials [T, B, D, H, W] -> [T, B, D, H, W]"""
        return self.mlp(self.attention(x))


class Spikingformer(SpikingBackbone):
    """Spikingformer backbone and classifier.

    Args:
        embed_dim: D, a multiple of 8: the tokenizer's channels are D/8, D/4, D/2, D, D.
        depth: number of blocks.
        num_heads: attention heads, a divisor of D. The shape of the weights does not reveal it.
        mlp_ratio: width of the MLP's middle, in units of D.
        pools: which of the tokenizer's last four layers halve the resolution: all of them for ImageNet and event cameras, the
            last two for 32-pixel images.
        cml: pool potentials instead of spikes in the tokenizer.
        sdsa: attention operator, 1 to 4, of which 3 is the paper's; see `SpikingSelfAttention`.
        shortcut: "ms" (membrane, the paper's), "vs" (vanilla) or "sew"; see `Residual`.
        num_classes: 0 leaves the pooled features.
        in_chans: channels of the input; 2 polarities for event cameras.
        time_steps: T, how often a static image is shown.
        tau: membrane time constant of all neurons, in time steps: 2.0 for images, 1.5 (with CML 1.75) for event cameras.
        drop_rate: dropout before the classifier.
        drop_path_rate: stochastic depth of the last block, growing linearly from 0. The reference builds it and never applies it.
        global_pool: "avg", or "" with num_classes=0: the last map as it is, averaged over time.

    Raises:
        ValueError: heads that do not divide D, D not a multiple of 8, options that do not exist.
    """

    @checked
    def __init__(
        self,
        embed_dim: Count = 512,
        depth: Count = 8,
        num_heads: int = 8,
        mlp_ratio: Ratio = 4.0,
        pools: Sequence[bool] = (True, True, True, True),
        cml: bool = False,
        sdsa: int = 3,
        shortcut: str = "ms",
        num_classes: Index = 1000,
        in_chans: Count = 3,
        time_steps: Steps = 4,
        tau: float = 2.0,
        drop_rate: Share = 0.0,
        drop_path_rate: Share = 0.0,
        global_pool: str = "avg",
    ):
        super().__init__(in_chans, time_steps, global_pool)
        if embed_dim % 8:
            raise ValueError(f"embed_dim must be a multiple of 8 for the tokenizer's D/8 channels, not {embed_dim}")
        if len(pools) != 4:
            raise ValueError(f"pools needs 4 values, one for each tokenizer layer behind the first, not {len(pools)}")
        self.num_heads, self.tau, self.cml, self.pools = num_heads, tau, cml, tuple(map(bool, pools))
        neuron = partial(LIF, tau)
        widths = [embed_dim // 8, embed_dim // 4, embed_dim // 2, embed_dim, embed_dim]
        self.stem = ConvBN(in_chans, widths[0], 3)
        layers = [TokenizerLayer(widths[i], widths[i + 1], neuron, pools[i], cml) for i in range(4)]
        # the shortcuts that pass spikes on need spikes to begin with
        self.tokenizer = nn.Sequential(*layers, *([] if shortcut == "ms" else [neuron()]))
        rates = [drop_path_rate * i / max(depth - 1, 1) for i in range(depth)]
        self.stages = nn.ModuleList(
            Block(embed_dim, num_heads, mlp_ratio, neuron, sdsa, shortcut, rates[i]) for i in range(depth)
        )
        reduction = 2 ** sum(pools)
        self.feature_info = [
            {"num_chs": embed_dim, "reduction": reduction, "module": f"stages.{i}"} for i in range(depth)
        ]
        self.build_head(embed_dim, num_classes, drop_rate, nn.Identity())

    def embed(self, x: Tensor) -> Tensor:
        """Input -> tokens [T, B, D, H', W']."""
        return self.tokenizer(super().embed(x))


def _cfg(**kwargs) -> dict:
    """timm's description of how a model wants its input: bicubic, no centre crop."""
    return {
        "num_classes": 1000,
        "input_size": (3, 224, 224),
        "pool_size": (14, 14),
        "crop_pct": 1.0,
        "interpolation": "bicubic",
        "mean": IMAGENET_DEFAULT_MEAN,
        "std": IMAGENET_DEFAULT_STD,
        "first_conv": "stem.conv",
        "classifier": "head",
        **kwargs,
    }


_CIFAR = _cfg(
    num_classes=10,
    input_size=(3, 32, 32),
    pool_size=(8, 8),
    mean=(0.4914, 0.4822, 0.4465),
    std=(0.2470, 0.2435, 0.2616),
)
_DVS = _cfg(num_classes=11, input_size=(2, 128, 128), pool_size=(8, 8), mean=(0.0, 0.0), std=(1.0, 1.0))

default_cfgs = generate_default_cfgs(
    {
        "spikingformer_8_384": _cfg(),
        "spikingformer_8_512": _cfg(),
        "spikingformer_8_768": _cfg(),
        "spikingformer_cifar_2_256": _CIFAR,
        "spikingformer_cifar_4_256": _CIFAR,
        "spikingformer_cifar_2_384": _CIFAR,
        "spikingformer_cifar_4_384": _CIFAR,
        "spikingformer_dvs_2_256": _DVS,
    }
)


@register_model
def spikingformer_8_384(pretrained: bool = False, **kwargs) -> Spikingformer:
    """16,816,024 parameters (published with 12,288 unused ones more); ImageNet-1K."""
    return build(
        Spikingformer, "spikingformer_8_384", pretrained, {**dict(embed_dim=384, depth=8, num_heads=8), **kwargs}
    )


@register_model
def spikingformer_8_512(pretrained: bool = False, **kwargs) -> Spikingformer:
    """29,689,384 parameters (published with 16,384 unused ones more); ImageNet-1K."""
    return build(
        Spikingformer, "spikingformer_8_512", pretrained, {**dict(embed_dim=512, depth=8, num_heads=8), **kwargs}
    )


@register_model
def spikingformer_8_768(pretrained: bool = False, **kwargs) -> Spikingformer:
    """66,338,632 parameters (published with 24,576 unused ones more); ImageNet-1K."""
    return build(
        Spikingformer, "spikingformer_8_768", pretrained, {**dict(embed_dim=768, depth=8, num_heads=8), **kwargs}
    )


def _cifar(variant: str, pretrained: bool, embed_dim: int, depth: int, num_heads: int, kwargs: dict) -> Spikingformer:
    sizes = dict(
        embed_dim=embed_dim, depth=depth, num_heads=num_heads, pools=(False, False, True, True), num_classes=10
    )
    return build(Spikingformer, variant, pretrained, {**sizes, **kwargs})


@register_model
def spikingformer_cifar_2_256(pretrained: bool = False, **kwargs) -> Spikingformer:
    """2,566,954 parameters with 10 classes (published with 2,048 unused ones more).

    8 heads: the 12 of the published configuration do not divide 256.
    """
    return _cifar("spikingformer_cifar_2_256", pretrained, 256, 2, 8, kwargs)


@register_model
def spikingformer_cifar_4_256(pretrained: bool = False, **kwargs) -> Spikingformer:
    """4,152,106 parameters with 10 classes (published with 4,096 unused ones more).

    8 heads, also the published number for CIFAR-100: the 12 of the CIFAR-10 configuration do not divide 256.
    """
    return _cifar("spikingformer_cifar_4_256", pretrained, 256, 4, 8, kwargs)


@register_model
def spikingformer_cifar_2_384(pretrained: bool = False, **kwargs) -> Spikingformer:
    """5,762,746 parameters with 10 classes (published with 3,072 unused ones more). The CIFAR-100 weights want num_heads=8."""
    return _cifar("spikingformer_cifar_2_384", pretrained, 384, 2, 12, kwargs)


@register_model
def spikingformer_cifar_4_384(pretrained: bool = False, **kwargs) -> Spikingformer:
    """9,320,122 parameters with 10 classes (published with 6,144 unused ones more). The CIFAR-100 weights want num_heads=8."""
    return _cifar("spikingformer_cifar_4_384", pretrained, 384, 4, 12, kwargs)


@register_model
def spikingformer_dvs_2_256(pretrained: bool = False, **kwargs) -> Spikingformer:
    """2,566,923 parameters with 11 classes (published with 2,048 unused ones more); event cameras, 2 polarities, tau 1.5,
    with CML 1.75.

    128 x 128 pixels as published, and any other size of at least 16.
    """
    tau = 1.75 if kwargs.get("cml") else 1.5
    sizes = dict(embed_dim=256, depth=2, num_heads=16, in_chans=2, time_steps=16, tau=tau, num_classes=11)
    return build(Spikingformer, "spikingformer_dvs_2_256", pretrained, {**sizes, **kwargs})
