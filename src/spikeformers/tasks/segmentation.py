"""Semantic FPN (Kirillov et al., CVPR 2019) around spiking backbones, as in Yao et al., ICLR 2024.

Maps of the last stage at each stride are averaged over time (or not, see `readout`), go through a spiking feature pyramid, and
then, LIF - 3x3 convolution - BN - bilinear doubling, until all have the size of the first. Their sum is read by LIF - 1x1 convolution.
"""
# Shapes: T time steps, B batch, C channels, H W pixels, K classes.

import math
from collections.abc import Callable, Sequence

from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import FeaturePyramidNetwork

from .._arguments import Share, checked
from ..layers import ConvBN
from ..models._backbone import SpikingBackbone
from ..models._registry import register_task
from ..models.network import configure
from .pyramid import (
    DenseModel,
    Maps,
    SpikingFPN,
    body_of,
    check_heads,
    check_stages,
    check_whole,
    drawn,
    last_of_each_stride,
    neuron_of,
    resized,
)


class Doubling(nn.Module):
    """LIF - 3x3 convolution - BN, or without neurons 3x3 convolution - BN - ReLU, then twice the height and width unless `keep`.

    Args:
        in_channels, out_channels: of the convolution.
        neuron: makes the LIF; None for ReLU.
        keep: whether the size stays.
    """

    def __init__(self, in_channels: int, out_channels: int, neuron: Callable[[], nn.Module] | None, keep: bool):
        super().__init__()
        self.lif = neuron() if neuron else nn.Identity()
        self.conv_bn = ConvBN(in_channels, out_channels, 3)
        self.act = nn.Identity() if neuron else nn.ReLU()
        self.keep = keep

    def forward(self, x: Tensor) -> Tensor:
        """[T, B, C, H, W] -> [T, B, C', H, W] or [T, B, C', 2 H, 2 W]"""
        x = self.act(self.conv_bn(self.lif(x)))
        height, width = x.shape[-2:]
        return x if self.keep else resized(x, (2 * height, 2 * width), "bilinear")


class SemanticHead(nn.Module):
    """Scale heads, one per map, whose sum LIF - 1x1 convolution reads.

    Args:
        in_channels: of the pyramid's maps.
        out_channels: of the scale heads.
        strides: of the maps; powers of two times the first.
        num_classes: K.
        neuron: makes the neurons; None for a head without.
        drop_rate: dropout of channels before the last layer.
    """

    def __init__(
        self, in_channels: int, out_channels: int, strides: Sequence[int], num_classes: int, neuron, drop_rate: float
    ):
        super().__init__()
        self.scales = nn.ModuleList()
        for stride in strides:
            doublings = round(math.log2(stride / strides[0]))
            layers = [
                Doubling(in_channels if i == 0 else out_channels, out_channels, neuron, keep=doublings == 0)
                for i in range(max(1, doublings))
            ]
            self.scales.append(nn.Sequential(*layers))
        self.lif = neuron() if neuron else nn.Identity()
        self.drop = nn.Dropout2d(drop_rate)
        self.classifier = drawn(nn.Conv2d(out_channels, num_classes, 1), 0.5)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """[T, B, C, H_i, W_i] -> logits [B, K, H_0, W_0], averaged over time"""
        size = maps[0].shape[-2:]
        total = sum(resized(scale(x), size, "bilinear") for scale, x in zip(self.scales, maps, strict=True))
        spikes = self.lif(total)
        return self.classifier(self.drop(spikes.flatten(0, 1))).unflatten(0, spikes.shape[:2]).mean(0)


class SemanticFPN(DenseModel):
    """See `semantic_fpn`.

    Args:
        backbone: feature maps of a spiking backbone.
        head: what makes logits of them.
        num_classes: K.
    """

    input_size = (512, 512)

    def __init__(self, backbone: Maps, head: SemanticHead, num_classes: int):
        super().__init__()
        self.backbone, self.head, self.num_classes = backbone, head, num_classes
        self.divisor = max(info["reduction"] for info in backbone.body.feature_info)

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images [B, C, H, W] or sequences [T, B, C, H, W] -> logits [B, K, H, W].

        Zeros at the right and the bottom bring height and width to multiples of the largest stride, so that all interpolation
        doubles.
        """
        height, width = x.shape[-2:]
        x = functional.pad(x, (0, -width % self.divisor, 0, -height % self.divisor))
        maps = self.backbone(x).values()
        logits = self.head(
            [found if found.ndim == 5 else found[None] for found in maps]
        )  # a float pyramid knows no time
        logits = resized(logits[None], x.shape[-2:], "bilinear")[0]
        return logits[..., :height, :width]


@register_task
@checked
def semantic_fpn(
    backbone: str | SpikingBackbone,
    num_classes: int = 150,
    heads: str = "spiking",
    readout: str = "neck",
    stages: Sequence[int] | None = None,
    width: int = 128,
    head_width: int = 128,
    drop_rate: Share = 0.0,
    tau: float | None = None,
    norm: bool = False,
    time_steps: int | None = None,
    backbone_kwargs: dict | None = None,
) -> SemanticFPN:
    """Semantic FPN with a spiking backbone: a class for every pixel.

    Args:
        backbone: a name of `list_models()`, or a model of it, of which a copy is taken.
        num_classes: K.
        heads: "spiking", or "float": a pyramid and a head with rectified units, behind the mean over time.
        readout: "neck", maps are averaged over time before the pyramid, as published; or "logits", pyramid and head see every
            time step and the logits are averaged.
        stages: indices of the stages that the pyramid reads; by default the last of each stride. Meta-SpikeFormer: strides 2, 4, 8, 16.
        width: channels of the pyramid.
        head_width: channels of the scale heads.
        drop_rate: dropout of whole channels before the last layer.
        tau: membrane time constant of pyramid and head, in time steps; by default the backbone's.
        norm: batch normalisation in the pyramid too; the published one has none. `merge` folds it away.
        time_steps: T, how often an image is shown; by default the backbone's own.
        backbone_kwargs: further options of the backbone, given by name.

    Raises:
        ValueError: an option or a stage does not exist.
    """
    check_heads(heads, readout)
    spiking = heads == "spiking"
    for name, value in (("num_classes", num_classes), ("width", width), ("head_width", head_width)):
        check_whole(name, value)
    body, made = body_of(backbone, backbone_kwargs, time_steps)
    stages = check_stages(body, last_of_each_stride(body) if stages is None else stages)
    channels = [body.feature_info[i]["num_chs"] for i in stages]
    strides = [body.feature_info[i]["reduction"] for i in stages]
    neuron = neuron_of(body, tau)
    neck = SpikingFPN(channels, width, neuron, norm=norm) if spiking else FeaturePyramidNetwork(channels, width)
    head = SemanticHead(width, head_width, strides, num_classes, neuron if spiking else None, drop_rate)
    model = SemanticFPN(Maps(body, stages, neck, width, readout, keep_time=spiking), head, num_classes)
    if made:
        given = {"num_classes": num_classes, "heads": heads, "readout": readout, "stages": stages, "width": width}
        given |= {"head_width": head_width, "drop_rate": drop_rate, "tau": tau, "norm": norm}
        configure(model, "semantic_fpn", {**made, **given})
    return model
