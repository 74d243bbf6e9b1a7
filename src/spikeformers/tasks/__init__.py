"""A backbone and a head for a task. Shapes: T time steps, B batch, C channels, H W pixels, R regions of interest, K classes."""

from .detection import faster_rcnn, mask_rcnn
from .segmentation import semantic_fpn

__all__ = ["faster_rcnn", "mask_rcnn", "semantic_fpn"]
