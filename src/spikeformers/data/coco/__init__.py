"""Images with objects: data sets in COCO's JSON format, for detection and instance segmentation."""

from .options import CocoData
from .split import Coco

__all__ = ["Coco", "CocoData"]
