"""Spiking ResNets: MS-ResNet (Hu et al., 2021, arXiv 2112.08954) and SEW ResNet (Fang et al., NeurIPS 2021, arXiv 2102.04159).

MS-ResNet adds membrane potentials, so that every convolution but the first and those of the shortcuts sees spikes; SEW ResNet
adds spikes, so that its streams are integers. Stage by stage both have the layers of ResNet-18.
"""
# Shapes: T time steps, B batch, C channels, H W pixels.

from collections import OrderedDict
from collections.abc import Sequence

from timm.models import generate_default_cfgs
from torch import Tensor, nn

from .._arguments import Count, Index, Share, Steps, checked
from ..layers import ConvBN, DropPath, Part, Redistributed, frames_of, per_step
from ..neurons import Neuron, maker
from ._backbone import SpikingBackbone
from ._registry import build, events_cfg, register_model
from .shipped import shipped_cfgs

__all__ = ["SEWResNet", "SpikingResNet"]

STEMS = ("small", "imagenet")


class MSBlock(Part):
    """U + BN(conv(LIF(BN(conv(LIF(U)))))): membrane potentials in and out.

    Where the size of the map changes the shortcut is a convolution 1x1 - BN on the potential, as published: it reads real
    numbers, not spikes. With `every_conv` a shortcut leads around each convolution, as in Bi-Real Net (Liu et al., ECCV 2018,
    arXiv 1808.00278): V = U + BN(conv(LIF(U))), then V + BN(conv(LIF(V))). That costs nothing, and no gradient passes more than one
    neuron on its way to a convolution.

    Args:
        in_channels, out_channels: C and C'.
        stride: of the first convolution.
        neuron: makes the LIFs.
        drop_path: rate of stochastic depth.
        every_conv: whether a shortcut leads around each convolution.
    """

    def __init__(
        self, in_channels: int, out_channels: int, stride: int, neuron, drop_path: float, every_conv: bool = False
    ):
        super().__init__()
        self.every_conv = every_conv
        self.lif1, self.conv1 = neuron(), ConvBN(in_channels, out_channels, 3, stride)
        self.lif2, self.conv2 = neuron(), ConvBN(out_channels, out_channels, 3)
        same = in_channels == out_channels and stride == 1
        self.shortcut = nn.Identity() if same else ConvBN(in_channels, out_channels, 1, stride)
        self.drop_path = DropPath(drop_path)

    takes_redistributed = True  # the shortcut is then computed once

    def forward(self, x: Tensor | Redistributed) -> Tensor:
        """Potentials [T, B, C, H, W] -> [T, B, C', H', W']"""
        inner = self.conv1(self.lif1(frames_of(x)))
        if self.every_conv:
            inner = frames_of(self.shortcut(x)) + self.drop_path(inner)
            return inner + self.drop_path(self.conv2(self.lif2(inner)))
        return frames_of(self.shortcut(x)) + self.drop_path(self.conv2(self.lif2(inner)))


class SEWBlock(Part):
    """s + LIF(BN(conv(LIF(BN(conv(s)))))): integers in and out, one more at most with every block.

    Where the size of the map changes the shortcut is a convolution 1x1 - BN - LIF, so the count begins again. In training drop_path
    scales the branch's spikes.

    Args:
        in_channels, out_channels: C and C'.
        stride: of the first convolution.
        neuron: makes the LIFs.
        drop_path: rate of stochastic depth.
        every_conv: of `MSBlock`; must be False.

    Raises:
        ValueError: every_conv is True.
    """

    def __init__(
        self, in_channels: int, out_channels: int, stride: int, neuron, drop_path: float, every_conv: bool = False
    ):
        super().__init__()
        if every_conv:
            raise ValueError(
                'shortcuts="conv" leads around every convolution of membrane potentials; SEW ResNet adds spikes'
            )
        self.conv1, self.lif1 = ConvBN(in_channels, out_channels, 3, stride), neuron()
        self.conv2, self.lif2 = ConvBN(out_channels, out_channels, 3), neuron()
        self.shortcut = nn.Identity()
        if in_channels != out_channels or stride != 1:
            conv_bn = ConvBN(in_channels, out_channels, 1, stride)
            self.shortcut = nn.Sequential(OrderedDict(conv_bn=conv_bn, lif=neuron()))
        self.drop_path = DropPath(drop_path)

    takes_redistributed = True  # first convolution and shortcut are then computed once

    def forward(self, x: Tensor | Redistributed) -> Tensor:
        """Integers [T, B, C, H, W] -> [T, B, C', H', W']"""
        branch = self.lif2(self.conv2(self.lif1(self.conv1(x))))
        return frames_of(self.shortcut(x)) + self.drop_path(branch)


