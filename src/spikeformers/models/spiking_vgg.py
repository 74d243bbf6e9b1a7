"""Spiking VGG-9, as widely trained on recordings of event cameras: the network of SSNN (AAAI 2024, arXiv 2401.01912) and its peers.

No layout was published with SSNN; 64-128-P-256-256-P-512-512-P-512-512-P-FC is the one in common use and our choice, and so are the
surrogate and pooling by averages.
"""
# Shapes: T time steps, B batch, C channels, H W pixels.

import math
from collections import OrderedDict
from typing import cast

from timm.layers.helpers import make_divisible, to_2tuple
from timm.models import generate_default_cfgs
from torch import Tensor, nn

from .._arguments import Count, Index, Ratio, Share, Steps, checked
from ..layers import ConvBN, per_step
from ..neurons import Neuron, maker
from ._backbone import SpikingBackbone
from ._registry import build, events_cfg, register_model

__all__ = ["SpikingVGG"]

POOLS = {"avg": nn.AvgPool2d, "max": nn.MaxPool2d}
WIDTHS = ((64, 128), (256, 256), (512, 512), (512, 512))


class Pool(nn.Module):
    """Pooling 2x2 with stride 2 at every time step: of spikes, their maxima are spikes and their averages quarters.

    Args:
        kind: "avg" or "max".

    Raises:
        ValueError: another kind.
    """

    def __init__(self, kind: str):
        super().__init__()
        if kind not in POOLS:
            raise ValueError(f"pool must be one of {', '.join(POOLS)}, not {kind!r}")
        self.pool = POOLS[kind](2)

    def forward(self, x: Tensor) -> Tensor:
        """[T, B, C, H, W] -> [T, B, C, H // 2, W // 2]"""
        return per_step(self.pool, x)


class SpikingVGG(SpikingBackbone):
    """Spiking VGG-9 backbone and classifier: 8 convolutions 3x3, each followed by BN and neurons, in four stages.

    A stage ends with its pooling, so the next one begins with a convolution. The classifier reads the flattened last map, so it is
    made for one size of images; feature maps come of any size.

    Args:
        width: multiplies the channels, which are rounded to multiples of 8.
        img_size: height and width of the images, or one number for both.
        pool: "avg" or "max". Behind averages the next convolution reads quarters instead of spikes.
        neuron: "lif" or "mlf", see `neurons.MLF`.
        num_classes: 0 leaves the flattened features.
        in_chans: channels of the input; 2 polarities for event cameras.
        time_steps: T, how often a static image is shown.
        tau: membrane time constant of all neurons, in time steps; None for that of their kind, 2 of LIF and 4/3 of MLF.
        decay_input: whether the leak divides the neurons' input as well; None for what is usual for their kind.
        surrogate: of all neurons: "rectangle", of width 1 around the threshold, "sigmoid", "atan" or "triangle".
        drop_rate: dropout before the classifier.
        global_pool: "avg", or "" with num_classes=0: the last map as it is, averaged over time.

    Raises:
        ValueError: images too small for four poolings, or options that do not exist.
    """

    @checked
    def __init__(
        self,
        width: Ratio = 1.0,
        img_size: Count | tuple[Count, Count] = 48,
        pool: str = "avg",
        neuron: str = "lif",
        num_classes: Index = 10,
        in_chans: Count = 2,
        time_steps: Steps = 5,
        tau: float | None = None,
        decay_input: bool | None = None,
        surrogate: str = "rectangle",
        drop_rate: Share = 0.0,
        global_pool: str = "avg",
    ):
        super().__init__(in_chans, time_steps, global_pool)
        self.img_size = cast(tuple[int, int], to_2tuple(img_size))
        if min(self.img_size) < 16:
            raise ValueError(f"img_size must be at least 16 for four poolings, not {img_size}")
        make_neuron = maker(neuron, tau=tau, decay_input=decay_input, surrogate=surrogate)
        widths = [[make_divisible(width * channels, 8) for channels in stage] for stage in WIDTHS]
        self.stem = ConvBN(in_chans, widths[0][0], 3)
        self.stages = nn.ModuleList()
        self.feature_info = []
        for i, (first, second) in enumerate(widths):
            layers = OrderedDict()
            if i > 0:  # the first stage's is the stem
                layers["conv1"] = ConvBN(widths[i - 1][1], first, 3)
            layers.update(lif1=make_neuron(), conv2=ConvBN(first, second, 3), lif2=make_neuron(), pool=Pool(pool))
            self.stages.append(nn.Sequential(layers))
            self.feature_info.append({"num_chs": second, "reduction": 2 ** (i + 1), "module": f"stages.{i}"})
        self.map_size = tuple(side // 16 for side in self.img_size)
        self.tau = next(module.constants.tau for module in self.modules() if isinstance(module, Neuron))
        self.build_head(widths[-1][1] * math.prod(self.map_size), num_classes, drop_rate, nn.Identity())

    def pooled(self, x: Tensor) -> Tensor:
        """[T, B, C, H, W] -> what the head sees of a map, [T, B, C*H*W]: all of it.

        Raises:
            ValueError: the map is of another size than the classifier was made for.
        """
        if self.num_classes > 0 and x.shape[3:] != self.map_size:
            raise ValueError(
                f"the classifier was made for images of {' x '.join(map(str, self.img_size))}, whose last map is "
                f"{' x '.join(map(str, self.map_size))}, and got one of {' x '.join(map(str, x.shape[3:]))}; resize the images, or create "
                "the model with img_size=(height, width)"
            )
        return x.flatten(2)


default_cfgs = generate_default_cfgs({"spiking_vgg9": events_cfg((3, 3))})


@register_model
def spiking_vgg9(pretrained: bool = False, **kwargs) -> SpikingVGG:
    """9,268,746 parameters with 10 classes; event cameras, 48 x 48 pixels, 2 polarities."""
    return build(SpikingVGG, "spiking_vgg9", pretrained, kwargs)
