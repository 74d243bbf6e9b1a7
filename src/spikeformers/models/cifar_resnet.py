"""Dense ResNets for images of 32 pixels (He et al., 2015, arXiv 1512.03385, section 4.2): teachers, and what spiking networks are measured by.

They have no time axis, so they are models of timm and not of `spikeformers.list_models`: timm.create_model("cifar_resnet20").
"""
# Shapes: B batch, C channels, H W pixels.

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["CifarResNet"]


class BasicBlock(nn.Module):
    """ReLU(x + BN(conv(ReLU(BN(conv(x)))))).

    Where the size of the map changes the shortcut takes every second pixel and pads the new channels with zeros, half of them in front
    (the paper's option A), so it has no weights.

    Args:
        in_channels, out_channels: C and C'.
        stride: 1, or 2 for half the resolution.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int):
        super().__init__()
        self.stride, self.added = stride, (out_channels - in_channels) // 2
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C', H', W']"""
        branch = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        if self.stride > 1 or self.added:
            x = functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.added, self.added))
        return functional.relu(x + branch)


class CifarResNet(nn.Module):
    """A convolution, three stages of blocks at full, half and a quarter of the resolution, the mean over pixels, a linear classifier.

    Args:
        depth: blocks per stage.
        dims: channels of the three stages.
        num_classes: of the answer; 0 leaves the pooled features.
        in_chans: channels of the images.
    """

    layer1: nn.Module
    layer2: nn.Module
    layer3: nn.Module

    def __init__(self, depth: int, dims: tuple[int, int, int] = (16, 32, 64), num_classes: int = 10, in_chans: int = 3):
        super().__init__()
        self.num_classes, self.num_features = num_classes, dims[-1]
        self.conv1 = nn.Conv2d(in_chans, dims[0], 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(dims[0])
        before = dims[0]
        for i, channels in enumerate(dims):
            blocks = [BasicBlock(channels if j else before, channels, 1 if j or not i else 2) for j in range(depth)]
            setattr(self, f"layer{i + 1}", nn.Sequential(*blocks))
            before = channels
        self.linear = nn.Linear(before, num_classes) if num_classes else nn.Identity()
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> logits [B, classes]"""
        x = functional.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(x.mean((2, 3)))


def _cfg():
    return {
        "num_classes": 10,
        "input_size": (3, 32, 32),
        "pool_size": (8, 8),
        "crop_pct": 1.0,
        "interpolation": "bilinear",
        "mean": (0.485, 0.456, 0.406),
        "std": (0.229, 0.224, 0.225),
        "first_conv": "conv1",
        "classifier": "linear",
    }


default_cfgs = generate_default_cfgs({f"cifar_resnet{layers}": _cfg() for layers in (20, 32, 44, 56)})


def _build(variant, depth, pretrained, kwargs):
    return build_model_with_cfg(CifarResNet, variant, pretrained, depth=depth, **kwargs)


@register_model
def cifar_resnet20(pretrained: bool = False, **kwargs) -> CifarResNet:
    """269,722 parameters with 10 classes, 41 M multiply-adds."""
    return _build("cifar_resnet20", 3, pretrained, kwargs)


@register_model
def cifar_resnet32(pretrained: bool = False, **kwargs) -> CifarResNet:
    """464,154 parameters with 10 classes, 69 M multiply-adds."""
    return _build("cifar_resnet32", 5, pretrained, kwargs)


@register_model
def cifar_resnet44(pretrained: bool = False, **kwargs) -> CifarResNet:
    """658,586 parameters with 10 classes, 97 M multiply-adds."""
    return _build("cifar_resnet44", 7, pretrained, kwargs)


@register_model
def cifar_resnet56(pretrained: bool = False, **kwargs) -> CifarResNet:
    """853,018 parameters with 10 classes, 126 M multiply-adds."""
    return _build("cifar_resnet56", 9, pretrained, kwargs)