class FirstSpikes(nn.Module):
    """LIF, and pooling by maximum 3x3 with stride 2 behind the stem of ImageNet."""

    def __init__(self, neuron, pool: bool):
        super().__init__()
        self.lif = neuron()
        self.pool = nn.MaxPool2d(3, 2, 1) if pool else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Potentials [T, B, C, H, W] -> spikes [T, B, C, H', W']"""
        return per_step(self.pool, self.lif(x))


class ResNet(SpikingBackbone):
    """What the two have in common: a stem and four stages of blocks, all but the first of half the resolution.

    Args:
        dims: channels of the four stages; the stem has the first's.
        depths: blocks per stage.
        stem: "small", a convolution 3x3 that keeps the size, or "imagenet", 7x7 with stride 2 and once more half the size: by
            pooling spikes (SEW ResNet), or by the stride of the first block (MS-ResNet).
        neuron: "lif" or "mlf", see `neurons.MLF`.
        num_classes: 0 leaves the pooled features.
        in_chans: channels of the input; 2 polarities for event cameras.
        time_steps: T, how often a static image is shown.
        tau: membrane time constant of all neurons, in time steps; None for that of their kind, 2 of LIF and 4/3 of MLF.
        decay_input: whether the leak divides the neurons' input as well; None for what is usual for their kind.
        surrogate: of all neurons: "rectangle", of width 1 around the threshold, "sigmoid", "atan" or "triangle".
        drop_rate: dropout before the classifier.
        drop_path_rate: stochastic depth of the last block, growing linearly from 0; not in the papers.
        global_pool: "avg", or "" with num_classes=0: the last map as it is, averaged over time.
        shortcuts: "block", one around two convolutions as published, or "conv", one around each; see `MSBlock`.

    Raises:
        ValueError: options that do not exist, tuples of the wrong length.
    """

    block: type[nn.Module]
    adds_spikes: bool

    @checked
    def __init__(
        self,
        dims: Sequence[Count] = (64, 128, 256, 512),
        depths: Sequence[Count] = (2, 2, 2, 2),
        stem: str = "small",
        neuron: str = "lif",
        num_classes: Index = 10,
        in_chans: Count = 2,
        time_steps: Steps = 5,
        tau: float | None = None,
        decay_input: bool | None = None,
        surrogate: str = "rectangle",
        drop_rate: Share = 0.0,
        drop_path_rate: Share = 0.0,
        global_pool: str = "avg",
        shortcuts: str = "block",
    ):
        super().__init__(in_chans, time_steps, global_pool)
        if shortcuts not in ("block", "conv"):
            raise ValueError(f"shortcuts must be 'block' or 'conv', not {shortcuts!r}")
        for name, values in (("dims", dims), ("depths", depths)):
            if len(values) != 4:
                raise ValueError(f"{name} needs 4 values of at least 1, one per stage, not {tuple(values)}")
        if stem not in STEMS:
            raise ValueError(f"stem must be one of {', '.join(STEMS)}, not {stem!r}")
        make_neuron = maker(neuron, tau=tau, decay_input=decay_input, surrogate=surrogate)
        large = stem == "imagenet"
        self.stem = ConvBN(in_chans, dims[0], 7, 2) if large else ConvBN(in_chans, dims[0], 3)
        strides = [2 if large and not self.adds_spikes else 1, 2, 2, 2]
        rates = iter([drop_path_rate * i / max(sum(depths) - 1, 1) for i in range(sum(depths))])
        self.stages, self.feature_info = nn.ModuleList(), []
        for i, (channels, depth) in enumerate(zip(dims, depths, strict=True)):
            before = dims[max(i - 1, 0)]
            blocks = [
                self.block(
                    channels if j else before,
                    channels,
                    1 if j else strides[i],
                    make_neuron,
                    next(rates),
                    shortcuts == "conv",
                )
                for j in range(depth)
            ]
            first = {"spikes": FirstSpikes(make_neuron, large)} if i == 0 and self.adds_spikes else {}
            self.stages.append(nn.Sequential(OrderedDict(**first, blocks=nn.Sequential(*blocks))))
            reduction = 2**i * (4 if large else 1)
            self.feature_info.append({"num_chs": channels, "reduction": reduction, "module": f"stages.{i}"})
        self.last_lif = nn.Identity() if self.adds_spikes else make_neuron()
        self.tau = next(module.constants.tau for module in self.modules() if isinstance(module, Neuron))
        self.build_head(dims[-1], num_classes, drop_rate, nn.Identity())

    def last_map(self, x: Tensor) -> Tensor:
        """Potentials or integers [T, B, C, H, W] -> spikes or integers, whose means over pixels the head sees."""
        return self.last_lif(x)


class SpikingResNet(ResNet):
    """MS-ResNet backbone and classifier: membrane shortcuts, hence feature maps of potentials, which fire before the head. Options
    as for `ResNet`."""

    block, adds_spikes = MSBlock, False


class SEWResNet(ResNet):
    """SEW ResNet backbone and classifier: shortcuts that add spikes, hence feature maps of integers. Options as for `ResNet`.

    The paper's neurons do not leak; here they are LIF, as in the other backbones.
    """

    block, adds_spikes = SEWBlock, True


def _images_cfg():
    return {
        **events_cfg((4, 4)),
        "input_size": (3, 32, 32),
        "mean": (0.4914, 0.4822, 0.4465),
        "std": (0.2470, 0.2435, 0.2616),
    }


default_cfgs = generate_default_cfgs(
    {
        **{name: events_cfg((6, 6)) for name in ("spiking_resnet18", "sew_resnet18")},
        **shipped_cfgs("spiking_resnet_edge", _images_cfg()),
    }
)


@register_model
def spiking_resnet18(pretrained: bool = False, **kwargs) -> SpikingResNet:
    """11,173,386 parameters with 10 classes; MS-ResNet-18 for event cameras, 48 x 48 pixels, 2 polarities, and any other size of at least 8."""
    return build(SpikingResNet, "spiking_resnet18", pretrained, kwargs)


@register_model
def sew_resnet18(pretrained: bool = False, **kwargs) -> SEWResNet:
    """11,173,386 parameters with 10 classes; SEW ResNet-18 for event cameras, 48 x 48 pixels, 2 polarities, and any other size of at least 8."""
    return build(SEWResNet, "sew_resnet18", pretrained, kwargs)


@register_model
def spiking_resnet_edge(pretrained: bool = False, **kwargs) -> SpikingResNet:
    """1,499,802 parameters with 10 classes, 65 M multiply-adds; for images of 32 pixels in one time step, on small devices. Ours: little
    at the highest resolution, channels in multiples of 64 behind it, a shortcut around every convolution."""
    sizes = {
        "dims": (16, 64, 128, 256),
        "depths": (1, 1, 2, 1),
        "in_chans": 3,
        "time_steps": 1,
        "tau": 1.0,
        "shortcuts": "conv",
    }
    return build(SpikingResNet, "spiking_resnet_edge", pretrained, {**sizes, "surrogate": "triangle", **kwargs})
