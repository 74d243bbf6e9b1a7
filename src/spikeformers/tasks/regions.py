"""Where detectors look: the size of images, anchors, and regions of feature maps."""
# Shapes: T time steps, B images, C channels, H W pixels, R regions of all images.

import math
from collections.abc import Sequence

from torch import Tensor
from torch.nn.functional import interpolate
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.transform import GeneralizedRCNNTransform, resize_boxes
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops.poolers import LevelMapper

SIZES = (32, 64, 128, 256, 512)
"""Sides of the anchors in pixels, from the first level of the pyramid to the last; those of the papers."""


class TemporalRoIAlign(MultiScaleRoIAlign):
    """RoIAlign at every time step, with strides that are given, not guessed from sizes.

    Regions of side s go to the level floor(log2(s / (14 * first stride))), limited to those that there are: with strides 4, 8, 16, 16
    to the levels of 56, 112, 224 and 448 pixels, as is usual for strides 4 to 32 (Lin et al., CVPR 2017, Eq. 1).

    Args:
        strides: of the maps, in pixels of the image; the maps are called "0", "1", ...
        output_size: height and width of a region.
    """

    def __init__(self, strides: Sequence[int], output_size: int):
        super().__init__([str(i) for i in range(len(strides))], output_size, sampling_ratio=2)
        self.strides = list(strides)
        self.scales = [1 / stride for stride in strides]
        self.map_levels = LevelMapper(0, len(strides) - 1, canonical_scale=14 * strides[0], canonical_level=0)

    def forward(self, x: dict[str, Tensor], boxes: list[Tensor], image_shapes: list[tuple[int, int]]) -> Tensor:
        """Maps [T, B, C, H_i, W_i] and boxes [R_b, 4] of B images -> [T, R, C, size, size]; maps without time give [R, C, size, size]."""
        first = x["0"]
        if first.ndim == 4:
            return super().forward(x, boxes, image_shapes)
        steps = len(first)
        flat = {name: maps.flatten(0, 1) for name, maps in x.items()}
        return super().forward(flat, boxes * steps, image_shapes * steps).unflatten(0, (steps, sum(map(len, boxes))))


class Anchors(AnchorGenerator):
    """torchvision's, in the images' precision: under autocast maps are in half, whose numbers above 256 are two pixels apart."""

    def forward(self, image_list, feature_maps: list[Tensor]) -> list[Tensor]:
        return super().forward(
            image_list,
            [found.new_empty((), dtype=image_list.tensors.dtype).expand(found.shape) for found in feature_maps],
        )


def anchors_of(levels: int, sizes: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    """For each level of a pyramid the sides of its anchors, ascending: one where there are as many levels as sizes, several that
    overlap where there are fewer levels, so that none is left out; all levels have as many, since they share one head."""
    many = math.ceil(len(sizes) / levels)
    last = len(sizes) - many
    return tuple(
        tuple(sizes[start : start + many]) for start in (round(i * last / max(1, levels - 1)) for i in range(levels))
    )


class Resizing(GeneralizedRCNNTransform):
    """torchvision's, but of a strip much longer than max_size times its width at least one pixel is left.

    Raises:
        ValueError: an image without pixels.
    """

    def resize(self, image: Tensor, target: dict[str, Tensor] | None = None) -> tuple[Tensor, dict[str, Tensor] | None]:
        height, width = image.shape[-2:]
        if not height or not width:
            raise ValueError(f"an image of {width}x{height} pixels has nothing to look at")
        scale = self.max_size / max(height, width)
        if self.fixed_size is not None or min(height, width) * scale >= 1:
            return super().resize(image, target)
        size = [max(1, int(side * scale)) for side in (height, width)]
        image = interpolate(image[None], size, mode="bilinear", align_corners=False)[0]
        if target is not None:
            target = {**target, "boxes": resize_boxes(target["boxes"], (height, width), size)}
            if "masks" in target:
                target["masks"] = interpolate(target["masks"][:, None].float(), size)[:, 0].byte()
        return image, target
