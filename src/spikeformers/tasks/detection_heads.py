"""The heads of Faster and Mask R-CNN: spiking ones as in Yao et al., ICLR 2024, and torchvision's in full precision."""
# Shapes: T time steps, B images, C channels, H W pixels, R regions of all images, K classes with the background, A anchors per place.

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from torchvision.models.detection.rpn import RPNHead

from .pyramid import drawn, spike_layer


class SpikingRPNHead(nn.Module):
    """Region proposal network: LIF - 3x3 convolution, then LIF and one 1x1 convolution each for objectness and box, averaged over time.

    Args:
        channels: of the pyramid's maps.
        num_anchors: A, per place.
        neuron: makes the spiking neurons.
    """

    def __init__(self, channels: int, num_anchors: int, neuron):
        super().__init__()
        self.conv = spike_layer(nn.Conv2d(channels, channels, 3, padding=1), neuron)
        self.lif = neuron()
        self.cls_logits = drawn(nn.Conv2d(channels, num_anchors, 1), 0.3)
        self.bbox_pred = drawn(nn.Conv2d(channels, 4 * num_anchors, 1), 0.1)

    def forward(self, maps: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Maps [T, B, C, H_i, W_i] -> logits of objectness [B, A, H_i, W_i] and box deltas [B, 4 A, H_i, W_i]."""
        logits, deltas = [], []
        for x in maps:
            spikes = self.lif(self.conv(x))
            logits.append(_averaged(self.cls_logits, spikes))
            deltas.append(_averaged(self.bbox_pred, spikes))
        return logits, deltas


class SpikingBoxHead(nn.Module):
    """Two times LIF - linear layer, over what RoIAlign found.

    Args:
        channels: of the feature maps.
        neuron: makes the LIFs.
        size: height and width of what RoIAlign gives.
        width: of both layers.
        norm: whether batch normalisations follow.
    """

    def __init__(self, channels: int, neuron, size: int = 7, width: int = 1024, norm: bool = False):
        super().__init__()
        self.fc6 = spike_layer(nn.Linear(channels * size**2, width), neuron, norm)
        self.fc7 = spike_layer(nn.Linear(width, width), neuron, norm)

    def forward(self, x: Tensor) -> Tensor:
        """Regions [T, R, C, 7, 7] -> potentials [T, R, width]"""
        return self.fc7(self.fc6(x.flatten(2)))


class SpikingBoxPredictor(nn.Module):
    """Linear layers on analog potentials, as published, averaged over time. `merge` makes one layer of
    each of them and the layer before."""

    def __init__(self, width: int, num_classes: int):
        super().__init__()
        self.cls_score = _quiet(nn.Linear(width, num_classes), 0.01)
        self.bbox_pred = _quiet(nn.Linear(width, 4 * num_classes), 0.001)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """[T, R, width] -> logits [R, K] and box deltas [R, 4 K]"""
        return _averaged(self.cls_score, x), _averaged(self.bbox_pred, x)


class SpikingMaskHead(nn.Module):
    """Convolutions U + conv(LIF(U)), 3x3. The published ones have no shortcut, and from the third on their neurons never fire.

    Args:
        channels: of the feature maps.
        neuron: makes the LIFs.
        depth: how many convolutions.
        norm: whether batch normalisations follow.
    """

    def __init__(self, channels: int, neuron, depth: int = 4, norm: bool = False):
        super().__init__()
        convs = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(depth))
        self.convs = nn.ModuleList(spike_layer(conv, neuron, norm) for conv in convs)

    def forward(self, x: Tensor) -> Tensor:
        """Regions [T, R, C, 14, 14] -> potentials of the same shape"""
        for conv in self.convs:
            x = x + conv(x)
        return x


class SpikingMaskPredictor(nn.Module):
    """LIF - transposed convolution 2x2, LIF - 1x1 convolution, averaged over time.

    Args:
        channels: of the feature maps.
        num_classes: K, with the background.
        neuron: makes the LIFs.
        norm: whether a batch normalisation follows the first layer.
    """

    def __init__(self, channels: int, num_classes: int, neuron, norm: bool = False):
        super().__init__()
        self.upsample = spike_layer(nn.ConvTranspose2d(channels, channels, 2, 2), neuron, norm)
        self.lif = neuron()
        self.mask_logits = drawn(nn.Conv2d(channels, num_classes, 1), 0.3)

    def forward(self, x: Tensor) -> Tensor:
        """[T, R, C, 14, 14] -> logits [R, K, 28, 28]"""
        return _averaged(self.mask_logits, self.lif(self.upsample(x)))


class FloatRPNHead(RPNHead):
    """torchvision's; its answers are never in half precision."""

    def forward(self, x: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        logits, deltas = super().forward(x)
        return [precise(found) for found in logits], [precise(found) for found in deltas]


class FloatBoxPredictor(FastRCNNPredictor):
    """torchvision's; its answers are never in half precision."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        logits, deltas = super().forward(x)
        return precise(logits), precise(deltas)


def _averaged(layer: nn.Module, x: Tensor) -> Tensor:
    """The layer at every time step of [T, N, ...], averaged over time; never in half precision, which is too coarse for boxes."""
    return precise(layer(x.flatten(0, 1)).unflatten(0, x.shape[:2])).mean(0)


def precise(x: Tensor) -> Tensor:
    """x [...] at least in float32."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _quiet(layer: nn.Module, std: float) -> nn.Module:
    """A last layer: normal weights, so small that training starts without an opinion, and no bias."""
    nn.init.normal_(layer.weight, std=std)
    nn.init.zeros_(layer.bias)
    return layer
