"""Images with a class for every pixel: folders of images and masks, for semantic segmentation."""

from .meaning import IGNORED
from .options import MaskData
from .split import Masks

__all__ = ["IGNORED", "MaskData", "Masks"]
