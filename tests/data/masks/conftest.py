"""Small folders of images and masks."""

import numpy as np
import pytest
from PIL import Image

from spikeformers.data import MaskData


def write(root, name, mask, image=None, split="training"):
    """An image, black unless given, and its mask: a Pillow image or classes [H, W]."""
    for folder in ("images", "annotations"):
        (root / folder / split).mkdir(parents=True, exist_ok=True)
    mask = mask if isinstance(mask, Image.Image) else Image.fromarray(np.asarray(mask, np.uint8))
    mask.save(root / "annotations" / split / f"{name}.png")
    image = np.zeros((mask.height, mask.width, 3), np.uint8) if image is None else image
    Image.fromarray(image).save(root / "images" / split / f"{name}.png")


def masks(root, **options):
    return MaskData(root=str(root), val="training", **{"classes": 3, "batch_size": 1, **options})


@pytest.fixture(name="write")
def _write():
    return write


@pytest.fixture(name="masks")
def _masks():
    return masks
